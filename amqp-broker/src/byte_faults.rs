//! What goes wrong with the bytes of connections, and when: the decisions, for whoever moves them.

use alloc::collections::BTreeMap;
use core::time::Duration;

use crate::{keys::ConnectionKey, random::Random};

/// A direction of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Direction {
    /// What the broker sends.
    ToClient,
    /// What the client sends.
    FromClient,
}

/// What goes wrong with the bytes of one direction of a connection. The default is nothing.
///
/// Bytes are never reordered or changed, and none is lost but by a cut.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Disturbance {
    delay: Duration,
    pieces: Option<usize>,
    cut_after: Option<u64>,
    stall_after: Option<u64>,
}

impl Disturbance {
    /// Nothing goes wrong.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            delay: Duration::ZERO,
            pieces: None,
            cut_after: None,
            stall_after: None,
        }
    }

    /// Every byte arrives so much later than it would, by the clock of the connection; what follows
    /// it is not held up any further. A bounded amount is on the way at a time, as on a real line.
    ///
    /// When the broker ends a connection, the line stays for five seconds: what it says last does
    /// not arrive over a line that takes longer.
    #[must_use]
    pub const fn delay(mut self, delay: Duration) -> Self {
        self.delay = delay;
        self
    }

    /// Bytes arrive in pieces of 1 to `max` bytes, each after a turn of its own. Where the stream is
    /// split follows from the broker's seed and the number of the connection, and from nothing else;
    /// a piece can only be split further where its sender has not sent all of it yet. 0 is taken as 1.
    #[must_use]
    pub const fn split(mut self, max: usize) -> Self {
        self.pieces = Some(if max == 0 { 1 } else { max });
        self
    }

    /// The connection ends without a word, in both directions, when so many bytes have arrived in
    /// this one: 0 is at once. What was on the way is lost.
    #[must_use]
    pub const fn cut_after(mut self, bytes: u64) -> Self {
        self.cut_after = Some(bytes);
        self
    }

    /// Nothing arrives any more in this direction when so many bytes have: 0 is at once. Not even an
    /// end does, so that only heartbeats and timeouts notice. It goes on from there when the faults
    /// of the connection are [set](crate::Faults::bytes) to others.
    #[must_use]
    pub const fn stall_after(mut self, bytes: u64) -> Self {
        self.stall_after = Some(bytes);
        self
    }

    fn is_nothing(&self) -> bool {
        *self == Self::new()
    }
}

/// What goes wrong with the bytes of a connection. The default is nothing.
///
/// ```
/// use amqp_broker::{ByteFaults, Disturbance};
/// use std::time::Duration;
///
/// // Every byte alone, both ways.
/// let crumbs = ByteFaults::both(Disturbance::new().split(1));
/// // A slow way there, and a way back that ends after 1000 bytes, most likely within a frame.
/// let bad_day = ByteFaults::new()
///     .from_client(Disturbance::new().delay(Duration::from_millis(80)))
///     .to_client(Disturbance::new().split(100).cut_after(1000));
/// # assert_ne!(crumbs, bad_day);
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ByteFaults {
    to_client: Disturbance,
    from_client: Disturbance,
}

impl ByteFaults {
    /// Nothing goes wrong.
    #[must_use]
    pub const fn new() -> Self {
        Self::both(Disturbance::new())
    }

    /// The same goes wrong in both directions. Each counts its own bytes, and is split in its own
    /// places.
    #[must_use]
    pub const fn both(disturbance: Disturbance) -> Self {
        Self {
            to_client: disturbance,
            from_client: disturbance,
        }
    }

    /// These, with what goes wrong with what the broker sends.
    #[must_use]
    pub const fn to_client(mut self, disturbance: Disturbance) -> Self {
        self.to_client = disturbance;
        self
    }

    /// These, with what goes wrong with what the client sends.
    #[must_use]
    pub const fn from_client(mut self, disturbance: Disturbance) -> Self {
        self.from_client = disturbance;
        self
    }

    /// Whether the connection is cut before another byte arrives.
    pub(crate) fn cut_at_once(&self) -> bool {
        let ways = [&self.to_client, &self.from_client];
        ways.iter().any(|way| way.cut_after == Some(0))
    }
}

/// Whether bytes may arrive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Passage {
    /// So many at most, as one piece; never 0.
    Open(usize),
    /// None, for as long as this plan holds; nor may an end of the stream.
    Stalled,
    /// None, and the connection is to end without a word, in both directions.
    Cut,
}

