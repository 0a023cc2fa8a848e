//! Publishing with confirms.

use std::{
    future::Future,
    ops::Deref,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use amqp_core::{
    Body, CloseCause, CloseReason, MethodDef as _, PropertyList, PublishSeq, TimeoutReason,
    client::PreparedPublish, protocol::basic,
};

use crate::{
    base_channel::{BaseChannel, Inner},
    error::{Error, TryPublishError},
    session::shared::within,
    unconfirmed::Unconfirmed,
};

/// A channel in confirm mode: the server acknowledges or rejects each publish ([RabbitMQ's
/// page](https://www.rabbitmq.com/docs/confirms)).
///
/// Clones share the channel. Everything but publishing is on [`BaseChannel`], to which it
/// dereferences.
///
/// ```no_run
/// use amqp_driver::{Unconfirmed, protocol::basic};
///
/// # async fn example(connection: amqp_driver::Connection) -> Result<(), amqp_driver::Error> {
/// let channel = connection.open_channel().await?.confirm_select().await?;
/// let to_tasks = basic::Publish::default().routing_key("tasks").mandatory(true);
/// let persistent = basic::Properties::default().persistent();
/// let mut confirms = Vec::new();
/// for body in ["one", "two", "three"] {
///     confirms.push(channel.publish(&to_tasks, &persistent, body).await?);
/// }
/// for confirm in confirms {
///     match confirm.await {
///         Ok(()) => println!("a queue has it"),
///         Err(Unconfirmed::Returned(message)) => println!("no queue took {:?}", message.body),
///         Err(other) => println!("{other}"),
///     }
/// }
/// # Ok(()) }
/// ```
#[derive(Clone, Debug)]
pub struct ConfirmChannel(BaseChannel);

impl ConfirmChannel {
    pub(crate) const fn new(channel: BaseChannel) -> Self {
        Self(channel)
    }

    /// Publishes a message and returns its [`Confirm`]. Returns when the message is accepted into
    /// the output buffer; await the confirm for the outcome. For throughput, keep many confirms
    /// outstanding, up to [`Limits::unconfirmed`](amqp_core::Limits).
    ///
    /// ```no_run
    /// use amqp_driver::protocol::basic;
    ///
    /// # async fn example(channel: amqp_driver::ConfirmChannel) -> Result<(), Box<dyn std::error::Error>> {
    /// let to_hello = basic::Publish::default().routing_key("hello").mandatory(true);
    /// let confirm = channel
    ///     .publish(&to_hello, &basic::Properties::default(), "Hello World!")
    ///     .await?;
    /// confirm.await?; // the server has it, and a queue took it
    /// # Ok(()) }
    /// ```
    ///
    /// # Cancel safety
    /// The message is accepted whole or not at all; if the future is dropped before it is ready,
    /// not at all.
    ///
    /// # Errors
    /// As [`Channel::publish`](crate::Channel::publish).
    #[doc(alias("basic_publish", "send"))]
    pub async fn publish<P: PropertyList>(
        &self,
        publish: &basic::Publish,
        properties: &P,
        body: impl Into<Body>,
    ) -> Result<Confirm, Error> {
        let publisher = self.0.inner().publisher();
        let published = publisher.publish((publish, properties), body.into(), true);
        Ok(self.confirm(published.await?))
    }

    /// Publishes a message like [`publish`](Self::publish), with a method and properties that were
    /// encoded before: see [`Channel::publish_prepared`](crate::Channel::publish_prepared).
    ///
    /// ```no_run
    /// use amqp_driver::{PreparedPublish, protocol::basic};
    ///
    /// # async fn example(channel: amqp_driver::ConfirmChannel) -> Result<(), Box<dyn std::error::Error>> {
    /// let to_tasks = basic::Publish::default().routing_key("tasks").mandatory(true);
    /// let persistent = basic::Properties::default().persistent();
    /// let publish = PreparedPublish::new(to_tasks, &persistent)?;
    /// let mut confirms = Vec::new();
    /// for body in ["one", "two", "three"] {
    ///     confirms.push(channel.publish_prepared(&publish, body).await?);
    /// }
    /// for confirm in confirms {
    ///     confirm.await?;
    /// }
    /// # Ok(()) }
    /// ```
    ///
    /// # Cancel safety
    /// As [`publish`](Self::publish).
    ///
    /// # Errors
    /// As [`publish`](Self::publish).
    pub async fn publish_prepared(
        &self,
        prepared: &PreparedPublish,
        body: impl Into<Body>,
    ) -> Result<Confirm, Error> {
        let publisher = self.0.inner().publisher();
        let published = publisher.publish(prepared, body.into(), true);
        Ok(self.confirm(published.await?))
    }

    /// Publishes a message if there is room for it now, and returns its [`Confirm`].
    ///
    /// # Errors
    /// As [`Channel::try_publish`](crate::Channel::try_publish).
    pub fn try_publish<P: PropertyList>(
        &self,
        publish: &basic::Publish,
        properties: &P,
        body: impl Into<Body>,
    ) -> Result<Confirm, TryPublishError> {
        let publisher = self.0.inner().publisher();
        let seq = publisher.try_publish((publish, properties), body.into(), true)?;
        Ok(self.confirm(seq))
    }

    /// Publishes a message like [`publish_prepared`](Self::publish_prepared), if there is room for
    /// it now, and returns its [`Confirm`].
    ///
    /// # Errors
    /// As [`try_publish`](Self::try_publish).
    pub fn try_publish_prepared(
        &self,
        prepared: &PreparedPublish,
        body: impl Into<Body>,
    ) -> Result<Confirm, TryPublishError> {
        let publisher = self.0.inner().publisher();
        let seq = publisher.try_publish(prepared, body.into(), true)?;
        Ok(self.confirm(seq))
    }

    fn confirm(&self, seq: Option<PublishSeq>) -> Confirm {
        Confirm {
            channel: Arc::clone(self.0.inner()),
            seq,
        }
    }
}

impl Deref for ConfirmChannel {
    type Target = BaseChannel;

    fn deref(&self) -> &BaseChannel {
        &self.0
    }
}

/// The outcome of a publish, once the server has confirmed it.
///
/// Ends with the server's answer, with the channel or the connection, or after
/// [`Timeouts::confirm`](amqp_core::Timeouts). Dropping it leaves the publish as it is.
#[doc(alias("wait_for_confirms", "publisher_confirm"))]
#[derive(Debug)]
#[must_use = "a publish is confirmed only when this says so"]
pub struct Confirm {
    channel: Arc<Inner>,
    /// `Some` until the outcome is returned.
    seq: Option<PublishSeq>,
}

impl Confirm {
    /// The number of the publish on its channel, from 1. `Some` until the outcome is returned.
    #[must_use]
    pub const fn seq(&self) -> Option<PublishSeq> {
        self.seq
    }

    /// Waits for at most `limit`, by the connection's clock.
    ///
    /// # Cancel safety
    /// Dropping it discards the outcome.
    ///
    /// # Errors
    /// As awaiting it; [`Unconfirmed::Unknown`] at the timeout.
    pub async fn within(mut self, limit: Duration) -> Result<(), Unconfirmed> {
        let channel = Arc::clone(&self.channel);
        match within(channel.shared(), Some(limit), &mut self).await {
            Some(outcome) => outcome,
            None => {
                let reason = CloseReason::from(CloseCause::TimedOut(TimeoutReason::Confirm));
                let reason = reason.on_channel(channel.id.number());
                Err(Unconfirmed::Unknown(reason.for_request(basic::Publish::ID)))
            }
        }
    }
}

impl Future for Confirm {
    type Output = Result<(), Unconfirmed>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let Some(seq) = self.seq else {
            return Poll::Pending;
        };
        let channel = &self.channel;
        let shared = channel.shared();
        ready!(channel.budget.poll_proceed(shared, cx));
        let mut outcome = shared.with(|state, _| state.take_outcome(channel.id, seq));
        if outcome.is_pending() {
            let waker = cx.waker().clone();
            outcome = shared.with(|state, later| {
                let outcome = state.take_outcome(channel.id, seq);
                if outcome.is_pending() {
                    later.waits = true;
                    state.await_outcome(channel.id, seq, waker, later);
                } else {
                    later.drop_waker(Some(waker));
                }
                outcome
            });
        }
        if outcome.is_ready() {
            self.seq = None;
        } else {
            channel.budget.renew();
        }
        outcome
    }
}

impl Drop for Confirm {
    fn drop(&mut self) {
        if let Some(seq) = self.seq {
            let id = self.channel.id;
            self.channel
                .shared()
                .with(|state, later| state.abandon_outcome(id, seq, later));
        }
    }
}
