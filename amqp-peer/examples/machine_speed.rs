//! The time that two peers' machines take for a message of 5 bytes, both together, in one thread
//! without I/O, as the best of some rounds:
//! `cargo run --release -p amqp-peer --example machine_speed [ROUNDS]`.

use std::{env, error::Error, fs, time};

use amqp_core::{Instant, Transmit};
use amqp_peer::{
    Config, Message,
    machine::{Event, LinkKey, Machine},
    storage::{Stored, WallTime},
};
use bytes::{Bytes, BytesMut};

const MESSAGES: u32 = 100_000;

/// A peer's machine, its end of the link, and the bytes that it has not consumed.
struct Peer {
    machine: Machine,
    link: LinkKey,
    output: Transmit,
    input: BytesMut,
    received: u32,
}

impl Peer {
    fn new(name: &str, listens: bool, now: Instant) -> Result<Self, Box<dyn Error>> {
        let config = Config::new(name)?;
        let mut machine = Machine::new(config, Stored::default(), now, WallTime::default())?;
        let link = if listens {
            machine.accept(now)?
        } else {
            machine.dial(now)?
        };
        Ok(Self {
            machine,
            link,
            output: Transmit::new(),
            input: BytesMut::new(),
            received: 0,
        })
    }

    /// Moves output to the other peer, and takes the events. Returns whether bytes were moved.
    fn turn(&mut self, other: &mut Self, now: Instant) -> bool {
        let wrote = self.machine.poll_transmit(self.link, now, &mut self.output);
        for segment in self.output.take_segments() {
            other.input.extend_from_slice(&segment);
        }
        if !other.input.is_empty() {
            other
                .machine
                .handle_input(other.link, now, &mut other.input);
        }
        while let Some(event) = other.machine.poll_event() {
            if let Event::Received(received) = event {
                other.received += 1;
                other.machine.settle(now, received.token);
            }
        }
        while other.machine.poll_wake().is_some() {}
        wrote
    }
}

/// The time that this thread has run, where the system tells, so that other programs on the machine
/// do not count; otherwise the time that has passed.
fn running(start: time::Instant) -> time::Duration {
    let schedule = fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    let nanos = schedule.split(' ').next().and_then(|it| it.parse().ok());
    nanos.map_or_else(|| start.elapsed(), time::Duration::from_nanos)
}

fn main() -> Result<(), Box<dyn Error>> {
    let rounds = match env::args().nth(1) {
        Some(rounds) => rounds.parse()?,
        None => 20,
    };
    for sender_listens in [false, true] {
        let start = time::Instant::now();
        let now = || Instant::from_origin(start.elapsed());
        let mut sender = Peer::new("alice", sender_listens, now())?;
        let mut receiver = Peer::new("bob", !sender_listens, now())?;
        let to = "bob".parse()?;
        while sender.turn(&mut receiver, now()) | receiver.turn(&mut sender, now()) {}
        let mut best = time::Duration::MAX;
        for _ in 0..rounds {
            let (began, before) = (running(start), receiver.received);
            let mut sent = 0;
            while receiver.received - before < MESSAGES {
                let at = now();
                while sent < MESSAGES && sender.machine.room(&to, 256) {
                    let body = Bytes::from_static(b"12345");
                    sender.machine.send(at, &to, Message::new(body))?;
                    sent += 1;
                    if sent % 2048 == 0 {
                        break;
                    }
                }
                sender.turn(&mut receiver, at);
                receiver.turn(&mut sender, at);
            }
            best = best.min(running(start) - began);
        }
        let role = if sender_listens {
            "listener"
        } else {
            "connector"
        };
        let nanos = best.as_nanos() / u128::from(MESSAGES);
        println!("sent by the {role}: {nanos} ns per message, both sides together");
    }
    Ok(())
}
