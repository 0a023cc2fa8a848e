//! The connections of clients: accepting, logging and closing them.

use std::{
    collections::BTreeMap,
    future::{Future, poll_fn},
    net::SocketAddr,
    pin::pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use amqp_tokio::{
    BrokerDriver, CloseReason, Identified, LocalBroker, PendingTransport, ServerTls, TokioClock,
    TokioStream,
    broker::{AcceptError, ConnectionKey, Notice},
    core::{CloseCause, text::Escaped},
    io::Transport,
};
use tokio::{
    net::TcpStream,
    sync::{mpsc, watch},
    time,
};
use tokio_rustls::TlsAcceptor;

use crate::{
    listeners::{Accepted, Listener, Security},
    log::Log,
};

/// The delay after a failed accept, in which resources may become free.
const RETRY: Duration = Duration::from_millis(50);

/// The maximum time for the close handshakes at a stop.
const CLOSING: Duration = Duration::from_secs(5);

/// The addresses of connected clients, by connection.
#[derive(Clone, Debug, Default)]
pub(crate) struct Registry(Arc<Mutex<BTreeMap<ConnectionKey, String>>>);

impl Registry {
    /// Returns the address of a client; empty for a connection that has ended.
    pub(crate) fn peer(&self, key: ConnectionKey) -> String {
        self.lock().get(&key).cloned().unwrap_or_default()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<ConnectionKey, String>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The listeners and the connections of a broker.
pub(crate) struct Clients {
    shared: Shared,
    /// Ends the accept loops with their sockets, once it is `true`.
    stopping: watch::Sender<bool>,
    /// Receives `None` when all tasks have ended.
    ended: mpsc::Receiver<()>,
}

/// The state that each task has.
#[derive(Clone)]
struct Shared {
    broker: LocalBroker,
    log: Log,
    registry: Registry,
    /// Dropped with the task.
    running: mpsc::Sender<()>,
}

impl Clients {
    pub(crate) fn new(broker: LocalBroker, log: Log) -> Self {
        let (running, ended) = mpsc::channel(1);
        Self {
            shared: Shared {
                broker,
                log,
                registry: Registry::default(),
                running,
            },
            stopping: watch::Sender::new(false),
            ended,
        }
    }

    pub(crate) fn registry(&self) -> Registry {
        self.shared.registry.clone()
    }

    /// Accepts connections in a task.
    pub(crate) fn serve(&self, listener: Listener, tls: Option<ServerTls>) {
        let shared = self.shared.clone();
        let mut stopping = self.stopping.subscribe();
        tokio::spawn(async move {
            let accepting = shared.accept_from(&listener, tls);
            tokio::select! {
                () = accepting => {}
                _ = stopping.wait_for(|stopping| *stopping) => {}
            }
        });
    }

    /// Stops accepting and the broker, which closes the connections as RabbitMQ does at its shutdown:
    /// with 320, connection-forced. Waits for the close handshakes, for a bounded time.
    pub(crate) async fn shut_down(mut self) {
        self.stopping.send_replace(true);
        let Shared { broker, log, .. } = self.shared;
        broker.stop();
        drop(self.shared.running);
        if time::timeout(CLOSING, self.ended.recv()).await.is_err() {
            let left = broker.with(|broker| broker.totals().connections);
            log.warning(format_args!("{left} connections did not close in time"));
        }
    }
}

impl Shared {
    async fn accept_from(&self, listener: &Listener, tls: Option<ServerTls>) {
        loop {
            match listener.accept().await {
                Ok(Accepted::Tcp(stream, peer, Security::Plain)) => {
                    let stream = TokioStream::new(stream);
                    self.accept(&peer.to_string(), listener, self.broker.accept(stream));
                }
                Ok(Accepted::Tcp(stream, peer, Security::Tls)) => {
                    if let Some(tls) = tls.clone() {
                        self.accept_tls(stream, peer, listener, tls);
                    }
                }
                #[cfg(unix)]
                Ok(Accepted::Unix(stream)) => {
                    let stream = TokioStream::new(stream);
                    self.accept("unix", listener, self.broker.accept(stream));
                }
                Err(error) => {
                    self.log
                        .warning(format_args!("cannot accept at {listener}: {error}"));
                    time::sleep(RETRY).await;
                }
            }
        }
    }

    /// Accepts a connection before its TLS handshake, which a slow client does not delay for others.
    fn accept_tls(&self, stream: TcpStream, peer: SocketAddr, listener: &Listener, tls: ServerTls) {
        let securing = TlsAcceptor::from(tls.config()).accept(stream);
        let transport = PendingTransport::new(async move {
            let stream = securing.await?;
            Ok(Identified {
                peer: tls.peer(stream.get_ref().1),
                transport: TokioStream::new(stream),
            })
        });
        let accepted = self
            .broker
            .accept_identified(transport, PendingTransport::peer);
        self.accept(&peer.to_string(), listener, accepted);
    }

    /// Drives an accepted connection in a task.
    fn accept<T: Transport + Unpin + 'static>(
        &self,
        peer: &str,
        listener: &Listener,
        accepted: Result<BrokerDriver<T, TokioClock>, AcceptError>,
    ) {
        let driver = match accepted {
            Ok(driver) => driver,
            Err(error) => {
                let log = self.log;
                log.warning(format_args!("connection from {peer} refused: {error}"));
                return;
            }
        };
        let key = driver.endpoint().key();
        let number = key.number();
        self.log.debug(format_args!(
            "connection {number} ({peer} -> {listener}): accepted"
        ));
        self.registry.lock().insert(key, peer.to_owned());
        let shared = self.clone();
        tokio::spawn(async move {
            shared.drive(key, driver).await;
            shared.registry.lock().remove(&key);
        });
    }

    /// Drives a connection, and logs its notices: those until it is open, and those at its end. In
    /// between there are none.
    async fn drive(&self, key: ConnectionKey, driver: impl Future<Output = ()>) {
        let mut driver = pin!(driver);
        let mut is_open = false;
        poll_fn(|cx| {
            let ended = driver.as_mut().poll(cx);
            if !is_open || ended.is_ready() {
                is_open |= self.log_notices(key);
            }
            ended
        })
        .await;
    }

    /// Logs the notices of the broker. Returns `true` if that connection has been opened.
    fn log_notices(&self, own: ConnectionKey) -> bool {
        let mut is_open = false;
        while let Some((key, notice)) = self.broker.with(|broker| broker.poll_notice()) {
            is_open |= key == own && matches!(notice, Notice::Opened { .. });
            self.log_notice(key, &notice);
        }
        is_open
    }

    fn log_notice(&self, key: ConnectionKey, notice: &Notice) {
        let log = self.log;
        let (number, peer) = (key.number(), self.registry.peer(key));
        match notice {
            Notice::Opened { user, vhost } => log.info(format_args!(
                "connection {number} ({peer}): user '{}' authenticated and granted access to vhost \
                 '{}'",
                Escaped(user),
                Escaped(vhost)
            )),
            Notice::LoginRefused {
                user, mechanism, ..
            } => log.warning(format_args!(
                "connection {number} ({peer}): {} login refused: user '{}'",
                Escaped(mechanism),
                Escaped(user.as_deref().unwrap_or_default())
            )),
            Notice::Ended { user, reason, .. } => {
                let text = reason.to_string();
                let line = format_args!("connection {number} ({peer}): {}", Escaped(&text));
                if user.is_empty() && is_silent(reason) {
                    log.debug(line);
                } else {
                    log.info(line);
                }
            }
            _ => {}
        }
    }
}

/// Returns whether a connection that never logged in has only been closed again, as by a check of
/// the port.
fn is_silent(reason: &CloseReason) -> bool {
    matches!(reason.cause(), CloseCause::Eof { .. })
}
