//! The commands of a client.

use std::rc::Rc;

use amqp_core::{
    ClientSent, Hold, MethodDef, Request,
    protocol::{Method, basic, exchange, queue},
};

use super::{
    Answer, Client, Error, Message, Promise, PublishError,
    checks::{check_queue, not_sent_this_way},
    consume_task::ConsumeTask,
    consumer_group::ConsumerGroup,
};
use amqp_driver::{Body, publishing::Acknowledgements};

/// Each command returns at once, and is executed in the following turns: [`Client::needs_write`]
/// becomes `true`. Before the connection is open, commands wait for it.
///
/// A command itself fails only if the connection is closed, unless documented otherwise. An invalid
/// command, and an error from the server, are reported under its promise.
impl Client {
    /// Sends a request of the classes `queue` and `exchange`. The result is [`Answer::Reply`]. A
    /// queue must be named: an empty name means the queue last declared on the channel (section
    /// 1.1 of the protocol reference), but each request may use another channel.
    ///
    /// # Errors
    /// If the connection is closed.
    pub fn call<R>(&mut self, request: R) -> Result<Promise, Error>
    where
        R: Request<Reply: Into<Method>> + ClientSent + 'static,
    {
        self.check_open()?;
        // All others change the state of their channel, which the next promise uses.
        let classes = [queue::Declare::ID.class, exchange::Declare::ID.class];
        let checked = if classes.contains(&R::ID.class) {
            check_queue(&request)
        } else {
            Err(not_sent_this_way::<R>())
        };
        Ok(self.begin(|shared| async move {
            checked?;
            let channel = shared.channel().await?;
            let reply = channel.call(request).await;
            // A channel with an overdue reply is not reused.
            if !matches!(reply, Err(amqp_driver::Error::Unanswered { .. })) {
                channel.release();
            }
            Ok(Answer::Reply(reply?.into()))
        }))
    }

    /// Fetches a message. The result is [`Answer::Got`].
    ///
    /// # Errors
    /// If the connection is closed.
    pub fn get(&mut self, get: basic::Get) -> Result<Promise, Error> {
        self.check_open()?;
        let promise = Promise::next();
        self.begin_as(promise, None, |shared| async move {
            check_queue(&get)?;
            let channel = shared.channel().await?;
            match channel.get(get).await {
                Ok(Some(fetched)) => {
                    let message = Message::fetched(promise, fetched, channel);
                    Ok(Answer::Got(Some(message)))
                }
                Err(error @ amqp_driver::Error::Unanswered { .. }) => Err(error.into()),
                none => {
                    channel.release();
                    none?;
                    Ok(Answer::Got(None))
                }
            }
        });
        Ok(promise)
    }

    /// Consumes from a queue. The results are [`Answer::Consuming`] at the start, then one
    /// [`Answer::Delivered`] for each message, until [`cancel`](Self::cancel) or an error.
    ///
    /// At most `prefetch` messages are unacknowledged at a time, 0 for [no
    /// bound](https://www.rabbitmq.com/docs/consumer-prefetch); [`qos`](Self::qos) changes it.
    ///
    /// # Errors
    /// If the connection is closed.
    pub fn consume(&mut self, consume: basic::Consume, prefetch: u16) -> Result<Promise, Error> {
        self.consume_multi(vec![consume], prefetch)
    }

    /// Consumes from several queues in turn, as if they were one: [`Message::source`] distinguishes
    /// them. They end together: if the server
    /// [cancels](https://www.rabbitmq.com/docs/consumer-cancel) one consumer, the others are
    /// cancelled, and then the promise ends.
    ///
    /// At most `prefetch` messages of all queues are unacknowledged at a time, 0 for no bound;
    /// [`qos`](Self::qos) changes it. It is counted on this side, as by a
    /// [`ConsumerGroup`](amqp_driver::ConsumerGroup), so that queues of all types and RabbitMQ 4
    /// without its deprecated feature `global_qos` have it. It is also the prefetch of each consumer
    /// at the server: at most that many messages of each queue wait on this side.
    ///
    /// # Errors
    /// If the connection is closed.
    pub fn consume_multi(
        &mut self,
        consumes: Vec<basic::Consume>,
        prefetch: u16,
    ) -> Result<Promise, Error> {
        self.check_open()?;
        let promise = Promise::next();
        let group = Rc::new(ConsumerGroup::default());
        let sender = self.sender(promise);
        self.begin_as(promise, Some(Rc::clone(&group)), |shared| {
            let consume = ConsumeTask {
                shared,
                sender,
                group,
                consumes,
                prefetch,
            };
            consume.run()
        });
        Ok(promise)
    }

