//! The common parts of the tests of several crates.
//!
//! - `cases`: the number of cases of a property.
//! - [`meter`]: an allocator that counts.
//! - [`frames`]: the frames of a client, as bytes.
//! - [`foreign`]: wakers that run code of a test.
//! - [`replay`] and [`pair`]: bodies of fuzz targets; the others are in `tests/fuzzing`.
//! - [`replies`]: the reply of a server to each request.
//! - `rig`, `world`, `peer`, `operations`: a client, a server and the bytes between them, in one thread,
//!   step by step, under a clock that the test turns.
//! - `name_server`: SRV records over DNS.
//! - [`ports`]: ports without a listener.
//! - `adapter`, `punctual`, `secured`: the tests that every adapter passes, on its runtime.

#![allow(
    missing_docs,
    missing_debug_implementations,
    clippy::missing_errors_doc,
    reason = "only tests use it"
)]

#[cfg(feature = "adapter")]
pub mod adapter;
#[cfg(feature = "proptest")]
mod cases;
pub mod foreign;
pub mod frames;
pub mod meter;
#[cfg(feature = "adapter")]
pub mod name_server;
#[cfg(feature = "client")]
pub mod operations;
pub mod pair;
#[cfg(feature = "client")]
pub mod peer;
pub mod ports;
#[cfg(feature = "client")]
pub mod punctual;
pub mod replay;
pub mod replies;
#[cfg(feature = "client")]
pub mod rig;
#[cfg(feature = "secured")]
pub mod secured;
#[cfg(feature = "client")]
pub mod world;

#[cfg(feature = "proptest")]
pub use self::cases::cases;
#[cfg(feature = "client")]
pub use self::{
    peer::{Confirming, Message, Peer, Saw},
    rig::{Order, Probe, Rig, Setup, Task},
    world::{Cut, World},
};
