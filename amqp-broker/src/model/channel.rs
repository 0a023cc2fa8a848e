//! The state of a channel.

use alloc::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
    vec::Vec,
};
use core::fmt;

use amqp_core::{ChannelId, Instant, wire::ShortStr};

use super::{
    message::{Message, Reservation},
    queue::Entry,
    spare::{pop_front, release_spare},
};
use crate::keys::{ConsumerKey, QueueKey};

/// An unacknowledged delivery.
#[derive(Debug)]
pub(crate) struct Unacked {
    pub(crate) tag: u64,
    pub(crate) queue: QueueKey,
    /// `Some` for a delivery to a consumer, `None` for one of `basic.get`.
    pub(crate) consumer: Option<ConsumerKey>,
    /// The tag of that consumer.
    pub(crate) consumer_tag: Option<ShortStr>,
    /// `Some` if the message was taken from its queue; a stream keeps it.
    pub(crate) entry: Option<Entry>,
    /// The time of the delivery.
    pub(crate) at: Instant,
}

impl Unacked {
    /// Returns whether it counts towards the prefetch limit of its channel.
    pub(crate) const fn is_counted(&self) -> bool {
        self.consumer.is_some() && self.entry.is_some()
    }
}

/// The target of a consumer tag.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Subscription {
    Queue {
        queue: QueueKey,
        key: ConsumerKey,
    },
    /// A consumer of direct replies.
    Replies,
}

#[derive(Debug)]
pub(crate) struct Channel {
    pub(crate) id: ChannelId,
    /// The last delivery tag.
    pub(crate) delivered: u64,
    /// The unacknowledged deliveries, in the order of their tags.
    pub(crate) unacked: VecDeque<Unacked>,
    /// The deadline for the first of them that is registered with the broker: never later than the
    /// one that applies.
    pub(crate) ack_deadline: Option<Instant>,
    pub(crate) consumers: BTreeMap<ShortStr, Subscription>,
    /// The prefetch limit of a new consumer; 0 for no limit.
    pub(crate) prefetch: u16,
    /// The prefetch limit of all consumers together; 0 for no limit
    /// (<https://www.rabbitmq.com/docs/consumer-prefetch>).
    pub(crate) global_prefetch: u16,
    /// The unacknowledged deliveries that count towards it: those to consumers, except of streams.
    pub(crate) counted: u64,
    /// The last declared queue, which an empty queue name means.
    pub(crate) last_queue: Option<ShortStr>,
    pub(crate) mode: Mode,
    /// The address of direct replies: `Some` while the channel has a consumer for them.
    pub(crate) reply_address: Option<ShortStr>,
    /// The memory of an incomplete message: `Some` while one is arriving.
    pub(crate) incoming: Option<Reservation>,
    /// `true` while the client pauses deliveries with `channel.flow`.
    pub(crate) paused: bool,
    /// `true` if a consumer was found blocked since `Broker::unblock_consumers` last returned the
    /// consumers of the channel to the round-robin.
    pub(crate) has_blocked_consumer: bool,
}

/// The handling of publishes on a channel.
#[derive(Debug, Default)]
pub(crate) enum Mode {
    #[default]
    Plain,
    Confirm(Confirms),
    Transaction(Transaction),
}

/// The pending confirms, by sequence number.
#[derive(Debug, Default)]
pub(crate) struct Confirms {
    acked: Vec<u64>,
    nacked: Vec<u64>,
    /// The first number with a confirm that fault injection dropped: no `multiple` confirm may
    /// cover it.
    dropped: Option<u64>,
    /// The numbers with confirms that wait for the journal, in ascending order: no `multiple`
    /// confirm may cover them either.
    unstored: VecDeque<u64>,
}

/// The outcome of a publish, as its confirm reports it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ConfirmOutcome {
    Acked,
    Nacked,
    /// No confirm is sent.
    Dropped,
}

impl Confirms {
    pub(crate) fn add(&mut self, number: u64, outcome: ConfirmOutcome) {
        match outcome {
            ConfirmOutcome::Acked => self.acked.push(number),
            ConfirmOutcome::Nacked => self.nacked.push(number),
            ConfirmOutcome::Dropped => {
                self.dropped.get_or_insert(number);
            }
        }
    }

    /// Adds a number with a confirm that waits for the journal.
    pub(crate) fn add_unstored(&mut self, number: u64) {
        self.unstored.push_back(number);
    }

    /// Acknowledges the first of the numbers that wait for the journal, `number`.
    pub(crate) fn handle_stored(&mut self, number: u64) {
        if self.unstored.front() == Some(&number) {
            pop_front(&mut self.unstored);
            self.acked.push(number);
        }
    }

