//! The protocol itself: constants, reply codes, a module per class with a struct per method, and
//! the table of what is legal where.
//!
//! Everything here is generated from the specification when the crate is built, so that whatever
//! the specification knows is written once.

include!(concat!(env!("OUT_DIR"), "/protocol.rs"));
