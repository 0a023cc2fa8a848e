//! Pools of channels.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    future::{Future, poll_fn},
    ops::Deref,
    sync::{Arc, PoisonError},
    task::{Poll, Waker},
};

use amqp_core::{ApiMisuse, TimeoutReason};

use crate::{
    confirm::ConfirmChannel,
    connection::Connection,
    error::Error,
    session::{later::Later, shared::within},
    sync::{Mutex, MutexGuard},
    unless::unless,
};

/// A fixed number of channels of one connection, in confirm mode, each used by one task at a time.
///
/// Waiting tasks get a channel first in, first out. A channel that has ended, because of an error
/// for example, is replaced when it is next checked out.
///
/// Deliveries are acknowledged on the channel that delivered them (section 1.1 of the protocol
/// reference): keep it checked out while they are unacknowledged.
///
/// ```no_run
/// use amqp_driver::protocol::basic;
///
/// # async fn example(connection: amqp_driver::Connection) -> Result<(), Box<dyn std::error::Error>> {
/// let pool = connection.channel_pool(8).await?;
/// let channel = pool.checkout().await?;
/// let to_tasks = basic::Publish::default().routing_key("tasks").mandatory(true);
/// let persistent = basic::Properties::default().persistent();
/// channel.publish(&to_tasks, &persistent, "one").await?.await?;
/// drop(channel); // the next task gets it
/// # Ok(()) }
/// ```
#[derive(Clone, Debug)]
pub struct ChannelPool(Arc<Pool>);

#[derive(Debug)]
struct Pool {
    connection: Connection,
    size: usize,
    members: Mutex<Members>,
}

/// The idle channels, and the permits to check one out.
///
/// Invariant: free permits, granted ones and those of checked-out channels add up to the pool's
/// size; a permit is free only if no task waits.
#[derive(Debug, Default)]
struct Members {
    idle: VecDeque<ConfirmChannel>,
    /// The number of permits that no task holds.
    free: usize,
    /// The tasks that wait for a permit, in order.
    waiting: BTreeMap<u64, Waker>,
    /// The tasks that were granted a permit and have not been polled since.
    granted: BTreeSet<u64>,
    last: u64,
}

impl Members {
    /// Grants a permit to the first waiting task.
    fn release(&mut self, later: &mut Later) {
        match self.waiting.pop_first() {
            Some((number, waker)) => {
                self.granted.insert(number);
                later.wake(Some(waker));
            }
            None => self.free += 1,
        }
    }
}

impl ChannelPool {
    pub(crate) async fn open(connection: &Connection, size: usize) -> Result<Self, Error> {
        if size == 0 {
            let (setting, problem) = ("channel_pool", "must have at least one channel");
            return Err(ApiMisuse::Config { setting, problem }.into());
        }
        let channels = open_all(connection, size).await?;
        Ok(Self(Arc::new(Pool {
            connection: connection.clone(),
            size,
            members: Mutex::new(Members {
                idle: channels.into(),
                free: size,
                ..Members::default()
            }),
        })))
    }

    /// The maximum number of channels checked out at a time.
    #[must_use]
    pub fn size(&self) -> usize {
        self.0.size
    }

    /// The number of channels that can be checked out without waiting for another task. A channel
    /// that has ended counts: it is reopened at checkout. 0 once the connection has ended.
    #[must_use]
    pub fn idle(&self) -> usize {
        if self.0.connection.check_open().is_ok() {
            self.0.lock().free
        } else {
            0
        }
    }

    /// Checks a channel out, waiting for one if none is idle. Dropping the channel returns it.
    ///
    /// # Cancel safety
    /// Dropping it checks nothing out, and gives up the place in the queue.
    ///
    /// # Errors
    /// When the next channel has ended and another cannot be opened, or the connection ends;
    /// [`Error::TimedOut`] after [`Timeouts::checkout`](amqp_core::Timeouts).
    #[doc(alias("get", "acquire"))]
    pub async fn checkout(&self) -> Result<PooledChannel, Error> {
        let shared = self.0.connection.shared();
        within(shared, shared.timeouts().checkout, self.take_out())
            .await
            .unwrap_or_else(|| {
                Err(match self.0.connection.close_reason() {
                    Some(reason) => Error::ConnectionClosed(reason),
                    None => Error::TimedOut {
                        reason: TimeoutReason::Checkout,
                        channel: None,
                    },
                })
            })
    }

