//! Acknowledgements merged to `multiple`.

use std::{
    collections::BTreeMap,
    fmt, mem,
    sync::{Arc, PoisonError, Weak},
    task::{Wake, Waker},
    time::Duration,
};

use amqp_core::{ApiMisuse, DeliveryTag};

use crate::{
    acker::Acker,
    base_channel::{BaseChannel, Inner},
    sync::{Mutex, MutexGuard},
};

/// Collects the acknowledgements of a channel, and sends several as one.
///
/// Deliveries may be acknowledged in any order. Those that no other unacknowledged delivery of the
/// channel precedes are sent as one `basic.ack` with `multiple` (section 1.8.3.13 of the protocol
/// reference), the others one by one: no delivery is acknowledged that was not put in, whichever
/// consumer of the channel it belongs to.
///
/// They are sent when `count` have been put in, when the first of them has waited for `delay` by the
/// connection's clock, by [`flush`](Self::flush), and when it is dropped. Until then the server may
/// redeliver the messages if the channel ends. Those that cannot be merged wait for at most `delay`, too.
///
/// ```no_run
/// use amqp_driver::{BatchAcker, protocol::basic};
/// use std::time::Duration;
///
/// # async fn example(channel: amqp_driver::Channel) -> Result<(), amqp_driver::Error> {
/// let acks = BatchAcker::new(&channel, 64, Duration::from_millis(50));
/// let mut consumer = channel.consume(basic::Consume::default().queue("jobs")).await?;
/// while let Some(delivery) = consumer.next().await.transpose()? {
///     println!("{:?}", delivery.body);
///     acks.ack(delivery.acker);
/// }
/// # Ok(()) }
/// ```
pub struct BatchAcker(Arc<Batch>);

struct Batch {
    channel: Arc<Inner>,
    /// The number of acknowledgements that are due together, if the prefetch is not smaller.
    count: usize,
    delay: Duration,
    pending: Mutex<Pending>,
}

/// The acknowledgements that are not sent.
#[derive(Debug, Default)]
struct Pending {
    ackers: BTreeMap<DeliveryTag, Acker>,
    /// The number that is due together, by the prefetch at the first of them.
    due: usize,
    /// A deadline is set, at which all are sent.
    armed: bool,
    acked: u64,
    stale: u64,
}

/// The extent of a flush.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Extent {
    All,
    /// Those that can be merged; also the others if they are the most.
    Merged,
}

impl BatchAcker {
    /// Merges acknowledgements of `channel`: up to `count`, but no more than half of the prefetch
    /// that the channel has at the first of them, so that the server has not to wait for them; for at
    /// most `delay`.
    #[must_use]
    pub fn new(channel: &BaseChannel, count: usize, delay: Duration) -> Self {
        Self(Arc::new(Batch {
            channel: Arc::clone(channel.inner()),
            count: count.max(1),
            delay,
            pending: Mutex::default(),
        }))
    }

    /// Acknowledges a delivery, now or later. One of another channel is acknowledged at once.
    ///
    /// Once the channel has ended, the server has requeued the delivery, and this does nothing.
    pub fn ack(&self, acker: Acker) {
        let batch = &self.0;
        if !Arc::ptr_eq(acker.channel(), &batch.channel) {
            let settled = acker.ack();
            batch.lock().note(settled.is_ok());
            return;
        }
        let mut pending = batch.lock();
        if pending.ackers.is_empty() {
            drop(pending);
            let due = batch.due();
            pending = batch.lock();
            pending.due = due;
        }
        let replaced = pending.ackers.insert(acker.tag(), acker);
        let due = pending.ackers.len() >= pending.due;
        let arms = !due && !mem::replace(&mut pending.armed, true);
        drop(pending);
        if let Some(replaced) = replaced {
            replaced.leave();
        }
        if due {
            batch.flush(Extent::Merged);
        } else if arms {
            batch.arm();
        }
    }

