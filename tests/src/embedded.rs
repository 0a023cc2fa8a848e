//! The embedded broker, served over TCP.

use std::{io, net::SocketAddr, sync::OnceLock};

use amqp_tokio::{
    LocalBroker, LoginFrom, Server, ServerTls,
    broker::{Config, Permissions, User},
    serve, serve_tls,
};
use tempfile::TempDir;
use tokio::{
    net::TcpListener,
    runtime::{Builder, Runtime},
};

use crate::{
    certificates::{Certificates, Clients},
    harness::Failure,
};

/// The virtual host of an [`Embedded`] broker, beside `/`.
const VHOST: &str = "embedded";

/// How many threads serve all embedded brokers.
const THREADS: usize = 2;

/// An embedded broker that listens on a port of its own. It is gone when it is dropped.
#[derive(Debug)]
pub struct Embedded {
    server: Server,
    /// Those that it speaks TLS with, and where they are.
    tls: Option<(Certificates, TempDir)>,
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
        Self::set_up(configure, None)
    }

    /// Starts one that speaks TLS, and nothing else, to such clients. Those with a certificate can
    /// log in with it (EXTERNAL), as the user of its common name.
    ///
    /// # Errors
    /// When there is no port, no thread or no directory to be had, or no broker begins like that.
    pub fn start_with_tls(
        configure: impl FnOnce(&mut Config),
        clients: Clients,
    ) -> Result<Self, Failure> {
        Self::set_up(configure, Some(clients))
    }

    fn set_up(
        configure: impl FnOnce(&mut Config),
        clients: Option<Clients>,
    ) -> Result<Self, Failure> {
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
        let listener = TcpListener::from_std(listener)?;
        let Some(clients) = clients else {
            let server = serve(listener, broker)?;
            return Ok(Self { server, tls: None });
        };
        let directory = tempfile::tempdir()?;
        let certificates = Certificates::make_in(directory.path())?;
        let tls = ServerTls::from(certificates.server_config(clients)?);
        let tls = tls.login_from(LoginFrom::CommonName);
        Ok(Self {
            server: serve_tls(listener, tls, broker)?,
            tls: Some((certificates, directory)),
        })
    }

    /// Its certificates and those of its clients, if it speaks TLS.
    #[must_use]
    pub fn certificates(&self) -> Option<&Certificates> {
        self.tls.as_ref().map(|(certificates, _)| certificates)
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

    /// Where to connect, with user, password and that virtual host, if it does not speak TLS.
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
