//! Connectors of another make that break the rules, and the bounds of memory.

use amqp_core::{
    Transmit,
    client::Event as ClientEvent,
    protocol::{basic, basic::Properties, channel, confirm, queue},
    wire::FieldTable,
};
use amqp_peer::{DownCause, DropReason, Limits, Message, SendError, machine::Event};
use bytes::BytesMut;

use crate::{
    foreign::{Connector, broken, consume, end, identity, short, with_id},
    rig::{Application, World, config, name},
};

#[test]
fn another_version_is_refused_and_told() {
    let mut world = World::named(&["alice"]);
    let connector = Connector::new(&mut world, identity("mallory", 2), "mallory");
    assert_eq!(end(&world), DownCause::Version);
    let reason = connector.machine.close_reason().unwrap();
    assert_eq!(reason.code().map(|code| code.0), Some(530));
    assert!(reason.to_string().contains("version"), "{reason}");
}

#[test]
fn names_that_are_none_are_refused() {
    for long in ["x".repeat(5000), "a\0b".into(), String::new()] {
        let mut world = World::named(&["alice"]);
        let _connector = Connector::new(&mut world, identity(&long, 1), "mallory");
        assert_eq!(end(&world), DownCause::Secret, "the login is another's");
    }
    let mut world = World::named(&["alice"]);
    let long = "x".repeat(200);
    let _connector = Connector::new(&mut world, identity(&long, 1), &long);
    assert_eq!(end(&world), DownCause::NotAPeer);
}

#[test]
fn a_login_under_the_name_of_another_is_refused() {
    let mut world = World::named(&["alice"]);
    let _connector = Connector::new(&mut world, identity("bob", 1), "mallory");
    assert_eq!(end(&world), DownCause::Secret);
}

#[test]
fn messages_before_the_consumer_are_refused() {
    for selects in [false, true] {
        let mut world = World::named(&["alice"]);
        let mut connector = Connector::new(&mut world, identity("mallory", 1), "mallory");
        connector.machine.open_channel().unwrap();
        connector.exchange(&mut world);
        if selects {
            connector
                .channel(1)
                .call(&confirm::Select::default())
                .unwrap();
        }
        connector.publish(&with_id(1), "early");
        connector.exchange(&mut world);
        assert_eq!(end(&world), broken(503));
        assert_eq!(world.nodes[0].bodies(), [""; 0]);
    }
}

#[test]
fn a_consumer_without_acknowledged_publishes_or_of_another_queue_is_refused() {
    let wrong = [
        basic::Consume {
            queue: short("q"),
            ..consume()
        },
        basic::Consume {
            no_ack: true,
            ..consume()
        },
        consume(),
    ];
    for (consume, selects) in wrong.into_iter().zip([true, true, false]) {
        let mut world = World::named(&["alice"]);
        let mut connector = Connector::new(&mut world, identity("mallory", 1), "mallory");
        connector.machine.open_channel().unwrap();
        connector.machine.open_channel().unwrap();
        connector.exchange(&mut world);
        if selects {
            connector
                .channel(1)
                .call(&confirm::Select::default())
                .unwrap();
        }
        connector.channel(2).consume(consume).unwrap();
        connector.exchange(&mut world);
        assert_eq!(end(&world), broken(503));
    }
}

#[test]
fn methods_of_a_broker_are_not_implemented() {
    let mut world = World::named(&["alice"]);
    let mut connector = Connector::up(&mut world);
    let declare = queue::Declare {
        queue: short("peer.inbox"),
        ..queue::Declare::default()
    };
    connector.channel(1).call(&declare).unwrap();
    connector.exchange(&mut world);
    assert_eq!(end(&world), broken(540));
}

#[test]
fn a_third_channel_and_the_end_of_one_end_the_link() {
    let mut world = World::named(&["alice"]);
    let mut connector = Connector::up(&mut world);
    assert!(
        connector.machine.open_channel().is_err(),
        "no more were agreed on"
    );
    connector
        .channel(2)
        .close(amqp_core::protocol::ReplyCode::SUCCESS, "")
        .unwrap();
    connector.exchange(&mut world);
    assert!(matches!(
        end(&world),
        DownCause::ByPeer | DownCause::Protocol { .. }
    ));
}

#[test]
fn messages_without_a_proper_id_are_refused() {
    let wrong = [
        Properties::default(),
        Properties {
            message_id: Some(short("1")),
            ..Properties::default()
        },
        Properties {
            message_id: Some(short(&"X".repeat(32))),
            ..Properties::default()
        },
    ];
    for properties in wrong {
        let mut world = World::named(&["alice"]);
        let mut connector = Connector::up(&mut world);
        connector.publish(&properties, "body");
        connector.exchange(&mut world);
        assert_eq!(end(&world), broken(502));
    }
}

