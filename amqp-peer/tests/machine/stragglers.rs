//! Messages that the application keeps for long, while many behind them are accepted.

use amqp_peer::{DropReason, Limits, Message, machine::Event};

use crate::rig::{Application, ROLES, World, config, name, seconds};

/// The number of messages that pass the one that is kept, many times the window.
const PASSING: usize = 200_000;

/// The number of messages that are sent at a time.
const BURST: usize = 500;

/// The size of all that a machine keeps, in characters.
fn size(world: &World, node: usize) -> usize {
    format!("{:?}", world.nodes[node].machine).len()
}

/// A world in which each peer gives messages up to the window before they are accepted.
fn world(roles: (usize, usize)) -> World {
    let limits = Limits::default().window(1000);
    let mut world = World::new(["alice", "bob"].map(|name| config(name).limits(limits.clone())));
    world.connect(roles.0, roles.1);
    world.run();
    world
}

fn keep_one(world: &mut World, body: &str) {
    world.nodes[1].application = Application::Keeps;
    let now = world.now;
    world.nodes[0].send(now, "bob", body);
    world.run();
    world.nodes[1].application = Application::Accepts;
}

/// Lets messages pass, and checks that they leave nothing behind.
fn pass(world: &mut World, count: usize) {
    let mut sizes = [usize::MAX; 2];
    world.nodes[1].got.clear();
    for burst in 0..count / BURST {
        let now = world.now;
        for number in 0..BURST {
            world.nodes[0].send(now, "bob", &format!("{burst} {number}"));
        }
        world.run();
        assert_eq!(world.nodes[1].got.len(), BURST, "burst {burst}");
        for node in [0, 1] {
            world.nodes[node].got.clear();
            world.nodes[node].events.clear();
        }
        // Once the memory of accepted messages is full.
        if burst == 10 {
            sizes = [0, 1].map(|node| size(world, node));
        }
    }
    for (node, before) in sizes.into_iter().enumerate() {
        let after = size(world, node);
        assert!(after / 2 <= before, "{node}: {before} to {after}");
    }
}

#[test]
fn one_message_that_is_kept_for_long_neither_stalls_the_link_nor_grows_the_memory() {
    for roles in ROLES {
        let mut world = world(roles);
        keep_one(&mut world, "kept");
        pass(&mut world, PASSING);
        let outbox = world.nodes[0].machine.outbox(&name("bob"));
        assert_eq!((outbox.messages, outbox.in_flight), (1, 1));
        world.accept_kept(1);
        world.run();
        let outbox = world.nodes[0].machine.outbox(&name("bob"));
        assert_eq!((outbox.messages, outbox.in_flight), (0, 0));
    }
}

#[test]
fn those_that_are_left_are_sent_again_first_and_in_order_and_known_again() {
    for roles in ROLES {
        for restarts in [false, true] {
            let mut world = world(roles);
            for body in ["first", "second"] {
                keep_one(&mut world, body);
                pass(&mut world, 5 * BURST);
            }
            world.nodes[1].got.clear();
            let pipe = world.pipes.len() - 1;
            world.cut(pipe);
            world.run();
            if restarts {
                world.restart(1);
            }
            let now = world.now;
            world.nodes[0].send(now, "bob", "third");
            world.connect(roles.0, roles.1);
            world.run();
            // The process that has them is not given them again.
            let expected: &[_] = if restarts {
                &["first", "second", "third"]
            } else {
                &["third"]
            };
            assert_eq!(world.nodes[1].bodies(), expected);
            let left = if restarts { 0 } else { 2 };
            assert_eq!(world.nodes[0].machine.outbox(&name("bob")).messages, left);
            for received in world.nodes[1].received() {
                let body = received.message.body.to_vec();
                assert_eq!(received.is_repeated, body != b"third");
            }
            world.accept_kept(1);
            world.run();
            assert_eq!(world.nodes[0].machine.outbox(&name("bob")).messages, 0);
        }
    }
}

