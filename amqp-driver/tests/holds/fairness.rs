//! Publishers are served in turn: none passes those that wait, and each gets an equal share.

use std::{cell::Cell, rc::Rc};

use amqp_driver::{
    Channel, Connection, Error, TryPublishError,
    core::{ApiMisuse, Hold},
};
use amqp_test_support::{Rig, Setup};

use crate::{none, to_queue};

/// The messages that each publisher got out, of several that publish in a loop over a line that takes
/// a little at a time.
fn shares(seed: Option<u64>, publishers: usize, channels: usize, body: usize) -> Vec<u32> {
    let mut setup = Setup {
        seed,
        ..Setup::default()
    };
    setup.client.timeouts.publish = None;
    let (mut rig, connection) = Rig::open_with(setup);
    let channels: Vec<_> = (0..channels).map(|_| rig.channel(&connection)).collect();
    rig.world().set_capacity(0);
    let counts: Vec<_> = (0..publishers)
        .map(|at| {
            let channel = channels[at % channels.len()].clone();
            let count = Rc::new(Cell::new(0_u32));
            let counter = Rc::clone(&count);
            let body = bytes::Bytes::from(vec![0; body]);
            rig.spawn(async move {
                loop {
                    let (to, none) = (to_queue(), none());
                    if channel.publish(&to, &none, body.clone()).await.is_err() {
                        return;
                    }
                    counter.set(counter.get() + 1);
                }
            });
            count
        })
        .collect();
    rig.world().set_capacity(64 << 10);
    for round in 0..60 {
        for _ in 0..20 * (publishers + 2) {
            rig.step();
        }
        rig.peer().saw.clear();
        if round == 5 {
            // The first one to come fills the output.
            counts.iter().for_each(|count| count.set(0));
        }
    }
    connection.abort();
    rig.run();
    counts.iter().map(|count| count.get()).collect()
}

/// The messages that each of several publishers on one channel got out, of which the server confirms
/// many at once.
fn shares_of_a_window(seed: Option<u64>, publishers: usize, window: usize) -> Vec<u32> {
    let mut setup = Setup {
        seed,
        ..Setup::default()
    };
    setup.client.limits.unconfirmed = window;
    let (mut rig, connection) = Rig::open_with(setup);
    let channel = rig.confirm_channel(&connection);
    rig.peer().confirming = amqp_test_support::Confirming::ByHand;
    let counts: Vec<_> = (0..publishers)
        .map(|_| {
            let channel = channel.clone();
            let count = Rc::new(Cell::new(0_u32));
            let counter = Rc::clone(&count);
            rig.spawn(async move {
                loop {
                    let (to, none) = (to_queue(), none());
                    if channel.publish(&to, &none, "x").await.is_err() {
                        return;
                    }
                    counter.set(counter.get() + 1);
                }
            });
            count
        })
        .collect();
    let mut before = Vec::new();
    for round in 0..60 {
        rig.run();
        let sent: u32 = counts.iter().map(|count| count.get()).sum();
        assert!(sent as usize >= (round + 1) * window, "the window is used");
        rig.peer().ack(channel.number(), u64::from(sent), true);
        if round == 0 {
            // The first publishes fill the window.
            before = counts.iter().map(|count| count.get()).collect();
        }
    }
    connection.abort();
    rig.run();
    let after = counts.iter().map(|count| count.get());
    after
        .zip(before)
        .map(|(after, before)| after - before)
        .collect()
}

fn assert_fair(what: &str, shares: &[u32]) {
    let least = *shares.iter().min().unwrap();
    let most = *shares.iter().max().unwrap();
    assert!(least > 0, "{what}: {shares:?}");
    let ratio = f64::from(most) / f64::from(least);
    assert!(ratio <= 1.5, "{what}: {ratio:.2}, {shares:?}");
}

#[test]
fn publishers_get_equal_shares() {
    for seed in [None, Some(7)] {
        for (publishers, channels) in [(3, 3), (64, 64), (3, 1)] {
            for body in [1000, 16_000] {
                let what = format!("{publishers} on {channels}, {body} B, seed {seed:?}");
                assert_fair(&what, &shares(seed, publishers, channels, body));
            }
        }
    }
}

