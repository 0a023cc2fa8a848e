//! Where programs run: two connections to a broker, used again and again.

use std::{
    collections::BTreeMap,
    future::{Future, poll_fn},
    pin::Pin,
    task::Poll,
    time::Duration,
};

use amqp_tokio::{
    Channel, CloseReason, Config, Connection, Options, Prefetch,
    core::{client::Checks, dial::Address},
    from_stream,
};
use tokio::net::TcpStream;

use super::{
    inject::{Injected, Injector},
    program::Program,
    run::Run,
    trace::Trace,
};
use crate::harness::Failure;

/// How long to wait for an answer.
const PATIENCE: Duration = Duration::from_secs(60);

/// Two connections to one broker, on which programs run one after another.
#[derive(Debug)]
pub struct Lane {
    uri: String,
    /// The prefix of this lane's names.
    name: String,
    runs: u64,
    /// Queues may have a dead-letter exchange by a policy.
    pub(super) has_letters: bool,
    links: [Option<Link>; 2],
    /// Why a connection ended that was replaced since.
    ended: [Option<CloseReason>; 2],
}

/// One connection.
#[derive(Debug)]
pub(super) struct Link {
    pub(super) connection: Connection,
    pub(super) injector: Injector,
    /// Channels to ask for a queue on: the answer may cost the channel.
    pub(super) probes: BTreeMap<u8, Channel>,
}

impl Lane {
    /// A lane to the broker of that URI. Lanes that are used at the same time, or after one that
    /// did not clean up, need different names.
    #[must_use]
    pub fn new(uri: impl Into<String>, name: impl Into<String>) -> Self {
        Self {
            uri: uri.into(),
            name: name.into(),
            runs: 0,
            has_letters: false,
            links: [None, None],
            ended: [None, None],
        }
    }

    /// Sets whether the broker has the [policies](super::policies).
    #[must_use]
    pub const fn with_policies(mut self, policies: bool) -> Self {
        self.has_letters = policies;
        self
    }

    /// Runs a program, and cleans up behind it.
    ///
    /// # Errors
    /// When the broker cannot be reached. Its answers are never errors; they go into the trace.
    pub async fn run(&mut self, program: &Program) -> Result<Trace, Failure> {
        self.runs += 1;
        let prefix = format!("{}.{}-", self.name, self.runs);
        Run::new(self, prefix).perform(program).await
    }

    /// A connection, which is opened if there is none.
    pub(super) async fn link(&mut self, at: usize) -> Result<&mut Link, Failure> {
        let place = &mut self.links[at];
        let is_open = place.as_ref().is_some_and(|it| it.connection.is_open());
        if !is_open && let Some(old) = place.replace(Link::open(&self.uri).await?) {
            self.ended[at] = Some(old.connection.closed().await);
        }
        place.as_mut().ok_or_else(|| "no connection".into())
    }

    /// Takes the reason for the end of a connection, once; `Some` if it has ended.
    pub(super) fn ended(&mut self, at: usize) -> Option<CloseReason> {
        let now = self.links[at].as_ref()?.connection.close_reason();
        if now.is_some() {
            self.links[at] = None;
        }
        self.ended[at].take().or(now)
    }

    /// The connection, if there is one.
    pub(super) fn existing(&mut self, at: usize) -> Option<&mut Link> {
        self.links[at].as_mut()
    }
}

impl Link {
    async fn open(uri: &str) -> Result<Self, Failure> {
        let Options {
            addresses,
            mut config,
            ..
        } = Options::from_uri(uri)?;
        configure(&mut config);
        let [Address::Tcp { host, port }] = &addresses[..] else {
            return Err("not one address".into());
        };
        let stream = TcpStream::connect((host.as_str(), *port)).await?;
        stream.set_nodelay(true)?;
        let injector = Injector::default();
        let connection = from_stream(Injected::new(stream, injector.clone()), config).await?;
        Ok(Self {
            connection,
            injector,
            probes: BTreeMap::new(),
        })
    }
}

fn configure(config: &mut Config) {
    config.checks = Checks::Standard; // wrong methods shall be sent
    config.heartbeat = Some(0);
    config.prefetch = Prefetch::Unlimited; // a program sets its own
    config.timeouts.request = Some(PATIENCE);
    config.timeouts.close = PATIENCE;
}

/// A future that is kept beside others.
pub(super) type Kept<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Waits for all of them at once.
pub(super) async fn all<T>(mut futures: Vec<Kept<'_, T>>) -> Vec<T> {
    let mut results: Vec<Option<T>> = futures.iter().map(|_| None).collect();
    poll_fn(|cx| {
        for (future, result) in futures.iter_mut().zip(&mut results) {
            if result.is_none()
                && let Poll::Ready(value) = future.as_mut().poll(cx)
            {
                *result = Some(value);
            }
        }
        if results.iter().all(Option::is_some) {
            Poll::Ready(())
        } else {
            Poll::Pending
        }
    })
    .await;
    results.into_iter().flatten().collect()
}

/// Waits for an event that may never come.
pub(super) async fn patiently<T>(future: impl Future<Output = T>) -> Option<T> {
    tokio::time::timeout(PATIENCE, future).await.ok()
}
