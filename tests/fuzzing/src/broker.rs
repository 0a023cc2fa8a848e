//! A stream of bytes for a broker, which has another client as well.

use amqp_broker::{Broker, Config, ConnectionKey};
use amqp_core::{
    Instant, Transmit, WireStats,
    frame::{Frame, FrameKind, PROTOCOL_HEADER, split_method},
    protocol::{Method, channel},
};
use amqp_test_support::{frames, meter::peak_of};
use bytes::BytesMut;

use crate::frames::open;

/// The limits of the broker, in bytes.
const MEMORY: usize = 20_000;
const OUTPUT: usize = 2000;

/// The memory of the broker beyond that for each byte of input: its limits, two clients, and the
/// report of its state.
const ROOM: usize = 2 << 20;

/// The memory for each byte of input: a field of a table takes some 40 bytes, and may come as one.
const PER_BYTE: usize = 400;

/// The deadlines that pass behind the end of a stream.
const DEADLINES: usize = 20;

/// The first byte chooses the broker, the second is the size of the pieces, the rest the stream of a
/// client, from the protocol header on.
pub fn broker(input: &[u8]) {
    if let Some((&[options, pieces], stream)) = input.split_first_chunk() {
        play(options, pieces.into(), stream);
    }
}

/// Plays a stream, as one piece and as many. Checks that the state is the same, the memory, and that
/// another client is served.
pub fn play(options: u8, pieces: usize, stream: &[u8]) {
    let allowed = ROOM + PER_BYTE * stream.len();
    let (whole, peak) = peak_of(|| run(options, usize::MAX, stream));
    assert!(peak <= allowed, "{peak} of {allowed} bytes");
    let (cut, peak) = peak_of(|| run(options, pieces.max(1), stream));
    assert!(peak <= allowed, "in pieces, {peak} of {allowed} bytes");
    assert_eq!(cut, whole, "in pieces of {pieces} bytes");
}

struct Session {
    broker: Broker,
    now: Instant,
    changes: Vec<amqp_broker::Change>,
}

/// The state of the broker behind the stream, in words.
fn run(options: u8, pieces: usize, stream: &[u8]) -> String {
    let mut config = if options & 1 == 0 {
        Config::default()
    } else {
        Config::rabbitmq_4()
    };
    let journal = options & 8 != 0;
    config = config.journal(journal);
    config.limits.journal = 3000;
    config.limits.memory = MEMORY;
    config.limits.output = OUTPUT;
    config.limits.replies = 4000;
    config.limits.queues = 20;
    config.limits.bindings = 20;
    config.limits.consumers = 5;
    config.limits.transaction = 5;
    config.rules.flow = options & 2 != 0;
    let mut session = Session {
        broker: Broker::new(config.clone()).unwrap(),
        now: Instant::ORIGIN,
        changes: Vec::new(),
    };
    let mut hello = BytesMut::new();
    open(false, 0, &mut hello);
    let other = session.broker.accept(session.now).unwrap();
    session.feed(other, usize::MAX, &hello);
    let key = session.broker.accept(session.now).unwrap();
    if options & 4 == 0 && !stream.starts_with(&PROTOCOL_HEADER) {
        session.feed(key, usize::MAX, &hello);
    }
    session.feed(key, pieces, stream);
    session.check();
    let mut inspection = session.broker.inspect();
    for connection in &mut inspection.connections {
        // A fault drops output that has not left yet.
        connection.stats.sent = WireStats::default();
    }
    let state = format!("{inspection:?}");
    session.end(key, other);
    if journal {
        session.broker.stop(session.now);
        session.note_changes();
        session.broker.start(session.now);
        session.note_changes();
        let restored = Broker::restore(config, session.now, session.changes).unwrap();
        // In words: a number in a table may be none, which is unequal to itself.
        let (restored, kept) = (restored.snapshot(), session.broker.snapshot());
        assert_eq!(format!("{restored:?}"), format!("{kept:?}"));
    }
    state
}

impl Session {
    fn feed(&mut self, key: ConnectionKey, pieces: usize, bytes: &[u8]) {
        let mut input = BytesMut::new();
        for piece in bytes.chunks(pieces.min(bytes.len().max(1))) {
            input.extend_from_slice(piece);
            self.broker.handle_input(key, self.now, &mut input);
            // Output leaves when it is full or the stream is at its end, in any pieces: what is
            // received on a channel behind its close is ignored until the answer has left, and a
            // fault from then on. An alarm may have left input, too.
            while !self.broker.wants_input(key) {
                let before = input.len();
                self.take_output(key);
                self.broker.handle_input(key, self.now, &mut input);
                if input.len() == before {
                    break;
                }
            }
            self.note_changes();
        }
        self.take_output(key);
    }