    async fn take_out(&self) -> Result<PooledChannel, Error> {
        let pool = &self.0;
        let mut permit = Permit {
            pool: Arc::clone(pool),
            waiting: None,
            held: false,
        };
        // The tasks that hold the channels may never return them: the connection's end ends the
        // wait.
        let permitted = poll_fn(|cx| permit.poll(cx.waker().clone()));
        let permitted = unless(pool.connection.closed(), permitted).await;
        permitted.map_err(Error::ConnectionClosed)?;
        let channel = loop {
            let idle = pool.lock().idle.pop_front();
            match idle {
                Some(channel) if channel.is_usable() => break channel,
                Some(_ended) => {}
                None => break open_one(&pool.connection).await?,
            }
        };
        Ok(PooledChannel {
            channel: Some(channel),
            permit,
        })
    }
}

async fn open_one(connection: &Connection) -> Result<ConfirmChannel, Error> {
    connection.open_channel().await?.confirm_select().await
}

/// Opens `count` channels, all at once.
async fn open_all(connection: &Connection, count: usize) -> Result<Vec<ConfirmChannel>, Error> {
    let mut openings: Vec<_> = (0..count).map(|_| Box::pin(open_one(connection))).collect();
    let mut channels = Vec::with_capacity(count);
    poll_fn(|cx| {
        let mut result = Ok(());
        openings.retain_mut(|opening| match opening.as_mut().poll(cx) {
            Poll::Pending => true,
            Poll::Ready(Ok(channel)) => {
                channels.push(channel);
                false
            }
            Poll::Ready(Err(error)) => {
                result = Err(error);
                false
            }
        });
        match result {
            Ok(()) if !openings.is_empty() => Poll::Pending,
            result => Poll::Ready(result),
        }
    })
    .await?;
    Ok(channels)
}

impl Pool {
    fn lock(&self) -> MutexGuard<'_, Members> {
        // No critical section panics. If one did, the state would still be usable.
        self.members.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn with<T>(&self, act: impl FnOnce(&mut Members, &mut Later) -> T) -> T {
        let mut later = Later::default();
        let result = act(&mut self.lock(), &mut later);
        later.run();
        result
    }
}

/// The permit to hold a channel, or a place in the queue for one. Dropping it passes it on to the
/// next waiting task.
#[derive(Debug)]
struct Permit {
    pool: Arc<Pool>,
    waiting: Option<u64>,
    held: bool,
}

impl Permit {
    fn poll(&mut self, waker: Waker) -> Poll<()> {
        let pool = Arc::clone(&self.pool);
        pool.with(|members, later| {
            let got = match self.waiting {
                _ if self.held => true,
                Some(number) => members.granted.remove(&number),
                None if members.free > 0 => {
                    members.free -= 1;
                    true
                }
                None => false,
            };
            if got {
                (self.waiting, self.held) = (None, true);
                later.drop_waker(Some(waker));
                return Poll::Ready(());
            }
            let number = *self.waiting.get_or_insert_with(|| {
                members.last += 1;
                members.last
            });
            later.drop_waker(members.waiting.insert(number, waker));
            Poll::Pending
        })
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.pool.with(|members, later| {
            let granted = self.waiting.is_some_and(|number| {
                later.drop_waker(members.waiting.remove(&number));
                members.granted.remove(&number)
            });
            if self.held || granted {
                members.release(later);
            }
        });
    }
}

/// A channel checked out of a [`ChannelPool`]. Dropping it returns the channel.
#[derive(Debug)]
pub struct PooledChannel {
    /// `Some` except during drop.
    channel: Option<ConfirmChannel>,
    permit: Permit,
}

impl Deref for PooledChannel {
    type Target = ConfirmChannel;

    fn deref(&self) -> &ConfirmChannel {
        match &self.channel {
            Some(channel) => channel,
            None => unreachable!("a channel is taken only by drop"),
        }
    }
}

impl Drop for PooledChannel {
    fn drop(&mut self) {
        // Before the permit, a field dropped after this, so that the task it is granted to finds
        // the channel.
        if let Some(channel) = self.channel.take() {
            self.permit.pool.lock().idle.push_back(channel);
        }
    }
}
