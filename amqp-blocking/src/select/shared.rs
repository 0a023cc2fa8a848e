//! The connection shared by all promises, and its channels.

use std::{
    cell::{Cell, RefCell},
    future::{Future, poll_fn},
    ops::Deref,
    rc::Rc,
    task::{Poll, Waker},
    time::Duration,
};

use amqp_core::{ApiMisuse, Hold, Limits, protocol::basic};

use super::{
    Answer, Error,
    waiting::{FairQueue, SetOnce, either},
};
use crate::sleep::Sleep;
use amqp_driver::{
    BaseChannel, Body, Channel, Config, ConfirmChannel, Connection, ConnectionState, Unconfirmed,
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
    /// The channel that all publishes share.
    publisher: RefCell<Option<Rc<ConfirmChannel>>>,
    /// The tasks that publish, in order. The first one waits for room.
    publish_queue: FairQueue,
    /// The number of outstanding publishes.
    outstanding_publishes: Cell<usize>,
    /// The bodies of the publishes that are not accepted by the connection yet, in bytes.
    queued_bytes: Cell<usize>,
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
            publisher: RefCell::default(),
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

    /// Publishes, in the order of the calls, and waits for the confirm.
    pub(super) fn publish(
        self: &Rc<Self>,
        method: basic::Publish,
        properties: basic::Properties,
        body: Body,
    ) -> impl Future<Output = Result<Answer, Error>> + use<> {
        let shared = Rc::clone(self);
        let outstanding = CountGuard::new(self, |shared| &shared.outstanding_publishes, 1);
        let queued = CountGuard::new(self, |shared| &shared.queued_bytes, body.len());
        async move {
            let _outstanding = outstanding;
            let turn = shared.publish_queue.wait_turn().await;
            let confirm = loop {
                let channel = shared.publisher().await.map_err(unsent)?;
                let published = channel.publish(&method, &properties, body.clone()).await;
                match published {
                    // The channel was closed, and not because of this message: it was not sent.
                    Err(amqp_driver::Error::ChannelClosed(_)) => {}
                    published => break published.map_err(|error| unsent(error.into()))?,
                }
            };
            drop((turn, queued, body));
            confirm.await?;
            Ok(Answer::Published)
        }
    }

    /// Returns the open channel to publish on, in confirm mode
    /// (<https://www.rabbitmq.com/docs/confirms#publisher-confirms>). Opens a new one if it was
    /// closed.
    async fn publisher(self: &Rc<Self>) -> Result<Rc<ConfirmChannel>, Error> {
        let open = self.publisher.borrow().clone();
        if let Some(channel) = open.filter(|channel| is_usable(channel)) {
            return Ok(channel);
        }
        let connection = self.connection.get().await?;
        loop {
            let channel = self.channel().await?.into_channel();
            match channel.confirm_select().await {
                Err(amqp_driver::Error::ConnectionClosed(_)) if goes_on(&connection) => {}
                channel => {
                    let channel = Rc::new(channel?);
                    self.publisher.replace(Some(Rc::clone(&channel)));
                    return Ok(channel);
                }
            }
        }
    }
}

/// Whether the connection has not ended, as after a loss that it recovers from.
fn goes_on(connection: &Connection) -> bool {
    connection.close_reason().is_none()
}

/// Whether commands of the channel are executed, now or after a recovery.
fn is_usable(channel: &BaseChannel) -> bool {
    channel.close_reason().is_none()
}

/// Maps the end of the connection to the outcome of a message that was not accepted: not sent.
fn unsent(error: Error) -> Error {
    match error {
        Error::Call(amqp_driver::Error::ConnectionClosed(reason)) => {
            Unconfirmed::NotSent(reason).into()
        }
        error => error,
    }
}

/// A part of a count in the [`Shared`], subtracted on drop.
pub(super) struct CountGuard {
    shared: Rc<Shared>,
    total: fn(&Shared) -> &Cell<usize>,
    count: usize,
}

impl CountGuard {
    fn new(shared: &Rc<Shared>, total: fn(&Shared) -> &Cell<usize>, count: usize) -> Self {
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
