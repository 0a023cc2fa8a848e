//! Memory is bounded, however slow the server or the application is. REG-32, REG-33, REG-34.

mod withheld;

use std::{rc::Rc, task::Poll, time::Duration};

use amqp_driver::{
    Connection, Error, Unconfirmed,
    core::{Limits, MethodDef as _},
    protocol::{ReplyCode, basic, queue},
};
use amqp_test_support::meter;
use amqp_test_support::{Confirming, Message, Probe, Rig, Setup};
use bytes::Bytes;
use meter::peak_of;

#[global_allocator]
static COUNTING: meter::Counting = meter::Counting;

/// The bytes that an application may be given before it has taken any of them.
const UNDELIVERED: usize = 16 << 20;

/// One more read, and the overhead of the messages.
const SLACK: u64 = 256 << 10;

/// How long reading pauses for a consumer that takes nothing.
const PATIENCE: Duration = Duration::from_millis(20);

const MIB: usize = 1 << 20;

#[test]
fn a_million_publishes_into_a_transport_that_takes_nothing() {
    for confirms in [false, true] {
        let (mut rig, connection) = Rig::open();
        let channel = if confirms {
            let channel = rig.channel(&connection);
            rig.wait(channel.call(amqp_driver::protocol::confirm::Select::default()))
                .unwrap();
            channel
        } else {
            rig.channel(&connection)
        };
        rig.world().set_capacity(0);
        let to = basic::Publish::default().routing_key("q");
        let none = basic::Properties::default();
        let (accepted, peak) = peak_of(|| {
            let mut accepted = 0;
            for number in 0..1_000_000 {
                let mut publishing =
                    std::pin::pin!(channel.publish(&to, &none, "sixteen bytes...."));
                if Probe::new().poll(publishing.as_mut()).is_ready() {
                    accepted += 1;
                }
                if number % 1000 == 0 {
                    rig.poll_driver();
                }
            }
            accepted
        });
        // The bytes in the machine, and those that the driver has taken out of it.
        let limits = Limits::default();
        assert!(accepted > 100, "{accepted}");
        assert!(peak < 4 * limits.output_high, "{peak} bytes for {accepted}");
        assert!(connection.buffered() <= limits.output_high + 1000);
        // All of these are sent when there is room, and no other.
        rig.world().set_capacity(usize::MAX);
        rig.run();
        assert_eq!(rig.peer().messages().len(), accepted);
        drop(channel);
        rig.finish(connection);
    }
}

/// Publishes that wait go on when there is room, all of them, in order.
#[test]
fn publishes_that_wait_go_on() {
    let (mut rig, connection) = Rig::open();
    let channel = Rc::new(rig.channel(&connection));
    rig.world().set_capacity(0);
    let tasks: Vec<_> = (0..200_u32)
        .map(|number| {
            let channel = Rc::clone(&channel);
            rig.spawn(async move {
                let to = basic::Publish::default();
                let mut body = vec![0; 20_000];
                body[..4].copy_from_slice(&number.to_be_bytes());
                channel
                    .publish(&to, &basic::Properties::default(), body)
                    .await
            })
        })
        .collect();
    rig.run();
    let done = tasks.iter().filter(|task| task.is_done()).count();
    assert!((10..40).contains(&done), "{done}");
    rig.world().set_capacity(50_000);
    rig.run();
    assert!(tasks.iter().all(|task| task.take() == Some(Ok(()))));
    // In the order in which they came, as far as the executor polls in the order of wake-ups: the
    // rig goes round by task, so that those of one round may change places.
    let order = rig.peer().messages().into_iter();
    let order: Vec<u32> = order
        .map(|it| u32::from_be_bytes(it.body[..4].try_into().unwrap()))
        .collect();
    let mut sorted = order.clone();
    sorted.sort_unstable();
    assert!(sorted.into_iter().eq(0..200));
    let far = |(at, number): (usize, &u32)| at.abs_diff(*number as usize);
    let far = order.iter().enumerate().map(far).max().unwrap();
    assert!(far < 20, "{far}: {order:?}");
    drop(channel);
    rig.finish(connection);
}