/// What is to happen to the bytes of a connection from now on, decided beforehand: it depends on how
/// many have arrived and on nothing else.
///
/// Whoever moves the bytes gets it from [`Broker::poll_byte_plan`](crate::Broker::poll_byte_plan),
/// asks it before every move, and tells it afterwards.
///
/// ```
/// use amqp_broker::{Broker, ByteFaults, Config, Direction, Disturbance, Passage};
/// use amqp_core::Instant;
///
/// let mut broker = Broker::new(Config::default())?;
/// let half = Disturbance::new().split(7).cut_after(10);
/// broker.faults().bytes_of_next(1, ByteFaults::new().to_client(half));
/// let connection = broker.accept(Instant::ORIGIN)?;
///
/// let (key, mut plan) = broker.poll_byte_plan().ok_or("no plan")?;
/// assert_eq!(key, connection);
/// let mut pieces = Vec::new();
/// while let Passage::Open(count) = plan.passage(Direction::ToClient) {
///     plan.passed(Direction::ToClient, count);
///     pieces.push(count);
/// }
/// assert_eq!(plan.passage(Direction::ToClient), Passage::Cut);
/// assert_eq!(pieces.iter().sum::<usize>(), 10);
/// assert!(pieces.iter().all(|count| (1..=7).contains(count)));
/// # Ok::<_, Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
pub struct BytePlan {
    to_client: Course,
    from_client: Course,
}

impl BytePlan {
    /// The plan of a connection of a broker with that seed.
    pub(crate) const fn new(faults: ByteFaults, seed: u64, key: ConnectionKey) -> Self {
        // Neighbouring seeds, and neighbouring connections, have nothing in common.
        let mut random = Random::new(Random::new(seed).next().wrapping_add(key.0));
        Self {
            to_client: Course::new(faults.to_client, random.next()),
            from_client: Course::new(faults.from_client, random.next()),
        }
    }

    /// Nothing goes wrong: bytes need not be looked after.
    #[must_use]
    pub fn is_clear(&self) -> bool {
        self.to_client.faults.is_nothing() && self.from_client.faults.is_nothing()
    }

    /// The connection is to end without a word, because one of its directions is cut.
    #[must_use]
    pub fn is_cut(&self) -> bool {
        [&self.to_client, &self.from_client]
            .iter()
            .any(|course| course.passage() == Passage::Cut)
    }

    /// How long bytes are on the way that are sent now.
    #[must_use]
    pub const fn delay(&self, direction: Direction) -> Duration {
        self.course(direction).faults.delay
    }

    /// Whether bytes may arrive. The answer stays the same until some [have](Self::passed).
    #[must_use]
    pub fn passage(&self, direction: Direction) -> Passage {
        self.course(direction).passage()
    }

    /// So many bytes have arrived, no more than may.
    pub const fn passed(&mut self, direction: Direction, count: usize) {
        match direction {
            Direction::ToClient => self.to_client.passed(count),
            Direction::FromClient => self.from_client.passed(count),
        }
    }

    const fn course(&self, direction: Direction) -> &Course {
        match direction {
            Direction::ToClient => &self.to_client,
            Direction::FromClient => &self.from_client,
        }
    }
}

/// The plan for one direction.
#[derive(Clone, Debug)]
struct Course {
    faults: Disturbance,
    /// How many bytes have arrived.
    passed: u64,
    /// How many are left of the piece in progress.
    piece: usize,
    random: Random,
}

impl Course {
    const fn new(faults: Disturbance, seed: u64) -> Self {
        let mut course = Self {
            faults,
            passed: 0,
            piece: 0,
            random: Random::new(seed),
        };
        course.begin_piece();
        course
    }

    const fn begin_piece(&mut self) {
        self.piece = match self.faults.pieces {
            Some(max) => (self.random.next() % max as u64) as usize + 1,
            None => usize::MAX,
        };
    }

    fn passage(&self) -> Passage {
        let until = |end: Option<u64>| end.map_or(u64::MAX, |end| end.saturating_sub(self.passed));
        let until_cut = until(self.faults.cut_after);
        let until_stall = until(self.faults.stall_after);
        if until_cut == 0 {
            return Passage::Cut;
        }
        if until_stall == 0 {
            return Passage::Stalled;
        }
        let left = usize::try_from(until_cut.min(until_stall)).unwrap_or(usize::MAX);
        Passage::Open(self.piece.min(left))
    }

    const fn passed(&mut self, count: usize) {
        self.passed = self.passed.saturating_add(count as u64);
        self.piece = self.piece.saturating_sub(count);
        if self.piece == 0 {
            self.begin_piece();
        }
    }
}

/// Which connections are disturbed.
#[derive(Debug, Default)]
pub(crate) struct ByteSwitch {
    /// How many connections to come are, and how.
    next: u64,
    of_next: ByteFaults,
    /// What has changed and nobody has asked for yet.
    changes: BTreeMap<ConnectionKey, ByteFaults>,
}

impl ByteSwitch {
    pub(crate) const fn set_next(&mut self, count: u64, faults: ByteFaults) {
        self.next = count;
        self.of_next = faults;
    }

    pub(crate) fn set(&mut self, key: ConnectionKey, faults: ByteFaults) {
        self.changes.insert(key, faults);
    }

