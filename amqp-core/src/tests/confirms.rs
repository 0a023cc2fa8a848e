//! The fate of publishes in confirm mode.

use alloc::{collections::BTreeMap, vec, vec::Vec};

use proptest::{collection::vec as list, prelude::*};

use super::script::*;
use crate::{
    ChannelId, CloseCause, CloseReason, Fault, Hold, PublishError,
    client::{Config, Connection, Event, Outcome},
    protocol::{Method, ReplyCode, basic, channel, confirm, connection},
};

type Client = Script<Connection>;

/// A client with a channel on which that many publishes wait for their confirm.
fn with_publishes(count: u64) -> (Client, ChannelId) {
    let mut client = Client::open();
    let id = client.confirm_channel();
    for number in 1..=count {
        assert_eq!(client.publish(id, b"x"), Some(seq(number)));
    }
    client.bytes();
    (client, id)
}

fn acked(id: ChannelId, first: u64, last: u64) -> Event {
    settled(id, first, last, Outcome::Acked)
}

fn nacked(id: ChannelId, first: u64, last: u64) -> Event {
    settled(id, first, last, Outcome::Nacked)
}

#[test]
fn multiple_settles_all_before() {
    let (mut client, id) = with_publishes(7);
    client.send(1, &ack(5, true));
    assert_eq!(client.events(), [acked(id, 1, 5)]);
    client.send(1, &nack(7, true));
    assert_eq!(client.events(), [nacked(id, 6, 7)]);
    assert_eq!(client.publish(id, b"x"), Some(seq(8)));
    client.send(1, &ack(8, false));
    assert_eq!(client.events(), [acked(id, 8, 8)]);
}

#[test]
fn the_first_publish_after_select_is_number_one() {
    let mut client = Client::open();
    let id = client.channel();
    // Those before do not count (note 22).
    assert_eq!(client.publish(id, b"before"), None);
    let request = client.on(id).call(&confirm::Select::default()).unwrap();
    // Those that do not wait for the answer do.
    assert_eq!(client.publish(id, b"at once"), Some(seq(1)));
    client.bytes();
    client.send(1, &confirm::SelectOk);
    client.send(1, &ack(1, false));
    assert_eq!(
        client.events(),
        [replied(id, request, confirm::SelectOk), acked(id, 1, 1)]
    );
    assert_eq!(client.publish(id, b"then"), Some(seq(2)));
    client.bytes();

    // Without an answer.
    let id = client.channel();
    client.on(id).send(&confirm::Select::default()).unwrap();
    let select = confirm::Select { nowait: true };
    assert_eq!(client.sent().last(), Some(&method(2, select)));
    assert_eq!(client.publish(id, b"first"), Some(seq(1)));
    client.bytes();
    client.send(2, &ack(1, false));
    assert_eq!(client.events(), [acked(id, 1, 1)]);
}

#[test]
fn a_second_select_changes_nothing() {
    let (mut client, id) = with_publishes(2);
    client.call(id, &confirm::Select::default(), &confirm::SelectOk);
    assert_eq!(client.publish(id, b"x"), Some(seq(3)));
    client.send(1, &ack(3, true));
    assert_eq!(client.events(), [acked(id, 1, 3)]);
}

#[test]
fn confirms_come_in_any_order() {
    let (mut client, id) = with_publishes(5);
    for number in [5, 3, 1, 2, 4] {
        client.send(1, &ack(number, false));
        assert_eq!(client.events(), [acked(id, number, number)]);
    }
    client.send(1, &ack(5, true));
    assert_eq!(client.events(), []);
}

#[test]
fn multiple_passes_over_settled_publishes() {
    let (mut client, id) = with_publishes(9);
    client.send(1, &ack(2, false));
    client.send(1, &nack(5, false));
    client.send(1, &ack(6, false));
    client.events();
    client.send(1, &nack(8, true));
    assert_eq!(
        client.events(),
        [nacked(id, 1, 1), nacked(id, 3, 4), nacked(id, 7, 8)]
    );
    client.send(1, &ack(9, true));
    assert_eq!(client.events(), [acked(id, 9, 9)]);
}

