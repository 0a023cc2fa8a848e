//! [lapin](https://crates.io/crates/lapin).

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use lapin::options::{
    BasicAckOptions, BasicConsumeOptions, BasicGetOptions, BasicPublishOptions, BasicQosOptions,
    ConfirmSelectOptions, QueueDeclareOptions,
};
use lapin::types::FieldTable;
use lapin::{
    BasicProperties, Channel, Connection, ConnectionProperties, Consumer, PublisherConfirm,
};

use crate::arrivals::published;
use crate::clock::{Sample, Stopwatch};
use crate::flavor::Flavor;
use crate::load::{ACK_EVERY, EMPTY, ENDED, IN_FLIGHT, IN_FLIGHT_BYTES, Load, Shape, check};
use crate::target::Target;
use crate::wire::{CONSUMER_TAG, ROUTING_KEY};
use crate::{Error, Result};

/// How messages are published without confirms.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Style {
    /// One after the other.
    Loop,
    /// Many at a time.
    InFlight,
    /// From many tasks, one at a time in each.
    Tasks,
}

/// A connection with channels.
pub(crate) async fn open(uri: &str, channels: u16) -> Result<(Connection, Vec<Channel>)> {
    let connection = Connection::connect(uri, ConnectionProperties::default()).await?;
    let mut opened = Vec::new();
    for _ in 0..channels {
        opened.push(connection.create_channel().await?);
    }
    Ok((connection, opened))
}

/// Passes that many messages.
pub(crate) async fn run(
    style: Style,
    target: &Target,
    shape: &Shape,
    count: u64,
) -> Result<Sample> {
    let (flavor, tasks, size) = (Flavor::Tokio, shape.tasks, shape.size);
    let body: Vec<u8> = shape.body().into();
    let each = count / u64::from(shape.channels);
    if shape.load == Load::Connect {
        let watch = Stopwatch::start();
        let connecting = flavor.spread(tasks, vec![(); tasks.into()], |_| {
            connect(target.uri.clone(), count / u64::from(tasks))
        });
        connecting.await?;
        return Ok(watch.stop(count));
    }
    let (connection, channels) = open(&target.uri, shape.channels).await?;
    let queue = target.queue(shape, count);
    let mut watch = Stopwatch::start();
    let sample = match shape.load {
        Load::Connect | Load::RoundTrip => {
            let work = |channels| round_trip(channels, each);
            flavor.spread(tasks, channels.clone(), work).await?;
            watch.stop(count)
        }
        Load::Get => {
            let work = |channels| get(channels, queue.clone(), each);
            flavor.spread(tasks, channels.clone(), work).await?;
            watch.stop(count)
        }
        Load::Publish => {
            match style {
                Style::Loop => {
                    let work = |channels| publish(channels, body.clone(), each);
                    flavor.spread(tasks, channels.clone(), work).await?;
                }
                Style::InFlight => {
                    let window = IN_FLIGHT.min(IN_FLIGHT_BYTES / size);
                    let work = |channels| publish_in_flight(channels, window, body.clone(), each);
                    flavor.spread(tasks, channels.clone(), work).await?;
                }
                Style::Tasks => publish_in_tasks(&channels, &body, count).await?,
            }
            published(target, &channels, watch, count, async |channel| {
                counts(channel).await
            })
            .await?
        }
        Load::Confirm(window) => {
            for channel in &channels {
                let options = ConfirmSelectOptions::default();
                channel.confirm_select(options).await?;
            }
            watch = Stopwatch::start();
            let work = |channels| publish_confirmed(channels, window, body.clone(), each);
            flavor.spread(tasks, channels.clone(), work).await?;
            published(target, &channels, watch, count, async |channel| {
                counts(channel).await
            })
            .await?
        }
        Load::Deliver | Load::DeliverNoAck => {
            let no_ack = shape.load == Load::DeliverNoAck;
            let mut consumers = Vec::new();
            for channel in &channels {
                if let Some(prefetch) = shape.prefetch() {
                    let options = BasicQosOptions::default();
                    channel.basic_qos(prefetch, options).await?;
                }
                watch = Stopwatch::start(); // the server begins with the last one
                let options = BasicConsumeOptions {
                    no_ack,
                    ..BasicConsumeOptions::default()
                };
                let (queue, tag) = (queue.as_str().into(), CONSUMER_TAG.into());
                let consuming = channel.basic_consume(queue, tag, options, FieldTable::default());
                consumers.push(consuming.await?);
            }
            let work = |consumers| deliver(consumers, each, no_ack);
            flavor.spread(tasks, consumers, work).await?;
            if no_ack {
                watch.stop(count)
            } else {
                let (_, acks) = counts(&channels[0]).await?;
                let sample = watch.stop(count);
                if target.counts() {
                    check("acknowledgements", acks, shape.acks(count))?;
                }
                sample
            }
        }
    };
    connection.close(200, "".into()).await?;
    Ok(sample)
}

