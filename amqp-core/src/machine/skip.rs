//! Skipping frames that are too large to be kept, while they are received.

use bytes::{Buf as _, BytesMut};

use super::{Life, Machine, OffendingFrame, Role, content_channel::content_channel};
use crate::{
    body::EncodedProperties,
    fault::{Fault, ProtocolError},
    frame::{CONTENT_HEAD, FRAME_HEAD, FrameHead, FrameKind},
    ids::ChannelId,
    protocol::FRAME_END,
};

/// The rest of a frame that is being skipped.
#[derive(Debug)]
pub(super) struct Skip {
    /// The rest of the payload, in bytes.
    left: usize,
    /// `Some` if the frame is the content header of a message: its channel, and the size of the
    /// body. `None` if the frame is ignored.
    header: Option<(ChannelId, u64)>,
}

/// The progress of skipping a frame.
enum Passed {
    /// The frame is complete.
    Whole,
    /// At least this number of bytes is still missing.
    Missing(usize),
}

impl Skip {
    const fn new(payload: usize, header: Option<(ChannelId, u64)>) -> Self {
        Self {
            left: payload,
            header,
        }
    }

    /// Consumes the part of the frame at the front of `input`.
    ///
    /// # Errors
    /// If the frame does not end with the frame-end octet (section 4.2.3 of the specification).
    fn pass(&mut self, input: &mut BytesMut) -> Result<Passed, Fault> {
        let passed = self.left.min(input.len());
        input.advance(passed);
        self.left -= passed;
        match input.first() {
            None => Ok(Passed::Missing(self.left.saturating_add(1))),
            Some(&FRAME_END) => {
                input.advance(1);
                Ok(Passed::Whole)
            }
            Some(&end) => Err(Fault::FrameEnd(end)),
        }
    }
}

/// The handling of a frame that exceeds the frame limit.
pub(super) enum LargeHeader {
    /// It is an expected content header within [`Limits::header`](crate::Limits::header).
    Taken,
    /// It is skipped. `Some` if it is an expected content header.
    Skipped(Option<ChannelId>),
    Refused,
}

impl<R: Role> Machine<R> {
    /// Decides on a frame that exceeds the frame limit. RabbitMQ sends such content headers. One
    /// that is not expected is refused for its size, as any other frame is.
    #[cold]
    pub(super) fn large_header(&mut self, head: &FrameHead) -> LargeHeader {
        let open = matches!(self.life, Life::Open | Life::Draining(_));
        if !R::TAKES_LARGE_HEADERS || !open || head.kind != FrameKind::Header {
            return LargeHeader::Refused;
        }
        let fits = head.check(self.limits.header).is_ok();
        match content_channel::<R>(&mut self.channels, head.channel) {
            Ok(Some((_, channel))) if !channel.assembly.wants_header() => LargeHeader::Refused,
            Ok(Some((id, channel))) if !fits || channel.assembly.is_dropped() => {
                LargeHeader::Skipped(Some(id))
            }
            Ok(Some(_)) => LargeHeader::Taken,
            Ok(None) => LargeHeader::Skipped(None),
            Err(_) => LargeHeader::Refused,
        }
    }

    /// Skips a content header that is too large to be kept. For a message in progress, the body
    /// size is read first, because the body follows.
    pub(super) fn skip_header(
        &mut self,
        head: &FrameHead,
        id: Option<ChannelId>,
        input: &mut BytesMut,
    ) -> bool {
        let Some(id) = id else {
            self.log_received(head, &[]);
            input.advance(FRAME_HEAD);
            self.skip = Some(Skip::new(head.size, None));
            return true;
        };
        let begun = FRAME_HEAD + CONTENT_HEAD;
        let Some(fixed) = input.get(FRAME_HEAD..begun) else {
            self.missing = begun.saturating_sub(input.len());
            return false;
        };
        self.log_received(head, fixed);
        let limits = &self.limits;
        let checked = self.channels.get_mut(id).map(|channel| {
            let method = channel.assembly.method();
            channel.assembly.drop_content(Fault::HeaderTooLarge {
                size: head.frame_len() as u64,
                limit: limits.header,
            });
            let header = channel.assembly.check_header(fixed, limits);
            header.map_err(|fault| fault.at(Some(id.number()), method))
        });
        let header = match checked {
            Some(Ok(header)) => Some((id, header.body_size)),
            Some(Err(error)) => {
                let (kind, payload) = (head.kind.to_wire(), fixed);
                self.fail(error, &OffendingFrame { kind, payload });
                None
            }
            None => None,
        };
        input.advance(begun);
        let left = head.size.saturating_sub(CONTENT_HEAD);
        self.skip = Some(Skip::new(left, header));
        true
    }

    /// Skips the received part of a frame. Returns `false` if more of it is to come.
    pub(super) fn step_skip(&mut self, input: &mut BytesMut) -> bool {
        let Some(skip) = &mut self.skip else {
            return false;
        };
        match skip.pass(input) {
            Ok(Passed::Missing(missing)) => {
                // Skipped bytes are not kept, so the read buffer need not hold all of them.
                self.missing = missing.min(self.frame_limit() as usize);
                return false;
            }
            Ok(Passed::Whole) => {
                self.stats.received.frames += 1;
                let header = self.skip.take().and_then(|skip| skip.header);
                if let Some((id, body_size)) = header
                    && let Err(error) = self.header_skipped(id, body_size)
                {
                    let (kind, payload) = (FrameKind::Header.to_wire(), &[]);
                    self.fail(error, &OffendingFrame { kind, payload });
                }
            }
            Err(fault) => {
                let header = self.skip.take().and_then(|skip| skip.header);
                let number = header.map(|(id, _)| id.number());
                if let Life::Closing(_) = &self.life {
                    self.finish_unread(fault.at(number, None));
                    input.clear();
                } else {
                    self.fail_framing(fault, number, input);
                }
            }
        }
        true
    }

    fn header_skipped(&mut self, id: ChannelId, body_size: u64) -> Result<(), ProtocolError> {
        // The channel may have been closed meanwhile.
        let due = self.channels.get_mut(id);
        let Some(channel) = due.filter(|channel| channel.assembly.wants_header()) else {
            return Ok(());
        };
        let nothing = EncodedProperties::default();
        if channel.assembly.take_header(nothing, body_size) {
            return self.complete(id);
        }
        Ok(())
    }
}
