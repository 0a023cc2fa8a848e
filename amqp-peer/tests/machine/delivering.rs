//! Messages over one link, in both roles.

use amqp_core::Body;
use amqp_peer::{
    DownCause, Message, SendError,
    machine::{Event, Sender},
};

use crate::rig::{Application, ROLES, World, config, name, seconds};

#[test]
fn four_small_messages_arrive_in_order() {
    for (from, to) in ROLES {
        let mut world = World::named(&["alice", "bob"]);
        world.connect(from, to);
        world.run();
        for body in ["one", "two", "three", "four"] {
            let now = world.now;
            world.nodes[0].send(now, "bob", body);
        }
        world.run();
        assert_eq!(world.nodes[1].bodies(), ["one", "two", "three", "four"]);
        assert_eq!(world.nodes[0].machine.outbox(&name("bob")).messages, 0);
        let received = world.nodes[1].received();
        assert!(
            received
                .iter()
                .all(|it| it.from == Sender::Peer(name("alice")))
        );
        assert!(received.iter().all(|it| !it.is_repeated));
    }
}

#[test]
fn a_large_message_arrives_whole_in_any_pieces() {
    for (from, to) in ROLES {
        for chunk in [None, Some(1000), Some(7)] {
            let mut world = World::named(&["alice", "bob"]);
            world.chunk = chunk;
            world.connect(from, to);
            world.run();
            let body = "x".repeat(800_000);
            let now = world.now;
            world.nodes[0].send(now, "bob", &body);
            world.nodes[1].send(now, "alice", &body);
            world.run();
            assert_eq!(world.nodes[1].bodies(), [&body]);
            assert_eq!(world.nodes[0].bodies(), [&body]);
        }
    }
}

#[test]
fn both_ends_see_the_same_of_a_link() {
    let mut world = World::named(&["alice", "bob"]);
    world.connect(0, 1);
    world.run();
    let [alice, bob] = &world.nodes[..] else {
        unreachable!()
    };
    assert_eq!(alice.ups()[0].name, name("bob"));
    assert_eq!(bob.ups()[0].name, name("alice"));
    assert_eq!(alice.ups()[0].instance, bob.config.seed);
    assert!(!alice.ups()[0].is_listener && bob.ups()[0].is_listener);
    world.nodes[0].machine.disconnect(&name("bob"), world.now);
    world.run();
    assert_eq!(world.nodes[0].downs()[0].cause, DownCause::Requested);
    assert_eq!(world.nodes[1].downs()[0].cause, DownCause::ByPeer);
    assert_eq!(world.nodes[0].ups().len() + world.nodes[0].downs().len(), 2);
    assert_eq!(world.nodes[1].ups().len() + world.nodes[1].downs().len(), 2);
}

#[test]
fn what_is_sent_before_the_link_is_delivered_with_it() {
    for (from, to) in ROLES {
        let mut world = World::named(&["alice", "bob"]);
        let now = world.now;
        let message = Message::new("early").ttl(seconds(600));
        world.nodes[0].try_send(now, "bob", message).unwrap();
        world.advance(seconds(500));
        world.connect(from, to);
        world.run();
        assert_eq!(world.nodes[1].bodies(), ["early"]);
        let received = world.nodes[1].received()[0];
        assert_eq!(received.message.ttl, Some(seconds(100)));
    }
}

#[test]
fn properties_arrive_and_reserved_headers_are_refused() {
    for (from, to) in ROLES {
        let mut world = World::named(&["alice", "bob"]);
        world.connect(from, to);
        world.run();
        let headers = amqp_core::wire::FieldTable::new().with("n", 3);
        let message = Message::new("body")
            .kind("greeting")
            .unwrap()
            .correlation_id("42")
            .unwrap()
            .content_type("text/plain")
            .unwrap()
            .headers(headers);
        let now = world.now;
        world.nodes[0]
            .try_send(now, "bob", message.clone())
            .unwrap();
        world.nodes[0]
            .try_send(now, "bob", message.clone().persistent())
            .unwrap();
        world.run();
        let received = world.nodes[1].received();
        assert_eq!(received[0].message, message);
        assert_eq!(received[1].message, message.clone().persistent());
        let headers = amqp_core::wire::FieldTable::new().with("x-peer-ttl-ms", 3);
        let refused = world.nodes[0].try_send(now, "bob", message.headers(headers));
        assert_eq!(refused, Err(SendError::ReservedHeader));
    }
}

#[test]
fn a_message_that_is_given_back_is_given_again_behind_the_others() {
    for (from, to) in ROLES {
        let mut world = World::named(&["alice", "bob"]);
        world.nodes[1].application = Application::Keeps;
        world.connect(from, to);
        world.run();
        let now = world.now;
        for body in ["1", "2", "3"] {
            world.nodes[0].send(now, "bob", body);
        }
        world.run();
        let back = world.nodes[1].kept.pop_front().unwrap();
        world.nodes[1].machine.requeue(now, back);
        world.nodes[1].machine.requeue(now, back);
        world.run();
        assert_eq!(world.nodes[1].bodies(), ["1", "2", "3", "1"]);
        assert!(world.nodes[1].received()[3].is_repeated);
        world.nodes[1].machine.settle(now, back);
        world.run();
        assert_eq!(world.nodes[0].machine.outbox(&name("bob")).messages, 3);
        world.accept_kept(1);
        world.run();
        assert_eq!(world.nodes[0].machine.outbox(&name("bob")).messages, 0);
        assert_eq!(world.nodes[1].bodies().len(), 4);
    }
}

