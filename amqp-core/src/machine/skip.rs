//! Frames that are too large to be kept: passed over as they come.

use bytes::{Buf as _, BytesMut};

use super::{Culprit, Life, Machine, Role, input::content_channel};
use crate::{
    body::EncodedProperties,
    fault::{Fault, ProtocolError},
    frame::{CONTENT_HEAD, FRAME_HEAD, FrameHead, FrameKind},
    ids::ChannelId,
    protocol::FRAME_END,
};

/// A frame that is being passed over, behind its head.
#[derive(Debug)]
pub(super) struct Skip {
    /// How much of the payload is still to come, in bytes.
    left: usize,
    /// The message whose content header it is, and the size of its body. `None` if the frame is to
    /// be ignored.
    header: Option<(ChannelId, u64)>,
}

/// How far a frame was passed over.
enum Passed {
    /// It is over.
    Whole,
    /// That many bytes are still to come.
    Missing(usize),
}

impl Skip {
    const fn new(payload: usize, header: Option<(ChannelId, u64)>) -> Self {
        Self {
            left: payload,
            header,
        }
    }

    /// Takes what has come of the frame off the front of `input`.
    ///
    /// # Errors
    /// When the frame does not end as it should.
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

/// What to do with a frame that is over the frame limit.
pub(super) enum LargeHeader {
    /// It is a content header that is due and may be as large.
    Taken,
    /// It is passed over. With a channel it is a content header that is due there.
    Skipped(Option<ChannelId>),
    Refused,
}

impl<R: Role> Machine<R> {
    /// What to do with a frame that is over the frame limit: only a content header may be. One that
    /// is not due is refused at its size, as other frames are.
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

    /// Passes over a content header that is too large to be kept. Of a message that is coming in, the
    /// size of the body is read, because the body follows.
    pub(super) fn skip_header(
        &mut self,
        head: &FrameHead,
        id: Option<ChannelId>,
        input: &mut BytesMut,
    ) -> bool {
        let Some(id) = id else {
            input.advance(FRAME_HEAD);
            self.skip = Some(Skip::new(head.size, None));
            return true;
        };
        let begun = FRAME_HEAD + CONTENT_HEAD;
        let Some(fixed) = input.get(FRAME_HEAD..begun) else {
            self.missing = begun.saturating_sub(input.len());
            return false;
        };
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
                self.fail(error, &Culprit { kind, payload });
                None
            }
            None => None,
        };
        input.advance(begun);
        let left = head.size.saturating_sub(CONTENT_HEAD);
        self.skip = Some(Skip::new(left, header));
        true
    }

    /// Passes over what has come of a frame; false if there is more to come.
    pub(super) fn step_skip(&mut self, input: &mut BytesMut) -> bool {
        let Some(skip) = &mut self.skip else {
            return false;
        };
        match skip.pass(input) {
            Ok(Passed::Missing(missing)) => {
                // It is not kept, so that room for a part of it will do.
                self.missing = missing.min(self.frame_limit() as usize);
                return false;
            }
            Ok(Passed::Whole) => {
                let header = self.skip.take().and_then(|skip| skip.header);
                if let Some((id, body_size)) = header
                    && let Err(error) = self.header_skipped(id, body_size)
                {
                    let (kind, payload) = (FrameKind::Header.to_wire(), &[]);
                    self.fail(error, &Culprit { kind, payload });
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
        // The channel may have been closed in the meantime.
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
