//! A consumer: it acknowledges with a lag, and starts again only if its queue was deleted.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use amqp_tokio::{
    Channel, Connection, ConsumeOptions, Consumer, Delivery, Error, ManualAck,
    core::client::Prefetch, protocol::basic::Consume,
};
use tokio::time;

use crate::{
    ledger::Id,
    load::{Declares, PUBLISHERS, Shared, queue_name},
};

const PREFETCH: u16 = 100;

/// The number of deliveries that are held before the oldest is acknowledged.
const LAG: usize = 10;

/// The time without a delivery after which all are acknowledged.
const IDLE: Duration = Duration::from_millis(10);

/// The delay before a queue is declared again.
const PAUSE: Duration = Duration::from_millis(20);

/// Consumes until the connection is closed.
pub(crate) async fn run(
    shared: Arc<Shared>,
    connection: Connection,
    queue: usize,
    declares: Declares,
) {
    let mut held = Held {
        shared,
        worker: PUBLISHERS + queue,
        deliveries: VecDeque::new(),
    };
    while connection.close_reason().is_none() && !held.shared.is_closing() {
        let ended = match start(&connection, queue, &declares).await {
            // The channel lives as long as its consumer.
            Ok((_channel, consumer)) => consume(consumer, &mut held).await,
            Err(error) => Err(error),
        };
        held.settle_all();
        if !held.ended(ended) {
            return;
        }
        time::sleep(PAUSE).await;
    }
}

async fn start(
    connection: &Connection,
    queue: usize,
    declares: &Declares,
) -> Result<(Channel, Consumer<ManualAck>), Error> {
    let channel = connection.open_channel().await?;
    declares.declare(&channel).await?;
    let consume = Consume::default().queue(queue_name(queue));
    let options = ConsumeOptions::default()
        .prefetch(Prefetch::Count(PREFETCH))
        .report_interruptions(true);
    let consumer = channel.consume_with(consume, options).await?;
    Ok((channel, consumer))
}

/// Consumes until the end of the consumer.
async fn consume(mut consumer: Consumer<ManualAck>, held: &mut Held) -> Result<(), Error> {
    loop {
        match time::timeout(IDLE, consumer.next()).await {
            Err(_) => held.settle_all(),
            Ok(None) => return Ok(()),
            Ok(Some(Ok(delivery))) => held.hold(delivery),
            Ok(Some(Err(Error::Interrupted(_)))) => held.interrupted(),
            Ok(Some(Err(error))) => return Err(error),
        }
    }
}

/// The deliveries that are not acknowledged yet.
struct Held {
    shared: Arc<Shared>,
    worker: usize,
    deliveries: VecDeque<(Option<Id>, Delivery)>,
}

impl Held {
    fn hold(&mut self, delivery: Delivery) {
        let id = Id::from_body(&delivery.body.to_vec());
        let mut ledger = self.shared.ledger();
        match id {
            Some(id) => ledger.receive(id, delivery.method.redelivered),
            None => ledger.receive_damaged(delivery.body.len()),
        }
        drop(ledger);
        self.deliveries.push_back((id, delivery));
        if self.deliveries.len() > LAG {
            self.settle();
        }
    }

    /// Acknowledges the oldest delivery.
    fn settle(&mut self) {
        let Some((id, delivery)) = self.deliveries.pop_front() else {
            return;
        };
        match (delivery.acker.ack(), id) {
            (Ok(()), Some(id)) => {
                self.shared.ledger().process(id);
                self.shared.reach(self.worker, id.epoch);
            }
            (Ok(()), None) => {}
            (Err(Error::Stale), _) => self.shared.ledger().counts.stale += 1,
            (Err(error), _) => {
                let mut ledger = self.shared.ledger();
                ledger.remark(format!("an acknowledgement has failed: {error}"));
            }
        }
    }

    fn settle_all(&mut self) {
        while !self.deliveries.is_empty() {
            self.settle();
        }
    }

    /// Records the end of the consumer. Returns whether another one is to be started.
    fn ended(&self, ended: Result<(), Error>) -> bool {
        let mut ledger = self.shared.ledger();
        let why = match ended {
            Ok(()) if self.shared.is_closing() => return false,
            Err(Error::ConsumerCancelled { .. }) => {
                ledger.counts.cancelled += 1;
                return true;
            }
            Ok(()) => "without an error".into(),
            Err(error) => error.to_string(),
        };
        ledger.counts.ended += 1;
        let queue = self.worker - PUBLISHERS;
        ledger.remark(format!("consumer {queue} has ended: {why}"));
        true
    }

    /// Checks that the deliveries before an interruption are stale.
    fn interrupted(&mut self) {
        let stale = self.deliveries.len() as u64;
        let mut ledger = self.shared.ledger();
        ledger.counts.interruptions += 1;
        for (_, delivery) in self.deliveries.drain(..) {
            if delivery.acker.ack() != Err(Error::Stale) {
                ledger.counts.false_acks += 1;
                ledger.remark("an acknowledgement of an earlier life was accepted".into());
            }
        }
        ledger.counts.stale += stale;
    }
}