#[test]
fn a_peer_that_exceeds_the_window_ends_the_link() {
    let small = Limits::default().window(5);
    let bytes = Limits::default().window_bytes(10);
    for (limits, body) in [(small, "1"), (bytes, "12")] {
        let mut world = World::new([config("alice").limits(limits)]);
        world.nodes[0].application = Application::Keeps;
        let mut connector = Connector::up(&mut world);
        for number in 0..5 {
            connector.publish(&with_id(number), body);
        }
        connector.exchange(&mut world);
        assert_eq!(world.links_up(0), 1);
        connector.publish(&with_id(5), body);
        connector.exchange(&mut world);
        assert_eq!(end(&world), broken(506));
        assert_eq!(world.nodes[0].bodies().len(), 5);
    }
}

#[test]
fn unaccepted_messages_of_many_links_are_bounded() {
    let limits = Limits::default().window(5);
    let mut world = World::new([config("alice").limits(limits)]);
    world.nodes[0].application = Application::Keeps;
    for round in 0..10 {
        let mut connector = Connector::up(&mut world);
        for number in 0..5 {
            connector.publish(&with_id(round * 5 + number), "body");
        }
        connector.exchange(&mut world);
        let now = world.now;
        world.nodes[0].machine.remove(connector.link, now);
    }
    assert_eq!(world.nodes[0].bodies().len(), 10);
}

#[test]
fn the_same_repeat_again_and_again_costs_no_memory() {
    let limits = Limits::default().window(5);
    let mut world = World::new([config("alice").limits(limits)]);
    let mut connector = Connector::up(&mut world);
    let mut repeat = with_id(1);
    repeat.headers = Some(FieldTable::new().with("x-peer-repeat", true));
    for _ in 0..100 {
        for id in 1..=3 {
            repeat.message_id = with_id(id).message_id;
            connector.publish(&repeat, "body");
        }
        connector.exchange(&mut world);
    }
    assert_eq!(world.links_up(0), 1);
    assert_eq!(world.nodes[0].bodies().len(), 3);
}

#[test]
fn a_message_over_the_limit_is_refused_at_the_sender() {
    let limits = Limits::default().body(1000);
    let mut world = World::new([config("alice"), config("bob").limits(limits.clone())]);
    let now = world.now;
    let large = || Message::new("x".repeat(1001));
    // Without a link, the limit of the receiver is not known.
    world.nodes[0].try_send(now, "bob", large()).unwrap();
    world.nodes[0].send(now, "bob", "small");
    world.connect(0, 1);
    world.run();
    assert_eq!(world.nodes[0].dropped()[0].reason, DropReason::TooLarge);
    assert_eq!(world.nodes[1].bodies(), ["small"]);
    let (len, limit) = (1001, 1000);
    let refused = world.nodes[0].try_send(now, "bob", large());
    assert_eq!(refused, Err(SendError::TooLarge { len, limit }));
    let refused = world.nodes[1].try_send(now, "alice", large());
    assert_eq!(refused, Err(SendError::TooLarge { len, limit }));
    let headers = FieldTable::new().with("a", "x".repeat(8000));
    let refused = world.nodes[0].try_send(now, "bob", Message::new("").headers(headers));
    assert!(matches!(
        refused,
        Err(SendError::TooLarge { limit: 8000, .. })
    ));
    // Properties of the largest size arrive.
    let headers = FieldTable::new().with("a", "x".repeat(7900));
    let message = Message::new("")
        .headers(headers)
        .ttl(crate::rig::seconds(1));
    world.nodes[0].try_send(now, "bob", message).unwrap();
    world.run();
    assert_eq!(world.nodes[1].bodies(), ["small", ""]);
}

#[test]
fn a_body_over_the_limit_from_a_foreign_peer_ends_the_link() {
    let limits = Limits::default().body(10);
    let mut world = World::new([config("alice").limits(limits)]);
    let mut connector = Connector::up(&mut world);
    connector.publish(&with_id(1), "eleven byte");
    connector.exchange(&mut world);
    assert_eq!(end(&world), broken(311));
}

#[test]
fn a_peer_that_never_acknowledges_gets_no_more_than_its_window() {
    let mut world = World::named(&["alice"]);
    let mut properties = identity("mallory", 1);
    properties.insert(short("peer.window"), 3_i64);
    let mut connector = Connector::new(&mut world, properties, "mallory");
    for _ in 0..2 {
        connector.machine.open_channel().unwrap();
    }
    connector.exchange(&mut world);
    connector
        .channel(1)
        .call(&confirm::Select::default())
        .unwrap();
    connector.channel(2).consume(consume()).unwrap();
    let now = world.now;
    for number in 0..10 {
        world.nodes[0].send(now, "mallory", &number.to_string());
    }
    connector.exchange(&mut world);
    let delivered = |connector: &Connector| {
        let delivered = |it: &&ClientEvent| matches!(it, ClientEvent::Delivered(_));
        connector.events.iter().filter(delivered).count()
    };
    assert_eq!(delivered(&connector), 3);
    connector.channel(2).ack(amqp_core::Tags::All).unwrap();
    connector.exchange(&mut world);
    assert_eq!(delivered(&connector), 6);
    let outbox = world.nodes[0].machine.outbox(&name("mallory"));
    assert_eq!((outbox.messages, outbox.in_flight), (7, 3));
}