#[test]
fn publishers_get_equal_shares_of_a_window() {
    for seed in [None, Some(7)] {
        for (publishers, window) in [(3, 30), (3, 500), (16, 50)] {
            let shares = shares_of_a_window(seed, publishers, window);
            assert_fair(&format!("{publishers} in {window}, seed {seed:?}"), &shares);
        }
    }
}

/// A large message that waits for its channel or for room of its own does not keep small ones of
/// other channels.
#[test]
fn large_messages_do_not_hold_up_small_ones() {
    let (mut rig, connection) = Rig::open();
    let large = rig.channel(&connection);
    let small = rig.channel(&connection);
    rig.world().set_capacity(0);
    let body = vec![0; 8 << 20];
    for _ in 0..4 {
        let channel = large.clone();
        let body = body.clone();
        rig.spawn(async move { channel.publish(&to_queue(), &none(), body).await });
    }
    rig.run();
    assert_eq!(
        rig.ready(small.publish(&to_queue(), &none(), "x")),
        Some(Ok(()))
    );
    rig.world().set_capacity(usize::MAX);
    rig.run();
    let arrived: Vec<_> = rig
        .peer()
        .messages()
        .iter()
        .map(|it| it.body.len())
        .collect();
    assert_eq!(arrived, [1, 8 << 20, 8 << 20, 8 << 20, 8 << 20]);
    drop((large, small));
    rig.finish(connection);
}

/// A publish that is given up while it waits, or after its turn has come, passes its room on.
#[test]
fn a_publish_that_is_given_up_passes_its_room_on() {
    for window in [false, true] {
        let mut setup = Setup::default();
        setup.client.limits.unconfirmed = 1;
        let (mut rig, connection) = Rig::open_with(setup);
        let channel = rig.confirm_channel(&connection);
        rig.peer().confirming = amqp_test_support::Confirming::ByHand;
        if window {
            drop(
                rig.wait(channel.publish(&to_queue(), &none(), "0"))
                    .unwrap(),
            );
        } else {
            rig.peer().flow(1, false);
            rig.run();
        }
        let waiting = |rig: &mut Rig, body: &'static str| {
            let channel = channel.clone();
            rig.spawn(async move { channel.publish(&to_queue(), &none(), body).await.map(drop) })
        };
        let first = waiting(&mut rig, "1");
        let second = waiting(&mut rig, "2");
        let third = waiting(&mut rig, "3");
        rig.run();
        // One that waits.
        rig.cancel(&second);
        // A publisher that has its turn and was not polled since.
        if window {
            rig.peer().ack(1, 1, false);
        } else {
            rig.peer().flow(1, true);
        }
        rig.world().step_server();
        rig.poll_driver();
        rig.cancel(&first);
        rig.run();
        assert_eq!(third.take(), Some(Ok(())), "window: {window}");
        drop(channel);
        rig.finish(connection);
    }
}

/// A future that is kept and not polled holds up no other, though its turn has come.
#[test]
fn a_publish_that_is_not_polled_holds_up_no_other() {
    let (mut rig, connection, channel) = Rig::with_channel();
    rig.world().set_capacity(0);
    let body = vec![0; 16_000];
    let mut stuck = Vec::new();
    for _ in 0..100 {
        let channel = channel.clone();
        let body = body.clone();
        let mut publishing =
            Box::pin(async move { channel.publish(&to_queue(), &none(), body).await });
        if amqp_test_support::Probe::new()
            .poll(publishing.as_mut())
            .is_pending()
        {
            stuck.push(publishing);
        }
    }
    assert!(stuck.len() > 50);
    let live = {
        let channel = channel.clone();
        rig.spawn(async move {
            for _ in 0..50 {
                channel
                    .publish(&to_queue(), &none(), vec![1; 16_000])
                    .await?;
            }
            Ok::<_, Error>(())
        })
    };
    rig.world().set_capacity(usize::MAX);
    rig.run();
    assert_eq!(live.take(), Some(Ok(())));
    drop((stuck, channel));
    rig.run();
    rig.finish(connection);
}

