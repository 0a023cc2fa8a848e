//! Messages whose frames are all in the input.

use bytes::Bytes;

use super::{Channel, ChannelLife, Events, Life, Lookup, Machine, Role, arena::Arena};
use crate::{
    body::{Content, EncodedProperties},
    frame::{ContentHeader, Frame, FrameKind, split_method},
    ids::ChannelId,
    limits::FRAME_OVERHEAD,
    method_id::MethodId,
    stats::ConnectionStats,
};

/// The largest part of the input that is copied at once, in bytes.
const COPIED: usize = 8 << 10;

/// The largest message that is copied with others, in bytes: so much, at most, is left unused at the end
/// of a block.
const COPIED_PART: usize = 1280;

/// A method with its content, in the frames of section 4.2.6 of the specification: method, header,
/// and at most one body.
pub(crate) struct Whole<'a> {
    /// The channel number.
    channel: u16,
    /// The arguments of the method, encoded.
    pub(crate) arguments: &'a [u8],
    /// The properties, encoded.
    properties: &'a [u8],
    body: &'a [u8],
    /// The length of all frames, in bytes.
    pub(crate) len: usize,
}

impl<'a> Whole<'a> {
    /// Reads the message of a method at the front of `input`. `None` unless all of it is there, in
    /// frames up to `limit` bytes, and as the specification demands.
    #[inline]
    fn read(input: &'a [u8], method: MethodId, limit: u32) -> Option<Self> {
        let first = Frame::of_kind(FrameKind::Method, input, limit)?;
        let (id, arguments) = split_method(first.payload).ok()?;
        if id != method {
            return None;
        }
        let mut len = first.len();
        let second = Frame::of_kind(FrameKind::Header, input.get(len..)?, limit)?;
        let header = ContentHeader::parse(second.payload).ok()?;
        len += second.len();
        let mut valid = header.class == id.class && header.weight == 0;
        valid &= second.channel == first.channel;
        let mut body: &[u8] = &[];
        if header.body_size > 0 {
            let third = Frame::of_kind(FrameKind::Body, input.get(len..)?, limit)?;
            valid &= third.channel == first.channel;
            body = third.payload;
            len += third.len();
        }
        valid &= body.len() as u64 == header.body_size;
        valid.then_some(Self {
            channel: first.channel,
            arguments,
            properties: header.properties,
            body,
            len,
        })
    }

    /// The number of frames.
    const fn frames(&self) -> u64 {
        if self.body.is_empty() { 2 } else { 3 }
    }
}

/// The messages that follow each other at the front of the input.
pub(crate) struct Run<'i> {
    input: &'i [u8],
    /// The length of the messages so far, in bytes.
    pub(crate) len: usize,
    /// A copy of a part of the input, which begins at `copied_from`.
    copy: Bytes,
    copied_from: usize,
}

impl<'i> Run<'i> {
    pub(crate) const fn new(input: &'i [u8]) -> Self {
        Self {
            input,
            len: 0,
            copy: Bytes::new(),
            copied_from: 0,
        }
    }

    /// Returns the content of the next message, for which memory is shared with the messages around
    /// it.
    #[inline]
    fn take(&mut self, whole: &Whole<'_>, arena: &mut Arena) -> Content {
        let begin = self.len;
        self.len += whole.len;
        if self.len > self.copied_from + self.copy.len() && !self.copy_next(begin, arena) {
            // It shares a block with those that are likely to follow.
            let is_followed = self.input.len() > self.len;
            let body = if is_followed && whole.body.len() <= COPIED_PART {
                arena.copy_run(whole.body)
            } else {
                arena.copy(whole.body)
            };
            return Content {
                properties: encoded(whole.properties, |bytes| arena.copy(bytes)),
                body: body.into(),
            };
        }
        // Each payload ends before the frame-end octet.
        let end = self.len - self.copied_from - 1;
        let body = self.copy.slice(end - whole.body.len()..end);
        let end = match whole.body.len() {
            0 => end,
            len => end - len - FRAME_OVERHEAD,
        };
        Content {
            properties: encoded(whole.properties, |bytes| {
                self.copy.slice(end - bytes.len()..end)
            }),
            body: body.into(),
        }
    }

    /// Copies the input from `begin`, where the last message begins: several times what the run had
    /// before it, so that little is copied in vain if the run ends. Returns `false` for a message
    /// that is copied alone, as the first one is.
    #[inline(never)]
    fn copy_next(&mut self, begin: usize, arena: &mut Arena) -> bool {
        let last = self.len - begin;
        if begin == 0 || last > COPIED_PART {
            return false;
        }
        let rest = self.input.get(begin..).unwrap_or_default();
        let len = (4 * begin).clamp(last, COPIED).min(rest.len());
        let room = arena.room();
        let len = if room < last { len } else { len.min(room) };
        // Mostly, messages in a row are of one size, and the last one is whole.
        let whole = len - len % last;
        self.copy = arena.copy_run(rest.get(..whole).unwrap_or(rest));
        self.copied_from = begin;
        true
    }
}

/// Returns the properties, kept by `keep` if there are any.
#[inline]
fn encoded(properties: &[u8], keep: impl FnOnce(&[u8]) -> Bytes) -> EncodedProperties {
    if let &[0, 0] = properties {
        // No flag is set.
        EncodedProperties::default()
    } else {
        EncodedProperties::from_wire(keep(properties))
    }
}

/// A message that has arrived in one piece, with the parts of the machine that it concerns.
pub(crate) struct Arrival<'i, 'm, R: Role> {
    pub(crate) whole: Whole<'i>,
    pub(crate) id: ChannelId,
    pub(crate) channel: &'m mut Channel<R::Channel>,
    pub(crate) events: &'m mut Events<R>,
    pub(crate) stats: &'m mut ConnectionStats,
    arena: &'m mut Arena,
}

impl<R: Role> Arrival<'_, '_, R> {
    /// Accepts the message, and returns its content.
    #[inline]
    pub(crate) fn accept(&mut self, run: &mut Run<'_>) -> Content {
        self.stats.received.frames += self.whole.frames();
        run.take(&self.whole, self.arena)
    }
}

impl<R: Role> Machine<R> {
    /// Whether frames are handled without further conditions: the connection is open, no frame is
    /// being skipped, and none is logged.
    pub(crate) const fn is_plain(&self) -> bool {
        matches!(self.life, Life::Open) && self.skip.is_none() && self.frame_log.is_none()
    }

    /// Reads the next message of a run. `None` unless all of it is there, as a message of this
    /// method within the limits of this side, for an open channel that is receiving no other. Its
    /// body is none that may be a slice of the input.
    #[inline]
    pub(crate) fn next_whole<'i>(
        &mut self,
        run: &Run<'i>,
        method: MethodId,
    ) -> Option<Arrival<'i, '_, R>> {
        let whole = Whole::read(run.input.get(run.len..)?, method, self.frame_limit())?;
        let Lookup::Live(id, channel) = self.channels.lookup(whole.channel) else {
            return None;
        };
        let is_open = matches!(channel.life, ChannelLife::Opening(_) | ChannelLife::Open);
        if !is_open
            || channel.assembly.in_progress()
            || self.buffer.shares(whole.body.len())
            || whole.body.len() as u64 > self.limits.body
            || self.assembled + whole.properties.len() as u64 > self.limits.assembly()
        {
            return None;
        }
        Some(Arrival {
            whole,
            id,
            channel,
            events: &mut self.events,
            stats: &mut self.stats,
            arena: &mut self.arena,
        })
    }
}
