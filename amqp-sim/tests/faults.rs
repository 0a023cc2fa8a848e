//! Each fault, and what a program sees of it.

use std::{collections::BTreeSet, time::Duration};

use amqp_sim::{
    Connector, Direction, Fault, Link, Node, Options, Sim,
    amqp_driver::{
        Connection, Error,
        arguments::Queue,
        protocol::{
            ReplyCode,
            basic::{Get, Properties, Publish},
        },
        recovery::{Policy, RecoveryEvent},
    },
    broker,
};

const fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

const fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

fn link() -> Link {
    Link::new("test", "rabbit")
}

/// A node, and a connection of the test itself.
fn connected(uri: &str) -> (Sim, Node, Connector, Connection) {
    let sim = Sim::traced(5);
    let node = sim.node("rabbit");
    let connector = sim.connector(uri);
    let connecting = connector.clone();
    let connection = sim.block_on(async move { connecting.connect().await });
    (sim, node, connector, connection.expect("nothing fails yet"))
}

const URI: &str = "amqp://rabbit?heartbeat=10";

/// The time until a channel is open, or the error.
fn open(sim: &Sim, connection: &Connection) -> Result<Duration, Error> {
    let (before, connection) = (sim.now(), connection.clone());
    sim.block_on(async move { connection.open_channel().await })?;
    Ok(sim.now() - before)
}

/// The time until the end of a connection.
fn closed(sim: &Sim, connection: &Connection) -> Duration {
    let (before, connection) = (sim.now(), connection.clone());
    sim.block_on(async move { connection.closed().await });
    sim.now() - before
}

fn traced(sim: &Sim, text: &str) -> usize {
    let trace = sim.trace();
    trace
        .lines()
        .iter()
        .filter(|line| line.contains(text))
        .count()
}

#[test]
fn latency_delays_both_ways() {
    let (sim, _node, _, connection) = connected(URI);
    assert!(open(&sim, &connection).expect("it is open") < millis(3));
    let (min, max, time) = (millis(100), millis(100), secs(5));
    sim.inject(Fault::Latency {
        link: link(),
        min,
        max,
        time,
    });
    let took = open(&sim, &connection).expect("it is open");
    assert!((millis(200)..millis(210)).contains(&took), "{took:?}");
    sim.advance(secs(5));
    assert!(open(&sim, &connection).expect("it is open") < millis(3));
}

#[test]
fn bandwidth_takes_time() {
    let (sim, _node, _, connection) = connected(URI);
    sim.inject(Fault::Bandwidth {
        link: link(),
        direction: Direction::FromClient,
        rate: 1000,
        time: secs(100),
    });
    let publishing = connection.clone();
    let before = sim.now();
    let confirmed = sim.block_on(async move {
        let channel = publishing.open_channel().await?.confirm_select().await?;
        let publish = Publish::default().routing_key("nowhere");
        let confirm = channel
            .publish(&publish, &Properties::default(), vec![0; 5000])
            .await?;
        Ok::<_, Error>(confirm.await)
    });
    assert_eq!(confirmed, Ok(Ok(())));
    let took = sim.now() - before;
    assert!((secs(5)..secs(6)).contains(&took), "{took:?}");
}

#[test]
fn writes_arrive_in_pieces_and_slow_readers_hold_the_writer_up() {
    let (sim, _node, _, connection) = connected(URI);
    sim.inject(Fault::Split {
        link: link(),
        max: 1,
        time: secs(100),
    });
    for direction in [Direction::FromClient, Direction::ToClient] {
        sim.inject(Fault::SlowReader {
            link: link(),
            direction,
            window: 16,
            time: secs(100),
        });
    }
    let (polls, working) = (sim.polls(), connection.clone());
    let got = sim.block_on(async move {
        let channel = working.open_channel().await?;
        channel
            .call(Queue::classic("q").declare().expect("a name"))
            .await?;
        let to_q = Publish::default().routing_key("q");
        channel
            .publish(&to_q, &Properties::default(), vec![7; 1000])
            .await?;
        channel.get(Get::default().queue("q")).await
    });
    let got = got.expect("it is open").expect("the queue has a message");
    assert_eq!(got.body.to_vec(), [7; 1000]);
    assert!(sim.polls() - polls > 500);
}

