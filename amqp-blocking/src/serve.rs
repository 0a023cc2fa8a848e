//! A broker in this process.

use std::{
    future::poll_fn,
    io,
    net::{SocketAddr, TcpListener},
};

use amqp_client::{FuturesStream, Listener, blocking};
#[cfg(feature = "tls")]
use amqp_client::{FuturesTlsListener, ServerTls};

use crate::{Blocking, BlockingSocket, BlockingStream, stream::Evented};

/// A broker in this process, to connect to without a socket, and to [`serve`] to others. Each end of
/// each connection has a thread.
///
/// It can be cloned; all clones are one broker, which is gone with the last clone and the last
/// connection, and all that was in it: durability is not its job.
///
/// ```
/// use amqp_blocking::{Config, LocalBroker, protocol::{basic, queue}};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let broker = LocalBroker::default();
/// let connection = broker.connect(Config::default())?;
/// let channel = connection.open_channel()?.confirm_select()?;
/// channel.call(queue::Declare::default().queue("tasks")?)?;
///
/// let to_tasks = basic::Publish::default().routing_key("tasks")?;
/// let confirm = channel.publish(&to_tasks, &basic::Properties::default(), "the first")?;
/// confirm.wait()?;
/// let tasks = &broker.inspect().vhosts[0].queues[0];
/// assert_eq!((tasks.name.as_str(), tasks.ready), ("tasks", 1));
/// # Ok(()) }
/// ```
pub type LocalBroker = blocking::LocalBroker<Blocking>;

/// A broker that is served to others; see [`serve`].
pub type Server = blocking::Server<Blocking>;

/// Serves a broker to whoever connects to the listener: one thread listens, and each connection has
/// one. The listener becomes non-blocking, and so do its clones.
///
/// ```
/// use amqp_blocking::{LocalBroker, serve};
/// use std::net::TcpListener;
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let listener = TcpListener::bind("127.0.0.1:0")?;
/// let server = serve(listener, LocalBroker::default())?;
/// let connection = amqp_blocking::connect(&format!("amqp://{}", server.local_addr()))?;
/// connection.close()?;
/// server.shutdown();
/// # Ok(()) }
/// ```
///
/// # Errors
/// When the listener does not know its address, or cannot be made non-blocking.
pub fn serve(listener: TcpListener, broker: impl Into<LocalBroker>) -> io::Result<Server> {
    let listener = BlockingListener::new(listener)?;
    amqp_client::serve(listener, broker.into()).map(Server::from)
}

/// Serves a broker with TLS to whoever connects to the listener, as [`serve`] does. A client that
/// takes its time with the handshake keeps no other one waiting; one that shows a certificate may log
/// in with it (EXTERNAL), see [`ServerTls`].
///
/// ```no_run
/// use amqp_blocking::{LocalBroker, rustls::ServerConfig, serve_tls};
/// use std::net::TcpListener;
///
/// # fn example(config: ServerConfig) -> Result<(), Box<dyn std::error::Error>> {
/// let listener = TcpListener::bind("127.0.0.1:0")?;
/// let server = serve_tls(listener, config, LocalBroker::default())?;
/// println!("amqps://{}", server.local_addr());
/// # Ok(()) }
/// ```
///
/// # Errors
/// As [`serve`].
#[cfg(feature = "tls")]
pub fn serve_tls(
    listener: TcpListener,
    tls: impl Into<ServerTls>,
    broker: impl Into<LocalBroker>,
) -> io::Result<Server> {
    let listener = FuturesTlsListener::new(BlockingListener::new(listener)?, tls);
    amqp_client::serve(listener, broker.into()).map(Server::from)
}

#[derive(Debug)]
struct BlockingListener(Evented<mio::net::TcpListener>);

impl BlockingListener {
    fn new(listener: TcpListener) -> io::Result<Self> {
        listener.set_nonblocking(true)?;
        let listener = mio::net::TcpListener::from_std(listener);
        Ok(Self(Evented::new(listener)))
    }
}

impl Listener for BlockingListener {
    type Stream = BlockingStream;

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.0.socket.local_addr()
    }

    async fn accept(&mut self) -> io::Result<BlockingStream> {
        let accepted = poll_fn(|cx| self.0.poll_io(cx, |socket| socket.accept()));
        let (stream, _) = accepted.await?;
        // Without it the answers would only be late.
        let _unsupported = stream.set_nodelay(true);
        let socket = BlockingSocket::from(Evented::new(stream));
        Ok(FuturesStream::boxed(socket))
    }
}
