//! Queues: messages in their order, and consumers in round-robin.

use alloc::{
    collections::{BTreeMap, VecDeque},
    string::String,
    sync::Arc,
    vec::Vec,
};
use core::{cmp::Reverse, ops::Deref, time::Duration};

use amqp_core::{
    Instant,
    wire::{FieldTable, ShortStr},
};

use super::{
    arguments::{Overflow, QueueArguments, QueueKind},
    merge::merge,
    message::Message,
    spare::{pop_front, release_spare},
};
use crate::{
    durable::Place,
    keys::{ChannelKey, ConnectionKey, ConsumerKey},
    listing::MessageCounts,
    policy::AppliedPolicies,
};

/// A message in a queue, or in flight to a consumer.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    /// Its sequence number in this queue. A classic queue keeps it when the message is requeued
    /// (<https://www.rabbitmq.com/docs/confirms>), a quorum queue assigns a new one.
    pub(crate) seq: u64,
    /// Its first sequence number, which it keeps.
    pub(crate) number: u64,
    pub(crate) message: Arc<Message>,
    pub(crate) redelivered: bool,
    /// The number of requeues.
    pub(crate) delivery_count: u64,
    /// The time at which it expires: `Some` if the queue or the message has a TTL.
    pub(crate) expires: Option<Instant>,
}

/// The cause of a requeue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RequeueCause {
    /// A request of the client.
    Client,
    /// The end of the channel.
    ChannelEnded,
}

/// A consumer of a queue.
#[derive(Debug)]
pub(crate) struct Consumer {
    pub(crate) channel: ChannelKey,
    pub(crate) tag: ShortStr,
    pub(crate) no_ack: bool,
    pub(crate) exclusive: bool,
    pub(crate) priority: i64,
    /// The maximum number of unacknowledged deliveries; 0 for no limit.
    pub(crate) prefetch: u16,
    pub(crate) unacked: u64,
    /// `Some` while it is blocked and not in the round-robin: the block counter of its queue at
    /// that time.
    pub(crate) blocked_since: Option<u64>,
    /// The offset of the next message to read: `Some` for a consumer of a stream.
    pub(crate) next_offset: Option<u64>,
    /// The turn of its last delivery, by the count of the broker; 0 before the first.
    pub(crate) served: u64,
    pub(crate) arguments: FieldTable,
}

/// A queue. Of a stream it has the declaration and the consumers; the messages are in its
/// [`Stream`](super::stream::Stream).
#[derive(Debug)]
pub(crate) struct Queue {
    declared: Declared,
    /// The arguments in effect: those of the declaration, changed by `policies`.
    pub(crate) arguments: QueueArguments,
    /// The policies that apply to the queue.
    pub(crate) policies: AppliedPolicies,
    /// The messages by priority, each level in the order of sequence numbers. No level is empty.
    /// Quorum queues have no priorities, but a second level for requeued messages: see `requeue`.
    levels: BTreeMap<Reverse<u8>, VecDeque<Entry>>,
    /// The number of ready messages.
    ready: usize,
    /// The size of their bodies, in bytes.
    ready_bytes: u64,
    /// The number of unacknowledged messages.
    pub(crate) unacked: u64,
    /// The messages since it was declared.
    pub(crate) messages: MessageCounts,
    /// The last sequence number that was assigned.
    last_seq: u64,
    pub(crate) consumers: BTreeMap<ConsumerKey, Consumer>,
    /// The cancelled consumers with unacknowledged deliveries. A quorum queue still counts them.
    cancelled: BTreeMap<ConsumerKey, Consumer>,
    /// The number of unacknowledged deliveries of `basic.get`.
    fetched: usize,
    /// The round-robin of the consumers that were not found blocked, by priority
    /// (<https://www.rabbitmq.com/docs/consumer-priority>). No level is empty.
    round_robin: BTreeMap<Reverse<i64>, VecDeque<ConsumerKey>>,
    /// The number of times that a consumer was found blocked.
    block_counter: u64,
    /// The single active consumer: `Some` if the queue has the argument and a consumer
    /// (<https://www.rabbitmq.com/docs/consumers#single-active-consumer>).
    active: Option<ConsumerKey>,
    /// `true` while a quorum queue with the overflow `reject-publish` rejects messages: since it
    /// exceeded its maximum length, until it has at most 80 % of it.
    rejecting: bool,
    /// The time of the last use, for `x-expires`.
    pub(crate) used: Instant,
    /// The deadline that is registered with the broker.
    pub(crate) deadline: Option<Instant>,
    /// `true` while it is scheduled for processing.
    pub(crate) scheduled: bool,
}

