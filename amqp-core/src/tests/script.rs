//! One machine, and a scripted peer, frame by frame.

use alloc::{vec, vec::Vec};

use bytes::{Buf as _, BytesMut};
use core::{fmt::Debug, time::Duration};

use crate::{
    ChannelId, ConsumerId, DeliveryTag, Endpoint, Instant, MethodDef, PublishSeq, RequestId,
    TimeoutReason, Transmit,
    client::{self, Event, Outcome},
    frame::{Frame, FrameKind, PROTOCOL_HEADER, split_method},
    protocol::{Method, basic, channel, confirm, connection, tx},
    server,
    wire::{Encode, ShortStr},
};

/// One side of a connection, and the bytes from the other end of the wire.
#[derive(Debug)]
pub(crate) struct Script<C> {
    pub(crate) now: Instant,
    pub(crate) conn: C,
    input: BytesMut,
}

/// A frame that the machine has sent.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Sent {
    pub(crate) channel: u16,
    pub(crate) what: What,
}

/// The content of a frame.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum What {
    Method(Method),
    /// A content header: the body's size, and the encoded properties.
    Header(u64, Vec<u8>),
    Body(Vec<u8>),
    Heartbeat,
}

/// A frame with a method in it.
pub(crate) fn method(channel: u16, method: impl Into<Method>) -> Sent {
    let what = What::Method(method.into());
    Sent { channel, what }
}

/// The frames of a publish without properties, with a body of at most one frame.
pub(crate) fn content(channel: u16, publish: impl Into<Method>, body: &[u8]) -> Vec<Sent> {
    let header = What::Header(body.len() as u64, vec![0, 0]);
    let mut frames = vec![
        method(channel, publish),
        Sent {
            channel,
            what: header,
        },
    ];
    if !body.is_empty() {
        let what = What::Body(body.to_vec());
        frames.push(Sent { channel, what });
    }
    frames
}

/// A short string of a test's own, which fits.
pub(crate) fn name(text: &str) -> ShortStr {
    ShortStr::try_from(text).unwrap()
}

pub(crate) fn tag(number: u64) -> DeliveryTag {
    DeliveryTag::new(number).unwrap()
}

pub(crate) fn seq(number: u64) -> PublishSeq {
    PublishSeq(number)
}

/// A frame.
pub(crate) fn frame(kind: FrameKind, channel: u16, payload: &[u8]) -> Vec<u8> {
    let mut out = BytesMut::new();
    let frame = Frame {
        kind,
        channel,
        payload,
    };
    frame.encode(&mut out);
    out.to_vec()
}

/// A method frame.
pub(crate) fn method_frame<M: MethodDef>(channel: u16, method: &M) -> Vec<u8> {
    let mut payload = BytesMut::new();
    payload.extend_from_slice(&M::ID.class.to_be_bytes());
    payload.extend_from_slice(&M::ID.method.to_be_bytes());
    method.encode(&mut payload);
    frame(FrameKind::Method, channel, &payload)
}

/// The frame of a content header of the basic class.
pub(crate) fn header_frame(channel: u16, properties: &basic::Properties, size: u64) -> Vec<u8> {
    let mut payload = BytesMut::new();
    payload.extend_from_slice(&[0, 60, 0, 0]);
    payload.extend_from_slice(&size.to_be_bytes());
    properties.encode(&mut payload);
    frame(FrameKind::Header, channel, &payload)
}

