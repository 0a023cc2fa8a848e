//! The bodies of the fuzz targets.
//!
//! Each takes any bytes, and panics if one of its checks fails. A target in `fuzz/` is a shim of a few
//! lines around its body. The tests of this crate run each body on its corpus, `fuzz/corpus`.

#![allow(missing_docs, reason = "only tests use it")]

pub mod broker;
pub mod foreign;
pub mod frames;
pub mod handles;
pub mod handshake;
pub mod layouts;
pub mod machines;
pub mod script;
pub mod seeds;
pub mod tables;
pub mod uri;

use amqp_test_support::meter::Counting;
pub use amqp_test_support::pair;

/// Every target measures memory.
#[global_allocator]
static COUNTING: Counting = Counting;

/// The name of a target, and its body.
pub type Target = (&'static str, fn(&[u8]));

/// All targets.
pub const TARGETS: [Target; 11] = [
    ("client", machines::client),
    ("server", machines::server),
    ("broker", broker::broker),
    ("frames", frames::frames),
    ("tables", tables::tables),
    ("methods", tables::methods),
    ("uri", uri::uri),
    ("handshake", handshake::handshake),
    ("pair", pair::pair),
    ("handles", handles::handles),
    ("foreign", foreign::foreign),
];