/// The declaration of a queue, which does not change.
#[derive(Debug)]
pub(crate) struct Declared {
    pub(crate) name: ShortStr,
    pub(crate) vhost: String,
    pub(crate) durable: bool,
    /// `Some` for an exclusive queue: the only connection that may use it.
    pub(crate) owner: Option<ConnectionKey>,
    pub(crate) auto_delete: bool,
    /// The arguments as declared.
    pub(crate) table: FieldTable,
    /// The arguments as declared, parsed.
    pub(crate) declared_arguments: QueueArguments,
}

impl Deref for Queue {
    type Target = Declared;

    fn deref(&self) -> &Declared {
        &self.declared
    }
}

impl Queue {
    pub(crate) fn new(declared: Declared, now: Instant) -> Self {
        Self {
            arguments: declared.declared_arguments.clone(),
            policies: AppliedPolicies::default(),
            declared,
            levels: BTreeMap::new(),
            ready: 0,
            ready_bytes: 0,
            unacked: 0,
            messages: MessageCounts::default(),
            last_seq: 0,
            consumers: BTreeMap::new(),
            cancelled: BTreeMap::new(),
            fetched: 0,
            round_robin: BTreeMap::new(),
            block_counter: 0,
            active: None,
            rejecting: false,
            used: now,
            deadline: None,
            scheduled: false,
        }
    }

    /// Applies policies in place of the previous ones. Returns `false` if they are the same.
    pub(crate) fn apply_policies(&mut self, policies: AppliedPolicies) -> bool {
        if policies == self.policies {
            return false;
        }
        let declared = &self.declared;
        self.arguments = declared
            .declared_arguments
            .with_policies(&declared.table, &policies);
        self.policies = policies;
        true
    }

    // Messages.

    /// Returns the number of ready messages.
    pub(crate) const fn len(&self) -> usize {
        self.ready
    }

    pub(crate) const fn is_empty(&self) -> bool {
        self.ready == 0
    }

    /// Returns whether the queue is too full for another message, and rejects it. A quorum queue
    /// accepts one beyond its maximum length, and then none for a while.
    pub(crate) fn rejects(&self, message: &Message) -> bool {
        if self.arguments.kind == QueueKind::Quorum {
            return self.rejecting;
        }
        self.arguments.overflow != Overflow::DropHead && {
            let bytes = self.ready_bytes + message.body.len() as u64;
            self.is_over(self.ready as u64 + 1, bytes)
        }
    }

    /// Updates whether a quorum queue rejects messages. Called when its messages were delivered.
    pub(crate) fn update_rejecting(&mut self) {
        let (len, bytes) = (self.ready as u64, self.ready_bytes);
        let is_below = |limit: Option<u64>, value| {
            limit.is_none_or(|limit| value <= limit - limit.div_ceil(5))
        };
        if self.arguments.overflow == Overflow::DropHead {
            self.rejecting = false;
        } else if self.is_over(len, bytes) {
            self.rejecting = true;
        } else if is_below(self.arguments.max_length, len)
            && is_below(self.arguments.max_length_bytes, bytes)
        {
            self.rejecting = false;
        }
    }

    fn is_over(&self, len: u64, bytes: u64) -> bool {
        let over = |limit: Option<u64>, value| limit.is_some_and(|limit| value > limit);
        over(self.arguments.max_length, len) || over(self.arguments.max_length_bytes, bytes)
    }

    /// Returns the entry of a new message, which is to be [inserted](Self::insert). The lower TTL of
    /// queue and message applies (<https://www.rabbitmq.com/docs/ttl>).
    pub(crate) fn new_entry(&mut self, message: Arc<Message>, now: Instant) -> Entry {
        let ttl = [self.arguments.message_ttl, message.expiration];
        let ttl = ttl.into_iter().flatten().min();
        self.last_seq += 1;
        self.messages.published += 1;
        Entry {
            seq: self.last_seq,
            number: self.last_seq,
            redelivered: false,
            delivery_count: 0,
            expires: ttl.map(|ttl| now + Duration::from_millis(ttl)),
            message,
        }
    }

    /// Requeues a message: a classic queue by its sequence number, a quorum queue before all
    /// messages that were never delivered, or at the end if a client requeued it and there is no
    /// delivery limit. Returns its new entry and place.
    pub(crate) fn requeue(&mut self, mut entry: Entry, cause: RequeueCause) -> (Entry, Place) {
        entry.redelivered = true;
        let mut place = Place::Ordinary;
        if self.arguments.kind == QueueKind::Quorum {
            self.last_seq += 1;
            entry.seq = self.last_seq;
            let last = cause == RequeueCause::Client && self.arguments.delivery_limit.is_none();
            if !last {
                place = Place::Returned;
            }
        }
        self.insert_in(place, entry.clone());
        (entry, place)
    }

