//! The optional arguments of a queue, validated as RabbitMQ does
//! (<https://www.rabbitmq.com/docs/queues>).

use alloc::string::String;
use core::fmt;

use amqp_core::{
    protocol::queue,
    wire::{FieldTable, FieldValue, ShortStr},
};

use super::stream::{Retention, parse_interval};
use crate::refusal::{Outcome, Quoted, QuotedValue, Refusal, Resource, same_value, type_name};

/// The maximum TTL of messages and queues, in milliseconds: ten years of 365 days.
pub(crate) const TIME_MAX: u64 = 10 * 365 * 24 * 60 * 60 * 1000;

/// The parsed arguments of a queue.
#[derive(Clone, Debug, Default)]
pub(crate) struct QueueArguments {
    pub(crate) kind: QueueKind,
    /// The TTL of messages, in milliseconds (<https://www.rabbitmq.com/docs/ttl>).
    pub(crate) message_ttl: Option<u64>,
    /// The time after which the queue is deleted if it is unused, in milliseconds, at least 1.
    pub(crate) expires: Option<u64>,
    pub(crate) max_length: Option<u64>,
    pub(crate) max_length_bytes: Option<u64>,
    pub(crate) overflow: Overflow,
    pub(crate) dead_letter: Option<DeadLetter>,
    /// `Some` for a priority queue (<https://www.rabbitmq.com/docs/priority>).
    pub(crate) max_priority: Option<u8>,
    pub(crate) single_active_consumer: bool,
    /// The maximum number of requeues of a message; quorum queues only. Not validated:
    /// a value that is no number limits nothing
    /// (<https://www.rabbitmq.com/docs/quorum-queues#poison-message-handling>).
    pub(crate) delivery_limit: Option<u64>,
    /// The maximum age of messages, in milliseconds; streams only.
    pub(crate) max_age: Option<u64>,
    /// The size of a segment, in bytes; streams only.
    pub(crate) segment_bytes: Option<u64>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum QueueKind {
    #[default]
    Classic,
    Quorum,
    Stream,
}

impl QueueKind {
    /// Reads the type from the arguments of a declaration.
    pub(crate) fn read(arguments: &FieldTable, queue: &Resource<'_>) -> Outcome<Self> {
        const NAME: &str = "x-queue-type";
        match arguments.get(NAME) {
            None => Ok(Self::Classic),
            Some(FieldValue::LongStr(kind)) => match kind.as_bytes() {
                b"classic" => Ok(Self::Classic),
                b"quorum" => Ok(Self::Quorum),
                b"stream" => Ok(Self::Stream),
                _ => Err(Refusal::argument(
                    NAME,
                    queue,
                    format_args!("\"unsupported queue type '{}'\"", kind.to_str_lossy()),
                )),
            },
            Some(other) => Err(Refusal::argument(
                NAME,
                queue,
                format_args!("{{unacceptable_type,{}}}", type_name(other)),
            )),
        }
    }

    /// Returns the module name that stands for the type in error texts.
    pub(crate) const fn module(self) -> &'static str {
        match self {
            Self::Classic => "rabbit_classic_queue",
            Self::Quorum => "rabbit_quorum_queue",
            Self::Stream => "rabbit_stream_queue",
        }
    }

    /// Returns the arguments of queues of this type, in the order in which RabbitMQ compares them
    /// in a redeclaration.
    const fn arguments(self) -> &'static [&'static str] {
        match self {
            Self::Classic => &CLASSIC,
            Self::Quorum => &QUORUM,
            Self::Stream => &STREAM,
        }
    }

    /// Refuses an argument that only other types of queues have. Any other argument is ignored.
    fn check_arguments(self, arguments: &FieldTable, queue: &Resource<'_>) -> Outcome {
        let is_foreign = |name: &str| {
            let kinds = [Self::Classic, Self::Quorum, Self::Stream];
            let mut having = kinds
                .into_iter()
                .filter(|kind| kind.arguments().contains(&name));
            having.next().is_some() && !self.arguments().contains(&name)
        };
        match arguments.iter().find(|(name, _)| is_foreign(name)) {
            None => Ok(()),
            Some((name, _)) => Err(self.unsupported(name, queue)),
        }
    }

    /// Refuses an argument that queues of this type, or their consumers, do not support.
    pub(crate) fn unsupported(self, name: &str, queue: &Resource<'_>) -> Refusal {
        Refusal::precondition(format_args!(
            "invalid arg '{name}' for {queue} of queue type {}",
            self.module()
        ))
    }
}

