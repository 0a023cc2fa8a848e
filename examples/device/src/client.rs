//! A client behind a port.

use alloc::{
    format,
    string::{String, ToString as _},
};

use amqp_core::{
    ChannelId, Instant, Limits, PublishError, Tags, Transmit,
    bytes::BytesMut,
    client::{Config, Connection, Event},
    protocol::{Method, ReplyCode, basic, confirm, queue},
    wire::ShortStr,
};

use crate::port::{Port, read, write};

/// A client that publishes readings, confirmed, and consumes them again.
#[derive(Debug)]
pub struct Client<P> {
    port: P,
    machine: Connection,
    input: BytesMut,
    output: Transmit,
    messages: u64,
    published: u64,
    consumed: u64,
    channel: Option<ChannelId>,
    queue: ShortStr,
}

/// The state of a client after a turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// The next turn is due when the port is ready, or at that time.
    Until(Option<Instant>),
    /// The connection was closed in good order, with that many messages consumed.
    Finished(u64),
}

impl<P: Port> Client<P> {
    /// Creates a client. Its buffers are small: a frame of 4 KiB is the least that the protocol
    /// allows, and the limits of the output are of that size, too.
    ///
    /// # Errors
    /// If a setting is refused.
    pub fn new(port: P, now: Instant, messages: u64) -> Result<Self, String> {
        let mut limits = Limits::default()
            .body(4 << 10)
            .output_high(4 << 10)
            .output_low(1 << 10)
            .unconfirmed(16);
        limits.assembly = 8 << 10;
        let config = Config::default()
            .frame_max(8 << 10)
            .channel_max(1)
            .limits(limits);
        Ok(Self {
            port,
            machine: Connection::new(config, now).map_err(|error| error.to_string())?,
            input: BytesMut::new(),
            output: Transmit::new(),
            messages,
            published: 0,
            consumed: 0,
            channel: None,
            queue: ShortStr::default(),
        })
    }

    /// Moves bytes both ways, without waiting, and handles the time and all events.
    ///
    /// # Errors
    /// The reason in words, if the connection or a request has failed.
    pub fn turn(&mut self, now: Instant) -> Result<Progress, String> {
        while !self.output.is_empty() || self.machine.poll_transmit(now, &mut self.output) {
            let some = write(&mut self.port, &mut self.output);
            if !self.output.is_empty() {
                if some {
                    self.machine.handle_written(now);
                }
                break;
            }
        }
        if read(&mut self.port, &mut self.input) {
            self.machine.handle_input(now, &mut self.input);
        }
        self.machine.handle_timeout(now);
        while let Some(event) = self.machine.poll_event() {
            self.handle(event).map_err(|error| error.to_string())?;
        }
        if self.machine.is_finished() {
            return match self.machine.close_reason() {
                Some(reason) if !reason.is_clean() => Err(reason.to_string()),
                _ => Ok(Progress::Finished(self.consumed)),
            };
        }
        let deadline = self.machine.poll_timeout().map(|(at, _)| at);
        Ok(Progress::Until(deadline))
    }

    /// Returns the port, for another client.
    #[must_use]
    pub fn into_port(self) -> P {
        self.port
    }

    fn handle(&mut self, event: Event) -> Result<(), PublishError> {
        match event {
            Event::Opened => {
                let (channel, _) = self.machine.open_channel()?;
                self.channel = Some(channel);
            }
            Event::Reply { reply, .. } => self.go_on(reply)?,
            // Settled publishes and drained output make room for the next.
            Event::Settled { .. } | Event::Writable | Event::ChannelWritable { .. } => {
                self.publish()?;
            }
            Event::Delivered(delivery) => {
                self.consumed += 1;
                if let (Some(mut channel), Some(tag)) =
                    (self.machine.channel(delivery.channel), delivery.tag)
                {
                    channel.ack(Tags::One(tag))?;
                }
                if self.consumed == self.messages {
                    self.machine.close(ReplyCode::SUCCESS, "goodbye");
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn go_on(&mut self, reply: Method) -> Result<(), PublishError> {
        let Some(mut channel) = self.channel.and_then(|id| self.machine.channel(id)) else {
            return Ok(());
        };
        if let Method::ChannelOpenOk(_) = reply {
            channel.call(&confirm::Select::default())?;
            channel.call(&basic::Qos::default().prefetch_count(8))?;
            channel.call(&queue::Declare::default().exclusive(true))?;
        } else if let Method::QueueDeclareOk(declared) = reply {
            self.queue = declared.queue;
            let consume = basic::Consume {
                queue: self.queue.clone(),
                ..basic::Consume::default()
            };
            channel.consume(consume)?;
            self.publish()?;
        }
        Ok(())
    }

    /// Publishes until all is published, or there is no room.
    fn publish(&mut self) -> Result<(), PublishError> {
        let Some(mut channel) = self.channel.and_then(|id| self.machine.channel(id)) else {
            return Ok(());
        };
        let publish = basic::Publish {
            routing_key: self.queue.clone(),
            ..basic::Publish::default()
        };
        while self.published < self.messages {
            let body = format!("reading {}", self.published);
            match channel.publish(&publish, &basic::Properties::default(), body) {
                Ok(_) => self.published += 1,
                Err(PublishError::HeldBack { .. }) => break,
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}
