//! Peers that try to make the machine loop or grow, and clocks that jump.

use std::time::Duration;

use amqp_core::{
    Instant,
    wire::{FieldTable, FieldValue},
};
use amqp_peer::{DownCause, DropReason, Limits, Message, SendError};

use crate::{
    foreign::{Connector, broken, end, identity, short, with_id},
    rig::{World, config, name},
};

/// The size of all that a machine keeps, in characters.
fn size(world: &World) -> usize {
    format!("{:?}", world.nodes[0].machine).len()
}

/// Repeats accepted messages again and again, but not the first one. Returns the sizes of the
/// machine early and late, and the number of acceptances that are stored.
fn repeat(is_persistent: bool, stores: bool) -> (usize, usize, usize) {
    let limits = Limits::default().window(50);
    let mut world = World::new([config("alice").limits(limits)]);
    let mut connector = Connector::up(&mut world);
    let mut sent = |world: &mut World, id: u64, is_repeated: bool| {
        let mut message = with_id(id);
        message.delivery_mode = is_persistent.then_some(2);
        if is_repeated {
            message.headers = Some(FieldTable::new().with("x-peer-repeat", true));
        }
        connector.publish(&message, "body");
        if id == 3 {
            connector.exchange(world);
        }
    };
    for id in [0, 1, 2, 3] {
        sent(&mut world, id, false);
    }
    world.nodes[0].stores = stores;
    let mut early = 0;
    for round in 0..2000 {
        for id in [1, 2, 3] {
            sent(&mut world, id, true);
        }
        if round == 300 {
            early = size(&world);
        }
    }
    assert_eq!(world.links_up(0), 1);
    assert_eq!(world.nodes[0].bodies().len(), 4);
    let batches = world.nodes[0].batches.iter().map(|it| it.changes.len());
    let unstored: usize = batches.sum();
    let stored = world.nodes[0]
        .disk
        .0
        .accepted
        .values()
        .map(Vec::len)
        .sum::<usize>();
    (early, size(&world), stored + unstored)
}

#[test]
fn repeats_of_accepted_messages_grow_neither_the_memory_nor_the_storage() {
    for (is_persistent, stores) in [(false, true), (true, true), (true, false)] {
        let (early, late, stored) = repeat(is_persistent, stores);
        assert!(
            late / 2 < early,
            "{is_persistent} {stores}: {early} to {late}"
        );
        assert!(stored <= 600, "{is_persistent} {stores}: {stored}");
    }
}

#[test]
fn a_clock_that_jumps_to_its_end_neither_loops_nor_expires_what_lives_for_ever() {
    let mut world = World::named(&["alice"]);
    let now = world.now;
    for ttl in [Duration::MAX, Duration::from_secs(3600)] {
        let message = Message::new("body").ttl(ttl);
        world.nodes[0].try_send(now, "bob", message).unwrap();
    }
    let end = Instant::from_nanos(u64::MAX);
    world.nodes[0].machine.handle_timeout(end);
    world.nodes[0].turn_events(end);
    assert_eq!(world.nodes[0].machine.outbox(&name("bob")).messages, 1);
    assert_eq!(world.nodes[0].machine.poll_timeout(), None);
    world.nodes[0].machine.forget(&name("bob"), end);
    let events = world.nodes[0].turn_events(end);
    assert!(matches!(
        &events[..],
        [amqp_peer::machine::Event::Dropped(dropped)] if dropped.reason == DropReason::Removed
    ));
}

#[test]
fn peers_that_come_and_go_leave_nothing_behind() {
    let limits = Limits::default().senders(5);
    let mut world = World::new([config("alice").limits(limits)]);
    let mut sizes = Vec::new();
    for round in 0..600 {
        let peer = format!("peer {round:05}");
        let identity = identity(&peer, 1);
        let mut connector = Connector::new(&mut world, identity, &peer);
        connector.join(&mut world);
        connector.publish(&with_id(round), "body");
        let now = world.now;
        world.nodes[0].send(now, &peer, "to it");
        connector.exchange(&mut world);
        world.nodes[0].machine.remove(connector.link, now);
        world.nodes[0].machine.forget(&name(&peer), now);
        world.run();
        world.nodes[0].events.clear();
        if round % 100 == 50 {
            sizes.push(size(&world));
        }
    }
    assert_eq!(world.nodes[0].bodies().len(), 600);
    let (first, last) = (sizes[0], sizes[5]);
    assert!(last < first + first / 4, "{sizes:?}");
}

#[test]
fn floods_of_flow_and_of_channels_are_bounded() {
    // channel.flow on channel 2, and channel.open of channel 2, both without a look at the answers.
    let flow = [1, 0, 2, 0, 0, 0, 5, 0, 20, 0, 20, 1, 0xce];
    let open = [1, 0, 2, 0, 0, 0, 5, 0, 20, 0, 10, 0, 0xce];
    for frame in [flow, open] {
        let mut world = World::named(&["alice"]);
        let connector = Connector::up(&mut world);
        let now = world.now;
        let mut input = bytes::BytesMut::new();
        for _ in 0..100_000 {
            input.extend_from_slice(&frame);
            world.nodes[0]
                .machine
                .handle_input(connector.link, now, &mut input);
        }
        let size = size(&world);
        assert!(size < 500_000, "{size}");
        let mut out = amqp_core::Transmit::new();
        let machine = &mut world.nodes[0].machine;
        let mut len = 0;
        while machine.poll_transmit(connector.link, now, &mut out) {
            len += bytes::Buf::remaining(&out);
            out = amqp_core::Transmit::new();
        }
        assert!(len < 500_000, "{len}");
    }
}

