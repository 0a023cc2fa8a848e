//! Channels that the server closes while the connection lives.

use super::*;
use crate::{CloseCause, protocol::ReplyCode, recovery::Mode};

/// The server closes a channel.
fn close(rig: &mut Rig, id: ChannelId) {
    send_close(rig, id);
    rig.pump();
}

fn send_close(rig: &mut Rig, id: ChannelId) {
    let of_server = rig.broker.channels[&id.number()];
    let mut channel = rig.pair.server_channel(of_server);
    channel
        .close(
            ReplyCode::PRECONDITION_FAILED,
            "PRECONDITION_FAILED - x",
            None,
        )
        .unwrap();
    rig.broker.channel_ended(id.number());
}

fn second(rig: &Rig) -> ChannelId {
    let ids = rig.recovery.topology().channels().count();
    assert_eq!(ids, 2);
    let lost = rig.changes.iter().find_map(|it| match it.event {
        RecoveryEvent::ChannelLost { channel, .. } => Some(channel),
        _ => None,
    });
    lost.unwrap()
}

#[test]
fn a_channel_is_reopened_with_its_consumers() {
    let mut rig = Rig::with_topology(Policy::new(1));
    rig.broker.log.clear();
    let id = rig.channels[1];
    close(&mut rig, id);
    rig.recover();
    assert_eq!(second(&rig), id);
    assert_eq!(
        rig.broker.log,
        [
            "2 channel.open",
            "2 confirm.select",
            "2 basic.qos 10 false",
            "2 basic.consume jobs ctag-0",
            "2 basic.qos 20 false",
            "2 basic.consume logs ctag-1",
        ]
    );
    assert_eq!(rig.events, [], "the host sees nothing of it");
    assert!(rig.recovery.is_channel_recovered(id));
    let last = rig.changes.last().unwrap();
    assert!(
        matches!(&last.event, RecoveryEvent::ChannelRecovered { channel, report } if *channel == id && report.steps == 6),
        "{last}"
    );
}

#[test]
fn an_auto_delete_queue_that_went_with_the_channel_is_back_with_its_bindings() {
    let mut rig = Rig::open(Policy::new(1));
    let (keeper, id) = (rig.open_channel(), rig.open_channel());
    let auto_delete = exchange::Declare {
        auto_delete: true,
        ..exchange_named("news", "fanout")
    };
    rig.call(keeper, &auto_delete);
    rig.call(
        keeper,
        &queue::Declare {
            auto_delete: true,
            ..queue_named("own")
        },
    );
    rig.call(keeper, &bind("own", "news", ""));
    rig.call(keeper, &queue_named("jobs"));
    rig.consume(id, "own");
    rig.consume(keeper, "jobs");
    let (bindings, consumers) = (rig.broker.bindings.clone(), rig.consumers());
    close(&mut rig, id);
    rig.recover();
    assert_eq!(rig.broker.bindings, bindings);
    assert_eq!(rig.consumers(), consumers);
    assert!(rig.broker.exchanges.contains_key(&name("news")));
}

#[test]
fn a_channel_that_is_closed_again_and_again_is_reopened_ever_later() {
    let mut rig = Rig::with_topology(Policy::new(1));
    let id = rig.channels[1];
    let start = rig.pair.now;
    for _ in 0..10 {
        close(&mut rig, id);
        rig.recover();
    }
    let elapsed = rig.pair.now - start;
    assert!(
        elapsed > 40 * SECOND && elapsed < 300 * SECOND,
        "{elapsed:?}"
    );
    assert_eq!(rig.consumers().len(), 2);
}

#[test]
fn the_delay_before_a_channel_is_reopened_is_no_part_of_its_life() {
    let mut rig = Rig::with_topology(Policy::new(1));
    let (id, start, life) = (rig.channels[1], rig.pair.now, 25 * SECOND);
    for _ in 0..10 {
        close(&mut rig, id);
        rig.recover();
        rig.pair.now = rig.pair.now + life;
    }
    let waited = rig.pair.now - start - 10 * life;
    assert!(waited > 40 * SECOND, "{waited:?}");
}

