//! The connection shared by all promises, and its channels.

use std::{
    cell::{Cell, RefCell},
    future::{Future, poll_fn},
    ops::Deref,
    rc::Rc,
    task::{Poll, Waker},
    time::Duration,
};

use amqp_core::{ApiMisuse, Hold, Limits};

use super::{
    Error,
    waiting::{FairQueue, SetOnce, either},
};
use crate::sleep::Sleep;
use amqp_driver::{
    BaseChannel, Channel, Config, ConfirmChannel, Connection, ConnectionState,
    publishing::Acknowledgements,
};

/// The maximum number of idle channels. Each costs the server [memory and a few
/// processes](https://www.rabbitmq.com/docs/channels#resource-usage).
const IDLE_MAX: usize = 64;

/// The state shared by the futures of all promises.
pub(super) struct Shared {
    /// The open connection, or the error that prevented it.
    pub(super) connection: SetOnce<Result<Connection, Error>>,
    /// Set when the client is closing, and accepts no more commands.
    pub(super) closing: SetOnce<()>,
    /// The idle channels.
    idle: RefCell<Vec<Channel>>,
    /// The tasks that need a channel. The first one opens it, or waits for a released one.
    channel_queue: FairQueue,
    /// The number of channels that will be released without action by the application.
    borrowed: Cell<usize>,
    /// The waker of the task that waits for one of them.
    release_waker: Cell<Option<Waker>>,
    limits: Limits,
    /// The limit for sending earlier commands before a close.
    close_timeout: Duration,
    pub(super) acknowledgements: Cell<Acknowledgements>,
    /// The channel that all publishes with confirms share.
    pub(super) confirming_publisher: RefCell<Option<Rc<ConfirmChannel>>>,
    /// The channel that all publishes without confirms share.
    pub(super) plain_publisher: RefCell<Option<Rc<Channel>>>,
    /// The tasks that publish, in order. The first one waits for room.
    pub(super) publish_queue: FairQueue,
    /// The number of outstanding publishes.
    pub(super) outstanding_publishes: Cell<usize>,
    /// The bodies of the publishes that are not accepted by the connection yet, in bytes.
    pub(super) queued_bytes: Cell<usize>,
}

impl Shared {
    pub(super) fn new(config: &Config) -> Self {
        Self {
            connection: SetOnce::default(),
            closing: SetOnce::default(),
            idle: RefCell::default(),
            channel_queue: FairQueue::default(),
            borrowed: Cell::default(),
            release_waker: Cell::default(),
            limits: config.limits.clone(),
            close_timeout: config.timeouts.close,
            acknowledgements: Cell::default(),
            confirming_publisher: RefCell::default(),
            plain_publisher: RefCell::default(),
            publish_queue: FairQueue::default(),
            outstanding_publishes: Cell::default(),
            queued_bytes: Cell::default(),
        }
    }

