//! The configuration of a broker.

use alloc::{collections::BTreeMap, string::String, vec, vec::Vec};
use core::time::Duration;

use amqp_core::{
    server,
    text::Quoted,
    wire::{FieldTable, Secret, ShortStr},
};

use crate::{
    admin::UserLimits,
    permission::{Permissions, TopicPermissions},
    rabbitmq::RabbitMq,
};
#[cfg(feature = "definitions")]
use crate::{
    definitions::{HashingAlgorithm, PasswordHash},
    random::Random,
};

/// The configuration of a broker.
///
/// The default is a fresh RabbitMQ: the virtual host `/`, and the user `guest` with the password
/// `guest` and all permissions in it. Unlike in RabbitMQ, this `guest` may also connect from
/// another machine, because the broker does not know the addresses of clients
/// (<https://www.rabbitmq.com/docs/access-control>).
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Config {
    /// The configuration of each connection: limits to negotiate, mechanisms, timeouts, and the
    /// server properties. Its `limits.body`, `limits.output_high` and `limits.output_low` are not
    /// used, see [`Limits::message`] and [`Limits::output`].
    ///
    /// The default has RabbitMQ's product name, version and capabilities, because clients select
    /// features by them, and treats violations of the protocol as [`RabbitMq`] does. Its `frame_min`
    /// is 4096, and 8192 in [`Config::rabbitmq_4`], as in RabbitMQ since 4.1. Its mechanisms include
    /// EXTERNAL, which is offered only where the [transport is
    /// secured](crate::Broker::handle_secured).
    pub server: server::Config,
    /// The virtual hosts. Default `/`.
    pub vhosts: Vec<String>,
    /// The users. Default `guest`. A [restored](crate::Broker::restore) broker has those that were
    /// changed at run time as they were then.
    pub users: Vec<User>,
    /// The limits on memory.
    pub limits: Limits,
    /// The behaviour that differs between versions of RabbitMQ. Default that of 3.10.
    pub rules: Rules,
    /// The time after which a channel is closed because a delivery is not acknowledged. `None`
    /// disables it. Default 30 minutes, as in RabbitMQ, which checks once a minute
    /// (<https://www.rabbitmq.com/docs/consumers#acknowledgement-timeout>).
    pub consumer_timeout: Option<Duration>,
    /// The seed of generated names and of faults. Default 0.
    pub seed: u64,
    /// The time of day at [`Instant::ORIGIN`](amqp_core::Instant::ORIGIN), in seconds since the
    /// Unix epoch. It is written into the headers of dead letters, consumers of streams may start at
    /// a time, and TTLs go on across a restart. `None`, the default, lets a host set it from the
    /// clock of the system, as those of `amqp-embedded` do. A broker without a host then begins at
    /// the Unix epoch.
    pub epoch: Option<u64>,
    /// Whether changes of the durable state are recorded for
    /// [`poll_change`](crate::Broker::poll_change). Confirms of messages that are kept, and
    /// `tx.commit-ok`, then wait for [`handle_stored`](crate::Broker::handle_stored): without a host
    /// that stores the changes, they are never sent. Default `false`.
    pub journal: bool,
    /// Whether the broker keeps [notices](crate::Broker::poll_notice) of connections, which have to
    /// be polled. Default `false`.
    pub notices: bool,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            server: server::Config::default()
                .properties(server_properties("3.10.8"))
                .mechanisms("PLAIN AMQPLAIN EXTERNAL")
                .frame_min(4096)
                .policy(&RabbitMq),
            vhosts: vec!["/".into()],
            users: vec![User::new("guest", "guest").may("/", Permissions::all())],
            limits: Limits::default(),
            rules: Rules::default(),
            consumer_timeout: Some(Duration::from_secs(30 * 60)),
            seed: 0,
            epoch: None,
            journal: false,
            notices: false,
        }
    }
}

impl Config {
    /// Sets `server`.
    #[must_use]
    pub fn server(mut self, server: server::Config) -> Self {
        self.server = server;
        self
    }

    /// Sets `vhosts`.
    #[must_use]
    pub fn vhosts(mut self, vhosts: impl Into<Vec<String>>) -> Self {
        self.vhosts = vhosts.into();
        self
    }

    /// Sets `users`.
    #[must_use]
    pub fn users(mut self, users: impl Into<Vec<User>>) -> Self {
        self.users = users.into();
        self
    }

