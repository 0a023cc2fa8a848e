//! The settings of a loop over deliveries.

use std::{
    fmt,
    hash::{DefaultHasher, Hash, Hasher},
    time::Duration,
};

use amqp_core::Requeue;

use super::{end::Failure, retry::Retry};
use crate::{confirm::ConfirmChannel, consumer::Message};

/// The end of a message after its body has failed or panicked.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum OnFailure {
    /// Requeues it: the server redelivers it at once. A quorum queue drops or dead-letters it beyond
    /// its delivery limit ([RabbitMQ's
    /// page](https://www.rabbitmq.com/docs/quorum-queues#poison-message-handling)).
    Requeue,
    /// Rejects it: the server dead-letters it if the queue has a dead-letter exchange, and drops it
    /// otherwise ([RabbitMQ's page](https://www.rabbitmq.com/docs/dlx)).
    Reject,
    /// Redelivers it after a delay, a limited number of times, and then rejects it.
    Retry(Retry),
    /// Requeues or rejects it, and ends the consumer with
    /// [`EndReason::Failed`](crate::EndReason::Failed). Buffered deliveries are requeued, and bodies
    /// that run are waited for. The channel stays open.
    End(Requeue),
}

/// The treatment of deliveries that are buffered when a loop is drained.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Buffered {
    /// Requeues them: the server redelivers them to other consumers.
    #[default]
    Requeue,
    /// Calls the body for them.
    HandOut,
}

/// The settings of [`for_each_concurrent`](crate::Consumer::for_each_concurrent). `E` is the error
/// of the body.
///
/// ```
/// use amqp_driver::{Failure, ForEachOptions, OnFailure};
/// use std::time::Duration;
///
/// let options = ForEachOptions::new(OnFailure::Requeue)
///     .order_by(|message| message.method.routing_key.clone())
///     .batch_acks(64, Duration::from_millis(50));
/// # let _: ForEachOptions<std::io::Error> = options;
/// # let _: ForEachOptions<std::io::Error> =
/// ForEachOptions::choosing(|failure| match failure {
///     Failure::Error(_) => OnFailure::Requeue,
///     Failure::Panicked(_) => OnFailure::Reject,
/// });
/// ```
pub struct ForEachOptions<E> {
    pub(super) policy: Policy<E>,
    pub(super) key: Option<Key>,
    pub(super) batch: Option<(usize, Duration)>,
    pub(super) buffered: Buffered,
    pub(super) publisher: Option<ConfirmChannel>,
}

/// Computes the hash of a message's key.
pub(super) type Key = Box<dyn Fn(&Message) -> u64 + Send + Sync>;

/// Chooses the treatment of a failure.
type Choice<E> = Box<dyn Fn(&Failure<E>) -> OnFailure + Send + Sync>;

pub(super) enum Policy<E> {
    Always(OnFailure),
    Chosen(Choice<E>),
}

impl<E> Policy<E> {
    pub(super) fn choose(&self, failure: &Failure<E>) -> OnFailure {
        match self {
            Self::Always(on_failure) => on_failure.clone(),
            Self::Chosen(choose) => choose(failure),
        }
    }

    /// Whether a message may be needed after its body has got it.
    pub(super) const fn may_retry(&self) -> bool {
        matches!(self, Self::Always(OnFailure::Retry(_)) | Self::Chosen(_))
    }
}

impl<E> ForEachOptions<E> {
    /// Treats each failure in the same way.
    #[must_use]
    pub fn new(on_failure: OnFailure) -> Self {
        Self::with(Policy::Always(on_failure))
    }

    /// Treats a failure as `choose` says.
    #[must_use]
    pub fn choosing(choose: impl Fn(&Failure<E>) -> OnFailure + Send + Sync + 'static) -> Self {
        Self::with(Policy::Chosen(Box::new(choose)))
    }

    fn with(policy: Policy<E>) -> Self {
        Self {
            policy,
            key: None,
            batch: None,
            buffered: Buffered::default(),
            publisher: None,
        }
    }

    /// Runs the bodies of messages with the same key one after the other, in the order of their
    /// delivery. Default: no order.
    ///
    /// A message that is requeued or retried loses its place. Messages wait for their key on this
    /// side, at most four times the limit of bodies, and as many bytes as
    /// [`Limits::undelivered`](amqp_core::Limits) has. Keys are compared by a hash of 64 bits.
    #[must_use]
    pub fn order_by<K: Hash>(
        mut self,
        key: impl Fn(&Message) -> K + Send + Sync + 'static,
    ) -> Self {
        self.key = Some(Box::new(move |message| {
            let mut hasher = DefaultHasher::new();
            key(message).hash(&mut hasher);
            hasher.finish()
        }));
        self
    }

    /// Merges acknowledgements with a [`BatchAcker`](crate::BatchAcker). Default: each is sent at
    /// once.
    #[must_use]
    pub const fn batch_acks(mut self, count: usize, delay: Duration) -> Self {
        self.batch = Some((count, delay));
        self
    }

    /// Sets the treatment of buffered deliveries by a [drain](crate::Stopper::drain).
    #[must_use]
    pub const fn on_drain(mut self, buffered: Buffered) -> Self {
        self.buffered = buffered;
        self
    }

    /// Sets the channel on which bodies publish: a [drain](crate::Stopper::drain) waits for its
    /// confirms. Default: none.
    ///
    /// Publishes that a recovery of the channel has interrupted are not awaited, as their confirms
    /// will not come. For those of a [`Publisher`](crate::publishing::Publisher) that publishes them
    /// again, await its [`settled`](crate::publishing::Publisher::settled) after the drain.
    #[must_use]
    pub fn publisher(mut self, channel: &ConfirmChannel) -> Self {
        self.publisher = Some(channel.clone());
        self
    }
}

impl<E> fmt::Debug for ForEachOptions<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let policy: &dyn fmt::Debug = match &self.policy {
            Policy::Always(on_failure) => on_failure,
            Policy::Chosen(_) => &"chosen",
        };
        f.debug_struct("ForEachOptions")
            .field("policy", policy)
            .field("ordered", &self.key.is_some())
            .field("batch", &self.batch)
            .field("buffered", &self.buffered)
            .finish_non_exhaustive()
    }
}
