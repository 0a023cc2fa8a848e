//! Tests of the machine, without any I/O and under virtual time.

mod channel_close;
mod channels;
mod codec;
mod flow;
mod frames;
mod handshake;
mod handshake_end;
mod handshake_server;
mod legality;
mod malformed;
pub(crate) mod pair;
mod publishing;
pub(crate) mod sampler;
pub(crate) mod script;
mod secrets;
pub(crate) mod side;
mod sizes;
mod smoke;
mod splits;
mod text;
mod transactions;