/// Publishes that wait for room fail at once when the connection is closed, and when it ends.
#[test]
fn publishes_that_wait_fail_with_the_connection() {
    let ends: [fn(&mut Rig, &Connection); 3] = [
        |rig, connection| {
            let connection = connection.clone();
            drop(rig.spawn(async move { connection.close().await }));
        },
        |rig, _| rig.peer().close(ReplyCode::CONNECTION_FORCED, "bye"),
        |_, connection| connection.abort(),
    ];
    for end in ends {
        let (mut rig, connection, channel) = Rig::with_channel();
        let channel = Rc::new(channel);
        rig.world().set_capacity(0);
        let tasks: Vec<_> = (0..50)
            .map(|_| {
                let channel = Rc::clone(&channel);
                rig.spawn(async move {
                    let (to, none) = (basic::Publish::default(), basic::Properties::default());
                    channel.publish(&to, &none, vec![0; 20_000]).await
                })
            })
            .collect();
        rig.run();
        let waiting: Vec<_> = tasks.iter().filter(|task| !task.is_done()).collect();
        assert!(!waiting.is_empty());
        end(&mut rig, &connection);
        rig.run();
        for task in waiting {
            assert!(matches!(task.take(), Some(Err(_))), "it waits on");
        }
        drop(channel);
        connection.abort();
        rig.run();
    }
}

/// Publishes without a confirm, or with one that is not awaited, leave nothing behind.
#[test]
fn settled_publishes_leave_nothing_behind() {
    let (mut rig, connection, channel) = Rig::with_confirms();
    rig.peer().confirming = Confirming::AtOnce;
    let to = basic::Publish::default();
    let none = basic::Properties::default();
    let round = |rig: &mut Rig| {
        for _ in 0..1000 {
            let confirm = rig.wait(channel.publish(&to, &none, "x")).unwrap();
            rig.wait(confirm).unwrap();
            drop(rig.wait(channel.publish(&to, &none, "x")).unwrap());
        }
        rig.run();
        rig.peer().saw.clear();
    };
    round(&mut rig);
    let ((), peak) = peak_of(|| {
        for _ in 0..10 {
            round(&mut rig);
        }
    });
    // The server's record of one round counts as well.
    assert!(peak < 2 * MIB, "{peak}");
    drop(channel);
    rig.finish(connection);
}

/// Nothing is left behind by requests, channels and consumers.
#[test]
fn ended_connections_leave_nothing_behind() {
    let (mut rig, connection) = Rig::open();
    let kept = rig.channel(&connection);
    let round = |rig: &mut Rig| {
        for _ in 0..200 {
            rig.check_channel(&kept);
            let channel = rig.channel(&connection);
            let consumer = rig
                .wait(channel.consume(basic::Consume::default()))
                .unwrap();
            drop(rig.wait(kept.consume(basic::Consume::default())).unwrap());
            assert!(rig.wait(kept.get(basic::Get::default())).unwrap().is_none());
            rig.wait(channel.close()).unwrap();
            drop(consumer);
            drop(rig.channel(&connection));
        }
        rig.run();
        rig.peer().saw.clear();
    };
    for _ in 0..3 {
        round(&mut rig);
    }
    let ((), peak) = peak_of(|| {
        for _ in 0..20 {
            round(&mut rig);
        }
    });
    assert!(peak < MIB, "{peak}");
    drop(kept);
    rig.finish(connection);
}

/// A consumer without acknowledgements that is not polled: reading pauses, as long as nothing is
/// awaited, and the consumer ends when none of its messages is taken in time. Then the end of the
/// connection is noticed.
#[test]
fn an_unacknowledged_flood_pauses_reading_and_ends() {
    let (mut rig, connection, channel) = Rig::with_channel();
    let mut consumer = rig
        .wait(channel.consume_no_ack(basic::Consume::default()))
        .unwrap();
    let tag = consumer.tag().to_string();
    let body = Bytes::from(vec![7; MIB]);
    for _ in 0..40 {
        assert!(rig.peer().deliver(1, &tag, body.clone()));
    }
    rig.peer().close(ReplyCode::CONNECTION_FORCED, "bye");
    rig.run();
    assert!(rig.world().read < UNDELIVERED as u64 + SLACK);
    // Progress puts the end off.
    rig.advance(Duration::from_secs(9));
    assert!(rig.wait(consumer.next()).unwrap().is_ok());
    rig.advance(Duration::from_secs(9));
    assert!(rig.wait(consumer.next()).unwrap().is_ok());
    assert!(connection.is_open());
    rig.advance(Duration::from_secs(30));
    assert_eq!(
        connection.close_reason().unwrap().code(),
        Some(ReplyCode::CONNECTION_FORCED)
    );
    let mut yielded = 2;
    let end = loop {
        match rig.wait(consumer.next()).unwrap() {
            Ok(_) => yielded += 1,
            Err(error) => break error,
        }
    };
    let limit = UNDELIVERED;
    assert_eq!(end, Error::Overflow { limit, channel: 1 });
    assert!((14..20).contains(&yielded), "{yielded}");
    drop((consumer, channel));
}

