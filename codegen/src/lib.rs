//! Generates the Rust source of `amqp_core::protocol` from the AMQP 0-9-1 specification.
//!
//! The specification is two XML files inside this crate: the standard, and RabbitMQ's extensions,
//! which are merged on top. The whole source is derived from them by rules; there is no list of
//! classes or methods here. `amqp-core/build.rs` calls [`generate`], and the core includes the
//! result:
//!
//! ```
//! let source = amqp_codegen::generate()?;
//! assert!(source.contains("pub struct DeclareOk {"));
//! # Ok::<(), amqp_codegen::Error>(())
//! ```
//!
//! Each step has a module: read a file (`xml`), merge all files (`merge`), check the result and
//! resolve its names (`model`), write the source (`emit`). The output is deterministic, and not
//! formatted. A copy that rustfmt has formatted is kept in `tests/golden/protocol.rs`, so that
//! changes can be reviewed.
//!
//! # Schema
//!
//! The schema is that of the published specification: `amqp`, `constant`, `domain`, `class`,
//! `method`, `field`, `response`, `chassis`, `assert` and `doc`. Anything else is an [`Error`].
//! Four attributes are additions:
//!
//! * `secret="1"` on a field: a long string that must not be logged;
//! * `default="1"` on a field: a bit that is set in the `Default` of its method;
//! * `sent-by="client"` or `sent-by="server"` on a method: the sender, if the `chassis` of the
//!   method name the wrong side or both;
//! * `own-command="1"` on a method: a request that a client sends by a command of its own, because
//!   more than its reply follows.
//!
//! A `doc` is plain text with `code` in backticks; an empty line separates paragraphs. Its lines
//! become those of the documentation.
//!
//! # Merging
//!
//! A later file may repeat a class, method or field with additions only: a class gains methods and
//! properties, a method gains `chassis`, responses and fields, and each of them gains documentation
//! and missing attributes. A present attribute may be repeated with the same value. Constants,
//! domains and responses must not be repeated.

mod emit;
mod error;
mod merge;
mod model;
mod xml;

#[cfg(test)]
mod tests;

pub use error::{Error, ErrorKind};

/// The built-in specification: the standard, then RabbitMQ's extensions.
const SOURCES: [&str; 2] = [
    include_str!(concat!(env!("AMQP_SPEC"), "/amqp0-9-1.xml")),
    include_str!(concat!(env!("AMQP_SPEC"), "/rabbitmq.xml")),
];

/// Generates the source from the built-in specification.
pub fn generate() -> Result<String, Error> {
    generate_from(&SOURCES)
}

/// Generates the source from XML texts, each merged on top of the earlier ones.
pub fn generate_from(sources: &[&str]) -> Result<String, Error> {
    Ok(emit::source(&spec(sources)?))
}

/// Generates the source of `amqp_core::strategies::methods` from the built-in specification: a
/// strategy of proptest for each method and for the properties.
pub fn generate_strategies() -> Result<String, Error> {
    Ok(emit::strategies(&spec(&SOURCES)?))
}

/// Generates the layouts of the arguments of all methods of the built-in specification, for fuzz
/// targets that build frames: `LAYOUTS` and `PROPERTIES`, of a type `Kind` of the includer.
pub fn generate_layouts() -> Result<String, Error> {
    Ok(emit::layouts(&spec(&SOURCES)?))
}

/// Generates a dictionary of the built-in specification in the format of libFuzzer
/// (<https://llvm.org/docs/LibFuzzer.html#dictionaries>).
pub fn generate_dictionary() -> Result<String, Error> {
    Ok(emit::dictionary(&spec(&SOURCES)?))
}

/// Reads, merges and checks XML texts.
fn spec(sources: &[&str]) -> Result<model::Spec, Error> {
    let mut documents = Vec::with_capacity(sources.len());
    for (source, text) in sources.iter().enumerate() {
        documents.push(xml::read(source, text)?);
    }
    model::Spec::new(documents)
}
