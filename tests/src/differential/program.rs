//! Programs: the actions of a client, step by step.
//!
//! Printed with `{:?}`, a step is nearly the Rust code that makes it again, which is how programs
//! come into [`kept`](super::kept).

use amqp_tokio::{
    core::{MethodDef as _, MethodId},
    protocol::{basic, channel, connection, exchange, queue, tx},
};

/// How many queues a program knows. The last one gets its name from the server.
pub const QUEUES: u8 = 5;

/// The queue that the server names.
pub const SERVER_NAMED: u8 = QUEUES - 1;

/// How many exchanges of its own a program knows.
pub const EXCHANGES: u8 = 3;

/// How many channels a program uses.
pub const CHANNELS: u8 = 4;

/// The channel that is transactional; all others are in confirm mode.
pub const TRANSACTIONAL: u8 = 3;

/// How many consumer tags a program uses on each channel.
pub const TAGS: u8 = 3;

/// Which of the two connections a channel is on.
#[must_use]
pub const fn connection_of(channel: u8) -> usize {
    if channel == 2 { 1 } else { 0 }
}

/// An exchange.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exchange {
    /// The one without a name.
    Default,
    /// One of the program's own.
    Own(u8),
    /// `amq.direct`.
    Direct,
    /// One that does not exist, with a name in `amq.`.
    Reserved,
}

/// The type of an exchange.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// By the whole key.
    Direct,
    /// To all.
    Fanout,
    /// By a pattern.
    Topic,
    /// By a table.
    Headers,
    /// One that does not exist.
    Unknown,
}

/// A routing key, or the key of a binding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Key {
    /// The name of a queue.
    Queue(u8),
    /// As it stands.
    Text(&'static str),
}