    fn insert_in(&mut self, place: Place, entry: Entry) {
        match place {
            Place::Ordinary => self.insert(entry),
            Place::Returned => self.insert_at(1, entry),
        }
    }

    /// Inserts a message where its sequence number belongs.
    pub(crate) fn insert(&mut self, entry: Entry) {
        self.insert_at(self.level_of(&entry), entry);
    }

    /// Inserts messages where their sequence numbers belong.
    pub(crate) fn insert_all(&mut self, entries: Vec<Entry>) {
        let mut levels: BTreeMap<u8, Vec<Entry>> = BTreeMap::new();
        for entry in entries {
            self.ready += 1;
            self.ready_bytes += entry.message.body.len() as u64;
            let level = self.level_of(&entry);
            levels.entry(level).or_default().push(entry);
        }
        for (level, entries) in levels {
            let level = self.levels.entry(Reverse(level)).or_default();
            merge(level, entries, |entry| entry.seq);
        }
    }

    fn level_of(&self, entry: &Entry) -> u8 {
        let max = self.arguments.max_priority;
        max.map_or(0, |max| entry.message.priority.min(max))
    }

    fn insert_at(&mut self, level: u8, entry: Entry) {
        self.ready += 1;
        self.ready_bytes += entry.message.body.len() as u64;
        let level = self.levels.entry(Reverse(level)).or_default();
        let newest = level.back().is_none_or(|last| last.seq < entry.seq);
        if newest {
            level.push_back(entry);
        } else {
            let at = level.partition_point(|other| other.seq < entry.seq);
            level.insert(at, entry);
        }
    }

    /// Removes the first message.
    pub(crate) fn pop(&mut self) -> Option<Entry> {
        let mut level = self.levels.first_entry()?;
        let entry = pop_front(level.get_mut())?;
        if level.get().is_empty() {
            level.remove();
        }
        self.removed(&entry);
        Some(entry)
    }

    fn removed(&mut self, entry: &Entry) {
        self.ready = self.ready.saturating_sub(1);
        let bytes = entry.message.body.len() as u64;
        self.ready_bytes = self.ready_bytes.saturating_sub(bytes);
    }

    /// Removes at most `max` expired messages at the front. An unexpired one retains all messages behind it,
    /// including those of lower priority (<https://www.rabbitmq.com/docs/priority>).
    pub(crate) fn take_expired(&mut self, now: Instant, max: usize) -> Vec<Entry> {
        let mut gone = Vec::new();
        let is_due = |entry: &Entry| entry.expires.is_some_and(|at| at <= now);
        while let Some(mut level) = self.levels.first_entry() {
            while gone.len() < max && level.get().front().is_some_and(is_due) {
                gone.extend(level.get_mut().pop_front());
            }
            release_spare(level.get_mut());
            if !level.get().is_empty() {
                break;
            }
            level.remove();
        }
        for entry in &gone {
            self.removed(entry);
        }
        gone
    }

    /// Removes a message from the front: `Some` if the queue exceeds its maximum length with
    /// `drop-head`.
    pub(crate) fn take_surplus(&mut self) -> Option<Entry> {
        let over = self.is_over(self.ready as u64, self.ready_bytes);
        (over && self.arguments.overflow == Overflow::DropHead)
            .then(|| self.pop())
            .flatten()
    }

    /// Drops all ready messages, and returns their number.
    pub(crate) fn purge(&mut self) -> usize {
        self.levels = BTreeMap::new();
        self.ready_bytes = 0;
        core::mem::take(&mut self.ready)
    }

    // Durability.

    /// Returns whether a message outlives a stop of the broker: a persistent one in a durable queue,
    /// or any in a queue of a replicated type (<https://www.rabbitmq.com/docs/quorum-queues>).
    pub(crate) fn keeps(&self, message: &Message) -> bool {
        self.durable && (message.persistent || self.arguments.kind != QueueKind::Classic)
    }

    /// Returns the ready messages with their places, in the order of delivery.
    pub(crate) fn entries(&self) -> impl Iterator<Item = (Place, &Entry)> {
        let quorum = self.arguments.kind == QueueKind::Quorum;
        self.levels.iter().flat_map(move |(level, entries)| {
            let place = if quorum && level.0 > 0 {
                Place::Returned
            } else {
                Place::Ordinary
            };
            entries.iter().map(move |entry| (place, entry))
        })
    }

