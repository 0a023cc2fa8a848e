//! [amqprs](https://crates.io/crates/amqprs), the other client for tokio.

use amqprs::callbacks::ChannelCallback;
use amqprs::channel::{
    BasicAckArguments, BasicConsumeArguments, BasicGetArguments, BasicPublishArguments,
    BasicQosArguments, Channel, ConfirmSelectArguments, ConsumerMessage, QueueDeclareArguments,
};
use amqprs::connection::{Connection, OpenConnectionArguments};
use amqprs::{Ack, BasicProperties, Cancel, CloseChannel, Nack, Return};
use async_trait::async_trait;
use tokio::sync::{mpsc, watch};

use crate::Result;
use crate::arrivals::published;
use crate::clock::{Sample, Stopwatch};
use crate::flavor::Flavor;
use crate::load::{ACK_EVERY, Confirmed, EMPTY, ENDED, Load, Shape, check};
use crate::target::Target;
use crate::wire::{CONSUMER_TAG, ROUTING_KEY};

/// A connection with channels.
pub(crate) async fn open(target: &Target, channels: u16) -> Result<(Connection, Vec<Channel>)> {
    let connection = Connection::open(&arguments(target)).await?;
    let mut opened = Vec::new();
    for _ in 0..channels {
        opened.push(connection.open_channel(None).await?);
    }
    Ok((connection, opened))
}

fn arguments(target: &Target) -> OpenConnectionArguments {
    let (authority, vhost) = (&target.parts.authority, &target.parts.vhost);
    let (user, password) = (&authority.userinfo.username, &authority.userinfo.password);
    let (host, port) = (&authority.host, authority.port);
    OpenConnectionArguments::new(host, port, user, password)
        .virtual_host(vhost)
        .finish()
}

/// Passes that many messages.
pub(crate) async fn run(target: &Target, shape: &Shape, count: u64) -> Result<Sample> {
    let (flavor, tasks) = (Flavor::Tokio, shape.tasks);
    let body: Vec<u8> = shape.body().into();
    let each = count / u64::from(shape.channels);
    if shape.load == Load::Connect {
        let watch = Stopwatch::start();
        let connecting = flavor.spread(tasks, vec![(); tasks.into()], |_| {
            connect(arguments(target), count / u64::from(tasks))
        });
        connecting.await?;
        return Ok(watch.stop(count));
    }
    let (connection, channels) = open(target, shape.channels).await?;
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
            let work = |channels| publish(channels, body.clone(), each);
            flavor.spread(tasks, channels.clone(), work).await?;
            published(target, &channels, watch, count, async |channel| {
                counts(channel).await
            })
            .await?
        }
        Load::Confirm(window) => {
            let mut confirming = Vec::new();
            for channel in &channels {
                let (confirms, confirmed) = watch::channel(0);
                let state = Confirmed::default();
                let confirms = Some(confirms);
                let callback = Confirms { confirms, state };
                channel.register_callback(callback).await?;
                let arguments = ConfirmSelectArguments::default();
                channel.confirm_select(arguments).await?;
                confirming.push((channel.clone(), confirmed));
            }
            watch = Stopwatch::start();
            let work = |channels| publish_confirmed(channels, window, body.clone(), each);
            flavor.spread(tasks, confirming, work).await?;
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
                    let arguments = BasicQosArguments::new(0, prefetch, false);
                    channel.basic_qos(arguments).await?;
                }
                watch = Stopwatch::start(); // the server begins with the last one
                let arguments = BasicConsumeArguments::new(&queue, CONSUMER_TAG)
                    .manual_ack(!no_ack)
                    .finish();
                let (_, messages) = channel.basic_consume_rx(arguments).await?;
                consumers.push((channel.clone(), messages));
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
    // amqprs logs an error for connections and channels that are dropped open.
    for channel in channels {
        channel.close().await?;
    }
    connection.close().await?;
    Ok(sample)
}

async fn connect(arguments: OpenConnectionArguments, count: u64) -> Result<()> {
    for _ in 0..count {
        Connection::open(&arguments).await?.close().await?;
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
            let arguments = BasicGetArguments::new(&queue).no_ack(true).finish();
            channel.basic_get(arguments).await?.ok_or(EMPTY)?;
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

async fn publish_one(channel: &Channel, body: &[u8]) -> Result<()> {
    let arguments = BasicPublishArguments::new("", ROUTING_KEY);
    channel
        .basic_publish(BasicProperties::default(), body.to_vec(), arguments)
        .await?;
    Ok(())
}

/// Publishes on each channel while fewer messages than its part of the window are unconfirmed.
async fn publish_confirmed(
    mut channels: Vec<(Channel, watch::Receiver<u64>)>,
    window: usize,
    body: Vec<u8>,
    each: u64,
) -> Result<()> {
    let count = channels.len();
    for published in 0..each as usize * count {
        if let Some(oldest) = published.checked_sub(window) {
            let (_, confirmed) = &mut channels[oldest % count];
            let number = (oldest / count + 1) as u64;
            confirmed.wait_for(|&up_to| up_to >= number).await?;
        }
        publish_one(&channels[published % count].0, &body).await?;
    }
    for (_, confirmed) in &mut channels {
        confirmed.wait_for(|&up_to| up_to >= each).await?;
    }
    Ok(())
}

async fn deliver(
    mut consumers: Vec<(Channel, mpsc::UnboundedReceiver<ConsumerMessage>)>,
    each: u64,
    no_ack: bool,
) -> Result<()> {
    for number in 1..=each {
        for (channel, messages) in &mut consumers {
            let message = messages.recv().await.ok_or(ENDED)?;
            if number % ACK_EVERY == 0 && !no_ack {
                let tag = message.deliver.map_or(0, |deliver| deliver.delivery_tag());
                channel.basic_ack(BasicAckArguments::new(tag, true)).await?;
            }
        }
    }
    Ok(())
}

/// How many publishes and acknowledgements the small server has counted.
async fn counts(channel: &Channel) -> Result<(u64, u64)> {
    let arguments = QueueDeclareArguments::new(ROUTING_KEY)
        .passive(true)
        .finish();
    let answer = channel.queue_declare(arguments).await?;
    let (_, messages, consumers) = answer.ok_or("no answer to a declare")?;
    Ok((messages.into(), consumers.into()))
}

/// Counts the confirms of a channel.
#[derive(Debug)]
struct Confirms {
    /// Absent once a message was refused, which ends the wait of the publisher with an error.
    confirms: Option<watch::Sender<u64>>,
    state: Confirmed,
}

#[async_trait]
impl ChannelCallback for Confirms {
    async fn close(
        &mut self,
        _: &Channel,
        _: CloseChannel,
    ) -> std::result::Result<(), amqprs::error::Error> {
        Ok(())
    }

    async fn cancel(
        &mut self,
        _: &Channel,
        _: Cancel,
    ) -> std::result::Result<(), amqprs::error::Error> {
        Ok(())
    }

    async fn flow(
        &mut self,
        _: &Channel,
        active: bool,
    ) -> std::result::Result<bool, amqprs::error::Error> {
        Ok(active)
    }

    async fn publish_ack(&mut self, _: &Channel, ack: Ack) {
        let count = self.state.add(ack.delivery_tag(), ack.mutiple());
        if let Some(confirms) = &self.confirms {
            confirms.send_replace(count);
        }
    }

    async fn publish_nack(&mut self, _: &Channel, _: Nack) {
        self.confirms = None;
    }

    async fn publish_return(&mut self, _: &Channel, _: Return, _: BasicProperties, _: Vec<u8>) {}
}
