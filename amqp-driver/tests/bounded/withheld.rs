//! Deliveries that are not taken: those without room are withheld, and the connection is read on.
//! REG-33.

use std::time::Duration;

use amqp_driver::{
    Channel, Connection, Consumer, Error, ManualAck,
    core::{CloseCause, Limits, TimeoutReason, wire::FieldTable},
    protocol::{ReplyCode, basic},
};
use amqp_test_support::{Rig, Setup};
use bytes::Bytes;

use crate::{MIB, PATIENCE, UNDELIVERED, meter::peak_of};

/// A consumer that takes nothing, with more messages than fit, on a server that redelivers.
fn flooded(heartbeat: u16) -> (Rig, Connection, Channel, Consumer<ManualAck>) {
    let mut setup = Setup::default();
    setup.server.heartbeat = heartbeat;
    let (mut rig, connection) = Rig::open_with(setup);
    let (channel, consumer) = flood(&mut rig, &connection, 40);
    (rig, connection, channel, consumer)
}

/// A channel with a consumer that has got so many messages of a mebibyte, more than fit: all are
/// read, and the memory stays within the bound.
fn flood(rig: &mut Rig, connection: &Connection, count: usize) -> (Channel, Consumer<ManualAck>) {
    let channel = rig.channel(connection);
    let consumer = rig
        .wait(channel.consume(basic::Consume::default()))
        .unwrap();
    rig.peer().redelivers = true;
    let tag = consumer.tag().to_string();
    let body = Bytes::from(vec![7; MIB]);
    let read = rig.world().read;
    let ((), peak) = peak_of(|| {
        for _ in 0..count {
            assert!(rig.peer().deliver(channel.number(), &tag, body.clone()));
            rig.advance(PATIENCE);
        }
    });
    assert!(rig.world().read - read > (count * MIB) as u64);
    // A slice of a read buffer keeps as much again alive at most.
    assert!(peak < 2 * UNDELIVERED + 3 * MIB, "{peak}");
    assert!(
        rig.peer().requeued.is_empty(),
        "nothing travels in a circle"
    );
    (channel, consumer)
}

/// A consumer that is not polled, with more messages than fit: the connection is read on, so that
/// heartbeats, the server's silence and its end are noticed. Messages without room are requeued
/// when there is room, once, and all of them arrive.
#[test]
fn a_consumer_that_is_not_polled_stops_nothing() {
    let (mut rig, connection, channel, mut consumer) = flooded(10);
    let written = rig.world().written;
    rig.advance(Duration::from_secs(300));
    assert!(connection.is_open());
    assert!(
        rig.world().written >= written + 8 * 50,
        "heartbeats are sent"
    );
    for _ in 0..40 {
        let delivery = rig.wait(consumer.next()).unwrap().unwrap();
        assert_eq!(delivery.body.len(), MIB);
        delivery.ack().unwrap();
        rig.run();
    }
    assert_eq!(rig.peer().acked.len(), 40);
    assert!(rig.peer().outstanding.is_empty());
    let requeued = rig.peer().requeued.len();
    assert!((20..=40).contains(&requeued), "{requeued} came twice");
    // Its silence counts.
    rig.peer().mute = true;
    rig.advance(Duration::from_secs(19));
    assert!(connection.is_open());
    rig.advance(Duration::from_secs(2));
    let silent = CloseCause::TimedOut(TimeoutReason::PeerSilent);
    assert_eq!(*connection.close_reason().unwrap().cause(), silent);
    drop((consumer, channel));
}

/// The end of the connection is noticed though a consumer has more messages than fit.
#[test]
fn the_end_is_noticed_behind_a_flood() {
    let (mut rig, connection, channel, consumer) = flooded(0);
    let closed = rig.spawn({
        let connection = connection.clone();
        async move { connection.closed().await }
    });
    rig.peer().close(ReplyCode::CONNECTION_FORCED, "bye");
    rig.run();
    let reason = closed.take().expect("it was reported");
    assert_eq!(reason.code(), Some(ReplyCode::CONNECTION_FORCED));
    assert!(!connection.is_open());
    drop((consumer, channel));
}

