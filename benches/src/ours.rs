//! `amqp-tokio`, `amqp-async-std` and `amqp-smol`, used as their documentation shows.

use std::collections::VecDeque;

use amqp_tokio::protocol::{basic, queue};
use amqp_tokio::{BaseChannel, Channel, ConfirmChannel, Connection, Consumer, ManualAck, NoAck};
use bytes::Bytes;

use crate::arrivals::published;
use crate::clock::{Sample, Stopwatch};
use crate::flavor::Flavor;
use crate::load::{ACK_EVERY, EMPTY, ENDED, Load, Shape, check};
use crate::target::Target;
use crate::wire::{CONSUMER_TAG, ROUTING_KEY};
use crate::{Result, sink};

/// A connection with channels.
pub(crate) async fn open(
    flavor: Flavor,
    uri: &str,
    channels: u16,
) -> Result<(Connection, Vec<Channel>)> {
    let connection = flavor.connect(uri).await?;
    let mut opened = Vec::new();
    for _ in 0..channels {
        opened.push(connection.open_channel().await?);
    }
    Ok((connection, opened))
}

/// A connection with channels, at rest after messages have passed in both directions.
pub(crate) async fn open_used(uri: &str, channels: u16) -> Result<(Connection, Vec<Channel>)> {
    const COUNT: u64 = 20_000;
    let (connection, channels) = open(Flavor::Tokio, uri, channels.max(1)).await?;
    let shape = Shape::new(Load::Publish, 16);
    publish(
        channels.clone(),
        shape.body(),
        COUNT / channels.len() as u64,
    )
    .await?;
    let queue = sink::blast_queue(COUNT, shape.size, 1);
    deliver(vec![channels[0].consume(consume(&queue)).await?], COUNT).await?;
    Ok((connection, channels))
}

/// Passes that many messages.
pub(crate) async fn run(
    flavor: Flavor,
    target: &Target,
    shape: &Shape,
    count: u64,
) -> Result<Sample> {
    let (tasks, body) = (shape.tasks, shape.body());
    let each = count / u64::from(shape.channels);
    if shape.load == Load::Connect {
        let watch = Stopwatch::start();
        let connecting = flavor.spread(tasks, vec![(); tasks.into()], |_| {
            connect(flavor, target.uri.clone(), count / u64::from(tasks))
        });
        connecting.await?;
        return Ok(watch.stop(count));
    }
    let (connection, channels) = open(flavor, &target.uri, shape.channels).await?;
    let queue = target.queue(shape, count);
    let mut watch = Stopwatch::start();
    let sample = match shape.load {
        Load::Connect | Load::RoundTrip => {
            let work = |channels| round_trip(channels, each);
            flavor.spread(tasks, channels, work).await?;
            watch.stop(count)
        }
        Load::Get => {
            let work = |channels| get(channels, queue.clone(), each);
            flavor.spread(tasks, channels, work).await?;
            watch.stop(count)
        }
        Load::Publish => {
            let work = |channels| publish(channels, body.clone(), each);
            flavor.spread(tasks, channels.clone(), work).await?;
            published(target, &channels, watch, count, async |channel| {
                counts(channel).await
            })
            .await?
        }
        Load::Confirm(window) => {
            let mut confirming = Vec::new();
            for channel in channels {
                confirming.push(channel.confirm_select().await?);
            }
            watch = Stopwatch::start();
            let work = |channels| publish_confirmed(channels, window, body.clone(), each);
            flavor.spread(tasks, confirming.clone(), work).await?;
            published(target, &confirming, watch, count, async |channel| {
                counts(channel).await
            })
            .await?
        }
        Load::Deliver => {
            let mut consumers = Vec::new();
            for channel in &channels {
                if let Some(prefetch) = shape.prefetch() {
                    let qos = basic::Qos::default().prefetch_count(prefetch);
                    channel.call(qos).await?;
                }
                watch = Stopwatch::start(); // the server begins with the last one
                consumers.push(channel.consume(consume(&queue)).await?);
            }
            let work = |consumers| deliver(consumers, each);
            flavor.spread(tasks, consumers, work).await?;
            let (_, acks) = counts(&channels[0]).await?;
            let sample = watch.stop(count);
            if target.counts() {
                check("acknowledgements", acks, shape.acks(count))?;
            }
            sample
        }
        Load::DeliverNoAck => {
            let mut consumers = Vec::new();
            for channel in &channels {
                watch = Stopwatch::start();
                consumers.push(channel.consume_no_ack(consume(&queue)).await?);
            }
            let work = |consumers| deliver_no_ack(consumers, each);
            flavor.spread(tasks, consumers, work).await?;
            watch.stop(count)
        }
    };
    connection.close().await?;
    Ok(sample)
}

async fn connect(flavor: Flavor, uri: String, count: u64) -> Result<()> {
    for _ in 0..count {
        flavor.connect(&uri).await?.close().await?;
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
            let get = basic::Get::default().queue(&queue).no_ack(true);
            drop(channel.get(get).await?.ok_or(EMPTY)?);
        }
    }
    Ok(())
}

/// Publishes one message after the other.
async fn publish(channels: Vec<Channel>, body: Bytes, each: u64) -> Result<()> {
    let publish = basic::Publish::default().routing_key(ROUTING_KEY);
    let properties = basic::Properties::default();
    for _ in 0..each {
        for channel in &channels {
            channel.publish(&publish, &properties, body.clone()).await?;
        }
    }
    Ok(())
}

/// Publishes one message after the other, and waits for the oldest confirm when many are due.
async fn publish_confirmed(
    channels: Vec<ConfirmChannel>,
    window: usize,
    body: Bytes,
    each: u64,
) -> Result<()> {
    let publish = basic::Publish::default().routing_key(ROUTING_KEY);
    let properties = basic::Properties::default();
    let mut in_flight = VecDeque::new();
    for _ in 0..each {
        for channel in &channels {
            let confirm = channel.publish(&publish, &properties, body.clone()).await?;
            in_flight.push_back(confirm);
            if in_flight.len() >= window
                && let Some(oldest) = in_flight.pop_front()
            {
                oldest.await?;
            }
        }
    }
    for confirm in in_flight {
        confirm.await?;
    }
    Ok(())
}

fn consume(queue: &str) -> basic::Consume {
    basic::Consume::default()
        .queue(queue)
        .consumer_tag(CONSUMER_TAG)
}

async fn deliver(mut consumers: Vec<Consumer<ManualAck>>, each: u64) -> Result<()> {
    for number in 1..=each {
        for consumer in &mut consumers {
            let delivery = consumer.next().await.ok_or(ENDED)??;
            if number % ACK_EVERY == 0 {
                delivery.acker.ack_up_to()?;
            }
        }
    }
    Ok(())
}

async fn deliver_no_ack(mut consumers: Vec<Consumer<NoAck>>, each: u64) -> Result<()> {
    for _ in 0..each {
        for consumer in &mut consumers {
            consumer.next().await.ok_or(ENDED)??;
        }
    }
    Ok(())
}

/// How many publishes and acknowledgements the small server has counted.
async fn counts(channel: &BaseChannel) -> Result<(u64, u64)> {
    let declare = queue::Declare::default().queue(ROUTING_KEY).passive(true);
    let answer = channel.call(declare).await?;
    Ok((answer.message_count.into(), answer.consumer_count.into()))
}
