//! The data types with serde, feature `serde`: the form that the documentation of
//! [`wire`](super) describes. A format for machines has each value as its tag and its content, and
//! a table as a sequence of names and values.

mod strings;
mod tables;
#[cfg(test)]
mod tests;
mod values;
