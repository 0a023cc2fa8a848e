//! Loops over deliveries, with bodies that block.

use std::{
    fmt,
    future::{Future, ready},
    io,
    pin::Pin,
    sync::Arc,
    time::Duration,
};

use amqp_driver::{
    Drained, Ended, Error, ForEachOptions, GroupDelivery, GroupPrefetch, ManualAck, Message,
    protocol::basic,
};

use crate::{handles::BaseChannel, streams::Consumer, thread::in_thread, wait::wait};

/// A loop over deliveries, made by [`Consumer::for_each`] and its kin. Dropping it cancels the
/// consumer.
///
/// Wraps [`amqp_driver::ForEach`].
#[must_use = "the loop does not begin before it is run"]
pub struct ForEach<E> {
    stopper: Stopper,
    run: Pin<Box<dyn Future<Output = Ended<E>> + Send>>,
}

impl<E> ForEach<E> {
    fn new<L>(work: amqp_driver::ForEach<L>) -> Self
    where
        L: Future<Output = Ended<E>> + Send + 'static,
    {
        Self {
            stopper: Stopper(work.stopper()),
            run: Box::pin(work),
        }
    }

    /// Returns a handle that drains the loop from another thread.
    #[must_use]
    pub fn stopper(&self) -> Stopper {
        self.stopper.clone()
    }

    /// Runs the loop to its end.
    ///
    /// # Errors
    /// [`Error::TimedOut`] beyond the limit of [`within`](crate::within): the loop is dropped, which
    /// requeues the messages of bodies that have not begun.
    pub fn run(self) -> Result<Ended<E>, Error> {
        wait(self.run)
    }
}

impl<E> fmt::Debug for ForEach<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ForEach").finish_non_exhaustive()
    }
}

/// Drains a loop over deliveries from any thread.
///
/// Wraps [`amqp_driver::Stopper`].
#[derive(Clone, Debug)]
pub struct Stopper(amqp_driver::Stopper);

impl Stopper {
    /// Ends the loop in good order, and waits for its end; see [`amqp_driver::Stopper::drain`]. A body
    /// that blocks cannot be interrupted: at the deadline the message of a body on another thread is
    /// requeued though the body goes on, and a body on the thread of the loop is waited for.
    ///
    /// # Errors
    /// [`Error::TimedOut`] beyond the limit of [`within`](crate::within). The loop is being drained.
    pub fn drain(&self, deadline: Duration) -> Result<Drained, Error> {
        wait(self.0.drain(deadline))
    }

    /// Whether the loop has ended.
    #[must_use]
    pub fn has_ended(&self) -> bool {
        self.0.has_ended()
    }

    /// The asynchronous handle.
    #[must_use]
    pub const fn as_async(&self) -> &amqp_driver::Stopper {
        &self.0
    }
}

impl Consumer<ManualAck> {
    /// Calls `body` for each delivery, one after the other, on the thread that [runs](ForEach::run)
    /// the loop. A message is acknowledged when its body has returned `Ok`, and otherwise treated as
    /// the options say; see [`amqp_driver::Consumer::for_each_concurrent`]. The body may use the
    /// calls of this crate.
    ///
    /// ```no_run
    /// use amqp_blocking::{Channel, Error, ForEachOptions, OnFailure, protocol::basic};
    /// use std::{io, thread, time::Duration};
    ///
    /// # fn example(channel: Channel, terminate: impl FnOnce() + Send + 'static) -> Result<(), Error> {
    /// let consumer = channel.consume(basic::Consume::default().queue("jobs"))?;
    /// let work = consumer.for_each(ForEachOptions::new(OnFailure::Reject), |message| {
    ///     println!("{:?}", message.body);
    ///     Ok::<_, io::Error>(())
    /// });
    /// let stopper = work.stopper();
    /// thread::spawn(move || {
    ///     terminate(); // returns when the program is to end
    ///     stopper.drain(Duration::from_secs(20))
    /// });
    /// println!("{:?}", work.run()?.reason);
    /// # Ok(()) }
    /// ```
    pub fn for_each<B, E>(self, options: ForEachOptions<E>, mut body: B) -> ForEach<E>
    where
        B: FnMut(Message) -> Result<(), E> + Send + 'static,
        E: Send + 'static,
    {
        let consumer = self.into_async();
        ForEach::new(consumer.for_each_concurrent(1, options, move |message| ready(body(message))))
    }

    /// Calls `body` for each delivery, on up to `threads` threads at a time, each of which ends with
    /// its body. A thread that cannot be created is a failure of the body.
    ///
    /// Otherwise as [`for_each`](Self::for_each).
    pub fn for_each_in_threads<B, E>(
        self,
        threads: usize,
        options: ForEachOptions<E>,
        body: B,
    ) -> ForEach<E>
    where
        B: Fn(Message) -> Result<(), E> + Send + Sync + 'static,
        E: From<io::Error> + Send + 'static,
    {
        let body = Arc::new(body);
        let consumer = self.into_async();
        ForEach::new(
            consumer.for_each_concurrent(threads, options, move |message| {
                let body = Arc::clone(&body);
                async move { in_thread("amqp-body", move || body(message))?.await }
            }),
        )
    }
}

/// The messages of several queues, as an iterator that takes from each in turn, with a prefetch that
/// can be changed. It ends after an error with the reason. [`Error::TimedOut`], beyond the limit of
/// [`within`](crate::within), does not end it.
///
/// Wraps [`amqp_driver::ConsumerGroup`].
#[derive(Debug)]
pub struct ConsumerGroup(amqp_driver::ConsumerGroup);

impl ConsumerGroup {
    /// Starts a consumer for each request.
    ///
    /// # Errors
    /// As [`amqp_driver::ConsumerGroup::start`]; [`Error::TimedOut`] also beyond the limit of
    /// [`within`](crate::within).
    pub fn start(
        channel: &BaseChannel,
        consumes: impl IntoIterator<Item = basic::Consume>,
        prefetch: u16,
    ) -> Result<Self, Error> {
        let channel = channel.as_async();
        let group = amqp_driver::ConsumerGroup::start(channel, consumes, prefetch);
        Ok(Self(wait(group)??))
    }

    /// Returns the handle that changes the prefetch.
    #[must_use]
    pub fn prefetch(&self) -> GroupPrefetch {
        self.0.prefetch()
    }

    /// Cancels the consumers. Messages delivered before are still yielded.
    ///
    /// # Errors
    /// [`Error::TimedOut`] beyond the limit of [`within`](crate::within).
    pub fn cancel(&mut self) -> Result<(), Error> {
        wait(self.0.cancel())
    }

    /// The asynchronous handle.
    #[must_use]
    pub fn into_async(self) -> amqp_driver::ConsumerGroup {
        self.0
    }
}

impl Iterator for ConsumerGroup {
    type Item = Result<GroupDelivery, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        wait(self.0.next()).unwrap_or_else(|error| Some(Err(error)))
    }
}
