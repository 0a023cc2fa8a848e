//! Messages that are requeued together.

use alloc::{collections::VecDeque, vec::Vec};

/// The number of messages from which merging costs less than inserting them one by one, which moves
/// the shorter part of the others each time.
const MERGE_FROM: usize = 16;

/// Inserts messages where their sequence numbers belong. The cost grows with their number and that of
/// the messages behind the first of them, and not with the product.
pub(super) fn merge<T>(level: &mut VecDeque<T>, mut requeued: Vec<T>, seq: impl Fn(&T) -> u64) {
    requeued.sort_by_key(&seq);
    let (Some(first), Some(last)) = (requeued.first(), requeued.last()) else {
        return;
    };
    let (first, last) = (seq(first), seq(last));
    if level.front().is_none_or(|front| last < seq(front)) {
        requeued
            .into_iter()
            .rev()
            .for_each(|it| level.push_front(it));
    } else if requeued.len() < MERGE_FROM {
        for entry in requeued {
            let at = level.partition_point(|other| seq(other) < seq(&entry));
            level.insert(at, entry);
        }
    } else {
        let at = level.partition_point(|other| seq(other) < first);
        let behind = level.split_off(at);
        let mut requeued = requeued.into_iter().peekable();
        for entry in behind {
            while let Some(next) = requeued.next_if(|next| seq(next) < seq(&entry)) {
                level.push_back(next);
            }
            level.push_back(entry);
        }
        level.extend(requeued);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_has_its_place() {
        for ready in [0..0, 0..40, 10..30, 35..40] {
            for count in [0, 1, 5, 40] {
                for step in [1, 2, 3] {
                    let requeued: Vec<u64> = (0..40).step_by(step).take(count).collect();
                    let ready = ready.clone().filter(|it| !requeued.contains(it));
                    let mut level: VecDeque<u64> = ready.collect();
                    let mut expected: Vec<u64> = level.iter().copied().collect();
                    expected.extend(&requeued);
                    expected.sort_unstable();
                    merge(&mut level, requeued.into_iter().rev().collect(), |it| *it);
                    assert_eq!(level, expected);
                }
            }
        }
    }

    /// One by one this would take minutes.
    #[test]
    fn many_are_requeued_between_as_many_others() {
        const COUNT: usize = 2_000_000;
        let mut level: VecDeque<u64> = (0..).step_by(2).take(COUNT).collect();
        let odd = (1..).step_by(2).take(COUNT).collect();
        merge(&mut level, odd, |it| *it);
        assert!(level.into_iter().eq(0..2 * COUNT as u64));
    }
}
