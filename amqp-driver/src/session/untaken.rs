//! The messages of consumers and returns that their handles have not taken.

use std::{
    collections::VecDeque,
    mem,
    sync::{Arc, atomic::AtomicU32},
    task::Waker,
};

use amqp_core::{client, wire::ShortStr};

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
    /// Ends the consumer, and wakes its handle. The first end counts.
    pub(super) fn finish(&mut self, end: ConsumerEnd, later: &mut Later) {
        self.end.get_or_insert(end);
        later.wake(self.waker.take());
    }
}
