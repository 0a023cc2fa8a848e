//! The client for an event loop of one's own: without a thread, without `async`.
//!
//! [`Client`] is that of [`amqp_driver::promises`], where it is described, over sockets of its own:
//! TCP and Unix sockets, one host or several, with TLS or without.
//!
//! On Unix a loop watches its descriptor; elsewhere there is none, and it brings the loop.

#[cfg(unix)]
use std::os::fd::{AsFd, BorrowedFd};
use std::{sync::Arc, task::Waker};

use amqp_driver::{Config, ConnectError, Options, promises};
use mio::Registry;

pub use amqp_driver::promises::{Answer, Error, Message, Promise, PublishError};

use crate::{Blocking, BlockingSocket, reactor::Reactor};

/// A connection for an event loop of one's own.
pub type Client = promises::Client<Descriptor>;

/// Begins to connect to the server that an AMQP URI names, as [`connect_with`] does. The promise is
/// fulfilled with [`Answer::Connected`], or has the reason why not.
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
    Ok(Client::connect(Blocking, options.clone(), park()?))
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
    Ok(Client::from_transport(Blocking, stream, config, park()?))
}

/// What a loop watches for input in place of the sockets of a [`Client`].
#[derive(Debug)]
pub struct Descriptor(Arc<Registry>);

#[cfg(unix)]
impl AsFd for Descriptor {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

fn park() -> Result<(Descriptor, Reactor, Waker), ConnectError> {
    let (reactor, waker) = Reactor::new().map_err(|error| ConnectError::System(error.into()))?;
    let descriptor = Descriptor(Arc::clone(&reactor.registry));
    Ok((descriptor, reactor, waker))
}
