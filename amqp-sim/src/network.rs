//! The network: links between processes and nodes, and the bytes on their way.
//!
//! A [`LinkState`] is the road between a process and a node, with its faults; each connection on it
//! has a [`Flow`] in each direction. A piece of a flow has the time of its arrival, decided when it
//! is written; an end of the flow arrives behind all pieces.

use std::{collections::BTreeMap, time::Duration};

use amqp_driver::core::Instant;
use amqp_embedded::broker::Direction;

use crate::{
    alarms::Later,
    flow::{End, Flow},
    random::Random,
    world::{NodeId, ProcessId, World},
};

/// The bytes on the way in one direction of a connection, as a socket's buffers hold them.
const WINDOW: usize = 64 << 10;

/// The most time between two pieces of a write that is split.
const PIECE_GAP: Duration = Duration::from_micros(100);

/// The number of a connection.
pub(crate) type ConnId = u64;

/// All links and connections.
#[derive(Debug)]
pub(crate) struct Network {
    pub(crate) random: Random,
    /// The latency of links without a fault.
    pub(crate) latency: (Duration, Duration),
    links: BTreeMap<(ProcessId, NodeId), LinkState>,
    pub(crate) conns: BTreeMap<ConnId, Conn>,
    last: ConnId,
    /// The number of writes and reads that moved bytes or ended a stream.
    pub(crate) moved: u64,
}

/// A value until a time.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Timed<T>(pub(crate) Option<(T, Instant)>);

impl<T: Copy> Timed<T> {
    pub(crate) fn set(&mut self, value: T, until: Instant) {
        self.0 = Some((value, until));
    }

    pub(crate) fn at(&self, now: Instant) -> Option<T> {
        self.0
            .filter(|(_, until)| now < *until)
            .map(|(value, _)| value)
    }
}

/// The road between a process and a node.
#[derive(Debug, Default)]
pub(crate) struct LinkState {
    pub(crate) latency: Timed<(Duration, Duration)>,
    /// Connects are refused.
    pub(crate) refused: Timed<()>,
    /// From the client, and to it.
    pub(crate) lanes: [Lane; 2],
}

/// One direction of a link.
#[derive(Debug, Default)]
pub(crate) struct Lane {
    /// The maximum size of a piece.
    pub(crate) pieces: Timed<usize>,
    /// Bytes per second.
    pub(crate) rate: Timed<u64>,
    /// The bytes on the way in a connection.
    pub(crate) window: Timed<usize>,
    /// Nothing arrives until then.
    pub(crate) stalled_until: Instant,
    /// The connection that sends this many more bytes is cut behind them.
    pub(crate) cut_after: Option<u64>,
    /// The bytes before are sent, at the rate of the lane.
    busy_until: Instant,
}

/// A connection between a process and a node.
#[derive(Debug)]
pub(crate) struct Conn {
    pub(crate) client: ProcessId,
    pub(crate) node: NodeId,
    /// From the client, and to it.
    pub(crate) flows: [Flow; 2],
    /// The ends that were dropped.
    dropped: usize,
}

pub(crate) const fn lane_of(direction: Direction) -> usize {
    match direction {
        Direction::FromClient => 0,
        Direction::ToClient => 1,
    }
}

pub(crate) const fn opposite(direction: Direction) -> Direction {
    match direction {
        Direction::FromClient => Direction::ToClient,
        Direction::ToClient => Direction::FromClient,
    }
}

const BOTH: [Direction; 2] = [Direction::FromClient, Direction::ToClient];

/// The outcome of a write.
pub(crate) enum Written {
    Count(usize),
    Full,
    Refused(std::io::ErrorKind),
}

impl Network {
    pub(crate) const fn new(random: Random) -> Self {
        Self {
            random,
            latency: (Duration::from_micros(100), Duration::from_millis(1)),
            links: BTreeMap::new(),
            conns: BTreeMap::new(),
            last: 0,
            moved: 0,
        }
    }