#[test]
fn a_connector_that_probes_is_answered() {
    let mut world = World::named(&["alice"]);
    let mut connector = Connector::up(&mut world);
    let flow = channel::Flow { active: true };
    connector.channel(2).call(&flow).unwrap();
    connector.exchange(&mut world);
    assert_eq!(world.links_up(0), 1);
    let answered = connector.events.iter().any(|event| {
        matches!(event, ClientEvent::Reply { reply, .. } if reply.name() == "channel.flow-ok")
    });
    assert!(answered);
}

#[test]
fn any_bytes_end_a_link_and_nothing_else() {
    let mut random = 1_u64;
    let mut next = || {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        random
    };
    for _ in 0..300 {
        let mut world = World::named(&["alice"]);
        let now = world.now;
        let machine = &mut world.nodes[0].machine;
        let is_listener = next() % 2 == 0;
        let link = if is_listener {
            machine.accept(now).unwrap()
        } else {
            machine.dial(now).unwrap()
        };
        let mut input = BytesMut::new();
        if is_listener && next() % 2 == 0 {
            input.extend_from_slice(b"AMQP\0\0\x09\x01");
        }
        for _ in 0..20 {
            let len = next() % 40;
            input.extend((0..len).map(|_| (next() & 0xff) as u8));
            machine.handle_input(link, now, &mut input);
            machine.poll_transmit(link, now, &mut Transmit::new());
        }
        world.run();
        let later = now + crate::rig::seconds(30);
        let machine = &mut world.nodes[0].machine;
        machine.handle_link_timeout(link, later);
        machine.poll_transmit(link, later, &mut Transmit::new());
        let events = world.nodes[0].turn_events(later);
        assert!(events.iter().all(|it| matches!(it, Event::Refused(_))));
        assert_eq!(events.len(), 1);
    }
}

#[test]
fn unaccepted_messages_of_many_senders_are_bounded_together() {
    let limits = Limits::default().unaccepted_total(10_000);
    let mut world = World::new([
        config("alice").limits(limits),
        config("bob"),
        config("jack"),
    ]);
    world.nodes[0].application = Application::Keeps;
    world.connect(1, 0);
    world.connect(2, 0);
    world.run();
    let now = world.now;
    for from in [1, 2] {
        for number in 0..6 {
            world.nodes[from].send(
                now,
                "alice",
                &format!("{from} {number} {}", "x".repeat(1000)),
            );
        }
    }
    world.run();
    assert_eq!(world.links_up(0), 1);
    assert_eq!(world.nodes[0].downs()[0].cause, broken(506));
    let before = world.nodes[0].bodies().len();
    assert!((6..12).contains(&before), "{before}");
    world.accept_kept(0);
    for from in [1, 2] {
        if world.links_up(from) == 0 {
            world.connect(from, 0);
        }
    }
    world.run();
    assert_eq!(world.nodes[0].bodies().len(), 12);
}

/// The frame of an acknowledgement on the channel of the listener's messages.
fn ack_frame(tag: u64, multiple: bool) -> BytesMut {
    let mut frame = BytesMut::from(&[1, 0, 2, 0, 0, 0, 13, 0, 60, 0, 80][..]);
    frame.extend_from_slice(&tag.to_be_bytes());
    frame.extend_from_slice(&[u8::from(multiple), 0xce]);
    frame
}

#[test]
fn acknowledgements_of_tags_that_are_not_outstanding_end_the_link() {
    let unknown = [(2, false), (2, true), (0, false), (u64::MAX, true)];
    for (tag, multiple) in unknown {
        let mut world = World::named(&["alice"]);
        let mut connector = Connector::up(&mut world);
        let now = world.now;
        world.nodes[0].send(now, "mallory", "one");
        connector.exchange(&mut world);
        let mut ack = ack_frame(tag, multiple);
        let machine = &mut world.nodes[0].machine;
        machine.handle_input(connector.link, now, &mut ack);
        world.run();
        assert_eq!(end(&world), broken(406), "{tag} {multiple}");
        assert_eq!(world.nodes[0].machine.outbox(&name("mallory")).messages, 1);
    }
}

#[test]
fn an_acknowledgement_that_comes_twice_ends_the_link_and_drops_nothing() {
    let mut world = World::named(&["alice"]);
    let mut connector = Connector::up(&mut world);
    let now = world.now;
    world.nodes[0].send(now, "mallory", "one");
    world.nodes[0].send(now, "mallory", "two");
    connector.exchange(&mut world);
    let machine = &mut world.nodes[0].machine;
    for _ in 0..2 {
        machine.handle_input(connector.link, now, &mut ack_frame(1, false));
    }
    world.run();
    assert_eq!(end(&world), broken(406));
    assert_eq!(world.nodes[0].machine.outbox(&name("mallory")).messages, 1);
    // All of none is nothing.
    let mut world = World::named(&["alice"]);
    let connector = Connector::up(&mut world);
    let machine = &mut world.nodes[0].machine;
    machine.handle_input(connector.link, now, &mut ack_frame(0, true));
    world.run();
    assert_eq!(world.links_up(0), 1);
}
