//! Connections to a broker of this process, dialled like any other.

use std::{
    future::Future,
    io,
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use amqp_core::{ApiMisuse, dial::Address};
use amqp_driver::{
    ConnectError, Connection, Connector, Options, connect,
    io::{Pipe, Runtime, pipe},
};

use crate::local::LocalBroker;

/// The name of the broker in errors.
const ADDRESS: &str = "the broker of this process";

impl<R: Runtime> LocalBroker<R> {
    /// Opens a connection without a socket, by all options but the addresses, TCP and TLS. With
    /// [`Options::recovery`], the connection survives a [restart](Self::restart) of the broker.
    ///
    /// # Cancel safety
    /// Dropping the future closes the connection.
    ///
    /// # Errors
    /// As [`connect`](amqp_driver::connect()).
    pub async fn connect_with(&self, options: &Options) -> Result<Connection, ConnectError> {
        connect(&self.in_process(), &to_this(options.clone())).await
    }

    /// Creates a connector of such connections, for a program that takes its connections, its time
    /// and its tasks from one. It keeps the broker.
    #[must_use]
    pub fn connector(&self, options: Options) -> Connector {
        Connector::new(self.in_process(), to_this(options))
    }

    fn in_process(&self) -> InProcess<R> {
        InProcess(Arc::new(Mutex::new(self.clone())))
    }
}

/// The options of a connection to the broker of the runtime.
fn to_this(options: Options) -> Options {
    options.addresses([Address::other(ADDRESS)]).tls(None)
}

/// The runtime of a broker, with the pipes to it as its only transports. Behind a lock,
/// because a clock cannot be used by several threads at once.
#[derive(Clone, Debug)]
struct InProcess<R: Runtime>(Arc<Mutex<LocalBroker<R>>>);

impl<R: Runtime> InProcess<R> {
    fn broker(&self) -> LocalBroker<R> {
        let broker = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        broker.clone()
    }
}

impl<R: Runtime> Runtime for InProcess<R> {
    type Clock = R::Clock;
    type Stream = Pipe;

    fn check(&self) -> Result<(), ApiMisuse> {
        self.broker().runtime.check()
    }

    fn clock(&self) -> R::Clock {
        self.broker().clock
    }

    fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.broker().runtime.spawn(task);
    }

    async fn resolve(&self, _host: &str, _port: u16) -> io::Result<Vec<SocketAddr>> {
        Err(io::ErrorKind::Unsupported.into())
    }

    async fn connect_tcp(&self, _to: SocketAddr, _keepalive: Option<Duration>) -> io::Result<Pipe> {
        Err(io::ErrorKind::Unsupported.into())
    }

    async fn connect_other(&self, _address: &str) -> io::Result<Pipe> {
        let (ours, theirs) = pipe();
        let refused = |error| io::Error::new(io::ErrorKind::ConnectionRefused, error);
        let broker = self.broker();
        let driver = broker.accept(theirs).map_err(refused)?;
        broker.runtime.spawn(driver);
        Ok(ours)
    }
}