    /// Inserts a message of a former broker.
    pub(crate) fn restore(&mut self, entry: Entry, place: Place) {
        self.restore_seq(&entry);
        self.insert_in(place, entry);
    }

    /// Assigns only later sequence numbers than that of a message of a former broker.
    pub(crate) fn restore_seq(&mut self, entry: &Entry) {
        self.last_seq = self.last_seq.max(entry.seq).max(entry.number);
    }

    /// Marks all ready messages as redelivered.
    pub(crate) fn mark_redelivered(&mut self) {
        for entry in self.levels.values_mut().flatten() {
            entry.redelivered = true;
        }
    }

    /// Drops the messages that the queue does not keep.
    pub(crate) fn drop_transient(&mut self) {
        let levels = core::mem::take(&mut self.levels);
        self.purge();
        for (Reverse(level), entries) in levels {
            for entry in entries {
                if self.keeps(&entry.message) {
                    self.insert_at(level, entry);
                }
            }
        }
    }

    /// Returns whether the number of requeues of a message, including the present one, is within
    /// the delivery limit of a quorum queue.
    pub(crate) fn is_within_delivery_limit(&self, entry: &Entry) -> bool {
        self.arguments.kind != QueueKind::Quorum
            || self
                .arguments
                .delivery_limit
                .is_none_or(|limit| entry.delivery_count <= limit)
    }

    /// Returns the next deadline: the expiry of the first message or of the queue itself.
    pub(crate) fn next_deadline(&self) -> Option<Instant> {
        let first = self.levels.first_key_value();
        let front = first.and_then(|(_, level)| level.front());
        let message = front.and_then(|entry| entry.expires);
        match (message, self.expires_at()) {
            (Some(message), Some(queue)) => Some(message.min(queue)),
            (message, queue) => message.or(queue),
        }
    }

    /// Returns the time at which the unused queue expires. `Some` with `x-expires` and without
    /// consumers (<https://www.rabbitmq.com/docs/ttl>).
    pub(crate) fn expires_at(&self) -> Option<Instant> {
        let after = self.arguments.expires?;
        self.consumers
            .is_empty()
            .then(|| self.used + Duration::from_millis(after))
    }

    // Consumers.

    /// Returns whether a consumer has exclusive access.
    pub(crate) fn has_exclusive_consumer(&self) -> bool {
        self.consumers.values().any(|consumer| consumer.exclusive)
    }

    /// Returns the number of consumers in the reply to a declaration. A stream counts none. A quorum
    /// queue counts only the single active one, and also those that were cancelled and have
    /// unacknowledged deliveries, and each unacknowledged delivery of `basic.get`.
    pub(crate) fn consumer_count(&self) -> usize {
        let all = self.consumers.len();
        match self.arguments.kind {
            QueueKind::Classic => all,
            QueueKind::Stream => 0,
            QueueKind::Quorum => {
                let single = self.arguments.single_active_consumer;
                let serving = if single { all.min(1) } else { all };
                serving + self.cancelled.len() + self.fetched
            }
        }
    }

    /// Counts an unacknowledged delivery of `basic.get`.
    pub(crate) const fn count_fetched(&mut self) {
        self.unacked += 1;
        self.fetched += 1;
    }

    /// Stops counting an unacknowledged delivery, to a consumer or of `basic.get`.
    pub(crate) fn uncount(&mut self, consumer: Option<ConsumerKey>) {
        self.unacked = self.unacked.saturating_sub(1);
        let Some(key) = consumer else {
            self.fetched = self.fetched.saturating_sub(1);
            return;
        };
        if let Some(consumer) = self.consumers.get_mut(&key) {
            consumer.unacked = consumer.unacked.saturating_sub(1);
        } else if let Some(consumer) = self.cancelled.get_mut(&key) {
            consumer.unacked = consumer.unacked.saturating_sub(1);
            if consumer.unacked == 0 {
                self.cancelled.remove(&key);
            }
        }
    }

    /// Takes a cancelled consumer with unacknowledged deliveries that had the same channel and tag:
    /// a quorum queue continues it.
    pub(crate) fn take_cancelled(
        &mut self,
        channel: ChannelKey,
        tag: &str,
    ) -> Option<(ConsumerKey, u64)> {
        let is_same = |consumer: &Consumer| consumer.channel == channel && consumer.tag == *tag;
        let mut cancelled = self.cancelled.iter();
        let (&key, _) = cancelled.find(|(_, consumer)| is_same(consumer))?;
        let consumer = self.cancelled.remove(&key)?;
        Some((key, consumer.unacked))
    }

