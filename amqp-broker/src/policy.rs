//! Policies: arguments for the queues and exchanges with names that match a pattern
//! (<https://www.rabbitmq.com/docs/policies>).

use alloc::{
    collections::BTreeMap,
    format,
    string::{String, ToString as _},
};
use core::fmt;

use amqp_core::{
    text::Quoted,
    wire::{FieldTable, FieldValue, ShortStr},
};

use crate::{
    durable::is_storable,
    model::{arguments::QueueKind, stream::parse_interval},
    pattern::{BadPattern, Pattern},
    refusal::short,
};

/// A policy: optional arguments of queues and exchanges by the patterns of their names
/// (<https://www.rabbitmq.com/docs/policies>).
///
/// At most one policy and one operator policy apply to a queue or an exchange: those with the
/// highest priority among the matching ones, and of equal ones the first by name. Numbers in the
/// policy, the operator policy and the arguments of a queue are combined to the lowest of them. Of
/// other settings the argument applies, but in a quorum queue `overflow` of the policy does, as in
/// RabbitMQ.
///
/// ```
/// use amqp_broker::{ApplyTo, Broker, Config, Policy};
///
/// let mut broker = Broker::new(Config::default())?;
/// let policy = Policy::new("short", "^tmp-")?
///     .apply_to(ApplyTo::Queues)
///     .priority(3)
///     .with("max-length", 1000)
///     .with("overflow", "reject-publish");
/// broker.admin().set_policy("/", policy)?;
/// # Ok::<_, Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Policy {
    /// Its name, unique among the policies of its kind in the virtual host.
    pub name: String,
    /// The pattern of the names that it applies to.
    pub pattern: Pattern,
    /// The entities that it applies to. Default all.
    pub apply_to: ApplyTo,
    /// Its priority: the highest applies. Default 0.
    pub priority: i64,
    /// The settings, by RabbitMQ's names: those of the arguments, without `x-`.
    pub definition: FieldTable,
}

impl Policy {
    /// Creates a policy without settings.
    ///
    /// # Errors
    /// If the pattern does not parse.
    pub fn new(name: impl Into<String>, pattern: impl Into<String>) -> Result<Self, BadPattern> {
        Ok(Self {
            name: name.into(),
            pattern: Pattern::new(pattern)?,
            apply_to: ApplyTo::All,
            priority: 0,
            definition: FieldTable::new(),
        })
    }

    /// Sets `apply_to`.
    #[must_use]
    pub fn apply_to(mut self, apply_to: ApplyTo) -> Self {
        self.apply_to = apply_to;
        self
    }

    /// Sets `priority`.
    #[must_use]
    pub fn priority(mut self, priority: i64) -> Self {
        self.priority = priority;
        self
    }

    /// Sets `definition`.
    #[must_use]
    pub fn definition(mut self, definition: FieldTable) -> Self {
        self.definition = definition;
        self
    }

    /// Adds a setting to the definition. A name of more than 255 bytes is refused with the policy,
    /// as an unknown one.
    #[must_use]
    pub fn with(mut self, setting: &str, value: impl Into<FieldValue>) -> Self {
        self.definition.insert(short(setting), value);
        self
    }

    /// Checks the settings, with the texts of RabbitMQ.
    pub(crate) fn check(&self, kind: PolicyKind) -> Result<(), String> {
        if self.definition.is_empty() {
            return Err("no policy provided".into());
        }
        for (setting, value) in self.definition.iter() {
            check_setting(kind, setting, value)?;
        }
        if !is_storable(&self.definition) {
            return Err("the definition is nested too deep".into());
        }
        Ok(())
    }

    /// Returns whether it applies to a queue.
    fn applies_to_queue(&self, name: &str, kind: QueueKind) -> bool {
        self.apply_to.includes_queue(kind)
            && self.pattern.matches(name)
            && self
                .definition
                .iter()
                .all(|(setting, _)| supports(kind, setting))
    }

    /// Returns whether it applies to an exchange.
    fn applies_to_exchange(&self, name: &str) -> bool {
        matches!(self.apply_to, ApplyTo::All | ApplyTo::Exchanges) && self.pattern.matches(name)
    }
}

/// The entities that a policy applies to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum ApplyTo {
    /// `all`: queues and exchanges.
    #[default]
    All,
    /// `queues`: queues of all types.
    Queues,
    /// `exchanges`.
    Exchanges,
    /// `classic_queues`, since RabbitMQ 3.12.
    ClassicQueues,
    /// `quorum_queues`, since RabbitMQ 3.12.
    QuorumQueues,
    /// `streams`, since RabbitMQ 3.12.
    Streams,
}

