//! Channels that the server closes while the connection lives.

use super::*;
use crate::{CloseCause, protocol::ReplyCode, recovery::Mode};

/// The server closes a channel.
fn close(rig: &mut Rig, id: ChannelId) {
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
    rig.pump();
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
    for opened in 1..50 {
        let opening = rig.recovery.open_channel(&mut rig.pair.client);
        assert_ne!(opening.unwrap().0.number(), id.number());
        let count = rig.recovery.channel_count(&rig.pair.client);
        assert_eq!(count, before + opened);
    }
}
