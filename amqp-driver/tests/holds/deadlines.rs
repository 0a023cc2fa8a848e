//! Every wait ends: at the deadline of its option, or of the call.

use std::time::Duration;

use amqp_driver::{
    CloseReason, Error, Unconfirmed,
    core::{CloseCause, TimeoutReason},
};
use amqp_test_support::{Rig, Setup};

use crate::{none, to_queue};

const SECOND: Duration = Duration::from_secs(1);

fn timed_out(reason: &CloseReason) -> bool {
    *reason.cause() == CloseCause::TimedOut(TimeoutReason::Confirm)
}

/// A server that reads nothing: a publish without room times out, and was not sent.
#[test]
fn a_publish_that_is_held_back_ends() {
    let (mut rig, connection, channel) = Rig::with_channel();
    rig.world().set_capacity(0);
    let full = vec![0; 100_000];
    // The driver takes some out of the machine.
    for _ in 0..3 {
        while rig
            .ready(channel.publish(&to_queue(), &none(), full.clone()))
            .is_some()
        {}
        rig.run();
    }
    let waiting = {
        let channel = channel.clone();
        rig.spawn(async move { channel.publish(&to_queue(), &none(), "late").await })
    };
    rig.advance(59 * SECOND);
    assert!(!waiting.is_done());
    rig.advance(2 * SECOND);
    let late = Err(Error::TimedOut {
        reason: TimeoutReason::Publish,
        channel: Some(1),
    });
    assert_eq!(waiting.take(), Some(late));
    rig.world().set_capacity(usize::MAX);
    rig.run();
    assert!(rig.peer().messages().iter().all(|it| it.body.len() > 4));
    rig.check_usable(&connection);
    drop(channel);
    rig.finish(connection);
}

/// So is one that the server holds back with `connection.blocked` or `channel.flow`.
#[test]
fn a_publish_that_the_server_holds_back_ends() {
    for by_flow in [false, true] {
        let (mut rig, connection, channel) = Rig::with_channel();
        if by_flow {
            rig.peer().flow(1, false);
        } else {
            let reason = "memory".parse().unwrap();
            rig.peer().machine.block(reason).unwrap();
        }
        rig.run();
        let waiting = {
            let channel = channel.clone();
            rig.spawn(async move { channel.publish(&to_queue(), &none(), "late").await })
        };
        rig.advance(61 * SECOND);
        let late = Err(Error::TimedOut {
            reason: TimeoutReason::Publish,
            channel: Some(1),
        });
        assert_eq!(waiting.take(), Some(late));
        if by_flow {
            rig.peer().flow(1, true);
        } else {
            rig.peer().machine.unblock().unwrap();
        }
        rig.run();
        assert!(rig.peer().messages().is_empty());
        rig.wait(channel.publish(&to_queue(), &none(), "x"))
            .unwrap();
        drop(channel);
        rig.finish(connection);
    }
}

#[test]
fn a_flush_ends() {
    let (mut rig, connection, channel) = Rig::with_channel();
    rig.world().set_capacity(0);
    rig.wait(channel.publish(&to_queue(), &none(), "x"))
        .unwrap();
    let flushing = {
        let connection = connection.clone();
        rig.spawn(async move { connection.flush().await })
    };
    rig.advance(29 * SECOND);
    assert!(!flushing.is_done());
    rig.advance(2 * SECOND);
    let late = Err(Error::TimedOut {
        reason: TimeoutReason::Flush,
        channel: None,
    });
    assert_eq!(flushing.take(), Some(late));
    rig.world().set_capacity(usize::MAX);
    rig.run();
    assert_eq!(rig.wait(connection.flush()), Ok(()));
    drop(channel);
    rig.finish(connection);
}

/// A confirm that never comes times out, awaited or not, and makes room in the window.
#[test]
fn a_confirm_that_never_comes_makes_room() {
    let mut setup = Setup::default();
    setup.client.limits.unconfirmed = 2;
    setup.client.timeouts.publish = None;
    let (mut rig, connection) = Rig::open_with(setup);
    let channel = rig.confirm_channel(&connection);
    rig.peer().confirming = amqp_test_support::Confirming::ByHand;
    let awaited = rig
        .wait(channel.publish(&to_queue(), &none(), "1"))
        .unwrap();
    let awaited = rig.spawn(awaited);
    drop(
        rig.wait(channel.publish(&to_queue(), &none(), "2"))
            .unwrap(),
    );
    let third = {
        let channel = channel.clone();
        rig.spawn(async move { channel.publish(&to_queue(), &none(), "3").await })
    };
    rig.advance(70 * SECOND);
    let Some(Err(Unconfirmed::Unknown(reason))) = awaited.take() else {
        panic!("no event of it");
    };
    assert!(timed_out(&reason), "{reason}");
    let third = third.take().expect("there is room").unwrap();
    // A late confirm is of no consequence.
    rig.peer().ack(1, 2, true);
    rig.peer().ack(1, 3, false);
    assert_eq!(rig.wait(third), Ok(()));
    drop(channel);
    rig.finish(connection);
}

/// The deadline of a single call, by the connection's clock.
#[test]
fn a_call_has_a_deadline_of_its_own() {
    let (mut rig, connection, channel) = Rig::with_confirms();
    let confirm = rig
        .wait(channel.publish(&to_queue(), &none(), "x"))
        .unwrap();
    let confirm = rig.spawn(confirm.within(2 * SECOND));
    rig.peer().mute = true;
    let opening = {
        let connection = connection.clone();
        rig.spawn(async move {
            connection
                .within(3 * SECOND, connection.open_channel())
                .await
        })
    };
    rig.advance(Duration::from_millis(1900));
    assert!(!confirm.is_done());
    rig.advance(Duration::from_millis(200));
    let Some(Err(Unconfirmed::Unknown(reason))) = confirm.take() else {
        panic!("no event of it");
    };
    assert!(timed_out(&reason), "{reason}");
    assert!(!opening.is_done());
    rig.advance(SECOND);
    assert!(opening.take().expect("its time is over").is_none());
    rig.peer().mute = false;
    rig.run();
    // In time it is nothing but the call.
    let opened = rig.wait(connection.within(SECOND, connection.open_channel()));
    drop(opened.unwrap().unwrap());
    drop(channel);
    rig.run();
    rig.finish(connection);
}

/// On a connection that has ended no clock runs, and no deadline is waited for.
#[test]
fn a_deadline_ends_with_the_connection() {
    let (mut rig, connection, channel) = Rig::with_channel();
    let waiting = {
        let connection = connection.clone();
        let never = std::future::pending::<()>();
        rig.spawn(async move { connection.within(1000 * SECOND, never).await })
    };
    rig.run();
    connection.abort();
    rig.run();
    assert_eq!(waiting.take(), Some(None));
    let never = std::future::pending::<()>();
    assert_eq!(rig.wait(connection.within(1000 * SECOND, never)), None);
    drop(channel);
}
