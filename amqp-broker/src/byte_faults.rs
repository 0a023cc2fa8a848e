//! Faults of the bytes of connections: the decisions, which the transport applies.

use alloc::collections::BTreeMap;
use core::time::Duration;

use crate::{keys::ConnectionKey, random::Random};

/// A direction of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Direction {
    /// The output of the broker.
    ToClient,
    /// The output of the client.
    FromClient,
}

/// The faults of the bytes in one direction of a connection. The default has none.
///
/// Bytes are never reordered or changed, and only a cut loses them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Impairment {
    delay: Duration,
    pieces: Option<usize>,
    cut_after: Option<u64>,
    stall_after: Option<u64>,
}

impl Impairment {
    /// Creates an impairment without faults.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            delay: Duration::ZERO,
            pieces: None,
            cut_after: None,
            stall_after: None,
        }
    }

    /// Delays every byte by the same time, by the clock of the connection; the delays of successive
    /// bytes do not add up. The number of bytes in flight is bounded, as in a network.
    ///
    /// When the broker ends a connection, bytes in flight still arrive for five seconds: with a
    /// longer delay the final bytes are lost.
    #[must_use]
    pub const fn delay(mut self, delay: Duration) -> Self {
        self.delay = delay;
        self
    }

    /// Splits the stream into pieces of 1 to `max` bytes, each of which arrives separately. The
    /// boundaries depend only on the broker's seed, the number of the connection and the direction;
    /// a piece is split further only where its sender has not sent all of it yet. A `max` of 0
    /// counts as 1.
    #[must_use]
    pub const fn split(mut self, max: usize) -> Self {
        self.pieces = Some(if max == 0 { 1 } else { max });
        self
    }

    /// Cuts the connection in both directions, without a close handshake, when this many bytes have
    /// arrived in this one; 0 cuts it at once. Bytes in flight are lost.
    #[must_use]
    pub const fn cut_after(mut self, bytes: u64) -> Self {
        self.cut_after = Some(bytes);
        self
    }

    /// Stalls this direction when this many bytes have arrived; 0 stalls it at once. An end of the
    /// stream does not arrive either, so that only heartbeats and timeouts detect it. The direction
    /// continues when other faults are [set](crate::Faults::bytes) for the connection.
    #[must_use]
    pub const fn stall_after(mut self, bytes: u64) -> Self {
        self.stall_after = Some(bytes);
        self
    }

    fn is_none(&self) -> bool {
        *self == Self::new()
    }
}

/// The faults of the bytes of a connection. The default has none.
///
/// ```
/// use amqp_broker::{ByteFaults, Impairment};
/// use std::time::Duration;
///
/// // Every byte alone, in both directions.
/// let single_bytes = ByteFaults::both(Impairment::new().split(1));
/// // Slow to the broker, and cut after 1000 bytes to the client, most likely within a frame.
/// let lossy = ByteFaults::new()
///     .from_client(Impairment::new().delay(Duration::from_millis(80)))
///     .to_client(Impairment::new().split(100).cut_after(1000));
/// # assert_ne!(single_bytes, lossy);
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ByteFaults {
    to_client: Impairment,
    from_client: Impairment,
}

impl ByteFaults {
    /// Creates a set without faults.
    #[must_use]
    pub const fn new() -> Self {
        Self::both(Impairment::new())
    }

    /// Creates the same faults in both directions. Each direction counts its own bytes, and has its
    /// own boundaries.
    #[must_use]
    pub const fn both(impairment: Impairment) -> Self {
        Self {
            to_client: impairment,
            from_client: impairment,
        }
    }

    /// Sets the faults of the broker's output.
    #[must_use]
    pub const fn to_client(mut self, impairment: Impairment) -> Self {
        self.to_client = impairment;
        self
    }

    /// Sets the faults of the client's output.
    #[must_use]
    pub const fn from_client(mut self, impairment: Impairment) -> Self {
        self.from_client = impairment;
        self
    }

    /// Returns whether the connection is cut before another byte arrives.
    pub(crate) fn cut_at_once(&self) -> bool {
        let directions = [&self.to_client, &self.from_client];
        directions.iter().any(|one| one.cut_after == Some(0))
    }
}

/// The bytes that may arrive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gate {
    /// At most this many, as one piece; never 0.
    Open(usize),
    /// No bytes and no end of the stream, as long as this plan holds.
    Stalled,
    /// No bytes: the connection ends in both directions, without a close handshake.
    Cut,
}

