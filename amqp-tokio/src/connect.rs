//! Making connections.

use std::{future::Future, io, time::Duration};

use amqp_client::{
    Config, Connection, Error,
    core::{
        ApiMisuse,
        uri::{Scheme, Uri, UriError},
    },
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    time,
};

use crate::{TokioClock, TokioStream};

/// How long to wait for the TCP connection where nothing else is said. The handshake has a timeout
/// of its own.
const TCP_TIMEOUT: Duration = Duration::from_secs(10);

/// Where and how to connect.
#[derive(Debug)]
pub struct Options {
    /// The host name or address.
    pub host: String,
    /// The TCP port.
    pub port: u16,
    /// How long to wait for the TCP connection. Default 10 s.
    pub tcp_timeout: Duration,
    /// Who, which virtual host, and within which bounds.
    pub config: Config,
}

impl Options {
    /// What a URI says; see [`Uri`] for its form, and [`Config::from_uri`].
    ///
    /// # Errors
    /// When the URI is not one, naming the part that is wrong, asks for something that is not
    /// known here, or for TLS, which this adapter does not have:
    /// [`from_stream`] takes a stream that does.
    pub fn from_uri(uri: &str) -> Result<Self, ConnectError> {
        let uri: Uri = uri.parse()?;
        if uri.scheme == Scheme::Amqps {
            return Err(ConnectError::TlsNotSupported);
        }
        let config = Config::from_uri(&uri)?;
        Ok(Self {
            host: uri.host,
            port: uri.port,
            tcp_timeout: uri.connection_timeout.unwrap_or(TCP_TIMEOUT),
            config,
        })
    }

    /// Connects, and spawns the connection's driver on the current runtime.
    ///
    /// # Cancel safety
    /// Dropping it closes what was opened.
    ///
    /// # Errors
    /// When the host cannot be reached, or the connection cannot be opened.
    pub async fn connect(self) -> Result<Connection, ConnectError> {
        let stream = self.connect_tcp().await?;
        Ok(from_stream(stream, self.config).await?)
    }

    /// Makes the TCP connection, without Nagle's algorithm, and no more: for those who have
    /// something to do with it, such as TLS, before they pass it to [`from_stream`].
    ///
    /// # Cancel safety
    /// Dropping it closes what was opened.
    ///
    /// # Errors
    /// [`ConnectError::Unreachable`].
    pub fn connect_tcp(
        &self,
    ) -> impl Future<Output = Result<TcpStream, ConnectError>> + Send + use<'_> {
        connect_tcp(&self.host, self.port, self.tcp_timeout)
    }
}

/// Apart from the options, which a future that moves between threads cannot refer to.
async fn connect_tcp(host: &str, port: u16, timeout: Duration) -> Result<TcpStream, ConnectError> {
    let connecting = async {
        let stream = TcpStream::connect((host, port)).await?;
        stream.set_nodelay(true)?;
        Ok(stream)
    };
    time::timeout(timeout, connecting)
        .await
        .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
        .map_err(|error| ConnectError::Unreachable {
            host: host.to_owned(),
            port,
            error,
        })
}

/// Connects to the server that an AMQP URI names, and spawns the connection's driver on the current
/// runtime.
///
/// ```no_run
/// # async fn example() -> Result<(), amqp_tokio::ConnectError> {
/// let connection = amqp_tokio::connect("amqp://me:secret@broker.example.com/staging").await?;
/// # Ok(()) }
/// ```
///
/// # Cancel safety
/// Dropping it closes what was opened.
///
/// # Errors
/// When the URI is wrong, the host cannot be reached, or the connection cannot be opened.
pub async fn connect(uri: &str) -> Result<Connection, ConnectError> {
    Options::from_uri(uri)?.connect().await
}

/// Opens a connection over a stream that was made elsewhere: a TCP stream with options of its own,
/// a Unix socket, TLS, a pipe in memory. The driver is spawned on the current runtime.
///
/// # Cancel safety
/// Dropping it closes the connection.
///
/// # Errors
/// When the connection cannot be opened, or the configuration has a setting that no server would
/// accept.
pub async fn from_stream<S>(stream: S, config: Config) -> Result<Connection, Error>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (connection, driver) =
        Connection::start(config, TokioStream::new(stream), TokioClock::new())?;
    tokio::spawn(driver);
    connection.opened().await?;
    Ok(connection)
}

/// Why no connection was made.
#[derive(thiserror::Error, Debug)]
#[non_exhaustive]
pub enum ConnectError {
    /// The URI is wrong.
    #[error(transparent)]
    Uri(#[from] UriError),
    /// The URI asks for something that no server would accept.
    #[error(transparent)]
    Misuse(#[from] ApiMisuse),
    /// The URI asks for TLS.
    #[error("amqps needs TLS, which this adapter does not have: use from_stream with a TLS stream")]
    TlsNotSupported,
    /// The host could not be reached.
    #[error("could not reach {host}:{port}: {error}")]
    Unreachable {
        /// The host name or address.
        host: String,
        /// The TCP port.
        port: u16,
        /// What the operating system says.
        #[source]
        error: io::Error,
    },
    /// The host was reached, and the connection not opened.
    #[error(transparent)]
    NotOpened(#[from] Error),
}
