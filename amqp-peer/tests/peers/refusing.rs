//! Connections that a listener does not accept.

use std::{
    future::Future,
    io::{self, Read as _},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::SeqCst},
    },
    time::Duration,
};

use amqp_peer::{
    Clients, Config, DownCause, Event, Limits, LinkError, Listen, NotAccepted, NotAcceptedError,
    ServerRuntime,
    amqp_driver::{
        self,
        io::{Runtime, in_thread},
    },
    amqp_embedded::Listener,
    broker, start_on,
};

use crate::{
    faults::client_of,
    rig::{Adapter, Failure, Node, Outcome, World, name, on_every_runtime},
};

on_every_runtime!(
    connections_beyond_the_limit_are_reported_and_counted,
    failures_of_the_system_are_reported_once_until_they_are_taken,
    clients_beyond_the_limit_of_the_broker_are_reported,
    a_dropped_listener_leaves_nothing,
);

fn not_accepted(event: Event) -> Result<NotAccepted, Failure> {
    match event {
        Event::NotAccepted(it) => Ok(it),
        other => Err(format!("not of a refused connection: {other:?}").into()),
    }
}

/// The bytes that are read from a connection until its end.
async fn rest(mut stream: TcpStream) -> Result<Vec<u8>, Failure> {
    let read = in_thread("read", move || {
        let mut rest = Vec::new();
        let _reset = stream.read_to_end(&mut rest);
        rest
    })?;
    Ok(read.await)
}

async fn connections_beyond_the_limit_are_reported_and_counted<R: Adapter>(
    world: World<R>,
) -> Outcome {
    let limits = Limits::default().pending_links(2);
    let mut bob = world.start_with(Config::new("bob")?.limits(limits))?;
    let listening = bob.listen(&world).await?;
    let port = listening.port().ok_or("no port")?;
    let connect = || TcpStream::connect((Ipv4Addr::LOCALHOST, port));
    let _first = [connect()?, connect()?];
    for _ in 0..5 {
        assert_eq!(rest(connect()?).await?, b"");
    }
    let refused = not_accepted(bob.next().await?)?;
    assert_eq!((refused.listener, refused.count), (listening.id, 5));
    assert!(matches!(
        refused.error,
        NotAcceptedError::Link(LinkError::TooManyPending { limit: 2 })
    ));
    // They are counted anew.
    assert_eq!(rest(connect()?).await?, b"");
    assert_eq!(not_accepted(bob.next().await?)?.count, 1);
    Ok(())
}

async fn clients_beyond_the_limit_of_the_broker_are_reported<R: Adapter>(
    world: World<R>,
) -> Outcome {
    let setup = Config::new("bob")?.clients(Clients::Allow);
    let mut bob = world.start_with(setup.broker(broker::Config::default()))?;
    let listening = bob.listen(&world).await?;
    let broker = bob.peer.broker().ok_or("no broker")?;
    let port = listening.port().ok_or("no port")?;
    // The inbox has connected before.
    let client = client_of::<R>(&mut bob, port).await?;
    broker.with(|it| it.faults().refuse_connects(1));
    let uri = format!("amqp://guest:guest@127.0.0.1:{port}");
    let options = amqp_driver::Options::from_uri(&uri)?;
    let refused = amqp_driver::connect(&R::default(), &options).await;
    assert!(refused.is_err());
    let refused = not_accepted(bob.next().await?)?;
    assert_eq!((refused.listener, refused.count), (listening.id, 1));
    assert!(matches!(
        refused.error,
        NotAcceptedError::Broker(broker::AcceptError::Refused)
    ));
    client.close().await?;
    Ok(())
}

/// A runtime with listeners that fail a number of times before each connection.
#[derive(Clone, Debug)]
struct Failing<R> {
    runtime: R,
    failures: u64,
    failed: Arc<AtomicU64>,
}

struct FailingListener<L> {
    listener: L,
    /// The failures before the next connection.
    left: u64,
    failures: u64,
    failed: Arc<AtomicU64>,
}

