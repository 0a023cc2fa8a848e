//! Peers on tokio: the runtime of the caller's context.

use amqp_tokio::Tokio;

use crate::driver::{Events, Peer, Setup, StartError, start_on};

/// Starts a peer. Its tasks run on the runtime until it has stopped.
///
/// # Errors
/// [`StartError`], if a configuration contradicts itself, the storage cannot be read, or there is no runtime here.
pub fn start(setup: impl Into<Setup>) -> Result<(Peer, Events), StartError> {
    start_on(Tokio, setup)
}
