//! Peers on smol: its global executor.

use amqp_smol::Smol;

use crate::driver::{Events, Peer, Setup, StartError, start_on};

/// Starts a peer. Its tasks run on the runtime until it has stopped.
///
/// # Errors
/// [`StartError`], if a configuration contradicts itself or the storage cannot be read.
pub fn start(setup: impl Into<Setup>) -> Result<(Peer, Events), StartError> {
    start_on(Smol::default(), setup)
}