#[test]
fn a_hundred_channels_lost_in_one_read_are_each_reported() {
    let mut rig = Rig::open(Policy::new(1));
    let ids: Vec<_> = (0..100).map(|_| rig.open_channel()).collect();
    for at_once in [true, false] {
        rig.changes.clear();
        for id in &ids {
            send_close(&mut rig, *id);
            if !at_once {
                rig.pair.exchange();
            }
        }
        rig.pump();
        rig.recover();
        let count = |wanted: fn(&RecoveryEvent) -> Option<ChannelId>| {
            let mut found: Vec<_> = rig
                .changes
                .iter()
                .filter_map(|it| wanted(&it.event))
                .collect();
            found.sort_unstable();
            found == ids
        };
        assert!(count(|event| match event {
            RecoveryEvent::ChannelLost { channel, .. } => Some(*channel),
            _ => None,
        }));
        assert!(count(|event| match event {
            RecoveryEvent::ChannelRecovered { channel, .. } => Some(*channel),
            _ => None,
        }));
        rig.pair.now = rig.pair.now + 60 * SECOND;
    }
}

#[test]
fn events_that_are_not_taken_are_bounded_and_end_with_the_last_state() {
    let mut rig = Rig::open(Policy::new(1));
    let id = rig.open_channel();
    rig.call(id, &unnamed());
    let first = generated(&rig);
    let mut events = 0;
    for _ in 0..300 {
        let (now, client) = (rig.pair.now, &mut rig.pair.client);
        client.handle_eof(now);
        while let Some(event) = client.poll_event() {
            rig.recovery.handle_event(now, client, &event);
        }
        rig.broker.connection_ended();
        let Step::Wait(at) = rig.recovery.poll_step(now) else {
            panic!("no delay");
        };
        rig.pair.now = at;
        let _connect = rig.recovery.poll_step(at);
        rig.connect();
        while rig.pair.client.has_transmit() {
            rig.pair.exchange();
            for event in rig.pair.take_server_events() {
                rig.broker.handle(&mut rig.pair.server, event);
            }
            rig.pair.exchange();
            for event in rig.pair.take_client_events() {
                let client = &mut rig.pair.client;
                rig.recovery.handle_event(at, client, &event);
            }
        }
        assert!(rig.recovery.is_recovered());
    }
    let mut last = None;
    let mut renamed = None;
    while let Some(change) = rig.recovery.poll_event() {
        events += 1;
        if let RecoveryEvent::QueueRenamed { from, to } = &change.event {
            renamed.get_or_insert_with(|| from.clone());
            last = Some(to.clone());
        }
    }
    assert!(events <= 64, "{events}");
    assert_eq!((renamed, last), (Some(first), Some(generated(&rig))));
}

/// An auto-delete queue that the server names.
fn own() -> queue::Declare {
    queue::Declare {
        auto_delete: true,
        ..unnamed()
    }
}

#[test]
fn a_channel_that_is_lost_while_that_of_the_entities_closes_is_restored() {
    let mut rig = Rig::open(Policy::new(1));
    let ids = [rig.open_channel(), rig.open_channel()];
    for id in ids {
        rig.call(id, &own());
        rig.consume(id, "");
    }
    send_close(&mut rig, ids[0]);
    rig.pump_until_close();
    send_close(&mut rig, ids[1]);
    rig.recover();
    assert_eq!(rig.consumers().len(), 2);
    assert_eq!(rig.broker.queues.len(), 2);
    assert!(ids.iter().all(|id| rig.recovery.is_channel_recovered(*id)));
}

#[test]
fn a_queue_that_another_channel_consumes_is_not_declared_again() {
    let mut rig = Rig::open(Policy::new(1));
    let ids = [rig.open_channel(), rig.open_channel()];
    rig.call(ids[0], &exchange_named("work", "topic"));
    rig.call(ids[0], &own());
    let queue = generated(&rig);
    rig.call(ids[0], &bind(&queue, "work", "a"));
    for id in ids {
        rig.consume(id, &queue);
    }
    let (bindings, consumers) = (rig.broker.bindings.clone(), rig.consumers());
    close(&mut rig, ids[1]);
    rig.recover();
    assert_eq!(rig.broker.bindings, bindings);
    assert_eq!(rig.consumers(), consumers);
    // With the last one it is gone.
    for id in ids {
        send_close(&mut rig, id);
    }
    rig.recover();
    assert_ne!(generated(&rig), queue);
    assert_eq!(rig.broker.bindings.len(), 1);
    assert_eq!(rig.consumers().len(), 2);
    assert_eq!(rig.failures_of_channels(), [""; 0]);
}

