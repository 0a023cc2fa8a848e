//! [lapin](https://crates.io/crates/lapin), the client that most people use.

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use lapin::options::{
    BasicAckOptions, BasicConsumeOptions, BasicPublishOptions, QueueDeclareOptions,
};
use lapin::types::FieldTable;
use lapin::{BasicProperties, Channel, Connection, ConnectionProperties};

use crate::clock::{Sample, Stopwatch};
use crate::load::{ACK_EVERY, BODY, IN_FLIGHT, check};
use crate::wire::{CONSUMER_TAG, ROUTING_KEY};
use crate::{Result, sink};

/// A connection with channels.
pub(crate) async fn open(port: u16, channels: u16) -> Result<(Connection, Vec<Channel>)> {
    let uri = format!("amqp://127.0.0.1:{port}/%2f");
    let connection = Connection::connect(&uri, ConnectionProperties::default()).await?;
    let mut opened = Vec::new();
    for _ in 0..channels {
        opened.push(connection.create_channel().await?);
    }
    Ok((connection, opened))
}

/// Publishes one message after the other, over the channels in turn.
pub(crate) async fn publish(port: u16, channels: u16, count: u64) -> Result<Sample> {
    let (connection, channels) = open(port, channels).await?;
    let watch = Stopwatch::start();
    for (_, channel) in (0..count).zip(channels.iter().cycle()) {
        publish_one(channel).await?;
    }
    finish(&connection, &channels[0], watch, count).await
}

/// Publishes with many messages in flight, over the channels in turn.
pub(crate) async fn publish_in_flight(port: u16, channels: u16, count: u64) -> Result<Sample> {
    let (connection, channels) = open(port, channels).await?;
    let watch = Stopwatch::start();
    let mut in_flight = FuturesUnordered::new();
    for (_, channel) in (0..count).zip(channels.iter().cycle()) {
        if in_flight.len() >= IN_FLIGHT {
            in_flight.next().await.transpose()?;
        }
        in_flight.push(publish_one(channel));
    }
    while in_flight.next().await.transpose()?.is_some() {}
    drop(in_flight);
    finish(&connection, &channels[0], watch, count).await
}

async fn publish_one(channel: &Channel) -> lapin::Result<()> {
    let options = BasicPublishOptions::default();
    let properties = BasicProperties::default();
    channel
        .basic_publish("".into(), ROUTING_KEY.into(), options, &BODY, properties)
        .await?;
    Ok(())
}

/// Waits until everything has arrived.
async fn finish(
    connection: &Connection,
    channel: &Channel,
    watch: Stopwatch,
    count: u64,
) -> Result<Sample> {
    let mut arrived = 0;
    while arrived < count {
        arrived = counts(channel).await?.0;
    }
    let sample = watch.stop(count);
    check("messages", arrived, count)?;
    connection.close(200, "".into()).await?;
    Ok(sample)
}

/// How many publishes and acknowledgements the server has counted.
async fn counts(channel: &Channel) -> Result<(u64, u64)> {
    let options = QueueDeclareOptions {
        passive: true,
        ..QueueDeclareOptions::default()
    };
    let queue = channel
        .queue_declare(ROUTING_KEY.into(), options, FieldTable::default())
        .await?;
    Ok((queue.message_count().into(), queue.consumer_count().into()))
}

/// Receives messages on the first channel, while the others are idle.
pub(crate) async fn consume(port: u16, channels: u16, count: u64) -> Result<Sample> {
    let (connection, channels) = open(port, channels).await?;
    let queue = sink::blast_queue(count, BODY.len(), 1);
    let watch = Stopwatch::start();
    let mut consumer = channels[0]
        .basic_consume(
            queue.into(),
            CONSUMER_TAG.into(),
            BasicConsumeOptions::default(),
            FieldTable::default(),
        )
        .await?;
    for number in 1..=count {
        let delivery = consumer.next().await.ok_or("the consumer ended")??;
        if number % ACK_EVERY == 0 {
            delivery.acker.ack(BasicAckOptions { multiple: true }).await?;
        }
    }
    let (_, acks) = counts(&channels[0]).await?;
    let sample = watch.stop(count);
    check("acknowledgements", acks, count / ACK_EVERY)?;
    connection.close(200, "".into()).await?;
    Ok(sample)
}
