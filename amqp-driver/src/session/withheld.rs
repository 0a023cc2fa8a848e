//! Deliveries for which a consumer has no room.

use std::{collections::VecDeque, mem};

use amqp_core::{DeliveryTag, client};

/// The number of runs of withheld deliveries from which on deliveries of different sizes share a
/// run.
const RUNS_COALESCED: usize = 16 << 10;

/// The maximum number of runs of withheld deliveries, which occupy 24 MiB. Reached only by
/// interleaved deliveries of several consumers of one channel without a prefetch.
const RUNS_MAX: usize = 1 << 20;

/// Deliveries beyond the share of a consumer: their bodies are dropped, and they stay
/// unacknowledged at the server until there is room for a redelivery.
///
/// ```text
///  delivered ── no room ──> withheld ── room ──> recalled ── redelivered ──> kept
/// ```
///
/// Each message therefore travels twice at most, and is not requeued and redelivered in a circle.
/// While some are withheld, first deliveries are withheld as well, which keeps the order of section
/// 4.7 of the specification. See `amqp-driver/tests/bounded/withheld.rs`.
#[derive(Debug, Default)]
pub(super) struct Withheld {
    runs: VecDeque<Run>,
    /// The number and the bytes of those that were requeued and are not redelivered yet.
    recalled: usize,
    recalled_bytes: usize,
    /// The value of `recalled` at the last check. `Some` if the consumer has nothing else.
    pub(super) missed: Option<usize>,
}

/// Consecutive delivery tags.
#[derive(Debug)]
struct Run {
    first: u64,
    last: u64,
    /// The maximum size of each, in bytes.
    each: usize,
}

impl Withheld {
    /// Adds a delivery. Returns `false` if there are too many runs.
    pub(super) fn push(&mut self, tag: u64, bytes: usize) -> bool {
        let count = self.runs.len();
        match self.runs.back_mut() {
            Some(run)
                if run.last.checked_add(1) == Some(tag)
                    && (run.each == bytes || count >= RUNS_COALESCED) =>
            {
                run.last = tag;
                run.each = run.each.max(bytes);
            }
            _ if count >= RUNS_MAX => return false,
            _ => self.runs.push_back(Run {
                first: tag,
                last: tag,
                each: bytes,
            }),
        }
        true
    }

    pub(super) fn redelivered(&mut self, bytes: usize) {
        self.recalled = self.recalled.saturating_sub(1);
        self.recalled_bytes = match self.recalled {
            0 => 0,
            _ => self.recalled_bytes.saturating_sub(bytes),
        };
    }

    /// Stops expecting redeliveries, which may have gone to other consumers.
    pub(super) fn forget_recalled(&mut self) {
        self.recalled = 0;
        self.recalled_bytes = 0;
        self.missed = None;
    }

    pub(super) fn is_empty(&self) -> bool {
        self.runs.is_empty() && self.recalled == 0
    }

    /// Whether only a redelivery, which other consumers may get, would make room for the rest.
    pub(super) fn depends_on_recalled(&self) -> bool {
        self.recalled > 0 && !self.runs.is_empty()
    }

    /// Stops expecting redeliveries if there was none since the last check.
    pub(super) fn look_for_recalled(&mut self) {
        if self.missed.replace(self.recalled) == Some(self.recalled) {
            self.forget_recalled();
        }
    }

    /// Requeues as many deliveries as there is room for, at least one if the consumer has `nothing`
    /// else. Returns whether it has requeued any.
    pub(super) fn recall(
        &mut self,
        channel: &mut client::ChannelMut<'_>,
        room: usize,
        nothing: bool,
    ) -> bool {
        let mut room = room.saturating_sub(self.recalled_bytes);
        let before = self.recalled;
        while let Some(run) = self.runs.front_mut() {
            let must = nothing && self.recalled == 0;
            let count = (room / run.each.max(1)).max(usize::from(must)) as u64;
            let count = count.min(run.last - run.first + 1);
            if count == 0 {
                break;
            }
            let recalled = Run {
                first: run.first,
                last: run.first + (count - 1),
                each: run.each,
            };
            if recalled.last < run.last {
                run.first = recalled.last + 1;
            } else {
                self.runs.pop_front();
            }
            let bytes = recalled.each.saturating_mul(count as usize);
            room = room.saturating_sub(bytes);
            self.recalled_bytes += bytes;
            self.recalled += count as usize;
            requeue(channel, &recalled);
        }
        self.recalled > before
    }

    pub(super) fn requeue_all(&mut self, channel: &mut client::ChannelMut<'_>) {
        for run in mem::take(&mut self.runs) {
            requeue(channel, &run);
        }
        self.forget_recalled();
    }
}

fn requeue(channel: &mut client::ChannelMut<'_>, run: &Run) {
    for tag in (run.first..=run.last).filter_map(DeliveryTag::new) {
        // Fails only on a channel that is closing, and the server requeues its deliveries.
        let _closed = channel.requeue_withheld(tag);
    }
}

#[cfg(test)]
mod tests {
    use amqp_core::ChannelId;

