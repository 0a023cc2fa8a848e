//! The handles, with calls that block.

use std::{
    future::{Future, poll_fn},
    ops::Deref,
    pin::Pin,
};

use amqp_core::{ClientSent, PropertyList, PublishSeq, Request};
use futures_core::Stream;
use ref_cast::RefCast;

use super::wait;
use crate::{
    Acks, Body, CloseReason, ConsumeOptions, Error, Fetched, ManualAck, NoAck, ReturnedMessage,
    TryPublishError, Unconfirmed,
    protocol::basic,
    wire::{Secret, ShortStr},
};

/// A handle around its asynchronous namesake, with methods that block until the namesake's of the
/// same name is done.
macro_rules! handle {
    (
        $(#[$about:meta])*
        $handle:ident $([$acks:ident])? {
            $(
                $(#[$says:meta])*
                $method:ident $([$($generics:tt)*])?
                ($this:ident: $receiver:ty $(, $name:ident: $type:ty)*) -> $result:ty;
            )*
        }
    ) => {
        $(#[$about])*
        ///
        #[doc = concat!("See [`crate::", stringify!($handle), "`].")]
        #[derive(Debug, RefCast)]
        #[repr(transparent)]
        pub struct $handle $(<$acks: Acks>)? (crate::$handle $(<$acks>)?);

        impl $(<$acks: Acks>)? $handle $(<$acks>)? {
            $(
                $(#[$says])*
                ///
                /// # Errors
                #[doc = concat!(
                    "As [`crate::", stringify!($handle), "::", stringify!($method), "`]; ",
                    "[`Error::TimedOut`] also beyond the limit of [`within`](super::within)."
                )]
                pub fn $method $(<$($generics)*>)? ($this: $receiver $(, $name: $type)*)
                    -> Result<$result, Error>
                {
                    Ok(wait($this.0.$method($($name),*))??.into())
                }
            )*

            /// The asynchronous handle.
            pub const fn as_async(&self) -> &crate::$handle $(<$acks>)? {
                &self.0
            }

            /// The asynchronous handle.
            pub fn into_async(self) -> crate::$handle $(<$acks>)? {
                self.0
            }
        }

        impl $(<$acks: Acks>)? From<crate::$handle $(<$acks>)?> for $handle $(<$acks>)? {
            fn from(handle: crate::$handle $(<$acks>)?) -> Self {
                Self(handle)
            }
        }
    };
}

/// What one handle can do, another one can too.
macro_rules! deref {
    ($($handle:ident => $target:ty, |$this:ident| $deref:expr;)*) => {
        $(
            impl Deref for $handle {
                type Target = $target;

                fn deref(&self) -> &$target {
                    let $this = self;
                    $deref
                }
            }
        )*
    };
}

handle! {
    /// A connection to a server. It can be cloned, and used by any number of threads.
    #[derive(Clone)]
    Connection {
        /// Waits until the handshake is over.
        opened(self: &Self) -> ();
        /// Opens a channel.
        open_channel(self: &Self) -> Channel;
        /// A pool of channels, all opened at once.
        channel_pool(self: &Self, size: usize) -> ChannelPool;
        /// Runs an asynchronous `body` on this thread, and drops it with the reason when the
        /// connection ends.
        scope[T](self: &Self, body: impl Future<Output = T>) -> T;
        /// Gives the server a new secret, such as an OAuth 2 token, before the old one expires.
        update_secret(self: &Self, secret: Secret, reason: ShortStr) -> ();
        /// Waits until all that was accepted before was handed to the system.
        flush(self: &Self) -> ();
        /// Closes the connection. What was accepted before is sent first.
        close(self: &Self) -> ();
    }
}

impl Connection {
    /// Waits until the connection has ended, and tells why.
    ///
    /// # Errors
    /// [`Error::TimedOut`] beyond the limit of [`within`](super::within).
    pub fn closed(&self) -> Result<CloseReason, Error> {
        wait(self.0.closed())
    }
}

handle! {
    /// What every channel can do, whatever its mode: requests, consuming, fetching, acknowledging. It
    /// can be cloned, and used from any number of threads.
    #[derive(Clone)]
    BaseChannel {
        /// Sends a request and waits for its answer.
        call[R: Request + ClientSent](self: &Self, request: R) -> R::Reply;
        /// Starts a consumer, whose messages are to be acknowledged.
        consume(self: &Self, consume: basic::Consume) -> Consumer<ManualAck>;
        /// Starts a consumer with a prefetch and a drop policy of its own.
        consume_with(self: &Self, consume: basic::Consume, options: ConsumeOptions)
            -> Consumer<ManualAck>;
        /// Starts a consumer, whose messages count as acknowledged when they are sent.
        consume_no_ack(self: &Self, consume: basic::Consume) -> Consumer<NoAck>;
        /// Fetches one message; none if the queue is empty.
        get(self: &Self, get: basic::Get) -> Option<Fetched>;
        /// Closes the channel. What was accepted before is sent first.
        close(self: &Self) -> ();
    }
}

impl BaseChannel {
    /// The connection that the channel belongs to.
    #[must_use]
    pub fn connection(&self) -> &Connection {
        Connection::ref_cast(self.0.connection())
    }

    /// Listens to mandatory messages that no queue takes; see [`crate::BaseChannel::returns`].
    #[must_use]
    pub fn returns(&self) -> Returns {
        self.0.returns().into()
    }
}

handle! {
    /// A channel whose publishes are not confirmed. It can be cloned.
    #[derive(Clone)]
    Channel {
        /// Publishes a message. It blocks only while the output buffer is full, or the server holds
        /// publishing back.
        publish[P: PropertyList](
            self: &Self,
            publish: &basic::Publish,
            properties: &P,
            body: impl Into<Body>
        ) -> ();
        /// Puts the channel into confirm mode.
        confirm_select(self: Self) -> ConfirmChannel;
        /// Makes the channel transactional.
        tx_select(self: Self) -> TxChannel;
    }
}

handle! {
    /// A channel in confirm mode: the server tells of each publish whether it has taken it. It can be
    /// cloned.
    #[derive(Clone)]
    ConfirmChannel {
        /// Publishes a message, and gives back its [`Confirm`]. It blocks only while the output
        /// buffer is full, or the server holds publishing back.
        publish[P: PropertyList](
            self: &Self,
            publish: &basic::Publish,
            properties: &P,
            body: impl Into<Body>
        ) -> Confirm;
    }
}

impl ConfirmChannel {
    /// Publishes a message if there is room for it now, and gives back its [`Confirm`].
    ///
    /// # Errors
    /// As [`crate::ConfirmChannel::try_publish`].
    pub fn try_publish<P: PropertyList>(
        &self,
        publish: &basic::Publish,
        properties: &P,
        body: impl Into<Body>,
    ) -> Result<Confirm, TryPublishError> {
        Ok(self.0.try_publish(publish, properties, body)?.into())
    }
}

handle! {
    /// A transactional channel. It can be cloned.
    #[derive(Clone)]
    TxChannel {
        /// Publishes a message, which takes effect when it is committed. It blocks only while the
        /// output buffer is full, or the server holds publishing back.
        publish[P: PropertyList](
            self: &Self,
            publish: &basic::Publish,
            properties: &P,
            body: impl Into<Body>
        ) -> ();
        /// Makes everything since the last commit or rollback take effect.
        commit(self: &Self) -> ();
        /// Takes back everything since the last commit or rollback.
        rollback(self: &Self) -> ();
    }
}

handle! {
    /// A number of channels, each used by one thread at a time.
    #[derive(Clone)]
    ChannelPool {
        /// Takes a channel out, waiting for one if none is idle. Dropping it puts it back.
        checkout(self: &Self) -> PooledChannel;
    }
}

handle! {
    /// A channel that was taken out of a [`ChannelPool`]. Dropping it puts it back.
    PooledChannel {}
}

handle! {
    /// What becomes of a publish, once the server has told.
    #[must_use = "a publish is confirmed only when this says so"]
    Confirm {}
}

impl Confirm {
    /// The number of the publish on its channel, from 1.
    #[must_use]
    pub const fn seq(&self) -> Option<PublishSeq> {
        self.0.seq()
    }

    /// Waits until the server has told.
    ///
    /// # Errors
    /// When the server has not taken the message, or it is not known whether it has. Beyond the limit
    /// of [`within`](super::within) it can be waited for once more.
    pub fn wait(mut self) -> Result<(), ConfirmError> {
        match wait(&mut self.0) {
            Ok(told) => Ok(told?),
            Err(_) => Err(ConfirmError::TimedOut(self)),
        }
    }
}

/// Why [`Confirm::wait`] does not say that the server has the message.
#[derive(thiserror::Error, Debug)]
#[non_exhaustive]
pub enum ConfirmError {
    /// The server has told, or will not.
    #[error(transparent)]
    Unconfirmed(#[from] Unconfirmed),
    /// It has not told yet: to wait for it once more.
    #[error("the server did not confirm the message in time")]
    TimedOut(Confirm),
}

handle! {
    /// The messages of a queue, as an iterator. It ends after an error that tells why, or without one
    /// when it was cancelled or closed by this side. [`Error::TimedOut`], beyond the limit of
    /// [`within`](super::within), does not end it.
    Consumer[A] {
        /// Cancels the consumer. What was delivered before is still yielded.
        cancel(self: &mut Self) -> ();
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
    crate::Consumer<A>: Stream<Item = Result<T, Error>> + Unpin,
{
    type Item = Result<T, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        let message = poll_fn(|cx| Pin::new(&mut self.0).poll_next(cx));
        wait(message).unwrap_or_else(|error| Some(Err(error)))
    }
}

handle! {
    /// The messages that come back on a channel without confirms, as an iterator. It ends with the
    /// channel, and [`error`](crate::Returns::error) tells why. There is also none beyond the
    /// limit of [`within`](super::within), which does not end it.
    Returns {}
}

impl Iterator for Returns {
    type Item = ReturnedMessage;

    fn next(&mut self) -> Option<ReturnedMessage> {
        wait(self.0.next()).ok().flatten()
    }
}

deref! {
    Connection => crate::Connection, |this| &this.0;
    BaseChannel => crate::BaseChannel, |this| &this.0;
    Channel => BaseChannel, |this| BaseChannel::ref_cast(&this.0);
    ConfirmChannel => BaseChannel, |this| BaseChannel::ref_cast(&this.0);
    TxChannel => BaseChannel, |this| BaseChannel::ref_cast(&this.0);
    ChannelPool => crate::ChannelPool, |this| &this.0;
    PooledChannel => ConfirmChannel, |this| ConfirmChannel::ref_cast(&this.0);
    Returns => crate::Returns, |this| &this.0;
}