#[test]
fn a_cut_is_behind_the_byte() {
    for after in [1, 8, 20, 100] {
        for direction in [Direction::FromClient, Direction::ToClient] {
            let (sim, _node, _, connection) = connected(URI);
            sim.inject(Fault::Cut {
                link: link(),
                direction,
                after,
            });
            let before = connection.stats().received.bytes;
            let mut count = 0;
            while open(&sim, &connection).is_ok() {
                count += 1;
                assert!(count < 100);
            }
            let received = connection.stats().received.bytes - before;
            if direction == Direction::ToClient {
                assert_eq!(received, after);
            }
            assert_eq!(traced(&sim, "  cut"), 1);
        }
    }
}

#[test]
fn a_reset_and_an_end_reach_both_ends() {
    for fault in [Fault::Reset { link: link() }, Fault::Eof { link: link() }] {
        let (sim, node, _, connection) = connected(URI);
        assert_eq!(node.inspect().connections.len(), 1);
        sim.inject(fault);
        assert!(closed(&sim, &connection) < millis(100));
        sim.advance(secs(10));
        assert_eq!(node.inspect().connections.len(), 0);
    }
}

#[test]
fn each_loss_is_reported_once_and_followed_by_one_attempt() {
    let sim = Sim::new(5);
    let _node = sim.node("rabbit");
    let options = Options::from_uri(URI).expect("the URI is well-formed");
    let connector = sim.connector_with(options.recovery(Policy::new(0)));
    let connecting = async move { connector.connect().await };
    let connection = sim.block_on(connecting).expect("nothing fails yet");
    let mut events = connection.recovery_events();
    for _ in 0..2 {
        sim.inject(Fault::Reset { link: link() });
        sim.advance(secs(60));
        let mut attempts = Vec::new();
        let mut losses = 0;
        while let Some(change) = events.try_next() {
            match change.event {
                RecoveryEvent::Lost(_) => losses += 1,
                RecoveryEvent::Reconnecting { attempt, .. } => attempts.push(attempt),
                _ => {}
            }
        }
        assert_eq!((losses, attempts), (1, vec![1]));
        assert!(connection.is_open());
    }
}

#[test]
fn a_stall_passes() {
    let (sim, _node, connector, connection) = connected(URI);
    sim.inject(Fault::Stall {
        link: link(),
        direction: None,
        time: secs(8),
    });
    let took = open(&sim, &connection).expect("it is shorter than the heartbeats allow");
    assert!((secs(8)..secs(9)).contains(&took), "{took:?}");
    // A longer one is noticed by heartbeats, and connects time out.
    sim.inject(Fault::Stall {
        link: link(),
        direction: Some(Direction::ToClient),
        time: secs(60),
    });
    let took = closed(&sim, &connection);
    assert!((secs(9)..secs(31)).contains(&took), "{took:?}");
    assert!(
        sim.block_on(async move { connector.connect().await })
            .is_err()
    );
}

#[test]
fn a_half_open_connection_is_noticed_by_its_heartbeats() {
    let (sim, node, _, connection) = connected(URI);
    sim.inject(Fault::HalfOpen {
        link: link(),
        deaf: Direction::FromClient,
    });
    sim.advance(secs(1));
    assert_eq!(node.inspect().connections.len(), 0);
    assert!(connection.is_open());
    let took = closed(&sim, &connection);
    assert!((secs(9)..secs(31)).contains(&took), "{took:?}");

    let (sim, node, _, connection) = connected(URI);
    sim.inject(Fault::HalfOpen {
        link: link(),
        deaf: Direction::ToClient,
    });
    assert!(closed(&sim, &connection) < secs(1));
    assert_eq!(node.inspect().connections.len(), 1);
    sim.advance(secs(31));
    assert_eq!(node.inspect().connections.len(), 0);
}

