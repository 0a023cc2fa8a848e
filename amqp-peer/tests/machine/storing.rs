//! Persistent messages, and the storage that they wait for.

use amqp_core::protocol::ReplyCode;
use amqp_peer::{DownCause, Limits, Message, SendError};

use crate::rig::{Application, ROLES, World, config, name};

#[test]
fn a_storage_holds_what_is_persistent_until_it_is_acknowledged() {
    let mut world = World::named(&["alice", "bob"]);
    world.nodes[1].application = Application::Keeps;
    let now = world.now;
    world.nodes[0].persist(now, "bob", "a");
    world.nodes[0].send(now, "bob", "b");
    world.nodes[0].persist(now, "bob", "c");
    world.run();
    assert_eq!(world.nodes[0].disk.bodies("bob"), ["a", "c"]);
    world.connect(0, 1);
    world.run();
    let tokens: Vec<_> = world.nodes[1].kept.drain(..).collect();
    world.nodes[1].machine.settle(now, tokens[0]);
    world.run();
    assert_eq!(world.nodes[0].disk.bodies("bob"), ["c"]);
    world.nodes[1].machine.settle(now, tokens[1]);
    world.run();
    assert_eq!(world.nodes[0].disk.bodies("bob"), ["c"]);
    world.nodes[1].machine.settle(now, tokens[2]);
    world.run();
    assert_eq!(world.nodes[0].disk.bodies("bob"), [""; 0]);
}

#[test]
fn the_queues_of_two_peers_are_back_in_order_after_a_restart() {
    let mut world = World::named(&["alice", "bob", "jack"]);
    let now = world.now;
    for number in 0..10 {
        let to = ["bob", "jack"][number % 2];
        world.nodes[0].persist(now, to, &number.to_string());
        world.nodes[0].send(now, to, "transient");
    }
    world.run();
    world.restart(0);
    world.connect(0, 1);
    world.connect(2, 0);
    world.run();
    assert_eq!(world.nodes[1].bodies(), ["0", "2", "4", "6", "8"]);
    assert_eq!(world.nodes[2].bodies(), ["1", "3", "5", "7", "9"]);
    assert!(world.nodes[1].received().iter().all(|it| it.is_repeated));
}

#[test]
fn messages_that_were_acknowledged_out_of_order_do_not_come_back() {
    let mut world = World::named(&["alice", "bob"]);
    world.nodes[1].application = Application::Keeps;
    world.connect(0, 1);
    world.run();
    let now = world.now;
    for number in 0..6 {
        world.nodes[0].persist(now, "bob", &number.to_string());
    }
    world.run();
    for at in [4, 2] {
        let token = world.nodes[1].kept.remove(at).unwrap();
        world.nodes[1].machine.settle(now, token);
    }
    world.run();
    assert_eq!(world.nodes[0].disk.bodies("bob"), ["0", "1", "3", "5"]);
    world.restart(0);
    world.nodes[0].persist(now, "bob", "6");
    world.run();
    assert_eq!(world.nodes[0].disk.bodies("bob"), ["0", "1", "3", "5", "6"]);
}

#[test]
fn nothing_persistent_is_sent_before_it_is_stored_and_the_order_is_kept() {
    for (from, to) in ROLES {
        let mut world = World::named(&["alice", "bob"]);
        world.connect(from, to);
        world.run();
        world.nodes[0].stores = false;
        let now = world.now;
        world.nodes[0].send(now, "bob", "before");
        world.nodes[0].persist(now, "bob", "stored");
        let batch = world.nodes[0].machine.latest_batch().unwrap();
        world.nodes[0].send(now, "bob", "behind");
        world.run();
        assert_eq!(world.nodes[1].bodies(), ["before"]);
        assert!(!world.nodes[0].machine.is_stored(batch));
        world.nodes[0].store();
        assert!(world.nodes[0].machine.is_stored(batch));
        world.run();
        assert_eq!(world.nodes[1].bodies(), ["before", "stored", "behind"]);
    }
}

#[test]
fn nothing_persistent_is_acknowledged_before_the_acceptance_is_stored() {
    for (from, to) in ROLES {
        let mut world = World::named(&["alice", "bob"]);
        let pipe = world.connect(from, to);
        world.run();
        world.nodes[1].stores = false;
        let now = world.now;
        world.nodes[0].persist(now, "bob", "persistent");
        world.nodes[0].send(now, "bob", "transient");
        world.run();
        assert_eq!(world.nodes[0].machine.outbox(&name("bob")).messages, 1);
        assert_eq!(world.nodes[0].disk.bodies("bob"), ["persistent"]);
        // The link may end meanwhile.
        world.cut(pipe);
        world.run();
        world.connect(from, to);
        world.run();
        assert_eq!(world.nodes[0].machine.outbox(&name("bob")).messages, 1);
        world.nodes[1].store();
        world.run();
        assert_eq!(world.nodes[0].machine.outbox(&name("bob")).messages, 0);
        assert_eq!(world.nodes[1].bodies(), ["persistent", "transient"]);
    }
}

#[test]
fn a_storage_that_fails_refuses_what_is_persistent_and_loses_nothing() {
    let mut world = World::named(&["alice", "bob"]);
    world.connect(0, 1);
    world.run();
    world.nodes[0].stores = false;
    let now = world.now;
    world.nodes[0].persist(now, "bob", "first");
    world.run();
    let machine = &mut world.nodes[0].machine;
    machine.handle_store_failed(now, "the disk is full");
    let message = "the disk is full".into();
    let refused = world.nodes[0].try_send(now, "bob", Message::new("second").persistent());
    assert_eq!(refused, Err(SendError::Storage { message }));
    world.run();
    assert_eq!(world.nodes[1].bodies(), [""; 0]);
    world.nodes[0].stores = true;
    world.run();
    world.nodes[0].persist(now, "bob", "second");
    world.run();
    assert_eq!(world.nodes[1].bodies(), ["first", "second"]);
}

