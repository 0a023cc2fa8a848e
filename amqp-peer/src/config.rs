//! The configuration of a peer.

use std::{
    fmt,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
    time::Duration,
};

use amqp_core::{server, wire::Secret};
use bytes::Bytes;

use crate::{
    limits::Limits,
    name::{PeerName, PeerNameError},
};

/// The configuration of a peer: its name, and how it treats others.
///
/// ```
/// use amqp_peer::{Config, Throttle};
///
/// let config = Config::new("bob")?
///     .secret("of bob and alice")
///     .throttle(Throttle::both(100_000));
/// assert_eq!(config.name.as_str(), "bob");
/// # Ok::<(), amqp_peer::PeerNameError>(())
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Config {
    /// The name of the peer, unique among those that it talks to.
    pub name: PeerName,
    /// The secret that all peers share, the password of their logins. Default empty: any peer is
    /// believed its name.
    pub secret: Secret,
    /// A random number, different for each run of the process: the instance of the peer, and the
    /// source of its message ids. Drivers set it from the system's randomness. Default 0, for tests.
    pub seed: u64,
    /// The treatment of plain AMQP clients. Default [`Clients::Refuse`].
    pub clients: Clients,
    /// The rule that the name of a peer is in its certificate. Default `None`: certificates are
    /// only reported.
    pub certificate_rule: Option<CertificateRule>,
    /// The clock of the time to live. Default [`TtlClock::Disconnected`].
    pub ttl_clock: TtlClock,
    /// The events that follow the fate of each message. Default [`Receipts::None`].
    pub receipts: Receipts,
    /// The probe of silent links below AMQP's whole seconds. Default `None`.
    pub keepalive: Option<Keepalive>,
    /// The interval of AMQP's heartbeats, in seconds; 0 turns them off. On each link that of the peer
    /// that has dialled holds, for both directions. A link ends after two silent intervals. Default
    /// 10.
    pub heartbeat: u16,
    /// The bytes per second of each link. Default without limit.
    pub throttle: Throttle,
    /// The time from a transport's start until its link is up. Default 10 s.
    pub handshake: Duration,
    /// The time for which a link is probed when another one of the same name comes: without an
    /// answer it is replaced. Default 2 s: the round trip of a slow network with a lost packet.
    pub probe: Duration,
    /// The bounds of memory.
    pub limits: Limits,
    /// The settings of accepted connections that may be plain clients': those of the embedded
    /// broker. The peer adds its properties.
    pub(crate) server: Option<server::Config>,
}

impl Config {
    /// The default configuration of a peer with that name.
    ///
    /// # Errors
    /// [`PeerNameError`] for a text that is no name.
    pub fn new(name: &str) -> Result<Self, PeerNameError> {
        Ok(Self::named(PeerName::new(name)?))
    }

    /// The default configuration of a peer with that name.
    #[must_use]
    pub fn named(name: PeerName) -> Self {
        Self {
            name,
            secret: Secret::default(),
            seed: 0,
            clients: Clients::Refuse,
            certificate_rule: None,
            ttl_clock: TtlClock::Disconnected,
            receipts: Receipts::None,
            keepalive: None,
            heartbeat: 10,
            throttle: Throttle::default(),
            handshake: Duration::from_secs(10),
            probe: Duration::from_secs(2),
            limits: Limits::default(),
            server: None,
        }
    }

    /// Sets `secret`.
    #[must_use]
    pub fn secret(mut self, secret: impl Into<Secret>) -> Self {
        self.secret = secret.into();
        self
    }

    /// Sets `seed`.
    #[must_use]
    pub fn seed(mut self, seed: u64) -> Self {
        self.seed = seed;
        self
    }

    /// Sets `clients`.
    #[must_use]
    pub fn clients(mut self, clients: Clients) -> Self {
        self.clients = clients;
        self
    }

    /// Sets `certificate_rule`.
    #[must_use]
    pub fn certificate_rule(mut self, rule: CertificateRule) -> Self {
        self.certificate_rule = Some(rule);
        self
    }

    /// Sets `ttl_clock`.
    #[must_use]
    pub fn ttl_clock(mut self, clock: TtlClock) -> Self {
        self.ttl_clock = clock;
        self
    }

    /// Sets `receipts`.
    #[must_use]
    pub fn receipts(mut self, receipts: Receipts) -> Self {
        self.receipts = receipts;
        self
    }

    /// Sets `keepalive`.
    #[must_use]
    pub fn keepalive(mut self, keepalive: impl Into<Option<Keepalive>>) -> Self {
        self.keepalive = keepalive.into();
        self
    }

    /// Sets `heartbeat`.
    #[must_use]
    pub fn heartbeat(mut self, seconds: u16) -> Self {
        self.heartbeat = seconds;
        self
    }

    /// Sets `throttle`.
    #[must_use]
    pub fn throttle(mut self, throttle: Throttle) -> Self {
        self.throttle = throttle;
        self
    }

    /// Sets `handshake`.
    #[must_use]
    pub fn handshake(mut self, handshake: Duration) -> Self {
        self.handshake = handshake;
        self
    }