#[test]
fn connects_are_refused_for_a_time() {
    let (sim, _node, connector, _connection) = connected(URI);
    sim.inject(Fault::Refuse {
        link: link(),
        time: secs(3),
    });
    let again = connector.clone();
    assert!(sim.block_on(async move { again.connect().await }).is_err());
    sim.advance(secs(3));
    assert!(
        sim.block_on(async move { connector.connect().await })
            .is_ok()
    );
}

#[test]
fn a_name_without_a_node_is_not_resolved() {
    let (sim, _node, connector, _connection) = connected(URI);
    let other = connector.with_options(Options::from_uri("amqp://hare").expect("a URI"));
    let error = sim.block_on(async move { other.connect().await });
    let error = error.expect_err("there is none").to_string();
    assert!(error.contains("no node \"hare\""), "{error}");
}

/// A connection that recovers, with a persistent and a transient message in a durable queue.
fn stored(fault: Fault, messages: u32) {
    let sim = Sim::new(3);
    let node = sim.node("rabbit");
    let options = Options::from_uri(URI)
        .expect("a URI")
        .recovery(Policy::new(1));
    let connector = sim.connector_with(options);
    let channel = sim.block_on(async move {
        let channel = connector.connect().await.expect("nothing fails yet");
        let channel = channel.open_channel().await?.confirm_select().await?;
        channel
            .call(Queue::classic("q").declare().expect("a name"))
            .await?;
        let to_q = Publish::default().routing_key("q");
        for properties in [Properties::default().persistent(), Properties::default()] {
            let confirm = channel.publish(&to_q, &properties, "it").await?;
            assert_eq!(confirm.await, Ok(()));
        }
        Ok::<_, Error>(channel)
    });
    let channel = channel.expect("nothing fails yet");
    assert_eq!(node.messages("q"), 2);
    sim.inject(fault);
    sim.advance(secs(60));
    assert_eq!(node.messages("q"), u64::from(messages));
    let connection = channel.connection().clone();
    assert!(connection.is_open());
    assert_eq!(node.inspect().connections.len(), 1);
}

#[test]
fn a_node_that_stops_keeps_what_is_durable() {
    let node = || "rabbit".into();
    let down = secs(5);
    stored(Fault::Restart { node: node(), down }, 1);
    stored(Fault::Kill { node: node(), down }, 1);
    let code = ReplyCode::CONNECTION_FORCED;
    stored(Fault::Close { node: node(), code }, 2);
    let process = node();
    stored(
        Fault::Suspend {
            process,
            time: down,
        },
        2,
    );
    let process = node();
    let time = secs(50);
    stored(Fault::Suspend { process, time }, 2);
    stored(Fault::Jump { time: secs(90) }, 2);
    let queue = "q".into();
    stored(
        Fault::DeleteQueue {
            node: node(),
            queue,
        },
        0,
    );
}

#[test]
fn an_alarm_blocks_publishers_for_a_time() {
    let (sim, _node, _, connection) = connected(URI);
    sim.inject(Fault::Alarm {
        node: "rabbit".into(),
        time: secs(5),
    });
    let publishing = connection.clone();
    let before = sim.now();
    let confirmed = sim.block_on(async move {
        let channel = publishing.open_channel().await?.confirm_select().await?;
        let publish = Publish::default().routing_key("nowhere");
        let confirm = channel
            .publish(&publish, &Properties::default(), "it")
            .await?;
        Ok::<_, Error>(confirm.await)
    });
    assert_eq!(confirmed, Ok(Ok(())));
    assert!(sim.now() - before >= secs(4));
}

