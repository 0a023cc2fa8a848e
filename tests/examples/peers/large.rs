//! One large message between two processes.

use std::time::Instant;

use amqp_peer::{Config, Event, Message, core::Body};

use crate::{
    Result,
    options::Large,
    process::{Process, Role, argument, block_on, end_of_input, free_port, peak_memory},
};

pub(crate) const SENDER: &str = "large-sender";
pub(crate) const RECEIVER: &str = "large-receiver";

/// The interval of heartbeats, for a machine with other work, in seconds.
const PATIENT: u16 = 60;

/// The memory that a process may take beside the message, in MiB.
const BESIDE: u64 = 64;

pub(crate) fn show(options: Large) -> Result {
    for receiver in [Role::Listens, Role::Dials] {
        let port = free_port()?.to_string();
        let arguments = |role: Role| {
            [
                port.clone(),
                options.mib.to_string(),
                role.word().to_owned(),
            ]
        };
        let sender = match receiver {
            Role::Listens => Role::Dials,
            Role::Dials => Role::Listens,
        };
        let receiving = Process::start(RECEIVER, &arguments(receiver))?;
        let sending = Process::start(SENDER, &arguments(sender))?;
        let seconds: f64 = receiving.until("took")?.parse()?;
        let receivers: u64 = receiving.until("peak")?.parse()?;
        let senders: u64 = sending.until("peak")?.parse()?;
        sending.end()?;
        receiving.end()?;
        println!(
            "{} MiB, the receiver {}: {seconds:.2} s, {:.0} MiB/s; peak of the sender {senders} MiB, of the \
             receiver {receivers} MiB",
            options.mib,
            receiver.word(),
            options.mib as f64 / seconds
        );
        let bound = options.mib as u64 + BESIDE;
        if senders > bound || receivers > bound {
            return Err(format!("more than {bound} MiB").into());
        }
    }
    Ok(())
}

fn config(name: &str, bytes: usize) -> Result<Config> {
    let mut config = Config::new(name)?.heartbeat(PATIENT);
    config.limits.body = bytes as u64;
    config.limits.outbox_bytes = bytes + 1024;
    config.limits.outbox_total = bytes + 1024;
    Ok(config)
}

/// The bytes of a message repeat these.
fn pattern() -> Vec<u8> {
    (0..PERIOD).map(|at| (at % 251) as u8).collect()
}

const PERIOD: usize = 251 << 8;

fn body(bytes: usize) -> Vec<u8> {
    let mut body = pattern().repeat(bytes.div_ceil(PERIOD));
    body.truncate(bytes);
    body.shrink_to_fit();
    body
}

/// Whether a body is that of a message.
fn is_whole(body: &Body, bytes: usize) -> bool {
    let pattern = pattern();
    let mut at = 0;
    for piece in body.pieces() {
        let mut piece = &piece[..];
        while !piece.is_empty() {
            let wanted = &pattern[at % PERIOD..];
            let len = wanted.len().min(piece.len());
            if piece[..len] != wanted[..len] {
                return false;
            }
            at += len;
            piece = &piece[len..];
        }
    }
    at == bytes
}

pub(crate) fn receiver(arguments: &[String]) -> Result {
    block_on(1, receive(arguments))?
}

async fn receive(arguments: &[String]) -> Result {
    let bytes = argument::<usize>(arguments, 1)? << 20;
    let (peer, mut events) = amqp_peer::tokio::start(config("receiver", bytes)?)?;
    Role::of(&arguments[2])?
        .play(&peer, argument(arguments, 0)?)
        .await?;
    let mut start = Instant::now();
    loop {
        match events.next().await.ok_or("the peer has stopped")? {
            Event::Up(_) => start = Instant::now(),
            Event::Received(received) => {
                println!("took {}", start.elapsed().as_secs_f64());
                let message = received.accept();
                if !is_whole(&message.body, bytes) {
                    return Err("the message is not whole".into());
                }
                println!("peak {}", peak_memory()? >> 20);
                break;
            }
            _ => {}
        }
    }
    // The acknowledgement goes out before.
    let _ = end_of_input().await;
    peer.stop().await;
    Ok(())
}

pub(crate) fn sender(arguments: &[String]) -> Result {
    block_on(1, send(arguments))?
}

async fn send(arguments: &[String]) -> Result {
    let bytes = argument::<usize>(arguments, 1)? << 20;
    let message = Message::new(body(bytes));
    let (peer, _events) = amqp_peer::tokio::start(config("sender", bytes)?)?;
    Role::of(&arguments[2])?
        .play(&peer, argument(arguments, 0)?)
        .await?;
    peer.deliver(&"receiver".parse()?, message).await?;
    println!("peak {}", peak_memory()? >> 20);
    peer.stop().await;
    Ok(())
}