    /// Returns an idle or new channel. If all numbers up to the negotiated `channel-max` (section
    /// 1.4.2.6 of the protocol reference) are in use, waits for a channel that is closing, or will
    /// be released without action by the application. Fails if there is none.
    pub(super) async fn channel(self: &Rc<Self>) -> Result<BorrowedChannel, Error> {
        let connection = self.connection.get().await?;
        let _turn = self.channel_queue.wait_turn().await;
        loop {
            while let Some(channel) = self.pop_idle() {
                if is_usable(&channel) {
                    return Ok(BorrowedChannel::new(self, channel));
                }
            }
            match connection.open_channel().await {
                Ok(channel) => return Ok(BorrowedChannel::new(self, channel)),
                Err(error @ amqp_driver::Error::Misuse(ApiMisuse::NoFreeChannel { .. })) => {
                    if self.borrowed.get() > 0 {
                        self.released().await;
                    } else if !connection.channel_released().await {
                        return Err(error.into());
                    }
                }
                // It was in flight at a loss, after which the connection goes on.
                Err(amqp_driver::Error::ConnectionClosed(_)) if goes_on(&connection) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    fn pop_idle(&self) -> Option<Channel> {
        self.idle.borrow_mut().pop()
    }

    /// Counts a channel that will be released without action by the application, until dropped.
    pub(super) fn count_borrowed(self: &Rc<Self>) -> CountGuard {
        CountGuard::new(self, |shared| &shared.borrowed, 1)
    }

    /// Waits for the next call of [`notify_released`](Self::notify_released).
    async fn released(&self) {
        let mut registered = false;
        poll_fn(|cx| {
            if std::mem::replace(&mut registered, true) {
                return Poll::Ready(());
            }
            self.release_waker.set(Some(cx.waker().clone()));
            Poll::Pending
        })
        .await;
    }

    /// Wakes the task that waits for a released channel.
    pub(super) fn notify_released(&self) {
        self.release_waker.take().into_iter().for_each(Waker::wake);
    }

    /// Connects, unless the client is closing and the connection is not open in time, as while its
    /// first connect is tried again and again.
    pub(super) async fn connect(
        &self,
        connecting: impl Future<Output = Result<Connection, Error>>,
    ) -> Result<Connection, Error> {
        let closing = async {
            self.closing.get().await;
            Sleep::new(self.close_timeout).await;
            Err(Error::Closing)
        };
        either(closing, connecting).await
    }

    /// Closes the connection, after all earlier commands have been sent.
    pub(super) async fn close(&self) -> Result<(), Error> {
        let connection = self.connection.get().await?;
        if connection.state() == ConnectionState::Recovering {
            return Ok(connection.close().await?);
        }
        let begun = async {
            let _publish_turn = self.publish_queue.wait_turn().await;
            let _channel_turn = self.channel_queue.wait_turn().await;
        };
        // The server may block publishes without limit
        // (https://www.rabbitmq.com/docs/connection-blocked).
        let _late = either(begun, Sleep::new(self.close_timeout)).await;
        Ok(connection.close().await?)
    }

    /// Waits for the end of the connection, and returns the reason.
    pub(super) async fn end(&self) -> Error {
        match self.connection.get().await {
            Ok(connection) => {
                amqp_driver::Error::ConnectionClosed(connection.closed().await).into()
            }
            Err(error) => error,
        }
    }

    /// The reason why a publish would not be accepted now. `Some` while there is one.
    pub(super) fn hold(&self) -> Option<Hold> {
        let connection = self.connection.peek().and_then(Result::ok);
        if self.outstanding_publishes.get() >= self.limits.unconfirmed {
            Some(Hold::TooManyUnconfirmed)
        } else if self.queued_bytes.get() >= self.limits.output_high {
            Some(Hold::OutputFull)
        } else if connection.is_some_and(|connection| connection.is_blocked()) {
            Some(Hold::ConnectionBlocked)
        } else {
            None
        }
    }
}

/// Whether the connection takes commands, as after a loss that it recovers from.
pub(super) fn goes_on(connection: &Connection) -> bool {
    connection.check_open().is_ok()
}

/// Whether commands of the channel are executed, now or after a recovery.
pub(super) fn is_usable(channel: &BaseChannel) -> bool {
    channel.close_reason().is_none()
}

/// A part of a count in the [`Shared`], subtracted on drop.
pub(super) struct CountGuard {
    shared: Rc<Shared>,
    total: fn(&Shared) -> &Cell<usize>,
    count: usize,
}

impl CountGuard {
    pub(super) fn new(
        shared: &Rc<Shared>,
        total: fn(&Shared) -> &Cell<usize>,
        count: usize,
    ) -> Self {
        total(shared).set(total(shared).get() + count);
        Self {
            shared: Rc::clone(shared),
            total,
            count,
        }
    }
}

impl Drop for CountGuard {
    fn drop(&mut self) {
        let total = (self.total)(&self.shared);
        total.set(total.get() - self.count);
    }
}

/// A channel for one promise, which will be released without action by the application.
pub(super) struct BorrowedChannel {
    channel: Channel,
    borrowed: CountGuard,
}

impl BorrowedChannel {
    fn new(shared: &Rc<Shared>, channel: Channel) -> Self {
        let borrowed = shared.count_borrowed();
        Self { channel, borrowed }
    }

    /// Releases the channel for the next promise.
    pub(super) fn release(self) {
        self.retain().release();
    }

    /// Retains the channel until it is released explicitly.
    pub(super) fn retain(self) -> RetainedChannel {
        let shared = Rc::clone(&self.borrowed.shared);
        let channel = self.into_channel();
        RetainedChannel { shared, channel }
    }

    /// Takes the channel out: it is never released.
    pub(super) fn into_channel(self) -> Channel {
        let Self { channel, borrowed } = self;
        let shared = Rc::clone(&borrowed.shared);
        drop(borrowed);
        shared.notify_released();
        channel
    }
}

impl Deref for BorrowedChannel {
    type Target = Channel;

    fn deref(&self) -> &Channel {
        &self.channel
    }
}

/// A channel with an unacknowledged message. Dropping it closes the channel, so the server requeues
/// the message (<https://www.rabbitmq.com/docs/confirms#automatic-requeueing>).
pub(super) struct RetainedChannel {
    shared: Rc<Shared>,
    channel: Channel,
}

impl RetainedChannel {
    /// Releases the channel for the next promise, or closes it beyond [`IDLE_MAX`].
    pub(super) fn release(self) {
        let mut idle = self.shared.idle.borrow_mut();
        if is_usable(&self.channel) && idle.len() < IDLE_MAX {
            idle.push(self.channel);
        }
        drop(idle);
        self.shared.notify_released();
    }
}