/// The frames that a machine has sent, taken apart.
pub(crate) fn frames(mut bytes: &[u8]) -> Vec<Sent> {
    let mut all = Vec::new();
    while !bytes.is_empty() {
        let frame = Frame::parse(bytes, u32::MAX).unwrap().unwrap();
        let payload = frame.payload;
        let what = match frame.kind {
            FrameKind::Method => {
                let (id, arguments) = split_method(payload).unwrap();
                What::Method(Method::decode(id, arguments).unwrap())
            }
            FrameKind::Header => {
                assert_eq!(payload[..4], [0, 60, 0, 0]);
                let size = u64::from_be_bytes(payload[4..12].try_into().unwrap());
                What::Header(size, payload[12..].to_vec())
            }
            FrameKind::Body => What::Body(payload.to_vec()),
            FrameKind::Heartbeat => What::Heartbeat,
        };
        let channel = frame.channel;
        all.push(Sent { channel, what });
        bytes = &bytes[frame.len()..];
    }
    all
}

impl<C: Endpoint> Script<C> {
    fn of(conn: C, now: Instant) -> Self {
        Self {
            now,
            conn,
            input: BytesMut::new(),
        }
    }

    /// Bytes come in.
    pub(crate) fn feed(&mut self, bytes: &[u8]) {
        self.input.extend_from_slice(bytes);
        self.conn.handle_input(self.now, &mut self.input);
    }

    /// A method comes in.
    pub(crate) fn send<M: MethodDef>(&mut self, channel: u16, method: &M) {
        self.feed(&method_frame(channel, method));
    }

    /// A method with content comes in.
    pub(crate) fn send_content<M: MethodDef>(
        &mut self,
        channel: u16,
        method: &M,
        properties: &basic::Properties,
        body: &[u8],
    ) {
        self.send(channel, method);
        self.feed(&header_frame(channel, properties, body.len() as u64));
        for piece in body.chunks(4000) {
            self.feed(&frame(FrameKind::Body, channel, piece));
        }
    }

    /// All bytes that are to be sent.
    pub(crate) fn bytes(&mut self) -> Vec<u8> {
        let calls =
            core::iter::from_fn(|| Some(self.bytes_once()).filter(|bytes| !bytes.is_empty()));
        calls.flatten().collect()
    }

    /// The bytes that one call hands out.
    pub(crate) fn bytes_once(&mut self) -> Vec<u8> {
        let mut out = Transmit::new();
        self.conn.poll_transmit(self.now, &mut out);
        out.copy_to_bytes(out.remaining()).to_vec()
    }

    /// All frames that are to be sent.
    pub(crate) fn sent(&mut self) -> Vec<Sent> {
        frames(&self.bytes())
    }

    /// The only frame that is to be sent, which holds a method.
    pub(crate) fn only_method(&mut self) -> Method {
        match <[Sent; 1]>::try_from(self.sent()) {
            Ok(
                [
                    Sent {
                        what: What::Method(method),
                        ..
                    },
                ],
            ) => method,
            other => panic!("{other:?}"),
        }
    }

    /// Time passes, and the machine is called whenever it wants to be; gives back when and why.
    pub(crate) fn advance(&mut self, span: Duration) -> Vec<(Instant, TimeoutReason)> {
        let end = self.now + span;
        let mut calls = Vec::new();
        while let Some((at, reason)) = self.conn.poll_timeout().filter(|&(at, _)| at <= end) {
            calls.push((at, reason));
            assert!(calls.len() < 1_000_000, "a busy loop: {reason}");
            self.now = self.now.max(at);
            self.conn.handle_timeout(self.now);
            if let Some((next, reason)) = self.conn.poll_timeout() {
                assert!(
                    next > self.now,
                    "called at {:?} for {reason} again",
                    self.now
                );
            }
        }
        self.now = end;
        calls
    }
}

impl Script<client::Connection> {
    /// A client that has just connected, its protocol header taken.
    pub(crate) fn new(config: client::Config) -> Self {
        let now = Instant::ORIGIN + Duration::from_secs(1000);
        let conn = client::Connection::new(config, now).unwrap();
        let mut script = Self::of(conn, now);
        assert_eq!(script.bytes(), PROTOCOL_HEADER);
        script
    }

    /// An open client, with limits as RabbitMQ has them, but no heartbeats.
    pub(crate) fn open() -> Self {
        Self::open_with(client::Config::default())
    }

