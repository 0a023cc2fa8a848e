//! Peers on a runtime, and the macro that runs a scenario on each.

use std::{error::Error, future::Future, marker::PhantomData, time::Duration};

use amqp_async_std::AsyncStd;
use amqp_blocking::Blocking;
use amqp_peer::{
    Config, Connect, ConnectorId, Down, Event, Events, Listen, Listening, Message, Peer, PeerName,
    Received, Refused, ServerRuntime, Setup, Up, amqp_driver::io::within, start_on,
};
use amqp_smol::Smol;
use amqp_tokio::Tokio;

use crate::tls::Authority;

pub(crate) type Failure = Box<dyn Error + Send + Sync>;
pub(crate) type Outcome = Result<(), Failure>;

/// The time limit of a scenario: a hang ends, and a busy machine has the time that it needs.
const PATIENCE: Duration = Duration::from_secs(180);

/// A runtime under test.
pub(crate) trait Adapter: ServerRuntime + Default {
    fn block_on<T>(future: impl Future<Output = T>) -> T;
}

impl Adapter for Tokio {
    fn block_on<T>(future: impl Future<Output = T>) -> T {
        let mut builder = tokio::runtime::Builder::new_multi_thread();
        let runtime = builder.worker_threads(2).enable_all().build();
        runtime.expect("a runtime").block_on(future)
    }
}

impl Adapter for Smol {
    fn block_on<T>(future: impl Future<Output = T>) -> T {
        smol::block_on(future)
    }
}

impl Adapter for AsyncStd {
    fn block_on<T>(future: impl Future<Output = T>) -> T {
        async_std::task::block_on(future)
    }
}

impl Adapter for Blocking {
    fn block_on<T>(future: impl Future<Output = T>) -> T {
        amqp_blocking::block_on(future)
    }
}

/// Makes a test of each scenario on each runtime.
macro_rules! on_every_runtime {
    ($($scenario:ident),* $(,)?) => {
        on_every_runtime!(in on_tokio: amqp_tokio::Tokio, [$($scenario),*]);
        on_every_runtime!(in on_smol: amqp_smol::Smol, [$($scenario),*]);
        on_every_runtime!(in on_async_std: amqp_async_std::AsyncStd, [$($scenario),*]);
        on_every_runtime!(in on_blocking: amqp_blocking::Blocking, [$($scenario),*]);
    };
    (in $module:ident: $runtime:ty, [$($scenario:ident),*]) => {
        mod $module {
            $(
                #[test]
                fn $scenario() {
                    crate::rig::run(super::$scenario::<$runtime>);
                }
            )*
        }
    };
}
pub(crate) use on_every_runtime;

/// Runs a scenario twice, with the roles swapped.
pub(crate) fn run<R: Adapter, F: Future<Output = Outcome>>(scenario: fn(World<R>) -> F) {
    for first_listens in [true, false] {
        let outcome = R::block_on(async {
            let world = World {
                first_listens,
                authority: None,
                runtime: PhantomData,
            };
            within(&mut R::default().clock(), PATIENCE, scenario(world)).await
        });
        match outcome {
            Some(Ok(())) => {}
            Some(Err(error)) => panic!("first listens: {first_listens}: {error}"),
            None => panic!("first listens: {first_listens}: not in time"),
        }
    }
}

/// The conditions of a scenario.
#[derive(Clone)]
pub(crate) struct World<R> {
    /// Whether the first peer of a pair listens; otherwise it dials.
    pub(crate) first_listens: bool,
    /// The authority of the certificates. `Some` for links with TLS.
    pub(crate) authority: Option<Authority>,
    runtime: PhantomData<R>,
}

/// A peer and its events.
pub(crate) struct Node {
    pub(crate) peer: Peer,
    pub(crate) events: Events,
}

pub(crate) fn name(text: &str) -> PeerName {
    text.parse().expect("a name")
}