#[test]
fn one_that_is_given_back_after_long_comes_again_once() {
    for roles in ROLES {
        let mut world = world(roles);
        keep_one(&mut world, "kept");
        pass(&mut world, 5 * BURST);
        world.nodes[1].got.clear();
        let token = world.nodes[1].kept.pop_front().unwrap();
        let now = world.now;
        for _ in 0..2 {
            world.nodes[1].machine.requeue(now, token);
        }
        world.run();
        assert_eq!(world.nodes[1].bodies(), ["kept"]);
        assert_eq!(world.nodes[0].machine.outbox(&name("bob")).messages, 0);
        world.nodes[1].machine.settle(now, token);
        world.run();
        assert_eq!(world.links_up(0), 1);
    }
}

#[test]
fn one_that_is_left_behind_expires_without_a_link() {
    for roles in ROLES {
        let mut world = world(roles);
        world.nodes[1].application = Application::Keeps;
        let now = world.now;
        for body in ["with", "without"] {
            let mut message = Message::new(body);
            message.ttl = (body == "with").then(|| seconds(5));
            world.nodes[0].try_send(now, "bob", message).unwrap();
        }
        world.run();
        world.nodes[1].application = Application::Accepts;
        world.nodes[1].got.clear();
        pass(&mut world, 5 * BURST);
        world.advance(seconds(60));
        assert_eq!(world.nodes[0].machine.outbox(&name("bob")).messages, 2);
        world.cut(0);
        world.advance(seconds(6));
        let dropped = world.nodes[0].dropped();
        assert_eq!(dropped.len(), 1);
        assert_eq!(dropped[0].reason, DropReason::Expired);
        assert_eq!(world.nodes[0].machine.outbox(&name("bob")).messages, 1);
        // Its acknowledgement over the next link is of no account.
        world.connect(roles.0, roles.1);
        world.run();
        world.accept_kept(1);
        world.run();
        assert_eq!(world.nodes[0].machine.outbox(&name("bob")).messages, 0);
        assert_eq!(world.links_up(0), 1);
    }
}

#[test]
fn those_that_are_left_behind_are_removed_with_their_receiver() {
    for roles in ROLES {
        let mut world = world(roles);
        for body in ["first", "second"] {
            keep_one(&mut world, body);
            pass(&mut world, 5 * BURST);
        }
        let now = world.now;
        world.nodes[0].machine.forget(&name("bob"), now);
        let events = world.nodes[0].turn_events(now);
        let removed = events.iter().filter_map(|event| match event {
            Event::Dropped(dropped) => Some(crate::rig::text(&dropped.message.body)),
            _ => None,
        });
        assert_eq!(removed.collect::<Vec<_>>(), ["first", "second"]);
        assert_eq!(world.nodes[0].machine.outbox(&name("bob")).messages, 0);
        world.accept_kept(1);
        world.nodes[0].send(now, "bob", "next");
        world.run();
        assert_eq!(world.nodes[1].bodies(), ["next"]);
        assert_eq!(world.links_up(0), 1);
    }
}

#[test]
fn persistent_ones_that_are_left_behind_are_the_only_ones_that_stay_stored() {
    for roles in ROLES {
        let mut world = world(roles);
        let now = world.now;
        world.nodes[1].application = Application::Keeps;
        world.nodes[0].persist(now, "bob", "kept");
        world.run();
        world.nodes[1].application = Application::Accepts;
        for number in 0..2000 {
            world.nodes[0].persist(now, "bob", &number.to_string());
            world.run();
        }
        assert_eq!(world.nodes[0].disk.bodies("bob"), ["kept"]);
        world.nodes[1].got.clear();
        world.restart(0);
        world.connect(roles.0, roles.1);
        world.nodes[0].persist(now, "bob", "next");
        world.run();
        assert_eq!(world.nodes[1].bodies(), ["next"], "the first is kept still");
        world.accept_kept(1);
        world.run();
        assert_eq!(world.nodes[0].disk.bodies("bob"), [""; 0]);
    }
}
