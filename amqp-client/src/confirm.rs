//! Publishing with confirms.

use std::{
    future::Future,
    ops::Deref,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use amqp_core::{Body, CloseReason, PropertyList, PublishSeq, protocol::basic};

use crate::{
    channel::{Channel, Inner, publish_on},
    error::Error,
    returns::ReturnedMessage,
};

/// A channel in confirm mode: the server tells of each publish whether it has taken it.
///
/// Everything that a [`Channel`] can do, it can do; only publishing gives more.
#[derive(Debug)]
pub struct ConfirmChannel(Channel);

impl ConfirmChannel {
    pub(crate) const fn new(channel: Channel) -> Self {
        Self(channel)
    }

    /// Publishes a message, and gives back its [`Confirm`]. It returns when the message is
    /// accepted into the output buffer; await the confirm to know what became of it. Keep many
    /// confirms under way for speed: as many as [`Limits::unconfirmed`](amqp_core::Limits) allows.
    ///
    /// ```no_run
    /// use amqp_client::protocol::basic;
    ///
    /// # async fn example(channel: amqp_client::ConfirmChannel) -> Result<(), Box<dyn std::error::Error>> {
    /// let to_hello = basic::Publish::default().routing_key("hello")?.mandatory(true);
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
    /// As [`Channel::publish`].
    pub async fn publish<P: PropertyList>(
        &self,
        publish: &basic::Publish,
        properties: &P,
        body: impl Into<Body>,
    ) -> Result<Confirm, Error> {
        let seq = publish_on(self.0.inner(), publish, properties, body.into(), true).await?;
        Ok(Confirm {
            channel: Arc::clone(self.0.inner()),
            seq,
        })
    }
}

impl Deref for ConfirmChannel {
    type Target = Channel;

    fn deref(&self) -> &Channel {
        &self.0
    }
}

/// What becomes of a publish, once the server has told.
///
/// It ends: at the latest when the channel or the connection does. Dropping it leaves the publish
/// as it is.
#[derive(Debug)]
#[must_use = "a publish is confirmed only when this says so"]
pub struct Confirm {
    channel: Arc<Inner>,
    /// None when it was told.
    seq: Option<PublishSeq>,
}

impl Confirm {
    /// The number of the publish on its channel, from 1.
    #[must_use]
    pub const fn seq(&self) -> Option<PublishSeq> {
        self.seq
    }
}

impl Future for Confirm {
    type Output = Result<(), Unconfirmed>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let Some(seq) = self.seq else {
            return Poll::Pending;
        };
        let id = self.channel.id;
        let outcome = self.channel.shared().lock().poll_confirm(id, seq, cx);
        if outcome.is_ready() {
            self.seq = None;
        }
        outcome
    }
}

impl Drop for Confirm {
    fn drop(&mut self) {
        if let Some(seq) = self.seq {
            let id = self.channel.id;
            self.channel.shared().lock().abandon_confirm(id, seq);
        }
    }
}

/// Why a publish was not confirmed.
#[derive(thiserror::Error, Clone, Debug, PartialEq)]
pub enum Unconfirmed {
    /// It was mandatory and no queue took it: here it is.
    #[error("the message was returned: {} {}", .0.code, .0.text)]
    Returned(Box<ReturnedMessage>),
    /// The server could not take responsibility for it: it may be lost.
    #[error("the server refused the message")]
    Nacked,
    /// The channel or the connection ended before any of it was sent.
    #[error("the message was not sent: {0}")]
    NotSent(CloseReason),
    /// The channel or the connection ended before the server told: it may have taken it or not.
    #[error("it is not known whether the server has the message: {0}")]
    Unknown(CloseReason),
}