#[test]
fn a_confirm_may_be_said_again() {
    let (mut client, id) = with_publishes(5);
    client.send(1, &ack(3, true));
    client.send(1, &ack(5, false));
    client.events();
    for (number, multiple) in [(1, false), (3, true), (5, false), (2, true)] {
        client.send(1, &ack(number, multiple));
        client.send(1, &nack(number, multiple));
        assert_eq!(client.events(), []);
    }
    client.send(1, &ack(4, false));
    assert_eq!(client.events(), [acked(id, 4, 4)]);
}

#[test]
fn zero_with_multiple_means_all() {
    let (mut client, id) = with_publishes(3);
    client.send(1, &ack(0, true));
    assert_eq!(client.events(), [acked(id, 1, 3)]);
    client.send(1, &ack(0, true));
    client.send(1, &nack(0, true));
    assert_eq!(client.events(), []);
    client.publish(id, b"x");
    client.send(1, &nack(0, true));
    assert_eq!(client.events(), [nacked(id, 4, 4)]);
    // Also when there never was one.
    let (mut client, _) = with_publishes(0);
    client.send(1, &ack(0, true));
    assert_eq!(client.events(), []);
}

#[test]
fn a_confirm_of_a_number_that_was_never_given_out_is_ignored() {
    // Note 23.
    for (published, number, multiple) in [
        (3, 0, false),
        (3, 4, false),
        (3, 4, true),
        (0, 1, false),
        (0, 1, true),
        (3, u64::MAX, false),
        (3, u64::MAX, true),
    ] {
        for positive in [true, false] {
            let (mut client, id) = with_publishes(published);
            if positive {
                client.send(1, &ack(number, multiple));
            } else {
                client.send(1, &nack(number, multiple));
            }
            assert_eq!(client.events(), []);
            assert_eq!(client.sent(), []);
            // The rest is settled by the next one.
            client.publish(id, b"x");
            client.bytes();
            client.send(1, &ack(0, true));
            assert_eq!(client.events(), [acked(id, 1, published + 1)]);
        }
    }
}

#[test]
fn a_confirm_on_a_channel_without_confirms_ends_that_channel() {
    let mut client = Client::open();
    let (id, other) = (client.channel(), client.channel());
    client.publish(id, b"x");
    client.bytes();
    client.send(1, &ack(1, false));
    let Event::ChannelClosed { channel, reason } = client.only_event() else {
        panic!("the channel goes on");
    };
    assert_eq!(channel, id);
    let CloseCause::ProtocolError(error) = reason.cause() else {
        panic!("{reason}");
    };
    assert_eq!(error.fault, Fault::UnknownPublish(1));
    let Method::ChannelClose(close) = client.only_method() else {
        panic!("no close for the server");
    };
    assert_eq!(close.reply_code, ReplyCode::PRECONDITION_FAILED);
    assert!(client.on(other).is_open());
}

#[test]
fn channels_count_for_themselves() {
    let mut client = Client::open();
    let (first, second) = (client.confirm_channel(), client.confirm_channel());
    for _ in 0..3 {
        client.publish(first, b"x");
    }
    assert_eq!(client.publish(second, b"x"), Some(seq(1)));
    client.bytes();
    client.send(second.number(), &ack(1, false));
    assert_eq!(client.events(), [acked(second, 1, 1)]);
    client.send(first.number(), &nack(0, true));
    assert_eq!(client.events(), [nacked(first, 1, 3)]);
}

#[test]
fn a_channel_of_the_same_number_counts_from_one_again() {
    let (mut client, id) = with_publishes(3);
    client.send(1, &channel::Close::default());
    client.events();
    client.bytes();
    let (again, _) = client.conn.open_channel_at(1).unwrap();
    client.send(1, &channel::OpenOk);
    client.events();
    assert!(client.conn.channel(id).is_none());
    // It is not in confirm mode either.
    assert_eq!(client.publish(again, b"x"), None);
    client.bytes();
    client.call(again, &confirm::Select::default(), &confirm::SelectOk);
    assert_eq!(client.publish(again, b"x"), Some(seq(1)));
    client.bytes();
    client.send(1, &ack(1, false));
    assert_eq!(client.events(), [acked(again, 1, 1)]);
}

