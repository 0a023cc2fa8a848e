//! Pseudo-random numbers from a seed.

use std::time::Duration;

/// A splitmix64 generator. Every seed is valid. Not for secrets.
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// Creates a generator.
    #[must_use]
    pub const fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// Returns a generator: its numbers do not depend on how many are taken from this one later.
    #[must_use]
    pub const fn fork(&mut self) -> Self {
        Self(self.next())
    }

    /// Returns the next number.
    pub const fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// Returns a number below `bound`; 0 if that is 0.
    pub const fn below(&mut self, bound: u64) -> u64 {
        if bound == 0 { 0 } else { self.next() % bound }
    }

    /// Returns an index of a collection of that length; 0 if it is empty.
    pub const fn index(&mut self, len: usize) -> usize {
        self.below(len as u64) as usize
    }

    /// Returns `true` in that many of a hundred cases.
    pub const fn percent(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }

    /// Returns a duration between two, in nanoseconds.
    pub fn duration(&mut self, min: Duration, max: Duration) -> Duration {
        let span = max.saturating_sub(min).as_nanos();
        let span = u64::try_from(span).unwrap_or(u64::MAX).saturating_add(1);
        min + Duration::from_nanos(self.below(span))
    }

    /// Returns one of several values; `None` if there are none.
    pub fn pick<'a, T>(&mut self, values: &'a [T]) -> Option<&'a T> {
        values.get(self.index(values.len()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fork_does_not_depend_on_later_numbers() {
        let mut one = Random::new(7);
        let mut other = one.clone();
        let mut forks = [one.fork(), other.fork()];
        other.next();
        assert_eq!(forks[0].next(), forks[1].next());
        assert_ne!(one.next(), other.next());
    }

    #[test]
    fn bounds_hold() {
        let mut random = Random::new(1);
        let (min, max) = (Duration::from_nanos(3), Duration::from_nanos(5));
        for _ in 0..100 {
            assert!(random.below(3) < 3);
            assert!((min..=max).contains(&random.duration(min, max)));
        }
        assert_eq!(random.below(0), 0);
        assert_eq!(random.pick::<u8>(&[]), None);
    }
}
