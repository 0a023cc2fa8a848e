//! Making clients.

use std::{sync::Arc, task::Waker};

use amqp_driver::{Config, ConnectError, Options};

use super::{
    Promise,
    client::{Client, Descriptor},
};
use crate::{reactor::Reactor, stream::BlockingSocket};

/// Begins to connect to the server that an AMQP URI names, as [`connect_with`] does. The promise is
/// fulfilled with [`Answer::Connected`](super::Answer::Connected), or has the reason why not.
///
/// # Errors
/// When the URI is wrong.
pub fn connect(uri: &str) -> Result<(Client, Promise), ConnectError> {
    connect_with(&Options::from_uri(uri)?)
}

/// Begins to connect as the options say. The promise is as that of [`connect`].
///
/// The names of hosts are resolved by the system within a turn of the client, **which may block**:
/// give addresses where that must not be.
///
/// # Errors
/// When the system gives no descriptor.
pub fn connect_with(options: &Options) -> Result<(Client, Promise), ConnectError> {
    Ok(Client::connect(options.clone(), park()?))
}

/// Opens a connection over a stream that was made elsewhere, which becomes non-blocking. The promise
/// is as that of [`connect`].
///
/// # Errors
/// When the system gives no descriptor.
pub fn from_stream(
    stream: impl Into<BlockingSocket>,
    config: Config,
) -> Result<(Client, Promise), ConnectError> {
    let stream = stream.into().into_stream();
    Ok(Client::from_transport(stream, config, park()?))
}

fn park() -> Result<(Descriptor, Reactor, Waker), ConnectError> {
    let (reactor, waker) = Reactor::new().map_err(|error| ConnectError::System(error.into()))?;
    let descriptor = Descriptor::new(Arc::clone(&reactor.registry));
    Ok((descriptor, reactor, waker))
}