/// While an answer is awaited, which stands behind them, they are read on, up to eight times as much.
#[test]
fn an_unacknowledged_flood_ends_while_an_answer_is_awaited() {
    let (mut rig, connection) = Rig::open();
    let confirms = rig.confirm_channel(&connection);
    rig.peer().confirming = Confirming::ByHand;
    let (to, none) = (basic::Publish::default(), basic::Properties::default());
    let confirm = rig.wait(confirms.publish(&to, &none, "x")).unwrap();
    let confirmed = rig.spawn(confirm);
    rig.run();
    let channel = rig.channel(&connection);
    let mut consumer = rig
        .wait(channel.consume_no_ack(basic::Consume::default()))
        .unwrap();
    let tag = consumer.tag().to_string();
    let body = Bytes::from(vec![7; MIB]);
    let ((), peak) = peak_of(|| {
        for _ in 0..200 {
            rig.peer().deliver(channel.number(), &tag, body.clone());
            rig.run();
        }
    });
    assert!(peak < 2 * 8 * UNDELIVERED + 3 * MIB, "{peak}");
    rig.peer().ack(confirms.number(), 1, false);
    rig.run();
    assert_eq!(confirmed.take(), Some(Ok(())));
    let mut yielded = 0;
    while let Ok(_message) = rig.wait(consumer.next()).unwrap() {
        yielded += 1;
    }
    assert!((120..=128).contains(&yielded), "{yielded}");
    drop((consumer, channel, confirms));
    rig.finish(connection);
}

/// The same for returned messages, while a publish waits for room.
#[test]
fn returned_messages_are_read_on_while_a_publish_waits() {
    let limit = 64 << 10;
    let mut setup = Setup::default();
    setup.client.limits.undelivered = limit;
    let (mut rig, connection) = Rig::open_with(setup);
    let channel = Rc::new(rig.channel(&connection));
    let mut returns = channel.returns();
    rig.peer().flow(1, false);
    rig.run();
    let publishing = Rc::clone(&channel);
    let published = rig.spawn(async move {
        let (to, none) = (basic::Publish::default(), basic::Properties::default());
        publishing.publish(&to, &none, "x").await
    });
    rig.run();
    let message = Message {
        seq: None,
        method: basic::Publish::default(),
        properties: basic::Properties::default(),
        body: Bytes::from(vec![7; 32 << 10]),
    };
    let ((), peak) = peak_of(|| {
        for _ in 0..100 {
            rig.peer().return_message(1, &message);
            rig.run();
        }
    });
    assert!(peak < 2 * 8 * limit + MIB, "{peak}");
    rig.peer().flow(1, true);
    rig.run();
    assert_eq!(published.take(), Some(Ok(())));
    let mut yielded = 0;
    while rig.wait(returns.next()).is_some() {
        yielded += 1;
    }
    assert!((12..=16).contains(&yielded), "{yielded}");
    assert_eq!(returns.error(), Some(Error::Overflow { limit, channel: 1 }));
    drop((returns, channel));
    rig.finish(connection);
}

