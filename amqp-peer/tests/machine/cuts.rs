//! Transports that are cut at every byte, and processes that end at every step: nothing is lost,
//! and nothing is given to the application twice.

use amqp_peer::Message;

use crate::rig::{Application, ROLES, World, config, name};

/// Which end of a transport reads the last byte before the cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cut {
    /// The one that receives messages: in the middle of a delivery.
    Delivery,
    /// The one that sends messages: in the middle of an acknowledgement.
    Acknowledgement,
}

/// The peer that restarts at the cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Restart {
    None,
    Sender,
    Receiver,
}

const BODIES: [&str; 3] = ["first", "second", "third"];

/// Sends three messages from peer 0 to peer 1, with a cut after that many bytes. Returns the number
/// of bytes that the end has read when there was no cut.
fn run(
    roles: (usize, usize),
    cut: Cut,
    after: usize,
    persistent: bool,
    restart: Restart,
) -> Option<usize> {
    let mut world = World::named(&["alice", "bob"]);
    let pipe = world.connect(roles.0, roles.1);
    world.run();
    let node = match cut {
        Cut::Delivery => 1,
        Cut::Acknowledgement => 0,
    };
    let end = usize::from(roles.0 != node);
    let end = &mut world.pipes[pipe][end];
    let before = end.read;
    end.cut_after = Some(before + after);
    let now = world.now;
    for body in BODIES {
        let message = Message::new(body);
        let message = if persistent {
            message.persistent()
        } else {
            message
        };
        world.nodes[0].try_send(now, "bob", message).unwrap();
    }
    world.run();
    let was_cut = world.links_up(0) == 0;
    let read = world.pipes[pipe]
        .iter()
        .find(|end| end.node == node)
        .map(|end| end.read - before);
    match restart {
        Restart::None => {}
        Restart::Sender => world.restart(0),
        Restart::Receiver => world.restart(1),
    }
    if world.links_up(0) == 0 {
        world.connect(roles.0, roles.1);
        world.run();
    }
    let place = (roles, cut, after, persistent, restart);
    assert_eq!(world.links_up(0), 1, "{place:?}");
    assert_eq!(world.nodes[1].bodies(), BODIES, "{place:?}");
    assert_eq!(world.nodes[0].machine.outbox(&name("bob")).messages, 0);
    assert!(world.nodes[0].disk.0.outbox.is_empty(), "{place:?}");
    if was_cut { None } else { read }
}

/// Cuts at every byte there is.
fn run_all(cut: Cut, persistent: bool, restart: Restart) {
    for roles in ROLES {
        let all =
            (1..).find_map(|after| run(roles, cut, after, persistent, restart).map(|_| after));
        assert!(all.is_some_and(|all| all > 10), "{all:?} bytes");
    }
}

#[test]
fn a_cut_at_every_byte_of_a_delivery_loses_and_repeats_nothing() {
    run_all(Cut::Delivery, false, Restart::None);
}

#[test]
fn a_cut_at_every_byte_of_a_persistent_delivery_loses_and_repeats_nothing() {
    run_all(Cut::Delivery, true, Restart::None);
}

#[test]
fn a_cut_at_every_byte_of_an_acknowledgement_loses_and_repeats_nothing() {
    run_all(Cut::Acknowledgement, false, Restart::None);
    run_all(Cut::Acknowledgement, true, Restart::None);
}

#[test]
fn a_sender_that_restarts_at_every_byte_loses_and_repeats_nothing_persistent() {
    run_all(Cut::Delivery, true, Restart::Sender);
    run_all(Cut::Acknowledgement, true, Restart::Sender);
}

#[test]
fn a_receiver_that_restarts_at_every_byte_loses_and_repeats_nothing_persistent() {
    run_all(Cut::Delivery, true, Restart::Receiver);
    run_all(Cut::Acknowledgement, true, Restart::Receiver);
}

