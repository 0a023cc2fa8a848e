//! Prepared publishes: the same as others in all but the encoding.

use std::{rc::Rc, task::Poll, time::Duration};

use amqp_driver::{
    Body, ConfirmChannel, Connection, Error, PreparedPublish, TryPublishError, Unconfirmed,
    core::{ApiMisuse, CloseCause, Hold, TimeoutReason, wire::ShortStr},
    protocol::basic,
};
use amqp_test_support::{Confirming, Cut, Message, Probe, Rig, Setup};

fn to(key: &str) -> PreparedPublish {
    let publish = basic::Publish::default().routing_key(key).mandatory(true);
    PreparedPublish::new(publish, &basic::Properties::default().persistent()).unwrap()
}

fn open(change: impl FnOnce(&mut Setup)) -> (Rig, Connection, Rc<ConfirmChannel>) {
    let mut setup = Setup::default();
    change(&mut setup);
    let (mut rig, connection) = Rig::open_with(setup);
    let channel = rig.confirm_channel(&connection);
    rig.peer().confirming = Confirming::ByHand;
    (rig, connection, Rc::new(channel))
}

/// Each confirm has the outcome of its own publish, also beside publishes that are not prepared, and
/// on channels of other modes the messages arrive the same.
#[test]
fn each_has_its_outcome() {
    let (mut rig, connection, channel) = open(|_| {});
    let publish = basic::Publish::default().routing_key("q").mandatory(true);
    let persistent = basic::Properties::default().persistent();
    let mut confirms = Vec::new();
    for number in 0..6 {
        let body = number.to_string();
        let confirm = if number % 2 == 0 {
            rig.wait(channel.publish_prepared(&to("q"), body))
        } else {
            rig.wait(channel.publish(&publish, &persistent, body))
        };
        confirms.push(confirm.unwrap());
    }
    confirms.push(channel.try_publish_prepared(&to("q"), "6").unwrap());
    rig.run();
    let messages: Vec<Message> = rig.peer().messages();
    {
        let mut peer = rig.peer();
        peer.return_message(1, &messages[2]);
        peer.ack(1, 4, true);
        peer.nack(1, 5, false);
        peer.ack(1, 7, true);
    }
    rig.run();
    for (number, confirm) in confirms.into_iter().enumerate() {
        match (number, rig.wait(confirm)) {
            (2, Err(Unconfirmed::Returned(message))) => {
                assert_eq!((&*message.routing_key, message.body.len()), ("q", 1));
                assert_eq!(message.body, "2");
            }
            (4, Err(Unconfirmed::Nacked { .. })) | (0 | 1 | 3 | 5 | 6, Ok(())) => {}
            other => panic!("{other:?}"),
        }
    }
    let (plain, transactional) = (rig.channel(&connection), rig.tx_channel(&connection));
    rig.wait(plain.publish_prepared(&to("q"), "7")).unwrap();
    plain.try_publish_prepared(&to("q"), "8").unwrap();
    rig.wait(transactional.publish_prepared(&to("q"), "9"))
        .unwrap();
    transactional.try_publish_prepared(&to("q"), "10").unwrap();
    rig.run();
    let bodies: Vec<_> = rig
        .peer()
        .messages()
        .into_iter()
        .map(|it| it.body)
        .collect();
    let expected = ["0", "1", "2", "3", "4", "5", "6", "7", "8", "9", "10"];
    assert_eq!(bodies, expected);
    drop((channel, plain, transactional));
    rig.finish(connection);
}

/// The window of unconfirmed publishes counts them, and they wait in line with the others.
#[test]
fn the_window_holds_them_back() {
    let (mut rig, connection, channel) = open(|setup| setup.client.limits.unconfirmed = 2);
    let tasks: Vec<_> = (1..=6)
        .map(|number: u32| {
            let channel = Rc::clone(&channel);
            rig.spawn(async move {
                let publish = basic::Publish::default().routing_key("q");
                let (none, body) = (basic::Properties::default(), number.to_string());
                let published = match number % 2 {
                    0 => channel.publish_prepared(&to("q"), body).await,
                    _ => channel.publish(&publish, &none, body).await,
                };
                drop(published.unwrap());
            })
        })
        .collect();
    let done = || tasks.iter().filter(|task| task.is_done()).count();
    rig.run();
    assert_eq!((done(), rig.peer().messages().len()), (2, 2));
    let refused = channel.try_publish_prepared(&to("q"), "x");
    let hold = Hold::TooManyUnconfirmed;
    assert!(matches!(
        refused,
        Err(TryPublishError::HeldBack { hold: it, body }) if it == hold && body == "x"
    ));
    for count in [3, 4] {
        rig.peer().ack(1, count - 2, false);
        rig.run();
        assert_eq!(done() as u64, count);
    }
    rig.peer().ack(1, 4, true);
    rig.run();
    let bodies: Vec<_> = rig
        .peer()
        .messages()
        .into_iter()
        .map(|it| it.body)
        .collect();
    assert_eq!(bodies, ["1", "2", "3", "4", "5", "6"]);
    drop((tasks, channel));
    rig.finish(connection);
}