/// Messages that are read together with the one that is too many change no more than that one: the
/// messages of another consumer still pause reading.
#[test]
fn an_overflow_leaves_the_others_counted() {
    let mut setup = Setup::default();
    setup.client.limits.undelivered = 16 << 10;
    let (mut rig, connection) = Rig::open_with(setup);
    let confirms = rig.confirm_channel(&connection);
    rig.peer().confirming = Confirming::ByHand;
    let (to, none) = (basic::Publish::default(), basic::Properties::default());
    let confirm = rig.wait(confirms.publish(&to, &none, "x")).unwrap();
    let confirmed = rig.spawn(confirm);
    let channel = rig.channel(&connection);
    let consume = |rig: &mut Rig| {
        let consumer = rig.wait(channel.consume_no_ack(basic::Consume::default()));
        let consumer = consumer.unwrap();
        (consumer.tag().to_string(), consumer)
    };
    let (other_tag, mut other) = consume(&mut rig);
    let (tag, mut consumer) = consume(&mut rig);
    let deliver = |rig: &mut Rig, tag: &str, count: usize, len: usize| {
        for _ in 0..count {
            assert!(rig.peer().deliver(channel.number(), tag, vec![0; len]));
        }
        rig.run();
    };
    deliver(&mut rig, &tag, 1, 15_000);
    deliver(&mut rig, &other_tag, 20, 5_000);
    // Two of these are too many, and come in one read.
    deliver(&mut rig, &tag, 3, 27_000);
    let mut end = rig.wait(consumer.next()).unwrap();
    while end.is_ok() {
        end = rig.wait(consumer.next()).unwrap();
    }
    assert!(matches!(end, Err(Error::Overflow { .. })));
    rig.peer().ack(confirms.number(), 1, false);
    rig.run();
    assert_eq!(confirmed.take(), Some(Ok(())));
    for _ in 0..16 {
        assert!(rig.wait(other.next()).unwrap().is_ok());
    }
    rig.run();
    let read = rig.world().read;
    deliver(&mut rig, &other_tag, 1, 1);
    rig.advance(Duration::from_millis(100));
    assert_eq!(rig.world().read, read);
    drop((other, consumer, channel, confirms));
    connection.abort();
    rig.run();
}

/// Reading goes on when a consumer has made room, even if the transport takes nothing just then.
#[test]
fn room_is_noticed_while_writing_is_stalled() {
    let (mut rig, connection, channel) = Rig::with_channel();
    let mut consumer = rig
        .wait(channel.consume_no_ack(basic::Consume::default()))
        .unwrap();
    let tag = consumer.tag().to_string();
    for _ in 0..40 {
        assert!(rig.peer().deliver(1, &tag, vec![7; MIB]));
    }
    rig.run();
    rig.world().set_capacity(0);
    channel.send(&queue::Purge::default()).unwrap();
    rig.run();
    let read = rig.world().read;
    for _ in 0..40 {
        rig.wait(consumer.next()).unwrap().unwrap();
    }
    rig.run();
    assert!(rig.world().read > read + 20 * MIB as u64);
    rig.world().set_capacity(usize::MAX);
    rig.run();
    drop((consumer, channel));
    rig.finish(connection);
}

/// Returned messages that are not taken pause reading as well.
#[test]
fn returns_that_are_not_taken() {
    let (mut rig, connection, channel) = Rig::with_channel();
    rig.peer().unroutable = true;
    let mut returns = channel.returns();
    let to = basic::Publish::default().mandatory(true);
    let none = basic::Properties::default();
    let body = Bytes::from(vec![7; MIB]);
    for _ in 0..30 {
        rig.wait(channel.publish(&to, &none, body.clone())).unwrap();
        rig.run();
    }
    let read = rig.world().read;
    assert!(read < UNDELIVERED as u64 + SLACK, "{read}");
    for _ in 0..30 {
        assert_eq!(rig.wait(returns.next()).unwrap().body.len(), MIB);
    }
    assert!(rig.world().read > 30 * MIB as u64);
    // Those that come without a listener are dropped.
    drop(returns);
    for _ in 0..30 {
        rig.wait(channel.publish(&to, &none, body.clone())).unwrap();
    }
    rig.run();
    assert!(rig.world().read > 60 * MIB as u64);
    let mut returns = channel.returns();
    let mut next = Box::pin(returns.next());
    assert!(matches!(Probe::new().poll(next.as_mut()), Poll::Pending));
    drop(next);
    drop((returns, channel));
    rig.finish(connection);
}

