//! Spare capacity, and its release.

use alloc::collections::VecDeque;

/// The capacity that is always kept, in elements.
const KEPT: usize = 64;

/// Releases most of the spare capacity of a queue if at most a quarter of its capacity is used.
/// Called after each removal: half of the remaining elements are removed, or as many added, before
/// they are moved again, which takes constant time for each removal on average.
pub(crate) fn release_spare<T>(queue: &mut VecDeque<T>) {
    let capacity = queue.capacity();
    if capacity > KEPT && queue.len() <= capacity / 4 {
        queue.shrink_to((2 * queue.len()).max(KEPT));
    }
}

/// Removes the first element, and releases spare capacity.
pub(crate) fn pop_front<T>(queue: &mut VecDeque<T>) -> Option<T> {
    let first = queue.pop_front()?;
    release_spare(queue);
    Some(first)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_capacity_follows_the_length() {
        let mut queue: VecDeque<u32> = (0..100_000).collect();
        let (mut moves, mut capacity) = (0, queue.capacity());
        for next in 0..100_000 {
            assert_eq!(pop_front(&mut queue), Some(next));
            assert!(queue.capacity() <= (4 * queue.len()).max(2 * KEPT));
            if queue.capacity() != capacity {
                moves += queue.len();
                capacity = queue.capacity();
            }
        }
        assert!(moves <= 100_000, "{moves}");
        assert_eq!(pop_front(&mut queue), None);
    }

    #[test]
    fn a_queue_that_shrinks_and_grows_by_one_is_not_moved() {
        let mut queue: VecDeque<u32> = (0..10_000).collect();
        while queue.len() > 1000 {
            pop_front(&mut queue);
        }
        let capacity = queue.capacity();
        for next in 0..10_000 {
            queue.push_back(next);
            pop_front(&mut queue);
            assert_eq!(queue.capacity(), capacity);
        }
    }
}