    pub(crate) fn link(&mut self, client: ProcessId, node: NodeId) -> &mut LinkState {
        self.links.entry((client, node)).or_default()
    }

    /// The time at which something that leaves now arrives, in one direction.
    pub(crate) fn arrival(
        &mut self,
        client: ProcessId,
        node: NodeId,
        direction: Direction,
        now: Instant,
    ) -> Instant {
        let usual = self.latency;
        let link = self.links.entry((client, node)).or_default();
        let (min, max) = link.latency.at(now).unwrap_or(usual);
        let stalled_until = link.lanes[lane_of(direction)].stalled_until;
        (now + self.random.duration(min, max)).max(stalled_until)
    }

    /// The connections of a link, or of all links of a process or a node.
    pub(crate) fn connections(&self, which: impl Fn(&Conn) -> bool) -> Vec<ConnId> {
        let conns = self.conns.iter().filter(|(_, conn)| which(conn));
        conns.map(|(id, _)| *id).collect()
    }
}

impl World {
    /// Opens a connection.
    pub(crate) fn open(&mut self, client: ProcessId, node: NodeId) -> ConnId {
        let network = &mut self.network;
        network.last += 1;
        let alarms = &mut self.alarms;
        let flows = BOTH.map(|_| Flow::new(alarms.create()));
        let conn = Conn {
            client,
            node,
            flows,
            dropped: 0,
        };
        network.conns.insert(network.last, conn);
        network.last
    }

    fn label(&self, id: ConnId, direction: Direction) -> String {
        let Some(conn) = self.network.conns.get(&id) else {
            return String::new();
        };
        let (client, node) = (self.process_name(conn.client), self.node_name(conn.node));
        match direction {
            Direction::FromClient => format!("{client} > {node} #{id}"),
            Direction::ToClient => format!("{client} < {node} #{id}"),
        }
    }

    /// Writes bytes in one direction of a connection; `take` takes them from the writer.
    pub(crate) fn write(
        &mut self,
        id: ConnId,
        direction: Direction,
        now: Instant,
        len: usize,
        take: impl FnOnce(usize) -> Vec<u8>,
        later: &mut Later,
    ) -> Written {
        use std::io::ErrorKind::{BrokenPipe, ConnectionReset};
        let label = if self.trace.is_on() {
            self.label(id, direction)
        } else {
            String::new()
        };
        let network = &mut self.network;
        let Some(conn) = network.conns.get(&id) else {
            return Written::Refused(ConnectionReset);
        };
        let (client, node) = (conn.client, conn.node);
        let arrival = network.arrival(client, node, direction, now);
        let Network {
            links,
            conns,
            random,
            ..
        } = network;
        let lane = &mut links.entry((client, node)).or_default().lanes[lane_of(direction)];
        let Some(conn) = conns.get_mut(&id) else {
            return Written::Refused(ConnectionReset);
        };
        let [from, to] = &mut conn.flows;
        let (flow, back) = match direction {
            Direction::FromClient => (from, to),
            Direction::ToClient => (to, from),
        };
        if back.is_reset(now) {
            return Written::Refused(ConnectionReset);
        }
        if flow.refuses(now) {
            return Written::Refused(BrokenPipe);
        }
        if flow.is_lost {
            let bytes = take(len);
            self.trace.lost(now, &label, &mut flow.words, &bytes, false);
            return Written::Count(len);
        }
        let room = lane
            .window
            .at(now)
            .unwrap_or(WINDOW)
            .saturating_sub(flow.len());
        // A writer that waits goes on when it is woken, also if a fault has ended that made the window
        // small: bytes on the way are read then.
        if room == 0 || flow.has_writer() {
            return Written::Full;
        }
        let bytes = take(len.min(room));
        let count = bytes.len();
        let passing = match lane.cut_after {
            Some(left) => usize::try_from(left).map_or(count, |left| left.min(count)),
            None => count,
        };
        let mut due = arrival;
        if let Some(rate) = lane.rate.at(now) {
            let time = Duration::from_secs_f64(passing as f64 / rate.max(1) as f64);
            lane.busy_until = lane.busy_until.max(now) + time;
            due = due.max(lane.busy_until);
        }
        let (mut arriving, lost) = bytes.split_at(passing);
        while !arriving.is_empty() {
            let size = match lane.pieces.at(now) {
                Some(most) => random.index(most.max(1)) + 1,
                None => arriving.len(),
            };
            let (piece, rest) = arriving.split_at(size.min(arriving.len()));
            flow.push(due, piece);
            if !rest.is_empty() {
                due = due + random.duration(Duration::ZERO, PIECE_GAP);
            }
            arriving = rest;
        }
        if let Some(left) = &mut lane.cut_after {
            *left -= passing as u64;
            if *left == 0 {
                lane.cut_after = None;
                let at = flow.last_due().max(now);
                self.trace.note(now, format_args!("{label}  cut"));
                flow.end(at, End::Reset);
                flow.is_lost = true;
                self.trace.lost(now, &label, &mut flow.words, lost, true);
                back.cut(at);
                later.wake(back.take_writer());
                back.arm(now, Instant::ORIGIN, &mut self.alarms, later);
            }
        }
        flow.arm(now, lane.stalled_until, &mut self.alarms, later);
        Written::Count(count)
    }

