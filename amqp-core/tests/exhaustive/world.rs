//! The client, the server, the bytes between them and their clock.

use std::{cell::Cell, thread, time::Duration};

use amqp_core::{
    Endpoint, Instant, MethodId, Transmit,
    frame::{Frame, FrameKind, PROTOCOL_HEADER, split_method},
};
use bytes::{Buf as _, BytesMut};

use crate::{Story, client::Client, server::Server};

/// The interval of heartbeats, in seconds.
pub(crate) const HEARTBEAT: u16 = 10;

/// The bound for the whole of a story with its fault: confirms time out after 67.5 seconds, requests
/// after 30, a close after 10, a silent peer after 20.
const BOUND: Duration = Duration::from_secs(200);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Direction {
    ToServer,
    ToClient,
}

impl Direction {
    pub(crate) const BOTH: [Self; 2] = [Self::ToServer, Self::ToClient];
}

/// The way in which a transport ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ending {
    Eof,
    Reset,
    Error,
    /// Nothing arrives any more in this direction, and neither side notices.
    HalfOpen,
}

impl Ending {
    pub(crate) const ALL: [Self; 4] = [Self::Eof, Self::Reset, Self::Error, Self::HalfOpen];
}

/// The treatment of the bytes of one direction.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) enum Fault {
    #[default]
    None,
    /// The transport ends behind that many bytes.
    Cut(usize, Ending),
    /// A piece ends behind each of these numbers of bytes.
    Split(Vec<usize>),
    /// The pieces have that many bytes.
    Pieces(usize),
    /// The frame of that index does not arrive. The protocol header counts as one.
    Lost(usize),
}

/// The bytes of one direction.
#[derive(Debug, Default)]
pub(crate) struct Lane {
    /// Sent, and not received.
    transit: BytesMut,
    /// All that was received.
    pub(crate) received: Vec<u8>,
    /// How many frames were sent.
    pub(crate) frames: usize,
    pub(crate) fault: Fault,
    /// The sender has closed the transport, and that was passed on.
    ended: bool,
}

pub(crate) struct World {
    pub(crate) now: Instant,
    pub(crate) client: Client,
    pub(crate) server: Server,
    pub(crate) to_server: Lane,
    pub(crate) to_client: Lane,
    /// The transport has ended for both sides.
    cut: bool,
    _number: Number,
}

thread_local! {
    /// The number of worlds of this test so far.
    static WORLDS: Cell<u64> = const { Cell::new(0) };
}

/// Names the number of a world that fails.
struct Number;

impl Number {
    fn next() -> Self {
        WORLDS.set(WORLDS.get() + 1);
        Self
    }
}

impl Drop for Number {
    fn drop(&mut self) {
        if thread::panicking() {
            println!("in world {}", WORLDS.get());
        }
    }
}

impl World {
    pub(crate) fn new(story: Story, large: bool) -> Self {
        let now = Instant::ORIGIN + Duration::from_secs(1000);
        Self {
            now,
            client: Client::new(story, large, now),
            server: Server::new(large, now),
            to_server: Lane::default(),
            to_client: Lane::default(),
            cut: false,
            _number: Number::next(),
        }
    }

    pub(crate) fn with_fault(story: Story, direction: Direction, fault: Fault) -> Self {
        let mut world = Self::new(story, matches!(fault, Fault::Lost(_)));
        world.lane(direction).fault = fault;
        world
    }

    pub(crate) fn lane(&mut self, direction: Direction) -> &mut Lane {
        match direction {
            Direction::ToServer => &mut self.to_server,
            Direction::ToClient => &mut self.to_client,
        }
    }

    /// Runs the story to its end, under virtual time.
    pub(crate) fn run(&mut self) {
        let end = self.now + BOUND;
        loop {
            self.settle();
            let deadlines = [
                self.client.machine.poll_timeout(),
                self.server.machine.poll_timeout(),
            ];
            let next = deadlines.into_iter().flatten().map(|(at, _)| at).min();
            let ended = self.client.closed.is_some() && self.server.closed.is_some();
            let Some(at) = next.filter(|&at| at <= end && !ended) else {
                break;
            };
            self.now = self.now.max(at);
            self.client.machine.handle_timeout(self.now);
            self.client.react();
            self.server.machine.handle_timeout(self.now);
            self.server.react();
        }
    }

    /// Passes bytes both ways until there are none left.
    pub(crate) fn settle(&mut self) {
        loop {
            self.send();
            let mut moved = false;
            for direction in Direction::BOTH {
                moved |= self.pass(direction);
            }
            if !moved {
                break;
            }
        }
    }

    /// Takes the output of both sides.
    pub(crate) fn send(&mut self) {
        let now = self.now;
        send(&mut self.client.machine, now, &mut self.to_server);
        send(&mut self.server.machine, now, &mut self.to_client);
    }

    /// Passes on all that is in transit. Returns whether anything changed.
    fn pass(&mut self, direction: Direction) -> bool {
        let now = self.now;
        let lane = self.lane(direction);
        let bytes = lane.transit.split();
        if self.cut {
            return false;
        }
        let lane = self.lane(direction);
        let (pieces, ending) = lane.disturb(&bytes);
        for piece in &pieces {
            lane.received.extend_from_slice(piece);
        }
        for piece in &pieces {
            self.receive(direction, piece);
        }
        match ending {
            Some(Ending::HalfOpen) => return !bytes.is_empty(),
            Some(ending) => {
                self.end(ending);
                return true;
            }
            None => {}
        }
        let finished = match direction {
            Direction::ToServer => self.client.machine.is_finished(),
            Direction::ToClient => self.server.machine.is_finished(),
        };
        let lane = self.lane(direction);
        let half_open = matches!(lane.fault, Fault::Cut(_, Ending::HalfOpen));
        let closes = finished && !half_open && !core::mem::replace(&mut lane.ended, true);
        if closes {
            match direction {
                Direction::ToServer => self.server.machine.handle_eof(now),
                Direction::ToClient => self.client.machine.handle_eof(now),
            }
            self.react();
        }
        !pieces.is_empty() || closes
    }

