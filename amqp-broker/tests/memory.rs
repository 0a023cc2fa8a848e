//! The memory that a broker takes, and gives back.

use amqp_broker::{Broker, Config, ConnectionKey, Limits};
use amqp_core::{
    Instant, Transmit,
    frame::{FrameKind, PROTOCOL_HEADER},
    protocol::{Method, basic, channel, confirm, connection, queue},
    wire::ShortStr,
};
use amqp_test_support::{
    frames::{announce, body, frame, login, method},
    meter::{Counting, held},
};
use bytes::BytesMut;

#[global_allocator]
static COUNTING: Counting = Counting;

const NOW: Instant = Instant::ORIGIN;

/// The memory that a broker may keep for the next work, in bytes.
const ROOM: usize = 64 << 10;

fn name(name: &str) -> ShortStr {
    name.try_into().unwrap()
}

fn publish(queue: &str, piece: &[u8], out: &mut BytesMut) {
    announce(queue, piece.len() as u64, out);
    body(piece, out);
}

/// A broker with clients that drop their input.
struct Host {
    broker: Broker,
}

impl Host {
    fn new(config: Config) -> Self {
        let broker = Broker::new(config).unwrap();
        Self { broker }
    }

    /// Handles input, and drops the output.
    fn feed(&mut self, key: ConnectionKey, mut input: BytesMut) {
        self.broker.handle_input(key, NOW, &mut input);
        assert!(input.is_empty());
        self.drain(key);
    }

    fn drain(&mut self, key: ConnectionKey) {
        let mut out = Transmit::new();
        while self.broker.poll_transmit(key, NOW, &mut out) {
            drop(out.take_segments());
        }
        while self.broker.poll_wake().is_some() {}
    }

    fn call(&mut self, key: ConnectionKey, channel: u16, request: impl Into<Method>) {
        let mut input = BytesMut::new();
        method(channel, request, &mut input);
        self.feed(key, input);
    }

    /// Opens a connection with a channel and a queue.
    fn connect(&mut self) -> ConnectionKey {
        let key = self.broker.accept(NOW).unwrap();
        self.feed(key, BytesMut::from(&PROTOCOL_HEADER[..]));
        self.call(key, 0, login("guest"));
        let tune = connection::TuneOk {
            channel_max: 2047,
            frame_max: 131_072,
            heartbeat: 0,
        };
        self.call(key, 0, tune);
        let open = connection::Open {
            virtual_host: name("/"),
        };
        self.call(key, 0, open);
        self.call(key, 1, channel::Open);
        let declare = queue::Declare {
            queue: name("q"),
            ..queue::Declare::default()
        };
        self.call(key, 1, declare);
        key
    }

    fn fill(&mut self, key: ConnectionKey, count: usize) {
        for _ in 0..count {
            let mut input = BytesMut::new();
            publish("q", b"sixteen bytes ..", &mut input);
            self.feed(key, input);
        }
        assert_eq!(self.ready(), count);
    }

    fn ready(&self) -> usize {
        self.broker.inspect().queue("q").unwrap().ready
    }

    fn end(&mut self, key: ConnectionKey) {
        self.broker.handle_eof(key, NOW);
        self.broker.remove(key, NOW);
        while self.broker.poll_wake().is_some() {}
    }
}

/// Fills a queue, empties it, and checks that the memory is given back.
#[track_caller]
fn gives_back(config: Config, empty: impl FnOnce(&mut Host, ConnectionKey)) {
    const COUNT: usize = 50_000;
    let mut host = Host::new(config);
    let key = host.connect();
    let before = held();
    host.fill(key, COUNT);
    assert!(held() > before + COUNT * 64);
    empty(&mut host, key);
    let (after, counted) = (held(), host.broker.inspect().memory);
    assert!(counted < ROOM, "{counted}");
    assert!(after < before + ROOM, "{after} - {before}");
}

fn get(host: &mut Host, key: ConnectionKey, count: usize, no_ack: bool) {
    for _ in 0..count {
        let get = basic::Get {
            queue: name("q"),
            no_ack,
        };
        host.call(key, 1, get);
    }
}

#[test]
fn a_purge_gives_the_memory_back() {
    gives_back(Config::default(), |host, key| {
        let purge = queue::Purge {
            queue: name("q"),
            ..queue::Purge::default()
        };
        host.call(key, 1, purge);
    });
}

