//! The state of the consumers of one promise.

use std::{cell::RefCell, rc::Rc};

use amqp_core::wire::ShortStr;
use amqp_driver::GroupPrefetch;

use super::{
    Error,
    shared::{CountGuard, Shared},
    waiting::SetOnce,
};

/// The state of the consumers of one promise, shared with other promises.
#[derive(Default)]
pub(super) struct ConsumerGroup {
    /// Set when the consumers are to be cancelled.
    pub(super) cancelled: SetOnce<()>,
    /// `Some` while the consumers are ending: their channel will be released.
    pub(super) ending: RefCell<Option<CountGuard>>,
    /// Set at the end: the consumer tags, or the error that ended the consumers.
    pub(super) ended: SetOnce<Result<Vec<ShortStr>, Error>>,
    /// The prefetch that they share. `Some` while all of them run.
    pub(super) prefetch: RefCell<Option<GroupPrefetch>>,
    /// The consumer tags.
    pub(super) tags: RefCell<Vec<ShortStr>>,
}

impl ConsumerGroup {
    /// Requests the cancellation of the consumers, unless they have ended.
    pub(super) fn cancel(&self, shared: &Rc<Shared>) {
        if self.cancelled.peek().is_none() && self.ended.peek().is_none() {
            self.ending.replace(Some(shared.count_borrowed()));
            self.cancelled.set(());
        }
    }
}