#[test]
fn a_number_that_the_host_takes_is_not_that_of_the_entities() {
    let now = Instant::ORIGIN + 1000 * SECOND;
    let recovery = Recovery::new(Policy::new(1), now);
    let mut rig = Rig::open_configured(recovery, config().channel_max(3));
    let (id, _) = (rig.open_channel(), rig.open_channel());
    rig.call(id, &own());
    rig.consume(id, "");
    // The channel of the entities is closed, and opened again later.
    rig.broker.closes = alloc::vec![("queue.declare", ReplyCode::INTERNAL_ERROR)];
    close(&mut rig, id);
    let opening = rig.recovery.open_channel(&mut rig.pair.client);
    assert_eq!(opening.unwrap().0.number(), 3);
    rig.recover();
    assert_eq!(rig.consumers().len(), 1);
    assert!(rig.recovery.is_channel_recovered(id));
    assert_eq!(rig.failures_of_channels(), [""; 0]);
}

#[test]
fn a_close_of_the_entities_without_an_answer_leaves_no_channel_waiting() {
    let now = Instant::ORIGIN + 1000 * SECOND;
    let recovery = Recovery::new(Policy::new(1), now);
    // They use the channel that is restored.
    let mut rig = Rig::open_configured(recovery, config().channel_max(2));
    let (id, _) = (rig.open_channel(), rig.open_channel());
    rig.call(id, &own());
    rig.consume(id, "");
    send_close(&mut rig, id);
    rig.pump_until_close();
    rig.pair.to_server.clear();
    let start = rig.pair.now;
    rig.recover();
    while rig.pair.now - start < 120 * SECOND {
        rig.pass_time();
        rig.pump();
    }
    let ended = rig
        .changes
        .iter()
        .any(|it| matches!(it.event, RecoveryEvent::ChannelEnded { channel, .. } if channel == id));
    assert!(ended, "{:#?}", rig.changes);
}

#[test]
fn a_connection_that_is_lost_meanwhile_restores_everything() {
    let mut rig = Rig::with_topology(Policy::new(1));
    let id = rig.channels[1];
    let consumers = rig.consumers();
    rig.broker.cut_after = Some(rig.broker.log.len() + 3);
    close(&mut rig, id);
    assert!(!rig.recovery.is_recovered());
    rig.recover();
    assert_eq!(rig.consumers(), consumers);
}

#[test]
fn by_policy_a_channel_stays_closed() {
    let mut rig = Rig::with_topology(Policy::new(1).reopen_channels(false));
    let id = rig.channels[1];
    close(&mut rig, id);
    let [Event::ChannelClosed { channel, reason }] = &rig.events[..] else {
        panic!("{:?}", rig.events);
    };
    assert_eq!(*channel, id);
    assert!(matches!(reason.cause(), CloseCause::ByPeer(_)));
    rig.events.clear();
    assert!(rig.recovery.topology().channel(2).is_none());
    rig.lose();
    rig.recover();
    assert_eq!(rig.consumers(), [""; 0]);
}

#[test]
fn a_request_that_the_channel_was_closed_for_fails_and_is_not_recorded() {
    let mut rig = Rig::with_topology(Policy::new(1));
    let id = rig.channels[1];
    let before = rig.recovery.topology().clone();
    rig.send(id, &bind("jobs", "missing", ""));
    rig.pump();
    let failed = rig.events.pop();
    assert!(matches!(failed, Some(Event::Failed { .. })), "{failed:?}");
    rig.recover();
    assert_eq!(rig.recovery.topology(), &before);
    assert_eq!(rig.consumers().len(), 2);
}

