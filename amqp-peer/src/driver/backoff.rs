//! The waits between the attempts of a connector.

use std::time::Duration;

use super::connector::Connect;

/// The minimum wait before another attempt.
pub(super) const MIN_WAIT: Duration = Duration::from_millis(1);

/// The waits of a connector: each twice as long as the last one, up to a maximum.
#[derive(Debug)]
pub(super) struct Backoff {
    first: Duration,
    max: Duration,
    next: Duration,
    random: u64,
}

impl Backoff {
    pub(super) fn new(connect: &Connect, seed: u64) -> Self {
        let first = connect.retry_first.max(MIN_WAIT);
        Self {
            first,
            max: connect.retry_max.max(first),
            next: first,
            random: seed,
        }
    }

    /// Whether a link was up for long enough to be dialled again at once.
    pub(super) fn is_long(&self, up_for: Duration) -> bool {
        up_for >= self.max
    }

    /// Begins with the first wait again.
    pub(super) const fn reset(&mut self) {
        self.next = self.first;
    }

    /// The next wait, spread by a fifth, so that peers that have lost the same one come back one by
    /// one.
    pub(super) fn next(&mut self) -> Duration {
        // The generator of Knuth's MMIX, of which the upper bits are good enough here.
        self.random = self
            .random
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        let part = (self.random >> 33) as u32 % 400;
        let wait = (self.next / 1000).saturating_mul(800 + part);
        self.next = self.next.saturating_mul(2).min(self.max);
        wait
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn millis(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    fn backoff(first: u64, max: u64, seed: u64) -> Backoff {
        let connect = Connect::tcp("localhost", 1).retry(millis(first), millis(max));
        Backoff::new(&connect, seed)
    }

    #[test]
    fn waits_double_up_to_the_maximum_within_a_fifth() {
        for seed in 0..100 {
            let mut backoff = backoff(100, 3000, seed);
            for exact in [100, 200, 400, 800, 1600, 3000, 3000, 3000] {
                let wait = backoff.next();
                let bounds = millis(exact) * 8 / 10..millis(exact) * 12 / 10;
                assert!(bounds.contains(&wait), "{wait:?} for {exact} ms");
            }
        }
    }

    #[test]
    fn a_reset_begins_with_the_first_wait() {
        let mut backoff = backoff(100, 3000, 7);
        for _ in 0..5 {
            let _wait = backoff.next();
        }
        backoff.reset();
        assert!(backoff.next() < millis(120));
    }

    #[test]
    fn waits_of_different_seeds_differ() {
        let waits = (0..10).map(|seed| backoff(1000, 1000, seed).next());
        let waits: std::collections::BTreeSet<Duration> = waits.collect();
        assert!(waits.len() > 5, "{waits:?}");
    }

    #[test]
    fn waits_are_never_zero_and_the_maximum_is_never_below_the_first() {
        let mut connect = Connect::tcp("localhost", 1).retry(Duration::ZERO, Duration::ZERO);
        assert_eq!(connect.retry_first, MIN_WAIT);
        (connect.retry_first, connect.retry_max) = (Duration::ZERO, Duration::ZERO);
        let mut backoff = Backoff::new(&connect, 1);
        for _ in 0..100 {
            assert!(!backoff.next().is_zero());
        }
        let mut backoff = self::backoff(500, 100, 1);
        assert!(backoff.next() >= millis(400) && backoff.next() >= millis(400));
    }

    #[test]
    fn the_longest_wait_does_not_overflow() {
        let connect = Connect::tcp("localhost", 1).retry(Duration::MAX, Duration::MAX);
        let mut backoff = Backoff::new(&connect, 1);
        assert!(backoff.next() > millis(1) && backoff.next() > millis(1));
    }

    #[test]
    fn a_link_is_long_from_the_maximum_on() {
        let backoff = backoff(100, 3000, 1);
        assert!(!backoff.is_long(millis(2999)) && backoff.is_long(millis(3000)));
    }
}
