//! A server's connection with RabbitMQ's policy, driven by bytes, and the bytes of frames.

use amqp_broker::RabbitMq;
use amqp_core::{
    ChannelId, CloseReason, FRAME_OVERHEAD, Instant, MethodId, Transmit,
    bytes::BytesMut,
    frame::{Frame, FrameKind, PROTOCOL_HEADER, split_method},
    protocol::{Method, ReplyCode, channel, connection},
    server::{Config, Connection, Event},
    wire::Encode as _,
};

/// The progress of the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum At {
    /// `start` was sent.
    Start,
    /// `tune` was sent.
    Tune,
    /// The limits are agreed.
    Opening,
    /// Channel 1 is open.
    Open,
    /// The server has closed channel 1, and waits for the reply.
    Closing,
    /// The client has closed channel 1.
    Closed,
}

impl At {
    /// A server in that state, without output.
    pub(crate) fn side(self) -> Side {
        let mut side = Side::new();
        side.feed(&PROTOCOL_HEADER);
        if self != Self::Start {
            let start_ok = connection::StartOk::default().mechanism("PLAIN");
            side.feed(&method_frame(0, &start_ok.into()));
            side.server.accept().unwrap();
        }
        if !matches!(self, Self::Start | Self::Tune) {
            let channel_max = if self == Self::Opening { 3 } else { 2047 };
            let tune_ok = connection::TuneOk {
                channel_max,
                frame_max: 131_072,
                heartbeat: 0,
            };
            side.feed(&method_frame(0, &tune_ok.into()));
        }
        if matches!(self, Self::Open | Self::Closing | Self::Closed) {
            side.feed(&method_frame(0, &connection::Open::default().into()));
            side.server.open().unwrap();
            let events = side.feed(&method_frame(1, &channel::Open.into()));
            let Some(Event::ChannelOpened { channel }) = events.last() else {
                panic!("{events:?}");
            };
            side.leave(self, *channel);
        }
        side.sent();
        side
    }
}

pub(crate) struct Side {
    pub(crate) server: Connection,
    input: BytesMut,
}

impl Side {
    fn new() -> Self {
        let config = Config::default().policy(&RabbitMq);
        Self {
            server: Connection::new(config, Instant::ORIGIN).unwrap(),
            input: BytesMut::new(),
        }
    }

    /// Closes the channel from the side that the state demands.
    fn leave(&mut self, at: At, id: ChannelId) {
        match at {
            At::Closing => {
                let mut channel = self.server.channel(id).unwrap();
                channel.close(ReplyCode::NOT_FOUND, "no", None).unwrap();
            }
            At::Closed => {
                self.feed(&method_frame(1, &channel::Close::default().into()));
            }
            _ => {}
        }
    }

    /// Receives bytes, and returns the events.
    pub(crate) fn feed(&mut self, bytes: &[u8]) -> Vec<Event> {
        self.input.extend_from_slice(bytes);
        self.server.handle_input(Instant::ORIGIN, &mut self.input);
        std::iter::from_fn(|| self.server.poll_event()).collect()
    }

    /// Takes the output.
    pub(crate) fn sent(&mut self) -> Vec<u8> {
        let mut out = Transmit::new();
        while self.server.poll_transmit(Instant::ORIGIN, &mut out) {}
        out.segments().flatten().copied().collect()
    }

    /// Takes the frames of the output.
    pub(crate) fn sent_frames(&mut self) -> Vec<Sent> {
        let bytes = self.sent();
        let mut rest = &bytes[..];
        let mut frames = Vec::new();
        while let Some(frame) = Frame::parse(rest, u32::MAX).unwrap() {
            frames.push(Sent {
                kind: frame.kind,
                channel: frame.channel,
                payload: frame.payload.to_vec(),
            });
            rest = &rest[frame.payload.len() + FRAME_OVERHEAD..];
        }
        assert!(rest.is_empty(), "{rest:?}");
        frames
    }
}

/// A frame that was sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Sent {
    pub(crate) kind: FrameKind,
    pub(crate) channel: u16,
    payload: Vec<u8>,
}

impl Sent {
    pub(crate) fn method(&self) -> Method {
        assert_eq!(self.kind, FrameKind::Method);
        let (id, arguments) = split_method(&self.payload).unwrap();
        Method::decode(id, arguments).unwrap()
    }
}

/// The reason in the final event.
pub(crate) fn closed(event: &Event) -> Option<&CloseReason> {
    match event {
        Event::Closed(reason) => Some(reason),
        _ => None,
    }
}

/// The bytes of a frame, valid or not.
pub(crate) fn raw_frame(kind: u8, channel: u16, payload: &[u8], end: u8) -> Vec<u8> {
    let len = u32::try_from(payload.len()).unwrap();
    let [c1, c0] = channel.to_be_bytes();
    [&[kind, c1, c0], &len.to_be_bytes()[..], payload, &[end]].concat()
}

pub(crate) fn method_frame(channel: u16, method: &Method) -> Vec<u8> {
    let mut arguments = BytesMut::new();
    method.encode(&mut arguments);
    method_bytes(channel, method.id(), &arguments)
}

/// A method frame with any arguments.
pub(crate) fn method_bytes(channel: u16, id: MethodId, arguments: &[u8]) -> Vec<u8> {
    let ids = [id.class.to_be_bytes(), id.method.to_be_bytes()].concat();
    raw_frame(1, channel, &[&ids, arguments].concat(), 0xCE)
}

/// A content header frame. Without properties if `flags` is empty.
pub(crate) fn header_frame(
    channel: u16,
    class: u16,
    weight: u16,
    body_size: u64,
    flags: &[u8],
) -> Vec<u8> {
    let flags = if flags.is_empty() { &[0, 0] } else { flags };
    let head = [class.to_be_bytes(), weight.to_be_bytes()].concat();
    let payload = [&head[..], &body_size.to_be_bytes(), flags].concat();
    raw_frame(2, channel, &payload, 0xCE)
}

pub(crate) fn body_frame(channel: u16, piece: &[u8]) -> Vec<u8> {
    raw_frame(3, channel, piece, 0xCE)
}
