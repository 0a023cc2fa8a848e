//! Input: one frame at a time, subject to back-pressure.

use alloc::boxed::Box;

use amqp_core::{
    Instant, MethodDef as _,
    frame::{ContentHeader, Frame, FrameKind, split_method},
    protocol::{basic, channel},
    server::Event,
};
use bytes::BytesMut;

use super::Broker;
use crate::{
    keys::{ChannelKey, ConnectionKey},
    model::channel::Channel,
    notice::Notice,
    refusal::{Refusal, short},
};

/// The properties of a frame, parsed without consuming it.
struct FramePeek {
    channel: u16,
    /// `true` for `basic.publish` and for content frames.
    publish: bool,
    /// `true` for `basic.ack`, `basic.nack` and `basic.reject`.
    settles: bool,
    /// `true` for `channel.open`.
    opens_channel: bool,
    /// The body size in a content header of a message, in bytes (section 4.2.6.1 of the
    /// specification).
    body_size: Option<u64>,
    /// The payload size of a body frame, in bytes.
    payload: usize,
}

impl FramePeek {
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
        match self.connections.get_mut(&key) {
            None => input.clear(),
            Some(conn) if conn.pending.is_empty() => self.read(key, input),
            Some(conn) => {
                conn.pending.extend_from_slice(input);
                input.clear();
                self.read_pending(key);
            }
        }
        self.finish();
    }

    /// Processes the input that was received while reading was paused.
    pub(super) fn read_pending(&mut self, key: ConnectionKey) {
        let Some(conn) = self.connections.get_mut(&key) else {
            return;
        };
        let mut input = core::mem::take(&mut conn.pending);
        self.read(key, &mut input);
        if !input.is_empty()
            && let Some(conn) = self.connections.get_mut(&key)
        {
            conn.pending = input;
        }
    }

    fn read(&mut self, key: ConnectionKey, input: &mut BytesMut) {
        loop {
            let Some(conn) = self.connections.get_mut(&key) else {
                input.clear();
                break;
            };
            if !conn.wants_input() {
                conn.pending.unsplit(input.split());
                break;
            }
            let peek = peek_frame(input);
            if let Some(peek) = &peek {
                self.account_incoming(key, peek);
            }
            // Confirms the preceding publishes before a frame that may be answered, or may close
            // the channel or the connection, as RabbitMQ does
            // (`amqp-broker/tests/broker/protocol_faults.rs`).
            if peek.as_ref().is_none_or(FramePeek::may_end_publishing) {
                self.send_confirms(key);
            }
            if let Some(peek) = peek.as_ref().filter(|peek| peek.opens_channel) {
                self.limit_channels(key, peek.channel);
            }
            let Some(conn) = self.connections.get_mut(&key) else {
                continue;
            };
            if !conn.machine.handle_frame(self.now, input) {
                break;
            }
            self.take_events(key);
            self.service_due();
            self.pause_reading(key, peek.is_some_and(|peek| peek.publish));
        }
        self.send_confirms(key);
        self.wake(key);
    }

    /// Pauses reading after a frame if too much output is queued, or if the frame belongs to a
    /// publish during a memory alarm (<https://www.rabbitmq.com/docs/alarms>).
    fn pause_reading(&mut self, key: ConnectionKey, publish: bool) {
        self.update_alarm();
        let Some(conn) = self.connections.get_mut(&key) else {
            return;
        };
        conn.output_full = conn.machine.buffered() > self.config.limits.replies;
        if publish && self.alarm && conn.machine.is_open() {
            conn.blocked = true;
            // Notifies only clients with the capability `connection.blocked`.
            let _notified = conn.machine.block(short("low on memory"));
        }
        conn.journal_full = self.journal.is_full(self.config.limits.journal);
        if !conn.wants_input() {
            conn.machine.set_reading(self.now, false);
        }
    }

    /// Refuses a message over [`Limits::message`](crate::Limits::message), by the body size in its
    /// content header, and counts the memory of a message that is arriving.
    fn account_incoming(&mut self, key: ConnectionKey, peek: &FramePeek) {
        let Some(conn) = self.connections.get_mut(&key) else {
            return;
        };
        let Some(channel) = conn.channels.get_mut(&peek.channel) else {
            return;
        };
        let max = self.config.limits.message;
        let id = channel.id;
        if let Some(size) = peek.body_size.filter(|size| *size > max) {
            // A header out of place is a violation of the protocol, whatever its size.
            let channel = conn.machine.channel(id);
            if !channel.is_some_and(|channel| channel.awaits_header()) {
                return;
            }
            let refusal = Refusal::precondition(format_args!(
                "message size {size} is larger than configured max size {max}"
            ));
            let channel = ChannelKey {
                connection: key,
                id,
            };
            self.refuse(channel, &refusal, basic::Publish::ID);
        } else if peek.payload > 0 {
            let incoming = channel
                .incoming
                .get_or_insert_with(|| self.memory.reserve(0));
            incoming.grow(peek.payload);
        }
    }

    /// Processes the pending events of a connection's machine.
    pub(crate) fn take_events(&mut self, key: ConnectionKey) {
        while let Some(event) = self
            .connections
            .get_mut(&key)
            .and_then(|conn| conn.machine.poll_event())
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
                if let Some(conn) = self.connections.get_mut(&key) {
                    let opened = Box::new(Channel::new(channel));
                    conn.channels.insert(channel.number(), opened);
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
            Event::Writable => self.unblock_connection(key),
            Event::Closed(reason) => {
                let conn = self.connections.get(&key);
                let user = conn.map(|conn| conn.user.clone()).unwrap_or_default();
                self.notify(key, Notice::Ended { user, reason });
                self.end_connection(key);
            }
            Event::Opened => {
                if let Some(conn) = self.connections.get(&key) {
                    let (user, vhost) = (conn.user.clone(), conn.vhost.clone());
                    self.notify(key, Notice::Opened { user, vhost });
                }
            }
            // Nothing to do: a new secret does not change the login.
            Event::SecretUpdated { .. } => {}
            _ => {}
        }
    }
}

/// Parses the frame at the front without consuming it. `Some` for a complete, valid frame that is
/// no heartbeat.
fn peek_frame(input: &[u8]) -> Option<FramePeek> {
    let frame = Frame::parse(input, u32::MAX).ok()??;
    let mut peek = FramePeek {
        channel: frame.channel,
        publish: true,
        settles: false,
        opens_channel: false,
        body_size: None,
        payload: 0,
    };
    match frame.kind {
        FrameKind::Method => {
            let (id, _) = split_method(frame.payload).ok()?;
            peek.publish = id == basic::Publish::ID;
            peek.opens_channel = id == channel::Open::ID;
            peek.settles = [basic::Ack::ID, basic::Nack::ID, basic::Reject::ID].contains(&id);
        }
        FrameKind::Header => {
            let header = ContentHeader::parse(frame.payload).ok()?;
            let is_valid = header.class == basic::Publish::ID.class && header.weight == 0;
            peek.body_size = is_valid.then_some(header.body_size);
        }
        FrameKind::Body => peek.payload = frame.payload.len(),
        FrameKind::Heartbeat => return None,
    }
    Some(peek)
}