/// An acknowledgement of all tags up to one does not include withheld ones.
#[test]
fn a_multiple_ack_spares_withheld_deliveries() {
    let (mut rig, connection, channel, mut consumer) = flooded(0);
    let mut seen = 0;
    while seen < 40 {
        let mut last = None;
        for _ in 0..4 {
            last = rig.wait(consumer.next());
            seen += 1;
        }
        last.unwrap().unwrap().acker.ack_up_to().unwrap();
        rig.run();
    }
    assert_eq!(rig.peer().acked.len(), 40);
    assert!(rig.peer().outstanding.is_empty());
    drop((consumer, channel));
    rig.finish(connection);
}

/// Order is kept when messages are withheld: later ones are withheld behind them.
#[test]
fn withheld_deliveries_keep_their_order() {
    let (mut rig, connection, channel, mut consumer) = Rig::with_consumer(64 << 10);
    rig.peer().redelivers = true;
    let tag = consumer.tag().to_string();
    let message = |number: u32| {
        let mut body = vec![0; 10_000];
        body[..4].copy_from_slice(&number.to_be_bytes());
        Bytes::from(body)
    };
    for number in 0..60 {
        assert!(rig.peer().deliver(1, &tag, message(number)));
        rig.run();
    }
    let mut seen = Vec::new();
    for number in 60..120 {
        let delivery = rig.wait(consumer.next()).unwrap().unwrap();
        let body = delivery.body.clone().into_bytes();
        seen.push(u32::from_be_bytes(body[..4].try_into().unwrap()));
        delivery.ack().unwrap();
        rig.run();
        assert!(rig.peer().deliver(1, &tag, message(number)));
        rig.run();
    }
    assert!(seen.iter().copied().eq(0..60), "{seen:?}");
    drop((consumer, channel));
    rig.finish(connection);
}

/// Delivery tags up to the highest number are withheld and requeued, in any order.
#[test]
fn the_highest_tags_are_withheld() {
    let (mut rig, connection, channel, mut consumer) = Rig::with_consumer(64 << 10);
    rig.peer().redelivers = true;
    let tag = consumer.tag().to_string();
    for (last, count) in [(0, 10), (u64::MAX - 1, 1), (1000, 1)] {
        rig.peer().set_last_tag(1, last);
        for _ in 0..count {
            assert!(rig.peer().deliver(1, &tag, vec![7; 10_000]));
            rig.advance(PATIENCE);
        }
    }
    for _ in 0..12 {
        rig.wait(consumer.next()).unwrap().unwrap().ack().unwrap();
        rig.run();
    }
    assert_eq!(rig.peer().acked.len(), 12);
    assert!(rig.peer().outstanding.is_empty());
    drop((consumer, channel));
    rig.finish(connection);
}

/// A consumer with the default bound, on a server that redelivers.
fn redelivering() -> (Rig, Connection, Channel, Consumer<ManualAck>, String) {
    let undelivered = Limits::default().undelivered;
    let (rig, connection, channel, consumer) = Rig::with_consumer(undelivered);
    rig.peer().redelivers = true;
    let tag = consumer.tag().to_string();
    (rig, connection, channel, consumer, tag)
}

/// Small messages count with all the memory that they occupy.
#[test]
fn small_messages_count() {
    let (mut rig, connection, channel, mut consumer, tag) = redelivering();
    // A message takes about 60 bytes on the wire, and four times as much in memory.
    const COUNT: usize = 150_000;
    let ((), peak) = peak_of(|| {
        for _ in 0..COUNT / 1000 {
            for _ in 0..1000 {
                assert!(rig.peer().deliver(1, &tag, "x"));
            }
            rig.advance(PATIENCE);
        }
    });
    // The server's record of unacked deliveries counts as well.
    assert!(peak < 48 * MIB, "{peak}");
    for _ in 0..COUNT {
        rig.wait(consumer.next()).unwrap().unwrap().ack().unwrap();
    }
    rig.run();
    assert!(rig.peer().outstanding.is_empty());
    assert_eq!(rig.peer().acked.len(), COUNT);
    drop((consumer, channel));
    rig.finish(connection);
}

