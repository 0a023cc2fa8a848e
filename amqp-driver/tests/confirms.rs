//! A confirm has the outcome of its own publish, in any order of the confirms.

use std::{collections::BTreeMap, sync::Arc, task::Poll, time::Duration};

use amqp_driver::{
    Confirm, ConfirmChannel, Error, Unconfirmed,
    core::{
        CloseCause,
        wire::{FieldTable, ShortStr},
    },
    protocol::{ReplyCode, basic},
};
use amqp_test_support::{Cut, Message, Probe, Rig, Setup};
use bytes::Bytes;

fn to(key: &str) -> basic::Publish {
    basic::Publish::default().routing_key(key)
}

fn publish(rig: &mut Rig, channel: &ConfirmChannel, body: impl Into<Bytes>) -> Confirm {
    let none = basic::Properties::default();
    rig.wait(channel.publish(&to("q"), &none, body.into()))
        .unwrap()
}

/// Publishes bodies "1", "2" and so on, mandatory, each with a key of its own.
fn publish_many(rig: &mut Rig, channel: &ConfirmChannel, count: usize) -> Vec<Confirm> {
    let none = basic::Properties::default();
    (1..=count)
        .map(|number| {
            let body = number.to_string();
            let to = to(&body).mandatory(true);
            rig.wait(channel.publish(&to, &none, body)).unwrap()
        })
        .collect()
}

/// The outcome of each confirm so far.
fn outcomes(confirms: &mut [Confirm]) -> Vec<Option<Result<(), Unconfirmed>>> {
    let mut outcomes = Vec::new();
    for confirm in confirms {
        let poll = Probe::new().poll(std::pin::Pin::new(confirm));
        outcomes.push(match poll {
            Poll::Ready(outcome) => Some(outcome),
            Poll::Pending => None,
        });
    }
    outcomes
}

#[test]
fn each_confirm_has_its_outcome() {
    let (mut rig, connection, channel) = Rig::with_confirms();
    let mut confirms = publish_many(&mut rig, &channel, 8);
    let numbers: Vec<_> = confirms.iter().map(|it| it.seq().unwrap().get()).collect();
    assert_eq!(numbers, [1, 2, 3, 4, 5, 6, 7, 8]);
    rig.run();
    let acked = || Some(Ok(()));
    let nacked = || Some(Err(Unconfirmed::Nacked { channel: 1 }));
    {
        let mut peer = rig.peer();
        peer.ack(1, 3, false);
        peer.nack(1, 2, true);
        peer.ack(1, 8, false);
        // A settled publish stays as it is.
        peer.nack(1, 3, false);
        peer.ack(1, 1, false);
        peer.ack(1, 5, true);
    }
    rig.run();
    let expected = [
        nacked(),
        nacked(),
        acked(),
        acked(),
        acked(),
        None,
        None,
        acked(),
    ];
    assert_eq!(outcomes(&mut confirms), expected);
    assert_eq!(confirms[0].seq(), None);
    rig.peer().nack(1, 7, true);
    rig.run();
    assert_eq!(outcomes(&mut confirms[5..7]), [nacked(), nacked()]);
    drop((confirms, channel));
    rig.finish(connection);
}

/// REG-2: returns, and confirms for several at once, in between.
#[test]
fn returns_find_their_publish() {
    let (mut rig, connection, channel) = Rig::with_confirms();
    let mut confirms = publish_many(&mut rig, &channel, 6);
    rig.run();
    let messages: Vec<Message> = rig.peer().messages();
    {
        let mut peer = rig.peer();
        peer.return_message(1, &messages[1]);
        peer.ack(1, 1, false);
        peer.return_message(1, &messages[3]);
        peer.return_message(1, &messages[4]);
    }
    rig.run();
    assert_eq!(outcomes(&mut confirms[..1]), [Some(Ok(()))]);
    assert_eq!(outcomes(&mut confirms[1..]), [const { None }; 5]);
    {
        let mut peer = rig.peer();
        peer.ack(1, 4, true);
        peer.nack(1, 5, false);
        peer.ack(1, 6, false);
    }
    rig.run();
    let outcomes = outcomes(&mut confirms[1..]);
    let returned = |outcome: &Option<Result<(), Unconfirmed>>| match outcome {
        Some(Err(Unconfirmed::Returned(message))) => {
            assert_eq!(message.code, ReplyCode::NO_ROUTE);
            assert_eq!(message.body, message.routing_key.as_str());
            message.body.to_vec()
        }
        other => panic!("{other:?}"),
    };
    assert_eq!(returned(&outcomes[0]), b"2");
    assert_eq!(outcomes[1], Some(Ok(())));
    assert_eq!(returned(&outcomes[2]), b"4");
    assert_eq!(outcomes[3], Some(Err(Unconfirmed::Nacked { channel: 1 })));
    assert_eq!(outcomes[4], Some(Ok(())));
    drop((confirms, channel));
    rig.finish(connection);
}

