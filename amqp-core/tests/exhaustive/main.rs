//! Small worlds, exhausted: a client and a server do one thing, and everything that can go wrong on
//! the line between them goes wrong once: every cut, every split, every lost frame, every order of
//! two commands that race.
//!
//! `cargo test -p amqp-core --test exhaustive -- --nocapture` prints the counts.

mod client;
mod cuts;
mod lost;
mod oracle;
mod races;
mod server;
mod splits;
mod world;

/// A thing that a client does, from the handshake to the close of the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Story {
    /// Opens a channel.
    Open,
    /// Publishes in confirm mode: a message is confirmed, one comes back, one is nacked.
    Publish,
    /// Consumes, fetches, acknowledges and cancels.
    Consume,
    /// Closes a channel with a consumer, a publish and a request outstanding.
    Close,
    /// Is commanded by the test.
    Manual,
}

impl Story {
    const ALL: [Self; 4] = [Self::Open, Self::Publish, Self::Consume, Self::Close];
}

/// The body of a message of that number, published, delivered or fetched.
fn body(number: u64, large: bool) -> Vec<u8> {
    let len = match number {
        1 => 0,
        3 if large => 9000,
        _ => 5 + number as usize,
    };
    vec![number as u8; len]
}