    /// Sets `probe`.
    #[must_use]
    pub fn probe(mut self, probe: Duration) -> Self {
        self.probe = probe;
        self
    }

    /// Sets `limits`.
    #[must_use]
    pub fn limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// Sets `server`.
    pub(crate) fn server(mut self, server: server::Config) -> Self {
        self.server = Some(server);
        self
    }

    /// Checks the rules that the types do not express.
    pub(crate) fn check(&self) -> Result<(), ConfigError> {
        let problem = |setting, problem| Err(ConfigError { setting, problem });
        if self.secret.expose().contains(&0) {
            return problem("secret", "must not contain NUL, which PLAIN cannot carry");
        }
        if self.secret.len() > MAX_SECRET {
            return problem("secret", "must have at most 1024 bytes");
        }
        let rates = [self.throttle.send, self.throttle.receive];
        if rates.into_iter().flatten().any(|rate| rate < MIN_RATE) {
            return problem("throttle", "must be at least 1024 bytes per second");
        }
        if let Some(keepalive) = self.keepalive
            && (keepalive.interval.is_zero() || keepalive.wait.is_zero())
        {
            return problem("keepalive", "must not be zero");
        }
        self.limits.check()
    }
}

/// The maximum length of the secret, in bytes: it fits into a frame before the limits are
/// negotiated.
const MAX_SECRET: usize = 1024;

/// The minimum rate of a throttle, in bytes per second: a heartbeat waits for the rest of a frame,
/// of 8 KiB at most.
const MIN_RATE: u64 = 1024;

/// A setting that contradicts another one, or is outside of its bounds.
#[derive(thiserror::Error, Clone, Debug, PartialEq, Eq)]
#[error("{setting}: {problem}")]
pub struct ConfigError {
    /// The name of the setting.
    pub setting: &'static str,
    /// The problem with its value.
    pub problem: &'static str,
}

/// The treatment of AMQP clients that are not peers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Clients {
    /// They are refused.
    #[default]
    Refuse,
    /// They are handed to the peer's embedded broker, and log in as its users.
    Allow,
}

/// The clock that a time to live runs by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum TtlClock {
    /// It runs while there is no link to the receiver. The time between two runs of the process
    /// counts: all of it if there was no link at the end of the first, and up to a second less if
    /// there was one.
    #[default]
    Disconnected,
    /// It runs always.
    Always,
}

/// The events that follow the fate of each sent message. [`Event::Dropped`](crate::machine::Event::Dropped)
/// is reported in any case.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Receipts {
    /// None.
    #[default]
    None,
    /// [`Event::Delivered`](crate::machine::Event::Delivered).
    Delivered,
    /// [`Event::Written`](crate::machine::Event::Written) and
    /// [`Event::Delivered`](crate::machine::Event::Delivered).
    All,
}

/// A probe of silent links.
///
/// On a link with a [throttle of receiving](Throttle::receive) the wait is a second longer: the answer
/// may be unread for a moment. It is behind what the peer has sent before, a frame of a message at
/// most and the buffers of the system, so that a throttle of some kilobytes per second takes a longer
/// wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Keepalive {
    /// The silence after which the peer is probed.
    pub interval: Duration,
    /// The further silence after which the link ends.
    pub wait: Duration,
}

/// The maximum number of bytes per second of each link, by direction, at least 1024. Accurate to 5
/// percent over a second and more. Heartbeats and acknowledgements count, and go ahead of messages.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Throttle {
    /// The limit of sending. `None` for none.
    pub send: Option<u64>,
    /// The limit of receiving. `None` for none.
    pub receive: Option<u64>,
}

impl Throttle {
    /// Limits sending only.
    #[must_use]
    pub const fn send(bytes_per_second: u64) -> Self {
        Self {
            send: Some(bytes_per_second),
            receive: None,
        }
    }

    /// Limits receiving only.
    #[must_use]
    pub const fn receive(bytes_per_second: u64) -> Self {
        Self {
            send: None,
            receive: Some(bytes_per_second),
        }
    }

    /// Limits both directions, each to that rate.
    #[must_use]
    pub const fn both(bytes_per_second: u64) -> Self {
        Self {
            send: Some(bytes_per_second),
            receive: Some(bytes_per_second),
        }
    }
}

/// A rule of names and certificates: whether a peer with these certificates may have that name.
///
/// The certificates are those of the peer, in DER, its own one first; none without TLS.
#[derive(Clone)]
pub struct CertificateRule(Arc<RuleFn>);

type RuleFn = dyn Fn(&PeerName, &[Bytes]) -> bool + Send + Sync;

impl CertificateRule {
    /// Creates a rule. It must not block, nor use a handle of the peer: its lock is held. One that
    /// panics refuses the peer.
    #[must_use]
    pub fn new(rule: impl Fn(&PeerName, &[Bytes]) -> bool + Send + Sync + 'static) -> Self {
        Self(Arc::new(rule))
    }

    pub(crate) fn allows(&self, name: &PeerName, certificates: &[Bytes]) -> bool {
        let allows = || (self.0)(name, certificates);
        catch_unwind(AssertUnwindSafe(allows)).unwrap_or(false)
    }
}

impl fmt::Debug for CertificateRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("CertificateRule(..)")
    }
}