    /// Reads what has arrived in one direction of a connection. `None` if nothing has; the reader
    /// is then woken when something has.
    pub(crate) fn read(
        &mut self,
        id: ConnId,
        direction: Direction,
        now: Instant,
        room: usize,
        waker: std::task::Waker,
        later: &mut Later,
    ) -> Option<std::io::Result<Vec<u8>>> {
        let label = if self.trace.is_on() {
            self.label(id, direction)
        } else {
            String::new()
        };
        let Network { links, conns, .. } = &mut self.network;
        let Some(conn) = conns.get_mut(&id) else {
            return Some(Err(std::io::ErrorKind::ConnectionReset.into()));
        };
        let link = links.entry((conn.client, conn.node)).or_default();
        let stalled_until = link.lanes[lane_of(direction)].stalled_until;
        let flow = &mut conn.flows[lane_of(direction)];
        if now >= stalled_until {
            if let Some(bytes) = flow.take(now, room) {
                later.wake(flow.take_writer());
                self.trace.arrived(now, id, &label, &mut flow.words, &bytes);
                return Some(Ok(bytes));
            }
            match flow.ended(now) {
                Some(End::Eof) => {
                    self.note_once(id, direction, now, "end of the stream");
                    return Some(Ok(Vec::new()));
                }
                Some(End::Reset) => {
                    self.note_once(id, direction, now, "reset");
                    return Some(Err(std::io::ErrorKind::ConnectionReset.into()));
                }
                None => {}
            }
        }
        later.drop(flow.wait(waker));
        flow.arm(now, stalled_until, &mut self.alarms, later);
        None
    }

    fn note_once(&mut self, id: ConnId, direction: Direction, now: Instant, text: &str) {
        if !self.trace.is_on() {
            return;
        }
        let label = self.label(id, direction);
        if let Some(conn) = self.network.conns.get_mut(&id) {
            let flow = &mut conn.flows[lane_of(direction)];
            if !std::mem::replace(&mut flow.end_noted, true) {
                self.trace.note(now, format_args!("{label}  {text}"));
            }
        }
    }

    /// Ends the output of one side: the peer reads the end of the stream behind it.
    pub(crate) fn shut(
        &mut self,
        id: ConnId,
        direction: Direction,
        now: Instant,
        end: End,
        later: &mut Later,
    ) {
        let Some(conn) = self.network.conns.get(&id) else {
            return;
        };
        let (client, node) = (conn.client, conn.node);
        let at = self.network.arrival(client, node, direction, now);
        self.change(id, direction, now, later, |flow| flow.end(at, end));
    }

