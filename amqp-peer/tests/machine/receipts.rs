//! What is reported of sent messages, and the room in the outbox.

use amqp_peer::{DropReason, Limits, Message, Receipts, SendError, machine::Event};

use crate::rig::{Application, ROLES, World, config, name};

#[test]
fn written_and_delivered_are_reported_for_each_message_and_nothing_else() {
    for (from, to) in ROLES {
        let receipts = config("alice").receipts(Receipts::All);
        let mut world = World::new([receipts, config("bob")]);
        world.nodes[1].application = Application::Keeps;
        world.connect(from, to);
        world.run();
        world.nodes[0].take_events();
        let now = world.now;
        let to = name("bob");
        let ids = ["1", "2"].map(|body| world.nodes[0].send(now, "bob", body));
        world.run();
        let written = ids.map(|id| Event::Written { to: to.clone(), id });
        assert_eq!(world.nodes[0].take_events(), written);
        world.accept_kept(1);
        world.run();
        let delivered = ids.map(|id| Event::Delivered { to: to.clone(), id });
        assert_eq!(world.nodes[0].take_events(), delivered);
        world.nodes[1].machine.disconnect(&name("alice"), now);
        world.run();
        assert_eq!(world.nodes[0].take_events().len(), 1);
    }
}

#[test]
fn a_large_message_is_written_when_its_last_byte_is() {
    for (from, to) in ROLES {
        let receipts = config("alice").receipts(Receipts::All);
        let mut world = World::new([receipts, config("bob")]);
        let pipe = world.connect(from, to);
        world.run();
        world.nodes[0].take_events();
        let now = world.now;
        world.nodes[0].send(now, "bob", &"x".repeat(1 << 20));
        let end = usize::from(from != 0);
        let mut turns = 0;
        while world.write(pipe, end) {
            turns += 1;
            let event = world.nodes[0].machine.poll_event();
            let is_last = !world.nodes[0]
                .machine
                .has_transmit(world.pipes[pipe][end].link, now);
            assert_eq!(event.is_some(), is_last);
        }
        assert!(turns > 2, "{turns}");
    }
}

#[test]
fn receipts_of_one_message_do_not_depend_on_the_configuration() {
    let mut world = World::named(&["alice", "bob"]);
    world.connect(0, 1);
    world.run();
    world.nodes[0].take_events();
    let now = world.now;
    world.nodes[0].send(now, "bob", "untold");
    let machine = &mut world.nodes[0].machine;
    let id = machine
        .send_with(now, &name("bob"), Message::new("told"), Receipts::Delivered)
        .unwrap();
    world.run();
    let to = name("bob");
    assert_eq!(world.nodes[0].take_events(), [Event::Delivered { to, id }]);
}

#[test]
fn the_outbox_is_bounded_by_count_and_gives_its_room_back() {
    let limits = Limits::default().outbox_messages(3);
    let mut world = World::new([config("alice").limits(limits), config("bob")]);
    let now = world.now;
    for body in ["1", "2", "3"] {
        world.nodes[0].send(now, "bob", body);
    }
    let full = world.nodes[0].try_send(now, "bob", Message::new("4"));
    assert!(
        matches!(full, Err(SendError::Full { messages: 3, .. })),
        "{full:?}"
    );
    world.nodes[0].send(now, "jack", "another receiver has room");
    let machine = &mut world.nodes[0].machine;
    assert!(!machine.room(&name("bob"), 1) && machine.poll_room().is_none());
    world.connect(0, 1);
    world.run();
    let machine = &mut world.nodes[0].machine;
    assert_eq!(machine.poll_room(), Some(name("bob")));
    assert_eq!(machine.poll_room(), None);
    assert!(machine.room(&name("bob"), 1));
    world.nodes[0].send(now, "bob", "4");
    world.run();
    assert_eq!(world.nodes[1].bodies(), ["1", "2", "3", "4"]);
}