#[test]
fn numbers_are_given_in_the_order_on_the_wire() {
    // Lapin's defect 1, and large messages among small ones.
    let mut client = Client::roomy();
    let id = client.confirm_channel();
    let properties = basic::Properties::default();
    for number in 1..=30u64 {
        let publish = publish(&alloc::format!("{number}"));
        let len = if number % 7 == 0 { 300_000 } else { number };
        let body = vec![0; len as usize];
        let given = client.on(id).publish(&publish, &properties, body);
        assert_eq!(given, Ok(Some(seq(number))));
        if number % 10 == 0 {
            client.bytes_once();
        }
    }
    let mut last = 0;
    for sent in client.sent() {
        if let What::Method(Method::BasicPublish(publish)) = sent.what {
            let number: u64 = publish.routing_key.parse().unwrap();
            assert!(number > last, "{number} comes behind {last}");
            last = number;
        }
    }
    assert_eq!(last, 30);
}

#[test]
fn too_many_unconfirmed_hold_publishes_back() {
    let mut config = Config::default();
    config.limits.unconfirmed = 3;
    let mut client = Client::open_with(config);
    let (id, other) = (client.confirm_channel(), client.confirm_channel());
    let refused = |client: &mut Client| {
        assert_eq!(client.on(id).hold(0), Some(Hold::TooManyUnconfirmed));
        let properties = basic::Properties::default();
        let error = client.on(id).publish(&publish("q"), &properties, "x");
        let hold = Hold::TooManyUnconfirmed;
        let body = "x".into();
        assert_eq!(error, Err(PublishError::HeldBack { hold, body }));
    };
    for _ in 0..3 {
        client.publish(id, b"x");
    }
    client.bytes();
    refused(&mut client);
    assert_eq!(client.publish(other, b"x"), Some(seq(1)));
    client.bytes();
    client.send(1, &ack(1, false));
    assert_eq!(client.events(), [acked(id, 1, 1)]);
    assert_eq!(client.publish(id, b"x"), Some(seq(4)));
    refused(&mut client);
    client.send(1, &nack(4, true));
    assert_eq!(client.events(), [nacked(id, 2, 4)]);
    for number in 5..=7 {
        assert_eq!(client.publish(id, b"x"), Some(seq(number)));
    }
    refused(&mut client);
    // The window counts unconfirmed publishes, not the output.
    client.bytes();
    assert_eq!(client.events(), []);
}

#[test]
fn confirmed_publishes_behind_an_unconfirmed_one_are_not_counted() {
    let mut client = Client::open();
    let (id, plain) = (client.confirm_channel(), client.channel());
    for number in 1..=4 {
        client.publish(id, b"x");
        assert_eq!(client.on(id).unconfirmed(), number);
    }
    client.bytes();
    for (confirmed, left) in [(2, 3), (3, 2), (1, 1)] {
        client.send(1, &ack(confirmed, false));
        client.events();
        assert_eq!(client.on(id).unconfirmed(), left);
    }
    assert_eq!(client.on(plain).unconfirmed(), 0);
}

/// How a connection ends under publishes.
type End = fn(&mut Client);

#[test]
fn one_unconfirmed_publish_holds_none_back_and_keeps_no_place_of_those_after_it() {
    let (mut client, id) = with_publishes(1);
    let limit = crate::Limits::default().unconfirmed as u64;
    let last = 20 * limit;
    for number in 2..=last {
        assert_eq!(client.publish(id, b"x"), Some(seq(number)));
        client.bytes();
        client.send(1, &ack(number, false));
        assert_eq!(client.events(), [acked(id, number, number)]);
        assert!(client.on(id).unconfirmed_room() as u64 > limit / 2);
    }
    assert_eq!(client.on(id).unconfirmed(), 1);
    // Both the one before and those in order are settled once.
    client.publish(id, b"x");
    client.publish(id, b"x");
    client.bytes();
    client.send(1, &ack(last + 1, true));
    let both = [acked(id, 1, 1), acked(id, last + 1, last + 1)];
    assert_eq!(client.events(), both);
    client.send(1, &ack(1, false));
    assert_eq!(client.events(), []);
    assert_eq!(client.on(id).unconfirmed(), 1);
}