    /// Sets `limits`.
    #[must_use]
    pub fn limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// Sets `rules`.
    #[must_use]
    pub fn rules(mut self, rules: Rules) -> Self {
        self.rules = rules;
        self
    }

    /// Sets `consumer_timeout`.
    #[must_use]
    pub fn consumer_timeout(mut self, consumer_timeout: impl Into<Option<Duration>>) -> Self {
        self.consumer_timeout = consumer_timeout.into();
        self
    }

    /// Sets `seed`.
    #[must_use]
    pub fn seed(mut self, seed: u64) -> Self {
        self.seed = seed;
        self
    }

    /// Sets `epoch`.
    #[must_use]
    pub fn epoch(mut self, epoch: impl Into<Option<u64>>) -> Self {
        self.epoch = epoch.into();
        self
    }

    /// Sets `journal`.
    #[must_use]
    pub fn journal(mut self, journal: bool) -> Self {
        self.journal = journal;
        self
    }

    /// Sets `notices`.
    #[must_use]
    pub fn notices(mut self, notices: bool) -> Self {
        self.notices = notices;
        self
    }
}

impl Config {
    /// Returns the default with the rules, the version and the minimum frame limit of RabbitMQ 4:
    /// see [`Rules::rabbitmq_4`].
    #[must_use]
    pub fn rabbitmq_4() -> Self {
        let mut config = Self {
            rules: Rules::rabbitmq_4(),
            ..Self::default()
        };
        config.server.properties = server_properties("4.3.4");
        config.server.frame_min = 8192;
        config
    }
}

/// A user, with permissions in virtual hosts.
#[derive(Clone, Debug, PartialEq)]
pub struct User {
    pub(crate) name: String,
    pub(crate) password: Password,
    pub(crate) permissions: BTreeMap<String, Permissions>,
    /// The permissions for routing keys, by virtual host and exchange.
    pub(crate) topic_permissions: BTreeMap<(String, String), TopicPermissions>,
    pub(crate) tags: Vec<String>,
    pub(crate) limits: UserLimits,
}

/// The password of a user, or its hash.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Password {
    /// The password. An empty one matches none (<https://www.rabbitmq.com/docs/passwords>).
    Plain(Secret),
    /// Its salted hash. With the feature `definitions`, a user that is added or changed at run time
    /// has it, with a salt from the [seed](Config::seed).
    #[cfg(feature = "definitions")]
    Hash(PasswordHash),
}

impl Default for Password {
    fn default() -> Self {
        Self::Plain(Secret::new())
    }
}

impl Password {
    /// Returns the form in which RabbitMQ stores it: a password that is not empty is hashed.
    #[cfg(feature = "definitions")]
    pub(crate) fn hashed(&self, random: &mut Random) -> Self {
        match self {
            Self::Plain(plain) if !plain.is_empty() => {
                let [salt @ .., _, _, _, _] = random.next().to_be_bytes();
                let algorithm = HashingAlgorithm::default();
                Self::Hash(PasswordHash::new(algorithm, salt, plain.expose()))
            }
            other => other.clone(),
        }
    }

    pub(crate) fn is_set(&self) -> bool {
        *self != Self::default()
    }

    /// Returns whether it is that password, which is not empty.
    pub(crate) fn matches(&self, password: &Secret) -> bool {
        !password.is_empty()
            && match self {
                Self::Plain(own) => own == password,
                #[cfg(feature = "definitions")]
                Self::Hash(hash) => hash.matches(password.expose()),
            }
    }
}

impl User {
    /// Creates a user without access to any virtual host. With an empty password the user can log
    /// in only with EXTERNAL, which requires none.
    pub fn new(name: impl Into<String>, password: impl Into<Secret>) -> Self {
        Self {
            name: name.into(),
            password: Password::Plain(password.into()),
            permissions: BTreeMap::new(),
            topic_permissions: BTreeMap::new(),
            tags: Vec::new(),
            limits: UserLimits::default(),
        }
    }

    /// Returns the name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Returns the password.
    #[must_use]
    pub const fn password(&self) -> &Password {
        &self.password
    }

    /// Sets the permissions in a virtual host.
    #[must_use]
    pub fn may(mut self, vhost: impl Into<String>, permissions: Permissions) -> Self {
        self.permissions.insert(vhost.into(), permissions);
        self
    }