/// RabbitMQ removes the header `BCC`, so that a message with it and one without come back alike.
#[test]
fn publishes_that_may_have_been_returned_are_not_confirmed() {
    let (mut rig, connection, channel) = Rig::with_confirms();
    let publish = |key: &str| basic::Publish::default().routing_key(key).mandatory(true);
    let plain = basic::Properties::default();
    let copies = FieldTable::new().with("BCC", vec!["elsewhere".into()]);
    let copied = plain.clone().headers(copies);
    let mut confirms = Vec::new();
    for (key, properties) in [("k", &copied), ("k", &plain), ("other", &plain)] {
        let publish = publish(key);
        confirms.push(
            rig.wait(channel.publish(&publish, properties, "x"))
                .unwrap(),
        );
    }
    rig.run();
    let message = rig.peer().messages().remove(1);
    rig.peer().return_message(1, &message);
    rig.peer().ack(1, 3, true);
    rig.run();
    let outcomes = outcomes(&mut confirms);
    for outcome in &outcomes[..2] {
        let Some(Err(Unconfirmed::PossiblyReturned(Some(message)))) = outcome else {
            panic!("{outcome:?}");
        };
        assert_eq!(
            (message.routing_key.as_str(), &message.body),
            ("k", &"x".into())
        );
    }
    assert_eq!(outcomes[2], Some(Ok(())));
    drop((confirms, channel));
    rig.finish(connection);
}

/// A message came back, and then the connection went, or the channel, before its confirm.
#[test]
fn returned_messages_are_not_in_doubt() {
    for by_channel in [false, true] {
        let (mut rig, connection, channel) = Rig::with_confirms();
        let mut confirms = publish_many(&mut rig, &channel, 2);
        rig.run();
        let message = rig.peer().messages().remove(0);
        rig.peer().return_message(1, &message);
        rig.run();
        if by_channel {
            rig.peer().close_channel(1, ReplyCode::NOT_FOUND, "gone");
        } else {
            rig.world().cut(Cut::Eof);
        }
        rig.run();
        assert!(!channel.is_open() && connection.is_open() == by_channel);
        let outcomes = outcomes(&mut confirms);
        assert!(
            matches!(
                &outcomes[..],
                [
                    Some(Err(Unconfirmed::Returned(returned))),
                    Some(Err(Unconfirmed::Unknown(_))),
                ] if returned.body == "1"
            ),
            "{outcomes:?}"
        );
    }
}

/// SER-26, SER-35: a return and its ack disturb nothing that follows on the channel.
#[test]
fn a_return_disturbs_nothing() {
    let (mut rig, connection, channel) = Rig::with_confirms();
    rig.peer().unroutable = true;
    rig.peer().confirming = amqp_test_support::Confirming::AtOnce;
    rig.peer().gettable = [Bytes::from("fetched")].into();
    let confirm = publish_many(&mut rig, &channel, 1).remove(0);
    let outcome = rig.wait(confirm);
    assert!(
        matches!(outcome, Err(Unconfirmed::Returned(_))),
        "{outcome:?}"
    );
    assert!(channel.is_open());
    let fetched = rig
        .wait(channel.get(basic::Get::default()))
        .unwrap()
        .unwrap();
    assert_eq!(fetched.body, "fetched");
    fetched.ack().unwrap();
    drop(channel);
    rig.finish(connection);
}