/// An argument of a queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Argument {
    /// `x-max-length`.
    MaxLength(i32),
    /// `x-max-length-bytes`.
    MaxBytes(i32),
    /// `x-overflow`.
    Overflow(&'static str),
    /// `x-dead-letter-exchange`.
    DeadLetter(Exchange),
    /// `x-dead-letter-routing-key`.
    DeadLetterKey(Key),
    /// `x-max-priority`.
    MaxPriority(i32),
    /// `x-message-ttl`.
    Ttl(i32),
    /// `x-expires`.
    Expires(i32),
    /// `x-single-active-consumer`.
    SingleActive(bool),
    /// A number of an argument, given as a text.
    Text(&'static str),
    /// `x-queue-type`.
    Type(&'static str),
    /// `x-delivery-limit`.
    DeliveryLimit(i32),
    /// `x-max-age`.
    MaxAge(&'static str),
}

/// The `x-stream-offset` of a consumer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum From {
    /// None.
    Nowhere,
    /// `first`.
    First,
    /// `next`.
    Next,
    /// A number.
    Offset(i32),
    /// Another text, such as an interval.
    Text(&'static str),
}

/// The traits of a message beside its body.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traits {
    /// Which of the tables in [`headers`](super::names::headers); 0 is none.
    pub headers: u8,
    /// `priority`.
    pub priority: Option<u8>,
    /// `expiration`.
    pub expiration: Option<&'static str>,
    /// The header `CC`.
    pub cc: Option<Key>,
    /// The header `BCC`.
    pub bcc: Option<Key>,
    /// `user-id`.
    pub user_id: Option<&'static str>,
    /// Bytes that are added to the body.
    pub padding: u16,
}

/// One thing that a client does. `on` says on which channel.
#[derive(Clone, Debug, PartialEq)]
#[expect(missing_docs, reason = "the fields are those of the methods")]
pub enum Step {
    /// `queue.declare`.
    Queue {
        on: u8,
        queue: u8,
        passive: bool,
        durable: bool,
        exclusive: bool,
        auto_delete: bool,
        arguments: Vec<Argument>,
    },
    /// `exchange.declare`.
    Exchange {
        on: u8,
        exchange: Exchange,
        kind: Kind,
        passive: bool,
        durable: bool,
        auto_delete: bool,
        internal: bool,
        alternate: Option<Exchange>,
    },
    /// `queue.bind`; the table is one of [`binding`](super::names::binding).
    Bind {
        on: u8,
        queue: u8,
        exchange: Exchange,
        key: Key,
        table: u8,
    },
    /// `queue.unbind`.
    Unbind {
        on: u8,
        queue: u8,
        exchange: Exchange,
        key: Key,
        table: u8,
    },
    /// `exchange.bind`.
    BindExchange {
        on: u8,
        destination: Exchange,
        source: Exchange,
        key: Key,
        table: u8,
    },
    /// `exchange.unbind`.
    UnbindExchange {
        on: u8,
        destination: Exchange,
        source: Exchange,
        key: Key,
        table: u8,
    },
    /// `basic.publish`, that many times without waiting in between.
    Publish {
        on: u8,
        exchange: Exchange,
        key: Key,
        mandatory: bool,
        count: u8,
        traits: Traits,
    },
    /// `basic.qos`.
    Qos { on: u8, prefetch: u16, global: bool },
    /// `basic.consume`.
    Consume {
        on: u8,
        queue: u8,
        tag: u8,
        no_ack: bool,
        exclusive: bool,
        priority: Option<i32>,
    },
    /// `basic.qos` with a large limit, and `basic.consume` of a stream.
    Read {
        on: u8,
        queue: u8,
        tag: u8,
        from: From,
    },
    /// `basic.cancel`.
    Cancel { on: u8, tag: u8 },
    /// `basic.get`.
    Get { on: u8, queue: u8, no_ack: bool },
    /// `basic.ack` of one of the outstanding deliveries.
    Ack { on: u8, pick: u8, multiple: bool },
    /// `basic.nack` of one of the outstanding deliveries.
    Nack {
        on: u8,
        pick: u8,
        multiple: bool,
        requeue: bool,
    },
    /// `basic.reject` of one of the outstanding deliveries.
    Reject { on: u8, pick: u8, requeue: bool },
    /// `basic.ack` of a tag that was never delivered.
    AckUnknown { on: u8, multiple: bool },
    /// `basic.consume` with a tag that is in use, on the first queue.
    ConsumeTwice { on: u8, tag: u8 },
    /// `basic.recover`.
    Recover { on: u8, requeue: bool },
    /// `queue.purge`.
    Purge { on: u8, queue: u8 },
    /// `queue.delete`.
    DeleteQueue {
        on: u8,
        queue: u8,
        if_unused: bool,
        if_empty: bool,
    },
    /// `exchange.delete`.
    DeleteExchange {
        on: u8,
        exchange: Exchange,
        if_unused: bool,
    },
    /// `tx.commit`, on the transactional channel.
    Commit,
    /// `tx.rollback`, on the transactional channel.
    Rollback,
    /// `channel.close`; the next step that needs the channel opens it again.
    Close { on: u8 },
    /// `connection.close`; the next step that needs the connection opens it again.
    Disconnect { connection: usize },
}

impl Step {
    /// The method that the step sends.
    #[must_use]
    pub const fn method(&self) -> MethodId {
        match self {
            Self::Queue { .. } => queue::Declare::ID,
            Self::Exchange { .. } => exchange::Declare::ID,
            Self::Bind { .. } => queue::Bind::ID,
            Self::Unbind { .. } => queue::Unbind::ID,
            Self::BindExchange { .. } => exchange::Bind::ID,
            Self::UnbindExchange { .. } => exchange::Unbind::ID,
            Self::Publish { .. } => basic::Publish::ID,
            Self::Qos { .. } => basic::Qos::ID,
            Self::Consume { .. } | Self::Read { .. } | Self::ConsumeTwice { .. } => {
                basic::Consume::ID
            }
            Self::Cancel { .. } => basic::Cancel::ID,
            Self::Get { .. } => basic::Get::ID,
            Self::Ack { .. } | Self::AckUnknown { .. } => basic::Ack::ID,
            Self::Nack { .. } => basic::Nack::ID,
            Self::Reject { .. } => basic::Reject::ID,
            Self::Recover { .. } => basic::Recover::ID,
            Self::Purge { .. } => queue::Purge::ID,
            Self::DeleteQueue { .. } => queue::Delete::ID,
            Self::DeleteExchange { .. } => exchange::Delete::ID,
            Self::Commit => tx::Commit::ID,
            Self::Rollback => tx::Rollback::ID,
            Self::Close { .. } => channel::Close::ID,
            Self::Disconnect { .. } => connection::Close::ID,
        }
    }
}

/// A client's doings from a seed.
#[derive(Clone, Debug, PartialEq)]
pub struct Program {
    /// The seed that the program comes from.
    pub seed: u64,
    /// The steps.
    pub steps: Vec<Step>,
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use amqp_tokio::protocol::{RULES, confirm};

    use super::*;
    use crate::differential::generate::generate;

    /// The methods of a channel without a step: open and the two selects precede the first step of
    /// their channel, flow follows an injected method, and recover-async is not compared.
    const WITHOUT_STEP: [MethodId; 5] = [
        channel::Open::ID,
        confirm::Select::ID,
        tx::Select::ID,
        channel::Flow::ID,
        basic::RecoverAsync::ID,
    ];

    /// Programs have all methods of the table that a client sends on a channel, other than replies.
    #[test]
    fn every_method_of_the_table_is_among_the_steps() {
        let steps = (0..100).flat_map(|seed| generate(seed, 100).steps);
        let sent: BTreeSet<_> = steps.map(|step| step.method()).collect();
        let of_table = RULES.iter().filter(|rule| {
            let listed = rule.id == connection::Close::ID || !rule.connection;
            listed && rule.client_sends && rule.answers.is_empty()
        });
        let of_table = of_table.map(|rule| rule.id);
        assert_eq!(
            sent,
            of_table.filter(|id| !WITHOUT_STEP.contains(id)).collect()
        );
    }
}