/// A publish at once is refused while others wait, with the hold that it would wait for.
#[test]
fn a_publish_at_once_passes_no_other() {
    let (mut rig, connection, channel) = Rig::with_channel();
    assert_eq!(channel.try_publish(&to_queue(), &none(), "1"), Ok(()));
    rig.world().set_capacity(0);
    while channel
        .try_publish(&to_queue(), &none(), vec![0; 16_000])
        .is_ok()
    {}
    let refused = channel.try_publish(&to_queue(), &none(), "2");
    let (hold, body) = (Hold::OutputFull, "2".into());
    assert_eq!(refused, Err(TryPublishError::HeldBack { hold, body }));
    rig.peer().flow(1, false);
    rig.world().set_capacity(usize::MAX);
    rig.run();
    let refused = channel.try_publish(&to_queue(), &none(), "3");
    let (hold, body) = (Hold::ChannelFlow, "3".into());
    assert_eq!(refused, Err(TryPublishError::HeldBack { hold, body }));
    rig.peer().flow(1, true);
    rig.run();
    assert_eq!(channel.try_publish(&to_queue(), &none(), "4"), Ok(()));
    rig.wait(channel.close()).unwrap();
    let refused = channel.try_publish(&to_queue(), &none(), "5");
    assert!(matches!(refused, Err(TryPublishError::Failed(_))));
    drop(channel);
    rig.finish(connection);
}

/// Clones publish alike, and none is surprised by a change of mode.
#[test]
fn a_channel_with_clones_keeps_its_mode() {
    let (mut rig, connection) = Rig::open();
    let pair = |rig: &mut Rig, connection: &Connection| -> (Channel, Channel) {
        let channel = rig.channel(connection);
        (channel.clone(), channel)
    };
    let (kept, channel) = pair(&mut rig, &connection);
    let refused = rig.wait(channel.confirm_select()).map(drop);
    assert_eq!(refused, Err(Error::Misuse(ApiMisuse::ChannelShared)));
    rig.check_channel(&kept);
    let refused = rig.wait(kept.clone().tx_select()).map(drop);
    assert_eq!(refused, Err(Error::Misuse(ApiMisuse::ChannelShared)));
    let confirms = rig.wait(kept.confirm_select()).unwrap();
    let clone = confirms.clone();
    drop(confirms);
    rig.check_channel(&clone);
    drop(clone);
    rig.run();
    assert_eq!(connection.channel_count(), 0);
    rig.finish(connection);
}

/// A publish at once waits its turn: it does not take the room that came free for one that waits.
#[test]
fn a_publish_at_once_does_not_pass_those_that_wait() {
    let mut setup = Setup::default();
    setup.client.limits.unconfirmed = 1;
    let (mut rig, connection) = Rig::open_with(setup);
    let channel = rig.confirm_channel(&connection);
    rig.peer().confirming = amqp_test_support::Confirming::ByHand;
    let (to, properties) = (to_queue(), none());
    let first = rig.wait(channel.publish(&to, &properties, "1"));
    let mut waiting = Box::pin(channel.publish(&to, &properties, "2"));
    let probe = amqp_test_support::Probe::new();
    assert!(probe.poll(waiting.as_mut()).is_pending());
    rig.run();
    rig.peer().ack(1, 1, false);
    rig.world().step_server();
    rig.poll_driver();
    assert!(probe.take(), "there is room");
    let refused = channel.try_publish(&to, &properties, "3").map(drop);
    assert!(matches!(refused, Err(TryPublishError::HeldBack { .. })));
    assert!(probe.poll(waiting.as_mut()).is_ready());
    rig.run();
    let bodies: Vec<_> = rig
        .peer()
        .messages()
        .into_iter()
        .map(|it| it.body)
        .collect();
    assert_eq!(bodies, ["1", "2"]);
    drop((first, waiting));
    drop(channel);
    rig.run();
    rig.finish(connection);
}
