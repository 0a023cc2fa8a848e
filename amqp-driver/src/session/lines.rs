//! Publishers that wait for room: tickets, first in, first out.

use std::{collections::BTreeMap, task::Waker};

use amqp_core::ChannelId;

use super::later::Later;

/// The line of a ticket: one for each kind of room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LineId {
    /// Room in the output for messages of one frame, shared by all channels. Publishers also wait
    /// here for `connection.unblocked`, see <https://www.rabbitmq.com/docs/connection-blocked>.
    Output,
    /// Room for larger messages, shared by all channels.
    Backlog,
    /// Room of one channel: its window of unconfirmed publishes, `channel.flow` (section 1.5.2.3 of
    /// the protocol reference), its own backlog.
    Channel(ChannelId),
}

impl LineId {
    /// The room that a publish takes, in the unit of the line: bytes of the output, or one place in
    /// the window.
    pub(crate) const fn cost(self, bytes: usize) -> usize {
        match self {
            Self::Output | Self::Backlog => bytes,
            Self::Channel(_) => 1,
        }
    }
}

/// A place in a line. Numbers ascend over all lines, so that a ticket that moves to another line
/// keeps its rank.
#[derive(Debug)]
pub(crate) struct Ticket {
    pub(crate) number: u64,
    pub(crate) line: LineId,
}

/// Publishers that wait for the same room.
///
/// ```text
///  join ──> waiting ── grant ──> granted ── the publish, or a drop ──> (gone)
///              ^                    │
///              │                    v  the next round of grants
///              └── refused ────── stale ── the publish, or a drop ──> (gone)
/// ```
///
/// The waiting publishers share the available room. A grant reserves its share until the next
/// round, and the part that a publish leaves unused becomes a credit of its channel: other
/// publishers can use neither in between. A future that is not polled keeps its reservation for one
/// round only, so that it blocks no other.
///
/// The unit of room is that of the line: bytes in the output and the backlog, publishes in a
/// window.
#[derive(Debug, Default)]
pub(crate) struct Line {
    waiting: BTreeMap<u64, Waiting>,
    /// The room that each grant reserves, by ticket.
    granted: BTreeMap<u64, usize>,
    /// The unused rest of this round's grants, by channel.
    credits: BTreeMap<ChannelId, usize>,
    /// Invariant: the sum of `granted` and `credits`.
    reserved: usize,
    /// A publish has been made since the driver last checked.
    used: bool,
}

#[derive(Debug)]
struct Waiting {
    channel: ChannelId,
    /// The room that the publish takes.
    cost: usize,
    waker: Waker,
}

/// The state of a ticket in its line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Standing {
    Waiting,
    /// The ticket may publish, with this much room.
    Granted(usize),
    /// The ticket may try to publish, without reserved room.
    Stale,
}

impl Line {
    /// Whether room is reserved.
    #[inline]
    pub(crate) const fn is_shared(&self) -> bool {
        self.reserved > 0
    }

