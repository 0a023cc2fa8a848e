//! Frames, read by this decoder and by that of `amq-protocol`.

use amq_protocol::frame::{AMQPFrame, parse_frame};
use amqp_core::{
    frame::{ContentHeader, Frame, FrameKind, split_method},
    protocol::{Method, basic},
    wire::{Decode as _, DecodeError, Encode as _},
};
use bytes::BytesMut;

/// The id of class `basic`.
const BASIC: u16 = 60;

/// The id of class `access`, which version 0-9-1 does not have.
const ACCESS: u16 = 30;

/// The input is one frame. If both read it, they read the same; and if one does, the difference is a
/// known one.
pub fn foreign(input: &[u8]) {
    // The frame itself, not what it contains.
    let Ok(Some(frame)) = Frame::parse(input, u32::MAX) else {
        return;
    };
    if !matches!(frame.kind, FrameKind::Method | FrameKind::Header) {
        return;
    }
    let bytes = &input[..frame.len()];
    let ours = again(&frame);
    // `amq-protocol` has no bound of its own on nesting, but that of the stack.
    if ours == Err(DecodeError::TableTooDeep) || has_other_flags(&frame) {
        return;
    }
    match (ours, parse(bytes)) {
        (Ok(ours), Some(theirs)) => {
            let read_again = parse(&ours).expect("this encoding is read by it too");
            assert_eq!(shown(&read_again), shown(&theirs), "{frame:?}");
        }
        (Err(error), Some(theirs)) => {
            // `amq-protocol` does not look at the class of a header, and has the class of earlier
            // versions, and the short-int of the specification, which RabbitMQ does not have.
            let known = error == DecodeError::UnknownClass(ACCESS)
                || error == DecodeError::UnknownFieldType(b'U')
                || (frame.kind == FrameKind::Header
                    && matches!(error, DecodeError::UnknownClass(_)));
            assert!(known, "{error:?} for {}", shown(&theirs));
        }
        (Ok(ours), None) => {
            let known = has_other_text(&frame) || is_replaced(bytes, &ours);
            assert!(known, "only this decoder reads {frame:?}");
        }
        (Err(_), None) => {}
    }
}

fn parse(bytes: &[u8]) -> Option<AMQPFrame> {
    match parse_frame(bytes) {
        Ok(([], frame)) => Some(frame),
        _ => None,
    }
}

/// A frame in words: a number in it may be none, which is unequal to itself.
fn shown(frame: &AMQPFrame) -> String {
    format!("{frame:?}")
}

/// Decodes the contents of a frame, and encodes them again.
fn again(frame: &Frame<'_>) -> Result<BytesMut, DecodeError> {
    let mut payload = BytesMut::new();
    if frame.kind == FrameKind::Method {
        let (id, arguments) = split_method(frame.payload).map_err(|_| DecodeError::Truncated)?;
        let method = Method::decode(id, arguments)?;
        payload.extend_from_slice(&frame.payload[..4]);
        method.encode(&mut payload);
    } else {
        let header = ContentHeader::parse(frame.payload).map_err(|_| DecodeError::Truncated)?;
        if header.class != BASIC {
            return Err(DecodeError::UnknownClass(header.class));
        }
        let properties = basic::Properties::decode(header.properties)?;
        let fixed = frame.payload.len() - header.properties.len();
        payload.extend_from_slice(&frame.payload[..fixed]);
        properties.encode(&mut payload);
    }
    let mut out = BytesMut::new();
    let frame = Frame {
        payload: &payload,
        ..*frame
    };
    frame.encode(&mut out);
    Ok(out)
}

/// Whether a header has one of the two property flags that are no property. One says that more flags
/// follow (section 4.2.6.1 of the specification); `amq-protocol` skips both.
fn has_other_flags(frame: &Frame<'_>) -> bool {
    let flags = frame.payload.get(13).copied().unwrap_or_default();
    frame.kind == FrameKind::Header && flags & 3 != 0
}

/// Whether a frame has text that is not UTF-8, which is replaced here in the names of a publisher, and
/// refused by `amq-protocol`.
fn has_other_text(frame: &Frame<'_>) -> bool {
    std::str::from_utf8(frame.payload).is_err()
}

/// Whether such text is replaced in the encoding, which `amq-protocol` reads then: the end of a text and
/// the field behind it may look like a character.
fn is_replaced(bytes: &[u8], ours: &[u8]) -> bool {
    let replacements = |bytes: &[u8]| {
        let replacement = "\u{FFFD}".as_bytes();
        let parts = bytes.windows(replacement.len());
        parts.filter(|part| *part == replacement).count()
    };
    replacements(ours) > replacements(bytes) && parse(ours).is_some()
}
