//! The throttle: its accuracy, and what goes ahead of messages.

use amqp_peer::{DownCause, Message, Throttle};

use crate::rig::{Application, ROLES, World, config, keepalive, millis, name, seconds};

const RATE: u64 = 100_000;

/// Sends a message of that many bytes, and returns the milliseconds until it is there.
fn time_of(world: &mut World, len: usize) -> u64 {
    let began = world.now;
    world.nodes[0].send(began, "bob", &"x".repeat(len));
    let before = world.nodes[1].got.len();
    while world.nodes[1].got.len() == before {
        world.advance(millis(10));
        assert!(world.now - began < seconds(60));
    }
    u64::try_from((world.now - began).as_millis()).unwrap()
}

#[test]
fn a_mebibyte_takes_its_time_in_both_directions_and_roles() {
    for (from, to) in ROLES {
        for (alice, bob) in [
            (Throttle::send(RATE), Throttle::default()),
            (Throttle::default(), Throttle::receive(RATE)),
            (Throttle::both(RATE), Throttle::both(RATE)),
        ] {
            let mut world = World::new([
                config("alice").throttle(alice).heartbeat(1),
                config("bob").throttle(bob).heartbeat(1),
            ]);
            world.connect(from, to);
            world.advance(seconds(2));
            assert_eq!(world.links_up(0), 1);
            let millis = time_of(&mut world, 1 << 20);
            let exact = (1 << 20) * 1000 / RATE;
            let bounds = exact * 95 / 100..=exact * 105 / 100;
            assert!(bounds.contains(&millis), "{millis} ms, {alice:?} {bob:?}");
            // Heartbeats have kept the link up.
            assert_eq!((world.links_up(0), world.links_up(1)), (1, 1));
        }
    }
}

#[test]
fn small_messages_keep_to_the_rate_over_every_second() {
    for (from, to) in ROLES {
        let throttle = Throttle::send(RATE);
        let mut world = World::new([config("alice").throttle(throttle), config("bob")]);
        let pipe = world.connect(from, to);
        world.advance(seconds(2));
        let now = world.now;
        for _ in 0..10_000 {
            world.nodes[0].send(now, "bob", "12345");
        }
        let end = usize::from(from == 0);
        let mut before = world.pipes[pipe][end].read;
        for second in 0..5 {
            world.advance(seconds(1));
            let read = world.pipes[pipe][end].read;
            let bytes = read - before;
            assert!(
                (95_000..=105_000).contains(&bytes),
                "{bytes} in second {second}"
            );
            before = read;
        }
    }
}

#[test]
fn acknowledgements_do_not_wait_behind_a_throttled_message() {
    for (from, to) in ROLES {
        let throttle = Throttle::send(10_000);
        let mut world = World::new([config("alice"), config("bob").throttle(throttle)]);
        world.connect(from, to);
        world.advance(seconds(2));
        let now = world.now;
        world.nodes[1].send(now, "alice", &"x".repeat(1 << 20));
        world.advance(seconds(1));
        let now = world.now;
        world.nodes[0].send(now, "bob", "quick");
        world.advance(seconds(1));
        assert_eq!(world.nodes[1].bodies(), ["quick"]);
        assert_eq!(world.nodes[0].machine.outbox(&name("bob")).messages, 0);
        assert!(world.nodes[0].bodies().is_empty());
    }
}

#[test]
fn messages_flow_both_ways_over_a_throttled_link() {
    for (from, to) in ROLES {
        let throttle = Throttle::both(20_000);
        let mut world = World::new([
            config("alice").throttle(throttle),
            config("bob").throttle(throttle),
        ]);
        world.connect(from, to);
        let now = world.now;
        for number in 0..100 {
            world.nodes[0].send(now, "bob", &number.to_string());
            world.nodes[1].persist(now, "alice", &number.to_string());
        }
        world.advance(seconds(10));
        let expected: Vec<String> = (0..100).map(|number| number.to_string()).collect();
        assert_eq!(world.nodes[0].bodies(), expected);
        assert_eq!(world.nodes[1].bodies(), expected);
    }
}

#[test]
fn a_silent_link_is_probed_below_a_second_and_ends() {
    for (from, to) in ROLES {
        let probing = config("alice").keepalive(keepalive(millis(200), millis(100)));
        let mut world = World::new([probing.heartbeat(0), config("bob").heartbeat(0)]);
        let pipe = world.connect(from, to);
        world.advance(seconds(10));
        assert_eq!(world.links_up(0), 1, "an answer keeps the link up");
        world.stalled.push(pipe);
        world.advance(millis(299));
        assert_eq!(world.links_up(0), 1);
        world.advance(millis(201));
        assert_eq!(world.links_up(0), 0);
        assert_eq!(world.nodes[0].downs()[0].cause, DownCause::Silent);
    }
}

#[test]
fn a_probe_finds_a_busy_link_alive() {
    for (from, to) in ROLES {
        let probing = config("alice").keepalive(keepalive(millis(200), millis(100)));
        let slow = config("bob").throttle(Throttle::send(50_000));
        let mut world = World::new([probing, slow]);
        world.nodes[0].application = Application::Accepts;
        world.connect(from, to);
        world.advance(seconds(1));
        let now = world.now;
        let message = Message::new("x".repeat(500_000));
        world.nodes[1].try_send(now, "alice", message).unwrap();
        world.advance(seconds(20));
        assert_eq!(world.nodes[0].bodies().len(), 1);
        assert_eq!(world.links_up(0), 1);
    }
}
