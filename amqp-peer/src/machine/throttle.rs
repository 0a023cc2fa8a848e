//! The throttle of a link: a token bucket per direction.

use std::time::Duration;

use amqp_core::Instant;

/// The fraction of a second that a bucket holds: a burst of 4 percent, within the accuracy of 5
/// percent over a second.
const BURST: u64 = 25;

/// The fraction of a second after which an empty bucket is asked again: half of a burst, so that a
/// timer that is late by as much loses nothing.
const QUANTUM: u64 = 50;

const NANOS: u128 = 1_000_000_000;

/// A token bucket: a budget of bytes that grows with the time. It starts empty, and may be
/// overdrawn.
#[derive(Clone, Debug)]
pub(super) struct Bucket {
    /// The bytes per second.
    rate: u64,
    /// The budget at `filled`, in bytes times nanoseconds per second.
    level: i128,
    filled: Instant,
}

impl Bucket {
    pub(super) fn new(rate: u64, now: Instant) -> Self {
        Self {
            rate: rate.max(1),
            level: 0,
            filled: now,
        }
    }

    fn level(&self, now: Instant) -> i128 {
        let grown = now.saturating_duration_since(self.filled).as_nanos();
        let grown = grown.saturating_mul(u128::from(self.rate));
        let grown = i128::try_from(grown).unwrap_or(i128::MAX);
        let full = i128::from(self.rate / BURST) * NANOS as i128;
        self.level.saturating_add(grown).min(full)
    }

    /// The number of bytes that are allowed now.
    pub(super) fn available(&self, now: Instant) -> usize {
        usize::try_from(self.level(now) / NANOS as i128).unwrap_or(0)
    }

    /// Whether enough bytes are allowed now to be worth a turn.
    pub(super) fn is_ready(&self, now: Instant) -> bool {
        self.available(now) >= self.quantum()
    }

    fn quantum(&self) -> usize {
        usize::try_from(self.rate / QUANTUM)
            .unwrap_or(usize::MAX)
            .max(1)
    }

    /// Takes bytes out, also more than there are.
    pub(super) fn take(&mut self, now: Instant, bytes: usize) {
        self.level = self.level(now) - (bytes as i128).saturating_mul(NANOS as i128);
        self.filled = self.filled.max(now);
    }

    /// The time at which the bucket is ready.
    pub(super) fn ready_at(&self) -> Instant {
        let missing = (self.quantum() as i128) * NANOS as i128 - self.level;
        let nanos = u128::try_from(missing)
            .unwrap_or(0)
            .div_ceil(u128::from(self.rate));
        self.filled + Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
    }

    /// The size of frames that suits the rate, in bytes.
    pub(super) fn frame_max(rate: u64) -> u32 {
        u32::try_from(rate / BURST)
            .unwrap_or(u32::MAX)
            .clamp(super::handshake::FRAME_MIN, super::handshake::FRAME_MAX)
    }
}