    /// Changes a flow, and sets its alarm anew.
    fn change(
        &mut self,
        id: ConnId,
        direction: Direction,
        now: Instant,
        later: &mut Later,
        change: impl FnOnce(&mut Flow),
    ) {
        let Network { links, conns, .. } = &mut self.network;
        let Some(conn) = conns.get_mut(&id) else {
            return;
        };
        let link = links.entry((conn.client, conn.node)).or_default();
        let stalled_until = link.lanes[lane_of(direction)].stalled_until;
        let flow = &mut conn.flows[lane_of(direction)];
        change(flow);
        later.wake(flow.take_writer());
        flow.arm(now, stalled_until, &mut self.alarms, later);
    }

    /// Drops one end of a connection; `output` is its direction of sending.
    pub(crate) fn drop_end(
        &mut self,
        id: ConnId,
        output: Direction,
        now: Instant,
        later: &mut Later,
    ) {
        let input = opposite(output);
        let Some(conn) = self.network.conns.get_mut(&id) else {
            return;
        };
        conn.dropped += 1;
        // A kernel answers unread input with a reset.
        let end = match conn.flows[lane_of(input)].has_arrived(now) {
            true => End::Reset,
            false => End::Eof,
        };
        if conn.dropped == 2 {
            if let Some(conn) = self.network.conns.remove(&id) {
                for mut flow in conn.flows {
                    flow.clear(&mut self.alarms, later);
                }
            }
            return;
        }
        self.shut(id, output, now, end, later);
        let (client, node) = (conn_ends(self, id)).unwrap_or((ProcessId::TEST, NodeId(0)));
        let refused_at = self.network.arrival(client, node, output, now);
        self.lose(id, input, now, later);
        self.change(id, input, now, later, |flow| flow.refuse_from(refused_at));
    }

    /// Loses all bytes on the way in one direction, and all later ones.
    pub(crate) fn lose(
        &mut self,
        id: ConnId,
        direction: Direction,
        now: Instant,
        later: &mut Later,
    ) {
        let label = self.label(id, direction);
        let Some(conn) = self.network.conns.get_mut(&id) else {
            return;
        };
        let flow = &mut conn.flows[lane_of(direction)];
        let lost = flow.lose();
        self.trace.lost(now, &label, &mut flow.words, &lost, true);
        later.wake(flow.take_writer());
    }

    /// Resets a connection: bytes on the way are lost, and both ends learn of it.
    pub(crate) fn reset(&mut self, id: ConnId, now: Instant, later: &mut Later) {
        for direction in BOTH {
            self.lose(id, direction, now, later);
            self.shut(id, direction, now, End::Reset, later);
        }
    }

    /// Ends both streams of a connection, as a proxy does that closes it in good order.
    pub(crate) fn end_both(&mut self, id: ConnId, now: Instant, later: &mut Later) {
        for direction in BOTH {
            self.shut(id, direction, now, End::Eof, later);
        }
    }

    /// Lets one end of a connection learn of a reset at once, and the other nothing ever: `deaf` is
    /// the direction in which the latter sends.
    pub(crate) fn half_open(
        &mut self,
        id: ConnId,
        deaf: Direction,
        now: Instant,
        later: &mut Later,
    ) {
        self.lose(id, deaf, now, later);
        self.lose(id, opposite(deaf), now, later);
        self.change(id, deaf, now, later, |flow| {
            flow.end(now, End::Reset);
            flow.freeze();
        });
        self.change(id, opposite(deaf), now, later, Flow::freeze);
    }

    /// Stalls a direction of a link, from now on. A later end of a stall is kept.
    pub(crate) fn stall(
        &mut self,
        client: ProcessId,
        node: NodeId,
        direction: Direction,
        until: Instant,
    ) {
        let lane = &mut self.network.link(client, node).lanes[lane_of(direction)];
        lane.stalled_until = lane.stalled_until.max(until);
    }
}

fn conn_ends(world: &World, id: ConnId) -> Option<(ProcessId, NodeId)> {
    let conn = world.network.conns.get(&id)?;
    Some((conn.client, conn.node))
}