    /// A connection was accepted.
    pub(crate) fn begin(&mut self, key: ConnectionKey) {
        if self.next > 0 {
            self.next -= 1;
            self.set(key, self.of_next);
        }
    }

    /// A connection is gone.
    pub(crate) fn end(&mut self, key: ConnectionKey) {
        self.changes.remove(&key);
    }

    pub(crate) fn poll(&mut self) -> Option<(ConnectionKey, ByteFaults)> {
        self.changes.pop_first()
    }
}

#[cfg(test)]
mod tests {
    use alloc::{vec, vec::Vec};

    use super::*;

    fn plan(disturbance: Disturbance, seed: u64, connection: u64) -> BytePlan {
        BytePlan::new(
            ByteFaults::both(disturbance),
            seed,
            ConnectionKey(connection),
        )
    }

    /// Where the stream is split, up to that many bytes, if at most so many come at a time.
    fn boundaries(mut plan: BytePlan, direction: Direction, end: usize, most: usize) -> Vec<usize> {
        let (mut at, mut found) = (0, vec![]);
        while at < end {
            let Passage::Open(count) = plan.passage(direction) else {
                break;
            };
            assert!(count > 0);
            let moved = count.min(most).min(end - at);
            plan.passed(direction, moved);
            at += moved;
            if moved == count {
                found.push(at);
            }
        }
        found
    }

    #[test]
    fn the_same_seed_splits_in_the_same_places_however_the_bytes_come() {
        use Direction::{FromClient, ToClient};
        let split = Disturbance::new().split(20);
        let first = boundaries(plan(split, 7, 1), ToClient, 5000, usize::MAX);
        assert!((300..700).contains(&first.len()), "{}", first.len());
        let sizes: Vec<usize> = first.windows(2).map(|it| it[1] - it[0]).collect();
        assert_eq!(
            (sizes.iter().min(), sizes.iter().max()),
            (Some(&1), Some(&20))
        );
        for most in [1, 3, 19] {
            assert_eq!(boundaries(plan(split, 7, 1), ToClient, 5000, most), first);
        }
        for (seed, connection, direction) in
            [(8, 1, ToClient), (7, 2, ToClient), (7, 1, FromClient)]
        {
            let plan = plan(split, seed, connection);
            assert_ne!(boundaries(plan, direction, 5000, usize::MAX), first);
        }
    }

    #[test]
    fn what_has_come_one_way_does_not_change_where_the_other_is_split() {
        let split = Disturbance::new().split(9);
        let mut used = plan(split, 1, 1);
        while used.passage(Direction::FromClient) != Passage::Open(4) {
            used.passed(Direction::FromClient, 1);
        }
        let of = |plan| boundaries(plan, Direction::ToClient, 500, usize::MAX);
        assert_eq!(of(used), of(plan(split, 1, 1)));
    }

    #[test]
    fn pieces_of_one_byte_are_of_one_byte() {
        for max in [0, 1] {
            let plan = plan(Disturbance::new().split(max), 3, 1);
            let found = boundaries(plan, Direction::ToClient, 10, usize::MAX);
            assert_eq!(found, (1..=10).collect::<Vec<_>>());
        }
    }

    #[test]
    fn a_direction_stops_at_the_byte() {
        let ends = [
            (Disturbance::new().cut_after(100), Passage::Cut),
            (Disturbance::new().stall_after(100), Passage::Stalled),
            (
                Disturbance::new().cut_after(100).stall_after(100),
                Passage::Cut,
            ),
            (
                Disturbance::new().cut_after(101).stall_after(100),
                Passage::Stalled,
            ),
        ];
        for (disturbance, end) in ends {
            for disturbance in [disturbance, disturbance.split(30)] {
                let mut plan = plan(disturbance, 0, 1);
                let mut count = 0;
                while let Passage::Open(may) = plan.passage(Direction::ToClient) {
                    plan.passed(Direction::ToClient, may);
                    count += may;
                }
                assert_eq!(count, 100);
                assert_eq!(plan.passage(Direction::ToClient), end);
                assert_eq!(plan.is_cut(), end == Passage::Cut);
                // The other way has counted nothing yet.
                assert!(matches!(
                    plan.passage(Direction::FromClient),
                    Passage::Open(_)
                ));
            }
        }
    }

    #[test]
    fn nothing_goes_wrong_where_nothing_is_said() {
        let clear = plan(Disturbance::new(), 0, 1);
        assert!(clear.is_clear() && !clear.is_cut());
        assert_eq!(
            clear.passage(Direction::ToClient),
            Passage::Open(usize::MAX)
        );
        let slow = Disturbance::new().delay(Duration::from_secs(1));
        let slow = ByteFaults::new().from_client(slow);
        let slow = BytePlan::new(slow, 0, ConnectionKey(1));
        assert!(!slow.is_clear());
        assert_eq!(slow.delay(Direction::ToClient), Duration::ZERO);
        assert_eq!(slow.delay(Direction::FromClient), Duration::from_secs(1));
    }
}
