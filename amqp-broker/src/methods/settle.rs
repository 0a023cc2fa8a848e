//! `basic.ack`, `basic.nack`, `basic.reject`, `basic.recover`
//! (<https://www.rabbitmq.com/docs/confirms>)

use alloc::{collections::BTreeMap, vec::Vec};

use amqp_core::protocol::basic;

use super::exchange::full;
use crate::{
    broker::Broker,
    keys::ChannelKey,
    model::channel::{Settle, Unacked},
    refusal::{Outcome, Refusal},
};

impl Broker {
    pub(super) fn ack(&mut self, at: ChannelKey, ack: &basic::Ack) -> Outcome {
        self.settle_tags(at, Settle::Ack, ack.delivery_tag, ack.multiple)
    }

    pub(super) fn nack(&mut self, at: ChannelKey, nack: &basic::Nack) -> Outcome {
        let kind = if nack.requeue {
            Settle::Requeue
        } else {
            Settle::Reject
        };
        self.settle_tags(at, kind, nack.delivery_tag, nack.multiple)
    }

    pub(super) fn reject(&mut self, at: ChannelKey, reject: &basic::Reject) -> Outcome {
        let kind = if reject.requeue {
            Settle::Requeue
        } else {
            Settle::Reject
        };
        self.settle_tags(at, kind, reject.delivery_tag, false)
    }

    fn settle_tags(&mut self, at: ChannelKey, kind: Settle, tag: u64, multiple: bool) -> Outcome {
        let limit = self.config.limits.transaction;
        let channel = self.channel(at)?;
        let Some(deliveries) = channel.take_unacked(tag, multiple) else {
            return Err(Refusal::precondition(format_args!(
                "unknown delivery tag {tag}"
            )));
        };
        if let Some(transaction) = channel.transaction() {
            transaction.settled += deliveries.len();
            let over = transaction.settled > limit;
            transaction.add(kind, deliveries);
            if over {
                return Err(full("acknowledgements in the transaction", limit));
            }
            return Ok(());
        }
        self.settle_now(at, kind, deliveries);
        Ok(())
    }

    /// Settles deliveries at once, and releases the consumers of the channel.
    pub(super) fn settle_now(&mut self, at: ChannelKey, kind: Settle, deliveries: Vec<Unacked>) {
        if kind == Settle::Ack {
            self.discount(at, &deliveries);
        } else {
            for batch in batches(deliveries) {
                self.discount(at, &batch);
                self.settle(kind, batch);
            }
        }
        self.release(at);
    }

    pub(super) fn recover(&mut self, at: ChannelKey, requeue: bool, answer: bool) -> Outcome {
        if !requeue {
            return Err(Refusal::not_implemented("requeue=false"));
        }
        let deliveries = self.channel(at)?.unacked.drain(..).collect();
        if answer {
            self.send(at, &basic::RecoverOk);
        }
        self.settle_now(at, Settle::Requeue, deliveries);
        Ok(())
    }
}

/// Groups deliveries by queue and consumer, in the order of consumer tags; those of `basic.get`
/// come first. RabbitMQ settles one group after the other, and the queue redelivers in between.
fn batches(deliveries: Vec<Unacked>) -> impl Iterator<Item = Vec<Unacked>> {
    let mut batches: BTreeMap<_, Vec<Unacked>> = BTreeMap::new();
    for delivery in deliveries {
        let whose = (delivery.queue, delivery.consumer_tag.clone());
        batches.entry(whose).or_default().push(delivery);
    }
    batches.into_values()
}
