//! Small messages from one process to another over one link, and their rate:
//! `cargo run --release -p amqp-peer --features tokio --example throughput -- [COUNT] [BYTES]`.

use std::{
    env,
    error::Error,
    io::{BufRead as _, BufReader},
    process::{Command, Stdio},
    time::Instant,
};

use amqp_peer::{Config, Connect, Event, Listen, Message};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let number = |index: usize, default| match arguments.get(index) {
        Some(text) => text.parse::<usize>(),
        None => Ok(default),
    };
    match arguments.first().map(String::as_str) {
        Some("receive") => receive(number(1, 0)?).await,
        _ => send(number(0, 100_000)?, number(1, 5)?).await,
    }
}

/// Starts the receiver in another process, and sends to it.
async fn send(count: usize, bytes: usize) -> Result<(), Box<dyn Error>> {
    let mut receiver = Command::new(env::current_exe()?)
        .args(["receive", &count.to_string()])
        .stdout(Stdio::piped())
        .spawn()?;
    let mut lines = BufReader::new(receiver.stdout.take().ok_or("no output")?).lines();
    let port = lines.next().ok_or("no port")??.parse()?;
    let (peer, mut events) = amqp_peer::tokio::start(Config::new("sender")?)?;
    peer.add_connector(Connect::tcp("127.0.0.1", port));
    while !matches!(events.next().await, Some(Event::Up(_)) | None) {}

    let to = "receiver".parse()?;
    let body = bytes::Bytes::from(vec![b'x'; bytes]);
    let start = Instant::now();
    for _ in 1..count {
        peer.send(&to, Message::new(body.clone())).await?;
    }
    peer.deliver(&to, Message::new(body)).await?;
    let elapsed = start.elapsed();
    println!(
        "{count} messages of {bytes} bytes in {elapsed:.3?}: {:.0} messages/s",
        count as f64 / elapsed.as_secs_f64()
    );
    peer.stop().await;
    receiver.wait()?;
    Ok(())
}

async fn receive(count: usize) -> Result<(), Box<dyn Error>> {
    let (peer, mut events) = amqp_peer::tokio::start(Config::new("receiver")?)?;
    let listening = peer.add_listener(Listen::tcp("127.0.0.1:0")).await?;
    println!("{}", listening.port().ok_or("no port")?);
    let mut received = 0;
    while let Some(event) = events.next().await {
        match event {
            Event::Received(message) => {
                message.accept();
                received += 1;
            }
            Event::Down(_) => break,
            _ => {}
        }
    }
    assert_eq!(received, count);
    peer.stop().await;
    Ok(())
}