/// The faults of a connection's bytes from now on. They are decided in advance, and depend only on
/// the number of bytes that have arrived.
///
/// The transport gets it from [`Broker::poll_byte_plan`](crate::Broker::poll_byte_plan), queries it
/// before it moves bytes, and reports them afterwards.
///
/// ```
/// use amqp_broker::{Broker, ByteFaults, Config, Direction, Gate, Impairment};
/// use amqp_core::Instant;
///
/// let mut broker = Broker::new(Config::default())?;
/// let half = Impairment::new().split(7).cut_after(10);
/// broker.faults().bytes_of_next(1, ByteFaults::new().to_client(half));
/// let connection = broker.accept(Instant::ORIGIN)?;
///
/// let (key, mut plan) = broker.poll_byte_plan().ok_or("no plan")?;
/// assert_eq!(key, connection);
/// let mut pieces = Vec::new();
/// while let Gate::Open(count) = plan.gate(Direction::ToClient) {
///     plan.passed(Direction::ToClient, count);
///     pieces.push(count);
/// }
/// assert_eq!(plan.gate(Direction::ToClient), Gate::Cut);
/// assert_eq!(pieces.iter().sum::<usize>(), 10);
/// assert!(pieces.iter().all(|count| (1..=7).contains(count)));
/// # Ok::<_, Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
pub struct BytePlan {
    to_client: Schedule,
    from_client: Schedule,
}

impl BytePlan {
    /// Creates the plan of a connection of a broker with this seed.
    pub(crate) const fn new(faults: ByteFaults, seed: u64, key: ConnectionKey) -> Self {
        // Removes the correlation of neighbouring seeds, and of neighbouring connections.
        let mut random = Random::new(Random::new(seed).next().wrapping_add(key.0));
        Self {
            to_client: Schedule::new(faults.to_client, random.next()),
            from_client: Schedule::new(faults.from_client, random.next()),
        }
    }

    /// Returns whether there are no faults: the transport need not follow the plan.
    #[must_use]
    pub fn is_clear(&self) -> bool {
        self.to_client.faults.is_none() && self.from_client.faults.is_none()
    }

    /// Returns whether a direction is cut: the connection has to end, without a close handshake.
    #[must_use]
    pub fn is_cut(&self) -> bool {
        [&self.to_client, &self.from_client]
            .iter()
            .any(|schedule| schedule.gate() == Gate::Cut)
    }

    /// Returns the delay of bytes that are sent now.
    #[must_use]
    pub const fn delay(&self, direction: Direction) -> Duration {
        self.schedule(direction).faults.delay
    }

    /// Returns how many bytes may arrive. The result stays the same until some
    /// [have](Self::passed).
    #[must_use]
    pub fn gate(&self, direction: Direction) -> Gate {
        self.schedule(direction).gate()
    }

    /// Records that `count` bytes have arrived, at most as many as [`gate`](Self::gate) allows.
    pub const fn passed(&mut self, direction: Direction, count: usize) {
        match direction {
            Direction::ToClient => self.to_client.passed(count),
            Direction::FromClient => self.from_client.passed(count),
        }
    }

    const fn schedule(&self, direction: Direction) -> &Schedule {
        match direction {
            Direction::ToClient => &self.to_client,
            Direction::FromClient => &self.from_client,
        }
    }
}

/// The plan of one direction.
#[derive(Clone, Debug)]
struct Schedule {
    faults: Impairment,
    /// The number of bytes that have arrived.
    passed: u64,
    /// The number of bytes that remain of the current piece.
    piece: usize,
    random: Random,
}

impl Schedule {
    const fn new(faults: Impairment, seed: u64) -> Self {
        let mut schedule = Self {
            faults,
            passed: 0,
            piece: 0,
            random: Random::new(seed),
        };
        schedule.begin_piece();
        schedule
    }

    const fn begin_piece(&mut self) {
        self.piece = match self.faults.pieces {
            Some(max) => (self.random.next() % max as u64) as usize + 1,
            None => usize::MAX,
        };
    }

    fn gate(&self) -> Gate {
        let until = |end: Option<u64>| end.map_or(u64::MAX, |end| end.saturating_sub(self.passed));
        let until_cut = until(self.faults.cut_after);
        let until_stall = until(self.faults.stall_after);
        if until_cut == 0 {
            return Gate::Cut;
        }
        if until_stall == 0 {
            return Gate::Stalled;
        }
        let remaining = usize::try_from(until_cut.min(until_stall)).unwrap_or(usize::MAX);
        Gate::Open(self.piece.min(remaining))
    }

