//! What a broker knows of a channel.

use alloc::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
    vec::Vec,
};

use amqp_core::{ChannelId, wire::ShortStr};

use super::{
    message::{Message, Share},
    queue::Entry,
};
use crate::keys::{ConsumerKey, QueueKey};

/// A delivery that waits for its acknowledgement.
#[derive(Debug)]
pub(crate) struct Unacked {
    pub(crate) tag: u64,
    pub(crate) queue: QueueKey,
    /// The consumer it was given to; none if it was fetched.
    pub(crate) consumer: Option<ConsumerKey>,
    /// That consumer's tag.
    pub(crate) consumer_tag: Option<ShortStr>,
    pub(crate) entry: Entry,
}

/// A consumer of a channel, by its tag.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Subscription {
    Queue {
        queue: QueueKey,
        key: ConsumerKey,
    },
    /// It takes direct replies.
    Replies,
}

#[derive(Debug)]
pub(crate) struct Channel {
    pub(crate) id: ChannelId,
    /// The number of the last delivery.
    pub(crate) delivered: u64,
    /// In the order of their tags.
    pub(crate) unacked: VecDeque<Unacked>,
    pub(crate) consumers: BTreeMap<ShortStr, Subscription>,
    /// How many deliveries a new consumer may have unacknowledged; 0 for no limit.
    pub(crate) prefetch: u16,
    /// How many all consumers together may have unacknowledged; 0 for no limit.
    pub(crate) global_prefetch: u16,
    /// How many of the unacknowledged ones count towards that.
    pub(crate) counted: u64,
    /// The queue that was last declared, which is meant where no name is given.
    pub(crate) last_queue: Option<ShortStr>,
    pub(crate) mode: Mode,
    /// The address of direct replies to this channel.
    pub(crate) reply_address: Option<ShortStr>,
    /// What is taken by a message that is coming in.
    pub(crate) incoming: Option<Share>,
    /// The client wants no deliveries for now.
    pub(crate) paused: bool,
    /// A consumer was held back for something that is over one day.
    pub(crate) held_back: bool,
}

/// What a channel does with publishes.
#[derive(Debug, Default)]
pub(crate) enum Mode {
    #[default]
    Plain,
    Confirm(Confirms),
    Transaction(Transaction),
}

/// What is to be confirmed, by number.
#[derive(Debug, Default)]
pub(crate) struct Confirms {
    acked: Vec<u64>,
    nacked: Vec<u64>,
    /// The first number whose confirm was dropped for a test: no confirm of many may include it.
    dropped: Option<u64>,
}

/// What a publisher is told of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    Acked,
    Nacked,
    /// It is told nothing.
    Dropped,
}

impl From<bool> for Fate {
    fn from(taken: bool) -> Self {
        if taken { Self::Acked } else { Self::Nacked }
    }
}

impl Confirms {
    pub(crate) fn add(&mut self, number: u64, fate: Fate) {
        match fate {
            Fate::Acked => self.acked.push(number),
            Fate::Nacked => self.nacked.push(number),
            Fate::Dropped => {
                self.dropped.get_or_insert(number);
            }
        }
    }

    /// Takes out what is to be acked and nacked, and the first number that is not to be told of.
    pub(crate) fn take(&mut self) -> (Vec<u64>, Vec<u64>, Option<u64>) {
        let acked = core::mem::take(&mut self.acked);
        (acked, core::mem::take(&mut self.nacked), self.dropped)
    }
}

/// What happens when a transaction is committed.
#[derive(Debug, Default)]
pub(crate) struct Transaction {
    pub(crate) publishes: Vec<Address>,
    pub(crate) settlements: Vec<Settlement>,
    /// How many deliveries the settlements are about.
    pub(crate) settled: usize,
}

impl Transaction {
    /// Adds what is done with deliveries. What is done alike one after the other is done at once.
    pub(crate) fn add(&mut self, kind: Settle, deliveries: Vec<Unacked>) {
        match self.settlements.last_mut() {
            Some(last) if last.kind == kind => last.deliveries.extend(deliveries),
            _ => self.settlements.push(Settlement { kind, deliveries }),
        }
    }
}

/// A message of a transaction, and the names of the queues it goes to: they are looked for when it
/// is committed.
#[derive(Debug)]
pub(crate) struct Address {
    pub(crate) message: Arc<Message>,
    pub(crate) queues: Vec<ShortStr>,
    /// It goes back to the publisher if there is no queue.
    pub(crate) mandatory: bool,
}

/// A message, and the queues it goes to.
#[derive(Debug)]
pub(crate) struct Placement {
    pub(crate) message: Arc<Message>,
    pub(crate) queues: Vec<QueueKey>,
    /// It goes back to the publisher if there is no queue.
    pub(crate) mandatory: bool,
}

/// What is done with deliveries.
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
    /// The channel has ended, and what it had goes back.
    Abandon,
}

impl Channel {
    pub(crate) const fn new(id: ChannelId) -> Self {
        Self {
            id,
            delivered: 0,
            unacked: VecDeque::new(),
            consumers: BTreeMap::new(),
            prefetch: 0,
            global_prefetch: 0,
            counted: 0,
            last_queue: None,
            mode: Mode::Plain,
            reply_address: None,
            incoming: None,
            paused: false,
            held_back: false,
        }
    }

    /// The number of a delivery that is about to be made.
    pub(crate) const fn next_delivery(&mut self) -> u64 {
        self.delivered += 1;
        self.delivered
    }

    /// Takes out the deliveries that an acknowledgement speaks of; none if it speaks of one that is
    /// not there.
    pub(crate) fn take_unacked(&mut self, tag: u64, multiple: bool) -> Option<Vec<Unacked>> {
        if multiple && tag == 0 {
            return Some(self.unacked.drain(..).collect());
        }
        let at = self
            .unacked
            .binary_search_by_key(&tag, |unacked| unacked.tag)
            .ok()?;
        if multiple {
            return Some(self.unacked.drain(..=at).collect());
        }
        let taken = self.unacked.remove(at)?;
        if self.unacked.is_empty() && self.unacked.capacity() > 64 {
            self.unacked = VecDeque::new();
        }
        Some(Vec::from([taken]))
    }

    pub(crate) const fn transaction(&mut self) -> Option<&mut Transaction> {
        match &mut self.mode {
            Mode::Transaction(transaction) => Some(transaction),
            Mode::Plain | Mode::Confirm(_) => None,
        }
    }
}
