//! One side of a connection, of either role, fed with bytes by hand; and the frames to feed it with.

use alloc::{vec, vec::Vec};

use bytes::{Bytes, BytesMut};

use super::pair::Pair;
use crate::{
    CloseReason, Instant, MethodId, Rule, Transmit,
    client::{self, Event as ClientEvent},
    close::CloseCause,
    fault::Fault,
    frame::{Frame, FrameKind, split_method},
    protocol::{Method, ReplyCode, channel, connection},
    server::{self, Event as ServerEvent},
    wire::{DecodeError, Encode as _},
};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    Client,
    Server,
}

impl Role {
    pub(crate) const BOTH: [Self; 2] = [Self::Client, Self::Server];

    /// Whether the peer of that role may send the method.
    pub(crate) fn hears(self, rule: &Rule) -> bool {
        match self {
            Self::Client => rule.server_sends,
            Self::Server => rule.client_sends,
        }
    }
}

/// One side of a connection.
#[derive(Debug)]
pub(crate) struct Side {
    pub(crate) machine: Machine,
    now: Instant,
    input: BytesMut,
}

#[derive(Debug)]
pub(crate) enum Machine {
    Client(client::Connection),
    Server(server::Connection),
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Event {
    Client(ClientEvent),
    Server(ServerEvent),
}

impl Event {
    /// The reason, if it is the final one.
    pub(crate) fn closed(&self) -> Option<&CloseReason> {
        match self {
            Self::Client(ClientEvent::Closed(reason))
            | Self::Server(ServerEvent::Closed(reason)) => Some(reason),
            Self::Client(_) | Self::Server(_) => None,
        }
    }

    /// The number and the reason, if it is the end of a channel.
    pub(crate) fn channel_closed(&self) -> Option<(u16, &CloseReason)> {
        match self {
            Self::Client(ClientEvent::ChannelClosed { channel, reason })
            | Self::Server(ServerEvent::ChannelClosed { channel, reason }) => {
                Some((channel.number(), reason))
            }
            Self::Client(_) | Self::Server(_) => None,
        }
    }
}

impl Side {
    pub(crate) fn client(config: client::Config) -> Self {
        let now = Instant::ORIGIN;
        Self::new(
            Machine::Client(client::Connection::new(config, now).unwrap()),
            now,
        )
    }

    pub(crate) fn server(config: server::Config) -> Self {
        let now = Instant::ORIGIN;
        Self::new(
            Machine::Server(server::Connection::new(config, now).unwrap()),
            now,
        )
    }

    fn new(machine: Machine, now: Instant) -> Self {
        let input = BytesMut::new();
        Self {
            machine,
            now,
            input,
        }
    }

    /// A side of a pair in which nothing is under way.
    pub(crate) fn of(mut pair: Pair, role: Role) -> Self {
        pair.take_client_events();
        pair.take_server_events();
        let machine = match role {
            Role::Client => Machine::Client(pair.client),
            Role::Server => Machine::Server(pair.server),
        };
        Self::new(machine, pair.now)
    }

    /// Takes bytes, and returns the events.
    pub(crate) fn feed(&mut self, bytes: &[u8]) -> Vec<Event> {
        self.input.extend_from_slice(bytes);
        match &mut self.machine {
            Machine::Client(client) => client.handle_input(self.now, &mut self.input),
            Machine::Server(server) => server.handle_input(self.now, &mut self.input),
        }
        self.events()
    }

    /// Takes bytes piece by piece.
    pub(crate) fn feed_pieces<'a>(
        &mut self,
        pieces: impl IntoIterator<Item = &'a [u8]>,
    ) -> Vec<Event> {
        let pieces = pieces.into_iter();
        pieces.flat_map(|piece| self.feed(piece)).collect()
    }

    pub(crate) fn events(&mut self) -> Vec<Event> {
        let mut events = Vec::new();
        match &mut self.machine {
            Machine::Client(client) => {
                while let Some(event) = client.poll_event() {
                    events.push(Event::Client(event));
                }
            }
            Machine::Server(server) => {
                while let Some(event) = server.poll_event() {
                    events.push(Event::Server(event));
                }
            }
        }
        events
    }

    /// Takes its output.
    pub(crate) fn sent(&mut self) -> Bytes {
        let mut out = Transmit::new();
        match &mut self.machine {
            Machine::Client(client) => while client.poll_transmit(self.now, &mut out) {},
            Machine::Server(server) => while server.poll_transmit(self.now, &mut out) {},
        }
        let mut all = BytesMut::new();
        for segment in out.take_segments() {
            all.extend_from_slice(&segment);
        }
        all.freeze()
    }

