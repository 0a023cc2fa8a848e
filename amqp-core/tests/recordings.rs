//! Recorded conversations of other clients with RabbitMQ: every stream decodes, in any pieces,
//! encodes back to the same bytes, and is understood by the machine of the side that it was meant
//! for.
//!
//! The recordings are those of `tests/captures`, and all in the directories that the environment
//! variable `AMQP_CAPTURES` names (separated as in `PATH`).

use std::{
    collections::BTreeMap,
    env,
    ffi::OsStr,
    fs,
    path::{Path, PathBuf},
};

use amqp_core::{
    CloseCause, MethodDef as _,
    frame::{ContentHeader, Frame, FrameKind, PROTOCOL_HEADER, split_method},
    protocol::{self, Method, basic::Properties, connection},
    wire::{Decode as _, Encode},
};
use amqp_test_support::replay;
use bytes::BytesMut;
use nom::{
    IResult, Parser as _,
    bytes::complete::tag,
    combinator::{all_consuming, map_opt},
    multi::{length_data, many0},
    number::complete::{be_u8, be_u16, be_u32},
    sequence::terminated,
};

/// The frames of all recordings are smaller, in bytes.
const LIMIT: u32 = 1 << 20;

/// One direction of one connection.
struct Stream {
    path: PathBuf,
    /// Whether the stream is the client's; the server's otherwise.
    from_client: bool,
    /// Without the client's protocol header.
    frames: Vec<u8>,
}

impl Stream {
    fn read(path: PathBuf) -> Option<Self> {
        let from_client = match path.extension().and_then(OsStr::to_str) {
            Some("c2s") => true,
            Some("s2c") => false,
            _ => return None,
        };
        let mut frames = fs::read(&path).unwrap();
        if from_client {
            assert!(frames.starts_with(&PROTOCOL_HEADER), "{}", path.display());
            frames.drain(..PROTOCOL_HEADER.len());
        }
        Some(Self {
            path,
            from_client,
            frames,
        })
    }

    /// All bytes, with the protocol header.
    fn bytes(&self) -> Vec<u8> {
        let header = if self.from_client {
            &PROTOCOL_HEADER[..]
        } else {
            &[]
        };
        [header, &self.frames].concat()
    }

    /// The frames, read without the code under test.
    fn frames(&self) -> Vec<Frame<'_>> {
        let parsed = all_consuming(many0(frame)).parse(&self.frames[..]);
        let (_, frames) = parsed.expect("whole frames");
        frames
    }
}

/// Consumes a frame (section 4.2.3 of the specification).
fn frame(input: &[u8]) -> IResult<&[u8], Frame<'_>> {
    let kind = map_opt(be_u8, |kind| match kind {
        1 => Some(FrameKind::Method),
        2 => Some(FrameKind::Header),
        3 => Some(FrameKind::Body),
        8 => Some(FrameKind::Heartbeat),
        _ => None,
    });
    terminated((kind, be_u16, length_data(be_u32)), tag(&b"\xce"[..]))
        .map(|(kind, channel, payload)| Frame {
            kind,
            channel,
            payload,
        })
        .parse(input)
}

/// The recordings, in the order of their names.
fn streams() -> Vec<Stream> {
    let own = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/captures");
    let others = env::var_os("AMQP_CAPTURES").unwrap_or_default();
    let others = env::split_paths(&others).filter(|path| !path.as_os_str().is_empty());
    let mut paths = Vec::new();
    for directory in [own].into_iter().chain(others) {
        let entries = fs::read_dir(&directory)
            .unwrap_or_else(|error| panic!("{}: {error}", directory.display()));
        paths.extend(entries.map(|entry| entry.unwrap().path()));
    }
    paths.sort();
    let streams: Vec<_> = paths.into_iter().filter_map(Stream::read).collect();
    assert!(streams.len() >= 20, "where are the recordings?");
    streams
}

/// The frame, decoded and encoded again.
fn encoded_again(frame: &Frame<'_>) -> BytesMut {
    let mut payload = BytesMut::new();
    match frame.kind {
        FrameKind::Method => {
            let (id, arguments) = split_method(frame.payload).unwrap();
            let method = Method::decode(id, arguments).unwrap();
            assert_eq!(method.id(), id);
            assert_eq!(method.encoded_len(), arguments.len());
            payload.extend_from_slice(&id.class.to_be_bytes());
            payload.extend_from_slice(&id.method.to_be_bytes());
            method.encode(&mut payload);
        }
        FrameKind::Header => {
            let header = ContentHeader::parse(frame.payload).unwrap();
            assert_eq!((header.class, header.weight), (60, 0));
            let properties = Properties::decode(header.properties).unwrap();
            assert_eq!(properties.encoded_len(), header.properties.len());
            assert_eq!(Properties::check(header.properties), Ok(()));
            payload.extend_from_slice(&header.class.to_be_bytes());
            payload.extend_from_slice(&header.weight.to_be_bytes());
            payload.extend_from_slice(&header.body_size.to_be_bytes());
            properties.encode(&mut payload);
        }
        FrameKind::Body => payload.extend_from_slice(frame.payload),
        FrameKind::Heartbeat => assert!(frame.payload.is_empty() && frame.channel == 0),
    }
    let mut out = BytesMut::new();
    let again = Frame {
        payload: &payload,
        ..*frame
    };
    again.encode(&mut out);
    out
}