/// `channel.flow` and `connection.blocked` hold them back, and the timeout of a publish ends the wait.
#[test]
fn flow_holds_them_back() {
    let limit = Duration::from_secs(5);
    let (mut rig, connection, channel) = open(|setup| setup.client.timeouts.publish = Some(limit));
    rig.peer().flow(1, false);
    rig.run();
    let waiting = Rc::clone(&channel);
    let paused = rig.spawn(async move { waiting.publish_prepared(&to("q"), "paused").await });
    rig.run();
    assert!(!paused.is_done());
    rig.peer().machine.block(ShortStr::default()).unwrap();
    rig.peer().flow(1, true);
    rig.run();
    assert!(connection.is_blocked() && !paused.is_done());
    rig.peer().machine.unblock().unwrap();
    rig.run();
    let confirm = paused.take().unwrap().unwrap();
    rig.peer().ack(1, 1, false);
    assert_eq!(rig.wait(confirm), Ok(()));
    rig.peer().flow(1, false);
    rig.run();
    let waiting = Rc::clone(&channel);
    let late = rig.spawn(async move { waiting.publish_prepared(&to("q"), "late").await });
    rig.advance(limit + Duration::from_secs(1));
    let timed_out = Error::TimedOut {
        reason: TimeoutReason::Publish,
        channel: Some(1),
    };
    assert_eq!(late.take().map(|it| it.map(drop)), Some(Err(timed_out)));
    assert_eq!(rig.peer().messages().len(), 1);
    drop(channel);
    rig.finish(connection);
}

/// The limits of bodies and frames are those of the connection that publishes.
#[test]
fn sizes_are_checked_where_they_are_published() {
    let (mut rig, connection, channel) = open(|setup| setup.client.limits.body = 10_000);
    let body = vec![7; 10_000];
    let confirm = rig.wait(channel.publish_prepared(&to("q"), body.clone()));
    rig.run();
    assert_eq!(rig.peer().messages()[0].body, body);
    rig.peer().ack(1, 1, false);
    assert_eq!(rig.wait(confirm.unwrap()), Ok(()));
    let larger = rig.wait(channel.publish_prepared(&to("q"), vec![7; 10_001]));
    let (len, limit) = (10_001, 10_000);
    let misuse = ApiMisuse::BodyTooLarge { len, limit };
    assert_eq!(larger.map(drop), Err(misuse.into()));
    let long = basic::Publish::default().routing_key("x".repeat(256));
    let long = PreparedPublish::new(long, &basic::Properties::default());
    assert!(matches!(long, Err(ApiMisuse::TextTooLong { .. })));
    drop(channel);
    rig.finish(connection);
}

/// A publish that waits is dropped whole, one that the connection loses is in doubt, and a later one
/// fails.
#[test]
fn the_end_of_the_connection_ends_them() {
    let (mut rig, connection, channel) = open(|_| {});
    let confirm = rig.wait(channel.publish_prepared(&to("q"), "x")).unwrap();
    rig.peer().flow(1, false);
    rig.run();
    let publish = to("q");
    let mut dropped = Box::pin(channel.publish_prepared(&publish, Body::from("y")));
    assert!(matches!(Probe::new().poll(dropped.as_mut()), Poll::Pending));
    drop(dropped);
    rig.peer().flow(1, true);
    rig.run();
    assert_eq!(rig.peer().messages().len(), 1);
    rig.world().cut(Cut::Eof);
    let Err(Unconfirmed::Unknown(reason)) = rig.wait(confirm) else {
        panic!("it is in doubt");
    };
    let of_connection = CloseCause::Connection(connection.close_reason().unwrap());
    assert_eq!(*reason.cause(), of_connection);
    let refused = rig.wait(channel.publish_prepared(&to("q"), "z"));
    assert!(matches!(refused, Err(Error::ConnectionClosed(_))));
}
