//! The messages of consumers and returns that their handles have not taken.

use std::{
    collections::VecDeque,
    mem,
    sync::{Arc, atomic::AtomicU32},
    task::Waker,
};

use amqp_core::{CloseReason, client, wire::ShortStr};

use super::{buffer::Buffer, later::Later, waiters::Waiters, withheld::Withheld};
use crate::{error::Error, returned_message::ReturnedMessage};

/// A consumer's messages, until its handle takes them.
#[derive(Debug)]
pub(crate) struct ConsumerState {
    pub(crate) tag: ShortStr,
    pub(crate) queue: VecDeque<client::Delivery>,
    pub(crate) waker: Option<Waker>,
    pub(crate) end: Option<ConsumerEnd>,
    /// Bytes in the queue, and in the batch of the handle.
    pub(super) kept: usize,
    /// The server does not take its messages back: they need no acknowledgement, or belong to a
    /// transaction, where a requeue takes effect at the commit, which may itself wait for the
    /// message. See <https://www.rabbitmq.com/docs/semantics>.
    pub(super) unreturnable: bool,
    /// Counts the messages that the handle yields, including those of its batch.
    pub(super) progress: Arc<AtomicU32>,
    /// The value of `progress` at the last check.
    pub(super) watched: u32,
    /// The number of its messages that exceeded a limit of this client.
    pub(crate) unreadable: u64,
    /// A cancel is in flight: a message beyond its share is requeued at once.
    pub(super) cancelling: bool,
    /// Invariant: `true` exactly if the buffer counts the consumer.
    pub(super) counted: bool,
    pub(super) withheld: Withheld,
    /// Whether the handle reports interruptions.
    pub(super) notices: bool,
    /// The interruptions to be reported, each behind that many messages of the queue after the one
    /// before.
    pub(super) due_notices: VecDeque<(CloseReason, usize)>,
}

/// The reason for which a consumer gets no more messages.
#[derive(Clone, Debug)]
pub(crate) enum ConsumerEnd {
    /// Its handle has cancelled it.
    Cancelled,
    /// Its handle has cancelled it, and the server has not replied in time: more deliveries may
    /// arrive.
    CancelTimedOut,
    Error(Error),
}

/// The next step of a consumer's stream.
#[derive(Debug)]
pub(crate) enum Taken {
    /// The batch has messages.
    Messages,
    /// A recovery has interrupted the consumer, and it goes on.
    Interrupted(CloseReason),
    /// No more messages follow. The reason is `Some` unless the state was released.
    Ended(Option<ConsumerEnd>),
}

/// Returned messages, until the handle takes them.
#[derive(Debug, Default)]
pub(crate) struct ReturnsState {
    pub(crate) queue: VecDeque<ReturnedMessage>,
    /// Bytes in the queue.
    pub(crate) kept: usize,
    /// The number of handles.
    pub(crate) listeners: usize,
    pub(crate) waiting: Waiters,
    /// A message was taken since the last check.
    pub(crate) progress: bool,
    /// `Some` once messages arrived faster than they were taken.
    pub(crate) overflow: Option<Error>,
    /// Reading does not pause for the kept messages: no more arrive.
    pub(super) exempt: bool,
}

impl ReturnsState {
    pub(super) fn exempt(&mut self, buffer: &mut Buffer) {
        if !mem::replace(&mut self.exempt, true) {
            buffer.exempt(self.kept);
        }
    }
}

impl ConsumerState {
    /// Whether its cancel is in flight.
    pub(super) const fn cancelling(&self) -> bool {
        self.cancelling
    }

    /// Excludes the consumer from the buffer's count. Returns whether it was counted.
    pub(super) const fn stop_counting(&mut self) -> bool {
        mem::replace(&mut self.counted, false)
    }

    /// Records that the consumer was interrupted, to be reported in order with its messages. Without
    /// a message in between it is part of the interruption before.
    pub(super) fn interrupt(&mut self, reason: &CloseReason, later: &mut Later) {
        let before: usize = self.due_notices.iter().map(|(_, count)| count).sum();
        // The messages that need an acknowledgement are gone, also from before an interruption.
        let count = self.queue.len().saturating_sub(before);
        if self.notices && (count > 0 || self.due_notices.is_empty()) {
            self.due_notices.push_back((reason.clone(), count));
            later.wake(self.waker.take());
        }
    }

    /// Moves the messages that the handle yields next into its empty batch, and returns the
    /// interruption if that precedes them.
    pub(crate) fn take_batch(
        &mut self,
        batch: &mut VecDeque<client::Delivery>,
    ) -> Option<CloseReason> {
        match self.due_notices.front_mut() {
            None => mem::swap(batch, &mut self.queue),
            Some((_, 0)) => return self.due_notices.pop_front().map(|(reason, _)| reason),
            Some((_, before)) => batch.extend(self.queue.drain(..mem::take(before))),
        }
        None
    }

    /// Ends the consumer, and wakes its handle. The first end counts.
    pub(super) fn finish(&mut self, end: ConsumerEnd, later: &mut Later) {
        self.end.get_or_insert(end);
        later.wake(self.waker.take());
    }
}
