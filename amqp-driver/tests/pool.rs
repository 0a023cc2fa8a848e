//! The channel pool.

use std::{rc::Rc, time::Duration};

use amqp_driver::{
    ChannelPool, Connection, Error,
    core::{ApiMisuse, MethodDef as _, TimeoutReason},
    protocol::{ReplyCode, basic, channel, queue},
};
use amqp_test_support::{Rig, Setup};
use bytes::Bytes;

fn start(size: usize) -> (Rig, Connection, ChannelPool) {
    let (mut rig, connection) = Rig::open();
    let pool = rig.wait(connection.channel_pool(size)).unwrap();
    (rig, connection, pool)
}

#[test]
fn a_pool_has_its_channels_ready() {
    let (mut rig, connection, pool) = start(2);
    assert_eq!(
        (pool.size(), pool.idle(), connection.channel_count()),
        (2, 2, 2)
    );
    let one = rig.wait(pool.checkout()).unwrap();
    let two = rig.wait(pool.checkout()).unwrap();
    assert_ne!(one.number(), two.number());
    assert_eq!(pool.idle(), 0);
    drop(one);
    assert_eq!(pool.idle(), 1);
    let again = rig.wait(pool.checkout()).unwrap();
    drop((two, again));
    assert_eq!((pool.idle(), connection.channel_count()), (2, 2));
    drop(pool);
    rig.run();
    assert_eq!(connection.channel_count(), 0);
    rig.finish(connection);
}

#[test]
fn a_pool_can_be_used() {
    let (mut rig, connection, pool) = start(2);
    rig.peer().at_once = vec![Bytes::from("hello")];
    let to = basic::Publish::default();
    let none = basic::Properties::default();
    let channel = rig.wait(pool.checkout()).unwrap();
    let confirm = rig.wait(channel.publish(&to, &none, "hello")).unwrap();
    assert_eq!(rig.wait(confirm), Ok(()));
    let mut consumer = rig
        .wait(channel.consume(basic::Consume::default()))
        .unwrap();
    let delivery = rig.wait(consumer.next()).unwrap().unwrap();
    assert_eq!(delivery.body, "hello");
    delivery.ack().unwrap();
    drop((consumer, channel));
    assert_eq!(pool.idle(), 2);
    drop(pool);
    rig.finish(connection);
}

/// SER-16: a channel that an error has closed is replaced.
#[test]
fn a_dead_channel_is_replaced() {
    let (mut rig, connection, pool) = start(2);
    let channel = rig.wait(pool.checkout()).unwrap();
    let number = channel.number();
    rig.peer()
        .close_channel(number, ReplyCode::NOT_FOUND, "no exchange");
    rig.run();
    assert!(!channel.is_open());
    drop(channel);
    assert_eq!(pool.idle(), 2);
    // It is replaced when its turn comes, and so is one that dies in the pool.
    let number = rig.peer().open_channels()[0];
    rig.peer()
        .close_channel(number, ReplyCode::NOT_FOUND, "gone");
    rig.run();
    let one = rig.wait(pool.checkout()).unwrap();
    let two = rig.wait(pool.checkout()).unwrap();
    for channel in [&one, &two] {
        rig.check_channel(channel);
    }
    drop((one, two, pool));
    rig.finish(connection);
}

