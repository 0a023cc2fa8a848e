//! The fault switch.

use amqp_broker::{AcceptError, ByteFaults, Config, ConfirmFault, Direction, Gate, Impairment};
use amqp_core::{
    client::{Event, Outcome},
    protocol::ReplyCode,
};

use crate::rig::{Rig, queue, refused};

#[test]
fn connections_are_refused() {
    let mut rig = Rig::new();
    let now = rig.now;
    rig.broker.faults().refuse_connects(2);
    for _ in 0..2 {
        assert_eq!(rig.broker.accept(now), Err(AcceptError::Refused));
    }
    rig.connect();
}

#[test]
fn the_memory_alarm_is_raised() {
    let (mut rig, client, channel) = Rig::open();
    rig.declare(client, channel, &queue("q"));
    rig.broker.faults().memory_alarm(true);
    rig.exchange();
    // Only the publisher sees it.
    assert_eq!(rig.events(client), []);
    rig.publish(client, channel, "q", "1");
    assert!(matches!(&rig.events(client)[..], [Event::Blocked { .. }]));
    rig.broker.faults().memory_alarm(false);
    rig.exchange();
    assert_eq!(rig.events(client), [Event::Unblocked]);
    assert_eq!(rig.inspect("q").ready, 1);
}

#[test]
fn confirms_are_dropped_and_none_covers_them() {
    let (mut rig, client, channel) = Rig::open();
    rig.declare(client, channel, &queue("q"));
    rig.confirms(client, channel);
    rig.publish(client, channel, "q", "1");
    rig.broker.faults().confirms(ConfirmFault::DropNext(2));
    for body in ["2", "3", "4", "5"] {
        rig.publish(client, channel, "q", body);
    }
    let settled = rig.settled(client);
    let numbers: Vec<_> = settled
        .iter()
        .flat_map(|(first, last, _)| *first..=*last)
        .collect();
    assert_eq!(numbers, [1, 4, 5]);
    assert_eq!(rig.inspect("q").ready, 5);
    rig.cut(client);
    let lost = rig.settled(client);
    assert!(
        matches!(&lost[..], [(2, 3, Outcome::Unknown(_))]),
        "{lost:?}"
    );
}

#[test]
fn messages_are_not_taken() {
    let (mut rig, client, channel) = Rig::open();
    rig.declare(client, channel, &queue("q"));
    rig.confirms(client, channel);
    rig.broker.faults().confirms(ConfirmFault::NackNext(1));
    rig.publish(client, channel, "q", "1");
    rig.publish(client, channel, "q", "2");
    assert_eq!(
        rig.settled(client),
        [(1, 1, Outcome::Nacked), (2, 2, Outcome::Acked)]
    );
    assert_eq!(rig.drain(client, channel, "q"), ["2"]);
}

#[test]
fn the_dropped_confirms_follow_from_the_seed() {
    let confirmed = |seed| {
        let mut rig = Rig::with(Config::default().seed(seed));
        let client = rig.connect();
        let channel = rig.channel(client);
        rig.confirms(client, channel);
        rig.broker.faults().confirms(ConfirmFault::DropOneIn(3));
        for _ in 0..60 {
            rig.publish(client, channel, "q", "");
        }
        let settled = rig.settled(client);
        let numbers = settled.iter().flat_map(|(first, last, _)| *first..=*last);
        numbers.collect::<Vec<_>>()
    };
    assert_eq!(confirmed(1), confirmed(1));
    assert_ne!(confirmed(1), confirmed(2));
    assert!((25..55).contains(&confirmed(1).len()));
}

#[test]
fn connections_and_channels_are_closed_with_a_code() {
    let (mut rig, client, channel) = Rig::open();
    let key = rig.key(client);
    let (code, text) = (
        ReplyCode::PRECONDITION_FAILED,
        "PRECONDITION_FAILED - because",
    );
    rig.broker
        .faults()
        .close_channel(key, channel.number(), code, text);
    rig.exchange();
    assert_eq!(rig.channel_closed(client), Some(refused(406, text)));
    let (code, text) = (ReplyCode::CONNECTION_FORCED, "CONNECTION_FORCED - bye");
    rig.broker.faults().close_connection(key, code, text);
    rig.exchange();
    assert_eq!(rig.closed(client), Some(refused(320, text)));
    let client = rig.connect();
    let (key, now) = (rig.key(client), rig.now);
    rig.broker.faults().drop_connection(key, now);
    assert!(rig.broker.is_finished(key));
}

#[test]
fn bytes_of_the_next_connections_are_disturbed() {
    let mut rig = Rig::new();
    let now = rig.now;
    let crumbs = ByteFaults::both(Impairment::new().split(1));
    let before = rig.broker.accept(now).unwrap();
    rig.broker.faults().refuse_connects(1);
    rig.broker.faults().bytes_of_next(2, crumbs);
    assert!(rig.broker.poll_byte_plan().is_none());
    assert!(rig.broker.accept(now).is_err());
    for _ in 0..2 {
        let connection = rig.broker.accept(now).unwrap();
        let (key, plan) = rig.broker.poll_byte_plan().unwrap();
        assert_eq!(key, connection);
        assert_eq!(plan.gate(Direction::ToClient), Gate::Open(1));
    }
    rig.broker.accept(now).unwrap();
    assert!(rig.broker.poll_byte_plan().is_none());

    // The last word counts, also for one that is there already.
    let stall = ByteFaults::both(Impairment::new().stall_after(0));
    for faults in [stall, crumbs, ByteFaults::new()] {
        rig.broker.faults().bytes(before, faults);
    }
    let (key, plan) = rig.broker.poll_byte_plan().unwrap();
    assert!(key == before && plan.is_clear());
    assert!(rig.broker.poll_byte_plan().is_none());

    // All of the next ones, until that is taken back.
    rig.broker.faults().bytes_of_next(u64::MAX, crumbs);
    for _ in 0..10 {
        rig.broker.accept(now).unwrap();
        assert!(rig.broker.poll_byte_plan().is_some());
    }
    rig.broker.faults().bytes_of_next(0, crumbs);
    rig.broker.accept(now).unwrap();
    assert!(rig.broker.poll_byte_plan().is_none());
}

#[test]
fn a_plan_that_is_not_used_goes_with_its_connection() {
    let mut rig = Rig::new();
    let now = rig.now;
    let crumbs = ByteFaults::both(Impairment::new().split(1));
    rig.broker.faults().bytes_of_next(u64::MAX, crumbs);
    let connection = rig.broker.accept(now).unwrap();
    rig.broker.remove(connection, now);
    assert!(rig.broker.poll_byte_plan().is_none());
}

#[test]
fn a_connection_that_is_cut_at_once_has_ended() {
    let mut rig = Rig::new();
    let client = rig.connect();
    let key = rig.key(client);
    let later = ByteFaults::new().to_client(Impairment::new().cut_after(1));
    rig.broker.faults().bytes(key, later);
    assert!(!rig.broker.is_finished(key));
    let cut = ByteFaults::new().to_client(Impairment::new().cut_after(0));
    rig.broker.faults().bytes(key, cut);
    assert!(rig.broker.is_finished(key));
    let (_, plan) = rig.broker.poll_byte_plan().unwrap();
    assert!(plan.is_cut());
}
