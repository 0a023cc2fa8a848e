//! The embedded broker, for who comes over TCP as to any other.

use std::{io, net::SocketAddr, sync::OnceLock};

use amqp_tokio::{
    LocalBroker, Server,
    broker::{Config, Permissions, User},
    serve,
};
use tokio::{
    net::TcpListener,
    runtime::{Builder, Runtime},
};

use crate::harness::Failure;

/// The virtual host of an [`Embedded`] broker, beside `/`.
const VHOST: &str = "embedded";

/// How many threads serve all embedded brokers.
const THREADS: usize = 2;

/// An embedded broker that listens on a port of its own. It is gone when it is dropped.
#[derive(Debug)]
pub struct Embedded {
    server: Server,
}

impl Embedded {
    /// Starts one with the defaults.
    ///
    /// # Errors
    /// When there is no port or no thread to be had.
    pub fn start() -> Result<Self, Failure> {
        Self::start_with(|_| ())
    }

    /// Starts one that is configured otherwise.
    ///
    /// # Errors
    /// When there is no port or no thread to be had, or no broker begins like that.
    pub fn start_with(configure: impl FnOnce(&mut Config)) -> Result<Self, Failure> {
        let mut config = Config::default();
        config.vhosts.push(VHOST.into());
        config.users = vec![
            User::new("guest", "guest")
                .may("/", Permissions::all())
                .may(VHOST, Permissions::all()),
        ];
        configure(&mut config);
        let broker = LocalBroker::new(config)?;
        // Its tasks must not depend on the runtime of a client.
        let _entered = runtime()?.enter();
        let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
        listener.set_nonblocking(true)?;
        let server = serve(TcpListener::from_std(listener)?, broker)?;
        Ok(Self { server })
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.server.local_addr()
    }

    /// A virtual host that it has beside `/`.
    #[must_use]
    pub fn vhost(&self) -> &'static str {
        VHOST
    }

    /// Where to connect, with user, password and that virtual host.
    #[must_use]
    pub fn uri(&self) -> String {
        format!("amqp://guest:guest@{}/{VHOST}", self.address())
    }

    /// The broker itself.
    #[must_use]
    pub fn broker(&self) -> &LocalBroker {
        self.server.broker()
    }
}

/// The runtime of all of them.
fn runtime() -> io::Result<&'static Runtime> {
    static RUNTIME: OnceLock<Runtime> = OnceLock::new();
    if let Some(runtime) = RUNTIME.get() {
        return Ok(runtime);
    }
    let runtime = Builder::new_multi_thread()
        .worker_threads(THREADS)
        .enable_all()
        .build()?;
    Ok(RUNTIME.get_or_init(|| runtime))
}