impl ApplyTo {
    /// Returns the value with that name: `Some` if there is one.
    ///
    /// ```
    /// use amqp_broker::ApplyTo;
    ///
    /// assert_eq!(ApplyTo::from_name("queues"), Some(ApplyTo::Queues));
    /// ```
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Some(match name {
            "all" => Self::All,
            "queues" => Self::Queues,
            "exchanges" => Self::Exchanges,
            "classic_queues" => Self::ClassicQueues,
            "quorum_queues" => Self::QuorumQueues,
            "streams" => Self::Streams,
            _ => return None,
        })
    }

    /// Returns its name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::All => "all",
            Self::Queues => "queues",
            Self::Exchanges => "exchanges",
            Self::ClassicQueues => "classic_queues",
            Self::QuorumQueues => "quorum_queues",
            Self::Streams => "streams",
        }
    }

    fn includes_queue(self, kind: QueueKind) -> bool {
        match self {
            Self::All | Self::Queues => true,
            Self::Exchanges => false,
            Self::ClassicQueues => kind == QueueKind::Classic,
            Self::QuorumQueues => kind == QueueKind::Quorum,
            Self::Streams => kind == QueueKind::Stream,
        }
    }
}

impl fmt::Display for ApplyTo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The two kinds of policies (<https://www.rabbitmq.com/docs/policies#operator-policies>).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum PolicyKind {
    /// Set by an application's owner.
    Plain,
    /// Set by the operator: numeric limits that a policy cannot raise.
    Operator,
}

impl PolicyKind {
    /// Returns the name of its runtime parameters in RabbitMQ
    /// (<https://www.rabbitmq.com/docs/parameters>).
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Plain => "policy",
            Self::Operator => "operator_policy",
        }
    }
}

/// Returns whether queues of a kind support a setting. A policy with another setting does not apply
/// to them.
fn supports(kind: QueueKind, setting: &str) -> bool {
    match setting {
        "delivery-limit" | "dead-letter-strategy" => kind == QueueKind::Quorum,
        "max-age" | "stream-max-segment-size-bytes" | "initial-cluster-size" => {
            kind == QueueKind::Stream
        }
        "queue-leader-locator" => kind != QueueKind::Classic,
        "expires"
        | "message-ttl"
        | "dead-letter-exchange"
        | "dead-letter-routing-key"
        | "max-length"
        | "max-in-memory-length"
        | "max-in-memory-bytes"
        | "overflow" => kind != QueueKind::Stream,
        "max-priority"
        | "queue-mode"
        | "single-active-consumer"
        | "ha-mode"
        | "ha-params"
        | "ha-sync-mode"
        | "ha-promote-on-shutdown"
        | "ha-promote-on-failure"
        | "queue-master-locator" => kind == QueueKind::Classic,
        _ => true,
    }
}

/// The settings that are combined to the lower of two values, which are those of operator policies.
const LOWEST: [&str; 7] = [
    "expires",
    "message-ttl",
    "max-length",
    "max-length-bytes",
    "max-in-memory-length",
    "max-in-memory-bytes",
    "delivery-limit",
];

/// Returns whether RabbitMQ knows a setting, of a policy of that kind.
pub(crate) fn is_known(kind: PolicyKind, setting: &str) -> bool {
    LOWEST.contains(&setting) || kind == PolicyKind::Plain && kind_of(setting).is_some()
}

