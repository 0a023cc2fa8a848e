//! The channel that a publisher publishes on.

use std::{
    future::{Future, pending},
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use amqp_core::Body;

use super::message::OutgoingMessage;
use crate::{
    base_channel::BaseChannel,
    channel::Channel,
    confirm::{Confirm, ConfirmChannel},
    error::{Error, TryPublishError},
    session::{budget::Budget, shared::within},
    unconfirmed::Unconfirmed,
};

/// A future on the heap.
pub(super) type Boxed<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// A channel, as the engine of a publisher uses it. The tests have another one.
pub(super) trait Target: Clone + Send + Sync + 'static {
    /// The wait for the answer to a message.
    type Answer: Future<Output = Result<(), Unconfirmed>> + Send + Unpin;

    /// Publishes a message if there is room for it now.
    fn try_publish(
        &self,
        message: &OutgoingMessage,
        confirm_timeout: Option<Duration>,
    ) -> Result<Sent<Self::Answer>, TryPublishError>;

    /// Publishes a message as soon as there is room. Dropped before it is ready, it publishes
    /// nothing.
    fn publish(
        &self,
        message: OutgoingMessage,
        confirm_timeout: Option<Duration>,
    ) -> Boxed<Result<Sent<Self::Answer>, Error>>;

    /// Takes a turn of a task, or makes it yield.
    fn poll_proceed(&self, budget: &Budget, cx: &Context<'_>) -> Poll<()>;

    /// Ends after the time that a message waits for room.
    fn patience(&self) -> Boxed<()>;

    /// The reason for which the channel takes no messages. `Some` once it has ended.
    fn error(&self) -> Option<Error>;

    /// The number of the channel.
    fn number(&self) -> u16;
}

/// A message that was accepted into the output buffer.
pub(super) enum Sent<A> {
    Confirming(A),
    /// There are no confirms.
    Unacknowledged,
}

/// A channel with or without confirms.
#[derive(Clone, Debug)]
pub(super) enum Mode {
    Confirming(ConfirmChannel),
    Plain(Channel),
}

impl Mode {
    pub(super) fn channel(&self) -> &BaseChannel {
        match self {
            Self::Confirming(channel) => channel,
            Self::Plain(channel) => channel,
        }
    }
}

impl Target for Mode {
    type Answer = Answer;

    fn try_publish(
        &self,
        message: &OutgoingMessage,
        confirm_timeout: Option<Duration>,
    ) -> Result<Sent<Answer>, TryPublishError> {
        let OutgoingMessage {
            publish,
            properties,
            body,
            ..
        } = message;
        let body: Body = body.clone();
        match self {
            Self::Confirming(channel) => {
                let confirm = channel.try_publish(publish, properties, body)?;
                Ok(Sent::Confirming(Answer::new(confirm, confirm_timeout)))
            }
            Self::Plain(channel) => {
                channel.try_publish(publish, properties, body)?;
                Ok(Sent::Unacknowledged)
            }
        }
    }

    fn publish(
        &self,
        message: OutgoingMessage,
        confirm_timeout: Option<Duration>,
    ) -> Boxed<Result<Sent<Answer>, Error>> {
        let mode = self.clone();
        Box::pin(async move {
            let OutgoingMessage {
                publish,
                properties,
                body,
                ..
            } = message;
            match mode {
                Self::Confirming(channel) => {
                    let confirm = channel.publish(&publish, &properties, body).await?;
                    Ok(Sent::Confirming(Answer::new(confirm, confirm_timeout)))
                }
                Self::Plain(channel) => {
                    channel.publish(&publish, &properties, body).await?;
                    Ok(Sent::Unacknowledged)
                }
            }
        })
    }

    fn poll_proceed(&self, budget: &Budget, cx: &Context<'_>) -> Poll<()> {
        budget.poll_proceed(self.channel().shared(), cx)
    }

    fn patience(&self) -> Boxed<()> {
        let channel = self.channel().clone();
        Box::pin(async move {
            let shared = channel.shared();
            let limit = shared.timeouts().publish;
            let _passed = within(shared, limit, pending::<()>()).await;
            if shared.lock().is_held(Some(channel.id())) {
                // A recovery ends by its own policy.
                let _passed = within(shared, limit, pending::<()>()).await;
            }
        })
    }

    fn number(&self) -> u16 {
        self.channel().number()
    }

    fn error(&self) -> Option<Error> {
        let channel = self.channel();
        let state = channel.shared().lock();
        state.channel_error(channel.id())
    }
}

/// A confirm, with or without a timeout of its own.
pub(super) enum Answer {
    Confirm(Confirm),
    Within(Boxed<Result<(), Unconfirmed>>),
}

impl Answer {
    fn new(confirm: Confirm, timeout: Option<Duration>) -> Self {
        match timeout {
            Some(timeout) => Self::Within(Box::pin(confirm.within(timeout))),
            None => Self::Confirm(confirm),
        }
    }
}

impl Future for Answer {
    type Output = Result<(), Unconfirmed>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match self.get_mut() {
            Self::Confirm(confirm) => Pin::new(confirm).poll(cx),
            Self::Within(confirm) => confirm.as_mut().poll(cx),
        }
    }
}
