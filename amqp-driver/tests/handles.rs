//! Handles: in any order of drops everything ends well, and stale handles are errors.

use std::{any::Any, cell::Cell, rc::Rc, time::Duration};

use amqp_driver::{
    Config, Connection, Error, Fetched, Requeue, Tags,
    core::{
        ApiMisuse, Limits,
        wire::{FieldTable, Secret, ShortStr},
    },
    protocol::{ReplyCode, basic, confirm, queue, tx},
};
use amqp_test_support::{Cut, Probe, Rig, Saw, Setup};
use bytes::Bytes;

/// Every kind of handle that a connection has.
fn all_handles(rig: &mut Rig, connection: Connection) -> Vec<(&'static str, Box<dyn Any>)> {
    rig.peer().confirming = amqp_test_support::Confirming::ByHand;
    rig.peer().gettable = [Bytes::from("fetched")].into();
    rig.peer().at_once = ["1", "2", "3"].map(Bytes::from).into();
    let channel = rig.channel(&connection);
    let confirms = rig.confirm_channel(&connection);
    let mut consumer = rig
        .wait(channel.consume(basic::Consume::default()))
        .unwrap();
    let delivery = rig.wait(consumer.next()).unwrap().unwrap();
    let fetched: Fetched = rig
        .wait(channel.get(basic::Get::default()))
        .unwrap()
        .unwrap();
    let to = basic::Publish::default();
    let none = basic::Properties::default();
    let confirm = rig.wait(confirms.publish(&to, &none, "x")).unwrap();
    vec![
        ("consumer", Box::new(consumer)),
        ("delivery", Box::new(delivery)),
        ("fetched", Box::new(fetched)),
        ("returns", Box::new(channel.returns())),
        ("channel", Box::new(channel)),
        ("confirm", Box::new(confirm)),
        ("confirms", Box::new(confirms)),
        ("connection", Box::new(connection)),
    ]
}

/// The next permutation in lexicographic order; false after the last.
fn next_permutation(order: &mut [usize]) -> bool {
    let Some(at) = (1..order.len()).rev().find(|&at| order[at - 1] < order[at]) else {
        return false;
    };
    let larger = (at..order.len())
        .rev()
        .find(|&it| order[it] > order[at - 1])
        .unwrap();
    order.swap(at - 1, larger);
    order[at..].reverse();
    true
}

/// REG-35: handles dropped in any order, at once or one by one.
#[test]
fn handles_can_be_dropped_in_any_order() {
    let mut order: Vec<usize> = (0..8).collect();
    let mut tried = 0_u32;
    loop {
        tried += 1;
        // All of the 40320 orders would take a quarter of a minute.
        if tried % 17 == 1 {
            let (mut rig, connection) = Rig::open();
            let mut handles: Vec<_> = all_handles(&mut rig, connection)
                .into_iter()
                .map(Some)
                .collect();
            for (count, &at) in order.iter().enumerate() {
                assert!(!rig.driver_ended() && rig.peer().closed().is_none());
                handles[at] = None;
                if (tried >> (count % 8)) & 1 == 0 {
                    rig.run();
                }
            }
            rig.run();
            assert!(rig.driver_ended(), "{order:?}");
            assert!(rig.world().dropped);
            let peer = rig.peer();
            assert_eq!(peer.violations, [""; 0], "{order:?}");
            assert!(peer.closed_in_good_order(), "{order:?}");
        }
        if !next_permutation(&mut order) {
            break;
        }
    }
}

/// REG-35: the same, with the driver among them, and with a connection that is gone already.
#[test]
fn handles_outlive_the_driver() {
    for cut in [None, Some(Cut::Eof), Some(Cut::Reset)] {
        for drop_at in 0..=8 {
            let (mut rig, connection) = Rig::open();
            for (count, handle) in all_handles(&mut rig, connection).into_iter().enumerate() {
                if count == drop_at {
                    match cut {
                        Some(cut) => rig.world().cut(cut),
                        None => rig.drop_driver(),
                    }
                    if count % 2 == 0 {
                        rig.run();
                    }
                }
                drop(handle);
            }
            rig.run();
            assert!(rig.driver_ended());
        }
    }
}

