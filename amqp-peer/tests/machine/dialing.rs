//! Two links between the same peers, and the choice between them.

use amqp_peer::DownCause;

use crate::rig::{ROLES, World, config, name, seconds};

/// Lets the four ends of two links take turns in an order: the digits of a number in base 4.
fn interleave(world: &mut World, pipes: [usize; 2], order: u64) {
    let mut order = order;
    for _ in 0..24 {
        let (pipe, end) = ((order & 1) as usize, (order >> 1 & 1) as usize);
        order = order.rotate_right(2);
        world.step(pipes[pipe], end);
    }
    world.run();
}

#[test]
fn peers_that_dial_each_other_at_once_keep_one_link_in_any_order() {
    let mut random = 0x9e37_79b9_7f4a_7c15_u64;
    let mut kept = [0, 0];
    for _ in 0..2000 {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        let mut world = World::named(&["alice", "bob"]);
        let pipes = [world.connect(0, 1), world.connect(1, 0)];
        let now = world.now;
        world.nodes[0].send(now, "bob", "there");
        world.nodes[1].send(now, "alice", "back");
        interleave(&mut world, pipes, random);
        assert_eq!((world.links_up(0), world.links_up(1)), (1, 1), "{random:x}");
        for node in &world.nodes {
            assert_eq!(node.ups().len(), 1, "no churn: {random:x}");
            assert_eq!(node.downs().len(), 0, "no churn: {random:x}");
            assert_eq!(node.refusals(), [DownCause::Duplicate], "{random:x}");
        }
        assert_eq!(
            world.nodes[0].ups()[0].is_listener,
            !world.nodes[1].ups()[0].is_listener
        );
        kept[usize::from(world.nodes[0].ups()[0].is_listener)] += 1;
        assert_eq!(world.nodes[1].bodies(), ["there"]);
        assert_eq!(world.nodes[0].bodies(), ["back"]);
    }
    assert!(kept[0] > kept[1], "the lower name wins a tie: {kept:?}");
}

#[test]
fn a_tie_is_decided_for_the_lower_name() {
    let mut world = World::named(&["alice", "bob"]);
    let pipes = [world.connect(0, 1), world.connect(1, 0)];
    // Turn by turn, both come as far.
    for _ in 0..30 {
        for pipe in pipes {
            world.step(pipe, 0);
            world.step(pipe, 1);
        }
    }
    world.run();
    assert!(!world.nodes[0].ups()[0].is_listener);
}

#[test]
fn a_second_link_of_the_same_peers_is_refused_while_the_first_is_alive() {
    for first in ROLES {
        for second in ROLES {
            let mut world = World::named(&["alice", "bob"]);
            world.connect(first.0, first.1);
            world.run();
            world.connect(second.0, second.1);
            world.run();
            assert_eq!(world.links_up(0), 1);
            assert_eq!(
                world.nodes[0].downs().len() + world.nodes[1].downs().len(),
                0
            );
            assert_eq!(world.nodes[0].refusals(), [DownCause::Duplicate]);
            assert_eq!(world.nodes[1].refusals(), [DownCause::Duplicate]);
            assert_eq!(
                world.nodes[second.0].refused()[0].name,
                Some(name(["alice", "bob"][second.1]))
            );
        }
    }
}

#[test]
fn a_silent_link_is_replaced_after_the_probe() {
    for first in ROLES {
        for second in ROLES {
            let mut world = World::named(&["alice", "bob"]);
            let pipe = world.connect(first.0, first.1);
            world.run();
            let now = world.now;
            world.nodes[0].send(now, "bob", "before");
            world.run();
            // The network is gone for both, and neither knows.
            world.stalled.push(pipe);
            world.nodes[0].send(now, "bob", "behind");
            world.connect(second.0, second.1);
            world.advance(seconds(5));
            assert_eq!((world.links_up(0), world.links_up(1)), (1, 1));
            assert_eq!(world.nodes[1].bodies(), ["before", "behind"]);
            for node in &world.nodes {
                assert_eq!(node.downs().len(), 1, "{first:?} {second:?}");
                assert_eq!(node.downs()[0].cause, DownCause::Replaced);
            }
        }
    }
}

#[test]
fn a_peer_that_comes_again_replaces_its_lost_link_at_once() {
    let mut world = World::named(&["alice", "bob"]);
    let pipe = world.connect(0, 1);
    world.run();
    // The transport has ended for the connector only.
    world.stalled.push(pipe);
    world.cut_end(pipe, 0);
    world.connect(0, 1);
    world.run();
    assert_eq!((world.links_up(0), world.links_up(1)), (1, 1));
    assert_eq!(world.nodes[1].downs()[0].cause, DownCause::Replaced);
}

#[test]
fn a_second_process_of_the_same_name_is_refused_while_the_first_is_alive() {
    for (from, to) in [(1, 0), (0, 1)] {
        for (second_from, second_to) in [(2, 0), (0, 2)] {
            let mut world = World::named(&["alice", "bob", "bob"]);
            world.connect(from, to);
            world.run();
            world.connect(second_from, second_to);
            world.run();
            assert_eq!(world.links_up(0), 1);
            assert_eq!(world.links_up(2), 0);
            assert_eq!(world.nodes[2].refusals(), [DownCause::NameInUse]);
            assert_eq!(world.nodes[0].refusals(), [DownCause::NameInUse]);
            assert_eq!(world.nodes[0].downs().len(), 0);
        }
    }
}

#[test]
fn a_restarted_process_takes_the_place_of_its_silent_link() {
    for (from, to) in ROLES {
        let mut world = World::named(&["alice", "bob"]);
        let pipe = world.connect(from, to);
        world.run();
        world.stalled.push(pipe);
        let end = usize::from(world.pipes[pipe][0].node != 1);
        world.cut_end(pipe, end);
        world.restart_silently(1);
        world.connect(from, to);
        world.advance(seconds(5));
        assert_eq!((world.links_up(0), world.links_up(1)), (1, 1));
        assert_eq!(world.nodes[0].downs()[0].cause, DownCause::Replaced);
    }
}

#[test]
fn a_third_link_does_not_wait_behind_a_contest() {
    let mut world = World::named(&["alice", "bob"]);
    let pipe = world.connect(1, 0);
    world.run();
    world.stalled.push(pipe);
    world.connect(0, 1);
    world.run();
    world.connect(0, 1);
    world.run();
    assert_eq!(world.nodes[0].refusals(), [DownCause::Duplicate]);
    world.advance(seconds(5));
    assert_eq!((world.links_up(0), world.links_up(1)), (1, 1));
}

#[test]
fn many_connectors_to_one_peer_keep_one_link() {
    let mut world = World::new([config("alice"), config("bob")]);
    for _ in 0..10 {
        world.connect(0, 1);
        world.connect(1, 0);
    }
    world.run();
    assert_eq!((world.links_up(0), world.links_up(1)), (1, 1));
    assert_eq!(world.nodes[0].ups().len(), 1);
    assert_eq!(
        world.nodes[0].refusals(),
        [const { DownCause::Duplicate }; 19]
    );
}