    /// Takes its output, frame by frame.
    pub(crate) fn sent_frames(&mut self) -> Vec<Sent> {
        frames(&self.sent())
    }

    pub(crate) fn close_reason(&self) -> Option<&CloseReason> {
        match &self.machine {
            Machine::Client(client) => client.close_reason(),
            Machine::Server(server) => server.close_reason(),
        }
    }

    pub(crate) fn is_finished(&self) -> bool {
        match &self.machine {
            Machine::Client(client) => client.is_finished(),
            Machine::Server(server) => server.is_finished(),
        }
    }

    pub(crate) fn close(&mut self, code: ReplyCode, text: &str) {
        match &mut self.machine {
            Machine::Client(client) => client.close(code, text),
            Machine::Server(server) => server.close(code, text),
        }
    }

    /// Reports the end of the transport.
    pub(crate) fn end(&mut self) {
        match &mut self.machine {
            Machine::Client(client) => client.handle_eof(self.now),
            Machine::Server(server) => server.handle_eof(self.now),
        }
    }

    /// Lets the next deadlines pass, a few at most, until one has an event or ends the connection.
    /// `None` if none does.
    pub(crate) fn pass_deadlines(&mut self) -> Option<Vec<Event>> {
        let was_finished = self.is_finished();
        for _ in 0..10 {
            let deadline = match &self.machine {
                Machine::Client(client) => client.poll_timeout(),
                Machine::Server(server) => server.poll_timeout(),
            };
            self.now = self.now.max(deadline?.0);
            match &mut self.machine {
                Machine::Client(client) => client.handle_timeout(self.now),
                Machine::Server(server) => server.handle_timeout(self.now),
            }
            let events = self.events();
            if !events.is_empty() || self.is_finished() != was_finished {
                return Some(events);
            }
            if self.close_reason().is_none() {
                self.sent();
            }
        }
        None
    }

    /// The client, of which it is known that it is one.
    pub(crate) fn as_client(&mut self) -> &mut client::Connection {
        match &mut self.machine {
            Machine::Client(client) => client,
            Machine::Server(_) => panic!("a server"),
        }
    }

    /// The server, of which it is known that it is one.
    pub(crate) fn as_server(&mut self) -> &mut server::Connection {
        match &mut self.machine {
            Machine::Server(server) => server,
            Machine::Client(_) => panic!("a client"),
        }
    }

    /// Checks that a fault of the peer has ended the connection by the standard: with one final
    /// event that names it and, unless the connection is not opened or the boundaries of frames are
    /// lost, with one close on the wire, which has the standard's code and the method. Later input
    /// has no effect until the reply ends the connection.
    pub(crate) fn assert_failed(
        &mut self,
        events: &[Event],
        fault: &Fault,
        code: u16,
        method: Option<MethodId>,
    ) {
        assert_eq!(fault.code(), ReplyCode(code), "{fault:?}");
        let closed: Vec<_> = events.iter().filter_map(Event::closed).collect();
        let [reason] = closed[..] else {
            panic!("{fault:?} gives {events:?}");
        };
        assert_eq!(events.last().and_then(Event::closed), Some(reason));
        let CloseCause::ProtocolError(error) = reason.cause() else {
            panic!("{fault:?} gives {reason:?}");
        };
        assert_eq!((&error.fault, error.method), (fault, method));
        assert_eq!(self.close_reason(), Some(reason));
        assert_eq!(reason.code(), error.code);

        let sent = self.sent_frames();
        let Some(code) = error.code else {
            let closes = |sent: &Sent| matches!(sent.method(), Method::ConnectionClose(_));
            assert!(!sent.iter().any(closes), "{fault:?} sends {sent:?}");
            self.assert_over();
            return;
        };
        let closes: Vec<_> = sent.iter().filter(|sent| sent.channel == 0).collect();
        let [close] = closes[..] else {
            panic!("{fault:?} sends {sent:?}");
        };
        assert_eq!(sent.last(), Some(close), "nothing leaves behind a close");
        let Method::ConnectionClose(close) = close.method() else {
            panic!("{fault:?} sends {close:?}");
        };
        assert_eq!(close.reply_code, code);
        let named = MethodId::new(close.class_id, close.method_id);
        assert_eq!(code, fault.code());
        assert_eq!(named, method.unwrap_or_default(), "{fault:?}");
        assert!(!close.reply_text.is_empty());

        let lost = matches!(fault, Fault::FrameTooLarge { .. });
        assert_eq!(self.is_finished(), lost);
        let mut ignored = method_frame(1, &channel::CloseOk.into());
        ignored.extend(header_frame(9, 60, 7, u64::MAX, &[]));
        assert_eq!(self.feed(&ignored), []);
        assert_eq!(self.is_finished(), lost);
        let close_ok = connection::CloseOk;
        assert_eq!(self.feed(&method_frame(0, &close_ok.into())), []);
        self.assert_over();
    }

