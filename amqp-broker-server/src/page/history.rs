//! The rates of the last minute.

use std::{collections::VecDeque, time::Duration};

use amqp_tokio::broker::Totals;
use tokio::time::Instant;

/// The time between two samples.
pub(crate) const INTERVAL: Duration = Duration::from_secs(1);

/// The number of rates that are kept.
const RATES: usize = 60;

/// Samples of the sums of a broker, the oldest first.
#[derive(Debug, Default)]
pub(crate) struct History {
    samples: VecDeque<(Instant, Totals)>,
}

/// The rates between two samples, in messages per second.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Rates {
    /// The time since then.
    pub(crate) age: Duration,
    pub(crate) published: f64,
    pub(crate) delivered: f64,
    pub(crate) acked: f64,
}

impl History {
    pub(crate) fn add(&mut self, at: Instant, totals: Totals) {
        self.samples.push_back((at, totals));
        while self.samples.len() > RATES + 1 {
            self.samples.pop_front();
        }
    }

    /// Returns the rates, the oldest first.
    pub(crate) fn rates(&self, now: Instant) -> Vec<Rates> {
        let pairs = self.samples.iter().zip(self.samples.iter().skip(1));
        let rates = pairs.map(|((from, before), (to, after))| {
            let time = to.saturating_duration_since(*from).as_secs_f64();
            let rate = |before: u64, after: u64| {
                #[expect(
                    clippy::cast_precision_loss,
                    reason = "a rate is shown with few digits"
                )]
                let count = after.saturating_sub(before) as f64;
                if time > 0.0 { count / time } else { 0.0 }
            };
            let (before, after) = (&before.messages, &after.messages);
            Rates {
                age: now.saturating_duration_since(*to),
                published: rate(before.published, after.published),
                delivered: rate(before.delivered, after.delivered),
                acked: rate(before.acked, after.acked),
            }
        });
        rates.collect()
    }
}

#[cfg(test)]
mod tests {
    use amqp_tokio::broker::{Broker, Config};

    use super::*;

    #[test]
    fn rates_are_differences_over_time_and_bounded_in_number() {
        let start = Instant::now();
        let mut totals = Broker::new(Config::default()).unwrap().totals();
        let mut history = History::default();
        assert_eq!(history.rates(start), []);
        for second in 0..100 {
            totals.messages.published += 10;
            totals.messages.acked += second;
            history.add(start + Duration::from_secs(2 * second), totals);
        }
        let rates = history.rates(start + Duration::from_secs(199));
        assert_eq!(rates.len(), RATES);
        let last = rates[RATES - 1];
        assert_eq!(last.age, Duration::from_secs(1));
        assert!((last.published - 5.0).abs() < 1e-9 && (last.acked - 49.5).abs() < 1e-9);
        assert_eq!(rates[0].age, Duration::from_secs(1 + 2 * 59));
    }
}
