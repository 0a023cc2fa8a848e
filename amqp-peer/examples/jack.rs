//! Jack, one of three peers that all talk to each other: he listens, and dials Bob, who dials him as well:
//! they keep one link. The others are the examples `bob` and `alice`.
//!
//! ```text
//! cargo run -q -p amqp-peer --example jack [PORT_OF_BOB PORT_OF_JACK]
//! ```

use std::{env, error::Error, time::Duration};

use amqp_peer::{Config, Connect, Event, Listen, Message};

#[tokio::main]
pub(crate) async fn main() -> Result<(), Box<dyn Error>> {
    let mut ports = env::args().skip(1).map(|port| port.parse::<u16>());
    let bobs = ports.next().unwrap_or(Ok(4000))?;
    let jacks = ports.next().unwrap_or(Ok(4001))?;

    let (peer, mut events) = amqp_peer::tokio::start(Config::new("jack")?)?;
    peer.add_listener(Listen::tcp(format!("127.0.0.1:{jacks}")))
        .await?;
    peer.add_connector(Connect::tcp("127.0.0.1", bobs));

    for friend in ["bob", "alice"] {
        // It waits for its receiver, ten minutes without a link at most.
        let hello = Message::new("hello from jack").ttl(Duration::from_secs(600));
        peer.send(&friend.parse()?, hello).await?;
    }
    while let Some(event) = events.next().await {
        match event {
            Event::Up(up) => println!("{} is up", up.name),
            Event::Down(down) => println!("{} is down: {}", down.name, down.cause),
            Event::Received(received) => {
                let message = received.accept();
                println!("{}", String::from_utf8_lossy(&message.body.to_vec()));
            }
            Event::Dropped(dropped) => println!("not sent to {}: {}", dropped.to, dropped.reason),
            _ => {}
        }
    }
    Ok(())
}
