//! What a client knows of a channel.

use alloc::collections::VecDeque;

use super::{confirms::Confirms, consumers::Consumers, unacked::Unacked};
use crate::{
    ids::{ConsumerId, DeliveryTag, RequestId},
    method::{MethodDef as _, MethodId},
    protocol::basic,
    wire::ShortStr,
};

/// What a client knows of a channel.
#[derive(Debug, Default)]
pub(crate) struct ClientChannel {
    /// The requests that wait for their answer, in the order they were made.
    pub(crate) pending: VecDeque<Pending>,
    pub(crate) mode: Mode,
    pub(crate) consumers: Consumers,
    pub(crate) unacked: Unacked,
    /// Deliveries that the application has no room for: outstanding on the server, and out of
    /// reach of acknowledgements.
    pub(super) withheld: Unacked,
    /// How many times `basic.recover` waits for its answer. What is delivered before that, the
    /// server takes back before it looks at any acknowledgement.
    recovering: usize,
    /// The channel is to be closed as soon as it is open.
    pub(crate) abandoned_open: bool,
}

/// What a channel does with publishes.
#[derive(Debug, Default)]
pub(crate) enum Mode {
    #[default]
    Plain,
    Confirm(Confirms),
    Transaction {
        /// What was outstanding when the transaction began, or was delivered since: a rollback
        /// brings it back.
        outstanding: Unacked,
    },
}

/// A request that waits for its answer.
#[derive(Debug)]
pub(crate) struct Pending {
    pub(crate) id: RequestId,
    pub(crate) method: MethodId,
    /// The consumer tag that the answer must have: for consume and cancel.
    pub(crate) tag: Option<ShortStr>,
    /// The consumer that the answer is about: for consume, and for a cancel that ends one.
    pub(crate) consumer: Option<ConsumerId>,
    /// For `basic.get`: the message needs no acknowledgement.
    pub(crate) no_ack: bool,
    /// Its answer is not awaited any more.
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

impl ClientChannel {
    /// Whether the request is waited for.
    pub(crate) fn is_waiting(&self, request: RequestId) -> bool {
        // Numbers only ever grow.
        self.pending
            .binary_search_by_key(&request, |pending| pending.id)
            .ok()
            .and_then(|at| self.pending.get(at))
            .is_some_and(|pending| !pending.abandoned)
    }

    /// Marks a request as one that is not waited for; none if it is not. Gives back the consumer
    /// that it asked for, if it did.
    pub(crate) fn abandon(&mut self, request: RequestId) -> Option<Option<(ShortStr, ConsumerId)>> {
        let mut pending = self.pending.iter_mut();
        let pending = pending.find(|pending| pending.id == request && !pending.abandoned)?;
        pending.abandoned = true;
        let consumes = pending.method == basic::Consume::ID;
        let consumer = pending.tag.clone().zip(pending.consumer);
        Some(consumer.filter(|_| consumes))
    }

    /// A delivery that needs an acknowledgement has come.
    #[inline]
    pub(crate) fn delivered(&mut self, tag: DeliveryTag) {
        if self.recovering > 0 {
            return;
        }
        self.unacked.add(tag);
        if let Mode::Transaction { outstanding } = &mut self.mode {
            outstanding.add(tag);
        }
    }

    /// The server is asked to take all outstanding deliveries back, and will answer.
    pub(super) fn recover_asked(&mut self) {
        self.recovering += 1;
    }

    /// The server was asked to take all outstanding deliveries back, and has done so.
    pub(crate) fn recover_answered(&mut self) {
        self.recovering = self.recovering.saturating_sub(1);
    }

    /// Acknowledgements of outstanding deliveries come too late from now on: the server takes them
    /// all back first.
    pub(super) fn recovered(&mut self) {
        if let Mode::Transaction { outstanding } = &mut self.mode {
            // What the transaction has settled is not taken back.
            outstanding.remove(&self.unacked);
        }
        self.unacked.clear();
        self.withheld.clear();
    }
}
