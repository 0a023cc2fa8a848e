//! Input: one frame at a time, subject to back-pressure.

use amqp_core::{
    Instant, MethodDef as _,
    frame::{ContentHeader, Frame, FrameKind, split_method},
    protocol::basic,
    server::Event,
};
use bytes::BytesMut;

use super::Broker;
use crate::{
    keys::{ChannelKey, ConnectionKey},
    model::channel::Channel,
    refusal::{Refusal, short},
};

/// The properties of a frame that is read ahead, without consuming it.
struct Glimpse {
    channel: u16,
    /// `true` for `basic.publish` and for content frames.
    publish: bool,
    /// `true` for `basic.ack`, `basic.nack` and `basic.reject`.
    settles: bool,
    /// The body size in a content header, in bytes (section 4.2.6.1 of the specification).
    body_size: Option<u64>,
    /// The payload size of a body frame, in bytes.
    piece: usize,
}

impl Glimpse {
    /// Returns whether the frame may do more than continue a sequence of publishes: it may be
    /// answered, or may close the channel or the connection.
    const fn may_end_publishing(&self) -> bool {
        !self.publish && !self.settles
    }
}

impl Broker {
    /// Handles input of a connection. Consumes the complete frames at the front of `input`, and
    /// leaves a partial one. While [`wants_input`](Self::wants_input) returns `false`, it takes all
    /// bytes and processes them later.
    pub fn handle_input(&mut self, key: ConnectionKey, now: Instant, input: &mut BytesMut) {
        self.advance_clock(now);
        match self.links.get_mut(&key) {
            None => input.clear(),
            Some(link) if link.pending.is_empty() => self.read(key, input),
            Some(link) => {
                link.pending.extend_from_slice(input);
                input.clear();
                self.read_pending(key);
            }
        }
        self.finish();
    }

    /// Processes the input that was received while reading was paused.
    pub(super) fn read_pending(&mut self, key: ConnectionKey) {
        let Some(link) = self.links.get_mut(&key) else {
            return;
        };
        let mut input = core::mem::take(&mut link.pending);
        self.read(key, &mut input);
        if !input.is_empty()
            && let Some(link) = self.links.get_mut(&key)
        {
            link.pending = input;
        }
    }

    fn read(&mut self, key: ConnectionKey, input: &mut BytesMut) {
        loop {
            let Some(link) = self.links.get_mut(&key) else {
                input.clear();
                break;
            };
            if !link.is_read() {
                link.pending.unsplit(input.split());
                break;
            }
            let glimpse = glimpse(input);
            if let Some(glimpse) = &glimpse {
                self.weigh(key, glimpse);
            }
            // Confirms the preceding publishes before a frame that may be answered, or may close
            // the channel or the connection, as RabbitMQ does
            // (`amqp-broker/tests/broker/protocol_faults.rs`).
            if glimpse.as_ref().is_none_or(Glimpse::may_end_publishing) {
                self.send_confirms(key);
            }
            let Some(link) = self.links.get_mut(&key) else {
                continue;
            };
            if !link.machine.handle_frame(self.now, input) {
                break;
            }
            self.take_events(key);
            self.look_at_queues();
            self.hold_reading(key, glimpse.is_some_and(|glimpse| glimpse.publish));
        }
        self.send_confirms(key);
        self.wake(key);
    }

    /// Pauses reading after a frame if too much output is queued, or if the frame belongs to a
    /// publish during a memory alarm (<https://www.rabbitmq.com/docs/alarms>).
    fn hold_reading(&mut self, key: ConnectionKey, publish: bool) {
        self.watch_memory();
        let Some(link) = self.links.get_mut(&key) else {
            return;
        };
        link.stuffed = link.machine.buffered() > self.config.limits.replies;
        if publish && self.alarm && link.machine.is_open() {
            link.blocked = true;
            // Notifies only clients with the capability `connection.blocked`.
            let _told = link.machine.block(short("low on memory"));
        }
        if !link.is_read() {
            link.machine.set_reading(self.now, false);
        }
    }

    /// Refuses a message over [`Limits::message`](crate::Limits::message), by the body size in its
    /// content header, and counts the memory of a message that is arriving.
    fn weigh(&mut self, key: ConnectionKey, glimpse: &Glimpse) {
        let Some(link) = self.links.get_mut(&key) else {
            return;
        };
        let Some(channel) = link.channels.get_mut(&glimpse.channel) else {
            return;
        };
        let max = self.config.limits.message;
        if let Some(size) = glimpse.body_size.filter(|size| *size > max) {
            let refusal = Refusal::precondition(format_args!(
                "message size {size} is larger than configured max size {max}"
            ));
            let channel = ChannelKey {
                connection: key,
                id: channel.id,
            };
            self.refuse(channel, &refusal, basic::Publish::ID);
        } else if glimpse.piece > 0 {
            let share = channel.incoming.get_or_insert_with(|| self.gauge.take(0));
            share.grow(glimpse.piece);
        }
    }

    /// Processes the pending events of a connection's machine.
    pub(super) fn take_events(&mut self, key: ConnectionKey) {
        while let Some(event) = self
            .links
            .get_mut(&key)
            .and_then(|link| link.machine.poll_event())
        {
            self.on_event(key, event);
        }
    }

    fn on_event(&mut self, key: ConnectionKey, event: Event) {
        let at = |id| ChannelKey {
            connection: key,
            id,
        };
        match event {
            Event::Authenticate(request) => self.authenticate(key, &request),
            Event::Open { virtual_host } => self.open_vhost(key, &virtual_host),
            Event::ChannelOpened { channel } => {
                if let Some(link) = self.links.get_mut(&key) {
                    link.channels
                        .insert(channel.number(), Channel::new(channel));
                }
            }
            Event::Request { channel, method } => self.on_request(at(channel), method),
            Event::Published(published) => {
                let channel = at(published.channel);
                if self.channel(channel).is_err() {
                    return;
                }
                if let Err(refusal) = self.publish(key, published) {
                    self.refuse(channel, &refusal, basic::Publish::ID);
                }
            }
            Event::Flow { channel, active } => self.on_flow(at(channel), active),
            Event::ChannelClosed { channel, .. } => self.end_channel(at(channel)),
            Event::Writable => {
                for id in self.channel_ids(key) {
                    self.release(at(id));
                }
            }
            Event::Closed(_) => self.end_connection(key),
            // Nothing to do: the handshake is complete, and a new secret does not change the login.
            Event::Opened | Event::SecretUpdated { .. } => {}
            _ => {}
        }
    }
}

/// Parses the frame at the front without consuming it. `Some` for a complete, valid frame that is
/// no heartbeat.
fn glimpse(input: &[u8]) -> Option<Glimpse> {
    let frame = Frame::parse(input, u32::MAX).ok()??;
    let mut glimpse = Glimpse {
        channel: frame.channel,
        publish: true,
        settles: false,
        body_size: None,
        piece: 0,
    };
    match frame.kind {
        FrameKind::Method => {
            let (id, _) = split_method(frame.payload).ok()?;
            glimpse.publish = id == basic::Publish::ID;
            glimpse.settles = [basic::Ack::ID, basic::Nack::ID, basic::Reject::ID].contains(&id);
        }
        FrameKind::Header => {
            glimpse.body_size = Some(ContentHeader::parse(frame.payload).ok()?.body_size);
        }
        FrameKind::Body => glimpse.piece = frame.payload.len(),
        FrameKind::Heartbeat => return None,
    }
    Some(glimpse)
}