/// REG-4: out of order, and all are awaited, in any order and at once.
#[test]
fn confirms_can_be_awaited_in_any_order() {
    const COUNT: usize = 60;
    for seed in 1..30 {
        let (mut rig, connection, channel) = Rig::with_confirms();
        rig.order = amqp_test_support::Order::Random(seed);
        let mut confirms = publish_many(&mut rig, &channel, COUNT);
        let mut state = seed;
        let mut random = |below: usize| {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            usize::try_from(state >> 33).unwrap() % below
        };
        let mut tasks = BTreeMap::new();
        while !confirms.is_empty() {
            let confirm = confirms.swap_remove(random(confirms.len()));
            let number = usize::try_from(confirm.seq().unwrap().get()).unwrap();
            if random(4) == 0 {
                // This one is not awaited.
                drop(confirm);
            } else {
                tasks.insert(number, rig.spawn(confirm));
            }
        }
        let mut truth = [None; COUNT + 1];
        while let Some(first) = (1..=COUNT).find(|&number| truth[number].is_none()) {
            let number = first + random(COUNT + 1 - first);
            let (multiple, acked) = (random(3) == 0, random(2) == 0);
            let from = if multiple { first } else { number };
            for slot in &mut truth[from..=number] {
                slot.get_or_insert(acked);
            }
            let seq = number as u64;
            if acked {
                rig.peer().ack(1, seq, multiple);
            } else {
                rig.peer().nack(1, seq, multiple);
            }
            if random(2) == 0 {
                rig.run();
            }
        }
        rig.run();
        for (number, task) in tasks {
            let expected = match truth[number] {
                Some(true) => Ok(()),
                _ => Err(Unconfirmed::Nacked { channel: 1 }),
            };
            assert_eq!(task.take(), Some(expected), "{number}, {seed}");
        }
        drop(channel);
        rig.finish(connection);
    }
}

/// A publish that is said not to have been sent was not; one that is confirmed was. The transport
/// stops taking bytes at every point, with large and small messages under way, and then is cut.
#[test]
fn unsent_publishes_are_not_sent() {
    const LENGTHS: [usize; 6] = [10, 5000, 0, 100, 9000, 20];
    let (mut not_sent, mut unknown, mut acked) = (0, 0, 0);
    for bytes in (0..16_000).step_by(3) {
        let mut setup = Setup::default();
        setup.server.frame_max = 4096;
        setup.server.frame_min = 4096;
        let (mut rig, connection) = Rig::open_with(setup);
        let channel = rig.confirm_channel(&connection);
        rig.peer().deaf = true;
        // So much fits into the transport.
        rig.world().capacity = bytes;
        let mut confirms = Vec::new();
        for (number, len) in (0..).zip(LENGTHS) {
            let mut body = vec![number; len];
            body.push(number);
            confirms.push((number, publish(&mut rig, &channel, body)));
            // Some are given together, some after a while.
            if bytes & (1 << number) != 0 {
                rig.run();
            }
        }
        rig.run();
        {
            let mut world = rig.world();
            world.peer.deaf = false;
            world.peer.mute = bytes % 2 == 0;
            world.capacity = 0;
            world.step_server();
        }
        rig.run();
        rig.world().cut(Cut::Reset);
        rig.run();
        let arrived: Vec<u8> = rig.peer().messages().iter().map(|it| it.body[0]).collect();
        for (number, confirm) in confirms {
            match rig.wait(confirm) {
                Ok(()) => {
                    assert!(arrived.contains(&number), "{number} at {bytes}");
                    acked += 1;
                }
                Err(Unconfirmed::NotSent(_)) => {
                    assert!(!arrived.contains(&number), "{number} at {bytes}");
                    not_sent += 1;
                }
                Err(Unconfirmed::Unknown(_)) => unknown += 1,
                Err(other) => panic!("{other:?}"),
            }
        }
    }
    // All were seen.
    assert!(
        not_sent > 1000 && unknown > 1000 && acked > 1000,
        "{not_sent} {unknown} {acked}"
    );
}

/// Accepted publishes are sent before the channel is closed, so that they are not reported as
/// unsent.
#[test]
fn publishes_that_leave_before_a_close_are_not_reported_as_unsent() {
    for large in [false, true] {
        for of_connection in [false, true] {
            let (mut rig, connection, channel) = Rig::with_confirms();
            let len = if large { 400_000 } else { 10 };
            let confirms: Vec<_> = (0..3)
                .filter_map(|_| {
                    let body = vec![7; len];
                    let to = to("q");
                    let none = basic::Properties::default();
                    let mut publishing = Box::pin(channel.publish(&to, &none, body));
                    match Probe::new().poll(publishing.as_mut()) {
                        Poll::Ready(confirm) => Some(confirm.unwrap()),
                        Poll::Pending => None,
                    }
                })
                .collect();
            if of_connection {
                rig.wait(connection.close()).unwrap();
            } else {
                rig.wait(channel.close()).unwrap();
            }
            assert_eq!(rig.peer().messages().len(), confirms.len());
            for confirm in confirms {
                let outcome = rig.wait(confirm);
                assert!(
                    matches!(outcome, Err(Unconfirmed::Unknown(_))),
                    "{outcome:?}"
                );
            }
            drop(channel);
            rig.finish(connection);
        }
    }
}