#[test]
fn a_cut_at_every_byte_of_the_handshake_is_followed_by_a_link() {
    for roles in ROLES {
        for end in [0, 1] {
            for after in 1.. {
                let mut world = World::named(&["alice", "bob"]);
                let pipe = world.connect(roles.0, roles.1);
                world.pipes[pipe][end].cut_after = Some(after);
                let now = world.now;
                world.nodes[0].send(now, "bob", "there");
                world.nodes[1].send(now, "alice", "back");
                world.run();
                let was_cut = world.links_up(0) == 0;
                if was_cut {
                    assert_eq!(world.links_up(1), 0);
                    world.connect(roles.0, roles.1);
                    world.run();
                }
                assert_eq!(world.nodes[0].bodies(), ["back"]);
                assert_eq!(world.nodes[1].bodies(), ["there"]);
                if !was_cut {
                    assert!(after > 300);
                    break;
                }
            }
        }
    }
}

#[test]
fn a_message_that_the_application_keeps_is_not_given_again_over_the_next_link() {
    for roles in ROLES {
        for persistent in [false, true] {
            let mut world = World::named(&["alice", "bob"]);
            world.nodes[1].application = Application::Keeps;
            let pipe = world.connect(roles.0, roles.1);
            world.run();
            let now = world.now;
            let message = Message::new("kept");
            let message = if persistent {
                message.persistent()
            } else {
                message
            };
            world.nodes[0].try_send(now, "bob", message).unwrap();
            world.run();
            world.cut(pipe);
            world.run();
            let pipe = world.connect(roles.0, roles.1);
            world.run();
            assert_eq!(world.nodes[1].bodies(), ["kept"]);
            // Accepted between two links, it is known when it comes once more.
            world.cut(pipe);
            world.accept_kept(1);
            world.run();
            assert_eq!(world.nodes[0].machine.outbox(&name("bob")).messages, 1);
            world.connect(roles.0, roles.1);
            world.run();
            assert_eq!(world.nodes[1].bodies(), ["kept"]);
            assert_eq!(world.nodes[0].machine.outbox(&name("bob")).messages, 0);
        }
    }
}

#[test]
fn a_message_given_back_between_two_links_is_given_again() {
    for roles in ROLES {
        let mut world = World::named(&["alice", "bob"]);
        world.nodes[1].application = Application::Keeps;
        let pipe = world.connect(roles.0, roles.1);
        world.run();
        let now = world.now;
        world.nodes[0].send(now, "bob", "again");
        world.run();
        world.cut(pipe);
        let token = world.nodes[1].kept.pop_front().unwrap();
        world.nodes[1].machine.requeue(now, token);
        world.connect(roles.0, roles.1);
        world.run();
        assert_eq!(world.nodes[1].bodies(), ["again", "again"]);
    }
}

#[test]
fn fifty_large_persistent_messages_survive_a_receiver_that_is_killed_after_five() {
    for roles in ROLES {
        let body = "x".repeat(1 << 20);
        let mut world = World::new([
            config("alice"),
            config("bob").limits(amqp_peer::Limits::default().window(8)),
        ]);
        world.connect(roles.0, roles.1);
        world.run();
        world.nodes[1].application = Application::Keeps;
        let now = world.now;
        for number in 0..50 {
            world.nodes[0].persist(now, "bob", &format!("{number} {body}"));
        }
        world.run();
        for token in world.nodes[1].kept.drain(..5).collect::<Vec<_>>() {
            world.nodes[1].machine.settle(now, token);
        }
        world.run();
        let given = world.nodes[1].bodies().len();
        assert!((5..=13).contains(&given), "{given}");
        // What was given and not accepted is given again to the next process.
        world.nodes[1].got.truncate(5);
        world.nodes[1].application = Application::Accepts;
        world.restart(1);
        world.connect(roles.0, roles.1);
        world.run();
        let numbers: Vec<String> = world.nodes[1]
            .bodies()
            .iter()
            .map(|body| body.split(' ').next().unwrap().to_owned())
            .collect();
        let expected: Vec<String> = (0..50).map(|number| number.to_string()).collect();
        assert_eq!(numbers, expected);
    }
}