    use super::*;
    use crate::session::open::open;

    fn channel() -> (client::Connection, ChannelId) {
        let mut client = open();
        let (id, _) = client.open_channel().unwrap();
        (client, id)
    }

    fn runs(withheld: &Withheld) -> Vec<(u64, u64, usize)> {
        let runs = withheld.runs.iter();
        runs.map(|run| (run.first, run.last, run.each)).collect()
    }

    #[test]
    fn consecutive_deliveries_of_one_size_are_one_run() {
        let mut withheld = Withheld::default();
        for (tag, bytes) in [(1, 10), (2, 10), (3, 20), (5, 20), (6, 20), (7, 10)] {
            assert!(withheld.push(tag, bytes));
        }
        assert_eq!(
            runs(&withheld),
            [(1, 2, 10), (3, 3, 20), (5, 6, 20), (7, 7, 10)]
        );
    }

    #[test]
    fn many_runs_are_coalesced_and_count_with_their_largest() {
        let mut withheld = Withheld::default();
        let mut tag = 0;
        for _ in 0..RUNS_COALESCED {
            tag += 2;
            assert!(withheld.push(tag, 10));
        }
        let last = tag;
        for bytes in [5, 30, 20] {
            tag += 1;
            assert!(withheld.push(tag, bytes));
        }
        assert_eq!(withheld.runs.len(), RUNS_COALESCED);
        assert_eq!(runs(&withheld).pop(), Some((last, tag, 30)));
    }

    #[test]
    fn the_number_of_runs_is_bounded() {
        let mut withheld = Withheld::default();
        for number in 1..=RUNS_MAX as u64 {
            assert!(withheld.push(2 * number, 10));
        }
        let last = 2 * RUNS_MAX as u64;
        assert!(!withheld.push(last + 2, 10));
        assert!(withheld.push(last + 1, 10));
        assert_eq!(withheld.runs.len(), RUNS_MAX);
    }

    fn withheld(runs: &[(u64, u64, usize)]) -> Withheld {
        let mut withheld = Withheld::default();
        for &(first, last, each) in runs {
            for tag in first..=last {
                assert!(withheld.push(tag, each));
            }
        }
        withheld
    }

    #[test]
    fn as_many_are_recalled_as_there_is_room_for() {
        let (mut client, id) = channel();
        let mut channel = client.channel(id).unwrap();
        let mut withheld = withheld(&[(1, 5, 10), (6, 7, 100), (9, 9, 1)]);
        assert!(!withheld.recall(&mut channel, 9, false));
        assert!(withheld.recall(&mut channel, 29, false));
        assert_eq!((withheld.recalled, withheld.recalled_bytes), (2, 20));
        assert_eq!(runs(&withheld), [(3, 5, 10), (6, 7, 100), (9, 9, 1)]);
        assert!(withheld.depends_on_recalled() && !withheld.is_empty());
        // Those that are on their way take their room.
        assert!(!withheld.recall(&mut channel, 29, false));
        assert!(!withheld.recall(&mut channel, 0, true));
        assert!(withheld.recall(&mut channel, 20 + 30 + 100, false));
        assert_eq!((withheld.recalled, withheld.recalled_bytes), (6, 150));
        assert_eq!(runs(&withheld), [(7, 7, 100), (9, 9, 1)]);
        for left in (0..6).rev() {
            withheld.redelivered(10);
            assert_eq!(withheld.recalled, left);
        }
        assert_eq!(withheld.recalled_bytes, 0);
        assert!(!withheld.depends_on_recalled() && !withheld.is_empty());
        // One that is larger than the room, for a consumer that has nothing else.
        assert!(withheld.recall(&mut channel, 50, true));
        assert_eq!((withheld.recalled, withheld.recalled_bytes), (1, 100));
        assert!(withheld.recall(&mut channel, 101, true));
        assert_eq!((withheld.recalled, withheld.recalled_bytes), (2, 101));
        assert!(withheld.runs.is_empty() && !withheld.is_empty());
        assert!(!withheld.depends_on_recalled());
        withheld.redelivered(40);
        assert_eq!((withheld.recalled, withheld.recalled_bytes), (1, 61));
        withheld.redelivered(1);
        assert!(withheld.is_empty());
    }

    #[test]
    fn redeliveries_that_do_not_come_are_forgotten_at_the_second_look() {
        let (mut client, id) = channel();
        let mut channel = client.channel(id).unwrap();
        let mut withheld = withheld(&[(1, 3, 10)]);
        assert!(withheld.recall(&mut channel, 20, false));
        withheld.look_for_recalled();
        assert_eq!((withheld.recalled, withheld.missed), (2, Some(2)));
        // One came in between.
        withheld.redelivered(10);
        withheld.look_for_recalled();
        assert_eq!((withheld.recalled, withheld.missed), (1, Some(1)));
        withheld.look_for_recalled();
        assert_eq!((withheld.recalled, withheld.recalled_bytes), (0, 0));
        assert_eq!(withheld.missed, None);
        withheld.requeue_all(&mut channel);
        assert!(withheld.is_empty());
    }
}