#[test]
fn publishes_that_are_confirmed_out_of_order_make_room_but_behind_a_mandatory_one() {
    for mandatory in [false, true] {
        let mut config = Config::default();
        config.limits.unconfirmed = 3;
        let mut client = Client::open_with(config);
        let id = client.confirm_channel();
        let none = basic::Properties::default();
        let first = publish("q").mandatory(mandatory);
        client.on(id).publish(&first, &none, "x").unwrap();
        for number in 2..=3 {
            assert_eq!(client.publish(id, b"x"), Some(seq(number)));
        }
        client.bytes();
        assert_eq!(client.on(id).unconfirmed_room(), 0);
        for number in 2..=3 {
            client.send(1, &ack(number, false));
        }
        let room = if mandatory { 0 } else { 2 };
        assert_eq!(client.on(id).unconfirmed_room(), room);
        assert_eq!(client.on(id).hold(1).is_some(), mandatory);
        client.send(1, &ack(1, false));
        assert_eq!(client.on(id).unconfirmed_room(), 3);
        assert_eq!(client.on(id).hold(1), None);
    }
}

#[test]
fn a_connection_that_ends_reports_transmitted_publishes() {
    let ends: [End; 5] = [
        |client| client.conn.handle_eof(client.now),
        |client| client.conn.handle_transport_error(client.now, "reset"),
        |client| client.send(0, &connection::Close::default()),
        |client| client.feed(&[9; 8]),
        |client| {
            client.conn.close(ReplyCode::SUCCESS, "");
            client.advance(core::time::Duration::from_secs(10));
        },
    ];
    for (number, end) in ends.into_iter().enumerate() {
        let (mut client, id) = with_publishes(3);
        client.send(1, &ack(2, false));
        client.events();
        for _ in 0..2 {
            client.publish(id, b"never handed out");
        }
        end(&mut client);
        let mut events = client.events();
        let Some(Event::Closed(reason)) = events.pop() else {
            panic!("{number}: the connection goes on");
        };
        let reason: CloseReason = CloseCause::Connection(reason).into();
        let unknown = Outcome::Unknown(reason.clone());
        assert_eq!(
            events,
            [
                settled(id, 1, 1, unknown.clone()),
                settled(id, 3, 3, unknown),
                settled(id, 4, 5, Outcome::NotSent(reason)),
            ],
            "{number}"
        );
        // Truly, they are not.
        let published = |sent: &Sent| matches!(sent.what, What::Method(Method::BasicPublish(_)));
        assert!(!client.sent().iter().any(published));
    }
}

/// An event on a channel in confirm mode.
#[derive(Clone, Debug)]
enum Step {
    Publish {
        len: usize,
    },
    Ack {
        at: prop::sample::Index,
        multiple: bool,
    },
    Nack {
        at: prop::sample::Index,
        multiple: bool,
    },
    AckAll,
    PollOnce,
    Poll,
}

fn any_step() -> impl Strategy<Value = Step> {
    let at = || any::<prop::sample::Index>();
    prop_oneof![
        6 => (0usize..3000).prop_map(|len| Step::Publish { len }),
        2 => (100_000usize..400_000).prop_map(|len| Step::Publish { len }),
        3 => (at(), any::<bool>()).prop_map(|(at, multiple)| Step::Ack { at, multiple }),
        2 => (at(), any::<bool>()).prop_map(|(at, multiple)| Step::Nack { at, multiple }),
        1 => Just(Step::AckAll),
        3 => Just(Step::PollOnce),
        2 => Just(Step::Poll),
    ]
}

/// The number of publishes that begin in these bytes.
fn begun(bytes: &[u8]) -> u64 {
    let frames = frames(bytes).into_iter();
    let published =
        frames.filter(|sent| matches!(sent.what, What::Method(Method::BasicPublish(_))));
    published.count() as u64
}