/// The connection is closed with its last handle, also before it is open.
#[test]
fn a_connection_that_is_not_wanted_is_not_opened() {
    for steps in 0..30 {
        let (mut rig, connection) = Rig::start(Setup::default());
        for _ in 0..steps {
            rig.step();
        }
        drop(connection);
        rig.run();
        assert!(rig.driver_ended(), "{steps}");
        assert_eq!(rig.peer().violations, [""; 0], "{steps}");
    }
}

#[test]
fn an_acker_keeps_its_channel() {
    let (mut rig, connection, channel) = Rig::with_channel();
    let mut consumer = rig
        .wait(channel.consume(basic::Consume::default()))
        .unwrap();
    for body in ["1", "2"] {
        assert!(rig.peer().deliver(1, consumer.tag(), body));
    }
    let one = rig.wait(consumer.next()).unwrap().unwrap();
    let two = rig.wait(consumer.next()).unwrap().unwrap();
    drop((consumer, channel));
    rig.run();
    assert_eq!(rig.peer().open_channels(), [1]);
    assert_eq!(one.acker.tag().get(), 1);
    one.ack().unwrap();
    rig.run();
    assert_eq!(rig.peer().acked, ["1"]);
    // The last that belongs to it closes it.
    two.reject(Requeue::No).unwrap();
    rig.run();
    assert_eq!(rig.peer().rejected, ["2"]);
    assert!(rig.peer().open_channels().is_empty());
    rig.finish(connection);
}

/// REG-23: handles of a channel that has ended reach nothing else, though the number and the tag
/// are used again.
#[test]
fn a_stale_acker_says_so() {
    let (mut rig, connection, channel) = Rig::with_channel();
    rig.peer().at_once = ["x", "y", "z"].map(Bytes::from).into();
    let deliveries = |rig: &mut Rig, channel: &amqp_driver::Channel| {
        let mut consumer = rig
            .wait(channel.consume(basic::Consume::default()))
            .unwrap();
        let mut next = || rig.wait(consumer.next()).unwrap().unwrap();
        let three = [next(), next(), next()];
        (consumer, three)
    };
    let (consumer, [a, b, c]) = deliveries(&mut rig, &channel);
    assert_eq!(a.acker.tag().get(), 1);
    rig.peer().close_channel(1, ReplyCode::NOT_FOUND, "gone");
    rig.run();
    // The same number, and the same tags.
    let mut setup = Vec::new();
    let again = loop {
        let next = rig.channel(&connection);
        if next.number() == channel.number() {
            break next;
        }
        setup.push(next);
        assert!(setup.len() < 5000, "the number is never used again");
    };
    assert_ne!(again.id(), channel.id());
    let (others, [d, e, f]) = deliveries(&mut rig, &again);
    let acked = rig.peer().acked.len();
    let closed = Err(Error::ChannelClosed(channel.close_reason().unwrap()));
    assert_eq!(a.ack(), closed);
    assert_eq!(b.acker.ack_up_to(), closed);
    assert_eq!(c.nack(Requeue::Yes), closed);
    rig.run();
    assert_eq!(rig.peer().acked.len(), acked);
    d.acker.nack(Requeue::No).unwrap();
    f.acker.ack_up_to().unwrap();
    let unknown = Err(Error::Misuse(ApiMisuse::UnknownDeliveryTag(2)));
    assert_eq!(e.ack(), unknown);
    rig.run();
    assert_eq!(rig.peer().acked.len(), acked + 2);
    drop((consumer, others, channel, again, setup));
    rig.finish(connection);
}

