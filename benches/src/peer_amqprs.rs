//! [amqprs](https://crates.io/crates/amqprs), the other client for tokio.

use amqprs::BasicProperties;
use amqprs::channel::{
    BasicAckArguments, BasicConsumeArguments, BasicPublishArguments, Channel, QueueDeclareArguments,
};
use amqprs::connection::{Connection, OpenConnectionArguments};

use crate::clock::{Sample, Stopwatch};
use crate::load::{ACK_EVERY, BODY, check};
use crate::wire::{CONSUMER_TAG, ROUTING_KEY};
use crate::{Result, sink};

/// A connection with channels.
pub(crate) async fn open(port: u16, channels: u16) -> Result<(Connection, Vec<Channel>)> {
    let arguments = OpenConnectionArguments::new("127.0.0.1", port, "guest", "guest");
    let connection = Connection::open(&arguments).await?;
    let mut opened = Vec::new();
    for _ in 0..channels {
        opened.push(connection.open_channel(None).await?);
    }
    Ok((connection, opened))
}

/// Publishes one message after the other, over the channels in turn.
pub(crate) async fn publish(port: u16, channels: u16, count: u64) -> Result<Sample> {
    let (connection, channels) = open(port, channels).await?;
    let watch = Stopwatch::start();
    for (_, channel) in (0..count).zip(channels.iter().cycle()) {
        let arguments = BasicPublishArguments::new("", ROUTING_KEY);
        channel
            .basic_publish(BasicProperties::default(), BODY.to_vec(), arguments)
            .await?;
    }
    let mut arrived = 0;
    while arrived < count {
        arrived = counts(&channels[0]).await?.0;
    }
    let sample = watch.stop(count);
    check("messages", arrived, count)?;
    close(connection, channels).await?;
    Ok(sample)
}

/// Receives messages on the first channel, while the others are idle.
pub(crate) async fn consume(port: u16, channels: u16, count: u64) -> Result<Sample> {
    let (connection, channels) = open(port, channels).await?;
    let queue = sink::blast_queue(count, BODY.len(), 1);
    let watch = Stopwatch::start();
    let arguments = BasicConsumeArguments::new(&queue, CONSUMER_TAG);
    let (_, mut messages) = channels[0].basic_consume_rx(arguments).await?;
    for number in 1..=count {
        let message = messages.recv().await.ok_or("the consumer ended")?;
        if number % ACK_EVERY == 0 {
            let tag = message.deliver.map_or(0, |deliver| deliver.delivery_tag());
            channels[0]
                .basic_ack(BasicAckArguments::new(tag, true))
                .await?;
        }
    }
    let (_, acks) = counts(&channels[0]).await?;
    let sample = watch.stop(count);
    check("acknowledgements", acks, count / ACK_EVERY)?;
    close(connection, channels).await?;
    Ok(sample)
}

/// How many publishes and acknowledgements the server has counted.
async fn counts(channel: &Channel) -> Result<(u64, u64)> {
    let arguments = QueueDeclareArguments::new(ROUTING_KEY)
        .passive(true)
        .finish();
    let answer = channel.queue_declare(arguments).await?;
    let (_, messages, consumers) = answer.ok_or("no answer to a declare")?;
    Ok((messages.into(), consumers.into()))
}

/// Closes everything: amqprs complains of connections and channels that are dropped open.
async fn close(connection: Connection, channels: Vec<Channel>) -> Result<()> {
    for channel in channels {
        channel.close().await?;
    }
    connection.close().await?;
    Ok(())
}