/// The bytes of a frame without its reserved fields, which are not kept: pika sets a bit in
/// `connection.open` that was `insist` before version 0-9-1, and is reserved since.
fn without_reserved(frame: &Frame<'_>, bytes: &[u8]) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    let open = frame.kind == FrameKind::Method
        && split_method(frame.payload).unwrap().0 == connection::Open::ID;
    if open && let [.., insist, _end] = &mut bytes[..] {
        *insist = 0;
    }
    bytes
}

#[test]
fn every_recorded_frame_encodes_back_to_the_same_bytes() {
    let (mut count, mut reserved, mut methods) = (0, 0, BTreeMap::new());
    for stream in streams() {
        let mut at = 0;
        for frame in stream.frames() {
            let bytes = &stream.frames[at..at + frame.len()];
            at += bytes.len();
            count += 1;
            let again = encoded_again(&frame);
            let shown = || {
                let (id, _) = split_method(frame.payload).unwrap_or_default();
                let path = stream.path.display();
                format!("{path} at {at}: {:?} {id:?} {bytes:02x?}", frame.kind)
            };
            let kept = without_reserved(&frame, bytes);
            reserved += usize::from(kept != bytes);
            assert!(again == kept, "{}\nand again {:02x?}", shown(), &again[..]);
            if frame.kind == FrameKind::Method {
                let (id, _) = split_method(frame.payload).unwrap();
                let rule = protocol::rule(id).unwrap();
                let right = if stream.from_client {
                    rule.client_sends
                } else {
                    rule.server_sends
                };
                assert!(right, "{} is not the sender's", rule.name);
                assert_eq!(rule.connection, frame.channel == 0, "{}", rule.name);
                *methods.entry(rule.name).or_insert(0) += 1;
            }
        }
        assert_eq!(at, stream.frames.len());
    }
    println!("{count} frames, {reserved} of them with reserved bits, which are not kept");
    println!("methods: {methods:?}");
    let missing = protocol::RULES
        .iter()
        .map(|rule| rule.name)
        .filter(|name| !methods.contains_key(name));
    println!("never recorded: {:?}", missing.collect::<Vec<_>>());
}

/// Reads frames from bytes that come in pieces of that size.
fn in_pieces(bytes: &[u8], size: usize) -> Vec<(FrameKind, u16, Vec<u8>)> {
    let (mut buffer, mut frames) = (Vec::new(), Vec::new());
    for piece in bytes.chunks(size) {
        buffer.extend_from_slice(piece);
        let mut taken = 0;
        while let Some(frame) = Frame::parse(&buffer[taken..], LIMIT).unwrap() {
            taken += frame.len();
            frames.push((frame.kind, frame.channel, frame.payload.to_vec()));
        }
        buffer.drain(..taken);
    }
    assert!(buffer.is_empty());
    frames
}

#[test]
fn recorded_streams_decode_in_any_pieces() {
    for stream in streams() {
        let frames = stream.frames();
        let whole: Vec<_> = frames
            .iter()
            .map(|frame| (frame.kind, frame.channel, frame.payload.to_vec()))
            .collect();
        for size in [1, 2, 3, 7, 8, 100, 4095, 4096] {
            assert!(in_pieces(&stream.frames, size) == whole);
        }
    }
}

/// In two pieces at every position: the frames that are whole come out of the first, and the rest
/// with the second.
#[test]
fn recorded_streams_decode_in_two_pieces() {
    for stream in streams() {
        let mut start = 0;
        for frame in stream.frames() {
            let end = start + frame.len();
            for cut in start..end {
                let part = Frame::parse(&stream.frames[start..cut], LIMIT);
                assert_eq!(part, Ok(None));
            }
            let whole = Frame::parse(&stream.frames[start..end], LIMIT);
            assert_eq!(whole, Ok(Some(frame)));
            let more = Frame::parse(&stream.frames[start..], LIMIT);
            assert_eq!(more, Ok(Some(frame)));
            start = end;
        }
    }
}

/// The machine of the other side understands the whole stream, with the same result in any pieces.
#[test]
fn recorded_streams_are_understood() {
    for stream in streams() {
        let play = |pieces| {
            let bytes = stream.bytes();
            if stream.from_client {
                replay::server(pieces, &bytes)
            } else {
                replay::client(pieces, &bytes)
            }
        };
        let whole = play(0);
        let path = stream.path.display();
        println!("{path}: {} events, {:?}", whole.events, whole.reason);
        let cause = whole.reason.as_ref().map(|reason| reason.cause());
        let closed = stream.frames().iter().any(|frame| {
            split_method(frame.payload).is_ok_and(|(id, _)| {
                frame.kind == FrameKind::Method
                    && [connection::Close::ID, connection::CloseOk::ID].contains(&id)
            })
        });
        match cause {
            None => assert!(!closed, "{path} ends with a close"),
            Some(
                CloseCause::ByPeer(_)
                | CloseCause::Requested(_)
                | CloseCause::AuthenticationFailed { close: Some(_), .. },
            ) => assert!(closed, "{path}"),
            Some(other) => panic!("{path}: {other:?}"),
        }
        for pieces in [1, 7, 4096] {
            assert_eq!(play(pieces), whole, "{path} in pieces of {pieces}");
        }
    }
}
