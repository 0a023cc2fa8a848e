//! `amqp-blocking`, used as its documentation shows, with threads in place of tasks.

use std::collections::VecDeque;
use std::thread;

use amqp_blocking::protocol::{basic, queue};
use amqp_blocking::{BaseChannel, Channel, ConfirmChannel, Consumer, ManualAck, NoAck, block_on};
use bytes::Bytes;

use crate::Result;
use crate::arrivals::published;
use crate::clock::{Sample, Stopwatch};
use crate::load::{ACK_EVERY, EMPTY, ENDED, Load, Shape, check};
use crate::target::Target;
use crate::wire::{CONSUMER_TAG, ROUTING_KEY};

/// Passes that many messages.
pub(crate) fn run(target: &Target, shape: &Shape, count: u64) -> Result<Sample> {
    let (tasks, body) = (shape.tasks, shape.body());
    let each = count / u64::from(shape.channels);
    if shape.load == Load::Connect {
        let watch = Stopwatch::start();
        spread(tasks, vec![(); tasks.into()], |_| {
            connect(&target.uri, count / u64::from(tasks))
        })?;
        return Ok(watch.stop(count));
    }
    let connection = amqp_blocking::connect(&target.uri)?;
    let mut channels = Vec::new();
    for _ in 0..shape.channels {
        channels.push(connection.open_channel()?);
    }
    let queue = target.queue(shape, count);
    let mut watch = Stopwatch::start();
    let sample = match shape.load {
        Load::Connect | Load::RoundTrip => {
            spread(tasks, channels, |channels| round_trip(&channels, each))?;
            watch.stop(count)
        }
        Load::Get => {
            spread(tasks, channels, |channels| get(&channels, &queue, each))?;
            watch.stop(count)
        }
        Load::Publish => {
            let work = |channels: Vec<_>| publish(&channels, &body, each);
            spread(tasks, channels.clone(), work)?;
            block_on(published(
                target,
                &channels,
                watch,
                count,
                async |channel| counts(channel),
            ))?
        }
        Load::Confirm(window) => {
            let mut confirming = Vec::new();
            for channel in channels {
                confirming.push(channel.confirm_select()?);
            }
            watch = Stopwatch::start();
            let work = |channels: Vec<_>| publish_confirmed(&channels, window, &body, each);
            spread(tasks, confirming.clone(), work)?;
            block_on(published(
                target,
                &confirming,
                watch,
                count,
                async |channel| counts(channel),
            ))?
        }
        Load::Deliver => {
            let mut consumers = Vec::new();
            for channel in &channels {
                if let Some(prefetch) = shape.prefetch() {
                    channel.call(basic::Qos::default().prefetch_count(prefetch))?;
                }
                watch = Stopwatch::start(); // the server begins with the last one
                consumers.push(channel.consume(consume(&queue))?);
            }
            spread(tasks, consumers, |consumers| deliver(consumers, each))?;
            let (_, acks) = counts(&channels[0])?;
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
                consumers.push(channel.consume_no_ack(consume(&queue))?);
            }
            spread(tasks, consumers, |consumers| {
                deliver_no_ack(consumers, each)
            })?;
            watch.stop(count)
        }
    };
    connection.close()?;
    Ok(sample)
}

/// Shares the items out to that many threads, and waits for their end. A single thread is the main
/// one.
fn spread<T: Send>(
    tasks: u16,
    mut items: Vec<T>,
    work: impl Fn(Vec<T>) -> Result<()> + Sync,
) -> Result<()> {
    if tasks == 1 {
        return work(items);
    }
    let (share, work) = (items.len().div_ceil(tasks.into()), &work);
    thread::scope(|scope| {
        let mut running = Vec::new();
        while !items.is_empty() {
            let rest = items.split_off(share.min(items.len()));
            running.push(scope.spawn(move || work(items)));
            items = rest;
        }
        running
            .into_iter()
            .try_for_each(|thread| thread.join().map_err(|_| "a thread has panicked")?)
    })
}

fn connect(uri: &str, count: u64) -> Result<()> {
    for _ in 0..count {
        amqp_blocking::connect(uri)?.close()?;
    }
    Ok(())
}

fn round_trip(channels: &[Channel], each: u64) -> Result<()> {
    for _ in 0..each {
        for channel in channels {
            counts(channel)?;
        }
    }
    Ok(())
}

fn get(channels: &[Channel], queue: &str, each: u64) -> Result<()> {
    for _ in 0..each {
        for channel in channels {
            let get = basic::Get::default().queue(queue).no_ack(true);
            drop(channel.get(get)?.ok_or(EMPTY)?);
        }
    }
    Ok(())
}

/// Publishes one message after the other.
fn publish(channels: &[Channel], body: &Bytes, each: u64) -> Result<()> {
    let publish = basic::Publish::default().routing_key(ROUTING_KEY);
    let properties = basic::Properties::default();
    for _ in 0..each {
        for channel in channels {
            channel.publish(&publish, &properties, body.clone())?;
        }
    }
    Ok(())
}

/// Publishes one message after the other, and waits for the oldest confirm when many are due.
fn publish_confirmed(
    channels: &[ConfirmChannel],
    window: usize,
    body: &Bytes,
    each: u64,
) -> Result<()> {
    let publish = basic::Publish::default().routing_key(ROUTING_KEY);
    let properties = basic::Properties::default();
    let mut in_flight = VecDeque::new();
    for _ in 0..each {
        for channel in channels {
            in_flight.push_back(channel.publish(&publish, &properties, body.clone())?);
            if in_flight.len() >= window
                && let Some(oldest) = in_flight.pop_front()
            {
                oldest.wait()?;
            }
        }
    }
    for confirm in in_flight {
        confirm.wait()?;
    }
    Ok(())
}

fn consume(queue: &str) -> basic::Consume {
    basic::Consume::default()
        .queue(queue)
        .consumer_tag(CONSUMER_TAG)
}

fn deliver(mut consumers: Vec<Consumer<ManualAck>>, each: u64) -> Result<()> {
    for number in 1..=each {
        for consumer in &mut consumers {
            let delivery = consumer.next().ok_or(ENDED)??;
            if number % ACK_EVERY == 0 {
                delivery.acker.ack_up_to()?;
            }
        }
    }
    Ok(())
}

fn deliver_no_ack(mut consumers: Vec<Consumer<NoAck>>, each: u64) -> Result<()> {
    for _ in 0..each {
        for consumer in &mut consumers {
            consumer.next().ok_or(ENDED)??;
        }
    }
    Ok(())
}

/// How many publishes and acknowledgements the small server has counted.
fn counts(channel: &BaseChannel) -> Result<(u64, u64)> {
    let declare = queue::Declare::default().queue(ROUTING_KEY).passive(true);
    let answer = channel.call(declare)?;
    Ok((answer.message_count.into(), answer.consumer_count.into()))
}
