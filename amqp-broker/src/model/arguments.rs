//! The optional arguments of a queue, validated as RabbitMQ does
//! (<https://www.rabbitmq.com/docs/queues>).

use alloc::string::String;
use core::fmt;

use amqp_core::{
    protocol::queue,
    wire::{FieldTable, FieldValue, ShortStr},
};

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
    /// The maximum number of requeues of a message; quorum queues only
    /// (<https://www.rabbitmq.com/docs/quorum-queues#poison-message-handling>).
    pub(crate) delivery_limit: Option<u64>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum QueueKind {
    #[default]
    Classic,
    Quorum,
}

impl QueueKind {
    /// Returns the module name that stands for the type in error texts.
    const fn module(self) -> &'static str {
        match self {
            Self::Classic => "rabbit_classic_queue",
            Self::Quorum => "rabbit_quorum_queue",
        }
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

/// All arguments with a meaning, in the order in which RabbitMQ compares them in a redeclaration.
const KNOWN: [&str; 21] = [
    "x-expires",
    "x-message-ttl",
    "x-dead-letter-exchange",
    "x-dead-letter-routing-key",
    "x-dead-letter-strategy",
    "x-max-length",
    "x-max-length-bytes",
    "x-max-in-memory-length",
    "x-max-in-memory-bytes",
    "x-max-priority",
    "x-overflow",
    "x-queue-mode",
    "x-queue-version",
    "x-single-active-consumer",
    "x-queue-type",
    "x-quorum-initial-group-size",
    "x-max-age",
    "x-stream-max-segment-size-bytes",
    "x-initial-cluster-size",
    "x-delivery-limit",
    "x-queue-leader-locator",
];

/// The arguments that classic queues do not support.
const NOT_CLASSIC: [&str; 8] = [
    "x-delivery-limit",
    "x-max-age",
    "x-dead-letter-strategy",
    "x-quorum-initial-group-size",
    "x-max-in-memory-length",
    "x-max-in-memory-bytes",
    "x-stream-max-segment-size-bytes",
    "x-initial-cluster-size",
];

/// The arguments that quorum queues do not support.
const NOT_QUORUM: [&str; 6] = [
    "x-max-priority",
    "x-queue-mode",
    "x-queue-version",
    "x-max-age",
    "x-stream-max-segment-size-bytes",
    "x-initial-cluster-size",
];

impl QueueArguments {
    /// Parses and validates the arguments of a declaration.
    pub(crate) fn read(arguments: &FieldTable, queue: &Resource<'_>) -> Outcome<Self> {
        let reader = Reader { arguments, queue };
        let kind = reader.kind()?;
        let not = match kind {
            QueueKind::Classic => &NOT_CLASSIC[..],
            QueueKind::Quorum => &NOT_QUORUM[..],
        };
        if let Some(name) = not.iter().find(|name| arguments.contains_key(name)) {
            return Err(Refusal::precondition(format_args!(
                "invalid arg '{name}' for {queue} of queue type {}",
                kind.module()
            )));
        }
        let expires = reader.time("x-expires")?;
        if expires == Some(0) {
            return Err(Refusal::argument("x-expires", queue, "{value_zero,0}"));
        }
        let message_ttl = reader.time("x-message-ttl")?;
        let dead_letter = reader.dead_letter()?;
        let max_length = reader.count("x-max-length")?;
        let max_length_bytes = reader.count("x-max-length-bytes")?;
        let max_priority = reader.priority()?;
        let overflow = reader.overflow()?;
        reader.version_and_mode()?;
        let single_active_consumer = match arguments.get("x-single-active-consumer") {
            None => false,
            Some(FieldValue::Bool(flag)) => *flag,
            Some(other) => return reader.wrong_type("x-single-active-consumer", other),
        };
        let delivery_limit = reader.integer("x-delivery-limit")?;
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
            // A negative limit means no limit.
            delivery_limit: delivery_limit.and_then(|limit| u64::try_from(limit).ok()),
        })
    }

    /// Checks that the flags of a declaration suit the type of the queue.
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
        Ok(())
    }
}

/// Checks that a redeclaration has the arguments of the existing queue.
pub(crate) fn check_equivalent(
    current: &FieldTable,
    received: &FieldTable,
    resource: &Resource<'_>,
) -> Outcome {
    KNOWN
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

struct Reader<'a> {
    arguments: &'a FieldTable,
    queue: &'a Resource<'a>,
}

impl Reader<'_> {
    fn wrong<T>(&self, name: &str, problem: impl fmt::Display) -> Outcome<T> {
        Err(Refusal::argument(name, self.queue, problem))
    }

    fn wrong_type<T>(&self, name: &str, value: &FieldValue) -> Outcome<T> {
        self.wrong(
            name,
            format_args!("{{unacceptable_type,{}}}", type_name(value)),
        )
    }

    fn kind(&self) -> Outcome<QueueKind> {
        const NAME: &str = "x-queue-type";
        match self.arguments.get(NAME) {
            None => Ok(QueueKind::Classic),
            Some(FieldValue::LongStr(kind)) => match kind.as_bytes() {
                b"classic" => Ok(QueueKind::Classic),
                b"quorum" => Ok(QueueKind::Quorum),
                b"stream" => Err(Refusal::not_implemented(format_args!(
                    "{} of type stream: this broker has classic and quorum queues only",
                    self.queue
                ))),
                _ => self.wrong(
                    NAME,
                    format_args!("\"unsupported queue type '{}'\"", kind.to_str_lossy()),
                ),
            },
            Some(other) => self.wrong_type(NAME, other),
        }
    }

    fn integer(&self, name: &str) -> Outcome<Option<i64>> {
        let Some(value) = self.arguments.get(name) else {
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
        match self.arguments.get(NAME) {
            None => Ok(Overflow::DropHead),
            Some(FieldValue::LongStr(kind)) => match kind.as_str().and_then(Overflow::from_name) {
                Some(overflow) => Ok(overflow),
                None => self.wrong(NAME, "invalid_overflow"),
            },
            Some(other) => self.wrong_type(NAME, other),
        }
    }

    fn dead_letter(&self) -> Outcome<Option<DeadLetter>> {
        const EXCHANGE: &str = "x-dead-letter-exchange";
        const KEY: &str = "x-dead-letter-routing-key";
        let exchange = match self.arguments.get(EXCHANGE) {
            None => None,
            Some(FieldValue::LongStr(name)) => Some(name.to_str_lossy().into_owned()),
            Some(other) => {
                return Err(Refusal::precondition(format_args!(
                    "invalid type '{}' for arg '{EXCHANGE}' in {}",
                    type_name(other),
                    self.queue
                )));
            }
        };
        let routing_key = match self.arguments.get(KEY) {
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

    /// Validates the mode and version of storage, which have no effect here.
    fn version_and_mode(&self) -> Outcome {
        const MODE: &str = "x-queue-mode";
        const VERSION: &str = "x-queue-version";
        match self.arguments.get(MODE) {
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