/// A checkout that waits ends when a channel is returned, or when another one was opened.
#[test]
fn waiting_checkouts_get_their_turn() {
    for kill in [false, true] {
        for seed in 1..40 {
            let (mut rig, connection) = Rig::open_with(Setup {
                seed: Some(seed),
                ..Setup::default()
            });
            let pool = rig.wait(connection.channel_pool(2)).unwrap();
            let tasks: Vec<_> = (0..12)
                .map(|number| {
                    let pool = pool.clone();
                    rig.spawn(async move {
                        let channel = pool.checkout().await?;
                        let name = format!("q{number}");
                        let declare = queue::Declare::default().queue(&name);
                        assert_eq!(channel.call(declare).await?.queue, name);
                        if kill && number % 2 == 0 {
                            channel.close().await?;
                        }
                        Ok::<_, Error>(())
                    })
                })
                .collect();
            // A look at the pool is in no checkout's way.
            let looking = pool.clone();
            let look = rig.spawn(async move {
                for _ in 0..50 {
                    assert!(looking.idle() <= 2);
                    let mut yielded = false;
                    std::future::poll_fn(|cx| {
                        if std::mem::replace(&mut yielded, true) {
                            return std::task::Poll::Ready(());
                        }
                        cx.waker().wake_by_ref();
                        std::task::Poll::Pending
                    })
                    .await;
                }
            });
            rig.run();
            assert!(look.is_done());
            for task in tasks {
                assert_eq!(task.take(), Some(Ok(())), "{seed}");
            }
            drop((look, pool));
            rig.run();
            assert_eq!(connection.channel_count(), 0);
            rig.finish(connection);
        }
    }
}

/// `idle` is called while a checkout waits for a channel that is being opened.
#[test]
fn looking_at_the_pool_loses_no_wake_up() {
    let (mut rig, connection, pool) = start(1);
    let channel = rig.wait(pool.checkout()).unwrap();
    rig.wait(channel.close()).unwrap();
    rig.peer().mute = true;
    drop(channel);
    let waiting = pool.clone();
    let task = rig.spawn(async move { waiting.checkout().await.map(drop) });
    rig.run();
    assert_eq!(pool.idle(), 0);
    rig.peer().mute = false;
    rig.run();
    assert_eq!(task.take(), Some(Ok(())));
    drop(pool);
    rig.finish(connection);
}

/// Waiting checkouts are dropped, at every step, and those behind them get their turn.
#[test]
fn waiting_can_be_given_up() {
    for steps in 0..40 {
        let (mut rig, connection, pool) = start(1);
        let channel = rig.wait(pool.checkout()).unwrap();
        rig.wait(channel.close()).unwrap();
        let waiting = |rig: &mut Rig| {
            let pool = pool.clone();
            rig.spawn(async move { pool.checkout().await.map(|_channel| ()) })
        };
        let (first, second) = (waiting(&mut rig), waiting(&mut rig));
        rig.run();
        drop(channel);
        for _ in 0..steps {
            rig.step();
        }
        rig.cancel(&first);
        rig.run();
        assert_eq!(second.take(), Some(Ok(())), "{steps}");
        drop(pool);
        rig.finish(connection);
    }
}

/// A channel that cannot be opened is an error for one, and the others try again.
#[test]
fn an_error_of_one_is_not_the_end_for_the_others() {
    let mut setup = Setup::default();
    setup.client.timeouts.checkout = None;
    setup.client.channel_max = 2;
    let (mut rig, connection) = Rig::open_with(setup);
    let full = connection.channel_pool(3);
    let error = Error::Misuse(ApiMisuse::NoFreeChannel { channel_max: 2 });
    assert_eq!(rig.wait(full).map(|_| ()), Err(error));
    rig.run();
    assert_eq!(connection.channel_count(), 0);

    let pool = rig.wait(connection.channel_pool(1)).unwrap();
    let taken = rig.wait(pool.checkout()).unwrap();
    rig.wait(taken.close()).unwrap();
    rig.peer().mute = true;
    let waiting = |rig: &mut Rig| {
        let pool = pool.clone();
        rig.spawn(async move { pool.checkout().await.map(|_channel| ()) })
    };
    let tasks = [waiting(&mut rig), waiting(&mut rig), waiting(&mut rig)];
    rig.run();
    drop(taken);
    rig.run();
    // The opening times out: one checkout fails, and another opening is begun for the rest.
    rig.advance(Duration::from_secs(31));
    let reported: Vec<_> = tasks
        .iter()
        .filter_map(amqp_test_support::Task::take)
        .collect();
    let unanswered = Error::Unanswered {
        request: channel::Open::ID,
        channel: Some(2),
    };
    assert_eq!(reported, [Err(unanswered)]);
    rig.peer().mute = false;
    rig.run();
    let reported: Vec<_> = tasks
        .iter()
        .filter_map(amqp_test_support::Task::take)
        .collect();
    assert_eq!(reported, [Ok(()), Ok(())]);
    drop(pool);
    rig.finish(connection);
}

