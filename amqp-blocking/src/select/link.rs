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
    waiting::{Line, Once, either},
};
use crate::sleep::Sleep;
use amqp_driver::{Body, Channel, Config, ConfirmChannel, Connection, Unconfirmed};

/// The maximum number of idle channels. Each costs the server [memory and a few
/// processes](https://www.rabbitmq.com/docs/channels#resource-usage).
const IDLE_MAX: usize = 64;

/// The state shared by the futures of all promises.
pub(super) struct Link {
    /// The open connection, or the error that prevented it.
    pub(super) connection: Once<Result<Connection, Error>>,
    /// Set when the client is closing, and accepts no more commands.
    pub(super) closing: Once<()>,
    /// The idle channels.
    idle: RefCell<Vec<Channel>>,
    /// The tasks that need a channel. The first one opens it, or waits for a released one.
    wanting: Line,
    /// The number of channels that will be released without action by the application.
    lent: Cell<usize>,
    /// The waker of the task that waits for one of them.
    waiting: Cell<Option<Waker>>,
    limits: Limits,
    /// The limit for sending earlier commands before a close.
    close_timeout: Duration,
    /// The channel that all publishes share.
    publisher: RefCell<Option<Rc<ConfirmChannel>>>,
    /// The tasks that publish, in order. The first one waits for room.
    publishing: Line,
    /// The number of outstanding publishes.
    publishes: Cell<usize>,
    /// The bodies of the publishes that are not accepted by the connection yet, in bytes.
    queued: Cell<usize>,
}

impl Link {
    pub(super) fn new(config: &Config) -> Self {
        Self {
            connection: Once::default(),
            closing: Once::default(),
            idle: RefCell::default(),
            wanting: Line::default(),
            lent: Cell::default(),
            waiting: Cell::default(),
            limits: config.limits.clone(),
            close_timeout: config.timeouts.close,
            publisher: RefCell::default(),
            publishing: Line::default(),
            publishes: Cell::default(),
            queued: Cell::default(),
        }
    }

    /// Returns an idle or new channel. If all numbers up to the negotiated `channel-max` (section
    /// 1.4.2.6 of the protocol reference) are in use, waits for a channel that is closing, or will
    /// be released without action by the application. Fails if there is none.
    pub(super) async fn channel(self: &Rc<Self>) -> Result<Lent, Error> {
        let connection = self.connection.get().await?;
        let _first = self.wanting.turn().await;
        loop {
            while let Some(channel) = self.pop_idle() {
                if channel.is_open() {
                    return Ok(Lent::new(self, channel));
                }
            }
            match connection.open_channel().await {
                Ok(channel) => return Ok(Lent::new(self, channel)),
                Err(error @ amqp_driver::Error::Misuse(ApiMisuse::NoFreeChannel { .. })) => {
                    if self.lent.get() > 0 {
                        self.change().await;
                    } else if !connection.channel_released().await {
                        return Err(error.into());
                    }
                }
                Err(error) => return Err(error.into()),
            }
        }
    }

    fn pop_idle(&self) -> Option<Channel> {
        self.idle.borrow_mut().pop()
    }

    /// Counts a channel that will be released without action by the application, until dropped.
    pub(super) fn will_be_free(self: &Rc<Self>) -> Counted {
        Counted::new(self, |link| &link.lent, 1)
    }

    /// Waits for the next call of [`changed`](Self::changed).
    async fn change(&self) {
        let mut asked = false;
        poll_fn(|cx| {
            if std::mem::replace(&mut asked, true) {
                return Poll::Ready(());
            }
            self.waiting.set(Some(cx.waker().clone()));
            Poll::Pending
        })
        .await;
    }

    pub(super) fn changed(&self) {
        self.waiting.take().into_iter().for_each(Waker::wake);
    }

