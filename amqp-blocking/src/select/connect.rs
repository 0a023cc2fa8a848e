//! Creating clients.

use std::{sync::Arc, task::Waker};

use amqp_driver::{Config, ConnectError, Options};

use super::{
    Promise,
    client::{Client, Descriptor},
};
use crate::{reactor::Reactor, stream::BlockingSocket};

/// Begins to connect to the server of an [AMQP URI](https://www.rabbitmq.com/docs/uri-spec), as
/// [`connect_with`] does. The promise ends with [`Answer::Connected`](super::Answer::Connected) or
/// the error.
///
/// # Errors
/// If the URI is invalid, or the system cannot create a descriptor.
pub fn connect(uri: &str) -> Result<(Client, Promise), ConnectError> {
    connect_with(&Options::from_uri(uri)?)
}

/// Begins to connect according to the options. The promise is as that of [`connect`]. For a client
/// that goes on over a loss, see [Recovery](super#recovery).
///
/// The names of hosts are resolved by the system within a turn of the client, **which may block**:
/// use IP addresses to avoid that.
///
/// # Errors
/// If the system cannot create a descriptor.
pub fn connect_with(options: &Options) -> Result<(Client, Promise), ConnectError> {
    Ok(Client::connect(options.clone(), park()?))
}

/// Begins to open a connection over an existing stream, which becomes non-blocking. The promise is
/// as that of [`connect`].
///
/// # Errors
/// If the system cannot create a descriptor.
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
