//! The connection that all promises share, and its channels.

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

/// How many channels are kept that nobody uses. The server keeps a process and some memory for each.
const IDLE_MAX: usize = 64;

/// What the futures of all promises have in common.
pub(super) struct Link {
    /// The connection, when it is open, or why there is none.
    pub(super) connection: Once<Result<Connection, Error>>,
    /// The client is being closed, and takes no commands any more.
    pub(super) closing: Once<()>,
    /// Channels that nobody uses.
    idle: RefCell<Vec<Channel>>,
    /// Those who want a channel. The first one opens it, or waits for another's.
    wanting: Line,
    /// How many channels will be free without anybody's doing.
    lent: Cell<usize>,
    /// Who waits for one of them.
    waiting: Cell<Option<Waker>>,
    limits: Limits,
    /// How long a close may take.
    close_timeout: Duration,
    /// The channel that all publishes share.
    publisher: RefCell<Option<Rc<ConfirmChannel>>>,
    /// Those who publish. The first one waits for room.
    publishing: Line,
    /// How many publishes are not over.
    publishes: Cell<usize>,
    /// How many bytes of bodies wait to be accepted.
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

    /// A channel for a while. If there is none, but one will be, waits for that.
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

    /// One more channel will be free without anybody's doing.
    pub(super) fn will_be_free(self: &Rc<Self>) -> Counted {
        Counted::new(self, |link| &link.lent, 1)
    }

    /// Waits until a channel is free, or will never be.
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

    /// Closes the connection, behind all that was begun before.
    pub(super) async fn close(&self) -> Result<(), Error> {
        let connection = self.connection.get().await?;
        let begun = async {
            let _publishes = self.publishing.turn().await;
            let _requests = self.wanting.turn().await;
        };
        // The server may hold publishes back for as long as it likes.
        let _late = either(begun, Sleep::new(self.close_timeout)).await;
        Ok(connection.close().await?)
    }

    /// Waits until the connection has ended, and tells why.
    pub(super) async fn end(&self) -> Error {
        match self.connection.get().await {
            Ok(connection) => {
                amqp_driver::Error::ConnectionClosed(connection.closed().await).into()
            }
            Err(error) => error,
        }
    }

    /// What holds publishes back.
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

    /// Publishes, in the order in which this is called, and waits for the confirm.
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
                    // The channel is gone, and not because of this message.
                    Err(amqp_driver::Error::ChannelClosed(_)) => {}
                    published => break published.map_err(|error| unsent(error.into()))?,
                }
            };
            drop((first, queued, body));
            confirm.await?;
            Ok(Answer::Published)
        }
    }

    /// The channel to publish on, which is another one when it was closed.
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

/// A message that was not accepted was not sent.
fn unsent(error: Error) -> Error {
    match error {
        Error::Call(amqp_driver::Error::ConnectionClosed(reason)) => {
            Unconfirmed::NotSent(reason).into()
        }
        error => error,
    }
}

/// A part of a sum, as long as it is there.
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

/// A channel that one promise has for itself, and that will be free without anybody's doing.
pub(super) struct Lent {
    channel: Channel,
    lent: Counted,
}

impl Lent {
    fn new(link: &Rc<Link>, channel: Channel) -> Self {
        let lent = link.will_be_free();
        Self { channel, lent }
    }

    /// Gives it to the next one.
    pub(super) fn give_back(self) {
        self.keep_for_now().give_back();
    }

    /// It is free again when somebody says so.
    pub(super) fn keep_for_now(self) -> Kept {
        let link = Rc::clone(&self.lent.link);
        let channel = self.keep();
        Kept { link, channel }
    }

    /// It will not be given back.
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

/// A channel with a message to settle. Dropped, it is closed, and the message goes back.
pub(super) struct Kept {
    link: Rc<Link>,
    channel: Channel,
}

impl Kept {
    /// Gives it to the next one, unless there are many already.
    pub(super) fn give_back(self) {
        let mut idle = self.link.idle.borrow_mut();
        if self.channel.is_open() && idle.len() < IDLE_MAX {
            idle.push(self.channel);
        }
        drop(idle);
        self.link.changed();
    }
}