    /// Takes the numbers to acknowledge and to reject. The third value is the first number that no
    /// `multiple` confirm may cover: its confirm is dropped, or waits for the journal.
    pub(crate) fn take(&mut self) -> (Vec<u64>, Vec<u64>, Option<u64>) {
        let acked = core::mem::take(&mut self.acked);
        let unstored = self.unstored.front().copied();
        let uncovered = [self.dropped, unstored].into_iter().flatten().min();
        (acked, core::mem::take(&mut self.nacked), uncovered)
    }
}

/// The operations that a commit executes.
#[derive(Debug, Default)]
pub(crate) struct Transaction {
    pub(crate) publishes: Vec<TxPublish>,
    pub(crate) settlements: Vec<Settlement>,
    /// The number of deliveries in all settlements.
    pub(crate) settled: usize,
}

impl Transaction {
    /// Adds a settlement. Consecutive ones of the same kind are merged.
    pub(crate) fn add(&mut self, kind: Settle, deliveries: Vec<Unacked>) {
        match self.settlements.last_mut() {
            Some(last) if last.kind == kind => last.deliveries.extend(deliveries),
            _ => self.settlements.push(Settlement { kind, deliveries }),
        }
    }
}

/// A publish in a transaction, and the names of its queues, which are resolved at commit.
#[derive(Debug)]
pub(crate) struct TxPublish {
    pub(crate) message: Arc<Message>,
    pub(crate) queues: Vec<ShortStr>,
    /// Whether the message is returned to the publisher if it has no queue.
    pub(crate) mandatory: bool,
}

/// A message, and the queues that it is routed to.
#[derive(Debug)]
pub(crate) struct RoutedMessage {
    pub(crate) message: Arc<Message>,
    pub(crate) queues: Vec<QueueKey>,
    /// Whether the message is returned to the publisher if it has no queue.
    pub(crate) mandatory: bool,
}

/// The deliveries that an acknowledgement or a rejection covers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tags {
    One(u64),
    /// All deliveries up to that tag; 0 covers all (section 1.8.3.13 of the protocol reference).
    UpTo(u64),
}

impl Tags {
    /// Converts the fields `delivery-tag` and `multiple`.
    pub(crate) const fn new(tag: u64, multiple: bool) -> Self {
        if multiple {
            Self::UpTo(tag)
        } else {
            Self::One(tag)
        }
    }
}

impl fmt::Display for Tags {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (Self::One(tag) | Self::UpTo(tag)) = self;
        tag.fmt(f)
    }
}

/// Deliveries that are settled in the same way.
#[derive(Debug)]
pub(crate) struct Settlement {
    pub(crate) kind: Settle,
    pub(crate) deliveries: Vec<Unacked>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Settle {
    Ack,
    Requeue,
    Reject,
    /// Requeues because the channel has ended.
    ChannelEnded,
}

impl Channel {
    pub(crate) const fn new(id: ChannelId) -> Self {
        Self {
            id,
            delivered: 0,
            unacked: VecDeque::new(),
            ack_deadline: None,
            consumers: BTreeMap::new(),
            prefetch: 0,
            global_prefetch: 0,
            counted: 0,
            last_queue: None,
            mode: Mode::Plain,
            reply_address: None,
            incoming: None,
            paused: false,
            has_blocked_consumer: false,
        }
    }

    /// Returns the tag of the next delivery.
    pub(crate) const fn next_delivery(&mut self) -> u64 {
        self.delivered += 1;
        self.delivered
    }

    /// Takes the deliveries that an acknowledgement covers. `Some` if the tag is unacknowledged, or
    /// covers all.
    pub(crate) fn take_unacked(&mut self, tags: Tags) -> Option<Vec<Unacked>> {
        let position = |tag| {
            let found = self.unacked.binary_search_by_key(&tag, |one| one.tag);
            found.ok()
        };
        let taken = match tags {
            Tags::UpTo(0) => self.unacked.drain(..).collect(),
            Tags::UpTo(tag) => {
                let at = position(tag)?;
                self.unacked.drain(..=at).collect()
            }
            Tags::One(tag) => {
                let at = position(tag)?;
                Vec::from([self.unacked.remove(at)?])
            }
        };
        release_spare(&mut self.unacked);
        Some(taken)
    }

    pub(crate) const fn transaction(&mut self) -> Option<&mut Transaction> {
        match &mut self.mode {
            Mode::Transaction(transaction) => Some(transaction),
            Mode::Plain | Mode::Confirm(_) => None,
        }
    }
}
