//! The close methods for protocol violations of a client: RabbitMQ's codes and texts.
//!
//! They depend on the state of the connection and of the channel as well as on the fault. The
//! transport is closed without a close method up to the negotiation of limits, and later for an
//! unknown class or method, and for arguments on a channel with an unknown table field type or a
//! field that extends beyond its table (`amqp-broker/tests/violations`).
//!
//! Some faults are reported earlier than by RabbitMQ, since no further input can correct them: a
//! body longer than announced (RabbitMQ until 4.2 waits for a frame other than a body frame),
//! malformed properties and a message that is too large (it waits for the complete message), and a
//! method with content that the client may not send, or not on that channel.
//!
//! Some input is a fault here but not in RabbitMQ, because it would make the work or the memory of
//! the server unbounded: tables that are nested too deep, floods of empty body frames, and too many
//! bytes of unfinished messages. Content frames on a channel that the server has closed are ignored
//! in any order; RabbitMQ still checks their order.

use alloc::{
    format,
    string::{String, ToString as _},
};

use amqp_core::{
    Close, FRAME_OVERHEAD, Fault, MethodDef as _, MethodId, Stage,
    protocol::{FRAME_HEADER, FRAME_HEARTBEAT, FRAME_METHOD, ReplyCode, channel},
    server::Violation,
    wire::{DecodeError, ShortStr},
};

use super::erlang::{push_numbers, push_pair, push_snippet};

/// The size of the fixed part of a content header's payload, in bytes (section 4.2.6.1 of the
/// specification).
const CONTENT_HEAD: usize = 12;

/// Returns the close method for a violation. `Some` if the client is notified before the transport
/// is closed.
pub(super) fn close(violation: &Violation<'_>) -> Option<Close> {
    let (error, stage) = (violation.error, violation.stage);
    let number = error.channel.unwrap_or_default();
    let reply = match stage {
        Stage::Opening | Stage::Open | Stage::Closing => match &error.fault {
            Fault::FrameTooLarge { size, limit } => frame_too_large(violation, *size, *limit),
            Fault::FrameEnd(end) => frame_end(violation, *end),
            _ if stage == Stage::Opening && number != 0 => unexpected_frame(violation),
            _ if is_unknown(violation) => unknown_frame(violation),
            Fault::Heartbeat | Fault::ContentOnChannelZero => unexpected_frame(violation),
            fault if number == 0 => on_connection(stage, fault, error.method)?,
            _ => on_channel(violation)?,
        },
        _ => return None,
    };
    Some(Close {
        text: clip(reply.text),
        ..reply
    })
}

/// Builds a close with a text that begins with the name of the code.
fn reply(code: ReplyCode, method: Option<MethodId>, text: impl AsRef<str>) -> Close {
    let name = code.name().unwrap_or_default().to_ascii_uppercase();
    let name = name.replace('-', "_");
    let text = format!("{name} - {}", text.as_ref());
    Close { code, text, method }
}

/// Shortens a text to the length of a short string (section 4.2.5.3 of the specification), with an
/// ellipsis at its end.
fn clip(mut text: String) -> String {
    const DOTS: &str = "...";
    if text.len() > ShortStr::MAX_LEN {
        while text.len() + DOTS.len() > ShortStr::MAX_LEN {
            text.pop();
        }
        text.push_str(DOTS);
    }
    text
}

// Faults of frames.

fn frame_too_large(violation: &Violation<'_>, size: u64, limit: u32) -> Close {
    let size = size - FRAME_OVERHEAD as u64;
    // RabbitMQ shows the limit of the payload; `limit` is that of the frame with its slack.
    let limit = u64::from(limit).saturating_sub(2 * FRAME_OVERHEAD as u64);
    let mut text = describe(violation.frame_type, &[]);
    text.push_str(&format!(": {{frame_too_large,{size},{limit}}}"));
    reply(ReplyCode::FRAME_ERROR, None, text)
}

fn frame_end(violation: &Violation<'_>, end: u8) -> Close {
    let mut text = describe(violation.frame_type, violation.payload);
    text.push_str(": ");
    push_pair(&mut text, "invalid_frame_end_marker", end);
    reply(ReplyCode::FRAME_ERROR, None, text)
}

/// Returns whether RabbitMQ reports the frame as `unknown_frame`.
fn is_unknown(violation: &Violation<'_>) -> bool {
    let fault = &violation.error.fault;
    match violation.frame_type {
        FRAME_HEARTBEAT => !violation.payload.is_empty(),
        FRAME_HEADER => violation.payload.len() < CONTENT_HEAD,
        FRAME_METHOD => *fault == Fault::FrameTooShort,
        _ => matches!(fault, Fault::FrameType(_)),
    }
}

fn unknown_frame(violation: &Violation<'_>) -> Close {
    let mut text = describe(violation.frame_type, violation.payload);
    text.push_str(": unknown_frame");
    reply(ReplyCode::FRAME_ERROR, None, text)
}

fn unexpected_frame(violation: &Violation<'_>) -> Close {
    let text = describe(violation.frame_type, violation.payload);
    reply(ReplyCode::UNEXPECTED_FRAME, None, text)
}

