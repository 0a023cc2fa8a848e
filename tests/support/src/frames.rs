//! The frames of a client without any behaviour of its own, as bytes.

use amqp_core::{
    frame::{Frame, FrameKind},
    protocol::{Method, basic, connection},
    wire::{Encode as _, Secret},
};
use bytes::BytesMut;

/// The size of a header frame for class `basic` without properties, in bytes.
const HEADER: usize = 14;

/// Appends a frame.
pub fn frame(kind: FrameKind, channel: u16, payload: &[u8], out: &mut BytesMut) {
    Frame {
        kind,
        channel,
        payload,
    }
    .encode(out);
}

/// Appends a method.
pub fn method(channel: u16, method: impl Into<Method>, out: &mut BytesMut) {
    let method = method.into();
    let id = method.id();
    let mut payload = BytesMut::new();
    payload.extend_from_slice(&id.class.to_be_bytes());
    payload.extend_from_slice(&id.method.to_be_bytes());
    method.encode(&mut payload);
    frame(FrameKind::Method, channel, &payload, out);
}

/// Appends a publish to the default exchange on channel 1, up to the header of a body of that size.
pub fn announce(queue: &str, size: u64, out: &mut BytesMut) {
    let publish = basic::Publish::default().routing_key(queue);
    method(1, publish, out);
    let mut header = [0; HEADER];
    header[1] = 60;
    header[4..12].copy_from_slice(&size.to_be_bytes());
    frame(FrameKind::Header, 1, &header, out);
}

/// Appends a piece of a body on channel 1.
pub fn body(piece: &[u8], out: &mut BytesMut) {
    frame(FrameKind::Body, 1, piece, out);
}

/// `connection.start-ok` of the user `guest`.
#[must_use]
pub fn login(password: &str) -> connection::StartOk {
    connection::StartOk {
        mechanism: "PLAIN".try_into().unwrap(),
        response: Secret::from(format!("\0guest\0{password}")),
        locale: "en_US".try_into().unwrap(),
        ..connection::StartOk::default()
    }
}
