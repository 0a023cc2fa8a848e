//! The state of the consumers of one promise.

use std::{cell::RefCell, rc::Rc};

use amqp_core::wire::ShortStr;
use amqp_driver::Channel;

use super::{
    Error,
    shared::{CountGuard, Shared},
    waiting::SetOnce,
};

/// The scope of a prefetch limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Prefetch {
    /// Each consumer has its own, which is fixed at its start.
    PerConsumer,
    /// One for all consumers of the channel, which can be changed later.
    Shared,
}

/// The state of the consumers of one promise, shared with other promises.
pub(super) struct ConsumerGroup {
    pub(super) prefetch: Prefetch,
    /// Set when the consumers are to be cancelled.
    pub(super) cancelled: SetOnce<()>,
    /// `Some` while the consumers are ending: their channel will be released.
    pub(super) ending: RefCell<Option<CountGuard>>,
    /// Set at the end: the consumer tags, or the error that ended the consumers.
    pub(super) ended: SetOnce<Result<Vec<ShortStr>, Error>>,
    /// The channel. `Some` while all consumers run.
    pub(super) channel: RefCell<Option<Rc<Channel>>>,
    /// The consumer tags.
    pub(super) tags: RefCell<Vec<ShortStr>>,
}

impl ConsumerGroup {
    pub(super) fn new(prefetch: Prefetch) -> Self {
        Self {
            prefetch,
            cancelled: SetOnce::default(),
            ending: RefCell::default(),
            ended: SetOnce::default(),
            channel: RefCell::default(),
            tags: RefCell::default(),
        }
    }

    /// Requests the cancellation of the consumers, unless they have ended.
    pub(super) fn cancel(&self, shared: &Rc<Shared>) {
        if self.cancelled.peek().is_none() && self.ended.peek().is_none() {
            self.ending.replace(Some(shared.count_borrowed()));
            self.cancelled.set(());
        }
    }
}