    const fn passed(&mut self, count: usize) {
        self.passed = self.passed.saturating_add(count as u64);
        self.piece = self.piece.saturating_sub(count);
        if self.piece == 0 {
            self.begin_piece();
        }
    }
}

/// The faults that are set for existing and for future connections.
#[derive(Debug, Default)]
pub(crate) struct ByteFaultState {
    /// The number of future connections with faults.
    next_count: u64,
    next_faults: ByteFaults,
    /// The changes that were not polled yet.
    changes: BTreeMap<ConnectionKey, ByteFaults>,
}

impl ByteFaultState {
    pub(crate) const fn set_next(&mut self, count: u64, faults: ByteFaults) {
        self.next_count = count;
        self.next_faults = faults;
    }

    pub(crate) fn set(&mut self, key: ConnectionKey, faults: ByteFaults) {
        self.changes.insert(key, faults);
    }

    /// Sets the faults of a connection that was accepted.
    pub(crate) fn on_accept(&mut self, key: ConnectionKey) {
        if self.next_count > 0 {
            self.next_count -= 1;
            self.set(key, self.next_faults);
        }
    }

    /// Drops the pending change of a connection that is removed.
    pub(crate) fn on_remove(&mut self, key: ConnectionKey) {
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

    fn plan(impairment: Impairment, seed: u64, connection: u64) -> BytePlan {
        BytePlan::new(
            ByteFaults::both(impairment),
            seed,
            ConnectionKey(connection),
        )
    }

    /// Returns the boundaries of the stream up to `end`, if at most `most` bytes arrive at a time.
    fn boundaries(mut plan: BytePlan, direction: Direction, end: usize, most: usize) -> Vec<usize> {
        let (mut at, mut found) = (0, vec![]);
        while at < end {
            let Gate::Open(count) = plan.gate(direction) else {
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
        let split = Impairment::new().split(20);
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
        let split = Impairment::new().split(9);
        let mut used = plan(split, 1, 1);
        while used.gate(Direction::FromClient) != Gate::Open(4) {
            used.passed(Direction::FromClient, 1);
        }
        let of = |plan| boundaries(plan, Direction::ToClient, 500, usize::MAX);
        assert_eq!(of(used), of(plan(split, 1, 1)));
    }

    #[test]
    fn pieces_of_one_byte_are_of_one_byte() {
        for max in [0, 1] {
            let plan = plan(Impairment::new().split(max), 3, 1);
            let found = boundaries(plan, Direction::ToClient, 10, usize::MAX);
            assert_eq!(found, (1..=10).collect::<Vec<_>>());
        }
    }

    #[test]
    fn a_direction_stops_at_the_byte() {
        let ends = [
            (Impairment::new().cut_after(100), Gate::Cut),
            (Impairment::new().stall_after(100), Gate::Stalled),
            (Impairment::new().cut_after(100).stall_after(100), Gate::Cut),
            (
                Impairment::new().cut_after(101).stall_after(100),
                Gate::Stalled,
            ),
        ];
        for (impairment, end) in ends {
            for impairment in [impairment, impairment.split(30)] {
                let mut plan = plan(impairment, 0, 1);
                let mut count = 0;
                while let Gate::Open(may) = plan.gate(Direction::ToClient) {
                    plan.passed(Direction::ToClient, may);
                    count += may;
                }
                assert_eq!(count, 100);
                assert_eq!(plan.gate(Direction::ToClient), end);
                assert_eq!(plan.is_cut(), end == Gate::Cut);
                // The other direction has not counted any bytes.
                assert!(matches!(plan.gate(Direction::FromClient), Gate::Open(_)));
            }
        }
    }

    #[test]
    fn nothing_goes_wrong_where_nothing_is_said() {
        let clear = plan(Impairment::new(), 0, 1);
        assert!(clear.is_clear() && !clear.is_cut());
        assert_eq!(clear.gate(Direction::ToClient), Gate::Open(usize::MAX));
        let slow = Impairment::new().delay(Duration::from_secs(1));
        let slow = ByteFaults::new().from_client(slow);
        let slow = BytePlan::new(slow, 0, ConnectionKey(1));
        assert!(!slow.is_clear());
        assert_eq!(slow.delay(Direction::ToClient), Duration::ZERO);
        assert_eq!(slow.delay(Direction::FromClient), Duration::from_secs(1));
    }
}
