//! A publisher: it publishes a message again until it is confirmed.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, PoisonError, atomic::AtomicUsize, atomic::Ordering::SeqCst},
    time::Duration,
};

use amqp_tokio::{
    Confirm, ConfirmChannel, Connection, Error, Unconfirmed,
    protocol::basic::{Properties, Publish},
};
use tokio::{
    sync::mpsc::{Receiver, Sender, channel},
    time::{self, Interval, MissedTickBehavior},
};

use crate::{
    ledger::{Id, Outcome},
    load::{EXCHANGE, QUEUES, Shared, queue_name},
};

/// The number of publishes that wait for their confirm at a time.
const WINDOW: usize = 500;

/// The number of refused publishes in a row after which another channel is opened. RabbitMQ 3.10
/// refuses all publishes of a channel to a quorum queue if the first one met a leader that was gone:
/// `enqueue` in its `rabbit_fifo_client.erl` asks that node again each time.
const REFUSED: usize = 50;

/// The numbers of the messages of a publisher that are not confirmed.
#[derive(Debug, Default)]
struct Open {
    /// Those to be published again.
    again: Mutex<VecDeque<usize>>,
    count: AtomicUsize,
    /// The number of publishes that the broker has refused since the last confirm.
    refused: AtomicUsize,
}

impl Open {
    fn again(&self, number: usize) {
        let mut again = self.again.lock().unwrap_or_else(PoisonError::into_inner);
        again.push_back(number);
    }

    fn next(&self) -> Option<usize> {
        let mut again = self.again.lock().unwrap_or_else(PoisonError::into_inner);
        again.pop_front()
    }
}

/// Publishes until the load is stopped and everything is confirmed.
pub(crate) async fn run(
    shared: Arc<Shared>,
    publisher: usize,
    connection: Connection,
    interval: Duration,
) {
    let open = Arc::new(Open::default());
    let (confirms, settled) = channel(WINDOW);
    tokio::spawn(settle(Arc::clone(&shared), Arc::clone(&open), settled));
    let mut ticks = time::interval(interval);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut publisher = Publisher {
        shared,
        publisher,
        open,
        confirms,
        ticks,
    };
    loop {
        let ended = match open_channel(&connection).await {
            Ok(channel) => publisher.publish_on(&channel).await,
            Err(error) => Err(error),
        };
        match ended {
            Ok(Ended::Finished) => return,
            Ok(Ended::Refused) => publisher.shared.ledger().counts.reopened += 1,
            Err(error) => {
                let mut ledger = publisher.shared.ledger();
                ledger.remark(format!("publisher {}: {error}", publisher.publisher));
                if connection.close_reason().is_some() {
                    ledger.counts.ended += 1;
                    return;
                }
            }
        }
    }
}

async fn open_channel(connection: &Connection) -> Result<ConfirmChannel, Error> {
    connection.open_channel().await?.confirm_select().await
}

/// The end of the use of a channel.
enum Ended {
    /// The load is stopped, and everything is confirmed.
    Finished,
    /// The broker has refused everything for a while.
    Refused,
}

struct Publisher {
    shared: Arc<Shared>,
    publisher: usize,
    open: Arc<Open>,
    confirms: Sender<(Id, Confirm)>,
    ticks: Interval,
}

impl Publisher {
    /// Publishes on a channel.
    async fn publish_on(&mut self, channel: &ConfirmChannel) -> Result<Ended, Error> {
        let publishes: Vec<_> = (0..QUEUES).map(publish_to).collect::<Result<_, _>>()?;
        let persistent = Properties::default().delivery_mode(2);
        loop {
            self.ticks.tick().await;
            if self.open.refused.load(SeqCst) >= REFUSED {
                self.open.refused.store(0, SeqCst);
                return Ok(Ended::Refused);
            }
            let again = self.open.next();
            if again.is_none() {
                if self.shared.is_stopping() {
                    if self.open.count.load(SeqCst) == 0 {
                        return Ok(Ended::Finished);
                    }
                    continue;
                }
                self.open.count.fetch_add(1, SeqCst);
            }
            let epoch = self.shared.epoch();
            let id = self.shared.ledger().begin(self.publisher, again, epoch);
            let publish = &publishes[id.number % QUEUES];
            match channel.publish(publish, &persistent, id.to_body()).await {
                Ok(confirm) => {
                    if self.confirms.send((id, confirm)).await.is_err() {
                        return Ok(Ended::Finished);
                    }
                }
                Err(error) => {
                    self.open.again(id.number);
                    self.shared.ledger().settle(id, Outcome::Refused);
                    return Err(error);
                }
            }
        }
    }
}

fn publish_to(queue: usize) -> Result<Publish, Error> {
    let publish = Publish::default().exchange(EXCHANGE);
    Ok(publish.routing_key(queue_name(queue)).mandatory(true))
}

/// Waits for the outcomes.
async fn settle(shared: Arc<Shared>, open: Arc<Open>, mut confirms: Receiver<(Id, Confirm)>) {
    while let Some((id, confirm)) = confirms.recv().await {
        let outcome = match confirm.await {
            Ok(()) => Outcome::Confirmed,
            Err(Unconfirmed::Returned(_)) => Outcome::Returned,
            Err(Unconfirmed::Nacked { .. }) => Outcome::Nacked,
            Err(Unconfirmed::NotSent(_)) => Outcome::NotSent,
            Err(_) => Outcome::Unknown,
        };
        shared.ledger().settle(id, outcome);
        if outcome == Outcome::Nacked {
            open.refused.fetch_add(1, SeqCst);
        }
        if outcome == Outcome::Confirmed {
            open.refused.store(0, SeqCst);
            open.count.fetch_sub(1, SeqCst);
            shared.reach(id.publisher, id.epoch);
        } else {
            open.again(id.number);
        }
    }
}
