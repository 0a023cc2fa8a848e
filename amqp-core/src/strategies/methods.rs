//! A strategy for every method and for the properties.
//!
//! Generated from the specification at build time, as the methods are.

include!(concat!(env!("OUT_DIR"), "/strategies.rs"));
