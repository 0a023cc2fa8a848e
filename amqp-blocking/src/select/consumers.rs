//! The state of the consumers of one promise.

use std::{cell::RefCell, rc::Rc};

use amqp_core::wire::ShortStr;
use amqp_driver::Channel;

use super::{
    Error,
    link::{Counted, Link},
    waiting::Once,
};

/// The state of the consumers of one promise, shared with other promises.
#[derive(Default)]
pub(super) struct Consuming {
    /// Whether the prefetch is one for all consumers of the channel, which can be changed later.
    pub(super) shared: bool,
    /// Set when the consumers are to be cancelled.
    pub(super) cancelled: Once<()>,
    /// `Some` while the consumers are ending: their channel will be released.
    pub(super) ending: RefCell<Option<Counted>>,
    /// Set at the end: the consumer tags, or the error that ended the consumers.
    pub(super) ended: Once<Result<Vec<ShortStr>, Error>>,
    /// The channel. `Some` while all consumers run.
    pub(super) channel: RefCell<Option<Rc<Channel>>>,
    /// The consumer tags.
    pub(super) tags: RefCell<Vec<ShortStr>>,
}

impl Consuming {
    pub(super) fn new(shared: bool) -> Self {
        Self {
            shared,
            ..Self::default()
        }
    }

    /// Requests the cancellation of the consumers, unless they have ended.
    pub(super) fn cancel(&self, link: &Rc<Link>) {
        if self.cancelled.peek().is_none() && self.ended.peek().is_none() {
            self.ending.replace(Some(link.will_be_free()));
            self.cancelled.set(());
        }
    }
}