#[test]
fn a_channel_that_the_server_closes_leaves_its_publishes_in_doubt() {
    let (mut rig, connection, channel) = Rig::with_confirms();
    let sent = publish(&mut rig, &channel, "sent");
    rig.run();
    // This one has not left the client when it learns of the end.
    rig.world().set_capacity(0);
    channel.recover_async(true).unwrap();
    rig.run();
    let unsent = publish(&mut rig, &channel, "unsent");
    rig.peer()
        .close_channel(1, ReplyCode::NOT_FOUND, "no exchange");
    rig.run();
    let Err(Unconfirmed::Unknown(reason)) = rig.wait(sent) else {
        panic!("it is in doubt");
    };
    assert_eq!(reason.code(), Some(ReplyCode::NOT_FOUND));
    let Err(Unconfirmed::NotSent(again)) = rig.wait(unsent) else {
        panic!("it was not sent");
    };
    assert_eq!(again, reason);
    assert_eq!(channel.close_reason(), Some(reason.clone()));
    let (to, none) = (to("q"), basic::Properties::default());
    let refused = rig.wait(channel.publish(&to, &none, "x")).unwrap_err();
    assert_eq!(refused, Error::ChannelClosed(reason));
    rig.world().set_capacity(usize::MAX);
    rig.run();
    rig.check_usable(&connection);
    drop(channel);
    rig.finish(connection);
}

/// The window of unconfirmed publishes: one more waits until there is room, whether or not the
/// confirms are awaited.
#[test]
fn the_window_holds_publishes_back() {
    let mut setup = Setup::default();
    setup.client.limits.unconfirmed = 3;
    let (mut rig, connection) = Rig::open_with(setup);
    let channel = std::rc::Rc::new(rig.confirm_channel(&connection));
    rig.peer().confirming = amqp_test_support::Confirming::ByHand;
    let tasks: Vec<_> = (1..=8)
        .map(|number| {
            let channel = std::rc::Rc::clone(&channel);
            rig.spawn(async move {
                let none = basic::Properties::default();
                let body = format!("{number}");
                drop(channel.publish(&to("q"), &none, body).await.unwrap());
            })
        })
        .collect();
    let done = || tasks.iter().filter(|task| task.is_done()).count();
    rig.run();
    assert_eq!((done(), rig.peer().messages().len()), (3, 3));
    // One that is confirmed before the first makes room as any other does.
    rig.peer().ack(1, 2, false);
    rig.run();
    assert_eq!((done(), rig.peer().messages().len()), (4, 4));
    rig.peer().nack(1, 1, false);
    rig.run();
    assert_eq!((done(), rig.peer().messages().len()), (5, 5));
    rig.peer().ack(1, 5, true);
    rig.run();
    assert_eq!((done(), rig.peer().messages().len()), (8, 8));
    let bodies: Vec<_> = rig
        .peer()
        .messages()
        .into_iter()
        .map(|it| it.body)
        .collect();
    assert_eq!(bodies, ["1", "2", "3", "4", "5", "6", "7", "8"]);
    drop((tasks, channel));
    rig.finish(connection);
}

/// Waiting publishes are woken in the order in which they came, and only on the channel that has room. A
/// turn that is not used passes on, and a turn is one publish.
#[test]
fn room_to_publish_goes_to_the_first_that_uses_it() {
    let mut setup = Setup::default();
    setup.client.limits.unconfirmed = 1;
    let (mut rig, connection) = Rig::open_with(setup);
    let (channel, other) = (
        rig.confirm_channel(&connection),
        rig.confirm_channel(&connection),
    );
    rig.peer().confirming = amqp_test_support::Confirming::ByHand;
    let (to, none) = (to("q"), basic::Properties::default());
    let before = [&channel, &other].map(|it| rig.wait(it.publish(&to, &none, "1")).unwrap());
    let mut elsewhere = Box::pin(other.publish(&to, &none, "2"));
    let waits_elsewhere = Probe::new();
    assert!(waits_elsewhere.poll(elsewhere.as_mut()).is_pending());
    let mut waiting: Vec<_> = (0..50)
        .map(|_| {
            let mut publish = Box::pin(channel.publish(&to, &none, "2"));
            let probe = Probe::new();
            assert!(probe.poll(publish.as_mut()).is_pending());
            (probe, publish)
        })
        .collect();
    let woken = |waiting: &[(Arc<Probe>, _)]| waiting.iter().filter(|it| it.0.take()).count();
    rig.run();
    assert_eq!(woken(&waiting), 0);
    rig.peer().ack(1, 1, false);
    rig.run();
    let (first, publish) = waiting.remove(0);
    assert!(first.take());
    drop(publish);
    rig.run();
    let (second, mut publish) = waiting.remove(0);
    assert!(second.take());
    assert!(matches!(second.poll(publish.as_mut()), Poll::Ready(Ok(_))));
    for (probe, publish) in &mut waiting {
        probe.take();
        assert!(
            probe.poll(publish.as_mut()).is_pending(),
            "the room is taken"
        );
    }
    rig.run();
    assert_eq!(woken(&waiting), 0);
    assert!(!waits_elsewhere.take());
    drop((publish, waiting, elsewhere));
    drop((before, channel, other));
    rig.finish(connection);
}