#[test]
fn acceptances_in_any_order_are_acknowledged() {
    for (from, to) in ROLES {
        let mut world = World::named(&["alice", "bob"]);
        world.nodes[1].application = Application::Keeps;
        world.connect(from, to);
        world.run();
        let now = world.now;
        for number in 0..10 {
            world.nodes[0].send(now, "bob", &number.to_string());
        }
        world.run();
        let tokens: Vec<_> = world.nodes[1].kept.drain(..).collect();
        for (left, at) in (0..10).rev().zip([3, 4, 9, 1, 0, 2, 8, 6, 5, 7]) {
            world.nodes[1].machine.settle(now, tokens[at]);
            world.nodes[1].machine.settle(now, tokens[at]);
            world.run();
            let outbox = world.nodes[0].machine.outbox(&name("bob"));
            assert_eq!((outbox.messages, outbox.in_flight), (left, left));
        }
    }
}

#[test]
fn acknowledgements_of_a_batch_are_one() {
    for (from, to) in ROLES {
        let mut world = World::named(&["alice", "bob"]);
        let pipe = world.connect(from, to);
        world.run();
        let end = usize::from(from != 0);
        let before = world.pipes[pipe][end].read;
        let now = world.now;
        for _ in 0..1000 {
            world.nodes[0].send(now, "bob", "12345");
        }
        world.run();
        assert_eq!(world.nodes[1].bodies().len(), 1000);
        let acks = world.pipes[pipe][end].read - before;
        assert!(acks < 1000, "{acks} bytes of acknowledgements");
    }
}

#[test]
fn input_after_the_end_is_ignored() {
    let mut world = World::named(&["alice", "bob"]);
    let pipe = world.connect(0, 1);
    world.run();
    let link = world.pipes[pipe][1].link;
    world.cut(pipe);
    world.run();
    world.nodes[1].take_events();
    let now = world.now;
    let mut input = bytes::BytesMut::from(&b"AMQP"[..]);
    let machine = &mut world.nodes[1].machine;
    machine.handle_input(link, now, &mut input);
    machine.handle_eof(link, now);
    machine.handle_written(link, now);
    machine.handle_link_timeout(link, now);
    assert!(!machine.poll_transmit(link, now, &mut amqp_core::Transmit::new()));
    assert!(machine.is_finished(link));
    world.run();
    assert!(world.nodes[1].take_events().is_empty());
}

#[test]
fn three_peers_with_mixed_roles_reach_each_other() {
    for order in [[0, 1, 2], [2, 1, 0], [1, 0, 2]] {
        let mut world = World::named(&["alice", "bob", "jack"]);
        let pipes = [(0, 1), (2, 0), (1, 2)];
        for at in order {
            let (from, to) = pipes[at];
            world.connect(from, to);
            world.run();
        }
        let names = ["alice", "bob", "jack"];
        let now = world.now;
        for from in 0..3 {
            for to in names.iter().filter(|to| **to != names[from]) {
                world.nodes[from].send(now, to, names[from]);
            }
        }
        world.run();
        for (node, own) in world.nodes.iter().zip(names) {
            let mut bodies = node.bodies();
            bodies.sort_unstable();
            let others: Vec<_> = names.into_iter().filter(|name| *name != own).collect();
            assert_eq!(bodies, others);
        }
    }
}

#[test]
fn stopping_ends_links_and_drops_what_is_transient() {
    let mut world = World::named(&["alice", "bob"]);
    let now = world.now;
    world.nodes[0].send(now, "jack", "transient");
    world.nodes[0].persist(now, "jack", "persistent");
    world.connect(0, 1);
    world.run();
    world.nodes[0].machine.stop(now);
    world.run();
    assert_eq!(world.nodes[0].dropped().len(), 1);
    assert_eq!(world.nodes[0].dropped()[0].message.body, "transient");
    assert_eq!(world.nodes[0].disk.bodies("jack"), ["persistent"]);
    assert_eq!(world.nodes[1].downs()[0].cause, DownCause::ByPeer);
    let stopped = world.nodes[0].try_send(now, "bob", Message::new("late"));
    assert_eq!(stopped, Err(SendError::Stopped));
    assert!(world.nodes[0].machine.dial(now).is_err());
}

#[test]
fn an_empty_body_and_one_in_pieces_arrive() {
    for (from, to) in ROLES {
        let mut world = World::new([config("alice"), config("bob")]);
        world.connect(from, to);
        world.run();
        let now = world.now;
        world.nodes[0]
            .try_send(now, "bob", Message::new(Body::new()))
            .unwrap();
        world.run();
        assert_eq!(world.nodes[1].bodies(), [""]);
        assert!(matches!(
            world.nodes[1].take_events().last(),
            Some(Event::Received(_))
        ));
    }
}

#[test]
fn a_message_is_repeated_only_if_an_application_may_have_had_it() {
    for (from, to) in ROLES {
        let mut world = World::named(&["alice", "bob"]);
        let pipe = world.connect(from, to);
        world.run();
        let now = world.now;
        world.nodes[0].send(now, "bob", "cut");
        world.write(pipe, usize::from(from != 0));
        world.cut(pipe);
        world.connect(from, to);
        world.run();
        // The receiver's process has not seen the first transmission.
        assert!(!world.nodes[1].received()[0].is_repeated);
        world.nodes[1].application = Application::Keeps;
        world.nodes[0].send(now, "bob", "kept");
        world.run();
        world.restart(1);
        world.connect(from, to);
        world.run();
        let received = world.nodes[1].received();
        assert_eq!(received[2].message.body, "kept");
        assert!(received[2].is_repeated);
    }
}