/// TRI-14: on a channel that is closed every call says so, and nothing goes out.
#[test]
fn a_closed_channel_refuses_everything() {
    for by_server in [false, true] {
        let (mut rig, connection, channel) = Rig::with_channel();
        let confirms = rig.confirm_channel(&connection);
        let transaction = rig.tx_channel(&connection);
        let mut consumer = rig
            .wait(channel.consume(basic::Consume::default()))
            .unwrap();
        assert!(rig.peer().deliver(1, consumer.tag(), "x"));
        let delivery = rig.wait(consumer.next()).unwrap().unwrap();
        for number in 1..=3 {
            if by_server {
                rig.peer()
                    .close_channel(number, ReplyCode::ACCESS_REFUSED, "no");
            }
        }
        if !by_server {
            rig.wait(channel.close()).unwrap();
            rig.wait(confirms.close()).unwrap();
            rig.wait(transaction.close()).unwrap();
        }
        rig.run();
        let written = rig.world().written;
        let reason = channel.close_reason().unwrap();
        assert_eq!(reason.is_clean(), !by_server);
        assert!(!channel.is_open());
        let closed = Error::ChannelClosed(reason);
        let (to, none) = (basic::Publish::default(), basic::Properties::default());
        let declare = queue::Declare::default();
        assert_eq!(rig.wait(channel.close()), Err(closed.clone()));
        assert_eq!(rig.wait(channel.call(declare.clone())).unwrap_err(), closed);
        assert_eq!(
            rig.wait(channel.publish(&to, &none, "x")),
            Err(closed.clone())
        );
        assert_eq!(
            rig.wait(channel.consume(basic::Consume::default()))
                .unwrap_err(),
            closed
        );
        assert_eq!(
            rig.wait(channel.consume_no_ack(basic::Consume::default()))
                .unwrap_err(),
            closed
        );
        assert_eq!(
            rig.wait(channel.get(basic::Get::default())).unwrap_err(),
            closed
        );
        assert_eq!(channel.send(&queue::Purge::default()), Err(closed.clone()));
        assert_eq!(channel.ack(Tags::All), Err(closed.clone()));
        assert_eq!(channel.nack(Tags::All, Requeue::Yes), Err(closed.clone()));
        assert_eq!(channel.recover_async(true), Err(closed.clone()));
        assert_eq!(delivery.ack(), Err(closed.clone()));
        assert_eq!(rig.wait(consumer.cancel()), Ok(()));
        let mut returns = channel.returns();
        assert_eq!(rig.wait(returns.next()), None);
        assert_eq!(returns.error(), Some(closed.clone()));
        assert_eq!(closed.code(), channel.close_reason().unwrap().code());
        assert_eq!(rig.wait(channel.confirm_select()).unwrap_err(), closed);
        let closed = Error::ChannelClosed(confirms.close_reason().unwrap());
        assert_eq!(
            rig.wait(confirms.publish(&to, &none, "x")).unwrap_err(),
            closed
        );
        let closed = Error::ChannelClosed(transaction.close_reason().unwrap());
        assert_eq!(rig.wait(transaction.commit()), Err(closed.clone()));
        assert_eq!(rig.wait(transaction.rollback()), Err(closed));
        rig.run();
        assert_eq!(rig.world().written, written);
        rig.check_usable(&connection);
        drop((returns, consumer, confirms, transaction));
        rig.finish(connection);
    }
}

/// PUK-20: 42 publishes without waiting leave bytes pending, each of them.
#[test]
fn nothing_is_dropped_silently() {
    let (mut rig, connection, channel) = Rig::with_channel();
    let (to, none) = (basic::Publish::default(), basic::Properties::default());
    let mut before = connection.buffered();
    for _ in 0..42 {
        let mut publishing = Box::pin(channel.publish(&to, &none, "x"));
        assert!(Probe::new().poll(publishing.as_mut()).is_ready());
        assert!(connection.buffered() > before);
        before = connection.buffered();
    }
    rig.run();
    assert_eq!(connection.buffered(), 0);
    assert_eq!(rig.peer().messages().len(), 42);
    drop(channel);
    rig.finish(connection);
}