    /// Sets the tags. Of RabbitMQ's tags `impersonator` has an effect here: the user may publish
    /// with any `user-id` (<https://www.rabbitmq.com/docs/validated-user-id>).
    #[must_use]
    pub fn tags<T: Into<String>>(mut self, tags: impl IntoIterator<Item = T>) -> Self {
        self.tags = tags.into_iter().map(Into::into).collect();
        self
    }

    /// Sets the limits. Default none.
    #[must_use]
    pub fn limits(mut self, limits: UserLimits) -> Self {
        self.limits = limits;
        self
    }

    /// Creates a user as [`new`](Self::new), with the hash of a password.
    #[cfg(feature = "definitions")]
    pub fn with_hash(name: impl Into<String>, hash: PasswordHash) -> Self {
        let mut user = Self::new(name, "");
        user.password = Password::Hash(hash);
        user
    }

    pub(crate) fn set_password(&mut self, password: Secret) {
        self.password = Password::Plain(password);
    }
}

/// The limits of a broker.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Limits {
    /// The maximum number of connections; another one is not accepted. Default 65,536: an idle one
    /// takes less than 16 KiB. RabbitMQ accepts as many as its limits of sockets and open files
    /// allow (<https://www.rabbitmq.com/docs/networking>).
    ///
    /// Connections count until their transport is closed: a client that does not log in, or logs in
    /// byte by byte, for the [handshake timeout](amqp_core::Timeouts::handshake) of 10 s, as in
    /// RabbitMQ, and a failed login for the
    /// [delay](amqp_core::server::Policy::hang_up_delay) of 3 s, as in RabbitMQ.
    pub connections: usize,
    /// The maximum number of queues, and of exchanges in each virtual host; another one is refused
    /// with 506 (resource-error). RabbitMQ leaves that to its operators. Default 1,000,000.
    pub queues: usize,
    /// The maximum number of bindings of all exchanges in a virtual host; another one is refused
    /// with 506. Default 1,000,000.
    pub bindings: usize,
    /// The maximum number of consumers of a channel; another one is refused with 530 (not-allowed).
    /// Default 100,000: each takes a kilobyte.
    pub consumers: usize,
    /// The maximum size of a message, in bytes; a larger one closes its channel with 406
    /// (precondition-failed). Default 128 MiB, as in RabbitMQ 3.10.
    pub message: u64,
    /// The maximum memory of all messages together, in bytes. Above it connections that publish are
    /// blocked and not read from, until 7/8 of it or less is used. Default 1 GiB.
    ///
    /// A message counts once for all its queues, with the cost of keeping it in addition to its
    /// body. The received part of an incomplete message counts, too; it may keep three times its
    /// size of the read buffer. A stream keeps its messages
    /// until its retention limits drop them, or it is deleted.
    pub memory: usize,
    /// The maximum number of messages in a transaction, and likewise of acknowledgements; more
    /// close the connection with 506. Default 1,000,000.
    pub transaction: usize,
    /// The output on a connection above which its consumers receive nothing more, in bytes. Default
    /// 256 KiB: a slow consumer costs no more than that and one message. The rest stays in the
    /// queue.
    pub output: usize,
    /// The output on a connection above which it is not read from, in bytes: the client sends
    /// requests without reading the replies. Reading resumes at half of it. Default 1 MiB.
    pub replies: usize,
    /// The size of the changes that are not stored above which connections are not read from, in
    /// bytes: the host stores slower than clients publish or settle. Reading resumes at half of it. Only with [`Config::journal`]. Default 16 MiB.
    pub journal: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 1 << 16,
            queues: 1_000_000,
            bindings: 1_000_000,
            consumers: 100_000,
            message: 128 << 20,
            memory: 1 << 30,
            transaction: 1_000_000,
            output: 256 << 10,
            replies: 1 << 20,
            journal: 16 << 20,
        }
    }
}

impl Limits {
    /// Sets `connections`.
    #[must_use]
    pub fn connections(mut self, connections: usize) -> Self {
        self.connections = connections;
        self
    }

    /// Sets `queues`.
    #[must_use]
    pub fn queues(mut self, queues: usize) -> Self {
        self.queues = queues;
        self
    }

    /// Sets `bindings`.
    #[must_use]
    pub fn bindings(mut self, bindings: usize) -> Self {
        self.bindings = bindings;
        self
    }

    /// Sets `consumers`.
    #[must_use]
    pub fn consumers(mut self, consumers: usize) -> Self {
        self.consumers = consumers;
        self
    }

    /// Sets `message`.
    #[must_use]
    pub fn message(mut self, message: u64) -> Self {
        self.message = message;
        self
    }