#[test]
fn a_queue_that_is_almost_empty_keeps_no_memory_of_a_long_one() {
    gives_back(Config::default(), |host, key| {
        get(host, key, 49_990, true);
        assert_eq!(host.ready(), 10);
    });
}

#[test]
fn acknowledgements_give_the_memory_back() {
    for multiple in [false, true] {
        gives_back(Config::default(), |host, key| {
            get(host, key, 50_000, false);
            let first = if multiple { 49_990 } else { 1 };
            for delivery_tag in first..=49_990 {
                let ack = basic::Ack {
                    delivery_tag,
                    multiple,
                };
                host.call(key, 1, ack);
            }
        });
    }
}

#[test]
fn stored_changes_give_their_memory_back() {
    let config = Config::default().journal(true);
    let limits = Limits::default().journal(usize::MAX);
    let mut host = Host::new(config.limits(limits));
    let key = host.connect();
    let declare = queue::Declare {
        queue: name("d"),
        durable: true,
        ..queue::Declare::default()
    };
    host.call(key, 1, declare);
    host.call(key, 1, confirm::Select::default());
    let before = held();
    for _ in 0..20_000 {
        let publish = basic::Publish {
            routing_key: name("d"),
            ..basic::Publish::default()
        };
        let mut input = BytesMut::new();
        method(1, publish, &mut input);
        // A persistent message without a body.
        let header = [0, 60, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x10, 0, 2];
        frame(FrameKind::Header, 1, &header, &mut input);
        host.feed(key, input);
    }
    let purge = queue::Purge {
        queue: name("d"),
        ..queue::Purge::default()
    };
    host.call(key, 1, purge);
    assert!(held() > before + ROOM);
    while host.broker.poll_change().is_some() {}
    host.broker.handle_stored(u64::MAX, NOW);
    host.drain(key);
    let after = held();
    assert!(after < before + ROOM, "{after} - {before}");
}

#[test]
fn channels_and_connections_give_their_memory_back() {
    let mut host = Host::new(Config::default());
    let first = host.connect();
    let before = held();
    let keys: Vec<ConnectionKey> = (0..100).map(|_| host.connect()).collect();
    for number in 2..=2047 {
        host.call(first, number, channel::Open);
    }
    for number in 2..=2047 {
        host.call(first, number, channel::Close::default());
        host.call(first, number, channel::CloseOk);
    }
    for key in keys {
        host.end(key);
    }
    let after = held();
    assert!(after < before + 2 * ROOM, "{after} - {before}");
}

#[test]
fn an_idle_connection_and_channel_cost_little() {
    const COUNT: usize = 1000;
    let mut host = Host::new(Config::default());
    let first = host.connect();
    let before = held();
    let keys: Vec<ConnectionKey> = (0..COUNT).map(|_| host.connect()).collect();
    let connection = (held() - before) / COUNT;
    let before = held();
    for number in 2..2002 {
        host.call(first, number, channel::Open);
    }
    let channel = (held() - before) / 2000;
    assert!(connection < 8 << 10, "{connection}");
    assert!(channel < 1 << 10, "{channel}");
    assert_eq!(keys.len(), COUNT);
}

#[test]
fn a_queued_message_costs_no_more_than_is_counted() {
    let mut host = Host::new(Config::default());
    let key = host.connect();
    let before = held();
    host.fill(key, 50_000);
    let (held, counted) = (held() - before, host.broker.inspect().memory);
    assert!(held <= counted, "{held} of {counted}");
}

/// Of each block that small messages are copied into, the queue keeps one message.
#[test]
fn a_small_message_keeps_no_more_than_a_few_times_its_cost() {
    let mut host = Host::new(Config::default());
    let key = host.connect();
    let before = held();
    for _ in 0..10_000 {
        let mut input = BytesMut::new();
        publish("q", b"kept", &mut input);
        for _ in 0..10 {
            publish("nowhere", &[b'x'; 1000], &mut input);
            publish("nowhere", &[b'x'; 120], &mut input);
        }
        host.feed(key, input);
    }
    let (held, counted) = (held() - before, host.broker.inspect().memory);
    assert!(held < 5 * counted, "{held} of {counted}");
}
