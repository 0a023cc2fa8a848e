//! The trace of a run: frames in words, faults, and the ends of connections and programs.

use std::{
    collections::hash_map::DefaultHasher,
    fmt,
    hash::{Hash as _, Hasher as _},
};

use amqp_driver::{
    core::{
        Instant,
        frame::{ContentHeader, Frame, FrameKind, PROTOCOL_HEADER, split_method},
    },
    protocol::Method,
};
use bytes::{Buf as _, BytesMut};

/// The largest frame that is put into words.
const FRAME_MAX: u32 = 1 << 24;

/// The maximum length of the words of a frame, in bytes.
const TEXT_MAX: usize = 160;

/// The trace of a run, in the order of its events.
///
/// A frame has a line when it arrives, with its sender, its receiver and the number of their
/// connection; one that a fault swallows has a line that says `lost`. Credentials, bodies and the
/// values of tables are left out, as in a [`FrameLog`](amqp_driver::core::FrameLog).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Trace {
    is_on: bool,
    lines: Vec<String>,
    digest: u64,
}

impl Trace {
    pub(crate) fn new(is_on: bool) -> Self {
        Self {
            is_on,
            ..Self::default()
        }
    }

    pub(crate) const fn is_on(&self) -> bool {
        self.is_on
    }

    /// The lines.
    #[must_use]
    pub fn lines(&self) -> &[String] {
        &self.lines
    }

    /// A digest of all bytes that arrived, with their times. Equal for equal runs; the values may
    /// differ between versions of this crate and of Rust.
    #[must_use]
    pub const fn digest(&self) -> u64 {
        self.digest
    }

    pub(crate) fn note(&mut self, now: Instant, text: impl fmt::Display) {
        if self.is_on {
            let micros = now.as_nanos() / 1000;
            let (seconds, rest) = (micros / 1_000_000, micros % 1_000_000);
            self.lines.push(format!("{seconds:5}.{rest:06} s  {text}"));
        }
    }

    /// Records bytes that have arrived, and the frames that they complete.
    pub(crate) fn arrived(
        &mut self,
        now: Instant,
        connection: u64,
        label: &str,
        words: &mut Words,
        bytes: &[u8],
    ) {
        if !self.is_on {
            return;
        }
        let mut hasher = DefaultHasher::new();
        (self.digest, now, connection, label, bytes).hash(&mut hasher);
        self.digest = hasher.finish();
        words.0.extend_from_slice(bytes);
        while let Some(text) = words.next() {
            self.note(now, format_args!("{label}  {text}"));
        }
    }

    /// Records bytes that will not arrive. `all` says that no more of the frame follows soon.
    pub(crate) fn lost(
        &mut self,
        now: Instant,
        label: &str,
        words: &mut Words,
        bytes: &[u8],
        all: bool,
    ) {
        if !self.is_on || bytes.is_empty() {
            return;
        }
        words.0.extend_from_slice(bytes);
        while let Some(text) = words.next() {
            self.note(now, format_args!("{label}  lost: {text}"));
        }
        if all && !words.0.is_empty() {
            let rest = words.0.len();
            self.note(now, format_args!("{label}  lost: {rest} bytes of a frame"));
        }
    }
}

/// One line for each event.
impl fmt::Display for Trace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.lines.iter().try_for_each(|line| writeln!(f, "{line}"))
    }
}

/// The frames of one direction, in words.
#[derive(Debug, Default)]
pub(crate) struct Words(BytesMut);

impl Words {
    /// Takes the next whole frame.
    fn next(&mut self) -> Option<String> {
        if self.0.starts_with(&PROTOCOL_HEADER) {
            self.0.advance(PROTOCOL_HEADER.len());
            return Some("AMQP 0-9-1".into());
        }
        let frame = match Frame::parse(&self.0, FRAME_MAX) {
            Ok(frame) => frame?,
            Err(_) => {
                let len = self.0.len();
                self.0.clear();
                return Some(format!("{len} bytes that are no frame"));
            }
        };
        let (text, len) = (describe(&frame), frame.len());
        self.0.advance(len);
        Some(text)
    }
}

fn describe(frame: &Frame<'_>) -> String {
    let size = frame.payload.len();
    let mut text = match frame.kind {
        FrameKind::Method => describe_method(frame.payload),
        FrameKind::Header => match ContentHeader::parse(frame.payload) {
            Ok(header) => format!("header, {} bytes of body", header.body_size),
            Err(_) => format!("header of {size} bytes"),
        },
        FrameKind::Body => format!("body, {size} bytes"),
        FrameKind::Heartbeat => "heartbeat".into(),
    };
    if text.len() > TEXT_MAX {
        let end = (0..=TEXT_MAX).rfind(|end| text.is_char_boundary(*end));
        text.truncate(end.unwrap_or_default());
        text.push('\u{2026}');
    }
    match frame.channel {
        0 => text,
        channel => format!("channel {channel}: {text}"),
    }
}

fn describe_method(payload: &[u8]) -> String {
    match split_method(payload) {
        Ok((id, arguments)) => match Method::decode(id, arguments) {
            Ok(method) => method.to_string(),
            Err(error) => format!("{id}: {error}"),
        },
        Err(_) => format!("a method of {} bytes", payload.len()),
    }
}
