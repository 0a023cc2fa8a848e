//! The loads: everything that a client is measured at.

use std::collections::BTreeSet;
use std::fmt;

use bytes::Bytes;

use crate::Result;

/// The body of the small messages.
pub(crate) const BODY: [u8; 16] = *b"sixteen bytes...";

/// Every so many deliveries on a channel, all up to then are acknowledged.
pub(crate) const ACK_EVERY: u64 = 100;

/// The number of publishes in flight where that helps a client most.
pub(crate) const IN_FLIGHT: usize = 1000;

/// How many channels are many.
pub(crate) const MANY_CHANNELS: u16 = 1000;

/// The prefetch of each consumer where several tasks consume: a task that is late does not fill the
/// client's memory.
const PREFETCH: u16 = 200;

/// How many bytes a case may have in flight at most.
pub(crate) const IN_FLIGHT_BYTES: usize = 64 << 20;

/// The error of a consumer that ends early.
pub(crate) const ENDED: &str = "the consumer ended";

/// The error of a `basic.get` without a message.
pub(crate) const EMPTY: &str = "the queue is empty";

/// The kind of work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Load {
    /// A passive `queue.declare` and its reply.
    RoundTrip,
    /// A connection opened and closed.
    Connect,
    /// Publishing with that many confirms outstanding at most, in each task.
    Confirm(usize),
    /// Publishing without confirms.
    Publish,
    /// Consuming, with an acknowledgement per [`ACK_EVERY`].
    Deliver,
    /// Consuming without acknowledgements.
    DeliverNoAck,
    /// `basic.get` without acknowledgements.
    Get,
}

impl Load {
    /// Whether messages pass, so that their size matters.
    pub(crate) const fn has_messages(self) -> bool {
        !matches!(self, Self::RoundTrip | Self::Connect)
    }
}

/// A load with its dimensions. The channels are used in turn, and each task has its share of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Shape {
    pub(crate) load: Load,
    /// The size of a body, in bytes.
    pub(crate) size: usize,
    /// The number of channels: a multiple of the tasks.
    pub(crate) channels: u16,
    /// The number of tasks, or threads. A single one is the main one.
    pub(crate) tasks: u16,
}

impl Shape {
    /// One channel and one task.
    pub(crate) const fn new(load: Load, size: usize) -> Self {
        Self {
            load,
            size,
            channels: 1,
            tasks: 1,
        }
    }

    /// The same on more channels.
    pub(crate) const fn over(self, channels: u16, tasks: u16) -> Self {
        Self {
            channels,
            tasks,
            ..self
        }
    }

    /// The prefetch of each consumer, if it has one.
    pub(crate) fn prefetch(&self) -> Option<u16> {
        (self.tasks > 1 && self.load == Load::Deliver).then_some(PREFETCH)
    }

    /// Whether the messages that are under way at once fit into the memory of each client.
    pub(crate) fn has_room(&self) -> bool {
        let (channels, tasks) = (usize::from(self.channels), usize::from(self.tasks));
        match self.load {
            Load::Confirm(window) => window * tasks * self.size <= IN_FLIGHT_BYTES,
            Load::Deliver if tasks > 1 => {
                usize::from(PREFETCH) * channels * self.size <= IN_FLIGHT_BYTES / 16
            }
            // Nothing limits the messages that a late task has not taken.
            Load::DeliverNoAck => tasks == 1 && channels * self.size <= IN_FLIGHT_BYTES,
            _ => channels * self.size <= IN_FLIGHT_BYTES,
        }
    }

    pub(crate) fn body(&self) -> Bytes {
        BODY.into_iter().cycle().take(self.size).collect()
    }

    /// The acknowledgements of that many messages.
    pub(crate) fn acks(&self, count: u64) -> u64 {
        let channels = u64::from(self.channels);
        count / channels / ACK_EVERY * channels
    }

    /// How many messages the first try has, from which the speed is guessed.
    pub(crate) const fn first_try(&self) -> u64 {
        match self.load {
            Load::Connect => 20,
            Load::RoundTrip | Load::Get | Load::Confirm(..100) => 200,
            _ if self.size > 1 << 12 => 100,
            _ => 5000,
        }
    }
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.load {
            Load::RoundTrip => write!(f, "round trip")?,
            Load::Connect => write!(f, "connect")?,
            Load::Confirm(window) => write!(f, "confirm, window {window}")?,
            Load::Publish => write!(f, "publish")?,
            Load::Deliver => write!(f, "deliver")?,
            Load::DeliverNoAck => write!(f, "deliver without acks")?,
            Load::Get => write!(f, "get")?,
        }
        if self.load.has_messages() {
            match self.size {
                size @ ..1024 => write!(f, ", {size} B")?,
                size @ ..1_048_576 => write!(f, ", {} KiB", size >> 10)?,
                size => write!(f, ", {} MiB", size >> 20)?,
            }
        }
        if self.channels > 1 {
            write!(f, ", {} channels", self.channels)?;
        }
        if self.tasks > 1 {
            write!(f, ", {} tasks", self.tasks)?;
        }
        Ok(())
    }
}

/// The confirms of a channel, counted.
#[derive(Clone, Debug, Default)]
pub(crate) struct Confirmed {
    /// Everything up to this sequence number is confirmed.
    up_to: u64,
    /// Confirmed beyond.
    beyond: BTreeSet<u64>,
}

impl Confirmed {
    /// Adds an acknowledgement; returns how many publishes are confirmed.
    pub(crate) fn add(&mut self, tag: u64, multiple: bool) -> u64 {
        if multiple {
            self.up_to = self.up_to.max(tag);
            self.beyond = self.beyond.split_off(&(self.up_to + 1));
        } else {
            self.beyond.insert(tag);
        }
        while self.beyond.remove(&(self.up_to + 1)) {
            self.up_to += 1;
        }
        self.up_to + self.beyond.len() as u64
    }
}

/// Compares the server's count with the number sent.
pub(crate) fn check(what: &str, arrived: u64, sent: u64) -> Result<()> {
    if arrived == sent {
        return Ok(());
    }
    Err(format!("{arrived} {what} arrived of {sent}").into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn confirms_are_counted_in_any_order() {
        let mut confirmed = Confirmed::default();
        assert_eq!(confirmed.add(2, false), 1);
        assert_eq!(confirmed.add(4, false), 2);
        assert_eq!(confirmed.add(1, false), 3);
        assert_eq!(confirmed.add(5, true), 5);
        assert_eq!(confirmed.add(6, false), 6);
    }

    #[test]
    fn a_shape_has_a_name() {
        let shape = Shape::new(Load::Confirm(100), 64 << 10).over(8, 8);
        assert_eq!(
            shape.to_string(),
            "confirm, window 100, 64 KiB, 8 channels, 8 tasks"
        );
        assert_eq!(Shape::new(Load::Connect, 16).to_string(), "connect");
    }
}
