//! The client's state of a channel.

use alloc::boxed::Box;

use super::{
    confirms::Confirms,
    consumers::{Consumer, Consumers},
    pending::PendingQueue,
    unacked::Unacked,
};
use crate::{
    error::ApiMisuse,
    ids::{ConsumerId, DeliveryTag, RequestId, Tags},
    method::MethodDef as _,
    protocol::basic,
    stats::ChannelStats,
    wire::ShortStr,
};

/// The client's state of a channel.
#[derive(Debug, Default)]
pub(crate) struct ClientChannel {
    pub(crate) pending: PendingQueue,
    pub(crate) mode: Mode,
    pub(crate) consumers: Consumers,
    pub(crate) unacked: Unacked,
    /// Deliveries that the application has no room for: outstanding on the server, and excluded
    /// from acknowledgements. `Some` while there are any.
    withheld: Option<Box<Unacked>>,
    /// The number of `basic.recover` requests in flight: no more than there is memory for. The
    /// server requeues deliveries sent before the reply, so acknowledgements of them would come too
    /// late.
    recovering: u32,
    /// The channel is closed as soon as it is open.
    pub(crate) abandoned_open: bool,
    /// The number of publishes.
    pub(super) published: u64,
    /// The number of deliveries passed to consumers.
    pub(super) delivered: u64,
    /// The prefetch count of the last `basic.qos`.
    pub(super) prefetch: u16,
    /// The last delivery tag of the earlier openings of the channel.
    base_delivery: u64,
    /// The number of the last publish of the earlier openings.
    base_publish: u64,
    /// The delivery tag of the last delivery. That of the earlier opening before the first one.
    last_delivery: u64,
}

/// The last numbers that a channel has used. A channel that is reopened goes on counting, so that
/// no number names two deliveries, publishes or consumers of it. The server counts from 1 again.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Numbering {
    pub(super) delivery: u64,
    pub(super) publish: u64,
    /// The number of the next consumer.
    pub(super) consumer: u32,
}

/// The publish mode of a channel.
#[derive(Debug, Default)]
pub(crate) enum Mode {
    #[default]
    Plain,
    Confirm(Box<Confirms>),
    Transaction {
        /// The deliveries that were outstanding when the transaction began, or arrived since. A
        /// rollback makes them outstanding again.
        outstanding: Box<Unacked>,
    },
}

impl ClientChannel {
    /// Goes on with the numbers of an earlier opening. Called before the channel is used.
    pub(super) fn continue_from(&mut self, base: Numbering) {
        self.base_delivery = base.delivery;
        self.base_publish = base.publish;
        self.last_delivery = base.delivery;
        self.consumers.continue_from(base.consumer);
    }

    /// The numbers for the next opening.
    pub(super) fn numbering(&self) -> Numbering {
        Numbering {
            delivery: self.last_delivery,
            publish: match &self.mode {
                Mode::Confirm(confirms) => confirms.next() - 1,
                Mode::Plain | Mode::Transaction { .. } => self.base_publish,
            },
            consumer: self.consumers.next(),
        }
    }

    /// The delivery tag for a number on the wire. A number that no channel reaches by counting ends
    /// at the highest one.
    #[inline]
    pub(super) const fn delivery_tag(&self, wire: u64) -> u64 {
        self.base_delivery.saturating_add(wire)
    }

    /// The number on the wire for the tag of a delivery since the channel was opened.
    #[inline]
    pub(super) const fn wire_tag(&self, tag: DeliveryTag) -> u64 {
        tag.get().saturating_sub(self.base_delivery)
    }

    /// The `delivery-tag` and `multiple` arguments for the deliveries.
    #[inline]
    pub(super) fn to_wire(&self, tags: Tags) -> (u64, bool) {
        match tags {
            Tags::One(tag) => (self.wire_tag(tag), false),
            Tags::UpTo(tag) => (self.wire_tag(tag), true),
            Tags::All => (0, true),
        }
    }

    /// The error for a delivery that is not outstanding.
    pub(super) const fn not_outstanding(&self, tag: DeliveryTag) -> ApiMisuse {
        if tag.get() <= self.base_delivery {
            ApiMisuse::StaleDeliveryTag(tag.get())
        } else {
            ApiMisuse::UnknownDeliveryTag(tag.get())
        }
    }