/// SER-11, SER-12: an error of a channel is the error of the call that caused it, and of no other.
#[test]
fn an_error_of_a_channel_stays_there() {
    let (mut rig, connection, channel) = Rig::with_channel();
    let other = rig.channel(&connection);
    rig.peer().hold = true;
    let mut call = Box::pin(channel.call(queue::Declare::default()));
    let mut others = Box::pin(other.call(queue::Declare::default()));
    for pending in [
        Probe::new().poll(call.as_mut()),
        Probe::new().poll(others.as_mut()),
    ] {
        assert!(pending.is_pending());
    }
    rig.run();
    let id = queue::Declare::RULE.id;
    rig.peer()
        .close_channel_for(1, ReplyCode::NOT_FOUND, "none", Some(id));
    let Err(Error::ChannelClosed(reason)) = rig.wait(call) else {
        panic!("the call was reported nothing");
    };
    let close = reason.by_peer().unwrap();
    assert_eq!((close.code, close.method), (ReplyCode::NOT_FOUND, Some(id)));
    rig.peer().release();
    rig.wait(others).unwrap();
    assert!(!channel.is_open() && other.is_open());
    drop((channel, other));
    rig.run();
    assert_eq!(connection.channel_count(), 0);
    rig.finish(connection);
}

/// The server has closed the channel before it sees the close: the last publish is lost, and the
/// close fails with the reason.
#[test]
fn a_close_of_a_channel_that_crosses_the_server_s_is_no_success() {
    let (mut rig, connection, channel) = Rig::with_channel();
    rig.peer().hold = true;
    let mut closing = Box::pin(channel.close());
    assert!(Probe::new().poll(closing.as_mut()).is_pending());
    rig.peer()
        .close_channel(1, ReplyCode::NOT_FOUND, "no exchange");
    let Err(Error::ChannelClosed(reason)) = rig.wait(closing) else {
        panic!("the close is reported as good");
    };
    assert_eq!(reason.code(), Some(ReplyCode::NOT_FOUND));
    assert_eq!(channel.close_reason(), Some(reason.clone()));
    assert_eq!(rig.wait(channel.close()), Err(Error::ChannelClosed(reason)));
    rig.peer().release();
    drop(channel);
    rig.run();
    assert_eq!(connection.channel_count(), 0);
    rig.check_usable(&connection);
    rig.finish(connection);
}

/// A number is free at once, after the close of a dropped channel is answered, or not at all.
#[test]
fn a_released_channel_number_is_awaited() {
    let mut setup = Setup::default();
    setup.client.channel_max = 1;
    let (mut rig, connection) = Rig::open_with(setup);
    assert!(rig.wait(connection.channel_released()));
    let channel = rig.channel(&connection);
    assert!(!rig.wait(connection.channel_released()));
    drop(channel);
    assert_eq!(
        connection.channel_count(),
        1,
        "its close is not answered yet"
    );
    assert!(rig.wait(connection.channel_released()));
    assert_eq!(connection.channel_count(), 0);
    // The number was released before this call, which finds it free.
    assert!(rig.wait(connection.channel_released()));
    drop(rig.channel(&connection));
    rig.finish(connection);
}

/// TRI-12, TRI-15, SER-13: numbers differ, run out, and come back.
#[test]
fn channel_numbers_come_back() {
    let mut setup = Setup::default();
    setup.client.channel_max = 3;
    let (mut rig, connection) = Rig::open_with(setup);
    assert_eq!(connection.tuning().channel_max, 3);
    for _ in 0..5 {
        let three = [(); 3].map(|()| rig.channel(&connection));
        let mut numbers = three.each_ref().map(|it| it.number());
        numbers.sort_unstable();
        assert_eq!(numbers, [1, 2, 3]);
        let refused = rig.wait(connection.open_channel()).unwrap_err();
        let full = ApiMisuse::NoFreeChannel { channel_max: 3 };
        assert_eq!(refused, Error::Misuse(full));
        drop(three);
        rig.run();
        assert_eq!(connection.channel_count(), 0);
    }
    rig.finish(connection);
}

