//! Numbers out of several rounds.

/// The results of a measurement, a number per round.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Series(Vec<f64>);

impl Series {
    pub(crate) fn push(&mut self, value: f64) {
        self.0.push(value);
    }

    /// How many rounds there were.
    pub(crate) const fn len(&self) -> usize {
        self.0.len()
    }

    /// The one in the middle, or the mean of the two there; 0 of nothing.
    pub(crate) fn median(&self) -> f64 {
        let mut sorted = self.0.clone();
        sorted.sort_by(f64::total_cmp);
        let half = sorted.len() / 2;
        match (sorted.get(half), sorted.len() % 2) {
            (Some(&middle), 1) => middle,
            (Some(&upper), _) => f64::midpoint(sorted[half - 1], upper),
            (None, _) => 0.0,
        }
    }

    pub(crate) fn min(&self) -> f64 {
        self.0.iter().copied().reduce(f64::min).unwrap_or(0.0)
    }

    pub(crate) fn max(&self) -> f64 {
        self.0.iter().copied().reduce(f64::max).unwrap_or(0.0)
    }

    /// How far the rounds lie apart: largest less smallest, as a part of the median.
    pub(crate) fn spread(&self) -> f64 {
        (self.max() - self.min()) / self.median()
    }

    /// This divided by the other, round by round, so that a slow round counts for both.
    pub(crate) fn over(&self, other: &Self) -> Self {
        self.zip(other, |this, other| this / other)
    }

    /// The larger one of each round.
    pub(crate) fn larger(&self, other: &Self) -> Self {
        self.zip(other, f64::max)
    }

    fn zip(&self, other: &Self, with: impl Fn(f64, f64) -> f64) -> Self {
        self.0
            .iter()
            .zip(&other.0)
            .map(|(&a, &b)| with(a, b))
            .collect()
    }
}

impl FromIterator<f64> for Series {
    fn from_iter<I: IntoIterator<Item = f64>>(values: I) -> Self {
        Self(values.into_iter().collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_median_is_in_the_middle() {
        let series = |values: &[f64]| values.iter().copied().collect::<Series>();
        assert_eq!(series(&[]).median(), 0.0);
        assert_eq!(series(&[3.0, 1.0, 2.0]).median(), 2.0);
        assert_eq!(series(&[4.0, 1.0, 2.0, 3.0]).median(), 2.5);
        assert_eq!(series(&[4.0, 1.0, 2.0, 3.0]).spread(), 1.2);
    }

    #[test]
    fn ratios_are_taken_round_by_round() {
        let fast: Series = [10.0, 20.0].into_iter().collect();
        let slow: Series = [1.0, 4.0].into_iter().collect();
        assert_eq!(fast.over(&slow), [10.0, 5.0].into_iter().collect());
        assert_eq!(slow.larger(&fast), fast);
    }
}
