//! Making connections.

use amqp_driver::{Config, ConnectError, Error, Options};

use crate::{
    handles::Connection, linger::linger, runtime::Blocking, stream::BlockingSocket, wait::wait,
};

/// Connects to the server that an AMQP URI names, [as that says](amqp_driver#connecting). A thread of
/// its own drives the connection.
///
/// Dropping the last of its handles closes the connection in good order, and waits for that: what was
/// published before arrives. It blocks until then, at the latest until the output has made no progress
/// for [`Timeouts::close`](amqp_driver::core::Timeouts), 10 seconds by default.
///
/// ```no_run
/// let connection = amqp_blocking::connect("amqp://me:secret@broker.example.com/staging")?;
/// # Ok::<(), amqp_blocking::ConnectError>(())
/// ```
///
/// # Errors
/// When the URI is wrong, no host can be reached, or the connection cannot be opened;
/// [`ConnectError::TimedOut`] beyond the limit of [`within`](crate::within).
pub fn connect(uri: &str) -> Result<Connection, ConnectError> {
    connect_with(&Options::from_uri(uri)?)
}

/// Connects [as the options say](amqp_driver#connecting). A thread of its own drives the connection.
///
/// # Errors
/// As [`connect`].
pub fn connect_with(options: &Options) -> Result<Connection, ConnectError> {
    let connected = wait(amqp_driver::connect(&Blocking, options));
    let connection = connected.map_err(|_| ConnectError::TimedOut)??;
    connection.linger_on_drop(linger);
    Ok(connection.into())
}

/// Opens a connection over a stream that was made elsewhere: a connected
/// [`TcpStream`](std::net::TcpStream), however it was made, or a Unix socket. It becomes non-blocking,
/// and so do its clones: leave those alone until the connection has ended. Nagle's algorithm is left
/// as it is.
///
/// # Errors
/// When the connection cannot be opened, or the configuration has a setting that no server would
/// accept.
pub fn from_stream(stream: impl Into<BlockingSocket>, config: Config) -> Result<Connection, Error> {
    let stream = stream.into().into_stream();
    let connection = wait(amqp_driver::from_transport(&Blocking, stream, config))??;
    connection.linger_on_drop(linger);
    Ok(connection.into())
}