    pub(crate) fn has_waiting(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// Whether a publish without a ticket overtakes no other: its channel has enough credit, or no
    /// ticket waits and there is more room than is reserved.
    pub(crate) fn is_open_to(&self, channel: ChannelId, cost: usize, room: usize) -> bool {
        self.credits.get(&channel).is_some_and(|it| *it >= cost)
            || (self.waiting.is_empty() && (self.reserved == 0 || room > self.reserved))
    }

    pub(crate) fn join(
        &mut self,
        number: u64,
        channel: ChannelId,
        cost: usize,
        waker: Waker,
        later: &mut Later,
    ) {
        let waiting = Waiting {
            channel,
            cost,
            waker,
        };
        let before = self.waiting.insert(number, waiting);
        later.drop_waker(before.map(|before| before.waker));
    }

    /// Returns the ticket's standing, and consumes its grant.
    pub(crate) fn claim(&mut self, number: u64) -> Standing {
        if self.waiting.contains_key(&number) {
            return Standing::Waiting;
        }
        match self.granted.remove(&number) {
            Some(room) => {
                self.reserved -= room;
                Standing::Granted(room)
            }
            None => Standing::Stale,
        }
    }

    /// Accounts for a publish. The unused rest of its grant becomes a credit of its channel; a
    /// publish without a grant uses that credit.
    pub(crate) fn settle(&mut self, channel: ChannelId, cost: usize, granted: Option<usize>) {
        self.used = true;
        if let Some(room) = granted {
            // A lone publisher needs no credit.
            if self.reserved > 0 || self.has_waiting() {
                let rest = room.saturating_sub(cost);
                *self.credits.entry(channel).or_default() += rest;
                self.reserved += rest;
            }
        } else if let Some(credit) = self.credits.get_mut(&channel) {
            let used = cost.min(*credit);
            *credit -= used;
            self.reserved -= used;
        }
    }

    /// Removes a ticket and its grant.
    pub(crate) fn leave(&mut self, number: u64, later: &mut Later) {
        if let Some(waiting) = self.waiting.remove(&number) {
            later.drop_waker(Some(waiting.waker));
        }
        if let Some(room) = self.granted.remove(&number) {
            self.reserved -= room;
        }
    }

    /// Whether a publish has been made since the last call.
    pub(crate) fn take_used(&mut self) -> bool {
        std::mem::take(&mut self.used)
    }

    /// Begins a round: drops the reservations of the previous one.
    pub(crate) fn begin_round(&mut self) {
        self.granted.clear();
        self.credits.clear();
        self.reserved = 0;
    }

    /// Grants the unreserved part of `room`, first in, first out, in equal shares, but to each
    /// publish at least its cost.
    pub(crate) fn grant(&mut self, room: usize, later: &mut Later) {
        let free = room.saturating_sub(self.reserved);
        let count = self.waiting.len().max(1);
        let (share, mut left) = (free / count, free % count);
        while self.reserved < room
            && let Some((number, waiting)) = self.waiting.pop_first()
        {
            let one = usize::from(left > 0);
            left -= one;
            let room = (share + one).max(waiting.cost);
            self.granted.insert(number, room);
            self.reserved += room;
            later.wake(Some(waiting.waker));
        }
    }

    /// Wakes and removes the tickets of a channel, or all: the channel or the connection has ended.
    pub(crate) fn dismiss(&mut self, channel: Option<ChannelId>, later: &mut Later) {
        self.waiting.retain(|_, waiting| {
            let stays = channel.is_some_and(|channel| waiting.channel != channel);
            if !stays {
                let waker = std::mem::replace(&mut waiting.waker, Waker::noop().clone());
                later.wake(Some(waker));
            }
            stays
        });
    }
}

#[cfg(test)]
mod tests {
    use std::{
        sync::{
            Arc,
            atomic::{AtomicBool, Ordering::Relaxed},
        },
        task::Wake,
    };

    use super::*;
    use crate::session::open::open;

    /// A task that was woken, or not.
    #[derive(Default)]
    struct Woken(AtomicBool);

