//! The bound of messages that the application has not taken.

/// How much more than its bound the connection keeps of messages that the server does not take
/// back, while an answer is awaited that may stand behind them.
const AWAITED: usize = 8;

/// Counts the messages that were delivered and not taken, in bytes, over all consumers.
///
/// A message that is to be acknowledged can be put back, so that reading does not stop for it: see
/// [`has_room`](Self::has_room); it pauses as long as messages are being taken. One that needs no
/// acknowledgement, or was returned, would be lost: reading pauses for it, unless an answer is awaited.
#[derive(Debug)]
pub(crate) struct Buffer {
    /// The bound, in bytes.
    limit: usize,
    /// Bytes of all messages that are kept.
    kept: usize,
    /// Bytes of those among them that reading pauses for.
    unreturnable: usize,
    /// The number of consumers that have not ended.
    pub(crate) consumers: usize,
}

impl Buffer {
    pub(crate) const fn new(limit: usize) -> Self {
        Self {
            limit,
            kept: 0,
            unreturnable: 0,
            consumers: 0,
        }
    }

    pub(crate) const fn limit(&self) -> usize {
        self.limit
    }

    /// Whether a consumer that keeps so many bytes may keep a message more: if the connection as a
    /// whole has room, or the consumer has less than an equal share. A consumer that keeps nothing
    /// always may, so that a message of any size gets through. All consumers together therefore keep
    /// at most twice the bound, and a message each.
    pub(crate) fn has_room(&self, kept: usize, message: usize) -> bool {
        kept == 0
            || self.kept + message <= self.limit
            || kept + message <= self.limit / self.consumers.max(1)
    }

    /// The free part of the bound, in bytes, for a consumer that keeps so many bytes.
    pub(crate) fn room(&self, kept: usize) -> usize {
        let share = self.limit / self.consumers.max(1);
        let free = self.limit.saturating_sub(self.kept);
        free.max(share.saturating_sub(kept))
    }

    /// Whether there are too many unreturnable messages for one more, even while an answer is
    /// awaited.
    pub(crate) const fn overflows(&self, message: usize) -> bool {
        self.unreturnable + message > self.limit.saturating_mul(AWAITED)
    }

    /// Whether reading pauses for want of room; it goes on at half of the bound.
    pub(crate) const fn is_full(&self, paused: bool) -> bool {
        self.unreturnable >= if paused { self.limit / 2 } else { self.limit }
    }

    /// Whether reading pauses while what is kept is being taken, so that the server waits instead of
    /// getting messages back. A quarter of the bound is left for what has been read already.
    pub(crate) const fn is_crowded(&self, paused: bool) -> bool {
        let mark = if paused {
            self.limit / 2
        } else {
            self.limit - self.limit / 4
        };
        self.kept >= mark
    }

    pub(crate) fn keep(&mut self, bytes: usize, unreturnable: bool) {
        self.kept += bytes;
        if unreturnable {
            self.unreturnable += bytes;
        }
    }

    pub(crate) fn release(&mut self, bytes: usize, unreturnable: bool) {
        debug_assert!(bytes <= self.kept, "{bytes} of {}", self.kept);
        self.kept = self.kept.saturating_sub(bytes);
        if unreturnable {
            self.exempt(bytes);
        }
    }

    /// Reading pauses for these from now on.
    pub(crate) fn include(&mut self, bytes: usize) {
        self.unreturnable += bytes;
    }

    /// Reading does not pause for these any more.
    pub(crate) fn exempt(&mut self, bytes: usize) {
        debug_assert!(
            bytes <= self.unreturnable,
            "{bytes} of {}",
            self.unreturnable
        );
        self.unreturnable = self.unreturnable.saturating_sub(bytes);
    }
}