    /// Changes the prefetch of running consumers, up and down, 0 for no bound; see
    /// [`GroupPrefetch::set`](amqp_driver::GroupPrefetch::set). It holds at once for the next
    /// message, and the promise ends with a [`basic::QosOk`] in [`Answer::Reply`]. It has no effect
    /// on consumers without acknowledgements.
    ///
    /// # Errors
    /// If the connection is closed; [`Error::NoSuchPromise`] if no consumer runs under that
    /// promise, in particular before [`Answer::Consuming`].
    pub fn qos(&mut self, consume: Promise, prefetch: u16) -> Result<Promise, Error> {
        self.check_open()?;
        let group = self.results.borrow().group(consume);
        let shared = group.and_then(|group| group.prefetch.borrow().clone());
        shared.ok_or(Error::NoSuchPromise(consume))?.set(prefetch);
        Ok(self.begin(|_| async { Ok(Answer::Reply(basic::QosOk.into())) }))
    }

    /// Cancels consumers. Both promises end with [`Answer::Cancelled`] after `basic.cancel-ok`
    /// (section 1.8.3.6 of the protocol reference), that of the consumers after all deliveries
    /// within the prefetch; those beyond it, which waited on this side, are requeued. If the consumers
    /// end for another reason first, their promise ends with that reason. Deliveries can still be
    /// acknowledged or rejected.
    ///
    /// # Errors
    /// If the connection is closed; [`Error::NoSuchPromise`] if no consumer runs under that
    /// promise.
    pub fn cancel(&mut self, consume: Promise) -> Result<Promise, Error> {
        self.check_open()?;
        let group = self.results.borrow().group(consume);
        let running = group.filter(|it| it.ended.peek().is_none());
        let group = running.ok_or(Error::NoSuchPromise(consume))?;
        group.cancel(&self.shared);
        Ok(self.begin(|_| async move {
            let tags = group.ended.get().await?;
            Ok(Answer::Cancelled { tags })
        }))
    }

    /// Publishes a message. The result is [`Answer::Published`] when the server has [confirmed
    /// it](https://www.rabbitmq.com/docs/confirms#publisher-confirms), or handled it:
    /// see [`set_publisher_acknowledgements`](Self::set_publisher_acknowledgements). Before the
    /// connection is open the message waits.
    ///
    /// It cannot send requests with [direct
    /// reply-to](https://www.rabbitmq.com/docs/direct-reply-to), which requires the consumer on the
    /// same channel.
    ///
    /// # Errors
    /// [`PublishError::Full`] with the body if there is no room, or the server has blocked
    /// publishing; [`PublishError::Closed`]. All other errors are reported under the promise:
    /// [`Unconfirmed`](amqp_driver::Unconfirmed) is the known outcome of the message.
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
        Ok(self.begin(|shared| shared.publish(publish, properties, body)))
    }

    /// Sets whether the server acknowledges later publishes; at first [`Acknowledgements::On`].
    ///
    /// With [`Acknowledgements::Off`] a request follows each publish on its channel (`basic.qos`,
    /// without effect), and the answer to that ends the promise: the server has routed the message,
    /// or closed the channel because of it, or returned it. It may still lose it. A publish behind a
    /// mandatory message waits for that answer, which tells whose message has been returned.
    ///
    /// Acknowledged publishes and others have a channel each, and no order between them.
    pub fn set_publisher_acknowledgements(&self, acknowledgements: Acknowledgements) {
        self.shared.acknowledgements.set(acknowledgements);
    }

    /// The reason why a publish would not be accepted now. `Some` while there is one: it changes
    /// with confirms and other input from the server, and with the progress of writing.
    #[must_use]
    pub fn hold(&self) -> Option<Hold> {
        self.shared.hold()
    }

    /// Closes the connection after sending all earlier commands. The result is [`Answer::Closed`].
    /// All other outstanding promises then end with an error. Publishes that are blocked by the
    /// server delay the close by at most [`Timeouts::close`](amqp_driver::core::Timeouts). A lost
    /// connection ends at once; the promise then has the reason of the loss.
    ///
    /// # Errors
    /// If the connection is closing or closed.
    pub fn close(&mut self) -> Result<Promise, Error> {
        self.check_open()?;
        self.shared.closing.set(());
        Ok(self.begin(|shared| async move {
            shared.close().await?;
            Ok(Answer::Closed)
        }))
    }

    /// Drops the results of a promise, those that have arrived and those still to arrive: messages
    /// are requeued, consumers are cancelled, its callback is removed. Does nothing for a promise
    /// that has ended.
    pub fn ignore(&mut self, promise: Promise) {
        self.callbacks.remove(&promise);
        if let Some(group) = self.results.borrow().group(promise) {
            group.cancel(&self.shared);
        }
        let ignored = self.results.borrow_mut().ignore(promise);
        drop(ignored);
    }
}