    /// Sends all acknowledgements that wait.
    pub fn flush(&self) {
        self.0.flush(Extent::All);
    }

    /// The number of deliveries that were put in and are not acknowledged.
    #[must_use]
    pub fn pending(&self) -> usize {
        self.0.lock().ackers.len()
    }

    /// The number of acknowledged deliveries, and of those that the server had requeued before.
    pub(super) fn totals(&self) -> (u64, u64) {
        let pending = self.0.lock();
        (pending.acked, pending.stale)
    }
}

impl Batch {
    fn lock(&self) -> MutexGuard<'_, Pending> {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The number of acknowledgements that are due together, by the present prefetch.
    fn due(&self) -> usize {
        let mut state = self.channel.shared().lock();
        let channel = state.machine.channel(self.channel.id);
        match channel.map_or(0, |channel| channel.stats().prefetch) {
            0 => self.count,
            prefetch => self.count.min(usize::from(prefetch) / 2).max(1),
        }
    }

    fn flush(self: &Arc<Self>, extent: Extent) {
        let mut ackers = mem::take(&mut self.lock().ackers);
        if ackers.is_empty() {
            return;
        }
        let total = ackers.len();
        let mut front = None;
        let settled = self.channel.settle(|channel| {
            front = channel.ack_front(ackers.keys().copied())?;
            Ok::<_, ApiMisuse>(())
        });
        // The last tag that is done with: none of the earlier ones is outstanding any more.
        let (last, mut sent) = match (settled, front) {
            (Ok(()), Some((last, count))) => (Some(last), count),
            (Ok(()), None) => (None, 0),
            (Err(_requeued), _) => (ackers.last_key_value().map(|(&last, _)| last), 0),
        };
        let mut stale = 0;
        while let Some(entry) = ackers.first_entry()
            && Some(*entry.key()) <= last
        {
            entry.remove().leave();
            stale += 1;
        }
        stale -= sent;
        let rest = ackers.len();
        if extent == Extent::All || rest > total / 2 {
            for acker in mem::take(&mut ackers).into_values() {
                match acker.ack() {
                    Ok(()) => sent += 1,
                    Err(_requeued) => stale += 1,
                }
            }
        }
        let mut pending = self.lock();
        pending.acked += sent;
        pending.stale += stale;
        let arms = !ackers.is_empty() && !mem::replace(&mut pending.armed, true);
        pending.ackers.append(&mut ackers);
        drop(pending);
        if arms {
            self.arm();
        }
    }

    /// Sets the deadline of those that wait.
    fn arm(self: &Arc<Self>) {
        let waker = Waker::from(Arc::new(Expiry(Arc::downgrade(self))));
        let delay = self.delay;
        let ended = self.channel.shared().with(|state, later| {
            if state.closed.is_some() {
                later.drop_waker(Some(waker));
                return true;
            }
            state.alarms.add(delay, waker);
            // The driver sets the deadline.
            later.commanded = true;
            false
        });
        if ended {
            self.expire();
        }
    }

    fn expire(self: &Arc<Self>) {
        self.lock().armed = false;
        self.flush(Extent::All);
    }
}

impl Pending {
    fn note(&mut self, acked: bool) {
        self.acked += u64::from(acked);
        self.stale += u64::from(!acked);
    }
}

/// The waker of the deadline. It does not keep the channel open.
struct Expiry(Weak<Batch>);

impl Wake for Expiry {
    fn wake(self: Arc<Self>) {
        if let Some(batch) = self.0.upgrade() {
            batch.expire();
        }
    }
}

impl Drop for BatchAcker {
    fn drop(&mut self) {
        self.flush();
    }
}

impl fmt::Debug for BatchAcker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BatchAcker")
            .field("count", &self.0.count)
            .field("delay", &self.0.delay)
            .field("pending", &self.pending())
            .finish_non_exhaustive()
    }
}
