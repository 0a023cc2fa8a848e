//! The protocol: constants, reply codes, a module per class with a struct per method, and the
//! legality table.
//!
//! Generated from the specification at build time, so that each fact of the specification is
//! written once.

include!(concat!(env!("OUT_DIR"), "/protocol.rs"));