/// A future that is not polled for its confirm keeps nothing of the publishes behind it, and has
/// its outcome when it is polled.
#[test]
fn a_confirm_that_is_not_awaited_keeps_no_others() {
    let (mut rig, connection, channel) = Rig::with_confirms();
    rig.peer().confirming = Confirming::ByBody;
    let (to, none) = (basic::Publish::default(), basic::Properties::default());
    let publish = |rig: &mut Rig, body: &'static str| {
        let published = rig.wait(channel.publish(&to, &none, body));
        published.unwrap()
    };
    let mut kept: Vec<_> = ["a", "n", "a", "n"]
        .map(|body| publish(&mut rig, body))
        .into();
    let ((), peak) = peak_of(|| {
        for _ in 0..300 {
            for _ in 0..100 {
                let confirm = publish(&mut rig, "x");
                rig.wait(confirm).unwrap();
            }
            rig.peer().saw.clear();
        }
    });
    // 30,000 of 64 bytes would be more.
    assert!(peak < MIB, "{peak}");
    drop(kept.drain(..2));
    let outcomes: Vec<_> = kept.into_iter().map(|confirm| rig.wait(confirm)).collect();
    assert_eq!(outcomes, [Ok(()), Err(Unconfirmed::Nacked { channel: 1 })]);
    drop(channel);
    rig.finish(connection);
}

/// A cancel that the server does not answer, while it goes on delivering: until the handle has seen
/// the end, its messages count again, and after that they are not kept.
#[test]
fn a_consumer_whose_cancel_timed_out_is_not_flooded() {
    let (mut rig, connection, channel) = Rig::with_channel();
    let mut consumer = rig
        .wait(channel.consume_no_ack(basic::Consume::default()))
        .unwrap();
    rig.peer().hold = true;
    let mut cancelling = Box::pin(consumer.cancel());
    assert!(Probe::new().poll(cancelling.as_mut()).is_pending());
    rig.advance(Duration::from_secs(31));
    assert_eq!(
        rig.wait(cancelling),
        Err(Error::Unanswered {
            request: basic::Cancel::ID,
            channel: Some(1),
        })
    );
    let tag = consumer.tag().to_string();
    let body = Bytes::from(vec![7; MIB]);
    let read = rig.world().read;
    for _ in 0..40 {
        assert!(rig.peer().deliver(1, &tag, body.clone()));
    }
    rig.run();
    assert!(rig.world().read - read < UNDELIVERED as u64 + SLACK);
    while rig.wait(consumer.next()).is_some() {}
    rig.run();
    let ((), peak) = peak_of(|| {
        for _ in 0..40 {
            assert!(rig.peer().deliver(1, &tag, body.clone()));
            rig.run();
        }
    });
    assert!(peak < 8 * MIB, "{peak}");
    assert!(rig.wait(consumer.next()).is_none());
    rig.peer().release();
    drop((consumer, channel));
    rig.finish(connection);
}

/// A server that asks and asks, and does not read the answers, is not listened to until it does.
#[test]
fn answers_that_the_server_does_not_read() {
    const ROUNDS: usize = 24;
    let mut setup = Setup::default();
    setup.client.limits.body = MIB as u64;
    let (mut rig, connection) = Rig::open_with(setup);
    let channel = rig.channel(&connection);
    rig.peer().deaf = true;
    rig.world().set_capacity(0);
    // basic.cancel, which is answered with its tag each time.
    let (head, tag) = ([1, 0, 1, 0, 0, 1, 5, 0, 60, 0, 30, 255], [b't'; 255]);
    let cancel = [&head[..], &tag, &[0, 0xce]].concat();
    let many = cancel.repeat(MIB / cancel.len());
    let read = rig.world().read;
    for _ in 0..ROUNDS {
        rig.world().inject(&many);
        rig.run();
    }
    assert!(
        connection.buffered() < 18 * MIB,
        "{}",
        connection.buffered()
    );
    rig.world().set_capacity(usize::MAX);
    rig.run();
    assert_eq!(rig.world().read - read, (ROUNDS * many.len()) as u64);
    assert_eq!(connection.buffered(), 0);
    drop(channel);
}

/// A frame of a method that comes byte by byte takes one buffer of the least size, as a login does.
#[test]
fn a_small_frame_byte_by_byte_stays_in_one_buffer() {
    let (mut rig, connection) = Rig::open();
    rig.run();
    rig.world().read_max = 1;
    let ((), peak) = peak_of(|| {
        rig.world().inject(&[1, 0, 0, 0, 0, 3, 232]);
        for _ in 0..900 {
            rig.world().inject(&[0]);
            rig.run();
        }
    });
    assert!(peak < 5 << 10, "{peak} bytes");
    rig.world().cut(amqp_test_support::Cut::Reset);
    rig.run();
    assert!(!connection.is_open());
}