fn describe(kind: u8, payload: &[u8]) -> String {
    let mut text = format!("type {kind}, ");
    push_snippet(&mut text, payload);
    text
}

// Faults of methods and content.

/// Builds the close for a method on channel 0.
fn on_connection(stage: Stage, fault: &Fault, method: Option<MethodId>) -> Option<Close> {
    match fault {
        Fault::Decode(DecodeError::UnknownClass(_) | DecodeError::UnknownMethod(_)) => None,
        Fault::Decode(DecodeError::InvalidUtf8) => Some(malformed_text(method)),
        Fault::Decode(_) => (stage != Stage::Opening).then(internal_error),
        _ => {
            let state = match stage {
                Stage::Opening => "opening",
                _ => "running",
            };
            let text = format!("unexpected method in connection state {state}");
            Some(reply(ReplyCode::CHANNEL_ERROR, method, text))
        }
    }
}

/// Builds the close for a method or content on a channel.
fn on_channel(violation: &Violation<'_>) -> Option<Close> {
    let (error, kind) = (violation.error, violation.frame_type);
    let (fault, method) = (&error.fault, error.method);
    Some(match fault {
        // RabbitMQ has no bound, so that this one costs no more than the channel.
        Fault::Decode(error @ DecodeError::TableTooDeep) => {
            reply(ReplyCode::PRECONDITION_FAILED, method, error.to_string())
        }
        Fault::Decode(_) if kind != FRAME_METHOD => internal_error(),
        Fault::Decode(
            DecodeError::UnknownClass(_)
            | DecodeError::UnknownMethod(_)
            | DecodeError::UnknownFieldType(_)
            | DecodeError::LengthMismatch,
        ) => return None,
        Fault::Decode(DecodeError::InvalidUtf8) => malformed_text(None),
        Fault::Decode(_) => {
            let arguments = violation.payload.get(METHOD_HEAD..).unwrap_or_default();
            let mut text = "cannot decode ".to_string();
            push_numbers(&mut text, arguments);
            reply(ReplyCode::FRAME_ERROR, method, text)
        }
        Fault::ChannelNotOpen | Fault::ChannelNumber(_) if kind != FRAME_METHOD => no_method(),
        Fault::ChannelNumber(max) if method == Some(channel::Open::ID) => {
            too_many_channels(violation.channels, *max)
        }
        Fault::ChannelNotOpen | Fault::ChannelNumber(_) => {
            reply(ReplyCode::CHANNEL_ERROR, method, "expected 'channel.open'")
        }
        Fault::ChannelAlreadyOpen => {
            let text = "second 'channel.open' seen";
            reply(ReplyCode::CHANNEL_ERROR, method, text)
        }
        Fault::MethodInContent
        | Fault::UnexpectedHeader
        | Fault::UnexpectedBody
        | Fault::HeaderClass(_)
        | Fault::HeaderWeight(_)
        | Fault::BodyOverrun { .. }
        | Fault::TooManyEmptyFrames(_) => content_due(violation),
        Fault::BodyTooLarge { size, limit } => {
            let text = format!("message size {size} is larger than configured max size {limit}");
            reply(ReplyCode::PRECONDITION_FAILED, method, text)
        }
        Fault::AssemblyTooLarge { .. } => {
            reply(ReplyCode::PRECONDITION_FAILED, method, fault.to_string())
        }
        _ => reply(ReplyCode::COMMAND_INVALID, method, "unimplemented method"),
    })
}

fn too_many_channels(count: usize, max: u16) -> Close {
    let text = format!(
        "number of channels opened ({count}) has reached the negotiated channel_max ({max})"
    );
    reply(ReplyCode::NOT_ALLOWED, None, text)
}

/// Builds the close for a frame other than the one that the content requires (section 4.2.6 of the
/// specification).
fn content_due(violation: &Violation<'_>) -> Close {
    let Some(content) = violation.content else {
        return no_method();
    };
    let method = content.method;
    let text = if content.awaits_header {
        let got = match &violation.error.fault {
            Fault::HeaderClass(class) => format!("one for class {class}"),
            _ => "non content header frame".to_string(),
        };
        let class = method.class;
        format!("expected content header for class {class}, got {got} instead")
    } else {
        "expected content body, got non content body frame instead".to_string()
    };
    reply(ReplyCode::UNEXPECTED_FRAME, Some(method), text)
}

fn no_method() -> Close {
    let text = "expected method frame, got non method frame instead";
    reply(ReplyCode::UNEXPECTED_FRAME, None, text)
}

fn malformed_text(method: Option<MethodId>) -> Close {
    reply(
        ReplyCode::FRAME_ERROR,
        method,
        "Malformed UTF-8 in shortstr",
    )
}

fn internal_error() -> Close {
    Close {
        code: ReplyCode::INTERNAL_ERROR,
        text: "INTERNAL_ERROR".to_string(),
        method: None,
    }
}

/// The size of the class and method ids at the front of a method frame's payload, in bytes (section
/// 4.2.4 of the specification).
const METHOD_HEAD: usize = 4;