/// A channel in confirm mode also publishes without confirms: such a publish has no confirm to wait
/// for, and the numbers of the others are right.
#[test]
fn publishing_without_waiting_for_the_confirm() {
    let (mut rig, connection, channel) = Rig::with_confirms();
    let none = basic::Properties::default();
    drop(rig.wait(channel.publish(&to("q"), &none, "1")).unwrap());
    let second = publish(&mut rig, &channel, "2");
    drop(rig.wait(channel.publish(&to("q"), &none, "3")).unwrap());
    assert_eq!(second.seq().unwrap().get(), 2);
    rig.run();
    rig.peer().nack(1, 1, false);
    rig.peer().ack(1, 3, true);
    assert_eq!(rig.wait(second), Ok(()));
    drop(channel);
    rig.finish(connection);
}

/// A returned message without an awaited confirm goes to the listener.
#[test]
fn returns_of_abandoned_confirms() {
    let (mut rig, connection, channel) = Rig::with_confirms();
    let mut returns = channel.returns();
    let mut confirms = publish_many(&mut rig, &channel, 2);
    drop(confirms.remove(0));
    rig.run();
    let messages = rig.peer().messages();
    for (number, message) in (1..).zip(&messages) {
        rig.peer().return_message(1, message);
        rig.peer().ack(1, number, false);
    }
    assert_eq!(rig.wait(returns.next()).unwrap().body, "1");
    let outcome = rig.wait(confirms.remove(0));
    assert!(matches!(outcome, Err(Unconfirmed::Returned(_))));
    drop((returns, channel));
    rig.finish(connection);
}

/// Publishes that the server holds back leave later, in order: blocked connection, paused channel.
#[test]
fn holding_back_is_not_losing() {
    let mut setup = Setup::default();
    setup.client.timeouts.publish = None;
    setup.client.timeouts.confirm = None;
    let (mut rig, connection) = Rig::open_with(setup);
    let channel = rig.confirm_channel(&connection);
    let channel = std::rc::Rc::new(channel);
    let other = std::rc::Rc::new(rig.channel(&connection));
    rig.peer().flow(1, false);
    rig.run();
    let (held, to_held) = (rig.peer().messages().len(), std::rc::Rc::clone(&channel));
    let paused = rig.spawn(async move {
        to_held
            .publish(&to("q"), &basic::Properties::default(), "paused")
            .await
    });
    let free = std::rc::Rc::clone(&other);
    let unpaused = rig.spawn(async move {
        free.publish(&to("q"), &basic::Properties::default(), "free")
            .await
    });
    rig.run();
    // Only that channel is paused.
    assert!(!paused.is_done() && unpaused.is_done());
    assert_eq!(rig.peer().messages().len(), held + 1);
    rig.peer().machine.block(ShortStr::default()).unwrap();
    rig.peer().flow(1, true);
    rig.run();
    assert!(connection.is_blocked() && !paused.is_done());
    // Requests and acknowledgements go on.
    rig.check_channel(&channel);
    rig.advance(Duration::from_secs(100));
    rig.peer().machine.unblock().unwrap();
    rig.run();
    let confirm = paused.take().unwrap().unwrap();
    rig.peer().ack(1, 1, false);
    assert_eq!(rig.wait(confirm), Ok(()));
    drop((channel, other));
    rig.finish(connection);
}

/// The reason of a channel that ended with its connection names the connection's.
#[test]
fn unknown_says_why() {
    let (mut rig, connection, channel) = Rig::with_confirms();
    let confirm = publish(&mut rig, &channel, "x");
    rig.run();
    rig.world().cut(Cut::Eof);
    let Err(Unconfirmed::Unknown(reason)) = rig.wait(confirm) else {
        panic!("it is in doubt");
    };
    let of_connection = CloseCause::Connection(connection.close_reason().unwrap());
    assert_eq!(*reason.cause(), of_connection);
}