/// SER-17: a scope ends with the reason, its future is dropped, and it holds nothing up.
#[test]
fn a_scope_ends_with_its_connection() {
    struct Dropped(Rc<Cell<bool>>);
    impl Drop for Dropped {
        fn drop(&mut self) {
            self.0.set(true);
        }
    }
    let (mut rig, connection) = Rig::open();
    assert_eq!(rig.wait(connection.scope(async { 42 })), Ok(42));
    let dropped = Rc::new(Cell::new(false));
    let guard = Dropped(Rc::clone(&dropped));
    let inside = connection.clone();
    let outside = connection.clone();
    let task = rig.spawn(async move {
        let body = async {
            let _guard = guard;
            let pool = inside.channel_pool(2).await.unwrap();
            let _channel = pool.checkout().await.unwrap();
            std::future::pending::<()>().await;
        };
        outside.scope(body).await
    });
    rig.run();
    assert!(!task.is_done() && !dropped.get());
    rig.peer().close(ReplyCode::CONNECTION_FORCED, "shutdown");
    rig.run();
    let reason = connection.close_reason().unwrap();
    assert_eq!(task.take(), Some(Err(Error::ConnectionClosed(reason))));
    assert!(dropped.get());

    // Dropped from outside, it leaves the connection as it was.
    let (mut rig, connection) = Rig::open();
    let inside = connection.clone();
    let task = rig.spawn(async move {
        let body = async {
            let pool = inside.channel_pool(2).await.unwrap();
            let _channel = pool.checkout().await.unwrap();
            std::future::pending::<()>().await;
        };
        inside.scope(body).await
    });
    rig.run();
    rig.cancel(&task);
    rig.run();
    assert_eq!(connection.channel_count(), 0);
    rig.check_usable(&connection);
    rig.finish(connection);
}

/// The properties of a connection.
#[test]
fn getters_and_misuse() {
    let mut setup = Setup::default();
    let capabilities: FieldTable = [(
        ShortStr::try_from("publisher_confirms").unwrap(),
        true.into(),
    )]
    .into_iter()
    .collect();
    let name = |name: &str| ShortStr::try_from(name).unwrap();
    setup.server.properties.push(name("product"), "peer");
    setup
        .server
        .properties
        .push(name("capabilities"), capabilities);
    let (mut rig, connection) = Rig::start(setup);
    let early = rig.wait(connection.open_channel()).unwrap_err();
    assert_eq!(early, Error::Misuse(ApiMisuse::ConnectionNotOpen));
    assert!(!connection.is_open() && !connection.has_capability("publisher_confirms"));
    rig.wait(connection.opened()).unwrap();
    assert!(connection.is_open() && connection.has_capability("publisher_confirms"));
    assert!(!connection.has_capability("other"));
    assert!(connection.server_properties().get("product").is_some());
    let secret = Secret::from("new");
    rig.wait(connection.update_secret(secret, name("renewed")))
        .unwrap();
    let renewed = rig
        .peer()
        .saw
        .iter()
        .any(|it| matches!(it, Saw::Secret(it) if it == "new"));
    assert!(renewed);

    let channel = rig.channel(&connection);
    assert!(channel.connection().is_open());
    let written = rig.world().written;
    let no_wait = queue::Declare::default().queue("q").no_wait(true);
    let misuse = |result: Result<(), Error>| assert!(matches!(result, Err(Error::Misuse(_))));
    misuse(rig.wait(channel.call(no_wait)).map(|_| ()));
    misuse(rig.wait(channel.call(tx::Commit)).map(|_| ()));
    misuse(channel.send(&queue::Declare::default()));
    misuse(channel.recover_async(false));
    let (to, none) = (basic::Publish::default(), basic::Properties::default());
    misuse(rig.wait(channel.publish(&to.clone().immediate(true), &none, "x")));
    let limit = usize::try_from(Limits::default().body).unwrap();
    misuse(rig.wait(channel.publish(&to, &none, vec![0; limit + 1])));
    assert_eq!(rig.world().written, written);
    rig.wait(channel.call(confirm::Select::default())).unwrap();
    misuse(rig.wait(channel.tx_select()).map(|_| ()));
    let bad = Config::default().frame_max(100);
    let (wire, clock) = rig.another();
    assert!(matches!(
        Connection::start(bad, wire, clock),
        Err(Error::Misuse(_))
    ));
    rig.advance(Duration::from_secs(1));
    rig.finish(connection);
}