/// The outcome of each publish, from the events.
fn collect(events: Vec<Event>, fates: &mut BTreeMap<u64, Outcome>) {
    for event in events {
        match event {
            Event::Settled {
                first,
                last,
                outcome,
                ..
            } => {
                assert!(first <= last);
                for number in first.get()..=last.get() {
                    let before = fates.insert(number, outcome.clone());
                    assert_eq!(before, None, "{number} is settled twice");
                }
            }
            Event::ChannelClosed { .. } | Event::Closed(_) | Event::Failed { .. } => {}
            other => panic!("{other:?}"),
        }
    }
}

proptest! {
    #![proptest_config(amqp_test_support::cases(100))]

    /// With confirms in any order, and with any end, each publish is settled once, with its true
    /// outcome.
    #[test]
    fn each_publish_is_settled_once(
        steps in list(any_step(), 0..60),
        end in 0..4,
        limit in 1usize..30,
    ) {
        let mut config = Config::default();
        config.limits.unconfirmed = limit;
        config.limits.output_high = usize::MAX;
        let mut client = Client::open_with(config);
        let id = client.confirm_channel();
        let (mut published, mut on_wire) = (0, 0);
        // The first confirm of each, which counts.
        let mut said = BTreeMap::new();
        let mut fates = BTreeMap::new();
        for step in steps {
            match step {
                Step::Publish { len } => {
                    let properties = basic::Properties::default();
                    let body = vec![0; len];
                    let unsettled = published - said.len() as u64;
                    match client.on(id).publish(&publish("q"), &properties, body) {
                        Ok(number) => {
                            published += 1;
                            prop_assert_eq!(number, Some(seq(published)));
                            prop_assert!(unsettled < limit as u64);
                        }
                        Err(PublishError::HeldBack { hold, .. }) => {
                            prop_assert_eq!(hold, Hold::TooManyUnconfirmed);
                            prop_assert!(unsettled >= limit as u64);
                        }
                        Err(error) => panic!("{error}"),
                    }
                }
                Step::Ack { at, multiple } | Step::Nack { at, multiple } if on_wire > 0 => {
                    let positive = matches!(step, Step::Ack { .. });
                    let number = at.index(on_wire as usize) as u64 + 1;
                    let outcome = if positive {
                        client.send(1, &ack(number, multiple));
                        Outcome::Acked
                    } else {
                        client.send(1, &nack(number, multiple));
                        Outcome::Nacked
                    };
                    let first = if multiple { 1 } else { number };
                    for number in first..=number {
                        said.entry(number).or_insert_with(|| outcome.clone());
                    }
                }
                Step::AckAll if published == on_wire => {
                    client.send(1, &ack(0, true));
                    for number in 1..=published {
                        said.entry(number).or_insert(Outcome::Acked);
                    }
                }
                Step::Ack { .. } | Step::Nack { .. } | Step::AckAll => {}
                Step::PollOnce => on_wire += begun(&client.bytes_once()),
                Step::Poll => on_wire += begun(&client.bytes()),
            }
            collect(client.events(), &mut fates);
            prop_assert_eq!(&fates, &said);
        }
        let left_before = on_wire;
        match end {
            0 => client.send(1, &channel::Close::default()),
            1 => client.conn.handle_eof(client.now),
            2 => drop(client.on(id).close(ReplyCode::SUCCESS, "").unwrap()),
            _ => client.send(0, &connection::Close::default()),
        }
        collect(client.events(), &mut fates);
        on_wire += begun(&client.bytes());
        client.conn.handle_eof(client.now);
        collect(client.events(), &mut fates);
        prop_assert_eq!(fates.len() as u64, published);
        for (number, fate) in fates {
            match (said.get(&number), fate) {
                (Some(said), fate) => prop_assert_eq!(said, &fate),
                (None, Outcome::Unknown(_)) => prop_assert!(number <= on_wire),
                (None, Outcome::NotSent(_)) => prop_assert!(number > left_before && end != 2),
                (None, fate) => panic!("{number}: {fate:?}"),
            }
        }
    }
}
