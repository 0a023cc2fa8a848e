//! Presets of exchanges.

use super::{ArgumentError, required, set};
use crate::{
    protocol::exchange,
    wire::{FieldValue, ShortStr, ShortStrError},
};

/// A declaration of a durable exchange, which [`declare`](Self::declare) returns.
///
/// ```
/// use amqp_core::arguments::Exchange;
///
/// let events = Exchange::topic("events")?
///     .alternate_exchange("unrouted")?
///     .declare();
/// assert!(events.durable);
/// # Ok::<(), amqp_core::arguments::ArgumentError>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
#[must_use = "a preset does nothing until its declaration is sent"]
pub struct Exchange {
    declare: exchange::Declare,
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
    /// Creates a preset of an exchange of any type.
    ///
    /// # Errors
    /// If the name is empty or has more than 255 bytes.
    pub fn new<S>(name: S, kind: ExchangeType) -> Result<Self, ArgumentError>
    where
        S: TryInto<ShortStr>,
        ShortStrError: From<S::Error>,
    {
        Ok(Self {
            declare: exchange::Declare {
                exchange: required("an exchange", name)?,
                kind: kind.into_name(),
                durable: true,
                ..exchange::Declare::default()
            },
        })
    }

    /// Creates a preset of a `direct` exchange.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn direct<S>(name: S) -> Result<Self, ArgumentError>
    where
        S: TryInto<ShortStr>,
        ShortStrError: From<S::Error>,
    {
        Self::new(name, ExchangeType::Direct)
    }

    /// Creates a preset of a `fanout` exchange.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn fanout<S>(name: S) -> Result<Self, ArgumentError>
    where
        S: TryInto<ShortStr>,
        ShortStrError: From<S::Error>,
    {
        Self::new(name, ExchangeType::Fanout)
    }

    /// Creates a preset of a `topic` exchange.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn topic<S>(name: S) -> Result<Self, ArgumentError>
    where
        S: TryInto<ShortStr>,
        ShortStrError: From<S::Error>,
    {
        Self::new(name, ExchangeType::Topic)
    }

    /// Creates a preset of a `headers` exchange.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn headers<S>(name: S) -> Result<Self, ArgumentError>
    where
        S: TryInto<ShortStr>,
        ShortStrError: From<S::Error>,
    {
        Self::new(name, ExchangeType::Headers)
    }

    /// Creates a preset of an `x-delayed-message` exchange, which holds each message for the time
    /// of [`Properties::delay`](crate::protocol::basic::Properties::delay) and then routes it by
    /// `kind`. RabbitMQ needs a plugin
    /// (<https://github.com/rabbitmq/rabbitmq-delayed-message-exchange>).
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn delayed<S>(name: S, kind: ExchangeType) -> Result<Self, ArgumentError>
    where
        S: TryInto<ShortStr>,
        ShortStrError: From<S::Error>,
    {
        let exchange = Self::new(name, custom("x-delayed-message"))?;
        Ok(exchange.with("x-delayed-type", kind.into_name()))
    }

    /// Creates a preset of an `x-consistent-hash` exchange, which distributes messages over its
    /// bindings. The routing key of a binding is its weight, a number such as `1`. RabbitMQ needs
    /// a plugin, which is part of it.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn consistent_hash<S>(name: S, on: HashOn) -> Result<Self, ArgumentError>
    where
        S: TryInto<ShortStr>,
        ShortStrError: From<S::Error>,
    {
        const PROPERTY: &str = "hash-property";
        let exchange = Self::new(name, custom("x-consistent-hash"))?;
        Ok(match on {
            HashOn::RoutingKey => exchange,
            HashOn::Header(header) => exchange.with("hash-header", header),
            HashOn::MessageId => exchange.with(PROPERTY, "message_id"),
            HashOn::CorrelationId => exchange.with(PROPERTY, "correlation_id"),
            HashOn::Timestamp => exchange.with(PROPERTY, "timestamp"),
        })
    }

    /// Sets `alternate-exchange`, which gets the messages that no binding takes
    /// (<https://www.rabbitmq.com/docs/ae>).
    ///
    /// # Errors
    /// If the name has more than 255 bytes.
    pub fn alternate_exchange<S>(self, exchange: S) -> Result<Self, ArgumentError>
    where
        S: TryInto<ShortStr>,
        ShortStrError: From<S::Error>,
    {
        let exchange = exchange.try_into().map_err(ShortStrError::from)?;
        Ok(self.with("alternate-exchange", exchange))
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

    /// Sets an argument of a type of a plugin.
    ///
    /// # Errors
    /// If the name has more than 255 bytes.
    pub fn argument<S>(
        mut self,
        name: S,
        value: impl Into<FieldValue>,
    ) -> Result<Self, ArgumentError>
    where
        S: TryInto<ShortStr>,
        ShortStrError: From<S::Error>,
    {
        let name = name.try_into().map_err(ShortStrError::from)?;
        self.declare.arguments.insert(name, value);
        Ok(self)
    }

    /// Returns the declaration.
    #[must_use]
    pub fn declare(self) -> exchange::Declare {
        self.declare
    }

    fn with(mut self, name: &'static str, value: impl Into<FieldValue>) -> Self {
        set(&mut self.declare.arguments, name, value);
        self
    }
}

impl From<Exchange> for exchange::Declare {
    fn from(exchange: Exchange) -> Self {
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
            Self::Direct => short("direct"),
            Self::Fanout => short("fanout"),
            Self::Topic => short("topic"),
            Self::Headers => short("headers"),
            Self::Custom(name) => name,
        }
    }
}

fn custom(name: &'static str) -> ExchangeType {
    ExchangeType::Custom(short(name))
}

/// Returns a name of this module, which is short.
fn short(name: &'static str) -> ShortStr {
    ShortStr::from_static(name).unwrap_or_default()
}