    /// Sets `memory`.
    #[must_use]
    pub fn memory(mut self, memory: usize) -> Self {
        self.memory = memory;
        self
    }

    /// Sets `transaction`.
    #[must_use]
    pub fn transaction(mut self, transaction: usize) -> Self {
        self.transaction = transaction;
        self
    }

    /// Sets `output`.
    #[must_use]
    pub fn output(mut self, output: usize) -> Self {
        self.output = output;
        self
    }

    /// Sets `replies`.
    #[must_use]
    pub fn replies(mut self, replies: usize) -> Self {
        self.replies = replies;
        self
    }

    /// Sets `journal`.
    #[must_use]
    pub fn journal(mut self, journal: usize) -> Self {
        self.journal = journal;
        self
    }
}

/// The behaviour that differs between versions of RabbitMQ.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Rules {
    /// Whether queues may be neither durable nor exclusive. RabbitMQ 4.3 closes the connection with
    /// 541 (internal-error).
    pub transient_queues: bool,
    /// Whether `basic.qos` with `global` limits the whole channel
    /// (<https://www.rabbitmq.com/docs/consumer-prefetch>). RabbitMQ 4.3 ignores `global`.
    pub global_qos: bool,
    /// Whether `channel.flow` may pause deliveries, as in the standard (section 1.5.2.3 of the
    /// protocol reference). RabbitMQ closes the connection with 540 (not-implemented,
    /// <https://www.rabbitmq.com/docs/specification>).
    pub flow: bool,
}

impl Rules {
    /// Returns the rules of RabbitMQ 3.10.
    #[must_use]
    pub const fn rabbitmq_3() -> Self {
        Self {
            transient_queues: true,
            global_qos: true,
            flow: false,
        }
    }

    /// Returns the rules of RabbitMQ 4.3: no queues that are neither durable nor exclusive, and no
    /// prefetch limit of a whole channel.
    #[must_use]
    pub const fn rabbitmq_4() -> Self {
        Self {
            transient_queues: false,
            global_qos: false,
            flow: false,
        }
    }
}

impl Default for Rules {
    fn default() -> Self {
        Self::rabbitmq_3()
    }
}

impl Rules {
    /// Sets `transient_queues`.
    #[must_use]
    pub fn transient_queues(mut self, transient_queues: bool) -> Self {
        self.transient_queues = transient_queues;
        self
    }

    /// Sets `global_qos`.
    #[must_use]
    pub fn global_qos(mut self, global_qos: bool) -> Self {
        self.global_qos = global_qos;
        self
    }

    /// Sets `flow`.
    #[must_use]
    pub fn flow(mut self, flow: bool) -> Self {
        self.flow = flow;
        self
    }
}

/// The reason for which a broker cannot use a configuration.
#[derive(thiserror::Error, Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ConfigError {
    /// The configuration of connections is invalid.
    #[error("the settings of connections: {0}")]
    Server(#[from] amqp_core::ApiMisuse),
    /// Two users have the same name.
    #[error("there are two users {}", Quoted(.0))]
    DuplicateUser(String),
    /// Two virtual hosts have the same name.
    #[error("there are two virtual hosts {}", Quoted(.0))]
    DuplicateVhost(String),
}

/// The capabilities in `server_properties`, by which clients select extensions.
const CAPABILITIES: [&str; 9] = [
    "publisher_confirms",
    "exchange_exchange_bindings",
    "basic.nack",
    "consumer_cancel_notify",
    "connection.blocked",
    "consumer_priorities",
    "authentication_failure_close",
    "per_consumer_qos",
    "direct_reply_to",
];

/// Returns the server properties of RabbitMQ in this version.
fn server_properties(version: &str) -> FieldTable {
    let mut capabilities = FieldTable::new();
    for name in CAPABILITIES {
        capabilities.push(ShortStr::from_static(name).unwrap_or_default(), true);
    }
    let mut properties = FieldTable::new();
    let mut set = |name, value| {
        properties.push(ShortStr::from_static(name).unwrap_or_default(), value);
    };
    set("capabilities", capabilities.into());
    set("cluster_name", "amqp-broker@localhost".into());
    set(
        "copyright",
        amqp_core::wire::FieldValue::from("In memory, for as long as it runs"),
    );
    set(
        "information",
        "An in-memory broker that behaves as RabbitMQ".into(),
    );
    set("platform", "Rust".into());
    set("product", "RabbitMQ".into());
    set("version", version.into());
    properties
}
