//! The programs of the worlds.

use std::{error::Error, time::Duration};

use amqp_sim::{
    amqp_driver::{
        self, ConfirmChannel, Connection, Connector, ConsumeOptions, Requeue,
        arguments::Queue,
        core::client::Prefetch,
        protocol::basic::{Consume, Properties, Publish},
        publishing::{Outcome, OutgoingMessage, Publisher, PublisherOptions, Republish},
        recovery::{RecoveryEvent, RecoveryEvents},
    },
    oracle::{Ledger, MessageId, Settlement},
};

pub(crate) type Result<T = ()> = std::result::Result<T, Box<dyn Error>>;

/// Opens a channel, and declares a queue, as often as it takes.
pub(crate) async fn open(
    connector: &Connector,
    connection: &Connection,
    queue: &str,
) -> Result<amqp_driver::Channel> {
    loop {
        match try_open(connection, queue).await {
            Ok(channel) => return Ok(channel),
            // A request that was in flight at a loss, or that a stopping node refused.
            Err(error) if connection.close_reason().is_none() => {
                let _why = error;
                connector.sleep(Duration::from_millis(100)).await;
            }
            Err(error) => return Err(error),
        }
    }
}

async fn try_open(connection: &Connection, queue: &str) -> Result<amqp_driver::Channel> {
    let channel = connection.open_channel().await?;
    channel.call(Queue::classic(queue).declare()?).await?;
    Ok(channel)
}

pub(crate) async fn open_confirming(
    connector: &Connector,
    connection: &Connection,
    queue: &str,
) -> Result<ConfirmChannel> {
    loop {
        let channel = open(connector, connection, queue).await?;
        match channel.confirm_select().await {
            Ok(channel) => return Ok(channel),
            Err(error) if connection.close_reason().is_some() => return Err(error.into()),
            Err(_) => connector.sleep(Duration::from_millis(100)).await,
        }
    }
}

/// A body that names a message, padded to a size.
pub(crate) fn body(message: MessageId, size: usize) -> String {
    format!("{message:.<size$}")
}

/// The losses of a connection so far.
pub(crate) struct Losses(RecoveryEvents, u64);

impl Losses {
    pub(crate) fn of(connection: &Connection) -> Self {
        Self(connection.recovery_events(), 0)
    }

    pub(crate) fn count(&mut self) -> u64 {
        while let Some(change) = self.0.try_next() {
            self.1 += u64::from(matches!(change.event, RecoveryEvent::Lost(_)));
        }
        self.1
    }
}

/// Publishes messages with confirms, several in flight, and enters the outcome of each.
pub(crate) async fn publish_confirmed(
    connector: Connector,
    ledger: Ledger,
    name: String,
    queue: &'static str,
    count: usize,
    size: usize,
) -> Result {
    let connection = connector.connect().await?;
    let mut losses = Losses::of(&connection);
    let mut left = count;
    let mut lives = 0;
    while left > 0 {
        let channel = open_confirming(&connector, &connection, queue).await?;
        // Messages of one channel arrive in order, those of several channels need not.
        lives += 1;
        let publisher = format!("{name}/{lives}");
        while left > 0 {
            let burst = left.min(5);
            let mut confirms = Vec::new();
            for _ in 0..burst {
                left -= 1;
                let message = ledger.publish(&publisher, queue);
                let publish = Publish::default().routing_key(queue);
                let persistent = Properties::default().persistent();
                match channel
                    .publish(&publish, &persistent, body(message, size))
                    .await
                {
                    Ok(confirm) => {
                        ledger.accepted(message, losses.count());
                        confirms.push((message, confirm));
                    }
                    Err(_) => ledger.settle(message, Settlement::NotSent),
                }
            }
            for (message, confirm) in confirms {
                ledger.settle(message, Settlement::from(&confirm.await));
            }
            if channel.close_reason().is_some() {
                break;
            }
            connector.sleep(Duration::from_millis(700)).await;
        }
    }
    // The close is cut, too.
    let _closed = connection.close().await;
    Ok(())
}

/// Publishes messages that are published again after a loss.
pub(crate) async fn republish(
    connector: Connector,
    ledger: Ledger,
    name: String,
    queue: &'static str,
    count: usize,
) -> Result {
    let connection = connector.connect().await?;
    let mut left = count;
    while left > 0 {
        let channel = open_confirming(&connector, &connection, queue).await?;
        let prefix = format!("{name}-{left}-");
        let options = PublisherOptions::default().republish(Republish::new(&prefix)?);
        let publisher = Publisher::new(channel, options);
        while left > 0 {
            let mut receipts = Vec::new();
            for _ in 0..left.min(4) {
                left -= 1;
                let message = ledger.publish_at_least_once(&name, queue);
                let publish = Publish::default().routing_key(queue);
                let outgoing = OutgoingMessage::new(publish, body(message, 0))
                    .properties(Properties::default().persistent());
                receipts.push((message, publisher.publish(outgoing).await));
            }
            let mut is_closed = false;
            for (message, receipt) in receipts {
                let outcome: Outcome = receipt.await;
                ledger.settle(message, Settlement::from(&outcome));
                is_closed |= publisher.channel().close_reason().is_some();
            }
            if is_closed {
                break;
            }
            connector.sleep(Duration::from_millis(900)).await;
        }
    }
    let _closed = connection.close().await;
    Ok(())
}

/// Consumes for ever: acknowledges most messages, requeues some.
pub(crate) async fn consume(
    connector: Connector,
    ledger: Ledger,
    name: String,
    queue: &'static str,
    requeue_one_in: usize,
) -> Result {
    let connection = connector.connect().await?;
    let mut count = 0;
    let mut lives = 0;
    loop {
        let channel = open(&connector, &connection, queue).await?;
        let options = ConsumeOptions::default().prefetch(Prefetch::Count(10));
        let consume = Consume::default().queue(queue);
        let Ok(mut consumer) = channel.consume_with(consume, options).await else {
            connector.sleep(Duration::from_millis(100)).await;
            continue;
        };
        lives += 1;
        let label = format!("{name}/{lives}");
        while let Some(Ok(delivery)) = consumer.next().await {
            let message = MessageId::of(&delivery.body)?;
            ledger.deliver(&label, queue, message, delivery.method.redelivered);
            count += 1;
            if requeue_one_in > 0 && count % requeue_one_in == 0 {
                // One of an earlier life is requeued by the server.
                let _stale = delivery.nack(Requeue::Yes);
                continue;
            }
            if delivery.ack().is_ok() {
                ledger.done(message);
            }
        }
        if let Some(reason) = connection.close_reason() {
            return Err(reason.to_string().into());
        }
    }
}