#[test]
fn a_channel_or_consumer_that_is_forgotten_meanwhile_does_not_come_back() {
    let mut rig = Rig::with_topology(Policy::new(1));
    let id = rig.channels[1];
    rig.lose();
    let consumers = rig.recovery.topology().channel(2).unwrap().consumers();
    let (first, _) = consumers.take(1).next().unwrap();
    rig.recovery.forget_consumer(id, first);
    rig.recover();
    assert_eq!(rig.consumers(), ["2 ctag-1 logs"]);
    rig.lose();
    rig.recovery.forget_channel(id);
    rig.recover();
    assert_eq!(rig.consumers(), [""; 0]);
    let opens = rig
        .broker
        .log
        .iter()
        .filter(|it| it.ends_with("channel.open"));
    assert_eq!(opens.count(), 2);
}

#[test]
fn a_channel_that_is_forgotten_while_it_is_reopened_is_closed() {
    let steps = {
        let mut rig = Rig::with_topology(Policy::new(1));
        rig.lose();
        rig.recover();
        rig.broker.log.len()
    };
    for after in 0..steps {
        let mut rig = Rig::with_topology(Policy::new(1));
        let id = rig.channels[1];
        rig.lose();
        while let Step::Wait(at) = rig.recovery.poll_step(rig.pair.now) {
            rig.pair.now = at;
        }
        rig.connect();
        while rig.broker.log.len() < after {
            rig.pump_once();
        }
        rig.recovery.forget_channel(id);
        rig.recover();
        assert!(rig.recovery.is_recovered(), "{after}");
        assert!(rig.recovery.topology().channel(2).is_none());
        assert_eq!(rig.pair.client.channel_count(), 1, "{after}");
        assert_eq!(rig.consumers(), [""; 0], "{after}");
    }
}

#[test]
fn a_consumer_that_is_forgotten_while_it_is_started_is_cancelled() {
    let steps = {
        let mut rig = Rig::with_topology(Policy::new(1));
        rig.lose();
        rig.recover();
        rig.broker.log.len()
    };
    for after in 0..steps {
        let mut rig = Rig::with_topology(Policy::new(1));
        let id = rig.channels[1];
        rig.lose();
        let consumers = rig.recovery.topology().channel(2).unwrap().consumers();
        let (first, _) = consumers.take(1).next().unwrap();
        while let Step::Wait(at) = rig.recovery.poll_step(rig.pair.now) {
            rig.pair.now = at;
        }
        rig.connect();
        while rig.broker.log.len() < after {
            rig.pump_once();
        }
        let starting = rig.recovery.forget_consumer(id, first);
        if !starting && let Some(mut channel) = rig.pair.client.channel(id) {
            channel.abandon_consumer(&name("ctag-0"), first);
        }
        rig.recover();
        assert!(rig.recovery.is_recovered(), "{after}");
        let channel = rig.pair.client.channel(id).unwrap();
        assert!(!channel.has_consumer(&name("ctag-0")), "{after}");
        assert!(channel.has_consumer(&name("ctag-1")), "{after}");
    }
}

#[test]
fn a_mode_without_consumers_ends_them_with_their_channel() {
    let mut rig = Rig::with_topology(Policy::new(1).mode(Mode::ConnectionOnly));
    let id = rig.channels[1];
    close(&mut rig, id);
    rig.recover();
    let ended = rig.changes.iter().filter(
        |it| matches!(it.event, RecoveryEvent::ConsumerEnded { channel, .. } if channel == id),
    );
    assert_eq!(ended.count(), 2);
    assert!(rig.recovery.is_channel_recovered(id));
    assert_eq!(rig.consumers(), [""; 0]);
}

#[test]
fn a_new_channel_takes_no_number_of_one_that_waits_to_be_reopened() {
    let mut rig = Rig::with_topology(Policy::new(1));
    let id = rig.channels[1];
    for _ in 0..2 {
        close(&mut rig, id);
        rig.pump();
    }
    assert!(rig.pair.client.channel(id).is_none(), "it waits");
    let before = rig.recovery.channel_count(&rig.pair.client);
    assert_eq!(before, rig.channels.len(), "each counts once");
    for opened in 1..50 {
        let opening = rig.recovery.open_channel(&mut rig.pair.client);
        assert_ne!(opening.unwrap().0.number(), id.number());
        let count = rig.recovery.channel_count(&rig.pair.client);
        assert_eq!(count, before + opened);
    }
}