/// The handling of a message that exceeds the maximum length
/// (<https://www.rabbitmq.com/docs/maxlength>).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Overflow {
    /// Drops the oldest message.
    #[default]
    DropHead,
    /// Rejects the new message.
    RejectPublish,
    /// Rejects the new message, and dead-letters it.
    RejectPublishDlx,
}

impl Overflow {
    /// Returns the value with that name: `Some` if there is one.
    pub(crate) fn from_name(name: &str) -> Option<Self> {
        match name {
            "drop-head" => Some(Self::DropHead),
            "reject-publish" => Some(Self::RejectPublish),
            "reject-publish-dlx" => Some(Self::RejectPublishDlx),
            _ => None,
        }
    }
}

/// The target of dead-lettering (<https://www.rabbitmq.com/docs/dlx>).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct DeadLetter {
    /// The name of the exchange. No exchange has a name of more than 255 bytes.
    pub(crate) exchange: String,
    /// `Some` if it replaces the routing keys of messages.
    pub(crate) routing_key: Option<ShortStr>,
}

/// The arguments of classic queues.
const CLASSIC: [&str; 13] = [
    "x-expires",
    "x-message-ttl",
    "x-dead-letter-exchange",
    "x-dead-letter-routing-key",
    "x-max-length",
    "x-max-length-bytes",
    "x-max-priority",
    "x-overflow",
    "x-queue-mode",
    "x-queue-version",
    "x-single-active-consumer",
    "x-queue-type",
    "x-queue-master-locator",
];

/// The arguments of quorum queues.
const QUORUM: [&str; 15] = [
    "x-dead-letter-exchange",
    "x-dead-letter-routing-key",
    "x-dead-letter-strategy",
    "x-expires",
    "x-max-length",
    "x-max-length-bytes",
    "x-max-in-memory-length",
    "x-max-in-memory-bytes",
    "x-overflow",
    "x-single-active-consumer",
    "x-queue-type",
    "x-quorum-initial-group-size",
    "x-delivery-limit",
    "x-message-ttl",
    "x-queue-leader-locator",
];

/// The arguments of streams.
const STREAM: [&str; 6] = [
    "x-max-length-bytes",
    "x-queue-type",
    "x-max-age",
    "x-stream-max-segment-size-bytes",
    "x-initial-cluster-size",
    "x-queue-leader-locator",
];

/// The largest segment of a stream, in bytes.
const SEGMENT_MAX: u64 = 3_000_000_000;

impl QueueArguments {
    /// Parses and validates the arguments of a declaration.
    pub(crate) fn read(arguments: &FieldTable, queue: &Resource<'_>) -> Outcome<Self> {
        let kind = QueueKind::read(arguments, queue)?;
        check_exchange_type(arguments, queue)?;
        let reader = Reader {
            arguments,
            supported: kind.arguments(),
            queue,
        };
        let expires = reader.time("x-expires")?;
        if expires == Some(0) {
            return reader.wrong("x-expires", "{value_zero,0}");
        }
        let message_ttl = reader.time("x-message-ttl")?;
        let dead_letter = reader.dead_letter()?;
        reader.one_of(
            "x-dead-letter-strategy",
            &["at-most-once", "at-least-once"],
            "invalid_dlx_strategy",
        )?;
        let max_length = reader.count("x-max-length")?;
        let max_length_bytes = reader.count("x-max-length-bytes")?;
        reader.count("x-max-in-memory-length")?;
        reader.count("x-max-in-memory-bytes")?;
        let max_priority = reader.priority()?;
        let overflow = match (kind, reader.overflow()?) {
            // Not supported, and replaced by the default.
            (QueueKind::Quorum, Overflow::RejectPublishDlx) => Overflow::DropHead,
            (_, overflow) => overflow,
        };
        reader.version_and_mode()?;
        let single_active_consumer = match reader.get("x-single-active-consumer") {
            None => false,
            Some(FieldValue::Bool(flag)) => *flag,
            Some(other) => return reader.wrong_type("x-single-active-consumer", other),
        };
        reader.cluster_size("x-quorum-initial-group-size")?;
        let max_age = reader.age()?;
        let segment_bytes = reader.count("x-stream-max-segment-size-bytes")?;
        reader.cluster_size("x-initial-cluster-size")?;
        reader.one_of(
            "x-queue-leader-locator",
            &["client-local", "balanced", "random", "least-leaders"],
            "invalid_queue_locator_arg",
        )?;
        let delivery_limit = reader.get("x-delivery-limit").map(|limit| {
            let limit = limit.as_i64().unwrap_or(i64::MAX);
            u64::try_from(limit).unwrap_or(0)
        });
        kind.check_arguments(arguments, queue)?;
        Ok(Self {
            kind,
            message_ttl,
            expires,
            max_length,
            max_length_bytes,
            overflow,
            dead_letter,
            max_priority,
            single_active_consumer,
            delivery_limit,
            max_age,
            segment_bytes,
        })
    }

