//! An outbox that survives the end of its process, also by `kill -9`, and an inbox that gives each message
//! once.
//!
//! ```text
//! cargo run -q -p amqp-peer --example outbox -- send outbox.db 4000 first second third   # and kill it
//! cargo run -q -p amqp-peer --example outbox -- send outbox.db 4000 fourth
//! cargo run -q -p amqp-peer --example outbox -- receive inbox.db 4000
//! ```

use std::{env, error::Error};

use amqp_peer::{Config, Connect, Event, Listen, Message, Receipts, storage::SqliteStorage};

#[tokio::main]
pub(crate) async fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments.as_slice() {
        ["send", file, port, texts @ ..] => send(file, port.parse()?, texts).await,
        ["receive", file, port] => receive(file, port.parse()?).await,
        _ => Err("outbox send FILE PORT [TEXT...], or outbox receive FILE PORT".into()),
    }
}

/// Stores texts, and delivers them and those of earlier runs, as soon as there is a receiver.
async fn send(file: &str, port: u16, texts: &[&str]) -> Result<(), Box<dyn Error>> {
    let config = Config::new("sender")?.receipts(Receipts::Delivered);
    let (peer, mut events) = amqp_peer::tokio::start(config.storage(SqliteStorage::open(file)?))?;
    let receiver = "receiver".parse()?;
    let mut waiting = peer.outbox(&receiver).messages;
    println!("{waiting} wait");
    for text in texts {
        // Returns when the message is stored.
        peer.send(&receiver, Message::new(text.to_string()).persistent())
            .await?;
        println!("stored: {text}");
        waiting += 1;
    }
    peer.add_connector(Connect::tcp("127.0.0.1", port));
    while waiting > 0 {
        let event = events.next().await.ok_or("the peer has stopped")?;
        if let Event::Delivered { id, .. } = event {
            println!("delivered: {id}");
            waiting -= 1;
        }
    }
    peer.stop().await;
    Ok(())
}

/// Prints what arrives.
async fn receive(file: &str, port: u16) -> Result<(), Box<dyn Error>> {
    let config = Config::new("receiver")?;
    let (peer, mut events) = amqp_peer::tokio::start(config.storage(SqliteStorage::open(file)?))?;
    let listen = Listen::tcp(format!("127.0.0.1:{port}"));
    let listening = peer.add_listener(listen).await?;
    println!("listening at {}", listening.address);
    while let Some(event) = events.next().await {
        if let Event::Received(received) = event {
            println!(
                "received: {}",
                String::from_utf8_lossy(&received.message.body.to_vec())
            );
            // Accepted, it does not come again, whichever process ends. Without this, it does.
            received.accept();
        }
    }
    Ok(())
}