#[test]
fn the_outbox_is_bounded_by_bytes_of_one_receiver_and_of_all() {
    let limits = Limits::default().outbox_bytes(3000).outbox_total(5000);
    let mut world = World::new([
        config("alice").limits(limits),
        config("bob"),
        config("jack"),
    ]);
    let now = world.now;
    let body = || Message::new("x".repeat(1000));
    let mut sent = [0, 0];
    for (sent, to) in sent.iter_mut().zip(["bob", "jack"]) {
        while world.nodes[0].try_send(now, to, body()).is_ok() {
            *sent += 1;
        }
    }
    assert_eq!(sent, [2, 2]);
    // One message may exceed the bound of an empty outbox.
    let large = Message::new("x".repeat(4000));
    assert!(!world.nodes[0].machine.room(&name("jack"), 1000));
    world.connect(0, 1);
    world.run();
    let rooms: Vec<_> = std::iter::from_fn(|| world.nodes[0].machine.poll_room()).collect();
    assert_eq!(
        rooms,
        [name("bob"), name("jack")],
        "both have waited for the room of all"
    );
    assert!(
        !world.nodes[0].machine.room(&name("jack"), 1000),
        "jack's own room"
    );
    world.connect(0, 2);
    world.run();
    assert_eq!(world.nodes[0].machine.poll_room(), Some(name("jack")));
    world.nodes[0].try_send(now, "jack", large).unwrap();
}

#[test]
fn events_that_are_not_taken_keep_their_room() {
    let limits = Limits::default().outbox_messages(2);
    let alice = config("alice").limits(limits).receipts(Receipts::Delivered);
    let mut world = World::new([alice, config("bob")]);
    world.connect(0, 1);
    world.run();
    let now = world.now;
    let link = world.pipes[0][0].link;
    world.nodes[0].send(now, "bob", "1");
    world.nodes[0].send(now, "bob", "2");
    // Without taking the sender's events.
    for _ in 0..4 {
        world.write(0, 0);
        world.step(0, 1);
        world.read_only(0, 0);
    }
    assert_eq!(
        world.nodes[0]
            .machine
            .links()
            .find(|it| it.key == link)
            .unwrap()
            .unacknowledged,
        0
    );
    assert!(!world.nodes[0].machine.room(&name("bob"), 1));
    assert!(world.nodes[0].machine.poll_event().is_some());
    assert_eq!(world.nodes[0].machine.poll_room(), Some(name("bob")));
}

#[test]
fn a_receiver_that_is_forgotten_drops_its_messages_with_a_report() {
    let mut world = World::named(&["alice", "bob"]);
    let now = world.now;
    world.nodes[0].send(now, "bob", "a");
    world.nodes[0].persist(now, "bob", "b");
    world.run();
    world.nodes[0].machine.forget(&name("bob"), now);
    world.run();
    let dropped = world.nodes[0].dropped();
    assert_eq!(dropped.len(), 2);
    assert!(
        dropped
            .iter()
            .all(|it| it.reason == DropReason::Removed && !it.was_sent)
    );
    assert!(world.nodes[0].disk.0.outbox.is_empty());
    assert_eq!(world.nodes[0].machine.outbox(&name("bob")).messages, 0);
    world.connect(0, 1);
    world.run();
    assert_eq!(world.nodes[1].bodies(), [""; 0]);
}

#[test]
fn receivers_are_bounded() {
    let limits = Limits::default().receivers(2);
    let mut world = World::new([config("alice").limits(limits)]);
    let now = world.now;
    world.nodes[0].send(now, "b", "1");
    world.nodes[0].send(now, "c", "1");
    world.nodes[0].send(now, "c", "2");
    let limit = 2;
    let refused = world.nodes[0].try_send(now, "d", Message::new("1"));
    assert_eq!(refused, Err(SendError::TooManyReceivers { limit }));
    world.nodes[0].machine.forget(&name("b"), now);
    world.run();
    world.nodes[0].send(now, "d", "1");
    let own = world.nodes[0].try_send(now, "alice", Message::new("1"));
    assert_eq!(own, Err(SendError::OwnName));
}
