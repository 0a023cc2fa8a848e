//! What a broker begins with.

use alloc::{collections::BTreeMap, string::String, vec, vec::Vec};

use amqp_core::{
    server,
    text::Quoted,
    wire::{FieldTable, Secret, ShortStr},
};

use crate::permission::Permissions;

/// What a broker begins with.
///
/// The default is a fresh RabbitMQ: the virtual host `/`, and in it the user `guest` with the
/// password `guest`, who may do everything. Unlike RabbitMQ's, this `guest` may also come from
/// another machine: where a client comes from is not known here.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Config {
    /// What each connection begins with: limits to negotiate, mechanisms, timeouts, and what to
    /// tell of this server. Its `limits.body` is not used, see [`Limits::message`].
    ///
    /// The default has RabbitMQ's product name, version and capabilities, because clients decide by
    /// them what they may ask for, and refuses a `frame_max` below 8192, as RabbitMQ does since 4.1;
    /// `frame_min` allows 4096. It has EXTERNAL among its mechanisms, which is offered only where
    /// the [transport is secured](crate::Broker::handle_secured).
    pub server: server::Config,
    /// The virtual hosts. Default `/`.
    pub vhosts: Vec<String>,
    /// Who may log in. Default `guest`.
    pub users: Vec<User>,
    /// What bounds the memory.
    pub limits: Limits,
    /// Where versions of RabbitMQ differ. Default those of 3.10.
    pub rules: Rules,
    /// What the names that the broker makes follow from. Default 0.
    pub seed: u64,
    /// The time of day at [`Instant::ORIGIN`](amqp_core::Instant::ORIGIN), in seconds since the
    /// Unix epoch. It is written into the headers of dead letters. Default 0.
    pub epoch: u64,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            server: server::Config::default()
                .properties(server_properties("3.10.8"))
                .mechanisms("PLAIN AMQPLAIN EXTERNAL"),
            vhosts: vec!["/".into()],
            users: vec![User::new("guest", "guest").may("/", Permissions::all())],
            limits: Limits::default(),
            rules: Rules::default(),
            seed: 0,
            epoch: 0,
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

    /// Sets `seed`.
    #[must_use]
    pub fn seed(mut self, seed: u64) -> Self {
        self.seed = seed;
        self
    }

    /// Sets `epoch`.
    #[must_use]
    pub fn epoch(mut self, epoch: u64) -> Self {
        self.epoch = epoch;
        self
    }
}

impl Config {
    /// The default with the rules and the version of RabbitMQ 4: see [`Rules::rabbitmq_4`].
    #[must_use]
    pub fn rabbitmq_4() -> Self {
        let mut config = Self {
            rules: Rules::rabbitmq_4(),
            ..Self::default()
        };
        config.server.properties = server_properties("4.3.4");
        config
    }
}

/// Somebody who may log in.
#[derive(Clone, Debug)]
pub struct User {
    pub(crate) name: String,
    pub(crate) password: Secret,
    pub(crate) permissions: BTreeMap<String, Permissions>,
}

impl User {
    /// A user who may log in, and use no virtual host yet. With an empty password it is let in by
    /// EXTERNAL only, which does not ask for one.
    pub fn new(name: impl Into<String>, password: impl Into<Secret>) -> Self {
        Self {
            name: name.into(),
            password: password.into(),
            permissions: BTreeMap::new(),
        }
    }

    /// This user, with these permissions in a virtual host.
    #[must_use]
    pub fn may(mut self, vhost: impl Into<String>, permissions: Permissions) -> Self {
        self.permissions.insert(vhost.into(), permissions);
        self
    }
}

