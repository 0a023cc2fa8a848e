//! Channels to take out and put back.

use std::{
    collections::VecDeque,
    fmt,
    future::{Future, poll_fn},
    ops::Deref,
    pin::{Pin, pin},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker},
};

use crate::{
    confirm::ConfirmChannel,
    connection::Connection,
    error::Error,
    waiters::{Place, Waiters, Wakes},
};

/// A number of channels of one connection, in confirm mode, each used by one task at a time.
///
/// A channel that ended, because of an error for example, is replaced: the opening of another one
/// begins when it is put back, and goes on whenever the pool is used.
///
/// Acknowledgements belong to the channel that delivered: keep it out while they are under way.
#[derive(Clone, Debug)]
pub struct ChannelPool(Arc<Pool>);

#[derive(Debug)]
struct Pool {
    connection: Connection,
    size: usize,
    members: Mutex<Members>,
}

#[derive(Default)]
struct Members {
    idle: VecDeque<ConfirmChannel>,
    /// Channels on the way to be opened.
    opening: Vec<Opening>,
    /// How many are taken out.
    taken: usize,
    waiting: Waiters,
}

type Opening = Pin<Box<dyn Future<Output = Result<ConfirmChannel, Error>> + Send>>;

impl ChannelPool {
    pub(crate) async fn open(connection: &Connection, size: usize) -> Result<Self, Error> {
        let pool = Self(Arc::new(Pool {
            connection: connection.clone(),
            size,
            members: Mutex::default(),
        }));
        poll_fn(|cx| {
            let mut members = pool.0.lock();
            match pool.0.refill(&mut members, cx) {
                Err(error) => Poll::Ready(Err(error)),
                Ok(()) if members.opening.is_empty() => Poll::Ready(Ok(())),
                Ok(()) => Poll::Pending,
            }
        })
        .await?;
        Ok(pool)
    }

    /// How many channels the pool has, in and out.
    #[must_use]
    pub fn size(&self) -> usize {
        self.0.size
    }

    /// How many channels are ready to be taken out.
    #[must_use]
    pub fn idle(&self) -> usize {
        let mut members = self.0.lock();
        // Whoever takes one out next is told of an error.
        let _later = self
            .0
            .refill(&mut members, &mut Context::from_waker(Waker::noop()));
        let idle = members.idle.len();
        // Who waits has to look after the channels that are being opened, which now wake nobody.
        self.0.wake_all(members);
        idle
    }

    /// Takes a channel out, waiting for one if none is idle. Dropping it puts it back.
    ///
    /// # Cancel safety
    /// Dropping it takes nothing.
    ///
    /// # Errors
    /// When none is idle and one cannot be opened, or the connection ends.
    pub async fn checkout(&self) -> Result<PooledChannel, Error> {
        let mut turn = Turn {
            pool: &self.0,
            place: None,
        };
        let mut closed = pin!(self.0.connection.closed());
        poll_fn(|cx| {
            let mut members = self.0.lock();
            let refilled = self.0.refill(&mut members, cx);
            let Some(channel) = members.idle.pop_front() else {
                if let Err(error) = refilled {
                    // Who else waits may have waited for that channel.
                    self.0.wake_all(members);
                    return Poll::Ready(Err(error));
                }
                members.waiting.wait(&mut turn.place, cx);
                // Those who have the channels out may keep them for ever.
                let ended = closed.as_mut().poll(cx);
                return ended.map(|reason| Err(Error::ConnectionClosed(reason)));
            };
            members.taken += 1;
            members.waiting.leave(&mut turn.place);
            // Who else waits has to look after the channels that are being opened.
            self.0.wake_all(members);
            Poll::Ready(Ok(PooledChannel {
                pool: Arc::clone(&self.0),
                channel: Some(channel),
            }))
        })
        .await
    }
}

impl Pool {
    fn lock(&self) -> MutexGuard<'_, Members> {
        // Nothing in a critical section panics; should it, the state is still the best there is.
        self.members.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Drops the channels that have ended, and goes on opening others in their place.
    fn refill(&self, members: &mut Members, cx: &mut Context<'_>) -> Result<(), Error> {
        members.idle.retain(|channel| channel.is_open());
        while members.idle.len() + members.opening.len() + members.taken < self.size {
            let connection = self.connection.clone();
            members.opening.push(Box::pin(async move {
                connection.open_channel().await?.confirm_select().await
            }));
        }
        let mut result = Ok(());
        let idle = &mut members.idle;
        members
            .opening
            .retain_mut(|opening| match opening.as_mut().poll(cx) {
                Poll::Pending => true,
                Poll::Ready(Ok(channel)) => {
                    idle.push_back(channel);
                    false
                }
                Poll::Ready(Err(error)) => {
                    result = Err(error);
                    false
                }
            });
        result
    }

    fn wake_all(&self, mut members: MutexGuard<'_, Members>) {
        let mut wakes = Wakes::default();
        members.waiting.wake_all(&mut wakes);
        drop(members);
        wakes.wake();
    }
}

/// A place among those who wait for a channel, given up on drop.
struct Turn<'a> {
    pool: &'a Pool,
    place: Place,
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        if self.place.is_some() {
            let mut members = self.pool.lock();
            members.waiting.leave(&mut self.place);
            // It may have been the one that the channels being opened would wake.
            self.pool.wake_all(members);
        }
    }
}

/// A channel that was taken out of a [`ChannelPool`]. Dropping it puts it back.
#[derive(Debug)]
pub struct PooledChannel {
    pool: Arc<Pool>,
    /// None only while it is dropped.
    channel: Option<ConfirmChannel>,
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
        let mut members = self.pool.lock();
        members.taken -= 1;
        members.idle.extend(self.channel.take());
        // Whoever takes one out next is told of an error.
        let _later = self
            .pool
            .refill(&mut members, &mut Context::from_waker(Waker::noop()));
        self.pool.wake_all(members);
    }
}

impl fmt::Debug for Members {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Members")
            .field("idle", &self.idle.len())
            .field("opening", &self.opening.len())
            .field("taken", &self.taken)
            .finish_non_exhaustive()
    }
}