    /// Returns the limits on the size of a stream: `Some` for one.
    pub(crate) fn retention(&self) -> Option<Retention> {
        (self.kind == QueueKind::Stream).then_some(Retention {
            max_bytes: self.max_length_bytes,
            max_age: self.max_age,
            segment_bytes: self.segment_bytes,
        })
    }

    /// Checks that the flags of a declaration suit the type of the queue: classic queues allow all,
    /// others must be durable, and neither exclusive nor deleted with their last consumer.
    pub(crate) fn check_declaration(
        &self,
        declare: &queue::Declare,
        queue: &Resource<'_>,
    ) -> Outcome {
        if self.kind == QueueKind::Classic {
            return Ok(());
        }
        let wrong = [
            (declare.auto_delete, "auto-delete"),
            (declare.exclusive, "exclusive-owner"),
            (!declare.durable, "non-durable"),
        ];
        if let Some((_, property)) = wrong.iter().find(|(wrong, _)| *wrong) {
            return Err(Refusal::precondition(format_args!(
                "invalid property '{property}' for {queue}"
            )));
        }
        if self.segment_bytes.is_some_and(|size| size > SEGMENT_MAX) {
            return Err(Refusal::precondition(
                "Exceeded max value for x-stream-max-segment-size-bytes",
            ));
        }
        Ok(())
    }
}

/// Checks that a redeclaration has the arguments of the existing queue, of those that its type has.
pub(crate) fn check_equivalent(
    kind: QueueKind,
    current: &FieldTable,
    received: &FieldTable,
    resource: &Resource<'_>,
) -> Outcome {
    kind.arguments()
        .iter()
        .try_for_each(|name| check_argument(name, current, received, resource))
}

/// Checks one argument in the redeclaration of a queue or an exchange.
pub(crate) fn check_argument(
    name: &str,
    current: &FieldTable,
    received: &FieldTable,
    resource: &Resource<'_>,
) -> Outcome {
    let (now, then) = (received.get(name), current.get(name));
    let same = match (now, then) {
        (None, None) => true,
        (Some(now), Some(then)) => same_value(now, then),
        // The default type can be given or omitted.
        (Some(value), None) | (None, Some(value)) => {
            name == "x-queue-type" && value.as_bytes() == Some(b"classic")
        }
    };
    if same {
        return Ok(());
    }
    Err(match (now, then) {
        (Some(now), Some(then)) => {
            Refusal::inequivalent(name, resource, QuotedValue(now), QuotedValue(then))
        }
        (now, then) => Refusal::inequivalent(name, resource, Quoted(now), Quoted(then)),
    })
}

/// Checks the type of the name of a dead-letter exchange, before all other arguments.
fn check_exchange_type(arguments: &FieldTable, queue: &Resource<'_>) -> Outcome {
    match arguments.get(DEAD_LETTER_EXCHANGE) {
        None | Some(FieldValue::LongStr(_)) => Ok(()),
        Some(other) => Err(Refusal::precondition(format_args!(
            "invalid type '{}' for arg '{DEAD_LETTER_EXCHANGE}' in {queue}",
            type_name(other)
        ))),
    }
}

const DEAD_LETTER_EXCHANGE: &str = "x-dead-letter-exchange";

struct Reader<'a> {
    arguments: &'a FieldTable,
    /// The arguments of the type of the queue. Others are not read.
    supported: &'static [&'static str],
    queue: &'a Resource<'a>,
}