impl<R: ServerRuntime> Runtime for Failing<R> {
    type Clock = R::Clock;
    type Stream = R::Stream;

    fn clock(&self) -> R::Clock {
        self.runtime.clock()
    }

    fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.runtime.spawn(task);
    }

    async fn resolve(&self, host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
        self.runtime.resolve(host, port).await
    }

    async fn connect_tcp(
        &self,
        to: SocketAddr,
        keepalive: Option<Duration>,
    ) -> io::Result<R::Stream> {
        self.runtime.connect_tcp(to, keepalive).await
    }
}

impl<R: ServerRuntime> ServerRuntime for Failing<R> {
    type Listener = FailingListener<R::Listener>;

    fn listen_tcp(&self, listener: TcpListener) -> io::Result<Self::Listener> {
        Ok(FailingListener {
            listener: self.runtime.listen_tcp(listener)?,
            left: self.failures,
            failures: self.failures,
            failed: Arc::clone(&self.failed),
        })
    }
}

impl<L: Listener> Listener for FailingListener<L> {
    type Stream = L::Stream;

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    async fn accept(&mut self) -> io::Result<L::Stream> {
        if self.left > 0 {
            self.left -= 1;
            self.failed.fetch_add(1, SeqCst);
            return Err(io::Error::other("too many open files, for a test"));
        }
        self.left = self.failures;
        self.listener.accept().await
    }
}

async fn failures_of_the_system_are_reported_once_until_they_are_taken<R: Adapter>(
    world: World<R>,
) -> Outcome {
    let failed = Arc::<AtomicU64>::default();
    let runtime = Failing {
        runtime: R::default(),
        failures: 3,
        failed: Arc::clone(&failed),
    };
    let (peer, events) = start_on(runtime, Config::new("bob")?)?;
    let mut bob = Node { peer, events };
    let mut alice = world.start("alice")?;
    let listening = bob.listen(&world).await?;
    // Its three failures are over when the link is up.
    alice.dial(&world, &listening);
    alice.up().await?;
    let (mut total, mut is_up) = (0, false);
    while total < 6 || !is_up {
        match bob.next().await? {
            Event::NotAccepted(refused) => {
                assert_eq!(refused.listener, listening.id);
                assert!(matches!(&refused.error, NotAcceptedError::System(_)));
                assert!(refused.error.to_string().contains("for a test"));
                assert!(total > 0 || refused.count >= 3, "{}", refused.count);
                total += refused.count;
            }
            Event::Up(up) => {
                assert_eq!(up.name, name("alice"));
                is_up = true;
            }
            other => return Err(format!("{other:?}").into()),
        }
    }
    assert_eq!((total, failed.load(SeqCst)), (6, 6));
    Ok(())
}

async fn a_dropped_listener_leaves_nothing<R: Adapter>(world: World<R>) -> Outcome {
    let mut bob = world.start("bob")?;
    let mut adding = Box::pin(bob.peer.add_listener(Listen::tcp("127.0.0.1:0")));
    let added = std::future::poll_fn(|cx| {
        let added = adding.as_mut().poll(cx);
        std::task::Poll::Ready(added)
    })
    .await;
    drop(adding);
    if let std::task::Poll::Ready(listening) = added {
        assert!(bob.peer.remove_listener(listening?.id));
    }
    assert_eq!(bob.peer.listeners(), []);
    for listening in [bob.listen(&world).await?, bob.listen(&world).await?] {
        let port = listening.port().ok_or("no port")?;
        let stranger = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
        drop(stranger);
        assert_eq!(bob.refused().await?.cause, DownCause::Transport);
        assert!(bob.peer.remove_listener(listening.id));
    }
    assert_eq!(bob.peer.listeners(), []);
    assert_eq!(bob.peer.connectors(), []);
    bob.peer.stop().await;
    assert_eq!(bob.peer.links(), []);
    assert!(bob.events.next().await.is_none());
    Ok(())
}