    /// An open client that accepts publishes however much output waits.
    pub(crate) fn roomy() -> Self {
        let mut config = client::Config::default();
        config.limits.output_high = usize::MAX;
        Self::open_with(config)
    }

    pub(crate) fn open_with(config: client::Config) -> Self {
        let tune = connection::Tune {
            channel_max: 2047,
            frame_max: 131_072,
            heartbeat: 0,
        };
        Self::tuned(config, &tune)
    }

    /// An open client to which the server suggested that.
    pub(crate) fn tuned(config: client::Config, tune: &connection::Tune) -> Self {
        let mut script = Self::new(config);
        script.send(0, &start());
        script.send(0, tune);
        script.send(0, &connection::OpenOk);
        assert_eq!(script.events(), [Event::Opened]);
        script.bytes();
        script
    }

    /// The client of the next life of the connection, open.
    pub(crate) fn resumed(mut self, config: client::Config) -> Self {
        self.conn.resume(config, self.now).unwrap();
        let mut script = Self::of(self.conn, self.now);
        assert_eq!(script.bytes(), PROTOCOL_HEADER);
        script.send(0, &start());
        script.send(
            0,
            &connection::Tune::default()
                .frame_max(131_072)
                .channel_max(2047),
        );
        script.send(0, &connection::OpenOk);
        assert_eq!(script.events(), [Event::Opened]);
        script.bytes();
        script
    }

    /// Opens a channel again.
    pub(crate) fn reopen(&mut self, id: ChannelId) {
        let request = self.conn.reopen_channel(id).unwrap();
        assert_eq!(self.sent(), [method(id.number(), channel::Open)]);
        self.send(id.number(), &channel::OpenOk);
        assert_eq!(self.events(), [replied(id, request, channel::OpenOk)]);
    }

    pub(crate) fn events(&mut self) -> Vec<Event> {
        core::iter::from_fn(|| self.conn.poll_event()).collect()
    }

    pub(crate) fn only_event(&mut self) -> Event {
        let [event] = <[Event; 1]>::try_from(self.events()).unwrap();
        event
    }

    /// Opens a channel.
    pub(crate) fn channel(&mut self) -> ChannelId {
        let (id, request) = self.conn.open_channel().unwrap();
        assert_eq!(self.sent(), [method(id.number(), channel::Open)]);
        self.send(id.number(), &channel::OpenOk);
        assert_eq!(self.events(), [replied(id, request, channel::OpenOk)]);
        id
    }

    /// Opens a channel in confirm mode.
    pub(crate) fn confirm_channel(&mut self) -> ChannelId {
        let id = self.channel();
        self.call(id, &confirm::Select::default(), &confirm::SelectOk);
        id
    }

    /// Opens a transactional channel.
    pub(crate) fn tx_channel(&mut self) -> ChannelId {
        let id = self.channel();
        self.call(id, &tx::Select, &tx::SelectOk);
        id
    }

    /// Makes a request and answers it.
    pub(crate) fn call<R>(&mut self, id: ChannelId, request: &R, reply: &impl MethodDef)
    where
        R: crate::Request + crate::ClientSent,
    {
        let waiting = self.on(id).call(request).unwrap();
        assert_eq!(self.sent(), [method(id.number(), request.clone())]);
        self.send(id.number(), reply);
        assert_eq!(self.events(), [replied(id, waiting, reply.clone())]);
    }

    /// Starts a consumer.
    pub(crate) fn consumer(&mut self, id: ChannelId, tag: &str, no_ack: bool) -> ConsumerId {
        let (consumer, request) = self.consume(id, consume("queue", tag).no_ack(no_ack));
        self.bytes();
        let ok = basic::ConsumeOk::default().consumer_tag(tag);
        self.send(id.number(), &ok);
        assert_eq!(self.events(), [replied(id, request, ok)]);
        consumer
    }