#[test]
fn a_time_to_live_that_is_none_ends_the_link_and_any_other_is_taken() {
    let headers = |value: FieldValue| FieldTable::new().with("x-peer-ttl-ms", value);
    let cases: [(FieldValue, bool); 6] = [
        (0_i64.into(), true),
        (i64::MAX.into(), true),
        ((-1_i64).into(), false),
        (i64::MIN.into(), false),
        ("1000".into(), false),
        (true.into(), false),
    ];
    for (value, is_right) in cases {
        let mut world = World::named(&["alice"]);
        let mut connector = Connector::up(&mut world);
        let mut message = with_id(1);
        message.headers = Some(headers(value.clone()));
        connector.publish(&message, "body");
        connector.exchange(&mut world);
        assert_eq!(world.links_up(0), usize::from(is_right), "{value:?}");
        if !is_right {
            assert_eq!(end(&world), broken(502));
        }
    }
}

#[test]
fn windows_and_instances_of_any_value_bring_a_link_up() {
    let long = "x".repeat(128);
    for (window, bytes) in [(0, 0), (1, i64::MAX), (i64::MAX, 1), (i64::MAX, i64::MAX)] {
        let mut world = World::named(&["alice"]);
        // As of the rig: that of the first peer itself.
        let own = 1_i64 << 32;
        let mut properties = identity(&long, 1);
        properties.insert(short("peer.window"), window);
        properties.insert(short("peer.window-bytes"), bytes);
        properties.insert(short("peer.instance"), own);
        let mut connector = Connector::new(&mut world, properties, &long);
        connector.join(&mut world);
        let now = world.now;
        for number in 0..3 {
            world.nodes[0].send(now, &long, &number.to_string());
        }
        connector.exchange(&mut world);
        let outbox = world.nodes[0].machine.outbox(&name(&long));
        let in_flight = if window > 1 && bytes > 1 { 3 } else { 1 };
        assert_eq!((outbox.messages, outbox.in_flight), (3, in_flight));
    }
    for wrong in [-1, i64::MIN] {
        let mut world = World::named(&["alice"]);
        let mut properties = identity("mallory", 1);
        properties.insert(short("peer.window"), wrong);
        let _connector = Connector::new(&mut world, properties, "mallory");
        assert_eq!(end(&world), DownCause::NotAPeer);
    }
}

#[test]
fn a_stop_at_any_moment_of_a_handshake_ends_it_and_leaves_no_link() {
    for roles in [(0, 1), (1, 0)] {
        for steps in 0..12 {
            let mut world = World::named(&["alice", "bob"]);
            let now = world.now;
            world.nodes[0].send(now, "bob", "transient");
            world.nodes[0].persist(now, "bob", "persistent");
            let pipe = world.connect(roles.0, roles.1);
            for step in 0..steps {
                world.step(pipe, step % 2);
            }
            world.nodes[0].machine.stop(now);
            world.nodes[0].machine.stop(now);
            assert!(world.nodes[0].machine.dial(now).is_err());
            world.run();
            world.advance(Duration::from_secs(60));
            for node in [0, 1] {
                assert_eq!(world.links_up(node), 0);
                let ends = world.nodes[node].downs().len() + world.nodes[node].refused().len();
                assert_eq!(ends, 1, "{roles:?} {steps} {node}");
                assert_eq!(world.nodes[node].machine.poll_timeout(), None);
            }
            let given = world.nodes[1].bodies().len();
            let kept = world.nodes[0].disk.bodies("bob").len();
            assert!(given + kept >= 1, "{roles:?} {steps}");
        }
    }
}

#[test]
fn a_storage_that_fails_for_ever_holds_back_and_grows_nothing() {
    let mut world =
        World::new(["alice", "bob"].map(|it| config(it).limits(Limits::default().window(10))));
    let now = world.now;
    for number in 0..100 {
        world.nodes[0].persist(now, "bob", &number.to_string());
    }
    world.nodes[1].stores = false;
    world.nodes[1].machine.handle_store_failed(now, "disk full");
    let mut sizes = Vec::new();
    for round in 0..100 {
        let pipe = world.connect(0, 1);
        world.run();
        assert_eq!(world.nodes[1].bodies().len(), 10);
        assert!(matches!(
            world.nodes[1].try_send(now, "alice", Message::new("").persistent()),
            Err(SendError::Storage { .. })
        ));
        world.cut(pipe);
        world.run();
        world.nodes[0].events.clear();
        world.nodes[1].events.clear();
        if round == 10 || round == 99 {
            sizes.push(format!("{:?}", world.nodes[1].machine).len());
        }
    }
    assert!(sizes[1] < sizes[0] * 2, "{sizes:?}");
    assert_eq!(
        world.nodes[1]
            .batches
            .iter()
            .map(|it| it.changes.len())
            .sum::<usize>(),
        10
    );
    world.nodes[1].stores = true;
    world.connect(0, 1);
    world.run();
    assert_eq!(world.nodes[1].bodies().len(), 100);
    assert_eq!(world.nodes[0].machine.outbox(&name("bob")).messages, 0);
}
