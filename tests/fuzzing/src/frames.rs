//! A list of frames with chosen and with damaged fields, for a client, a server and a broker.

use amqp_core::{
    MethodId,
    frame::{FrameKind, PROTOCOL_HEADER},
    protocol::{basic, channel, connection, rule},
};
use amqp_test_support::{
    frames::{frame, login, method},
    replay,
};
use bytes::BytesMut;

use crate::{
    broker,
    layouts::{Kind, LAYOUTS, Layout, PROPERTIES},
    machines,
    script::Script,
};

/// Names that mean something to one side.
const NAMES: [&str; 24] = [
    "",
    "q",
    "x",
    "t",
    "/",
    "guest",
    "PLAIN",
    "AMQPLAIN",
    "en_US",
    "direct",
    "fanout",
    "topic",
    "headers",
    "amq.direct",
    "amq.topic",
    "amq.fanout",
    "amq.headers",
    "amq.x",
    "a.b",
    "#",
    "*.a",
    "amq.rabbitmq.reply-to",
    "5",
    "\u{e9}",
];

/// Names of fields that mean something to one side.
const FIELDS: [&str; 24] = [
    "x-message-ttl",
    "x-expires",
    "x-max-length",
    "x-max-length-bytes",
    "x-overflow",
    "x-dead-letter-exchange",
    "x-dead-letter-routing-key",
    "x-max-priority",
    "x-single-active-consumer",
    "x-queue-type",
    "x-delivery-limit",
    "x-priority",
    "x-match",
    "alternate-exchange",
    "x-max-age",
    "x-stream-max-segment-size-bytes",
    "x-stream-offset",
    "CC",
    "BCC",
    "x-death",
    "capabilities",
    "LOGIN",
    "PASSWORD",
    "product",
];

/// Texts of such fields.
const TEXTS: [&str; 10] = [
    "",
    "quorum",
    "stream",
    "classic",
    "any",
    "first",
    "1s",
    "reject-publish",
    "amq.fanout",
    "q",
];

/// The tags of field values, and one of none.
const TAGS: &[u8] = b"tbBsuIilLfdDSATFxVz";

/// The first byte chooses the side, the second the size of pieces; the rest are the frames.
pub fn frames(input: &[u8]) {
    let mut script = Script::new(input);
    let side = script.byte();
    let of_server = side.is_multiple_of(3);
    let pieces = script.byte();
    let mut stream = BytesMut::new();
    if side & 4 == 0 {
        open(of_server, 60, &mut stream);
    } else if !of_server {
        stream.extend_from_slice(&PROTOCOL_HEADER);
    }
    while !script.is_empty() {
        one_or_more(&mut script, of_server, &mut stream);
    }
    match side % 3 {
        0 => machines::play(pieces.into(), &stream, replay::client),
        1 => machines::play(pieces.into(), &stream, replay::server),
        _ => broker::play(side >> 3, pieces.into(), &stream),
    }
}

/// The part of one side in the handshake, and two channels.
pub fn open(of_server: bool, heartbeat: u16, out: &mut BytesMut) {
    if of_server {
        let start = connection::Start {
            version_minor: 9,
            mechanisms: "PLAIN AMQPLAIN".into(),
            locales: "en_US".into(),
            ..connection::Start::default()
        };
        method(0, start, out);
        let tune = connection::Tune {
            channel_max: 2047,
            frame_max: 131_072,
            heartbeat,
        };
        method(0, tune, out);
        method(0, connection::OpenOk, out);
        method(1, channel::OpenOk, out);
        method(2, channel::OpenOk, out);
    } else {
        out.extend_from_slice(&PROTOCOL_HEADER);
        method(0, login("guest"), out);
        let tune_ok = connection::TuneOk {
            channel_max: 20,
            frame_max: 8192,
            heartbeat,
        };
        method(0, tune_ok, out);
        let open = connection::Open {
            virtual_host: "/".parse().unwrap(),
        };
        method(0, open, out);
        method(1, channel::Open, out);
        method(2, channel::Open, out);
    }
}

