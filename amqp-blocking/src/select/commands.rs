//! What a client is told to do.

use std::sync::atomic::{AtomicU64, Ordering};

use amqp_client::{
    Requeue,
    core::{
        ApiMisuse, ClientSent, MethodDef as _, Request,
        protocol::{ReplyCode, basic, exchange, queue},
    },
};

use super::{
    Answer, Client, Error, Message, Promise,
    channels::{Consume, Job, Purpose, Task},
};

/// Each returns at once. Before the connection is open they wait for it.
///
/// The error of a command is that the connection is closed, where nothing else is said. What is
/// wrong with a command in itself is told under its promise, as is what the server makes of it.
impl Client {
    /// Makes a request of the classes `queue` and `exchange`. Its answer is [`Answer::Reply`].
    ///
    /// # Errors
    /// When the connection is closed.
    pub fn call<R: Request + ClientSent + 'static>(
        &mut self,
        request: R,
    ) -> Result<Promise, Error> {
        // All others leave something behind on their channel, which is the next promise's.
        let allowed = [queue::Declare::ID.class, exchange::Declare::ID.class];
        let allowed = allowed.contains(&R::ID.class);
        let method = R::NAME;
        let job = Job::Request(Box::new(move |channel| {
            if allowed {
                return channel.call(&request);
            }
            Err(ApiMisuse::NotSentThisWay { method })
        }));
        self.start(Task::Request(None), job)
    }

    /// Fetches a message: [`Answer::Got`].
    ///
    /// # Errors
    /// When the connection is closed.
    pub fn get(&mut self, get: basic::Get) -> Result<Promise, Error> {
        let job = Job::Request(Box::new(move |channel| channel.get(&get)));
        self.start(Task::Request(None), job)
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
        self.start_consuming(vec![consume], Some(qos).filter(|_| prefetch > 0), false)
    }

    /// Consumes from several queues, as if they were one: [`Message::source`] tells them apart. They
    /// begin and end together: should the server cancel one, the others are cancelled, and then the
    /// promise ends.
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
        self.start_consuming(consumes, Some(qos), true)
    }

    fn start_consuming(
        &mut self,
        consumes: Vec<basic::Consume>,
        qos: Option<basic::Qos>,
        shared: bool,
    ) -> Result<Promise, Error> {
        let task = Task::Consume(Consume::new(shared));
        self.start(task, Job::Consume(consumes, qos))
    }

    /// Changes the prefetch of [`consume_multi`](Self::consume_multi), at once for what runs, of one
    /// queue or of several. That of a single consumer is fixed when it begins: its promise gets
    /// [`ApiMisuse::NotImplementedByRabbitMq`]. Before [`Answer::Consuming`] it is too early.
    ///
    /// # Errors
    /// When the connection is closed; [`Error::NoSuchPromise`] when nothing is consumed under that
    /// promise, or not yet.
    pub fn qos(&mut self, consume: Promise, prefetch: u16) -> Result<Promise, Error> {
        self.check_open()?;
        let running = match self.tasks.get(&consume) {
            Some(Task::Consume(running)) if running.ending.is_none() => running,
            _ => return Err(Error::NoSuchPromise(consume)),
        };
        let id = running.channel.ok_or(Error::NoSuchPromise(consume))?;
        let qos = basic::Qos::default().prefetch_count(prefetch).global(true);
        let feature = "basic.qos of a running consumer";
        let asked = match self.machine.channel(id) {
            _ if !running.shared => Err(ApiMisuse::NotImplementedByRabbitMq { feature }),
            Some(mut channel) => channel.call(&qos),
            None => Err(ApiMisuse::ChannelNotOpen),
        };
        let promise = self.promise(Task::Plain);
        match asked {
            Ok(request) => {
                self.requests.insert(request, Purpose::Answer(promise));
            }
            Err(misuse) => self.finish(promise, Err(misuse.into())),
        }
        Ok(promise)
    }

    /// Ends consumers: both promises get [`Answer::Cancelled`] when the server has confirmed it.
    /// Until then messages may come. What was delivered can still be settled.
    ///
    /// # Errors
    /// When the connection is closed; [`Error::NoSuchPromise`] when nothing is consumed under that
    /// promise any more.
    pub fn cancel(&mut self, consume: Promise) -> Result<Promise, Error> {
        self.check_open()?;
        if !matches!(self.tasks.get(&consume), Some(Task::Consume(_))) {
            return Err(Error::NoSuchPromise(consume));
        }
        let promise = self.promise(Task::Plain);
        let tags = self.tags(consume);
        let cancelled = Answer::Cancelled { tags };
        self.end(consume, Ok(cancelled.clone()));
        if let Some(Task::Consume(running)) = self.tasks.get_mut(&consume)
            && let Some(ending) = &mut running.ending
        {
            ending.told.push(promise);
        } else {
            self.finish(promise, Ok(cancelled));
        }
        Ok(promise)
    }

    /// Acknowledges a message. It is sent with what is written next.
    ///
    /// # Errors
    /// When the connection is closed, or [`ApiMisuse::UnknownDeliveryTag`] when the message is settled
    /// already, needs no acknowledgement, or has gone back to its queue with its channel.
    pub fn ack(&mut self, message: &Message) -> Result<(), Error> {
        self.settle_message(message, |channel, tags| channel.ack(tags))?;
        self.assign();
        Ok(())
    }

    /// Refuses a message. It is sent with what is written next.
    ///
    /// # Errors
    /// As [`ack`](Self::ack).
    pub fn reject(&mut self, message: &Message, requeue: Requeue) -> Result<(), Error> {
        self.settle_message(message, |channel, tags| channel.nack(tags, requeue))?;
        self.assign();
        Ok(())
    }

    /// Closes the connection when all that was begun before is sent: [`Answer::Closed`]. All other
    /// promises that are not over end with an error.
    ///
    /// # Errors
    /// When it is closing or closed.
    pub fn close(&mut self) -> Result<Promise, Error> {
        self.check_open()?;
        let promise = self.promise(Task::Close);
        self.machine.close(ReplyCode::SUCCESS, "");
        self.settle();
        Ok(promise)
    }

    /// Drops what comes and what has come under a promise: a message is put back, a consumer is
    /// cancelled, a callback is not called. It does nothing for a promise that is over.
    pub fn ignore(&mut self, promise: Promise) {
        self.callbacks.remove(&promise);
        if self.tasks.contains_key(&promise) {
            self.ignored.insert(promise);
        }
        while let Some(result) = self.results.take(promise) {
            self.put_back(result);
        }
        let tags = self.tags(promise);
        self.end(promise, Ok(Answer::Cancelled { tags }));
        self.settle();
    }

    fn start(&mut self, task: Task, job: Job) -> Result<Promise, Error> {
        self.check_open()?;
        let promise = self.promise(task);
        self.waiting.push_back((promise, job));
        self.assign();
        Ok(promise)
    }

    pub(super) fn promise(&mut self, task: Task) -> Promise {
        let promise = Promise::next();
        self.tasks.insert(promise, task);
        promise
    }

    pub(super) fn check_open(&self) -> Result<(), Error> {
        match self.machine.close_reason() {
            Some(reason) => Err(amqp_client::Error::ConnectionClosed(reason.clone()).into()),
            None => Ok(()),
        }
    }
}

impl Promise {
    pub(super) fn next() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        Self(NEXT.fetch_add(1, Ordering::Relaxed))
    }
}
