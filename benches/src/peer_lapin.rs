//! [lapin](https://crates.io/crates/lapin), the client that most people use.

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use lapin::options::{
    BasicAckOptions, BasicConsumeOptions, BasicPublishOptions, ConfirmSelectOptions,
    QueueDeclareOptions,
};
use lapin::types::FieldTable;
use lapin::{BasicProperties, Channel, Connection, ConnectionProperties, PublisherConfirm};

use crate::clock::{Sample, Stopwatch};
use crate::load::{ACK_EVERY, BODY, IN_FLIGHT, check};
use crate::wire::{CONSUMER_TAG, ROUTING_KEY};
use crate::{Error, Result, sink};

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

/// Publishes from many tasks, each with one message in flight, over the channels in turn.
pub(crate) async fn publish_in_tasks(port: u16, channels: u16, count: u64) -> Result<Sample> {
    let (connection, channels) = open(port, channels).await?;
    let watch = Stopwatch::start();
    let mut tasks = Vec::new();
    for (number, channel) in (0..IN_FLIGHT as u64).zip(channels.iter().cycle()) {
        let channel = channel.clone();
        let share = (number..count).step_by(IN_FLIGHT);
        tasks.push(tokio::spawn(async move {
            for _ in share {
                publish_one(&channel).await?;
            }
            lapin::Result::Ok(())
        }));
    }
    for task in tasks {
        task.await??;
    }
    finish(&connection, &channels[0], watch, count).await
}

/// Publishes with many messages in flight, each until it is confirmed.
pub(crate) async fn publish_confirmed(port: u16, count: u64) -> Result<Sample> {
    let (connection, channels) = open(port, 1).await?;
    let channel = &channels[0];
    channel
        .confirm_select(ConfirmSelectOptions::default())
        .await?;
    let watch = Stopwatch::start();
    let mut in_flight = FuturesUnordered::new();
    for _ in 0..count {
        if in_flight.len() >= IN_FLIGHT {
            in_flight.next().await.transpose()?;
        }
        in_flight.push(async {
            let confirmation = start_publish(channel).await?.await?;
            if confirmation.is_ack() {
                Ok(())
            } else {
                Err(Error::from("a publish was not confirmed"))
            }
        });
    }
    while in_flight.next().await.transpose()?.is_some() {}
    drop(in_flight);
    finish(&connection, channel, watch, count).await
}

async fn publish_one(channel: &Channel) -> lapin::Result<()> {
    start_publish(channel).await?;
    Ok(())
}

async fn start_publish(channel: &Channel) -> lapin::Result<PublisherConfirm> {
    let options = BasicPublishOptions::default();
    let properties = BasicProperties::default();
    channel
        .basic_publish("".into(), ROUTING_KEY.into(), options, &BODY, properties)
        .await
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
            delivery
                .acker
                .ack(BasicAckOptions { multiple: true })
                .await?;
        }
    }
    let (_, acks) = counts(&channels[0]).await?;
    let sample = watch.stop(count);
    check("acknowledgements", acks, count / ACK_EVERY)?;
    connection.close(200, "".into()).await?;
    Ok(sample)
}
