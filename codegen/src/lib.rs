//! Turns the AMQP 0-9-1 specification into the Rust source of `amqp_core::protocol`.
//!
//! The specification is two XML files that travel inside this crate: the standard, and RabbitMQ's
//! extensions, which are merged on top. All that the source contains follows from them by rules;
//! nothing here knows a list of classes or methods. `amqp-core/build.rs` calls [`generate`], and
//! the core includes what it returns:
//!
//! ```
//! let source = amqp_codegen::generate()?;
//! assert!(source.contains("pub struct DeclareOk {"));
//! # Ok::<(), amqp_codegen::Error>(())
//! ```
//!
//! The steps have a module each: read a file (`xml`), merge all files (`merge`), check the whole
//! and resolve its names (`model`), write the source (`emit`). The same files give the same source,
//! which is laid out as rustfmt would do it. A copy of it is kept in `tests/golden/protocol.rs`, so
//! that a change can be read.
//!
//! # Schema
//!
//! The schema is that of the published specification: `amqp`, `constant`, `domain`, `class`,
//! `method`, `field`, `response`, `chassis`, `assert` and `doc`. Anything else is an [`Error`]. Three
//! attributes are our own:
//!
//! * `secret="1"` on a field: a long string that must not show up in a log;
//! * `default="1"` on a field: a bit that is set in the `Default` of its method;
//! * `sent-by="client"` or `sent-by="server"` on a method: who sends it, where its `chassis` name
//!   the wrong side or both.
//!
//! A `doc` is plain text with `code` in backticks; an empty line separates paragraphs.
//!
//! # Merging
//!
//! A later file may name a class, method or field again, with only what it adds: a class gains
//! methods and properties, a method gains `chassis`, responses and fields, all of them gain
//! documentation, and attributes that were not given before. An attribute that was given may be
//! repeated, but not changed. Constants, domains and responses are named once.

mod emit;
mod error;
mod merge;
mod model;
mod xml;

#[cfg(test)]
mod tests;

pub use error::{Error, ErrorKind};

/// The specification that is built in: the standard first, then RabbitMQ's extensions.
const SOURCES: [&str; 2] = [
    include_str!("../spec/amqp0-9-1.xml"),
    include_str!("../spec/rabbitmq.xml"),
];

/// Generates the source from the specification that is built in.
pub fn generate() -> Result<String, Error> {
    generate_from(&SOURCES)
}

/// Generates the source from XML texts, each of them merged on top of those before it.
pub fn generate_from(sources: &[&str]) -> Result<String, Error> {
    let mut documents = Vec::with_capacity(sources.len());
    for (source, text) in sources.iter().enumerate() {
        documents.push(xml::read(source, text)?);
    }
    Ok(emit::source(&model::Spec::new(documents)?))
}
