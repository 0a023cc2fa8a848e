//! `tx.*` (section 1.9 of the protocol reference, <https://www.rabbitmq.com/docs/semantics>)

use alloc::vec::Vec;

use amqp_core::protocol::tx;

use crate::{
    broker::Broker,
    durable::journal::Reply,
    keys::ChannelKey,
    model::channel::{Mode, RoutedMessage, Transaction, Unacked},
    refusal::{Outcome, Refusal},
};

impl Broker {
    pub(super) fn select_transaction(&mut self, at: ChannelKey) -> Outcome {
        let channel = self.channel(at)?;
        match channel.mode {
            Mode::Plain => channel.mode = Mode::Transaction(Transaction::default()),
            Mode::Transaction(_) => {}
            Mode::Confirm(_) => {
                return Err(Refusal::precondition(
                    "cannot switch from confirm to tx mode",
                ));
            }
        }
        self.send(at, &tx::SelectOk);
        Ok(())
    }

    pub(super) fn commit(&mut self, at: ChannelKey) -> Outcome {
        let transaction = self.take_transaction(at)?;
        let before = self.journal.last();
        let mut accepted = true;
        for publish in transaction.publishes {
            let vhost = self.vhost(at.connection)?;
            let queues = publish.queues.iter();
            let queues = queues.filter_map(|name| vhost.queues.get(name).copied());
            let routed = RoutedMessage {
                queues: queues.collect(),
                message: publish.message,
                mandatory: publish.mandatory,
            };
            accepted &= self.enqueue_routed(at, &routed);
            // Dispatches after each message, as for a publish outside of a transaction.
            self.service_due();
        }
        for mut settlement in transaction.settlements {
            settlement.deliveries.sort_by_key(|unacked| unacked.tag);
            self.settle_now(at, settlement.kind, settlement.deliveries)?;
        }
        if !accepted {
            return Err(Refusal::precondition("partial tx completion"));
        }
        if self.journal.last() == before {
            self.send(at, &tx::CommitOk);
        } else {
            self.conn(at.connection)?.committing = true;
            self.journal.wait(Reply::Commit { channel: at });
        }
        Ok(())
    }

    pub(super) fn rollback(&mut self, at: ChannelKey) -> Outcome {
        let transaction = self.take_transaction(at)?;
        let settlements = transaction.settlements.into_iter();
        let mut unacked: Vec<Unacked> = settlements
            .flat_map(|settlement| settlement.deliveries)
            .collect();
        let channel = self.channel(at)?;
        unacked.extend(channel.unacked.drain(..));
        unacked.sort_by_key(|unacked| unacked.tag);
        channel.unacked = unacked.into();
        self.watch_acks(at);
        self.send(at, &tx::RollbackOk);
        Ok(())
    }

    /// Takes the transaction of a channel, and begins the next one.
    fn take_transaction(&mut self, at: ChannelKey) -> Outcome<Transaction> {
        let transaction = self.channel(at)?.transaction();
        transaction
            .map(core::mem::take)
            .ok_or_else(|| Refusal::precondition("channel is not transactional"))
    }
}