    pub(crate) fn add_consumer(&mut self, key: ConsumerKey, consumer: Consumer) {
        self.consumers.insert(key, consumer);
        self.join_round_robin(key);
        self.choose_active();
    }

    /// Removes a consumer. Returns `false` if there is no such consumer.
    pub(crate) fn remove_consumer(&mut self, key: ConsumerKey) -> bool {
        let Some(consumer) = self.consumers.remove(&key) else {
            return false;
        };
        self.leave_round_robin(key, consumer.priority);
        if self.arguments.kind == QueueKind::Quorum && consumer.unacked > 0 {
            self.cancelled.insert(key, consumer);
        }
        if self.active == Some(key) {
            self.active = None;
        }
        self.choose_active();
        true
    }

    /// Chooses the single active consumer, if the queue has none: the oldest one, in a classic
    /// queue of those with the highest priority. It stays active until it is removed.
    fn choose_active(&mut self) {
        if self.arguments.single_active_consumer && self.active.is_none() {
            let has_priorities = self.arguments.kind == QueueKind::Classic;
            let best = |(key, consumer): &(&ConsumerKey, &Consumer)| {
                let priority = has_priorities.then_some(Reverse(consumer.priority));
                (priority, **key)
            };
            self.active = self.consumers.iter().min_by_key(best).map(|(key, _)| *key);
        }
    }

    /// Returns whether a consumer receives messages: it is the single active one, or all are
    /// active.
    pub(crate) fn is_active(&self, key: ConsumerKey) -> bool {
        !self.arguments.single_active_consumer || self.active == Some(key)
    }

    /// Returns a consumer to the round-robin, if it is not in it.
    pub(crate) fn join_round_robin(&mut self, key: ConsumerKey) {
        if let Some(consumer) = self.consumers.get_mut(&key)
            && consumer.blocked_since.take().is_some()
        {
            let level = self
                .round_robin
                .entry(Reverse(consumer.priority))
                .or_default();
            level.push_back(key);
        }
    }

    /// Returns all consumers to the round-robin, in the order of their keys.
    pub(crate) fn join_all(&mut self) {
        let keys: Vec<ConsumerKey> = self.consumers.keys().copied().collect();
        for key in keys {
            self.join_round_robin(key);
        }
    }

    fn leave_round_robin(&mut self, key: ConsumerKey, priority: i64) {
        if let Some(level) = self.round_robin.get_mut(&Reverse(priority)) {
            level.retain(|waiting| *waiting != key);
            if level.is_empty() {
                self.round_robin.remove(&Reverse(priority));
            }
        }
    }

    /// Returns the next consumer of the round-robin, and moves it to the end of its level.
    /// Consumers that are not `ready` leave the round-robin until
    /// [`join_round_robin`](Self::join_round_robin).
    pub(crate) fn next_consumer(
        &mut self,
        mut ready: impl FnMut(ConsumerKey, &Consumer) -> bool,
    ) -> Option<ConsumerKey> {
        if self.arguments.single_active_consumer {
            let active = self.active?;
            let consumer = self.consumers.get_mut(&active)?;
            let is_ready = ready(active, consumer);
            if !is_ready {
                let priority = consumer.priority;
                if consumer.blocked_since.is_none() {
                    consumer.blocked_since = Some(self.block_counter);
                    self.block_counter += 1;
                }
                self.leave_round_robin(active, priority);
            }
            return is_ready.then_some(active);
        }
        while let Some(mut level) = self.round_robin.first_entry() {
            let Some(key) = level.get_mut().pop_front() else {
                level.remove();
                continue;
            };
            if let Some(consumer) = self.consumers.get_mut(&key) {
                if ready(key, consumer) {
                    level.get_mut().push_back(key);
                    return Some(key);
                }
                consumer.blocked_since = Some(self.block_counter);
                self.block_counter += 1;
            }
            if level.get().is_empty() {
                level.remove();
            }
        }
        None
    }
}

impl Consumer {
    pub(crate) const fn new(
        channel: ChannelKey,
        tag: ShortStr,
        prefetch: u16,
        arguments: FieldTable,
    ) -> Self {
        Self {
            channel,
            tag,
            no_ack: false,
            exclusive: false,
            priority: 0,
            prefetch,
            unacked: 0,
            next_offset: None,
            blocked_since: Some(0), // until `join_round_robin`
            served: 0,
            arguments,
        }
    }
}
