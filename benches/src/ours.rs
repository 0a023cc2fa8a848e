//! `amqp-tokio`, used as its documentation shows.

use std::collections::VecDeque;

use amqp_tokio::protocol::{basic, queue};
use amqp_tokio::{BaseChannel, Channel, Connection};

use crate::clock::{Sample, Stopwatch};
use crate::load::{ACK_EVERY, BODY, IN_FLIGHT, check};
use crate::wire::{CONSUMER_TAG, ROUTING_KEY};
use crate::{Result, sink};

/// A connection with channels.
pub(crate) async fn open(port: u16, channels: u16) -> Result<(Connection, Vec<Channel>)> {
    let connection = amqp_tokio::connect(&format!("amqp://127.0.0.1:{port}")).await?;
    let mut opened = Vec::new();
    for _ in 0..channels {
        opened.push(connection.open_channel().await?);
    }
    Ok((connection, opened))
}

/// Publishes one message after the other, over the channels in turn.
pub(crate) async fn publish(port: u16, channels: u16, count: u64) -> Result<Sample> {
    let (connection, channels) = open(port, channels).await?;
    let watch = Stopwatch::start();
    publish_on(&channels, count).await?;
    finish(&connection, &channels[0], watch, count).await
}

/// Publishes one message after the other, and waits for the oldest confirm when many are due.
pub(crate) async fn publish_confirmed(port: u16, count: u64) -> Result<Sample> {
    let (connection, _) = open(port, 0).await?;
    let channel = connection.open_channel().await?.confirm_select().await?;
    let publish = basic::Publish::default().routing_key(ROUTING_KEY);
    let properties = basic::Properties::default();
    let watch = Stopwatch::start();
    let mut in_flight = VecDeque::new();
    for _ in 0..count {
        if in_flight.len() >= IN_FLIGHT
            && let Some(oldest) = in_flight.pop_front()
        {
            oldest.await?;
        }
        in_flight.push_back(channel.publish(&publish, &properties, &BODY).await?);
    }
    for confirm in in_flight {
        confirm.await?;
    }
    finish(&connection, &channel, watch, count).await
}

/// A connection with channels, at rest after messages have passed in both directions.
pub(crate) async fn open_used(port: u16, channels: u16) -> Result<(Connection, Vec<Channel>)> {
    const COUNT: u64 = 20_000;
    let (connection, channels) = open(port, channels.max(1)).await?;
    publish_on(&channels, COUNT).await?;
    consume_on(&channels[0], COUNT).await?;
    Ok((connection, channels))
}

async fn publish_on(channels: &[Channel], count: u64) -> Result<()> {
    let publish = basic::Publish::default().routing_key(ROUTING_KEY);
    let properties = basic::Properties::default();
    for (_, channel) in (0..count).zip(channels.iter().cycle()) {
        channel.publish(&publish, &properties, &BODY).await?;
    }
    Ok(())
}

async fn consume_on(channel: &Channel, count: u64) -> Result<()> {
    let consume = basic::Consume::default()
        .queue(sink::blast_queue(count, BODY.len(), 1))
        .consumer_tag(CONSUMER_TAG);
    let mut consumer = channel.consume(consume).await?;
    for number in 1..=count {
        let delivery = consumer.next().await.ok_or("the consumer ended")??;
        if number % ACK_EVERY == 0 {
            delivery.acker.ack_up_to()?;
        }
    }
    Ok(())
}

/// Waits until everything has arrived.
async fn finish(
    connection: &Connection,
    channel: &BaseChannel,
    watch: Stopwatch,
    count: u64,
) -> Result<Sample> {
    let mut arrived = 0;
    while arrived < count {
        arrived = counts(channel).await?.0;
    }
    let sample = watch.stop(count);
    check("messages", arrived, count)?;
    connection.close().await?;
    Ok(sample)
}

/// How many publishes and acknowledgements the server has counted.
async fn counts(channel: &BaseChannel) -> Result<(u64, u64)> {
    let declare = queue::Declare::default().queue(ROUTING_KEY).passive(true);
    let answer = channel.call(declare).await?;
    Ok((answer.message_count.into(), answer.consumer_count.into()))
}

/// Receives messages on the first channel, while the others are idle.
pub(crate) async fn consume(port: u16, channels: u16, count: u64) -> Result<Sample> {
    let (connection, channels) = open(port, channels).await?;
    let watch = Stopwatch::start();
    consume_on(&channels[0], count).await?;
    let (_, acks) = counts(&channels[0]).await?;
    let sample = watch.stop(count);
    check("acknowledgements", acks, count / ACK_EVERY)?;
    connection.close().await?;
    Ok(sample)
}
