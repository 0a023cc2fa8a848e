//! The client for an event loop of one's own: without a thread, without `async`.
//!
//! [`Client`] is that of [`amqp_client::promises`], where it is described, over sockets of its own:
//! TCP and Unix sockets, one host or several, with TLS or without.
//!
//! ```no_run
//! use amqp_blocking::{protocol::{basic, queue}, select};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let (mut client, connected) = select::connect("amqp://127.0.0.1")?;
//! client.wait(connected, None)?;
//! let declared = client.call(queue::Declare::default().queue("hello")?)?;
//! client.wait(declared, None)?;
//! let to_hello = basic::Publish::default().routing_key("hello")?;
//! let published = client.publish(to_hello, basic::Properties::default(), "Hello World!")?;
//! client.wait(published, None)?; // the server has it
//! # Ok(()) }
//! ```
//!
//! On Unix a loop watches its descriptor; elsewhere there is none, and it brings the loop.

use std::{
    future::Future,
    io,
    net::{SocketAddr, ToSocketAddrs as _},
    sync::Arc,
};
#[cfg(unix)]
use std::{
    os::fd::{AsFd, BorrowedFd},
    path::Path,
};

use amqp_client::{
    Config, ConnectError, Connection, FuturesStream, Options, Runtime,
    core::Limits,
    from_transport,
    promises::{self, Spawner},
};
#[cfg(feature = "tls")]
use amqp_client::{Secured, Tls};
use mio::Registry;

pub use amqp_client::promises::{Answer, Error, Message, Promise, PublishError};

use crate::{Blocking, BlockingClock, BlockingSocket, BlockingStream, reactor::Reactor};

/// A connection for an event loop of one's own.
pub type Client = promises::Client<Descriptor>;

/// Begins to connect to the server that an AMQP URI names. The promise is fulfilled with
/// [`Answer::Connected`], or has the reason why not.
///
/// # Errors
/// When the URI is wrong.
pub fn connect(uri: &str) -> Result<(Client, Promise), ConnectError> {
    connect_with(&Options::from_uri(uri)?)
}

/// Begins to connect as the options say. The promise is as that of [`connect`].
///
/// A name is resolved by the system within a turn of the client, **which may block**. Where that must
/// not be, name addresses.
///
/// # Errors
/// When the system gives no descriptor.
pub fn connect_with(options: &Options) -> Result<(Client, Promise), ConnectError> {
    let options = options.clone();
    client(options.config.limits.clone(), |runtime| async move {
        Ok(amqp_client::connect(&runtime, &options).await?)
    })
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
    let stream = FuturesStream::new(stream.into());
    client(config.limits.clone(), |runtime| async move {
        Ok(from_transport(&runtime, stream, config).await?)
    })
}

fn client<C>(
    limits: Limits,
    connect: impl FnOnce(Turned) -> C,
) -> Result<(Client, Promise), ConnectError>
where
    C: Future<Output = Result<Connection, Error>> + 'static,
{
    let (reactor, waker) = Reactor::new().map_err(ConnectError::System)?;
    let descriptor = Descriptor(Arc::clone(&reactor.registry));
    let connect = |spawner| connect(Turned(spawner));
    Ok(Client::new(descriptor, (reactor, waker), limits, connect))
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

/// As [`Blocking`], but for its tasks, which have no threads: they run in the turns of a client.
#[derive(Clone, Debug)]
struct Turned(Spawner);

impl Runtime for Turned {
    type Clock = BlockingClock;
    type Stream = BlockingStream;

    fn clock(&self) -> BlockingClock {
        Blocking.clock()
    }

    fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.0.spawn(task);
    }

    async fn resolve(&self, host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
        Ok((host, port).to_socket_addrs()?.collect())
    }

    async fn connect_tcp(&self, to: SocketAddr) -> io::Result<BlockingStream> {
        Blocking.connect_tcp(to).await
    }

    #[cfg(unix)]
    async fn connect_unix(&self, path: &Path) -> io::Result<BlockingStream> {
        Blocking.connect_unix(path).await
    }

    #[cfg(feature = "tls")]
    async fn secure(
        &self,
        stream: BlockingStream,
        tls: &Tls,
    ) -> io::Result<Secured<BlockingStream>> {
        stream.secure(tls).await
    }
}
