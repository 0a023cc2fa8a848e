//! The time to live, by the clock of disconnected time.

use std::time::Duration;

use amqp_peer::{DropReason, Message, SendError, TtlClock};

use crate::rig::{Application, ROLES, World, config, name, seconds};

fn send(world: &mut World, body: &str, ttl: Option<Duration>, persistent: bool) {
    let message = Message::new(body.to_owned()).ttl(ttl);
    let message = if persistent {
        message.persistent()
    } else {
        message
    };
    let now = world.now;
    world.nodes[0].try_send(now, "bob", message).unwrap();
}

fn expired(world: &World) -> Vec<String> {
    let dropped = world.nodes[0].dropped();
    assert!(dropped.iter().all(|it| it.reason == DropReason::Expired));
    dropped
        .iter()
        .map(|it| crate::rig::text(&it.message.body))
        .collect()
}

#[test]
fn disconnected_time_expires_one_and_leaves_the_rest_of_the_other() {
    for persistent in [false, true] {
        let mut world = World::named(&["alice", "bob"]);
        send(&mut world, "1", Some(seconds(1)), persistent);
        send(&mut world, "5", Some(seconds(5)), persistent);
        world.advance(seconds(3));
        assert_eq!(expired(&world), ["1"]);
        assert!(!world.nodes[0].dropped()[0].was_sent);
        world.connect(0, 1);
        world.run();
        let received = world.nodes[1].received();
        assert_eq!(received.len(), 1);
        assert_eq!(received[0].message.ttl, Some(seconds(2)));
    }
}

#[test]
fn a_message_expires_at_its_time_and_not_before() {
    let mut world = World::named(&["alice", "bob"]);
    send(&mut world, "5", Some(seconds(5)), false);
    world.advance(seconds(5) - Duration::from_nanos(1));
    assert_eq!(expired(&world), [""; 0]);
    world.advance(Duration::from_nanos(1));
    assert_eq!(expired(&world), ["5"]);
    assert_eq!(world.nodes[0].machine.poll_timeout(), None);
    assert_eq!(world.nodes[0].machine.outbox(&name("bob")).messages, 0);
}

#[test]
fn without_a_time_to_live_a_message_waits_for_ever() {
    let mut world = World::named(&["alice", "bob"]);
    send(&mut world, "for ever", None, false);
    world.advance(seconds(100 * 365 * 86_400));
    world.connect(0, 1);
    world.run();
    assert_eq!(world.nodes[1].received()[0].message.ttl, None);
}

#[test]
fn time_with_a_link_does_not_count() {
    let mut world = World::named(&["alice", "bob"]);
    world.nodes[1].application = Application::Keeps;
    let pipe = world.connect(0, 1);
    world.run();
    send(&mut world, "5", Some(seconds(5)), false);
    world.advance(seconds(60));
    assert_eq!(expired(&world), [""; 0]);
    world.cut(pipe);
    world.advance(seconds(4));
    let pipe = world.connect(0, 1);
    world.advance(seconds(60));
    assert_eq!(world.links_up(0), 1);
    world.cut(pipe);
    world.advance(seconds(1));
    assert_eq!(expired(&world), ["5"]);
    assert!(world.nodes[0].dropped()[0].was_sent);
}

#[test]
fn zero_is_now_or_never() {
    for (from, to) in ROLES {
        let mut world = World::named(&["alice", "bob"]);
        let now = world.now;
        let message = Message::new("now").ttl(Duration::ZERO);
        let refused = world.nodes[0].try_send(now, "bob", message);
        assert_eq!(refused, Err(SendError::NotConnected { to: name("bob") }));
        let pipe = world.connect(from, to);
        world.run();
        send(&mut world, "now", Some(Duration::ZERO), true);
        world.run();
        assert_eq!(world.nodes[1].bodies(), ["now"]);
        assert_eq!(
            world.nodes[1].received()[0].message.ttl,
            Some(Duration::ZERO)
        );
        assert!(world.nodes[0].disk.0.outbox.is_empty());
        // One that is not acknowledged goes with the link.
        world.nodes[1].application = Application::Keeps;
        send(&mut world, "never", Some(Duration::ZERO), false);
        world.run();
        world.cut(pipe);
        world.run();
        assert_eq!(expired(&world), ["never"]);
    }
}

#[test]
fn the_time_between_two_runs_counts_if_there_was_no_link() {
    let mut world = World::named(&["alice", "bob"]);
    send(&mut world, "1", Some(seconds(1)), true);
    send(&mut world, "5", Some(seconds(5)), true);
    world.run();
    world.nodes[0].take_events();
    world.now = world.now + seconds(3);
    world.restart(0);
    world.run();
    assert_eq!(expired(&world), ["1"]);
    assert_eq!(world.nodes[0].disk.bodies("bob"), ["5"]);
    world.restart(0);
    world.connect(0, 1);
    world.run();
    let received = world.nodes[1].received();
    assert_eq!(received[0].message.ttl, Some(seconds(2)));
}