    /// Closes the connection, after all earlier commands have been sent.
    pub(super) async fn close(&self) -> Result<(), Error> {
        let connection = self.connection.get().await?;
        let begun = async {
            let _publishes = self.publishing.turn().await;
            let _requests = self.wanting.turn().await;
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
        if self.publishes.get() >= self.limits.unconfirmed {
            Some(Hold::TooManyUnconfirmed)
        } else if self.queued.get() >= self.limits.output_high {
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
        let link = Rc::clone(self);
        let under_way = Counted::new(self, |link| &link.publishes, 1);
        let queued = Counted::new(self, |link| &link.queued, body.len());
        async move {
            let _until_it_is_over = under_way;
            let first = link.publishing.turn().await;
            let confirm = loop {
                let channel = link.publisher().await.map_err(unsent)?;
                let published = channel.publish(&method, &properties, body.clone()).await;
                match published {
                    // The channel was closed, and not because of this message: it was not sent.
                    Err(amqp_driver::Error::ChannelClosed(_)) => {}
                    published => break published.map_err(|error| unsent(error.into()))?,
                }
            };
            drop((first, queued, body));
            confirm.await?;
            Ok(Answer::Published)
        }
    }

    /// Returns the open channel to publish on, in confirm mode
    /// (<https://www.rabbitmq.com/docs/confirms#publisher-confirms>). Opens a new one if it was
    /// closed.
    async fn publisher(self: &Rc<Self>) -> Result<Rc<ConfirmChannel>, Error> {
        let open = self.publisher.borrow().clone();
        if let Some(channel) = open.filter(|channel| channel.is_open()) {
            return Ok(channel);
        }
        let channel = self.channel().await?.keep();
        let channel = Rc::new(channel.confirm_select().await?);
        self.publisher.replace(Some(Rc::clone(&channel)));
        Ok(channel)
    }
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

/// A share of a sum in the [`Link`], subtracted on drop.
pub(super) struct Counted {
    link: Rc<Link>,
    sum: fn(&Link) -> &Cell<usize>,
    part: usize,
}

impl Counted {
    fn new(link: &Rc<Link>, sum: fn(&Link) -> &Cell<usize>, part: usize) -> Self {
        sum(link).set(sum(link).get() + part);
        Self {
            link: Rc::clone(link),
            sum,
            part,
        }
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        let sum = (self.sum)(&self.link);
        sum.set(sum.get() - self.part);
    }
}

/// A channel for one promise, which will be released without action by the application.
pub(super) struct Lent {
    channel: Channel,
    lent: Counted,
}

impl Lent {
    fn new(link: &Rc<Link>, channel: Channel) -> Self {
        let lent = link.will_be_free();
        Self { channel, lent }
    }

    /// Releases the channel for the next promise.
    pub(super) fn give_back(self) {
        self.keep_for_now().give_back();
    }

    /// Keeps the channel until it is released explicitly.
    pub(super) fn keep_for_now(self) -> Kept {
        let link = Rc::clone(&self.lent.link);
        let channel = self.keep();
        Kept { link, channel }
    }

    /// Takes the channel out: it is never released.
    pub(super) fn keep(self) -> Channel {
        let Self { channel, lent } = self;
        let link = Rc::clone(&lent.link);
        drop(lent);
        link.changed();
        channel
    }
}

impl Deref for Lent {
    type Target = Channel;

    fn deref(&self) -> &Channel {
        &self.channel
    }
}

/// A channel with an unacknowledged message. Dropping it closes the channel, so the server requeues
/// the message (<https://www.rabbitmq.com/docs/confirms#automatic-requeueing>).
pub(super) struct Kept {
    link: Rc<Link>,
    channel: Channel,
}

impl Kept {
    /// Releases the channel for the next promise, or closes it beyond [`IDLE_MAX`].
    pub(super) fn give_back(self) {
        let mut idle = self.link.idle.borrow_mut();
        if self.channel.is_open() && idle.len() < IDLE_MAX {
            idle.push(self.channel);
        }
        drop(idle);
        self.link.changed();
    }
}
