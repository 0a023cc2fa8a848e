//! The bound of the messages that the application has not taken.

/// The factor by which unreturnable messages may exceed the bound while a reply is outstanding that
/// may be queued behind them.
const AWAITED: usize = 8;

/// Counts the messages that were delivered and not taken, in bytes, over all consumers.
///
/// A message that needs an acknowledgement can be requeued. Without room for it (see
/// [`has_room`](Self::has_room)) it is withheld, and reading continues; reading pauses only while
/// the application is taking messages ([`is_crowded`](Self::is_crowded)). A message that was
/// returned or needs no acknowledgement would be lost: reading pauses at the bound
/// ([`is_full`](Self::is_full)), unless a reply is outstanding.
#[derive(Debug)]
pub(crate) struct Buffer {
    /// The bound, in bytes.
    limit: usize,
    /// Bytes of all kept messages.
    kept: usize,
    /// The part of `kept` that the server does not take back, for which reading pauses.
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

    /// Bytes of all kept messages.
    pub(crate) const fn kept(&self) -> usize {
        self.kept
    }

    pub(crate) const fn limit(&self) -> usize {
        self.limit
    }

    /// Whether a consumer that keeps `kept` bytes may keep another message: the connection as a
    /// whole has room, or the consumer is below an equal share. A consumer that keeps nothing
    /// always may, so that a message of any size gets through. All consumers together therefore
    /// keep at most twice the bound, plus one message each.
    pub(crate) fn has_room(&self, kept: usize, message: usize) -> bool {
        kept == 0
            || self.kept + message <= self.limit
            || kept + message <= self.limit / self.consumers.max(1)
    }

    /// The free part of the bound, in bytes, for a consumer that keeps `kept` bytes.
    pub(crate) fn room(&self, kept: usize) -> usize {
        let share = self.limit / self.consumers.max(1);
        let free = self.limit.saturating_sub(self.kept);
        free.max(share.saturating_sub(kept))
    }

    /// Whether another unreturnable message would exceed the bound even while a reply is
    /// outstanding.
    pub(crate) const fn overflows(&self, message: usize) -> bool {
        self.unreturnable + message > self.limit.saturating_mul(AWAITED)
    }

    /// Whether reading pauses for unreturnable messages. It resumes below half of the bound.
    pub(crate) const fn is_full(&self, paused: bool) -> bool {
        self.unreturnable >= if paused { self.limit / 2 } else { self.limit }
    }

    /// Whether reading pauses while the application is taking messages, so that the server waits
    /// and gets no messages back. Starts at three quarters of the bound: the last quarter is for
    /// input that has been read already. It resumes below half of the bound.
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

    /// Adds kept bytes to those for which reading pauses.
    pub(crate) fn include(&mut self, bytes: usize) {
        self.unreturnable += bytes;
    }

    /// Removes kept bytes from those for which reading pauses.
    pub(crate) fn exempt(&mut self, bytes: usize) {
        debug_assert!(
            bytes <= self.unreturnable,
            "{bytes} of {}",
            self.unreturnable
        );
        self.unreturnable = self.unreturnable.saturating_sub(bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_that_is_taken_makes_room() {
        let mut buffer = Buffer::new(100);
        buffer.keep(60, false);
        buffer.keep(40, true);
        assert_eq!(buffer.kept(), 100);
        buffer.release(60, false);
        assert_eq!((buffer.kept(), buffer.unreturnable), (40, 40));
        buffer.release(40, true);
        assert_eq!((buffer.kept(), buffer.unreturnable), (0, 0));
    }

    #[test]
    fn reading_pauses_at_the_bound_and_goes_on_below_half_of_it() {
        let mut buffer = Buffer::new(100);
        buffer.keep(74, true);
        assert!(!buffer.is_crowded(false) && buffer.is_crowded(true) && buffer.is_full(true));
        buffer.keep(25, true);
        assert!(buffer.is_crowded(false) && !buffer.is_full(false));
        buffer.keep(1, true);
        assert!(buffer.is_full(false));
        buffer.release(50, true);
        assert!(buffer.is_full(true) && buffer.is_crowded(true));
        buffer.release(1, true);
        assert!(!buffer.is_full(true) && !buffer.is_crowded(true));
    }

    #[test]
    fn a_consumer_keeps_its_share_of_a_full_bound() {
        let mut buffer = Buffer::new(100);
        buffer.consumers = 2;
        assert!(buffer.has_room(0, 1000));
        buffer.keep(90, false);
        assert!(buffer.has_room(90, 10) && !buffer.has_room(90, 11));
        assert!(buffer.has_room(40, 10) && buffer.has_room(30, 20) && !buffer.has_room(30, 21));
        assert_eq!(
            (buffer.room(0), buffer.room(45), buffer.room(90)),
            (50, 10, 10)
        );
    }

    #[test]
    fn only_what_cannot_be_given_back_overflows() {
        let mut buffer = Buffer::new(100);
        buffer.keep(1000, false);
        buffer.keep(700, true);
        assert!(!buffer.overflows(100) && buffer.overflows(101));
        buffer.include(100);
        assert!(buffer.overflows(1));
        buffer.exempt(100);
        assert!(!buffer.overflows(100));
    }
}
