//! Repeats: whether the receiver may have handled a message before.

use crate::rig::{Application, ROLES, World};

/// Sends a message, and loses its first transmission or not.
fn begun(from: usize, to: usize, is_lost: bool) -> World {
    let mut world = World::named(&["alice", "bob"]);
    world.nodes[1].application = Application::Keeps;
    let pipe = world.connect(from, to);
    world.run();
    world.nodes[0].send(world.now, "bob", "1");
    if is_lost {
        let alice = usize::from(from != 0);
        assert!(world.write(pipe, alice));
    } else {
        world.run();
    }
    world.cut(pipe);
    assert_eq!(world.nodes[1].bodies().len(), usize::from(!is_lost));
    world
}

#[test]
fn a_lost_transmission_to_the_same_process_was_not_handled() {
    for (from, to) in ROLES {
        let mut world = begun(from, to, true);
        world.connect(from, to);
        world.run();
        let received = world.nodes[1].received();
        assert_eq!(received.len(), 1);
        assert!(!received[0].is_repeated);
    }
}

#[test]
fn a_message_that_an_earlier_process_may_have_had_may_be_handled() {
    for (from, to) in ROLES {
        for is_lost in [true, false] {
            let mut world = begun(from, to, is_lost);
            world.nodes[1].take_events();
            world.restart(1);
            world.nodes[0].send(world.now, "bob", "2");
            world.connect(from, to);
            world.run();
            let received = world.nodes[1].received();
            let handled: Vec<bool> = received.iter().map(|it| it.is_repeated).collect();
            assert_eq!(handled, [true, false]);
        }
    }
}

#[test]
fn a_persistent_message_of_an_earlier_process_of_the_sender_may_be_handled() {
    for (from, to) in ROLES {
        let mut world = World::named(&["alice", "bob"]);
        world.nodes[0].persist(world.now, "bob", "1");
        world.run();
        world.restart(0);
        world.connect(from, to);
        world.run();
        assert!(world.nodes[1].received()[0].is_repeated);
    }
}
