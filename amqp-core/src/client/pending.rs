//! The requests that await their replies.

use alloc::{boxed::Box, collections::VecDeque};

use super::Client;
use crate::{
    ids::{ChannelId, ConsumerId, RequestId},
    machine::Machine,
    method::MethodDef as _,
    method_id::MethodId,
    protocol::basic,
    wire::ShortStr,
};

/// A request that awaits its reply.
#[derive(Debug)]
pub(crate) struct Pending {
    pub(crate) id: RequestId,
    pub(crate) method: MethodId,
    /// The consumer tag that the reply must have. `Some` for consume and cancel.
    pub(crate) tag: Option<ShortStr>,
    /// The consumer of the reply. `Some` for consume, and for a cancel that ends a consumer.
    pub(crate) consumer: Option<ConsumerId>,
    /// For `basic.get`: the message needs no acknowledgement.
    pub(crate) no_ack: bool,
    /// The reply is no longer awaited.
    pub(crate) abandoned: bool,
}

impl Pending {
    pub(crate) const fn new(id: RequestId, method: MethodId) -> Self {
        Self {
            id,
            method,
            tag: None,
            consumer: None,
            no_ack: false,
            abandoned: false,
        }
    }
}

/// The pending requests of a channel, in the order they were made. They take memory only while
/// there are any.
#[derive(Debug, Default)]
#[expect(
    clippy::box_collection,
    reason = "a channel has one pointer while it has none"
)]
pub(crate) struct PendingQueue(Option<Box<VecDeque<Pending>>>);

/// The memory of the queue that ran empty last, for the next request on any channel.
#[derive(Debug, Default)]
#[expect(
    clippy::box_collection,
    reason = "a channel has one pointer while it has none"
)]
pub(super) struct SparePending(Option<Box<VecDeque<Pending>>>);

/// The number of requests that the spare queue has room for at most.
const SPARE: usize = 8;

impl PendingQueue {
    pub(crate) fn iter(&self) -> impl DoubleEndedIterator<Item = &Pending> {
        self.0.iter().flat_map(|queue| queue.iter())
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Pending> {
        self.0.iter_mut().flat_map(|queue| queue.iter_mut())
    }

    pub(super) fn get(&self, request: RequestId) -> Option<&Pending> {
        let queue = self.0.as_deref()?;
        // Ascending, because request numbers only grow.
        let at = queue.binary_search_by_key(&request, |pending| pending.id);
        queue.get(at.ok()?)
    }

    /// The request that starts the consumer. `Some` until its consume-ok.
    pub(super) fn consume_of(&self, consumer: ConsumerId) -> Option<RequestId> {
        let mut consumes = self.iter().rev();
        consumes
            .find(|it| it.method == basic::Consume::ID && it.consumer == Some(consumer))
            .map(|consume| consume.id)
    }

    /// Removes all requests.
    pub(super) fn take(&mut self) -> VecDeque<Pending> {
        self.0.take().map(|queue| *queue).unwrap_or_default()
    }

    fn push(&mut self, pending: Pending, spare: &mut SparePending) {
        let queue = self
            .0
            .get_or_insert_with(|| spare.0.take().unwrap_or_default());
        queue.push_back(pending);
    }

    fn remove(
        &mut self,
        wanted: impl FnMut(&Pending) -> bool,
        spare: &mut SparePending,
    ) -> Option<Pending> {
        let queue = self.0.as_deref_mut()?;
        let at = queue.iter().position(wanted)?;
        let removed = queue.remove(at);
        if let Some(empty) = self.0.take_if(|queue| queue.is_empty())
            && empty.capacity() <= SPARE
        {
            spare.0 = Some(empty);
        }
        removed
    }
}

impl Machine<Client> {
    /// Adds a request of a channel.
    pub(super) fn push_pending(&mut self, id: ChannelId, pending: Pending) {
        let mut spare = core::mem::take(&mut self.role.spare_pending);
        if let Some(channel) = self.channel_mut(id) {
            channel.role.pending.push(pending, &mut spare);
        }
        self.role.spare_pending = spare;
    }

    /// Removes the oldest request of a channel that is `wanted`.
    pub(super) fn remove_pending(
        &mut self,
        id: ChannelId,
        wanted: impl FnMut(&Pending) -> bool,
    ) -> Option<Pending> {
        let mut spare = core::mem::take(&mut self.role.spare_pending);
        let channel = self.channel_mut(id);
        let removed = channel.and_then(|it| it.role.pending.remove(wanted, &mut spare));
        self.role.spare_pending = spare;
        removed
    }
}