#[test]
fn remembered_acceptances_are_bounded_in_the_storage() {
    let limits = Limits::default().window(10);
    let mut world = World::new([config("alice"), config("bob").limits(limits)]);
    world.connect(0, 1);
    world.run();
    let now = world.now;
    for number in 0..1000 {
        world.nodes[0].persist(now, "bob", &number.to_string());
        world.run();
    }
    let stored = world.nodes[1].disk.0.accepted[&name("alice")].len();
    assert!((20..=30).contains(&stored), "{stored}");
}

#[test]
fn messages_whose_end_is_not_stored_count_to_the_window() {
    for (from, to) in ROLES {
        let limits = Limits::default().window(2);
        let mut world = World::new([config("alice"), config("bob").limits(limits)]);
        world.connect(from, to);
        world.run();
        let now = world.now;
        for number in 0..10 {
            world.nodes[0].persist(now, "bob", &number.to_string());
        }
        world.nodes[0].settle_storage();
        world.nodes[0].stores = false;
        world.run();
        // More would be forgotten by the receiver when they come again.
        assert_eq!(world.nodes[1].bodies(), ["0", "1"]);
        world.restart(0);
        world.nodes[0].stores = true;
        world.connect(from, to);
        world.run();
        let expected: Vec<String> = (0..10).map(|number| number.to_string()).collect();
        assert_eq!(world.nodes[1].bodies(), expected);
    }
}

#[test]
fn changes_that_are_not_stored_are_bounded_whatever_becomes_of_the_messages() {
    let limits = Limits::default().unstored(10_000);
    let mut world = World::new([config("alice").limits(limits), config("bob")]);
    world.nodes[0].stores = false;
    let now = world.now;
    let message = || Message::new("x".repeat(900)).persistent();
    let mut taken = 0;
    let refused = loop {
        match world.nodes[0].try_send(now, "bob", message()) {
            Ok(_) => taken += 1,
            Err(error) => break error,
        }
        // The outbox is empty again, and what is to be stored is not.
        world.nodes[0].machine.forget(&name("bob"), now);
        world.run();
        assert!(taken < 20);
    };
    let unstored = world.nodes[0].machine.store().unstored;
    let limit = 10_000;
    let bytes = unstored;
    assert_eq!(refused, SendError::Unstored { bytes, limit });
    assert!((8000..=10_000).contains(&unstored), "{unstored}");
    let machine = &mut world.nodes[0].machine;
    assert!(!machine.room_for(&name("bob"), &message()));
    assert!(machine.room(&name("bob"), 1000), "transient ones have room");
    assert!(machine.room_for(&name("bob"), &Message::new("x")));
    assert_eq!(machine.poll_room(), None);
    world.nodes[0].store();
    let machine = &mut world.nodes[0].machine;
    assert_eq!(machine.store().unstored, 0);
    assert_eq!(machine.poll_room(), Some(name("bob")));
    assert!(machine.room_for(&name("bob"), &message()));
    world.nodes[0].try_send(now, "bob", message()).unwrap();
}

#[test]
fn a_storage_that_fails_ends_the_wait_for_it() {
    let limits = Limits::default().unstored(1);
    let mut world = World::new([config("alice").limits(limits)]);
    world.nodes[0].stores = false;
    let now = world.now;
    world.nodes[0].persist(now, "bob", "one may exceed the limit");
    let second = Message::new("second").persistent();
    let machine = &mut world.nodes[0].machine;
    assert!(!machine.room_for(&name("bob"), &second));
    machine.handle_store_failed(now, "the disk is full");
    assert_eq!(machine.poll_room(), Some(name("bob")));
    assert_eq!(machine.store().error.as_deref(), Some("the disk is full"));
    let refused = machine.send(now, &name("bob"), second);
    assert!(matches!(refused, Err(SendError::Storage { .. })));
}

#[test]
fn acceptances_that_are_not_stored_are_bounded() {
    for (from, to) in ROLES {
        let limits = Limits::default().unstored(1);
        let mut world = World::new([config("alice"), config("bob").limits(limits)]);
        world.nodes[1].stores = false;
        world.connect(from, to);
        world.run();
        let now = world.now;
        for number in 0..1000 {
            world.nodes[0].persist(now, "bob", &number.to_string());
            world.run();
        }
        let code = ReplyCode::RESOURCE_ERROR;
        assert_eq!(
            world.nodes[1].downs()[0].cause,
            DownCause::Protocol { code }
        );
        assert!((500..600).contains(&world.nodes[1].got.len()));
        assert!(world.nodes[1].machine.store().unstored < 100_000);
        world.nodes[1].stores = true;
        world.run();
        world.connect(from, to);
        world.run();
        let expected: Vec<String> = (0..1000).map(|number| number.to_string()).collect();
        assert_eq!(world.nodes[1].bodies(), expected);
    }
}

#[test]
fn a_place_among_the_receivers_is_free_again_when_one_has_no_messages() {
    let limits = Limits::default().receivers(1);
    let mut world = World::new([config("alice").limits(limits)]);
    let now = world.now;
    world.nodes[0].send(now, "bob", "x");
    let refused = world.nodes[0].try_send(now, "jack", Message::new("x"));
    assert_eq!(refused, Err(SendError::TooManyReceivers { limit: 1 }));
    world.nodes[0].send(now, "bob", "y");
    world.nodes[0].machine.forget(&name("bob"), now);
    world.run();
    world.nodes[0].send(now, "jack", "x");
}
