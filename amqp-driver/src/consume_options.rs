//! The options of a consumer.

use amqp_core::client::Prefetch;

/// The options of a consumer besides the arguments of `basic.consume`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ConsumeOptions {
    /// The number of messages that may be unacknowledged at a time. Default `None`: the last
    /// `basic.qos` of the channel, or else [`Config::prefetch`](crate::Config).
    pub prefetch: Option<Prefetch>,
    /// The treatment of a delivery that is dropped without an acknowledgement. Default
    /// [`OnDrop::Leave`].
    pub on_drop: OnDrop,
    /// Whether the stream yields [`Error::Interrupted`](crate::Error::Interrupted) between two
    /// messages when a recovery of the connection or the channel has interrupted it. It goes on
    /// afterwards. Each interruption is yielded in its place: several losses are one only if no
    /// message is between them, as those that need an acknowledgement are dropped with their
    /// connection. Default `false`.
    pub report_interruptions: bool,
}

impl ConsumeOptions {
    /// Sets [`prefetch`](Self::prefetch).
    #[doc(alias("qos", "basic_qos"))]
    #[must_use]
    pub const fn prefetch(mut self, prefetch: Prefetch) -> Self {
        self.prefetch = Some(prefetch);
        self
    }

    /// Sets [`on_drop`](Self::on_drop).
    #[must_use]
    pub const fn on_drop(mut self, on_drop: OnDrop) -> Self {
        self.on_drop = on_drop;
        self
    }

    /// Sets [`report_interruptions`](Self::report_interruptions).
    #[must_use]
    pub const fn report_interruptions(mut self, report_interruptions: bool) -> Self {
        self.report_interruptions = report_interruptions;
        self
    }
}

/// The treatment of a delivery that is dropped without an acknowledgement, as on an error path.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum OnDrop {
    /// Leaves it unacknowledged until the channel ends; it counts towards the prefetch.
    #[default]
    Leave,
    /// Requeues it: the server redelivers it.
    Requeue,
    /// Rejects it: the server dead-letters it if the queue has a dead-letter exchange, and drops it
    /// otherwise ([RabbitMQ's page](https://www.rabbitmq.com/docs/dlx)).
    Reject,
}
