//! Two connections behind one handle, with blocking calls.

use amqp_driver::{ConnectError, Error, Options};
use ref_cast::RefCast as _;

use crate::{
    handles::{Channel, Connection},
    linger::linger,
    runtime::Blocking,
    wait::wait,
};

/// A connection to publish and one to consume, behind one handle.
///
/// Wraps [`amqp_driver::ConnectionPair`], which says what it is for.
#[derive(Clone, Debug)]
pub struct ConnectionPair(amqp_driver::ConnectionPair);

/// Opens two connections according to the [options](amqp_driver#connecting). A thread of its own
/// drives each; both are dropped as that of [`connect`](crate::connect).
///
/// # Errors
/// As [`amqp_driver::connect_pair`]; [`ConnectError::TimedOut`] beyond the limit of
/// [`within`](crate::within).
pub fn connect_pair(options: &Options) -> Result<ConnectionPair, ConnectError> {
    let connected = wait(amqp_driver::connect_pair(&Blocking, options));
    let pair = connected.map_err(|_| ConnectError::TimedOut)??;
    pair.publishing().linger_on_drop(linger);
    pair.consuming().linger_on_drop(linger);
    Ok(pair.into())
}

impl ConnectionPair {
    /// The connection to publish on.
    #[must_use]
    pub fn publishing(&self) -> &Connection {
        Connection::ref_cast(self.0.publishing())
    }

    /// The connection to consume, fetch and acknowledge on. Publishing on it would let an alarm hold
    /// up the acknowledgements.
    #[must_use]
    pub fn consuming(&self) -> &Connection {
        Connection::ref_cast(self.0.consuming())
    }

    /// Opens a channel to publish on.
    ///
    /// # Errors
    /// As [`Connection::open_channel`].
    pub fn open_publishing_channel(&self) -> Result<Channel, Error> {
        self.publishing().open_channel()
    }

    /// Opens a channel to consume on.
    ///
    /// # Errors
    /// As [`Connection::open_channel`].
    pub fn open_consuming_channel(&self) -> Result<Channel, Error> {
        self.consuming().open_channel()
    }

    /// Closes both connections, side by side: an alarm delays only the close of the publishing one.
    ///
    /// # Errors
    /// As [`amqp_driver::ConnectionPair::close`]; [`Error::TimedOut`] also beyond the limit of
    /// [`within`](crate::within).
    pub fn close(&self) -> Result<(), Error> {
        wait(self.0.close())?
    }

    /// The asynchronous handle.
    #[must_use]
    pub const fn as_async(&self) -> &amqp_driver::ConnectionPair {
        &self.0
    }

    /// The asynchronous handle.
    #[must_use]
    pub fn into_async(self) -> amqp_driver::ConnectionPair {
        self.0
    }
}

impl From<amqp_driver::ConnectionPair> for ConnectionPair {
    fn from(handle: amqp_driver::ConnectionPair) -> Self {
        Self(handle)
    }
}