    /// Checks that nothing comes in or goes out any more.
    fn assert_over(&mut self) {
        assert!(self.is_finished());
        assert_eq!(self.feed(b"whatever"), []);
        assert!(self.sent().is_empty());
    }
}

/// A frame that was sent.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Sent {
    pub(crate) kind: FrameKind,
    pub(crate) channel: u16,
    pub(crate) payload: Vec<u8>,
}

impl Sent {
    pub(crate) fn method(&self) -> Method {
        assert_eq!(self.kind, FrameKind::Method);
        let (id, arguments) = split_method(&self.payload).unwrap();
        Method::decode(id, arguments).unwrap()
    }
}

impl core::fmt::Debug for Sent {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "{:?} on {}: ", self.kind, self.channel)?;
        if self.kind == FrameKind::Method {
            return self.method().fmt(f);
        }
        write!(f, "{} bytes", self.payload.len())
    }
}

/// The frames in a stream, which ends with a whole one.
pub(crate) fn frames(mut bytes: &[u8]) -> Vec<Sent> {
    let mut frames = Vec::new();
    while !bytes.is_empty() {
        let frame = Frame::parse(bytes, u32::MAX).unwrap().expect("whole");
        frames.push(Sent {
            kind: frame.kind,
            channel: frame.channel,
            payload: frame.payload.into(),
        });
        bytes = &bytes[frame.len()..];
    }
    frames
}

/// The bytes of a frame, also of one that is wrong.
pub(crate) fn raw_frame(kind: u8, channel: u16, payload: &[u8], end: u8) -> Vec<u8> {
    let mut bytes = vec![kind];
    bytes.extend(channel.to_be_bytes());
    bytes.extend(u32::try_from(payload.len()).unwrap().to_be_bytes());
    bytes.extend(payload);
    bytes.push(end);
    bytes
}

pub(crate) fn method_frame(channel: u16, method: &Method) -> Vec<u8> {
    let mut arguments = BytesMut::new();
    method.encode(&mut arguments);
    method_bytes(channel, method.id(), &arguments)
}

/// A method frame with any arguments.
pub(crate) fn method_bytes(channel: u16, id: MethodId, arguments: &[u8]) -> Vec<u8> {
    let mut payload = Vec::new();
    payload.extend(id.class.to_be_bytes());
    payload.extend(id.method.to_be_bytes());
    payload.extend(arguments);
    raw_frame(1, channel, &payload, 0xCE)
}

/// Properties that do not decode, with their faults.
pub(crate) const UNDECODABLE: [(&[u8], DecodeError); 8] = [
    (&[0], DecodeError::Truncated),
    (&[0, 1], DecodeError::Truncated),
    (&[0x80, 0], DecodeError::Truncated),
    (&[0x80, 0, 5, b'a'], DecodeError::Truncated),
    (&[0, 0, 0], DecodeError::TrailingBytes { left: 1 }),
    (&[0, 2], DecodeError::UnknownProperty),
    (
        &[0x20, 0, 0, 0, 0, 2, 0, b'?'],
        DecodeError::UnknownFieldType(b'?'),
    ),
    (
        &[0x20, 0, 0, 0, 0, 3, 0, b'S', 9],
        DecodeError::LengthMismatch,
    ),
];

/// A content header frame without properties when `flags` is empty.
pub(crate) fn header_frame(
    channel: u16,
    class: u16,
    weight: u16,
    body_size: u64,
    flags: &[u8],
) -> Vec<u8> {
    let mut payload = Vec::new();
    payload.extend(class.to_be_bytes());
    payload.extend(weight.to_be_bytes());
    payload.extend(body_size.to_be_bytes());
    payload.extend(if flags.is_empty() { &[0, 0] } else { flags });
    raw_frame(2, channel, &payload, 0xCE)
}

pub(crate) fn body_frame(channel: u16, piece: &[u8]) -> Vec<u8> {
    raw_frame(3, channel, piece, 0xCE)
}
