//! Tests of the machine, without any I/O and under virtual time.

pub(crate) mod pair;
pub(crate) mod sampler;
mod smoke;