impl<R: Adapter> World<R> {
    pub(crate) fn secured(mut self) -> Result<Self, Failure> {
        self.authority = Some(Authority::new()?);
        Ok(self)
    }

    pub(crate) fn start(&self, name: &str) -> Result<Node, Failure> {
        self.start_with(Config::new(name)?)
    }

    pub(crate) fn start_with(&self, setup: impl Into<Setup>) -> Result<Node, Failure> {
        let (peer, events) = start_on(R::default(), setup)?;
        Ok(Node { peer, events })
    }

    /// Two linked peers, `alice` and `bob`.
    pub(crate) async fn pair(&self) -> Result<(Node, Node), Failure> {
        let mut alice = self.start("alice")?;
        let mut bob = self.start("bob")?;
        self.link(&mut alice, &mut bob).await?;
        Ok((alice, bob))
    }

    /// Links two peers, by the roles of this run.
    pub(crate) async fn link(&self, first: &mut Node, second: &mut Node) -> Outcome {
        self.join(first, second).await?;
        first.up().await?;
        second.up().await?;
        Ok(())
    }

    /// Lets one peer listen and the other one dial, by the roles of this run.
    pub(crate) async fn join(
        &self,
        first: &Node,
        second: &Node,
    ) -> Result<(Listening, ConnectorId), Failure> {
        let (listens, dials) = if self.first_listens {
            (first, second)
        } else {
            (second, first)
        };
        let listening = listens.listen(self).await?;
        let connector = dials.dial(self, &listening);
        Ok((listening, connector))
    }

    pub(crate) fn clock(&self) -> R::Clock {
        R::default().clock()
    }
}

impl Node {
    pub(crate) async fn listen<R>(&self, world: &World<R>) -> Result<Listening, Failure> {
        let mut listen = Listen::tcp("127.0.0.1:0");
        if let Some(authority) = &world.authority {
            listen = listen.tls(authority.server(self.peer.name().as_str())?);
        }
        Ok(self.peer.add_listener(listen).await?)
    }

    pub(crate) fn dial<R>(&self, world: &World<R>, to: &Listening) -> ConnectorId {
        let port = to.port().expect("a port");
        self.peer.add_connector(self.connect(world, port))
    }

    pub(crate) fn connect<R>(&self, world: &World<R>, port: u16) -> Connect {
        let connect = Connect::tcp("127.0.0.1", port);
        match &world.authority {
            None => connect,
            Some(authority) => connect.tls(authority.client(self.peer.name().as_str())),
        }
    }

    pub(crate) async fn next(&mut self) -> Result<Event, Failure> {
        Ok(self.events.next().await.ok_or("the events have ended")?)
    }

    pub(crate) async fn up(&mut self) -> Result<Up, Failure> {
        match self.next().await? {
            Event::Up(up) => Ok(up),
            other => Err(format!("not up: {other:?}").into()),
        }
    }

    pub(crate) async fn down(&mut self) -> Result<Down, Failure> {
        match self.next().await? {
            Event::Down(down) => Ok(down),
            other => Err(format!("not down: {other:?}").into()),
        }
    }

    pub(crate) async fn refused(&mut self) -> Result<Refused, Failure> {
        match self.next().await? {
            Event::Refused(refused) => Ok(refused),
            other => Err(format!("not refused: {other:?}").into()),
        }
    }

    pub(crate) async fn received(&mut self) -> Result<Received, Failure> {
        match self.next().await? {
            Event::Received(received) => Ok(received),
            other => Err(format!("not received: {other:?}").into()),
        }
    }

    /// Accepts the next event, which is a message.
    pub(crate) async fn accept(&mut self) -> Result<Message, Failure> {
        Ok(self.received().await?.accept())
    }

    /// Accepts the next event, which is a message with that body.
    pub(crate) async fn expect(&mut self, body: &[u8]) -> Outcome {
        let message = self.accept().await?;
        if message.body.to_vec() == body {
            Ok(())
        } else {
            Err(format!("not {body:?}: {message:?}").into())
        }
    }
}
