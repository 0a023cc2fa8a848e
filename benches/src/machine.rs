//! The core alone: `client::Connection` driven by hand, in memory, with no socket and no task.

use std::time::Duration;

use amqp_core::client::{Config, Connection, Event};
use amqp_core::protocol::basic;
use amqp_core::{ChannelId, Instant, Tags, Transmit};
use bytes::{Buf as _, BytesMut};

use crate::clock::{self, Sample};
use crate::load::{ACK_EVERY, BODY, MANY_CHANNELS, check};
use crate::wire::{self, Blast, Consumer};
use crate::{Result, allocator};

/// The bytes of one read, and about the bytes that gather before a write: as of a socket on a busy
/// connection.
const TURN: usize = 64 << 10;

/// A connection that is open, and its channels.
#[derive(Debug)]
pub(crate) struct Machine {
    connection: Connection,
    channels: Vec<ChannelId>,
    input: BytesMut,
    output: Transmit,
    now: Instant,
    /// The time that a processor worked in the core.
    elapsed: Duration,
    /// The heap allocations made in the core, while they are counted.
    allocations: u64,
}

impl Machine {
    /// A connection with that many channels, each with a consumer if asked for.
    pub(crate) fn open(channels: u16, consume: bool) -> Result<Self> {
        let now = Instant::from_origin(Duration::from_secs(1));
        let mut machine = Self {
            connection: Connection::new(Config::default(), now)?,
            channels: Vec::new(),
            input: BytesMut::new(),
            output: Transmit::new(),
            now,
            elapsed: Duration::ZERO,
            allocations: 0,
        };
        for put in [wire::put_start, wire::put_tune, wire::put_open_ok] {
            machine.drain();
            machine.hear(put);
        }
        for number in 1..=channels {
            let (id, _) = machine.connection.open_channel()?;
            machine.drain();
            machine.hear(|out| wire::put_channel_open_ok(out, number));
            machine.channels.push(id);
            if consume {
                let consume = basic::Consume::default()
                    .queue(wire::ROUTING_KEY)
                    .consumer_tag(wire::CONSUMER_TAG);
                let channel = machine.connection.channel(id);
                channel.ok_or("a channel is not open")?.consume(consume)?;
                machine.drain();
                machine.hear(|out| wire::put_consume_ok(out, number, wire::CONSUMER_TAG));
            }
        }
        Ok(machine)
    }

    /// Publishes messages, over the channels in turn.
    pub(crate) fn publish(&mut self, count: u64) -> Result<Sample> {
        let publish = basic::Publish::default().routing_key(wire::ROUTING_KEY);
        let properties = basic::Properties::default();
        let mut channel = 0;
        let mut done = 0;
        self.elapsed = Duration::ZERO;
        self.allocations = 0;
        while done < count {
            done += self.watched(|core| core.publish_turn(&publish, &properties, &mut channel))?;
        }
        Ok(self.sample(done))
    }

    /// Publishes until enough has gathered, then lets it leave. Never inlined, for a profiler to
    /// find it by its name.
    #[inline(never)]
    fn publish_turn(
        &mut self,
        publish: &basic::Publish,
        properties: &basic::Properties,
        turn: &mut usize,
    ) -> Result<u64> {
        let mut count = 0;
        while self.connection.buffered() < TURN {
            let id = self.channels[*turn];
            *turn += 1;
            if *turn == self.channels.len() {
                *turn = 0;
            }
            let mut channel = self.connection.channel(id).ok_or("a channel has ended")?;
            channel.publish(publish, properties, &BODY)?;
            count += 1;
        }
        self.drain();
        Ok(count)
    }

    /// Receives messages on the first `used` channels in turn, with an acknowledgement every so
    /// often.
    pub(crate) fn receive(&mut self, used: usize, count: u64) -> Result<Sample> {
        let tag = wire::CONSUMER_TAG.to_owned();
        let consumers: Vec<_> = self.channels[..used]
            .iter()
            .map(|id| Consumer {
                channel: id.number(),
                tag: tag.clone(),
            })
            .collect();
        let mut blast = Blast::new(&consumers, &BODY, count, TURN);
        let mut done = 0;
        self.elapsed = Duration::ZERO;
        self.allocations = 0;
        while let Some((block, _)) = blast.next_block() {
            self.input.extend_from_slice(block);
            done += self.watched(Self::receive_turn)?;
        }
        check("deliveries", done, count)?;
        Ok(self.sample(done))
    }

    /// Handles the input and visits each message. Never inlined, for a profiler to find it by its
    /// name.
    #[inline(never)]
    fn receive_turn(&mut self) -> Result<u64> {
        self.connection.handle_input(self.now, &mut self.input);
        let mut count = 0;
        while let Some(event) = self.connection.poll_event() {
            let Event::Delivered(delivery) = event else {
                return Err(format!("{event:?} instead of a delivery").into());
            };
            count += 1;
            let tag = delivery.tag.ok_or("a delivery without its tag")?;
            if delivery.content.body.len() != BODY.len() {
                return Err("a body of another size".into());
            }
            if tag.get() % ACK_EVERY == 0 {
                let channel = self.connection.channel(delivery.channel);
                channel.ok_or("a channel has ended")?.ack(Tags::UpTo(tag))?;
            }
        }
        self.drain();
        Ok(count)
    }

    /// Adds a turn to the time and the allocations of the core.
    fn watched(&mut self, turn: impl FnOnce(&mut Self) -> Result<u64>) -> Result<u64> {
        let allocated = allocator::counted().allocations;
        let start = clock::thread_worked();
        let done = turn(self)?;
        self.elapsed += clock::thread_worked().saturating_sub(start);
        self.allocations += allocator::counted().allocations - allocated;
        Ok(done)
    }

    const fn sample(&self, messages: u64) -> Sample {
        Sample {
            messages,
            elapsed: self.elapsed,
            worked: self.elapsed,
            allocations: self.allocations,
        }
    }

    /// Takes the output.
    fn drain(&mut self) {
        while self.connection.poll_transmit(self.now, &mut self.output) {
            self.output.advance(self.output.remaining());
        }
    }

    /// Feeds bytes, and drops the events.
    fn hear(&mut self, put: impl FnOnce(&mut Vec<u8>)) {
        let mut frames = Vec::new();
        put(&mut frames);
        self.input.extend_from_slice(&frames);
        self.connection.handle_input(self.now, &mut self.input);
        while self.connection.poll_event().is_some() {}
    }
}

/// Heap allocations in the core per message: published, and received.
pub(crate) fn allocations() -> Result<(f64, f64)> {
    const COUNT: u64 = 100_000;
    let mut machine = Machine::open(1, true)?;
    machine.publish(COUNT)?; // buffers grow once
    allocator::start();
    let published = machine.publish(COUNT)?;
    let received = machine.receive(1, COUNT)?;
    allocator::stop();
    Ok((published.allocated(), received.allocated()))
}

/// Bytes of an idle connection, and of an idle channel.
pub(crate) fn memory() -> Result<(f64, f64)> {
    allocator::start();
    let connection = Box::new(Machine::open(0, false)?);
    let one = allocator::counted().live;
    let many = Box::new(Machine::open(MANY_CHANNELS, false)?);
    let both = allocator::stop().live;
    drop((connection, many));
    let of_channels = (both - 2 * one) as f64;
    Ok((one as f64, of_channels / f64::from(MANY_CHANNELS)))
}
