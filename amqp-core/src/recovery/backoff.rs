//! The delays between attempts to connect.

use core::time::Duration;

use crate::random::SplitMix;

/// The delays between attempts to connect: exponential, up to a maximum, and spread by jitter, so
/// that clients that lose their broker together do not return together.
///
/// ```
/// use amqp_core::recovery::Backoff;
/// use core::time::Duration;
///
/// let backoff = Backoff::default();
/// let (one, other) = (backoff.delay(1, 7), backoff.delay(1, 8));
/// assert_ne!(one, other); // two seeds
/// assert!(one >= Duration::from_millis(100) && one <= Duration::from_millis(300));
/// assert!(backoff.delay(50, 7) <= Duration::from_secs(30));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Backoff {
    /// The least delay of the first attempt. Default 100 ms.
    pub first: Duration,
    /// The greatest delay of any attempt. Default 30 s.
    pub max: Duration,
    /// The ratio of one delay to the one before, without jitter. Default 2.
    pub factor: u32,
    /// The width of the range that a delay is drawn from, in percent of its lower bound. Default
    /// 200: the first delay is between 100 ms and 300 ms, a late one between 10 s and 30 s. 0
    /// draws nothing.
    pub jitter: u32,
}

impl Default for Backoff {
    fn default() -> Self {
        Self {
            first: Duration::from_millis(100),
            max: Duration::from_secs(30),
            factor: 2,
            jitter: 200,
        }
    }
}

impl Backoff {
    /// Sets `first`.
    #[must_use]
    pub fn first(mut self, first: Duration) -> Self {
        self.first = first;
        self
    }

    /// Sets `max`.
    #[must_use]
    pub fn max(mut self, max: Duration) -> Self {
        self.max = max;
        self
    }

    /// Sets `factor`.
    #[must_use]
    pub fn factor(mut self, factor: u32) -> Self {
        self.factor = factor;
        self
    }

    /// Sets `jitter`.
    #[must_use]
    pub fn jitter(mut self, percent: u32) -> Self {
        self.jitter = percent;
        self
    }

    /// Returns the delay before an attempt, counted from 1. The same seed and attempt result in the
    /// same delay.
    #[must_use]
    pub fn delay(&self, attempt: u32, seed: u64) -> Duration {
        let (first, max) = (micros(self.first), micros(self.max));
        let growth = u64::from(self.factor).saturating_pow(attempt.saturating_sub(1));
        let spread = 100 + u64::from(self.jitter);
        let lower = first.saturating_mul(growth);
        let upper = (lower.saturating_mul(spread) / 100).min(max);
        // At the maximum the range keeps its ratio: late delays are spread as well.
        let lower = lower.min(upper.saturating_mul(100) / spread);
        let mut generator = SplitMix(seed ^ u64::from(attempt).rotate_left(32));
        let drawn = generator.below((upper - lower).saturating_add(1));
        Duration::from_micros(lower.saturating_add(drawn))
    }
}

/// Microseconds, which hold 584,000 years.
fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use alloc::{collections::BTreeMap, vec::Vec};

    use super::*;

    const MS: fn(u64) -> Duration = Duration::from_millis;

    #[test]
    fn delays_grow_within_their_bounds() {
        let backoff = Backoff::default();
        for seed in 0..1000 {
            for attempt in 1..=7 {
                let lower = MS(100) * 2u32.pow(attempt - 1);
                let delay = backoff.delay(attempt, seed);
                assert!(delay >= lower && delay <= 3 * lower, "{attempt}: {delay:?}");
            }
            for attempt in [9, 20, 64, 65, 1000, u32::MAX] {
                let delay = backoff.delay(attempt, seed);
                assert!(delay >= MS(9_999) && delay <= MS(30_000), "{delay:?}");
            }
        }
    }

    #[test]
    fn the_same_seed_has_the_same_delays_and_another_one_others() {
        let delays = |seed| -> Vec<_> {
            let backoff = Backoff::default();
            (1..20)
                .map(|attempt| backoff.delay(attempt, seed))
                .collect()
        };
        assert_eq!(delays(5), delays(5));
        assert!(delays(5).iter().zip(delays(6)).all(|(a, b)| *a != b));
    }

    #[test]
    fn a_thousand_clients_are_spread_from_the_first_attempt_on() {
        for attempt in 1..=12 {
            let delays: Vec<_> = (0..1000)
                .map(|seed| Backoff::default().delay(attempt, seed))
                .collect();
            let lower = *delays.iter().min().unwrap();
            let width = *delays.iter().max().unwrap() - lower;
            assert!(
                width * 10 > lower * 19,
                "{attempt}: {width:?} over {lower:?}"
            );
            let mut tenths = BTreeMap::new();
            for delay in delays {
                let tenth = (delay - lower).as_micros() * 10 / (width.as_micros() + 1);
                *tenths.entry(tenth).or_insert(0) += 1;
            }
            assert_eq!(tenths.len(), 10);
            assert!(tenths.values().all(|&n| n > 60 && n < 140), "{tenths:?}");
        }
    }

    #[test]
    fn odd_settings_keep_the_maximum() {
        let backoff = Backoff::default().jitter(0).factor(1).max(MS(500));
        assert_eq!(backoff.delay(9, 3), MS(100));
        let backoff = backoff.first(MS(700));
        assert_eq!(backoff.delay(1, 3), MS(500));
        let backoff = backoff.factor(u32::MAX).jitter(u32::MAX).max(Duration::MAX);
        assert!(backoff.delay(u32::MAX, u64::MAX) <= Duration::MAX);
        let backoff = Backoff::default().max(Duration::ZERO).factor(0);
        assert_eq!(backoff.delay(2, 1), Duration::ZERO);
    }
}
