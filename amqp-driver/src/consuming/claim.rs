//! The right to settle a delivery that a body gets.

use amqp_core::Requeue;

use super::{batch_acker::BatchAcker, credit::GroupCredit};
use crate::{acker::Acker, error::Error};

/// The right to settle one delivery. Dropped unused, it requeues the delivery: with `basic.nack`,
/// which since RabbitMQ 4.3 does not count towards the delivery limit of a quorum queue
/// (<https://www.rabbitmq.com/docs/quorum-queues#poison-message-handling>).
pub(crate) struct Claim {
    /// `Some` until it is used.
    acker: Option<Acker>,
    /// Released when the delivery is settled.
    _credit: Option<GroupCredit>,
}

/// The end of a delivery.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Settled {
    Acked,
    /// Its acknowledgement was put into the batch, which counts it.
    Batched,
    Requeued,
    Rejected,
    Retried,
    /// Its channel had ended: the server has requeued it.
    Stale,
}

impl Claim {
    pub(crate) const fn new(acker: Acker, credit: Option<GroupCredit>) -> Self {
        Self {
            acker: Some(acker),
            _credit: credit,
        }
    }

    pub(crate) fn ack(self, batch: Option<&BatchAcker>) -> Settled {
        match batch {
            None => self.settle(Settled::Acked, Acker::ack),
            Some(batch) => self.settle(Settled::Batched, |acker| {
                batch.ack(acker);
                Ok(())
            }),
        }
    }

    pub(crate) fn requeue(self) -> Settled {
        self.settle(Settled::Requeued, |acker| acker.nack(Requeue::Yes))
    }

    pub(crate) fn reject(self) -> Settled {
        self.settle(Settled::Rejected, |acker| acker.reject(Requeue::No))
    }

    /// Acknowledges the delivery: a copy of it was published.
    pub(crate) fn ack_copied(self) -> Settled {
        self.settle(Settled::Retried, Acker::ack)
    }

    /// No error ends the loop: a delivery that cannot be settled was requeued by the server, and the
    /// consumer reports the end of its channel.
    fn settle(mut self, settled: Settled, act: impl FnOnce(Acker) -> Result<(), Error>) -> Settled {
        match self.acker.take().map(act) {
            Some(Ok(())) => settled,
            Some(Err(_)) | None => Settled::Stale,
        }
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        if let Some(acker) = self.acker.take() {
            // Fails only if the server has requeued the delivery.
            let _stale = acker.nack(Requeue::Yes);
        }
    }
}