/// A channel that cannot be opened does not delay a checkout of the others.
#[test]
fn an_idle_channel_is_given_out_whichever_way_the_others_end() {
    let mut setup = Setup::default();
    setup.client.channel_max = 2;
    let (mut rig, connection) = Rig::open_with(setup);
    let pool = rig.wait(connection.channel_pool(2)).unwrap();
    let closed = rig.wait(pool.checkout()).unwrap();
    rig.wait(closed.close()).unwrap();
    // Another channel takes the number that came free.
    let other = rig.channel(&connection);
    drop(closed);
    assert_eq!(pool.idle(), 2);
    let channel = rig.wait(pool.checkout()).unwrap();
    rig.check_channel(&channel);
    let full = Error::Misuse(ApiMisuse::NoFreeChannel { channel_max: 2 });
    assert_eq!(rig.wait(pool.checkout()).map(drop), Err(full));
    drop(other);
    rig.run();
    let again = rig.wait(pool.checkout()).unwrap();
    rig.check_channel(&again);
    drop((channel, again, pool));
    rig.finish(connection);
}

/// Tasks that wait get a channel in the order in which they came, and none passes them.
#[test]
fn channels_are_handed_over_in_order() {
    let (mut rig, connection, pool) = start(1);
    let mut taken = Some(rig.wait(pool.checkout()).unwrap());
    let tasks: Vec<_> = (0..10)
        .map(|_| {
            let pool = pool.clone();
            let task = rig.spawn(async move { pool.checkout().await });
            rig.run();
            task
        })
        .collect();
    for (at, task) in tasks.iter().enumerate() {
        drop(taken.take());
        // One that comes now waits behind the others.
        assert!(rig.ready(pool.checkout()).is_none(), "{at}");
        rig.run();
        taken = Some(task.take().expect("it is its turn").unwrap());
        assert!(tasks.iter().all(|task| !task.is_done()), "{at}");
    }
    drop((taken, pool));
    rig.finish(connection);
}

/// A checkout that waits too long times out, and gives up its place.
#[test]
fn a_checkout_has_a_deadline() {
    let (mut rig, connection, pool) = start(1);
    let taken = rig.wait(pool.checkout()).unwrap();
    let waiting = {
        let pool = pool.clone();
        rig.spawn(async move { pool.checkout().await.map(drop) })
    };
    rig.advance(Duration::from_secs(29));
    assert!(!waiting.is_done());
    rig.advance(Duration::from_secs(2));
    let late = Err(Error::TimedOut {
        reason: TimeoutReason::Checkout,
        channel: None,
    });
    assert_eq!(waiting.take(), Some(late));
    drop(taken);
    assert!(rig.wait(pool.checkout()).is_ok());
    drop(pool);
    rig.finish(connection);
}

/// A pool of no channels is refused.
#[test]
fn a_pool_has_at_least_one_channel() {
    let (mut rig, connection) = Rig::open();
    let refused = rig.wait(connection.channel_pool(0)).map(drop);
    assert!(matches!(
        refused,
        Err(Error::Misuse(ApiMisuse::Config { .. }))
    ));
    rig.finish(connection);
}

/// A pool can be dropped while channels are out; they close when they are dropped.
#[test]
fn channels_outlive_the_handle_of_their_pool() {
    let (mut rig, connection, pool) = start(2);
    let channel = Rc::new(rig.wait(pool.checkout()).unwrap());
    drop(pool);
    rig.run();
    rig.check_channel(&channel);
    drop(channel);
    rig.run();
    assert_eq!(connection.channel_count(), 0);
    rig.finish(connection);
}
