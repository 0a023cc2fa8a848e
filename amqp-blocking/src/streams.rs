//! The handles that wait for the server: confirms, consumers and returned messages.

use std::{future::poll_fn, ops::Deref, pin::Pin};

use amqp_core::PublishSeq;
use amqp_driver::{Acks, Error, ReturnedMessage, Unconfirmed, wire::ShortStr};
use futures_core::Stream;
use ref_cast::RefCast;

use crate::wait::{wait, wait_unless_ready};

/// The outcome of a publish, once the server has confirmed it.
///
/// Wraps [`amqp_driver::Confirm`].
#[must_use = "a publish is confirmed only when this says so"]
#[derive(Debug, RefCast)]
#[repr(transparent)]
pub struct Confirm(amqp_driver::Confirm);

impl Confirm {
    /// The asynchronous handle.
    pub const fn as_async(&self) -> &amqp_driver::Confirm {
        &self.0
    }

    /// The asynchronous handle.
    pub fn into_async(self) -> amqp_driver::Confirm {
        self.0
    }
}

impl From<amqp_driver::Confirm> for Confirm {
    fn from(handle: amqp_driver::Confirm) -> Self {
        Self(handle)
    }
}

impl Confirm {
    /// The sequence number of the publish on its channel, from 1.
    #[must_use]
    pub const fn seq(&self) -> Option<PublishSeq> {
        self.0.seq()
    }

    /// Waits for the confirm.
    ///
    /// # Errors
    /// If the server has rejected the message, or it is unknown whether the server has accepted it.
    /// Beyond the limit of [`within`](crate::within), [`ConfirmError::TimedOut`] returns the
    /// confirm, to be waited for again.
    pub fn wait(mut self) -> Result<(), ConfirmError> {
        match wait_unless_ready(&mut self.0) {
            Ok(result) => Ok(result?),
            Err(_) => Err(ConfirmError::TimedOut(self)),
        }
    }
}

/// The error of [`Confirm::wait`].
#[derive(thiserror::Error, Debug)]
#[non_exhaustive]
pub enum ConfirmError {
    /// The server has rejected the message, or will not confirm it.
    #[error(transparent)]
    Unconfirmed(#[from] Unconfirmed),
    /// The confirm is still outstanding, and can be waited for again.
    #[error("the server did not confirm the message in time")]
    TimedOut(Confirm),
}

/// The messages of a queue, as an iterator. It ends after an error with the reason, or without one
/// after [`cancel`](Self::cancel) or a close by this side. [`Error::TimedOut`], beyond the limit of
/// [`within`](crate::within), does not end it.
///
/// Wraps [`amqp_driver::Consumer`].
#[derive(Debug, RefCast)]
#[repr(transparent)]
pub struct Consumer<A: Acks>(amqp_driver::Consumer<A>);

impl<A: Acks> Consumer<A> {
    /// Cancels the consumer. Messages delivered before are still yielded.
    ///
    /// # Errors
    /// As [`amqp_driver::Consumer::cancel`]; [`Error::TimedOut`] also beyond the limit of
    /// [`within`](crate::within).
    pub fn cancel(&mut self) -> Result<(), Error> {
        wait(self.0.cancel())?
    }

    /// The asynchronous handle.
    #[must_use]
    pub const fn as_async(&self) -> &amqp_driver::Consumer<A> {
        &self.0
    }

    /// The asynchronous handle.
    #[must_use]
    pub fn into_async(self) -> amqp_driver::Consumer<A> {
        self.0
    }
}

impl<A: Acks> From<amqp_driver::Consumer<A>> for Consumer<A> {
    fn from(handle: amqp_driver::Consumer<A>) -> Self {
        Self(handle)
    }
}

impl<A: Acks> Consumer<A> {
    /// The consumer tag.
    #[must_use]
    pub const fn tag(&self) -> &ShortStr {
        self.0.tag()
    }
}

impl<A: Acks, T> Iterator for Consumer<A>
where
    amqp_driver::Consumer<A>: Stream<Item = Result<T, Error>> + Unpin,
{
    type Item = Result<T, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        let is_at_hand = self.0.has_next();
        let message = poll_fn(|cx| Pin::new(&mut self.0).poll_next(cx));
        let message = if is_at_hand {
            wait_unless_ready(message)
        } else {
            wait(message)
        };
        message.unwrap_or_else(|error| Some(Err(error)))
    }
}

/// The returned messages of a channel without confirms (section 1.8.3.8 of the protocol reference),
/// as an iterator. It ends with the channel, and [`error`](amqp_driver::Returns::error) returns the
/// reason. Beyond the limit of [`within`](crate::within) `next` also returns `None`, which does not
/// end the iterator.
///
/// Wraps [`amqp_driver::Returns`].
#[derive(Debug, RefCast)]
#[repr(transparent)]
pub struct Returns(amqp_driver::Returns);

impl Returns {
    /// The asynchronous handle.
    #[must_use]
    pub const fn as_async(&self) -> &amqp_driver::Returns {
        &self.0
    }

    /// The asynchronous handle.
    #[must_use]
    pub fn into_async(self) -> amqp_driver::Returns {
        self.0
    }
}

impl From<amqp_driver::Returns> for Returns {
    fn from(handle: amqp_driver::Returns) -> Self {
        Self(handle)
    }
}

impl Iterator for Returns {
    type Item = ReturnedMessage;

    fn next(&mut self) -> Option<ReturnedMessage> {
        wait(self.0.next()).ok().flatten()
    }
}

impl Deref for Returns {
    type Target = amqp_driver::Returns;

    fn deref(&self) -> &amqp_driver::Returns {
        &self.0
    }
}
