//! Tests of the machine, without any I/O and under virtual time.

mod codec;
mod legality;
pub(crate) mod pair;
pub(crate) mod sampler;
pub(crate) mod side;
mod smoke;