    impl Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.0.store(true, Relaxed);
        }
    }

    fn channels() -> [ChannelId; 2] {
        let mut client = open();
        [(); 2].map(|()| client.open_channel().unwrap().0)
    }

    /// A line with these waiting publishes: ticket, channel, cost.
    fn line(waiting: &[(u64, ChannelId, usize)]) -> (Line, Later) {
        let (mut line, mut later) = (Line::default(), Later::default());
        for (number, channel, cost) in waiting {
            let waker = Waker::noop().clone();
            line.join(*number, *channel, *cost, waker, &mut later);
        }
        (line, later)
    }

    #[test]
    fn the_unused_rest_of_a_grant_is_a_credit_of_its_channel() {
        let [a, b] = channels();
        let (mut line, mut later) = line(&[(1, a, 10), (2, b, 10)]);
        line.grant(100, &mut later);
        assert_eq!(line.claim(1), Standing::Granted(50));
        line.settle(a, 10, Some(50));
        // Of 100, 50 are granted to the other channel, and 40 are the credit.
        assert!(line.is_open_to(a, 40, 0) && !line.is_open_to(a, 41, 0));
        assert!(line.is_open_to(b, 10, 91) && !line.is_open_to(b, 10, 90));
        line.settle(a, 30, None);
        assert!(line.is_open_to(a, 10, 0) && !line.is_open_to(a, 11, 0));
        assert!(line.is_open_to(b, 10, 61) && !line.is_open_to(b, 10, 60));
        // More than the credit uses it up.
        line.settle(a, 30, None);
        assert!(!line.is_open_to(a, 1, 0));
        assert!(line.is_open_to(b, 10, 51) && !line.is_open_to(b, 10, 50));
        assert_eq!(line.claim(2), Standing::Granted(50));
        assert!(!line.is_shared());
    }

    #[test]
    fn a_credit_is_for_a_publisher_that_is_not_alone() {
        let [a, b] = channels();
        let (mut alone, mut later) = line(&[(1, a, 10)]);
        alone.grant(100, &mut later);
        assert_eq!(alone.claim(1), Standing::Granted(100));
        alone.settle(a, 10, Some(100));
        assert!(!alone.is_shared() && alone.credits.is_empty());

        // The other one came after the grant.
        let (mut joined, mut later) = line(&[(1, a, 10)]);
        joined.grant(100, &mut later);
        joined.join(2, b, 10, Waker::noop().clone(), &mut later);
        assert_eq!(joined.claim(1), Standing::Granted(100));
        joined.settle(a, 10, Some(100));
        assert!(joined.is_shared() && joined.is_open_to(a, 90, 0));
    }

    #[test]
    fn a_publish_shows_that_the_round_is_used() {
        let [a, _] = channels();
        let (mut line, _later) = line(&[]);
        assert!(!line.take_used());
        line.settle(a, 10, None);
        assert!(line.take_used() && !line.take_used());
    }

    #[test]
    fn a_round_drops_what_was_reserved() {
        let [a, b] = channels();
        let (mut line, mut later) = line(&[(1, a, 10), (2, b, 10), (3, b, 10)]);
        line.grant(90, &mut later);
        assert_eq!(line.claim(1), Standing::Granted(30));
        line.settle(a, 10, Some(30));
        line.leave(2, &mut later);
        line.begin_round();
        assert!(!line.is_shared() && line.credits.is_empty());
        assert_eq!(line.claim(3), Standing::Stale);
    }

    #[test]
    fn room_is_granted_in_shares_and_at_least_the_cost() {
        let [a, b] = channels();
        let (mut line, mut later) = line(&[(1, a, 10), (2, b, 10), (3, b, 60), (4, a, 10)]);
        // 101 in shares of 25, and one of 26.
        line.grant(101, &mut later);
        assert_eq!(line.granted, BTreeMap::from([(1, 26), (2, 25), (3, 60)]));
        assert_eq!(line.reserved, 111);
        assert_eq!(line.claim(4), Standing::Waiting);
        assert!(line.has_waiting());
        line.grant(111, &mut later);
        assert_eq!(line.claim(4), Standing::Waiting);
        line.leave(3, &mut later);
        assert_eq!(line.reserved, 51);
        line.grant(101, &mut later);
        assert_eq!(line.claim(4), Standing::Granted(50));
    }

    #[test]
    fn a_publish_without_a_ticket_overtakes_none() {
        let [a, b] = channels();
        let (mut line, mut later) = line(&[]);
        assert!(line.is_open_to(a, 10, 0));
        line.join(1, b, 10, Waker::noop().clone(), &mut later);
        assert!(!line.is_open_to(a, 10, 1000));
        line.grant(100, &mut later);
        assert!(line.is_open_to(a, 10, 101) && !line.is_open_to(a, 10, 100));
        line.leave(1, &mut later);
        assert!(line.is_open_to(a, 10, 0));
    }

    #[test]
    fn the_tickets_of_a_channel_are_dismissed_and_woken_or_all() {
        let [a, b] = channels();
        let (mut line, mut later) = line(&[]);
        let woken: Vec<_> = [(1, a), (2, b), (3, a)]
            .into_iter()
            .map(|(number, channel)| {
                let woken = Arc::new(Woken::default());
                line.join(number, channel, 10, woken.clone().into(), &mut later);
                woken
            })
            .collect();
        let run = |later: &mut Later| {
            later.run();
            woken
                .iter()
                .map(|it| it.0.load(Relaxed))
                .collect::<Vec<_>>()
        };
        line.dismiss(Some(a), &mut later);
        assert_eq!(run(&mut later), [true, false, true]);
        let standings = [1, 2, 3].map(|number| line.claim(number));
        assert_eq!(
            standings,
            [Standing::Stale, Standing::Waiting, Standing::Stale]
        );
        line.dismiss(None, &mut later);
        assert_eq!(run(&mut later), [true, true, true]);
        assert_eq!(line.claim(2), Standing::Stale);
    }
}