#[test]
fn the_time_without_a_process_counts_also_if_there_was_a_link() {
    for (from, to) in ROLES {
        // Long after the message was stored, and just after.
        for with_link in [60, 0] {
            let mut world = World::named(&["alice", "bob"]);
            world.nodes[1].application = Application::Keeps;
            send(&mut world, "3", Some(seconds(3)), true);
            send(&mut world, "10", Some(seconds(10)), true);
            world.connect(from, to);
            world.advance(seconds(with_link));
            assert_eq!(world.links_up(0), 1);
            assert_eq!(expired(&world), [""; 0]);
            world.nodes[0].take_events();
            // Killed, and started four seconds later, of which three at least count.
            world.now = world.now + seconds(4);
            world.restart(0);
            world.run();
            assert_eq!(expired(&world), ["3"]);
            world.restart_silently(1);
            world.connect(from, to);
            world.run();
            let received = world.nodes[1].received();
            let left = received.last().unwrap().message.ttl.unwrap();
            assert!((seconds(6)..=seconds(7)).contains(&left), "{left:?}");
        }
    }
}

#[test]
fn a_restart_at_once_counts_nothing_of_the_time_with_a_link() {
    let mut world = World::named(&["alice", "bob"]);
    world.nodes[1].application = Application::Keeps;
    world.connect(0, 1);
    world.run();
    for _ in 0..10 {
        send(&mut world, "1", Some(seconds(1)), true);
        world.advance(Duration::from_millis(700));
    }
    world.restart(0);
    world.run();
    assert_eq!(expired(&world), [""; 0]);
    assert_eq!(world.nodes[0].machine.outbox(&name("bob")).messages, 10);
}

#[test]
fn clocks_with_a_link_are_stored_again_only_while_they_matter() {
    let mut world = World::named(&["alice", "bob"]);
    world.connect(0, 1);
    world.run();
    send(&mut world, "x", Some(seconds(60)), true);
    send(&mut world, "transient", Some(seconds(60)), false);
    world.run();
    // Both are accepted.
    assert_eq!(world.nodes[0].machine.poll_timeout(), None);
    world.nodes[1].application = Application::Keeps;
    send(&mut world, "transient", Some(seconds(60)), false);
    send(&mut world, "without a time to live", None, true);
    world.run();
    world.accept_kept(1);
    world.advance(seconds(2));
    assert_eq!(world.nodes[0].machine.poll_timeout(), None);
}

#[test]
fn a_wall_clock_that_jumps_back_counts_as_no_time() {
    let mut world = World::named(&["alice", "bob"]);
    send(&mut world, "5", Some(seconds(5)), true);
    world.run();
    world.wall -= seconds(1_000_000);
    world.restart(0);
    world.run();
    assert_eq!(expired(&world), [""; 0]);
    world.advance(seconds(5));
    assert_eq!(expired(&world), ["5"]);
}

#[test]
fn the_clock_that_runs_always_expires_messages_under_way() {
    let always = config("alice").ttl_clock(TtlClock::Always);
    let mut world = World::new([always, config("bob")]);
    world.nodes[1].application = Application::Keeps;
    world.connect(0, 1);
    world.run();
    send(&mut world, "5", Some(seconds(5)), true);
    world.advance(seconds(4));
    assert_eq!(expired(&world), [""; 0]);
    world.advance(seconds(1));
    assert_eq!(expired(&world), ["5"]);
    // The acknowledgement that comes nevertheless is of no account.
    world.accept_kept(1);
    world.run();
    assert_eq!(world.links_up(0), 1);
    assert!(world.nodes[0].disk.0.outbox.is_empty());
}

#[test]
fn the_clock_of_a_receiver_starts_anew_with_an_empty_outbox() {
    let mut world = World::named(&["alice", "bob"]);
    send(&mut world, "a", Some(seconds(1)), true);
    world.advance(seconds(100));
    assert_eq!(expired(&world), ["a"]);
    send(&mut world, "b", Some(seconds(5)), true);
    world.advance(seconds(4));
    assert_eq!(expired(&world), ["a"]);
    assert_eq!(world.nodes[0].disk.bodies("bob"), ["b"]);
    world.advance(seconds(1));
    assert_eq!(expired(&world), ["a", "b"]);
    assert!(world.nodes[0].disk.0.outbox.is_empty() && world.nodes[0].disk.0.clocks.is_empty());
}