    /// Records the tag of a delivery that reaches the application.
    #[inline]
    pub(super) const fn note_delivery(&mut self, tag: u64) {
        self.last_delivery = tag;
    }

    /// Records a delivery to a consumer by its tag on the wire. Returns its tag, and again if it
    /// needs an acknowledgement.
    #[inline]
    pub(super) fn number_delivery(
        &mut self,
        wire: u64,
        consumer: Consumer,
    ) -> (u64, Option<DeliveryTag>) {
        let number = self.delivery_tag(wire);
        self.note_delivery(number);
        let tag = DeliveryTag::new(number).filter(|_| !consumer.no_ack);
        if let Some(tag) = tag {
            self.received(tag);
        }
        self.delivered += 1;
        (number, tag)
    }

    /// Begins confirm mode.
    pub(super) fn begin_confirms(&mut self) {
        self.mode = Mode::Confirm(Box::new(Confirms::after(self.base_publish)));
    }

    /// The number of the publish that the server confirms; 0 stands for all.
    #[inline]
    pub(super) const fn publish_seq(&self, wire: u64) -> u64 {
        match wire {
            0 => 0,
            wire => self.base_publish.saturating_add(wire),
        }
    }

    /// Whether the reply to the request is awaited.
    pub(crate) fn is_waiting(&self, request: RequestId) -> bool {
        let pending = self.pending.get(request);
        pending.is_some_and(|pending| !pending.abandoned)
    }

    /// Abandons a request. Returns `Some` if its reply was awaited, with the consumer that it
    /// starts, if any.
    pub(crate) fn abandon(&mut self, request: RequestId) -> Option<Option<(ShortStr, ConsumerId)>> {
        let mut pending = self.pending.iter_mut();
        let pending = pending.find(|pending| pending.id == request && !pending.abandoned)?;
        pending.abandoned = true;
        let consumes = pending.method == basic::Consume::ID;
        let consumer = pending.tag.clone().zip(pending.consumer);
        Some(consumer.filter(|_| consumes))
    }

    /// Records a received message that needs an acknowledgement.
    #[inline]
    pub(crate) fn received(&mut self, tag: DeliveryTag) {
        if self.recovering > 0 {
            return;
        }
        self.unacked.add(tag);
        if let Mode::Transaction { outstanding } = &mut self.mode {
            outstanding.add(tag);
        }
    }

    /// The first withheld delivery.
    #[inline]
    pub(super) fn first_withheld(&self) -> Option<DeliveryTag> {
        self.withheld.as_deref()?.first()
    }

    /// Withholds a delivery.
    pub(super) fn withhold(&mut self, tag: DeliveryTag) {
        self.withheld.get_or_insert_default().insert(tag);
    }

    /// Withholds a delivery no longer. Returns `false` if it is not withheld.
    pub(super) fn settle_withheld(&mut self, tag: DeliveryTag) -> bool {
        let Some(withheld) = &mut self.withheld else {
            return false;
        };
        let settled = withheld.settle(Tags::One(tag));
        self.withheld.take_if(|withheld| withheld.len() == 0);
        settled
    }

    pub(super) fn stats(&self) -> ChannelStats {
        ChannelStats {
            published: self.published,
            unconfirmed: match &self.mode {
                Mode::Confirm(confirms) => confirms.window() as u64,
                Mode::Plain | Mode::Transaction { .. } => 0,
            },
            delivered: self.delivered,
            unacked: self.unacked.len() + self.withheld.as_ref().map_or(0, |it| it.len()),
            consumers: self.consumers.count(),
            prefetch: self.prefetch,
        }
    }

    /// Records that a `basic.recover` with a reply was queued.
    pub(super) fn recover_asked(&mut self) {
        self.recovering = self.recovering.saturating_add(1);
    }

    /// Handles a `recover-ok`: the server has requeued all outstanding deliveries.
    pub(crate) fn recover_answered(&mut self) {
        self.recovering = self.recovering.saturating_sub(1);
    }

    /// Clears the outstanding deliveries when a recover is queued: the server requeues them before
    /// it handles a later acknowledgement.
    pub(super) fn recovered(&mut self) {
        if let Mode::Transaction { outstanding } = &mut self.mode {
            // Deliveries settled within the transaction are not requeued.
            outstanding.remove(&self.unacked);
        }
        self.unacked.clear();
        self.withheld = None;
    }
}