/// Bounds of a whole broker.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Limits {
    /// How many connections there may be at a time; another one is not accepted. Default 65,536: an
    /// idle one takes a few kilobytes.
    pub connections: usize,
    /// How many queues there may be at a time; another one is refused with 506 (resource-error),
    /// which RabbitMQ leaves to its operators. Default 1,000,000.
    pub queues: usize,
    /// How many bindings there may be at a time, over all exchanges of a virtual host; another one
    /// is refused with 506. Default 1,000,000.
    pub bindings: usize,
    /// How many consumers a channel may have; another one is refused with 530. Default 100,000:
    /// each takes a kilobyte.
    pub consumers: usize,
    /// The largest message, in bytes; a larger one closes its channel with 406. Default 128 MiB, as
    /// RabbitMQ 3.10 has.
    pub message: u64,
    /// How much all messages together may take, in bytes; above it publishers are blocked and not
    /// read from, until it is less again. Default 1 GiB.
    ///
    /// A message counts once, in however many queues it is, with what keeping it costs beside its
    /// body. What has come of a message that is not yet whole counts, too.
    pub memory: usize,
    /// How many messages a transaction may hold, and likewise acknowledgements; more close the
    /// channel with 506. Default 1,000,000.
    pub transaction: usize,
    /// A consumer gets nothing more while this much waits to be sent on its connection, in bytes.
    /// Default 256 KiB: a slow consumer costs no more than that and one message.
    pub output: usize,
    /// A connection is not read from while this much waits to be sent on it, in bytes: it asks
    /// without listening to the answers. Default 1 MiB.
    pub replies: usize,
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
}

/// Where versions of RabbitMQ differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Rules {
    /// Whether queues may be neither durable nor exclusive. RabbitMQ 4.3 closes the connection with
    /// 541.
    pub transient_queues: bool,
    /// Whether `basic.qos` with `global` bounds the whole channel. RabbitMQ 4.3 takes it as if
    /// `global` were not there.
    pub global_qos: bool,
    /// Whether `channel.flow` may pause deliveries. RabbitMQ closes the connection with 540; here
    /// it is allowed by default, as the standard wants it.
    pub flow: bool,
}

impl Rules {
    /// Those of RabbitMQ 3.10, and `channel.flow` as the standard wants it.
    #[must_use]
    pub const fn rabbitmq_3() -> Self {
        Self {
            transient_queues: true,
            global_qos: true,
            flow: true,
        }
    }

    /// Those of RabbitMQ 4.3: no queues that are neither durable nor exclusive, and no prefetch
    /// limit of a whole channel.
    #[must_use]
    pub const fn rabbitmq_4() -> Self {
        Self {
            transient_queues: false,
            global_qos: false,
            flow: true,
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

/// A configuration that no broker can begin with.
#[derive(thiserror::Error, Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ConfigError {
    /// What a connection would begin with.
    #[error("the settings of connections: {0}")]
    Server(#[from] amqp_core::ApiMisuse),
    /// Two users of one name.
    #[error("there are two users {}", Quoted(.0))]
    DuplicateUser(String),
    /// Two virtual hosts of one name.
    #[error("there are two virtual hosts {}", Quoted(.0))]
    DuplicateVhost(String),
}

/// The extensions that clients ask for in `server_properties`.
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

/// What RabbitMQ of that version tells of itself.
fn server_properties(version: &str) -> FieldTable {
    let mut capabilities = FieldTable::new();
    for name in CAPABILITIES {
        capabilities.push(ShortStr::from_static(name).unwrap_or_default(), true);
    }
    let mut properties = FieldTable::new();
    let mut tell = |name, value| {
        properties.push(ShortStr::from_static(name).unwrap_or_default(), value);
    };
    tell("capabilities", capabilities.into());
    tell("cluster_name", "amqp-broker@localhost".into());
    tell(
        "copyright",
        amqp_core::wire::FieldValue::from("In memory, for as long as it runs"),
    );
    tell(
        "information",
        "An in-memory broker that behaves as RabbitMQ".into(),
    );
    tell("platform", "Rust".into());
    tell("product", "RabbitMQ".into());
    tell("version", version.into());
    properties
}
