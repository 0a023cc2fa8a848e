//! Peers without an async runtime: calls that block, in plain threads.
//!
//! ```text
//! cargo run -q -p amqp-peer --example blocking
//! ```

use std::{error::Error, thread, time::Duration};

use amqp_peer::{Config, Connect, Event, Listen, Message, Sender, blocking};

pub(crate) fn main() -> Result<(), Box<dyn Error>> {
    let (bob, events) = blocking::start(Config::new("bob")?)?;
    let listening = bob.add_listener(Listen::tcp("127.0.0.1:0"))?;
    let port = listening.port().ok_or("no port")?;

    // Bob answers each message in a thread of his own.
    let answering = thread::spawn({
        let bob = bob.clone();
        move || {
            for event in events {
                if let Event::Received(received) = event
                    && let Sender::Peer(from) = received.from.clone()
                {
                    let mut answer = b"thanks for ".to_vec();
                    answer.extend(received.accept().body.to_vec());
                    if let Err(error) = bob.send(&from, Message::new(answer)) {
                        println!("bob: {error}");
                    }
                }
            }
        }
    });

    let (alice, events) = blocking::start(Config::new("alice")?)?;
    alice.add_connector(Connect::tcp("127.0.0.1", port));
    for what in ["tea", "cake"] {
        // Returns when Bob has accepted it.
        let message = Message::new(what).ttl(Duration::from_secs(60));
        alice.deliver(&"bob".parse()?, message)?;
        println!("bob has the {what}");
    }
    let answers = events.filter_map(|event| match event {
        Event::Received(received) => Some(received.accept()),
        _ => None,
    });
    for answer in answers.take(2) {
        println!("bob: {}", String::from_utf8_lossy(&answer.body.to_vec()));
    }

    alice.stop();
    bob.stop();
    answering.join().map_err(|_| "bob has panicked")?;
    Ok(())
}