/// Headers count as bodies do.
#[test]
fn headers_count() {
    let (mut rig, connection, channel, mut consumer, tag) = redelivering();
    let long = "h".repeat(100_000);
    let headers = FieldTable::new().with("long", long.as_str());
    let properties = basic::Properties::default().headers(headers);
    let ((), peak) = peak_of(|| {
        for _ in 0..1000 {
            rig.advance(PATIENCE);
            assert!(
                channel.is_open() && rig.peer().closed().is_none(),
                "{:?} {:?}",
                channel.close_reason(),
                rig.peer().closed()
            );
            rig.peer().deliver_with(1, &tag, &properties, "");
        }
        rig.advance(PATIENCE);
    });
    assert!(peak < 20 * MIB, "{peak}");
    drop(rig.wait(consumer.next()).unwrap().unwrap().ack());
    drop((consumer, channel));
    rig.finish(connection);
}

/// A consumer with too much unread can be ended, in good order and at once.
#[test]
fn a_flooded_consumer_can_be_ended() {
    // Dropped: everything goes back.
    let (mut rig, connection, channel, consumer) = flooded(0);
    rig.peer().redelivers = false;
    drop(consumer);
    rig.run();
    assert_eq!(rig.peer().requeued.len(), 40);
    assert!(rig.peer().outstanding.is_empty());
    rig.check_channel(&channel);
    drop(channel);
    rig.finish(connection);

    // Cancelled: kept deliveries are yielded, the rest is requeued.
    let (mut rig, connection, channel, mut consumer) = flooded(0);
    rig.peer().redelivers = false;
    rig.wait(consumer.next()).unwrap().unwrap().ack().unwrap();
    rig.wait(consumer.cancel()).unwrap();
    let mut yielded = 1;
    while let Some(delivery) = rig.wait(consumer.next()) {
        delivery.unwrap().ack().unwrap();
        yielded += 1;
    }
    rig.run();
    assert!((14..20).contains(&yielded), "{yielded}");
    assert_eq!(rig.peer().acked.len(), yielded);
    assert_eq!(rig.peer().requeued.len(), 40 - yielded);
    assert!(rig.peer().outstanding.is_empty());
    drop((consumer, channel));
    rig.finish(connection);

    // Its channel is closed.
    let (mut rig, connection, channel, mut consumer) = flooded(0);
    let first = rig.wait(consumer.next()).unwrap().unwrap();
    rig.wait(channel.close()).unwrap();
    assert!(matches!(first.ack(), Err(Error::ChannelClosed(_))));
    rig.check_usable(&connection);
    drop((consumer, channel));
    rig.finish(connection);

    // The connection is closed.
    let (mut rig, connection, channel, mut consumer) = flooded(0);
    let first = rig.wait(consumer.next()).unwrap().unwrap();
    assert_eq!(rig.wait(connection.close()), Ok(()));
    assert!(matches!(first.ack(), Err(Error::ConnectionClosed(_))));
    drop((consumer, channel));
    rig.finish(connection);

    // The server cancels it: noticed at once, and reported behind the kept deliveries.
    let (mut rig, connection, channel, mut consumer) = flooded(0);
    rig.peer().redelivers = false;
    let tag = consumer.tag().to_string();
    rig.peer().cancel(1, &tag);
    rig.run();
    let mut yielded = 0;
    let ended = loop {
        match rig.wait(consumer.next()).unwrap() {
            Ok(delivery) => delivery.ack().unwrap(),
            Err(error) => break error,
        }
        yielded += 1;
    };
    assert!((14..20).contains(&yielded), "{yielded}");
    assert!(matches!(ended, Error::ConsumerCancelled { .. }));
    rig.run();
    assert_eq!(rig.peer().requeued.len(), 40 - yielded);
    drop((consumer, channel));
    rig.finish(connection);
}