#[test]
fn confirms_are_lost_and_publishes_refused() {
    let (sim, _node, _, connection) = connected(URI);
    sim.inject(Fault::Nack {
        node: "rabbit".into(),
        count: 1,
    });
    let publishing = connection.clone();
    let confirmed = sim.block_on(async move {
        let channel = publishing.open_channel().await?.confirm_select().await?;
        let publish = Publish::default().routing_key("nowhere");
        let mut confirmed = Vec::new();
        for _ in 0..2 {
            let confirm = channel
                .publish(&publish, &Properties::default(), "it")
                .await?;
            confirmed.push(confirm.await.is_ok());
        }
        Ok::<_, Error>(confirmed)
    });
    assert_eq!(confirmed, Ok(vec![false, true]));
}

#[test]
fn connections_overtake_each_other() {
    let sim = Sim::traced(9);
    sim.node("rabbit");
    sim.latency(millis(1), millis(50));
    let orders: Vec<Vec<u64>> = (0..2).map(|_| race(&sim)).collect();
    assert_ne!(orders[0], orders[1]);
}

/// The order in which the replies of ten connections arrive.
fn race(sim: &Sim) -> Vec<u64> {
    use std::{cell::RefCell, rc::Rc};
    let order = Rc::new(RefCell::new(Vec::new()));
    for number in 0..10 {
        let (connector, order) = (sim.connector(URI), Rc::clone(&order));
        sim.spawn("racer", async move {
            let connection = connector
                .connect()
                .await
                .map_err(|error| error.to_string())?;
            order.borrow_mut().push(number);
            connection.close().await.map_err(|error| error.to_string())
        });
    }
    sim.run();
    order.take()
}

/// The messages that a node with a slow disk has after it was killed: it was so a while after the
/// second of two publishes, of which the first is confirmed.
fn kept_by_the_disk(seed: u64, after: Duration) -> (bool, u64) {
    let sim = Sim::new(seed);
    let node = sim.node_with("rabbit", broker::Config::default().journal(true));
    let connector = sim.connector(URI);
    let channel = sim.block_on(async move {
        let channel = connector.connect().await.expect("nothing fails yet");
        let channel = channel.open_channel().await?.confirm_select().await?;
        channel
            .call(Queue::classic("q").declare().expect("a name"))
            .await?;
        let to_q = Publish::default().routing_key("q");
        let persistent = Properties::default().persistent();
        let confirm = channel.publish(&to_q, &persistent, "one").await?;
        assert_eq!(confirm.await, Ok(()));
        Ok::<_, Error>(channel)
    });
    let channel = channel.expect("nothing fails yet");
    sim.inject(Fault::SlowDisk {
        node: "rabbit".into(),
        delay: secs(2),
        time: secs(100),
    });
    let down = secs(1);
    let node_name = "rabbit".into();
    let at = sim.now() + after;
    sim.at(
        at,
        Fault::Kill {
            node: node_name,
            down,
        },
    );
    let confirmed = sim.block_on(async move {
        let to_q = Publish::default().routing_key("q");
        let persistent = Properties::default().persistent();
        let confirm = channel.publish(&to_q, &persistent, "two").await?;
        Ok::<_, Error>(confirm.await.is_ok())
    });
    sim.advance(secs(20));
    (confirmed == Ok(true), node.messages("q"))
}

#[test]
fn a_killed_node_has_what_its_disk_has_stored() {
    let mut seen = BTreeSet::new();
    for seed in 0..20 {
        for after in [millis(1000), millis(3000)] {
            let (confirmed, messages) = kept_by_the_disk(seed, after);
            // What is confirmed is stored, and what is being stored may be.
            assert!((1..=2).contains(&messages), "{messages}");
            assert!(!confirmed || messages == 2);
            assert_eq!(confirmed, after == millis(3000));
            seen.insert((confirmed, messages));
        }
    }
    assert_eq!(seen.len(), 3, "{seen:?}");
}