fn one_or_more(script: &mut Script<'_>, of_server: bool, out: &mut BytesMut) {
    let what = script.byte() % 16;
    let number = if script.one_in(8) {
        u16::from_be_bytes(script.array())
    } else {
        script.below(3) as u16
    };
    let mut payload = BytesMut::new();
    match what {
        0..9 => {
            let layout = &LAYOUTS[script.below(LAYOUTS.len())];
            // Methods of the connection are on its own channel, unless a byte says otherwise.
            let id = MethodId::new(layout.0, layout.1);
            let of_connection = rule(id).is_some_and(|rule| rule.connection);
            let number = match (of_connection, script.one_in(16)) {
                (true, false) => 0,
                (false, false) => number.max(1),
                _ => number,
            };
            arguments(script, layout, &mut payload);
            whole(script, FrameKind::Method, number, &payload, out);
        }
        9 => {
            header(script, 60, &mut payload);
            whole(script, FrameKind::Header, number, &payload, out);
        }
        10 => {
            let body = script.below(64);
            payload.extend_from_slice(script.take(body));
            whole(script, FrameKind::Body, number, &payload, out);
        }
        11 => whole(script, FrameKind::Heartbeat, 0, &payload, out),
        12 => {
            let len = script.below(32);
            out.extend_from_slice(script.take(len));
        }
        _ => message(script, of_server, number.max(1), out),
    }
}

/// A message that is whole, with its method.
fn message(script: &mut Script<'_>, of_server: bool, number: u16, out: &mut BytesMut) {
    let name = |script: &mut Script<'_>| script.pick(&NAMES).parse().unwrap();
    if of_server {
        let deliver = basic::Deliver {
            consumer_tag: name(script),
            delivery_tag: u64::from(script.byte()),
            redelivered: script.one_in(2),
            exchange: name(script),
            routing_key: name(script),
        };
        method(number, deliver, out);
    } else {
        let publish = basic::Publish {
            exchange: name(script),
            routing_key: name(script),
            mandatory: script.one_in(2),
            immediate: script.one_in(16),
        };
        method(number, publish, out);
    }
    let size = script.below(40);
    let mut payload = BytesMut::new();
    payload.extend_from_slice(&[0, 60, 0, 0, 0, 0, 0, 0, 0, 0, 0, size as u8]);
    properties(script, &mut payload);
    frame(FrameKind::Header, number, &payload, out);
    let cut = script.below(size + 1);
    for len in [cut, size - cut] {
        if len > 0 {
            frame(FrameKind::Body, number, &vec![b'x'; len], out);
        }
    }
}

/// The frame, or one that is damaged.
fn whole(
    script: &mut Script<'_>,
    kind: FrameKind,
    number: u16,
    payload: &[u8],
    out: &mut BytesMut,
) {
    let start = out.len();
    frame(kind, number, payload, out);
    if !script.one_in(16) {
        return;
    }
    let len = out.len() - start;
    match script.byte() % 5 {
        0 => out[start] = script.byte(),
        1 => {
            let size = u32::from_be_bytes(script.array());
            out[start + 3..start + 7].copy_from_slice(&size.to_be_bytes());
        }
        2 => out[start + len - 1] = script.byte(),
        3 => out.truncate(start + script.below(len)),
        _ => {
            let at = start + script.below(len);
            out[at] ^= 1 << script.below(8);
        }
    }
}

/// The ids and the arguments of a method.
fn arguments(script: &mut Script<'_>, layout: &Layout, out: &mut BytesMut) {
    let (class, number, kinds) = *layout;
    out.extend_from_slice(&class.to_be_bytes());
    out.extend_from_slice(&number.to_be_bytes());
    let mut bits = 0;
    for kind in kinds {
        if *kind == Kind::Bit {
            // One octet has up to eight of them.
            if bits % 8 == 0 {
                let octet = script.byte();
                out.extend_from_slice(&[octet]);
            }
            bits += 1;
        } else {
            bits = 0;
            argument(script, *kind, 1, out);
        }
    }
    match script.byte() {
        0xFE => out.truncate(4 + script.below(out.len())),
        0xFF => out.extend_from_slice(script.take(1)),
        _ => {}
    }
}

fn header(script: &mut Script<'_>, class: u16, out: &mut BytesMut) {
    let class = if script.one_in(16) { 50 } else { class };
    out.extend_from_slice(&class.to_be_bytes());
    let weight = u16::from(script.one_in(16));
    out.extend_from_slice(&weight.to_be_bytes());
    let size = match script.byte() {
        0xFF => u64::MAX,
        0xFE => 1 << 31,
        size => size.into(),
    };
    out.extend_from_slice(&size.to_be_bytes());
    properties(script, out);
}