    /// Takes the output, which is whole frames with known methods; or a protocol header.
    fn take_output(&mut self, key: ConnectionKey) -> Vec<Method> {
        let mut out = Transmit::new();
        while self.broker.poll_transmit(key, self.now, &mut out) {}
        let mut sent = BytesMut::new();
        for segment in out.take_segments() {
            sent.extend_from_slice(&segment);
        }
        let mut rest = &sent[..];
        rest = rest.strip_prefix(&PROTOCOL_HEADER).unwrap_or(rest);
        let mut methods = Vec::new();
        while !rest.is_empty() {
            let frame = Frame::parse(rest, u32::MAX)
                .unwrap()
                .expect("a whole frame");
            if frame.kind == FrameKind::Method {
                let (id, arguments) = split_method(frame.payload).unwrap();
                methods.push(Method::decode(id, arguments).unwrap());
            }
            rest = &rest[frame.len()..];
        }
        methods
    }

    fn note_changes(&mut self) {
        while let Some((number, change)) = self.broker.poll_change() {
            self.changes.push(change);
            assert_eq!(number, self.changes.len() as u64);
        }
        let last = self.broker.last_change();
        self.broker.handle_stored(last, self.now);
        while self.broker.poll_wake().is_some() {}
    }

    /// The counts of the broker fit together.
    fn check(&self) {
        let inspection = self.broker.inspect();
        let channels = || inspection.connections.iter().flat_map(|it| &it.channels);
        let unacked: usize = channels().map(|channel| channel.unacked).sum();
        let transactional = channels().any(|channel| channel.transactional);
        let vhost = inspection.vhost("/").unwrap();
        let of_queues: u64 = vhost.queues.iter().map(|queue| queue.unacked).sum();
        // Deliveries that a transaction has settled and not committed are known to the queue alone.
        assert!(
            transactional || of_queues <= unacked as u64,
            "{inspection:?}"
        );
        let ready: usize = vhost.queues.iter().map(|queue| queue.ready).sum();
        assert!(ready == 0 || inspection.memory > 0, "{inspection:?}");
    }

    /// Time passes, the client goes, and the other one is still served.
    fn end(&mut self, key: ConnectionKey, other: ConnectionKey) {
        for _ in 0..DEADLINES {
            let of_client = self.broker.poll_connection_timeout(key).map(|(at, _)| at);
            let Some(at) = self
                .broker
                .poll_timeout()
                .into_iter()
                .chain(of_client)
                .min()
            else {
                break;
            };
            self.now = self.now.max(at);
            self.broker.handle_timeout(self.now);
            self.broker.handle_connection_timeout(key, self.now);
            self.take_output(key);
            // The other client sends heartbeats.
            let mut heartbeat = BytesMut::new();
            frames::frame(FrameKind::Heartbeat, 0, &[], &mut heartbeat);
            self.feed(other, usize::MAX, &heartbeat);
            self.broker.handle_connection_timeout(other, self.now);
            self.note_changes();
            self.check();
        }
        self.broker.handle_eof(key, self.now);
        self.take_output(key);
        self.broker.remove(key, self.now);
        let mut question = BytesMut::new();
        frames::method(3, channel::Open, &mut question);
        let mut input = question;
        self.broker.handle_input(other, self.now, &mut input);
        let answers = self.take_output(other);
        let served = |answer: &Method| matches!(answer, Method::ChannelOpenOk(_));
        assert!(answers.iter().any(served), "{answers:?}");
        self.broker.remove(other, self.now);
        self.check();
        let inspection = self.broker.inspect();
        assert!(inspection.connections.is_empty());
        let queues = &inspection.vhost("/").unwrap().queues;
        // Only the queues hold messages.
        let idle = queues
            .iter()
            .all(|queue| queue.unacked == 0 && queue.consumers.is_empty() && queue.owner.is_none());
        assert!(idle, "{queues:?}");
        if queues.iter().all(|queue| queue.ready == 0) {
            assert_eq!(inspection.memory, 0, "{queues:?}");
        }
        self.note_changes();
    }
}
