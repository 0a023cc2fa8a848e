//! What a client is told to do.

use std::rc::Rc;

use amqp_core::{
    ApiMisuse, ClientSent, Hold, MethodDef, Request,
    protocol::{Method, basic, exchange, queue},
};

use super::{
    Answer, Client, Error, Message, Promise, PublishError,
    consuming::{Consume, Consuming},
};
use amqp_driver::Body;

/// Each returns at once, and is carried out in the turns that follow: [`Client::needs_write`] says
/// so. Before the connection is open they wait for it.
///
/// The error of a command is that the connection is closed, where nothing else is said. What is
/// wrong with a command in itself is told under its promise, as is what the server makes of it.
impl Client {
    /// Makes a request of the classes `queue` and `exchange`. Its answer is [`Answer::Reply`]. A queue
    /// is to be named: there is no channel to remember the one that was declared last.
    ///
    /// # Errors
    /// When the connection is closed.
    pub fn call<R>(&mut self, request: R) -> Result<Promise, Error>
    where
        R: Request<Reply: Into<Method>> + ClientSent + 'static,
    {
        self.check_open()?;
        // All others leave something behind on their channel, which is the next promise's.
        let classes = [queue::Declare::ID.class, exchange::Declare::ID.class];
        let checked = if classes.contains(&R::ID.class) {
            check_queue(&request)
        } else {
            Err(not_sent_this_way::<R>())
        };
        Ok(self.begin(|link| async move {
            checked?;
            let channel = link.channel().await?;
            let reply = channel.call(request).await;
            // One that does not answer is nothing for the next.
            if !matches!(reply, Err(amqp_driver::Error::TimedOut(_))) {
                channel.give_back();
            }
            Ok(Answer::Reply(reply?.into()))
        }))
    }

    /// Fetches a message: [`Answer::Got`].
    ///
    /// # Errors
    /// When the connection is closed.
    pub fn get(&mut self, get: basic::Get) -> Result<Promise, Error> {
        self.check_open()?;
        let promise = Promise::next();
        self.begin_as(promise, None, |link| async move {
            check_queue(&get)?;
            let channel = link.channel().await?;
            match channel.get(get).await {
                Ok(Some(fetched)) => {
                    let message = Message::fetched(promise, fetched, channel);
                    Ok(Answer::Got(Some(message)))
                }
                Err(error @ amqp_driver::Error::TimedOut(_)) => Err(error.into()),
                none => {
                    channel.give_back();
                    none?;
                    Ok(Answer::Got(None))
                }
            }
        });
        Ok(promise)
    }

    /// Consumes from a queue: [`Answer::Consuming`] when that has begun, then an
    /// [`Answer::Delivered`] for each message, until [`cancel`](Self::cancel) or an error.
    ///
    /// At most `prefetch` messages are unacknowledged at a time, 0 for no bound.
    ///
    /// # Errors
    /// When the connection is closed.
    pub fn consume(&mut self, consume: basic::Consume, prefetch: u16) -> Result<Promise, Error> {
        let qos = basic::Qos::default().prefetch_count(prefetch);
        self.start_consuming(vec![consume], Some(qos).filter(|_| prefetch > 0))
    }

    /// Consumes from several queues, as if they were one: [`Message::source`] tells them apart. They
    /// end together: should the server cancel one, the others are cancelled, and then the promise
    /// ends.
    ///
    /// At most `prefetch` messages of them all are unacknowledged at a time, 0 for no bound. That is
    /// a prefetch of the channel, which RabbitMQ knows for classic queues only, and no more when its
    /// deprecated feature `global_qos` is off: then each queue has one of its own.
    ///
    /// # Errors
    /// When the connection is closed.
    pub fn consume_multi(
        &mut self,
        consumes: Vec<basic::Consume>,
        prefetch: u16,
    ) -> Result<Promise, Error> {
        let qos = basic::Qos::default().prefetch_count(prefetch).global(true);
        self.start_consuming(consumes, Some(qos))
    }

    fn start_consuming(
        &mut self,
        consumes: Vec<basic::Consume>,
        qos: Option<basic::Qos>,
    ) -> Result<Promise, Error> {
        self.check_open()?;
        let promise = Promise::next();
        let shared = qos.as_ref().is_some_and(|qos| qos.global);
        let consuming = Rc::new(Consuming::new(shared));
        let outbox = self.outbox(promise);
        self.begin_as(promise, Some(Rc::clone(&consuming)), |link| {
            let consume = Consume {
                link,
                outbox,
                consuming,
                consumes,
                qos,
            };
            consume.run()
        });
        Ok(promise)
    }