impl<'a> Reader<'a> {
    fn get(&self, name: &str) -> Option<&'a FieldValue> {
        self.arguments
            .get(name)
            .filter(|_| self.supported.contains(&name))
    }

    fn wrong<T>(&self, name: &str, problem: impl fmt::Display) -> Outcome<T> {
        Err(Refusal::argument(name, self.queue, problem))
    }

    fn wrong_type<T>(&self, name: &str, value: &FieldValue) -> Outcome<T> {
        self.wrong(
            name,
            format_args!("{{unacceptable_type,{}}}", type_name(value)),
        )
    }

    fn integer(&self, name: &str) -> Outcome<Option<i64>> {
        let Some(value) = self.get(name) else {
            return Ok(None);
        };
        match value.as_i64() {
            Some(number) => Ok(Some(number)),
            None => self.wrong(
                name,
                format_args!("\"expected integer, got {}\"", type_name(value)),
            ),
        }
    }

    fn count(&self, name: &str) -> Outcome<Option<u64>> {
        let Some(number) = self.integer(name)? else {
            return Ok(None);
        };
        match u64::try_from(number) {
            Ok(number) => Ok(Some(number)),
            Err(_) => self.wrong(name, format_args!("{{value_negative,{number}}}")),
        }
    }

    fn time(&self, name: &str) -> Outcome<Option<u64>> {
        match self.count(name)? {
            Some(number) if number > TIME_MAX => {
                self.wrong(name, format_args!("{{value_too_large,{number}}}"))
            }
            time => Ok(time),
        }
    }

    fn priority(&self) -> Outcome<Option<u8>> {
        const NAME: &str = "x-max-priority";
        let Some(number) = self.count(NAME)? else {
            return Ok(None);
        };
        match u8::try_from(number) {
            Ok(number) => Ok(Some(number)),
            Err(_) => self.wrong(NAME, format_args!("{{max_value_exceeded,{number}}}")),
        }
    }

    fn overflow(&self) -> Outcome<Overflow> {
        const NAME: &str = "x-overflow";
        match self.get(NAME) {
            None => Ok(Overflow::DropHead),
            Some(FieldValue::LongStr(kind)) => match kind.as_str().and_then(Overflow::from_name) {
                Some(overflow) => Ok(overflow),
                None => self.wrong(NAME, "invalid_overflow"),
            },
            Some(other) => self.wrong_type(NAME, other),
        }
    }

    fn dead_letter(&self) -> Outcome<Option<DeadLetter>> {
        const KEY: &str = "x-dead-letter-routing-key";
        // Of that type: see `check_exchange_type`.
        let exchange = self.get(DEAD_LETTER_EXCHANGE);
        let exchange = exchange.and_then(FieldValue::as_long_str);
        let exchange = exchange.map(|name| name.to_str_lossy().into_owned());
        let routing_key = match self.get(KEY) {
            None => None,
            // RabbitMQ accepts a longer key, and closes the connection that receives the message,
            // because its method cannot carry the key.
            Some(FieldValue::LongStr(key)) => match ShortStr::try_from(&*key.to_str_lossy()) {
                Ok(key) => Some(key),
                Err(_) => return self.wrong(KEY, format_args!("{{too_long,{}}}", key.len())),
            },
            Some(other) => return self.wrong_type(KEY, other),
        };
        match (exchange, routing_key) {
            (Some(exchange), routing_key) => Ok(Some(DeadLetter {
                exchange,
                routing_key,
            })),
            (None, None) => Ok(None),
            (None, Some(_)) => self.wrong(KEY, "routing_key_but_no_dlx_defined"),
        }
    }

    fn one_of(&self, name: &str, allowed: &[&str], problem: &str) -> Outcome {
        match self.get(name) {
            None => Ok(()),
            Some(FieldValue::LongStr(text)) => match text.as_str() {
                Some(text) if allowed.contains(&text) => Ok(()),
                _ => self.wrong(name, problem),
            },
            Some(other) => self.wrong_type(name, other),
        }
    }

    /// Validates a number of nodes, which has no effect here.
    fn cluster_size(&self, name: &str) -> Outcome {
        match self.count(name)? {
            Some(0) => self.wrong(name, "{value_zero,0}"),
            _ => Ok(()),
        }
    }

    fn age(&self) -> Outcome<Option<u64>> {
        const NAME: &str = "x-max-age";
        match self.get(NAME) {
            None => Ok(None),
            Some(FieldValue::LongStr(text)) => match parse_interval(text.as_bytes())? {
                None => self.wrong(NAME, "invalid_max_age"),
                age => Ok(age),
            },
            Some(other) => self.wrong_type(NAME, other),
        }
    }

    /// Validates the mode and version of storage, which have no effect here.
    fn version_and_mode(&self) -> Outcome {
        const MODE: &str = "x-queue-mode";
        const VERSION: &str = "x-queue-version";
        match self.get(MODE) {
            None => {}
            Some(FieldValue::LongStr(mode)) if matches!(&mode[..], b"default" | b"lazy") => {}
            Some(FieldValue::LongStr(mode)) => {
                let mode = mode.to_str_lossy();
                return self.wrong(MODE, format_args!("\"unsupported queue mode '{mode}'\""));
            }
            Some(other) => return self.wrong_type(MODE, other),
        }
        match self.integer(VERSION)? {
            None | Some(1 | 2) => Ok(()),
            Some(version) => self.wrong(
                VERSION,
                format_args!("\"unsupported queue version '{version}'\""),
            ),
        }
    }
}