fn properties(script: &mut Script<'_>, out: &mut BytesMut) {
    let flags = match script.byte() % 4 {
        0 => 0,
        1 => u16::from_be_bytes(script.array()),
        _ => u16::from_be_bytes(script.array()) & 0xFFFC,
    };
    out.extend_from_slice(&flags.to_be_bytes());
    for (bit, kind) in PROPERTIES.iter().enumerate() {
        if flags & (0x8000 >> bit) != 0 {
            argument(script, *kind, 1, out);
        }
    }
}

fn argument(script: &mut Script<'_>, kind: Kind, depth: usize, out: &mut BytesMut) {
    match kind {
        Kind::Bit | Kind::Octet => out.extend_from_slice(&script.array::<1>()),
        Kind::Short => out.extend_from_slice(&(number(script) as u16).to_be_bytes()),
        Kind::Long => out.extend_from_slice(&(number(script) as u32).to_be_bytes()),
        Kind::LongLong | Kind::Timestamp => out.extend_from_slice(&number(script).to_be_bytes()),
        Kind::ShortStr => {
            let text = text(script, &NAMES);
            out.extend_from_slice(&[text.len() as u8]);
            out.extend_from_slice(text);
        }
        Kind::LongStr => long(script, &NAMES, out),
        Kind::Table => table(script, depth, out),
    }
}

/// Small numbers, and those at the ends of ranges.
fn number(script: &mut Script<'_>) -> u64 {
    match script.byte() {
        0xFF => u64::MAX,
        0xFE => u64::from_be_bytes(script.array()),
        0xFD => 1 << 31,
        0xFC => i64::MAX as u64,
        0xFB => 4096,
        small => small.into(),
    }
}

fn text<'a>(script: &mut Script<'a>, from: &[&'static str]) -> &'a [u8] {
    let which = script.byte();
    match from.get(usize::from(which)) {
        Some(text) => text.as_bytes(),
        None if which == 0xFF => &[b'l'; 255],
        None => script.take(usize::from(which % 16)),
    }
}

fn long(script: &mut Script<'_>, from: &[&'static str], out: &mut BytesMut) {
    let text = text(script, from);
    let len = if script.one_in(32) {
        u32::from_be_bytes(script.array())
    } else {
        text.len() as u32
    };
    out.extend_from_slice(&len.to_be_bytes());
    out.extend_from_slice(text);
}

/// A table, mostly with the length that it has.
fn table(script: &mut Script<'_>, depth: usize, out: &mut BytesMut) {
    let mut fields = BytesMut::new();
    for _ in 0..script.below(4) {
        let name = text(script, &FIELDS);
        fields.extend_from_slice(&[name.len() as u8]);
        fields.extend_from_slice(name);
        value(script, depth, &mut fields);
    }
    put_long(script, &fields, out);
}

fn put_long(script: &mut Script<'_>, bytes: &[u8], out: &mut BytesMut) {
    let wrong = script.one_in(32);
    let len = bytes.len() as u32 + if wrong { u32::from(script.byte()) } else { 0 };
    out.extend_from_slice(&len.to_be_bytes());
    out.extend_from_slice(bytes);
}

fn value(script: &mut Script<'_>, depth: usize, out: &mut BytesMut) {
    let tag = script.pick(TAGS);
    out.extend_from_slice(&[tag]);
    match tag {
        b't' | b'b' | b'B' => argument(script, Kind::Octet, depth, out),
        b's' | b'u' => argument(script, Kind::Short, depth, out),
        b'I' | b'i' => argument(script, Kind::Long, depth, out),
        b'f' => out.extend_from_slice(&script.array::<4>()),
        b'l' | b'L' | b'T' => argument(script, Kind::LongLong, depth, out),
        b'd' => out.extend_from_slice(&script.array::<8>()),
        b'D' => out.extend_from_slice(&script.array::<5>()),
        b'S' | b'x' => long(script, &TEXTS, out),
        b'F' if depth < 40 => table(script, depth + 1, out),
        b'A' if depth < 40 => {
            let mut values = BytesMut::new();
            for _ in 0..script.below(4) {
                value(script, depth + 1, &mut values);
            }
            put_long(script, &values, out);
        }
        b'F' | b'A' => out.extend_from_slice(&[0; 4]),
        _ => {}
    }
}
