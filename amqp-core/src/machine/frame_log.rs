//! The frames of a connection, on their way into its log.

use alloc::boxed::Box;

use super::{Machine, Role};
use crate::{
    close::CloseReason,
    frame::{FRAME_HEAD, FrameHead, FrameKind, PROTOCOL_HEADER},
    frame_log::{Direction, FrameLog},
    transmit::Transmit,
};

impl<R: Role> Machine<R> {
    /// Begins to log frames, the last `capacity` of them; 0 for none.
    pub(crate) fn log_frames(&mut self, capacity: usize) {
        self.frame_log = (capacity > 0).then(|| Box::new(FrameLog::new(capacity)));
    }

    pub(crate) fn frame_log(&self) -> Option<&FrameLog> {
        self.frame_log.as_deref()
    }

    /// Logs a received frame, of which the payload may be only the front.
    #[cold]
    pub(super) fn log_received(&mut self, head: &FrameHead, payload: &[u8]) {
        if let Some(log) = &mut self.frame_log {
            log.record(self.now, Direction::Received, head, payload);
        }
    }

    /// Logs the frames in `out` behind its first `skipped` bytes. All are complete. Those of a
    /// method or a content header are in one segment, those of a body may be in several.
    #[cold]
    pub(super) fn log_sent(&mut self, out: &Transmit, mut skipped: usize) {
        let Some(log) = &mut self.frame_log else {
            return;
        };
        for segment in out.segments() {
            while let Some(rest) = segment.get(skipped..).filter(|rest| !rest.is_empty()) {
                if rest.starts_with(&PROTOCOL_HEADER) {
                    log.record_header(self.now, Direction::Sent);
                    skipped += PROTOCOL_HEADER.len();
                    continue;
                }
                let Ok(Some(head)) = FrameHead::read(rest) else {
                    return;
                };
                let payload = match head.kind {
                    FrameKind::Body => None,
                    FrameKind::Method | FrameKind::Header | FrameKind::Heartbeat => {
                        rest.get(FRAME_HEAD..FRAME_HEAD + head.size)
                    }
                };
                log.record(
                    self.now,
                    Direction::Sent,
                    &head,
                    payload.unwrap_or_default(),
                );
                skipped += head.frame_len();
            }
            skipped -= segment.len();
        }
    }

    /// Adds the last frames to the reason for an end, if frames are logged.
    pub(super) fn log_end(&self, reason: CloseReason) -> CloseReason {
        match &self.frame_log {
            Some(log) if reason.frame_log().is_none() => reason.with_frame_log(log),
            Some(_) | None => reason,
        }
    }
}
