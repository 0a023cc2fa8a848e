//! Small messages over one link between two processes.

use std::time::{Duration, Instant};

use amqp_peer::{Config, Event, Message, PeerName};
use tokio::time::sleep;

use crate::{
    Result,
    options::Small,
    process::{Process, Role, argument, block_on, free_port},
    snake::{Layer, Snake},
};

pub(crate) const SENDER: &str = "small-sender";
pub(crate) const RECEIVER: &str = "small-receiver";

const BODY: &[u8] = b"hello";

/// The most messages that snakeMQ is measured with, for its pace.
const SNAKES: usize = 100_000;

pub(crate) fn show(options: Small) -> Result {
    let snake = options.snake.then(Snake::install).transpose()?;
    let mut ours: [Vec<f64>; 2] = Default::default();
    let mut packets = Vec::new();
    let mut messages = Vec::new();
    for run in 1..=options.runs {
        for (receiver, rates) in [Role::Listens, Role::Dials].into_iter().zip(&mut ours) {
            let rate = measure(options, receiver)?;
            eprintln!(
                "run {run}, peers, the receiver {}: {rate:.0}/s",
                receiver.word()
            );
            rates.push(rate);
        }
        if let Some(snake) = &snake {
            let count = options.messages.min(SNAKES);
            packets.push(snake.measure(Layer::Packets, count)?);
            messages.push(snake.measure(Layer::Messages, count)?);
            eprintln!("run {run}, snakeMQ: {packets:.0?} packets/s, {messages:.0?} messages/s");
        }
    }
    let ours = ours.map(median);
    println!(
        "{} messages of {} bytes per second, median of {} runs:",
        options.messages,
        BODY.len(),
        options.runs
    );
    println!("peers, the receiver listens  {:>10.0}", ours[0]);
    println!("peers, the receiver dials    {:>10.0}", ours[1]);
    if snake.is_some() {
        let (packets, messages) = (median(packets), median(messages));
        let least = ours[0].min(ours[1]);
        let ratio = least / messages;
        println!(
            "snakeMQ 1.6, packets         {packets:>10.0}   {:.1} x",
            least / packets
        );
        println!("snakeMQ 1.6, messages        {messages:>10.0}   {ratio:.1} x");
        if ratio < options.at_least {
            return Err(format!("below {} x", options.at_least).into());
        }
    }
    Ok(())
}

/// The messages per second of one run, from the link's start until the last one is accepted.
fn measure(options: Small, receiver: Role) -> Result<f64> {
    let port = free_port()?;
    let count = options.messages;
    let arguments = |role: Role| {
        let role = role.word().to_owned();
        [
            port.to_string(),
            count.to_string(),
            role,
            options.threads.to_string(),
        ]
    };
    let (receiving, sending) = match receiver {
        Role::Listens => {
            let receiving = Process::start(RECEIVER, &arguments(Role::Listens))?;
            receiving.until("ready")?;
            (receiving, Process::start(SENDER, &arguments(Role::Dials))?)
        }
        Role::Dials => {
            let sending = Process::start(SENDER, &arguments(Role::Listens))?;
            sending.until("ready")?;
            (Process::start(RECEIVER, &arguments(Role::Dials))?, sending)
        }
    };
    let nanos: u64 = receiving.until("took")?.parse()?;
    sending.end()?;
    receiving.end()?;
    Ok(count as f64 * 1e9 / nanos as f64)
}

pub(crate) fn receiver(arguments: &[String]) -> Result {
    block_on(argument(arguments, 3)?, receive(arguments))?
}

async fn receive(arguments: &[String]) -> Result {
    let count: usize = argument(arguments, 1)?;
    let (peer, mut events) = amqp_peer::tokio::start(Config::new("receiver")?)?;
    Role::of(&arguments[2])?
        .play(&peer, argument(arguments, 0)?)
        .await?;
    println!("ready");
    let mut start = None;
    let mut received = 0;
    while received < count {
        match events.next().await.ok_or("the peer has stopped")? {
            Event::Up(_) => start = Some(Instant::now()),
            Event::Received(message) => {
                if message.accept().body != BODY {
                    return Err("another body".into());
                }
                received += 1;
            }
            _ => {}
        }
    }
    println!("took {}", start.ok_or("no link")?.elapsed().as_nanos());
    // Until the sender has stopped.
    while !matches!(events.next().await, Some(Event::Down(_)) | None) {}
    peer.stop().await;
    Ok(())
}

pub(crate) fn sender(arguments: &[String]) -> Result {
    block_on(argument(arguments, 3)?, send(arguments))?
}

async fn send(arguments: &[String]) -> Result {
    let count: usize = argument(arguments, 1)?;
    let (peer, mut events) = amqp_peer::tokio::start(Config::new("sender")?)?;
    Role::of(&arguments[2])?
        .play(&peer, argument(arguments, 0)?)
        .await?;
    println!("ready");
    let receiver: PeerName = "receiver".parse()?;
    while !matches!(events.next().await, Some(Event::Up(_)) | None) {}
    for _ in 0..count {
        peer.send(&receiver, Message::new(BODY)).await?;
    }
    while peer.outbox(&receiver).messages > 0 {
        sleep(Duration::from_millis(5)).await;
    }
    peer.stop().await;
    Ok(())
}

pub(crate) fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}