/// The values of a setting, with the noun of RabbitMQ's refusal.
#[derive(Clone, Copy)]
enum Values {
    Text(&'static str),
    OneOf(&'static [&'static str], &'static str),
    /// Integers of at least this.
    AtLeast(i64, &'static str),
    /// A duration of a stream, such as `7D`.
    Age,
    /// Without a meaning here.
    Any,
}

fn kind_of(setting: &str) -> Option<Values> {
    Some(match setting {
        "alternate-exchange" => Values::Text("alternate exchange name"),
        "dead-letter-exchange" => Values::Text("dead letter exchange name"),
        "dead-letter-routing-key" => Values::Text("dead letter routing key"),
        "dead-letter-strategy" => {
            Values::OneOf(&["at-most-once", "at-least-once"], "dead letter strategy")
        }
        "message-ttl" => Values::AtLeast(0, "message TTL"),
        "expires" => Values::AtLeast(1, "queue expiry"),
        "max-length" => Values::AtLeast(0, "maximum length"),
        "max-length-bytes" => Values::AtLeast(0, "maximum length in bytes"),
        "max-in-memory-length" | "max-in-memory-bytes" => {
            Values::AtLeast(0, "maximum memory in bytes")
        }
        "delivery-limit" => Values::AtLeast(0, "delivery limit"),
        "queue-mode" => Values::OneOf(&["default", "lazy"], "queue-mode value"),
        "overflow" => Values::OneOf(
            &["drop-head", "reject-publish", "reject-publish-dlx"],
            "overflow value",
        ),
        "queue-leader-locator" => Values::OneOf(
            &["client-local", "balanced", "random", "least-leaders"],
            "queue leader locator value",
        ),
        "initial-cluster-size" => Values::AtLeast(0, "cluster size"),
        "stream-max-segment-size-bytes" => Values::AtLeast(0, "segment size"),
        "max-age" => Values::Age,
        "queue-version"
        | "queue-master-locator"
        | "ha-mode"
        | "ha-params"
        | "ha-sync-mode"
        | "ha-sync-batch-size"
        | "ha-promote-on-shutdown"
        | "ha-promote-on-failure" => Values::Any,
        _ => return None,
    })
}

fn check_setting(kind: PolicyKind, setting: &str, value: &FieldValue) -> Result<(), String> {
    let values = kind_of(setting).filter(|_| is_known(kind, setting));
    let Some(values) = values else {
        return Err(format!(
            "{} is not a recognised policy setting",
            Quoted(setting)
        ));
    };
    let (is_valid, noun) = match values {
        Values::Text(noun) => (value.as_str().is_some(), noun),
        Values::OneOf(texts, noun) => {
            let known = value.as_str().is_some_and(|text| texts.contains(&text));
            (known, noun)
        }
        Values::AtLeast(least, noun) => {
            (value.as_i64().is_some_and(|number| number >= least), noun)
        }
        Values::Age => (value.as_str().is_some_and(is_age), "max age"),
        Values::Any => (true, ""),
    };
    if is_valid {
        return Ok(());
    }
    let shown = match (value.as_str(), value.as_i64()) {
        (Some(text), _) => Quoted(text).to_string(),
        (None, Some(number)) => number.to_string(),
        (None, None) => format!("{value:?}"),
    };
    Err(format!("{shown} is not a valid {noun}"))
}

/// Returns whether a text is a maximum age of a stream: a number with one of the units `Y`, `M`,
/// `D`, `h`, `m` and `s` (<https://www.rabbitmq.com/docs/streams#retention>).
fn is_age(text: &str) -> bool {
    parse_interval(text.as_bytes()).is_ok_and(|age| age.is_some())
}

/// The policies of one kind in a virtual host, by name.
pub(crate) type Policies = BTreeMap<String, Policy>;

/// The policies that apply to a queue or an exchange.
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct AppliedPolicies {
    /// The name of the policy: `Some` if one applies.
    pub policy: Option<String>,
    /// The name of the operator policy: `Some` if one applies.
    pub operator_policy: Option<String>,
    /// The settings of both, which are combined with the arguments of the declaration.
    pub definition: FieldTable,
}

impl AppliedPolicies {
    pub(crate) fn to_queue(
        policies: &Policies,
        operator: &Policies,
        name: &ShortStr,
        kind: QueueKind,
    ) -> Self {
        let first = |policies| first(policies, |policy| policy.applies_to_queue(name, kind));
        Self::merge(first(policies), first(operator))
    }

    pub(crate) fn to_exchange(policies: &Policies, operator: &Policies, name: &ShortStr) -> Self {
        let first = |policies| first(policies, |policy| policy.applies_to_exchange(name));
        Self::merge(first(policies), first(operator))
    }

    fn merge(policy: Option<&Policy>, operator: Option<&Policy>) -> Self {
        let mut definition = policy.map(|it| it.definition.clone()).unwrap_or_default();
        for (setting, limit) in operator.into_iter().flat_map(|it| it.definition.iter()) {
            let current = definition.get(setting).and_then(FieldValue::as_i64);
            if current.is_none_or(|current| limit.as_i64().is_some_and(|limit| limit < current)) {
                definition.insert(setting.clone(), limit.clone());
            }
        }
        Self {
            policy: policy.map(|it| it.name.clone()),
            operator_policy: operator.map(|it| it.name.clone()),
            definition,
        }
    }

    /// Returns a number of at least 0: `Some` if there is the setting.
    pub(crate) fn number(&self, setting: &str) -> Option<u64> {
        let number = self.definition.get(setting)?.as_i64()?;
        u64::try_from(number).ok()
    }

    /// Returns a text: `Some` if there is the setting.
    pub(crate) fn text(&self, setting: &str) -> Option<&str> {
        self.definition.get(setting)?.as_str()
    }
}

/// Returns the policy with the highest priority, and of equal ones the first by name.
fn first(policies: &Policies, applies: impl Fn(&Policy) -> bool) -> Option<&Policy> {
    let matching = policies.values().filter(|policy| applies(policy));
    matching.reduce(|best, next| {
        if next.priority > best.priority {
            next
        } else {
            best
        }
    })
}
