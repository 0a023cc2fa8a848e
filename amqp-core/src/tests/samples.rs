//! A sample of every method and of the properties, with the fields that a sampler gives.
//!
//! Generated from the specification at build time, as the methods are.

include!(concat!(env!("OUT_DIR"), "/samples.rs"));
