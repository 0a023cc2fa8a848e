//! One queue, with its publishers and its consumers.

use std::{
    collections::VecDeque,
    error::Error,
    fmt, iter,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use amqp_tokio::{
    BaseChannel, Channel, ConfirmChannel, Delivery,
    arguments::Queue,
    core::bytes::Buf as _,
    protocol::{basic, queue},
    wire::ShortStr,
};

use crate::{
    Grouped, Result,
    message::{self, Plan},
};

/// How many publishes wait for their confirm at a time.
const UNCONFIRMED: usize = 1000;

/// How many messages are delivered before they are acknowledged.
const PREFETCH: u16 = 500;

/// How many messages are acknowledged at a time.
const BATCH: u64 = 50;

/// After how long the server drops a queue that a failed run has left behind.
const EXPIRES: Duration = Duration::from_secs(600);

/// One queue: its messages are published on one channel and consumed on another.
#[derive(Debug)]
pub(crate) struct Lane {
    index: u16,
    queue: ShortStr,
    /// How many messages go through it.
    pub(crate) count: u64,
    plan: Arc<Plan>,
    published: AtomicU64,
    confirmed: AtomicU64,
    received: AtomicU64,
    /// The received bytes of bodies.
    bytes: AtomicU64,
}

impl Lane {
    pub(crate) fn new(index: u16, run: &str, count: u64, plan: &Arc<Plan>) -> Result<Self> {
        Ok(Self {
            index,
            queue: ShortStr::try_from(format!("soak-{run}-{index}"))?,
            count,
            plan: Arc::clone(plan),
            published: AtomicU64::default(),
            confirmed: AtomicU64::default(),
            received: AtomicU64::default(),
            bytes: AtomicU64::default(),
        })
    }

    /// Its queue's name.
    pub(crate) const fn queue(&self) -> &ShortStr {
        &self.queue
    }

    /// How far it has come.
    pub(crate) fn progress(&self) -> Progress {
        Progress {
            published: self.published.load(Relaxed),
            confirmed: self.confirmed.load(Relaxed),
            received: self.received.load(Relaxed),
            bytes: self.bytes.load(Relaxed),
        }
    }

    pub(crate) async fn declare(&self, channel: &BaseChannel) -> Result {
        let queue = Queue::classic(&self.queue).expires(EXPIRES);
        channel.queue_declare(queue).await?;
        Ok(())
    }

    /// Publishes all messages, and waits for their confirms.
    pub(crate) async fn publish(self: Arc<Self>, channel: ConfirmChannel) -> Result {
        let publish = basic::Publish::default()
            .routing_key(&self.queue)
            .mandatory(true);
        let mut unconfirmed = VecDeque::new();
        for number in 1..=self.count {
            let body = self.plan.body(self.index, number);
            let properties = message::label(number, message::checksum(self.index, number, [&body]));
            let confirm = channel.publish(&publish, &properties, body).await?;
            if confirm.seq().map(|seq| seq.get()) != Some(number) {
                return Err(self.fault(number, format!("was published as {:?}", confirm.seq())));
            }
            self.published.store(number, Relaxed);
            unconfirmed.push_back(confirm);
            if unconfirmed.len() == UNCONFIRMED || number == self.count {
                let kept = if number == self.count {
                    0
                } else {
                    UNCONFIRMED / 2
                };
                for confirm in unconfirmed.drain(..unconfirmed.len() - kept) {
                    let number = self.confirmed.load(Relaxed) + 1;
                    confirm.await.map_err(|error| self.fault(number, error))?;
                    self.confirmed.store(number, Relaxed);
                }
            }
        }
        channel.close().await?;
        Ok(())
    }

    /// Consumes all messages, and checks each.
    pub(crate) async fn consume(self: Arc<Self>, channel: Channel) -> Result {
        let qos = basic::Qos::default().prefetch_count(PREFETCH);
        channel.call(qos).await?;
        let consume = basic::Consume::default().queue(&self.queue);
        let mut consumer = channel.consume(consume).await?;
        for number in 1..=self.count {
            let Some(delivery) = consumer.next().await.transpose()? else {
                return Err(self.fault(number, "did not come: the consumer ended"));
            };
            self.check(number, &delivery)
                .map_err(|fault| self.fault(number, fault))?;
            self.received.store(number, Relaxed);
            self.bytes.fetch_add(delivery.body.len() as u64, Relaxed);
            if number.is_multiple_of(BATCH) || number == self.count {
                delivery.acker.ack_up_to()?;
            }
        }
        consumer.cancel().await?;
        if let Some(delivery) = consumer.next().await.transpose()? {
            let more = delivery.properties().map(|it| message::read_label(&it));
            let fault = format!("is the last, and yet another came: {more:?}");
            return Err(self.fault(self.count, fault));
        }
        channel.close().await?;
        Ok(())
    }

    /// Checks the message that came when that number was due.
    fn check(&self, due: u64, delivery: &Delivery) -> Result<(), String> {
        let properties = delivery.properties().map_err(|error| error.to_string())?;
        let Some((number, labelled)) = message::read_label(&properties) else {
            return Err(format!("came without its label: {properties:?}"));
        };
        if number != due {
            return Err(format!("was due, and {number} came"));
        }
        if delivery.method.redelivered {
            return Err("was delivered before".into());
        }
        if delivery.method.routing_key != self.queue {
            let from = &delivery.method.routing_key;
            return Err(format!("came with the routing key {from}"));
        }
        let len = self.plan.sizes()[self.plan.size(self.index, due)].len;
        if delivery.body.len() != len || delivery.body.remaining() != len {
            let came = delivery.body.len();
            return Err(format!("has {len} bytes, and {came} came"));
        }
        let computed = message::checksum(self.index, due, delivery.body.pieces());
        if computed != labelled {
            return Err(format!(
                "has the checksum {labelled:08x}, and what came has {computed:08x}"
            ));
        }
        Ok(())
    }

    /// Deletes the queue, which is to be empty.
    pub(crate) async fn delete(&self, channel: &BaseChannel) -> Result {
        let delete = queue::Delete::default().queue(&self.queue);
        match channel.call(delete).await?.message_count {
            0 => Ok(()),
            left => Err(self.fault(self.count, format!("is the last, and {left} more are left"))),
        }
    }

    fn fault(&self, number: u64, what: impl ToString) -> Box<dyn Error + Send + Sync> {
        format!(
            "queue {}: message {number} {}",
            self.queue,
            what.to_string()
        )
        .into()
    }
}

/// How far a lane has come, or all of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Progress {
    pub(crate) published: u64,
    pub(crate) confirmed: u64,
    pub(crate) received: u64,
    /// The received bytes of bodies.
    pub(crate) bytes: u64,
}

impl fmt::Display for Progress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} published, {} confirmed, {} received",
            Grouped(self.published),
            Grouped(self.confirmed),
            Grouped(self.received)
        )
    }
}

impl iter::Sum for Progress {
    fn sum<I: Iterator<Item = Self>>(all: I) -> Self {
        all.fold(Self::default(), |sum, one| Self {
            published: sum.published + one.published,
            confirmed: sum.confirmed + one.confirmed,
            received: sum.received + one.received,
            bytes: sum.bytes + one.bytes,
        })
    }
}
