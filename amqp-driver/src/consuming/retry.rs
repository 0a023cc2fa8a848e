//! Redelivery after a delay.

use std::{mem, sync::Arc, time::Duration};

use amqp_core::{
    arguments::ArgumentError,
    protocol::{basic, queue},
    wire::{FieldTable, FieldValue, ShortStr},
};

use crate::{confirm::ConfirmChannel, consumer::Message, error::Error};

/// The header with the number of retries of a message.
const RETRIES: &str = "x-retries";
/// The headers with the exchange and the routing key of the first delivery, which the delay queue
/// replaces.
const EXCHANGE: &str = "x-original-exchange";
const ROUTING_KEY: &str = "x-original-routing-key";

/// The argument with the delay, and its maximum: ten years of 365 days, in milliseconds
/// (<https://www.rabbitmq.com/docs/ttl>).
const TTL: &str = "x-message-ttl";
const TTL_MAX: i64 = 10 * 365 * 24 * 60 * 60 * 1000;

/// Redelivers messages after a delay, a limited number of times.
///
/// A copy of the message waits in a delay queue. It expires after the delay and is
/// dead-lettered to the original queue ([RabbitMQ's page](https://www.rabbitmq.com/docs/dlx)). It is
/// confirmed before the original is acknowledged: a fault in between doubles the message. If it
/// cannot be published, the original is requeued.
///
/// The way back is as safe as the delay queue makes it: RabbitMQ dead-letters without confirms, so
/// that a copy may be lost if the original queue is not available then. A quorum queue with the
/// [at-least-once
/// strategy](https://www.rabbitmq.com/docs/quorum-queues#dead-lettering) loses none; see
/// [`through`](Self::through).
///
/// The header `x-retries` counts, as [`count`](Self::count) returns it. The copy arrives from the
/// default exchange with the name of the queue as its routing key; `x-original-exchange` and
/// `x-original-routing-key` have those of the first delivery. The copy is without `expiration`,
/// without `user_id`, which names another publisher, and without the headers `CC` and `x-death`,
/// which would route it elsewhere or drop it as a cycle.
///
/// ```no_run
/// use amqp_driver::{ForEachOptions, OnFailure, Retry, protocol::basic};
/// use std::{io, time::Duration};
///
/// # async fn example(connection: amqp_driver::Connection) -> Result<(), amqp_driver::Error> {
/// let publishing = connection.open_channel().await?.confirm_select().await?;
/// let retry = Retry::declare(&publishing, "jobs", Duration::from_secs(5), 3).await?;
///
/// let channel = connection.open_channel().await?;
/// let consumer = channel.consume(basic::Consume::default().queue("jobs")).await?;
/// let options = ForEachOptions::new(OnFailure::Retry(retry));
/// consumer
///     .for_each_concurrent(8, options, |message| async move {
///         println!("{:?}", message.body);
///         Ok::<_, io::Error>(())
///     })
///     .await;
/// # Ok(()) }
/// ```
#[derive(Clone, Debug)]
pub struct Retry(Arc<Delay>);

#[derive(Debug)]
struct Delay {
    channel: ConfirmChannel,
    queue: ShortStr,
    limit: u32,
}

/// The failure of a retry.
pub(super) enum NoRetry {
    /// The message has had all retries, or cannot be copied.
    Spent,
    /// The copy was not published, or it is not known whether it was.
    Unpublished,
}

impl Retry {
    /// Declares a durable delay queue for `queue`, named `QUEUE.retry.MILLISECONDS`, rounded up, and
    /// returns the retry through it, at most `limit` times for each message. Copies are published on `channel`,
    /// which may belong to another connection than the consumer.
    ///
    /// # Cancel safety
    /// Once polled, the queue is declared.
    ///
    /// # Errors
    /// As [`call`](crate::BaseChannel::call); [`Error::Misuse`] for a name that is too long, and a
    /// delay longer than ten years, which RabbitMQ refuses.
    pub async fn declare(
        channel: &ConfirmChannel,
        queue: &str,
        delay: Duration,
        limit: u32,
    ) -> Result<Self, Error> {
        let millis = millis(delay)?;
        let arguments = FieldTable::new()
            .with(TTL, millis)
            .with("x-dead-letter-exchange", "")
            .with("x-dead-letter-routing-key", queue);
        let name = ShortStr::try_from(format!("{queue}.retry.{millis}"))?;
        let declare = queue::Declare::default()
            .queue(name.clone())
            .durable(true)
            .arguments(arguments);
        channel.call(declare).await?;
        Ok(Self::through(channel, name, limit))
    }

    /// Returns the retry through a delay queue that exists, at most `limit` times for each message.
    #[must_use]
    pub fn through(channel: &ConfirmChannel, delay_queue: ShortStr, limit: u32) -> Self {
        Self(Arc::new(Delay {
            channel: channel.clone(),
            queue: delay_queue,
            limit,
        }))
    }

    /// The number of retries that a message has had.
    #[must_use]
    pub fn count(message: &Message) -> u32 {
        let properties = message.properties().ok();
        let headers = properties.and_then(|properties| properties.headers);
        headers.as_ref().map_or(0, retries)
    }

    /// Publishes a copy of a message to the delay queue, and waits for the confirm.
    pub(super) async fn publish(&self, message: Message) -> Result<(), NoRetry> {
        let delay = &self.0;
        let mut properties = message.properties().map_err(|_| NoRetry::Spent)?;
        let headers = properties.headers.get_or_insert_default();
        let count = retries(headers);
        if count >= delay.limit {
            return Err(NoRetry::Spent);
        }
        headers.remove("CC");
        headers.remove("x-death");
        let headers = marked(mem::take(headers), count, &message);
        properties.headers = Some(headers);
        properties.expiration = None;
        properties.user_id = None;
        let publish = basic::Publish {
            routing_key: delay.queue.clone(),
            mandatory: true,
            ..basic::Publish::default()
        };
        let published = delay.channel.publish(&publish, &properties, message.body);
        match published.await {
            Ok(confirm) => confirm.await.map_err(|_| NoRetry::Unpublished),
            // The message is too large with its header, and will be so again.
            Err(Error::Misuse(_)) => Err(NoRetry::Spent),
            Err(_) => Err(NoRetry::Unpublished),
        }
    }
}

/// The time to live of a copy, in milliseconds, rounded up.
fn millis(delay: Duration) -> Result<i64, ArgumentError> {
    let value = delay.as_nanos().div_ceil(1_000_000);
    let millis = i64::try_from(value).ok();
    millis
        .filter(|&millis| millis <= TTL_MAX)
        .ok_or(ArgumentError::OutOfRange {
            argument: TTL,
            value,
            min: 0,
            max: TTL_MAX.unsigned_abs(),
        })
}

/// The headers of the next retry.
fn marked(mut headers: FieldTable, count: u32, message: &Message) -> FieldTable {
    if count == 0 {
        headers = headers
            .with(EXCHANGE, &message.method.exchange)
            .with(ROUTING_KEY, &message.method.routing_key);
    }
    headers.with(RETRIES, i64::from(count) + 1)
}

fn retries(headers: &FieldTable) -> u32 {
    match headers.get(RETRIES) {
        Some(FieldValue::I64(count) | FieldValue::I64Alias(count)) => {
            u32::try_from(*count).unwrap_or(u32::MAX)
        }
        Some(FieldValue::I32(count)) => u32::try_from(*count).unwrap_or(u32::MAX),
        Some(FieldValue::U32(count)) => *count,
        _ => 0,
    }
}
