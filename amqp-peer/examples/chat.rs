//! A chat in the terminal, without a server: each program is a peer, and some of them listen.
//!
//! ```text
//! cargo run -q -p amqp-peer --example chat -- bob --listen 127.0.0.1:4000
//! cargo run -q -p amqp-peer --example chat -- alice --connect 127.0.0.1:4000
//! ```
//!
//! A line goes to all peers that are up. `/who` prints these, `/to NAME TEXT` writes to one, who gets it
//! later if they are away, and `/quit` ends the program, as the end of the input does.

use std::{collections::BTreeSet, env, error::Error, io, thread, time::Duration};

use amqp_peer::{Config, Connect, ConnectorId, Event, Listen, Message, Peer, PeerName, Sender};
use tokio::sync::mpsc;

type Result<T = (), E = Box<dyn Error>> = std::result::Result<T, E>;

/// The time for which a message to one peer waits for a link.
const PATIENCE: Duration = Duration::from_secs(600);

#[tokio::main]
pub(crate) async fn main() -> Result {
    let mut arguments = env::args().skip(1);
    let name = arguments.next().ok_or(USAGE)?;
    let (peer, mut events) = amqp_peer::tokio::start(Config::new(&name)?)?;
    while let Some(option) = arguments.next() {
        let address = arguments.next().ok_or(USAGE)?;
        match option.as_str() {
            "--listen" => {
                let listening = peer.add_listener(Listen::tcp(address)).await?;
                println!("* listening at {}", listening.address);
            }
            "--connect" => {
                peer.add_connector(Connect::uri(&format!("amqp://{address}"))?);
            }
            _ => return Err(USAGE.into()),
        }
    }

    let mut lines = lines();
    let mut chat = Chat {
        peer,
        present: BTreeSet::new(),
        unreachable: BTreeSet::new(),
    };
    loop {
        tokio::select! {
            line = lines.recv() => match line.as_deref().map(str::trim) {
                None | Some("/quit") => break,
                Some(line) => chat.obey(line),
            },
            event = events.next() => match event {
                Some(event) => chat.show(event),
                None => break,
            },
        }
    }
    chat.peer.stop().await;
    Ok(())
}

const USAGE: &str = "chat NAME [--listen ADDRESS:PORT]... [--connect HOST:PORT]...";

struct Chat {
    peer: Peer,
    /// The peers that are up.
    present: BTreeSet<PeerName>,
    /// The connectors whose failure was printed.
    unreachable: BTreeSet<ConnectorId>,
}

impl Chat {
    /// Carries out a line of the user.
    fn obey(&self, line: &str) {
        match line.split_once(' ') {
            _ if line.is_empty() => {}
            _ if line == "/who" => {
                let names: Vec<&str> = self.present.iter().map(PeerName::as_str).collect();
                println!("* here: {}", names.join(", "));
            }
            Some(("/to", rest)) => {
                let (name, text) = rest.split_once(' ').unwrap_or((rest, ""));
                match name.parse() {
                    Ok(name) => self.send(&name, text, PATIENCE),
                    Err(error) => println!("* {error}"),
                }
            }
            _ if line.starts_with('/') => println!("* /who, /to NAME TEXT, /quit"),
            _ => {
                for name in &self.present {
                    // Now or never.
                    self.send(name, line, Duration::ZERO);
                }
            }
        }
    }

    fn send(&self, to: &PeerName, text: &str, ttl: Duration) {
        let message = Message::new(text.to_owned()).ttl(ttl);
        if let Err(error) = self.peer.try_send(to, message) {
            println!("* not sent to {to}: {error}");
        }
    }

    /// Prints an event.
    fn show(&mut self, event: Event) {
        match event {
            Event::Up(up) => {
                println!("* {} is here", up.name);
                self.present.insert(up.name);
                self.unreachable.clear();
            }
            Event::Down(down) => {
                println!("* {} has left: {}", down.name, down.cause);
                self.present.remove(&down.name);
            }
            Event::Refused(refused) => println!("* no link: {}", refused.cause),
            Event::Unreachable(attempt) => {
                let is_first = self.unreachable.insert(attempt.connector);
                if is_first {
                    println!("* {}, trying on", attempt.error);
                }
            }
            Event::Received(received) => {
                if let Sender::Peer(from) = received.from.clone() {
                    let text = received.accept().body.to_vec();
                    // Another peer must not control this terminal.
                    let text = String::from_utf8_lossy(&text).replace(char::is_control, " ");
                    println!("{from}: {text}");
                }
            }
            Event::Dropped(dropped) => println!("* not sent to {}: {}", dropped.to, dropped.reason),
            _ => {}
        }
    }
}

/// The lines of the standard input, which a thread reads.
fn lines() -> mpsc::Receiver<String> {
    let (sender, receiver) = mpsc::channel(1);
    thread::spawn(move || {
        for line in io::stdin().lines().map_while(std::result::Result::ok) {
            if sender.blocking_send(line).is_err() {
                break;
            }
        }
    });
    receiver
}
