//! The causes of ends, as both sides report them.

use amqp_core::Instant;
use amqp_peer::DownCause;

use crate::rig::{ROLES, World, millis, name, seconds};

#[test]
fn a_cut_transport_is_reported_once_by_each_side() {
    for (from, to) in ROLES {
        let mut world = World::named(&["alice", "bob"]);
        let pipe = world.connect(from, to);
        world.run();
        world.cut(pipe);
        world.cut(pipe);
        world.run();
        for node in &world.nodes {
            assert_eq!(node.downs().len(), 1);
            assert_eq!(node.downs()[0].cause, DownCause::Transport);
        }
    }
}

#[test]
fn heartbeats_end_a_silent_link() {
    for (from, to) in ROLES {
        let mut world = World::named(&["alice", "bob"]);
        let pipe = world.connect(from, to);
        world.advance(seconds(100));
        assert_eq!(world.links_up(0), 1);
        world.stalled.push(pipe);
        world.advance(seconds(21));
        for node in &world.nodes {
            assert_eq!(node.downs()[0].cause, DownCause::Silent);
        }
    }
}

#[test]
fn a_peer_that_stops_tells_so_once_even_if_both_do() {
    let mut world = World::named(&["alice", "bob"]);
    world.connect(0, 1);
    world.run();
    let now = world.now;
    world.nodes[0].machine.stop(now);
    world.nodes[1].machine.stop(now);
    world.nodes[1].machine.stop(now);
    world.run();
    for node in &world.nodes {
        assert_eq!(node.downs().len(), 1);
        assert_eq!(node.downs()[0].cause, DownCause::Requested);
        assert!(node.machine.is_stopped());
    }
    world.advance(seconds(30));
    assert_eq!(
        world.nodes[0]
            .machine
            .links()
            .filter(|link| link.is_up)
            .count(),
        0
    );
}

#[test]
fn a_close_in_the_middle_of_receiving_is_one_end_on_each_side() {
    for (from, to) in ROLES {
        let mut world = World::named(&["alice", "bob"]);
        world.connect(from, to);
        world.run();
        let now = world.now;
        for _ in 0..1000 {
            world.nodes[0].send(now, "bob", "12345");
        }
        let pipe = 0;
        world.step(pipe, usize::from(from == 0));
        world.nodes[1].machine.disconnect(&name("alice"), now);
        world.run();
        assert_eq!(
            world.nodes[0].downs().len() + world.nodes[1].downs().len(),
            2
        );
        world.connect(from, to);
        world.run();
        assert_eq!(world.nodes[1].bodies().len(), 1000);
    }
}

#[test]
fn a_clock_that_goes_back_is_the_last_time() {
    let mut world = World::named(&["alice", "bob"]);
    world.connect(0, 1);
    world.run();
    world.now = Instant::ORIGIN;
    world.nodes[0].send(Instant::ORIGIN, "bob", "back in time");
    world.run();
    world.advance(millis(1));
    assert_eq!(world.nodes[1].bodies(), ["back in time"]);
}