async fn connect(uri: String, count: u64) -> Result<()> {
    for _ in 0..count {
        let connection = Connection::connect(&uri, ConnectionProperties::default()).await?;
        connection.close(200, "".into()).await?;
    }
    Ok(())
}

async fn round_trip(channels: Vec<Channel>, each: u64) -> Result<()> {
    for _ in 0..each {
        for channel in &channels {
            counts(channel).await?;
        }
    }
    Ok(())
}

async fn get(channels: Vec<Channel>, queue: String, each: u64) -> Result<()> {
    for _ in 0..each {
        for channel in &channels {
            let options = BasicGetOptions { no_ack: true };
            let got = channel.basic_get(queue.as_str().into(), options).await?;
            got.ok_or(EMPTY)?;
        }
    }
    Ok(())
}

/// Publishes one message after the other.
async fn publish(channels: Vec<Channel>, body: Vec<u8>, each: u64) -> Result<()> {
    for _ in 0..each {
        for channel in &channels {
            publish_one(channel, &body).await?;
        }
    }
    Ok(())
}

/// Publishes with many messages in flight.
async fn publish_in_flight(
    channels: Vec<Channel>,
    window: usize,
    body: Vec<u8>,
    each: u64,
) -> Result<()> {
    let mut in_flight = FuturesUnordered::new();
    for _ in 0..each {
        for channel in &channels {
            if in_flight.len() >= window {
                in_flight.next().await.transpose()?;
            }
            in_flight.push(publish_one(channel, &body));
        }
    }
    while in_flight.next().await.transpose()?.is_some() {}
    Ok(())
}

/// Publishes from many tasks, each with one message in flight, over the channels in turn.
async fn publish_in_tasks(channels: &[Channel], body: &[u8], count: u64) -> Result<()> {
    let mut tasks = Vec::new();
    for (number, channel) in (0..IN_FLIGHT as u64).zip(channels.iter().cycle()) {
        let (channel, body) = (channel.clone(), body.to_vec());
        let share = (number..count).step_by(IN_FLIGHT);
        tasks.push(tokio::spawn(async move {
            for _ in share {
                publish_one(&channel, &body).await?;
            }
            lapin::Result::Ok(())
        }));
    }
    for task in tasks {
        task.await??;
    }
    Ok(())
}

/// Publishes with many messages in flight, each until it is confirmed.
async fn publish_confirmed(
    channels: Vec<Channel>,
    window: usize,
    body: Vec<u8>,
    each: u64,
) -> Result<()> {
    let mut in_flight = FuturesUnordered::new();
    for _ in 0..each {
        for channel in &channels {
            if in_flight.len() >= window {
                in_flight.next().await.transpose()?;
            }
            in_flight.push(async {
                let confirmation = start_publish(channel, &body).await?.await?;
                if confirmation.is_ack() {
                    Ok(())
                } else {
                    Err(Error::from("a publish was not confirmed"))
                }
            });
        }
    }
    while in_flight.next().await.transpose()?.is_some() {}
    Ok(())
}

async fn publish_one(channel: &Channel, body: &[u8]) -> lapin::Result<()> {
    start_publish(channel, body).await?;
    Ok(())
}

async fn start_publish(channel: &Channel, body: &[u8]) -> lapin::Result<PublisherConfirm> {
    let options = BasicPublishOptions::default();
    let properties = BasicProperties::default();
    channel
        .basic_publish("".into(), ROUTING_KEY.into(), options, body, properties)
        .await
}

async fn deliver(mut consumers: Vec<Consumer>, each: u64, no_ack: bool) -> Result<()> {
    for number in 1..=each {
        for consumer in &mut consumers {
            let delivery = consumer.next().await.ok_or(ENDED)??;
            if number % ACK_EVERY == 0 && !no_ack {
                let options = BasicAckOptions { multiple: true };
                delivery.acker.ack(options).await?;
            }
        }
    }
    Ok(())
}

/// How many publishes and acknowledgements the small server has counted.
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