    /// Passes on the oldest frame in transit, whole. Returns `false` if there is none.
    pub(crate) fn pass_frame(&mut self, direction: Direction) -> bool {
        let lane = self.lane(direction);
        let Some(len) = first_frame(&lane.transit) else {
            return false;
        };
        let frame = lane.transit.split_to(len);
        lane.received.extend_from_slice(&frame);
        self.receive(direction, &frame);
        true
    }

    pub(crate) fn has_frame(&mut self, direction: Direction) -> bool {
        !self.lane(direction).transit.is_empty()
    }

    fn receive(&mut self, direction: Direction, piece: &[u8]) {
        match direction {
            Direction::ToServer => self.server.receive(self.now, piece),
            Direction::ToClient => self.client.receive(self.now, piece),
        }
    }

    fn react(&mut self) {
        self.client.react();
        self.server.react();
    }

    /// The transport ends for both sides.
    pub(crate) fn end(&mut self, ending: Ending) {
        self.cut = true;
        end(&mut self.client.machine, self.now, ending);
        end(&mut self.server.machine, self.now, ending);
        self.react();
    }
}

impl Lane {
    /// Whether that method has arrived as a whole.
    pub(crate) fn has_received(&self, method: MethodId) -> bool {
        let mut rest = &self.received[..];
        while let Ok(Some(frame)) = Frame::parse(rest, u32::MAX) {
            let is_method = frame.kind == FrameKind::Method;
            if is_method && split_method(frame.payload).is_ok_and(|(id, _)| id == method) {
                return true;
            }
            rest = &rest[frame.len()..];
        }
        false
    }

    /// Returns the pieces in which the bytes arrive, and the ending of the transport behind them.
    fn disturb<'a>(&self, bytes: &'a [u8]) -> (Vec<&'a [u8]>, Option<Ending>) {
        let position = self.received.len();
        if bytes.is_empty() && !matches!(self.fault, Fault::Cut(0, _)) {
            return (Vec::new(), None);
        }
        match &self.fault {
            Fault::None => (vec![bytes], None),
            Fault::Cut(at, ending) => {
                let left = at - position.min(*at);
                match bytes.split_at_checked(left) {
                    Some(([], _)) => (Vec::new(), Some(*ending)),
                    Some((arrived, _)) => (vec![arrived], Some(*ending)),
                    None => (vec![bytes], None),
                }
            }
            Fault::Split(places) => {
                let (mut pieces, mut rest, mut from) = (Vec::new(), bytes, position);
                for place in places {
                    if (from + 1..from + rest.len()).contains(place) {
                        let (piece, behind) = rest.split_at(place - from);
                        pieces.push(piece);
                        (rest, from) = (behind, *place);
                    }
                }
                pieces.push(rest);
                (pieces, None)
            }
            Fault::Pieces(size) => (bytes.chunks(*size).collect(), None),
            Fault::Lost(index) => {
                let (mut pieces, mut rest) = (Vec::new(), bytes);
                let mut number = self.frames - count_frames(bytes);
                while let Some(len) = first_frame(rest) {
                    let (frame, behind) = rest.split_at(len);
                    if number != *index {
                        pieces.push(frame);
                    }
                    number += 1;
                    rest = behind;
                }
                (pieces, None)
            }
        }
    }
}

/// The length of the first frame, or of the protocol header. `Some` unless there are no bytes.
pub(crate) fn first_frame(bytes: &[u8]) -> Option<usize> {
    if bytes.is_empty() {
        return None;
    }
    if bytes.starts_with(&PROTOCOL_HEADER) {
        return Some(PROTOCOL_HEADER.len());
    }
    let frame = Frame::parse(bytes, u32::MAX).expect("a frame");
    Some(frame.expect("a whole frame").len())
}

/// The lengths of the frames.
pub(crate) fn frame_lens(mut bytes: &[u8]) -> Vec<usize> {
    let mut lens = Vec::new();
    while let Some(len) = first_frame(bytes) {
        lens.push(len);
        bytes = &bytes[len..];
    }
    lens
}

fn count_frames(bytes: &[u8]) -> usize {
    frame_lens(bytes).len()
}

fn send(machine: &mut impl Endpoint, now: Instant, lane: &mut Lane) {
    let mut out = Transmit::new();
    while machine.poll_transmit(now, &mut out) {}
    if out.is_empty() {
        return;
    }
    let bytes = out.copy_to_bytes(out.remaining());
    lane.frames += count_frames(&bytes);
    lane.transit.extend_from_slice(&bytes);
}

fn end(machine: &mut impl Endpoint, now: Instant, ending: Ending) {
    match ending {
        Ending::Eof => machine.handle_eof(now),
        Ending::Reset => machine.handle_reset(now, "reset"),
        Ending::Error => machine.handle_transport_error(now, "broken"),
        Ending::HalfOpen => {}
    }
}