    /// Asks for a consumer.
    pub(crate) fn consume(
        &mut self,
        id: ChannelId,
        consume: basic::Consume,
    ) -> (ConsumerId, RequestId) {
        let (consumer, _, request) = self.on(id).consume(consume).unwrap();
        (consumer, request)
    }

    /// The commands of a channel.
    pub(crate) fn on(&mut self, id: ChannelId) -> client::ChannelMut<'_> {
        self.conn.channel(id).unwrap()
    }

    /// Publishes a few bytes to `queue`.
    pub(crate) fn publish(&mut self, id: ChannelId, body: &'static [u8]) -> Option<PublishSeq> {
        let publish = publish("queue");
        self.on(id)
            .publish(&publish, &basic::Properties::default(), body)
            .unwrap()
    }

    /// Delivers a few bytes.
    pub(crate) fn deliver(&mut self, id: ChannelId, tag: &str, number: u64) {
        self.deliver_to(id.number(), tag, number);
    }

    /// Delivers a few bytes on the channel of that number.
    pub(crate) fn deliver_to(&mut self, channel: u16, tag: &str, number: u64) {
        let properties = basic::Properties::default();
        self.send_content(channel, &deliver(tag, number), &properties, b"body");
    }
}

impl Script<server::Connection> {
    /// A server that has just accepted a connection.
    pub(crate) fn server(config: server::Config) -> Self {
        let now = Instant::ORIGIN + Duration::from_secs(1000);
        Self::of(server::Connection::new(config, now).unwrap(), now)
    }

    pub(crate) fn server_events(&mut self) -> Vec<server::Event> {
        core::iter::from_fn(|| self.conn.poll_event()).collect()
    }
}

/// RabbitMQ's first method, without its properties.
pub(crate) fn start() -> connection::Start {
    connection::Start {
        version_major: 0,
        version_minor: 9,
        mechanisms: "PLAIN AMQPLAIN".into(),
        locales: "en_US".into(),
        ..connection::Start::default()
    }
}

pub(crate) fn consume(queue: &str, tag: &str) -> basic::Consume {
    basic::Consume {
        queue: name(queue),
        consumer_tag: name(tag),
        ..basic::Consume::default()
    }
}

/// A publish through the default exchange.
pub(crate) fn publish(queue: &str) -> basic::Publish {
    basic::Publish {
        routing_key: name(queue),
        ..basic::Publish::default()
    }
}

pub(crate) fn deliver(tag: &str, number: u64) -> basic::Deliver {
    basic::Deliver {
        consumer_tag: name(tag),
        delivery_tag: number,
        ..basic::Deliver::default()
    }
}

pub(crate) fn ack(number: u64, multiple: bool) -> basic::Ack {
    basic::Ack {
        delivery_tag: number,
        multiple,
    }
}

pub(crate) fn nack(number: u64, multiple: bool) -> basic::Nack {
    basic::Nack {
        delivery_tag: number,
        multiple,
        requeue: false,
    }
}

pub(crate) fn replied(id: ChannelId, request: RequestId, reply: impl Into<Method>) -> Event {
    Event::Reply {
        channel: Some(id),
        request,
        reply: reply.into(),
    }
}

/// The event of publishes that were settled.
pub(crate) fn settled(id: ChannelId, first: u64, last: u64, outcome: Outcome) -> Event {
    Event::Settled {
        channel: id,
        first: seq(first),
        last: seq(last),
        outcome,
    }
}

/// The output of one channel, bodies in one piece.
pub(crate) fn of_channel(sent: &[Sent], number: u16) -> Vec<What> {
    let mut all: Vec<What> = Vec::new();
    for frame in sent.iter().filter(|frame| frame.channel == number) {
        match (all.last_mut(), &frame.what) {
            (Some(What::Body(body)), What::Body(more)) => body.extend_from_slice(more),
            (_, what) => all.push(what.clone()),
        }
    }
    all
}
