//! Properties of the machine and of its codec, for values of the strategies.
//!
//! `PROPTEST_CASES` sets the number of cases of each.

mod chunks;
mod codec;
mod fairness;
mod lengths;
mod negotiation;
mod outcomes;
mod pair;

use amqp_core::{
    Instant, Transmit,
    client::{Config, Connection, Event},
    frame::{Frame, PROTOCOL_HEADER},
    protocol::{Method, connection},
    strategies::OwnedFrame,
};
use bytes::{Buf as _, Bytes, BytesMut};

const NOW: Instant = Instant::ORIGIN;

/// The server's first method.
fn start() -> connection::Start {
    let start = connection::Start::default().version_minor(9);
    start.mechanisms("PLAIN").locales("en_US")
}

/// A client with an open connection, to which a server has suggested these limits.
fn open_client(config: Config, tune: connection::Tune) -> Connection {
    let mut client = Connection::new(config, NOW).unwrap();
    feed(&mut client, [OwnedFrame::method(0, start())]);
    feed(&mut client, [OwnedFrame::method(0, tune)]);
    feed(&mut client, [OwnedFrame::method(0, connection::OpenOk)]);
    assert_eq!(client.poll_event(), Some(Event::Opened));
    output(&mut client);
    client
}

fn feed(client: &mut Connection, frames: impl IntoIterator<Item = OwnedFrame>) {
    let mut input = BytesMut::new();
    for frame in frames {
        frame.as_frame().encode(&mut input);
    }
    client.handle_input(NOW, &mut input);
}

/// Takes all output, in calls of one `poll_transmit` each.
fn output(client: &mut Connection) -> Vec<Bytes> {
    let mut calls = Vec::new();
    let mut out = Transmit::new();
    while client.poll_transmit(NOW, &mut out) {
        calls.push(out.copy_to_bytes(out.remaining()));
    }
    calls
}

/// Takes a stream apart.
fn frames(stream: &[u8]) -> Vec<OwnedFrame> {
    let mut rest = stream.strip_prefix(&PROTOCOL_HEADER).unwrap_or(stream);
    let mut frames = Vec::new();
    while !rest.is_empty() {
        let frame = Frame::parse(rest, u32::MAX)
            .unwrap()
            .expect("a whole frame");
        frames.push(OwnedFrame {
            kind: frame.kind,
            channel: frame.channel,
            payload: Bytes::copy_from_slice(frame.payload),
        });
        rest = &rest[frame.len()..];
    }
    frames
}

/// The method in a frame; `Some` if it is a method frame.
fn method(frame: &OwnedFrame) -> Option<Method> {
    if frame.kind != amqp_core::frame::FrameKind::Method {
        return None;
    }
    let (id, arguments) = amqp_core::frame::split_method(&frame.payload).unwrap();
    Some(Method::decode(id, arguments).unwrap())
}
