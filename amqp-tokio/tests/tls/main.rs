//! TLS, against the embedded broker behind it.

#![cfg(all(feature = "broker", feature = "tls", feature = "ring"))]

mod certificates;
mod clients;
mod handshake;
mod names;
mod options;
mod rig;
