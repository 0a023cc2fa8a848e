//! Peers that try to make the machine loop or grow, and clocks that jump.

use std::time::Duration;

use amqp_core::{Instant, wire::FieldTable};
use amqp_peer::{DropReason, Limits, Message};

use crate::{
    foreign::{Connector, with_id},
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
            message.headers = Some(FieldTable::new().with("x-peer-repeat", true).unwrap());
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
        let identity = crate::foreign::identity(&peer, 1);
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
