//! Presets of exchanges.

use super::{ArgumentError, FirstError, required, set, short};
use crate::{
    protocol::exchange,
    wire::{FieldValue, IntoShortStr, ShortStr, sealed::Sealed},
};

/// A declaration of a durable exchange, which [`declare`](Self::declare) returns.
///
/// ```
/// use amqp_core::arguments::Exchange;
///
/// let events = Exchange::topic("events")
///     .alternate_exchange("unrouted")
///     .declare()?;
/// assert!(events.durable);
/// # Ok::<(), amqp_core::arguments::ArgumentError>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
#[must_use = "a preset does nothing until its declaration is sent"]
pub struct Exchange {
    declare: exchange::Declare,
    error: FirstError,
}

/// The rule by which an exchange routes (<https://www.rabbitmq.com/docs/exchanges>).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ExchangeType {
    /// `direct`: the routing key is that of the binding.
    Direct,
    /// `fanout`: every binding gets each message.
    Fanout,
    /// `topic`: the routing key matches the pattern of the binding.
    Topic,
    /// `headers`: the headers match those of the binding, see
    /// [`HeadersMatch`](super::HeadersMatch).
    Headers,
    /// A type of a plugin, by its name.
    Custom(ShortStr),
}

/// The part of a message by which a consistent hash exchange distributes
/// (<https://github.com/rabbitmq/rabbitmq-server/tree/main/deps/rabbitmq_consistent_hash_exchange>).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HashOn {
    /// The routing key.
    RoutingKey,
    /// The header of that name.
    Header(ShortStr),
    /// The property `message-id`.
    MessageId,
    /// The property `correlation-id`.
    CorrelationId,
    /// The property `timestamp`.
    Timestamp,
}

impl Exchange {
    /// Creates a preset of an exchange of any type. A name that is empty or has more than 255 bytes
    /// is an error of [`declare`](Self::declare).
    pub fn new(name: impl IntoShortStr, kind: ExchangeType) -> Self {
        let mut error = FirstError::default();
        let name = error.keep(required("an exchange", name));
        Self {
            declare: exchange::Declare {
                exchange: name.unwrap_or_default(),
                kind: kind.into_name(),
                durable: true,
                ..exchange::Declare::default()
            },
            error,
        }
    }

    /// Creates a preset of a `direct` exchange.
    pub fn direct(name: impl IntoShortStr) -> Self {
        Self::new(name, ExchangeType::Direct)
    }

    /// Creates a preset of a `fanout` exchange.
    pub fn fanout(name: impl IntoShortStr) -> Self {
        Self::new(name, ExchangeType::Fanout)
    }

    /// Creates a preset of a `topic` exchange.
    pub fn topic(name: impl IntoShortStr) -> Self {
        Self::new(name, ExchangeType::Topic)
    }

    /// Creates a preset of a `headers` exchange.
    pub fn headers(name: impl IntoShortStr) -> Self {
        Self::new(name, ExchangeType::Headers)
    }

    /// Creates a preset of an `x-delayed-message` exchange, which holds each message for the time
    /// of [`Properties::delay`](crate::protocol::basic::Properties::delay) and then routes it by
    /// `kind`. RabbitMQ needs a plugin
    /// (<https://github.com/rabbitmq/rabbitmq-delayed-message-exchange>).
    pub fn delayed(name: impl IntoShortStr, kind: ExchangeType) -> Self {
        const KIND: &str = "x-delayed-type";
        let mut exchange = Self::new(name, custom("x-delayed-message"));
        match exchange.error.keep(short(KIND, kind)) {
            Some(kind) => exchange.with(KIND, kind),
            None => exchange,
        }
    }

    /// Creates a preset of an `x-consistent-hash` exchange, which distributes messages over its
    /// bindings. The routing key of a binding is its weight, a number such as `1`. RabbitMQ needs
    /// a plugin, which is part of it.
    pub fn consistent_hash(name: impl IntoShortStr, on: HashOn) -> Self {
        const PROPERTY: &str = "hash-property";
        let exchange = Self::new(name, custom("x-consistent-hash"));
        match on {
            HashOn::RoutingKey => exchange,
            HashOn::Header(header) => exchange.with("hash-header", header),
            HashOn::MessageId => exchange.with(PROPERTY, "message_id"),
            HashOn::CorrelationId => exchange.with(PROPERTY, "correlation_id"),
            HashOn::Timestamp => exchange.with(PROPERTY, "timestamp"),
        }
    }

    /// Sets `alternate-exchange`, which gets the messages that no binding takes
    /// (<https://www.rabbitmq.com/docs/ae>). A name of more than 255 bytes is an error of
    /// [`declare`](Self::declare).
    pub fn alternate_exchange(mut self, exchange: impl IntoShortStr) -> Self {
        const NAME: &str = "alternate-exchange";
        match self.error.keep(short(NAME, exchange)) {
            Some(exchange) => self.with(NAME, exchange),
            None => self,
        }
    }

    /// Sets `internal`: clients cannot publish to it, only other exchanges.
    pub fn internal(mut self, internal: bool) -> Self {
        self.declare.internal = internal;
        self
    }

    /// Sets `auto_delete`: it is deleted with its last binding.
    pub fn auto_delete(mut self, auto_delete: bool) -> Self {
        self.declare.auto_delete = auto_delete;
        self
    }

    /// Sets `durable`. Unlike a queue, a shared exchange may be transient.
    pub fn durable(mut self, durable: bool) -> Self {
        self.declare.durable = durable;
        self
    }

    /// Sets an argument of a type of a plugin. A declaration with a name of more than 255 bytes is
    /// [refused](IntoShortStr).
    pub fn argument(mut self, name: impl IntoShortStr, value: impl Into<FieldValue>) -> Self {
        self.declare.arguments.insert(name, value);
        self
    }

    /// Returns the declaration.
    ///
    /// # Errors
    /// The first error of a name: it is empty or has more than 255 bytes.
    pub fn declare(self) -> Result<exchange::Declare, ArgumentError> {
        self.error.finish(self.declare)
    }

    fn with(mut self, name: &'static str, value: impl Into<FieldValue>) -> Self {
        set(&mut self.declare.arguments, name, value);
        self
    }
}

impl TryFrom<Exchange> for exchange::Declare {
    type Error = ArgumentError;

    fn try_from(exchange: Exchange) -> Result<Self, ArgumentError> {
        exchange.declare()
    }
}

impl ExchangeType {
    /// Returns the name of the type.
    #[must_use]
    pub fn name(&self) -> &str {
        match self {
            Self::Direct => "direct",
            Self::Fanout => "fanout",
            Self::Topic => "topic",
            Self::Headers => "headers",
            Self::Custom(name) => name,
        }
    }

    fn into_name(self) -> ShortStr {
        match self {
            Self::Direct => literal("direct"),
            Self::Fanout => literal("fanout"),
            Self::Topic => literal("topic"),
            Self::Headers => literal("headers"),
            Self::Custom(name) => name,
        }
    }
}

/// The name of the type, for `exchange.declare`.
impl IntoShortStr for ExchangeType {
    fn into_short_str(self) -> ShortStr {
        self.into_name()
    }
}

impl Sealed for ExchangeType {}

fn custom(name: &'static str) -> ExchangeType {
    ExchangeType::Custom(literal(name))
}

/// Returns a name of this module, which is short.
fn literal(name: &'static str) -> ShortStr {
    ShortStr::from_static(name).unwrap_or_default()
}
