//! `basic.ack`, `basic.nack`, `basic.reject`, `basic.recover`
//! (<https://www.rabbitmq.com/docs/confirms>)

use alloc::{collections::BTreeMap, vec::Vec};

use amqp_core::protocol::basic;

use super::exchange::limit_reached;
use crate::{
    broker::Broker,
    keys::ChannelKey,
    model::channel::{Settle, Tags, Unacked},
    refusal::{Outcome, Refusal},
};

impl Broker {
    pub(super) fn ack(&mut self, at: ChannelKey, ack: &basic::Ack) -> Outcome {
        self.settle_tags(at, Settle::Ack, Tags::new(ack.delivery_tag, ack.multiple))
    }

    pub(super) fn nack(&mut self, at: ChannelKey, nack: &basic::Nack) -> Outcome {
        let kind = if nack.requeue {
            Settle::Requeue
        } else {
            Settle::Reject
        };
        self.settle_tags(at, kind, Tags::new(nack.delivery_tag, nack.multiple))
    }

    pub(super) fn reject(&mut self, at: ChannelKey, reject: &basic::Reject) -> Outcome {
        let kind = if reject.requeue {
            Settle::Requeue
        } else {
            Settle::Reject
        };
        self.settle_tags(at, kind, Tags::One(reject.delivery_tag))
    }

    fn settle_tags(&mut self, at: ChannelKey, kind: Settle, tags: Tags) -> Outcome {
        let limit = self.config.limits.transaction;
        let channel = self.channel(at)?;
        let Some(deliveries) = channel.take_unacked(tags) else {
            return Err(Refusal::precondition(format_args!(
                "unknown delivery tag {tags}"
            )));
        };
        if let Some(transaction) = channel.transaction() {
            transaction.settled += deliveries.len();
            let over = transaction.settled > limit;
            transaction.add(kind, deliveries);
            if over {
                return Err(limit_reached("acknowledgements in the transaction", limit));
            }
            return Ok(());
        }
        self.settle_now(at, kind, deliveries)
    }

    /// Settles deliveries at once, and unblocks the consumers of the channel. Those from streams
    /// cannot be requeued or rejected.
    pub(super) fn settle_now(
        &mut self,
        at: ChannelKey,
        kind: Settle,
        deliveries: Vec<Unacked>,
    ) -> Outcome {
        if kind != Settle::Ack
            && let Some(delivery) = deliveries.iter().find(|one| one.entry.is_none())
            && let Some(queue) = self.queues.get(&delivery.queue)
        {
            let resource = self.vhost(at.connection)?.queue_named(&queue.name);
            return Err(Refusal::of_stream("basic.nack and basic.reject", &resource));
        }
        if kind == Settle::Ack {
            self.uncount_unacked(at, kind, &deliveries);
            for delivery in &deliveries {
                if let Some(entry) = &delivery.entry {
                    self.record_removed(delivery.queue, entry);
                }
            }
        } else {
            for batch in batches(deliveries) {
                self.uncount_unacked(at, kind, &batch);
                self.settle(kind, batch);
            }
        }
        self.unblock_consumers(at);
        Ok(())
    }

    pub(super) fn recover(&mut self, at: ChannelKey, recover: &basic::Recover) -> Outcome {
        let deliveries = self.take_recovered(at, recover.requeue)?;
        self.send(at, &basic::RecoverOk);
        self.settle_now(at, Settle::Requeue, deliveries)
    }

    pub(super) fn recover_async(
        &mut self,
        at: ChannelKey,
        recover: &basic::RecoverAsync,
    ) -> Outcome {
        let deliveries = self.take_recovered(at, recover.requeue)?;
        self.settle_now(at, Settle::Requeue, deliveries)
    }

    /// Takes all unacknowledged deliveries of a channel. Refuses to redeliver them to the same
    /// consumer with 540 (not-implemented), as RabbitMQ does
    /// (<https://www.rabbitmq.com/docs/specification>), and those of a stream with 541
    /// (internal-error): its channel crashes.
    fn take_recovered(&mut self, at: ChannelKey, requeue: bool) -> Outcome<Vec<Unacked>> {
        if !requeue {
            return Err(Refusal::not_implemented("requeue=false"));
        }
        let unacked = &mut self.channel(at)?.unacked;
        if unacked.iter().any(|delivery| delivery.entry.is_none()) {
            return Err(Refusal::internal());
        }
        Ok(unacked.drain(..).collect())
    }
}

/// Groups deliveries by queue and consumer, in the order of consumer tags; those of `basic.get`
/// come first. RabbitMQ settles one group after the other, and the queue redelivers in between.
fn batches(deliveries: Vec<Unacked>) -> impl Iterator<Item = Vec<Unacked>> {
    let mut batches: BTreeMap<_, Vec<Unacked>> = BTreeMap::new();
    for delivery in deliveries {
        let group = (delivery.queue, delivery.consumer_tag.clone());
        batches.entry(group).or_default().push(delivery);
    }
    batches.into_values()
}