    /// Changes the prefetch of [`consume_multi`](Self::consume_multi), at once for what runs, of one
    /// queue or of several; [`Answer::Reply`] says that it holds. That of a single consumer is fixed when it begins: its promise gets
    /// [`ApiMisuse::NotImplementedByRabbitMq`]. Before [`Answer::Consuming`] it is too early.
    ///
    /// # Errors
    /// When the connection is closed; [`Error::NoSuchPromise`] when nothing is consumed under that
    /// promise, or not yet.
    pub fn qos(&mut self, consume: Promise, prefetch: u16) -> Result<Promise, Error> {
        self.check_open()?;
        let no_such = Error::NoSuchPromise(consume);
        let consuming = self
            .results
            .borrow()
            .consuming(consume)
            .ok_or_else(|| no_such.clone())?;
        let channel = consuming.channel.borrow().clone().ok_or(no_such)?;
        Ok(self.begin(|_| async move {
            if !consuming.shared {
                let feature = "basic.qos of a running consumer";
                let misuse = ApiMisuse::NotImplementedByRabbitMq { feature };
                return Err(amqp_driver::Error::from(misuse).into());
            }
            let qos = basic::Qos::default().prefetch_count(prefetch).global(true);
            Ok(Answer::Reply(channel.call(qos).await?.into()))
        }))
    }

    /// Ends consumers: both promises get [`Answer::Cancelled`] when the server has confirmed it, the
    /// consumers' own behind all that was delivered. Should they end otherwise meanwhile, their own
    /// says why. What was delivered can still be settled.
    ///
    /// # Errors
    /// When the connection is closed; [`Error::NoSuchPromise`] when nothing is consumed under that
    /// promise any more.
    pub fn cancel(&mut self, consume: Promise) -> Result<Promise, Error> {
        self.check_open()?;
        let consuming = self.results.borrow().consuming(consume);
        let running = consuming.filter(|it| it.ended.peek().is_none());
        let consuming = running.ok_or(Error::NoSuchPromise(consume))?;
        consuming.cancel(&self.link);
        Ok(self.begin(|_| async move {
            let tags = consuming.ended.get().await?;
            Ok(Answer::Cancelled { tags })
        }))
    }

    /// Publishes a message: the promise is fulfilled when the server has confirmed it. Before the
    /// connection is open the message waits.
    ///
    /// To direct reply-to, whose consumer must be on the same channel, this cannot publish.
    ///
    /// # Errors
    /// [`PublishError::Full`] with the body when there is no room, or the server wants none now, and
    /// [`PublishError::Closed`]. All else is told under the promise:
    /// [`Unconfirmed`](amqp_driver::Unconfirmed) says what is known of the message.
    pub fn publish(
        &mut self,
        publish: basic::Publish,
        properties: basic::Properties,
        body: impl Into<Body>,
    ) -> Result<Promise, PublishError> {
        let body = body.into();
        if let Err(error) = self.check_open() {
            return Err(PublishError::Closed(error));
        }
        if let Some(hold) = self.hold() {
            let body = body.into_bytes();
            return Err(PublishError::Full { hold, body });
        }
        Ok(self.begin(|link| link.publish(publish, properties, body)))
    }

    /// What holds publishes back now; none when one would be accepted. It changes with the answers
    /// of the server, and with what has been written.
    #[must_use]
    pub fn hold(&self) -> Option<Hold> {
        self.link.hold()
    }

    /// Closes the connection when all that was begun before is sent: [`Answer::Closed`]. All other
    /// promises that are not over then end with an error. Publishes that the server holds back are
    /// waited for as long as a close may take by [`Timeouts`](amqp_driver::core::Timeouts).
    ///
    /// # Errors
    /// When it is closing or closed.
    pub fn close(&mut self) -> Result<Promise, Error> {
        self.check_open()?;
        self.link.closing.set(());
        Ok(self.begin(|link| async move {
            link.close().await?;
            Ok(Answer::Closed)
        }))
    }

    /// Drops what comes and what has come under a promise: a message is put back, a consumer is
    /// cancelled, a callback is not called. It does nothing for a promise that is over.
    pub fn ignore(&mut self, promise: Promise) {
        self.callbacks.remove(&promise);
        if let Some(consuming) = self.results.borrow().consuming(promise) {
            consuming.cancel(&self.link);
        }
        let unwanted = self.results.borrow_mut().ignore(promise);
        drop(unwanted);
    }
}

/// A request has to do without the queue that was declared last on its channel, which is what an
/// empty name means: the channel may have been another promise's.
pub(super) fn check_queue<M: MethodDef>(request: &M) -> Result<(), Error> {
    let named = match request.clone().into() {
        Method::QueueDeclare(declare) if !declare.passive => true,
        other => other.queue().is_none_or(|queue| !queue.is_empty()),
    };
    if named {
        Ok(())
    } else {
        Err(not_sent_this_way::<M>())
    }
}

fn not_sent_this_way<M: MethodDef>() -> Error {
    amqp_driver::Error::from(ApiMisuse::NotSentThisWay { method: M::NAME }).into()
}