/// A task that has messages to take, and waits for something else before it takes the next, gets it,
/// though it stands behind more messages than fit.
#[test]
fn an_awaited_answer_is_read_behind_a_flood() {
    for waits_for in ["an answer", "a confirm", "room"] {
        let mut setup = Setup::default();
        setup.client.limits.unconfirmed = 1;
        let (mut rig, connection) = Rig::open_with(setup);
        let (consuming, mut consumer) = flood(&mut rig, &connection, 40);
        // Its channel is opened behind the flood as well.
        let outer = connection.clone();
        let task = rig.spawn(async move {
            let (to, none) = (basic::Publish::default(), basic::Properties::default());
            let channel = outer.open_channel().await.unwrap();
            let channel = channel.confirm_select().await.unwrap();
            for _ in 0..40 {
                let delivery = consumer.next().await.unwrap().unwrap();
                match waits_for {
                    "an answer" => drop(channel.call(basic::Qos::default()).await.unwrap()),
                    "a confirm" => {
                        let confirm = channel.publish(&to, &none, "x").await.unwrap();
                        confirm.await.unwrap();
                    }
                    _ => drop(channel.publish(&to, &none, "x").await.unwrap()),
                }
                delivery.ack().unwrap();
            }
        });
        rig.run();
        assert!(task.is_done(), "{waits_for}");
        drop(consuming);
        rig.finish(connection);
    }
}

/// Ends a consumer, and gives back the handles that are left.
type End = fn(&mut Rig, Channel, Consumer<ManualAck>) -> (Channel, Option<Consumer<ManualAck>>);

/// The number of messages that a consumer keeps beside another that fills the bound, and a third one
/// that has ended.
fn kept_beside(end: Option<End>) -> usize {
    let (mut rig, connection, channel, full) = Rig::with_consumer(64 << 10);
    let consume = |rig: &mut Rig, channel: &Channel| {
        rig.wait(channel.consume(basic::Consume::default()))
            .unwrap()
    };
    let mut consumer = consume(&mut rig, &channel);
    let other = rig.channel(&connection);
    let third = end.map(|end| {
        let third = consume(&mut rig, &other);
        end(&mut rig, other, third)
    });
    rig.run();
    for tag in [full.tag(), consumer.tag()] {
        for _ in 0..100 {
            assert!(rig.peer().deliver(channel.number(), tag, vec![0; 1000]));
        }
        rig.advance(PATIENCE);
    }
    let mut kept = 0;
    while let Some(delivery) = rig.ready(consumer.next()) {
        assert!(delivery.unwrap().is_ok());
        kept += 1;
    }
    drop((third, full, consumer, channel));
    connection.abort();
    rig.run();
    kept
}

/// The share of a consumer that has ended is that of the others, whatever ended it.
#[test]
fn the_others_get_the_share_of_a_consumer_that_has_ended() {
    let share = kept_beside(None);
    let lives: End = |_, channel, consumer| (channel, Some(consumer));
    assert!(kept_beside(Some(lives)) < share);
    let ends: [(&str, End); 3] = [
        ("dropped", |_, channel, _| (channel, None)),
        ("cancelled by the server", |rig, channel, consumer| {
            rig.peer().cancel(channel.number(), consumer.tag());
            (channel, Some(consumer))
        }),
        ("its channel closed", |rig, channel, consumer| {
            let code = ReplyCode::PRECONDITION_FAILED;
            rig.peer().close_channel(channel.number(), code, "");
            (channel, Some(consumer))
        }),
    ];
    for (name, end) in ends {
        assert_eq!(kept_beside(Some(end)), share, "{name}");
    }
}
