//! Pending requests and confirms without an answer: each ends at its deadline.

use alloc::{vec, vec::Vec};
use core::time::Duration;

use proptest::{collection::vec as list, prelude::*};

use super::script::*;
use crate::{
    ChannelId, CloseCause, CloseReason, Hold, Instant, PublishError, TimeoutReason,
    client::{Config, Connection, Event, Outcome},
    frame::FrameKind,
    protocol::{Method, ReplyCode, basic, channel, connection, tx},
};

type Client = Script<Connection>;

const SECOND: Duration = Duration::from_secs(1);

/// A client with that deadline for confirms.
fn with_confirm(confirm: Option<Duration>) -> (Client, ChannelId) {
    let mut config = Config::default();
    config.timeouts.confirm = confirm;
    let mut client = Client::open_with(config);
    let id = client.confirm_channel();
    (client, id)
}

fn late(id: ChannelId, first: u64, last: u64) -> Event {
    let reason = CloseReason::from(CloseCause::TimedOut(TimeoutReason::Confirm));
    settled(id, first, last, Outcome::Unknown(reason))
}

#[test]
fn a_publish_that_is_not_confirmed_in_time_is_unknown_and_the_channel_lives_on() {
    let (mut client, id) = with_confirm(Config::default().timeouts.confirm);
    client.publish(id, b"x");
    client.bytes();
    let begin = client.now;
    // At most an eighth late, and never early.
    let timeout = client.conn.poll_timeout();
    let Some((at, TimeoutReason::Confirm)) = timeout else {
        panic!("{timeout:?}");
    };
    let span = Duration::from_nanos(at.as_nanos() - begin.as_nanos());
    assert!(
        span >= SECOND * 60 && span <= SECOND * 60 * 9 / 8,
        "{span:?}"
    );
    client.advance(span - Duration::from_nanos(1));
    assert_eq!(client.events(), []);
    client.advance(Duration::from_nanos(1));
    assert_eq!(client.events(), [late(id, 1, 1)]);
    let text = CloseCause::TimedOut(TimeoutReason::Confirm);
    assert_eq!(
        alloc::string::ToString::to_string(&text),
        "timed out: the publish was not confirmed in time"
    );
    assert_eq!(client.conn.poll_timeout(), None);
    // A late confirm is ignored, the next publish is confirmed as ever.
    client.send(1, &ack(1, false));
    assert_eq!(client.publish(id, b"x"), Some(seq(2)));
    client.bytes();
    client.send(1, &ack(2, true));
    assert_eq!(client.events(), [settled(id, 2, 2, Outcome::Acked)]);
    // Nothing is waited for any more.
    client.conn.handle_timeout(client.now);
    assert_eq!(client.conn.poll_timeout(), None);
}

/// The memory for a burst of events is kept while there are others.
#[test]
fn a_burst_is_forgotten_when_no_other_one_follows() {
    const KEPT: Duration = Duration::from_millis(100);
    let mut client = Client::open();
    let id = client.channel();
    client.consumer(id, "t", true);
    let burst = |client: &mut Client, messages: u64| {
        (0..messages).for_each(|number| client.deliver(id, "t", number + 1));
        client.events();
        client.conn.poll_timeout()
    };
    let idle = |client: &Client| Some((client.now + KEPT, TimeoutReason::Idle));
    assert_eq!(burst(&mut client, 100), None);
    let first = burst(&mut client, 200);
    assert_eq!(first, idle(&client));
    client.advance(KEPT / 2);
    assert_eq!(burst(&mut client, 1), first);
    let second = burst(&mut client, 200);
    assert_eq!(second, idle(&client));
    client.advance(KEPT - Duration::from_nanos(1));
    assert_eq!(client.conn.poll_timeout(), second);
    assert_eq!(client.advance(Duration::from_nanos(1)).len(), 1);
    assert_eq!(client.conn.poll_timeout(), None);
}

#[test]
fn without_a_limit_of_time_a_confirm_is_waited_for_as_long_as_the_channel_lives() {
    let (mut client, id) = with_confirm(None);
    client.publish(id, b"x");
    client.bytes();
    assert_eq!(client.advance(SECOND * 1_000_000), []);
    assert_eq!(client.events(), []);
    client.send(1, &ack(1, false));
    assert_eq!(client.events(), [settled(id, 1, 1, Outcome::Acked)]);
}

#[test]
fn the_window_is_free_again_when_the_confirms_did_not_come_in_time() {
    let mut config = Config::default();
    config.limits.unconfirmed = 3;
    let mut client = Client::open_with(config);
    let id = client.confirm_channel();
    assert_eq!(client.on(id).unconfirmed_room(), 3);
    for left in [2, 1, 0] {
        client.publish(id, b"x");
        assert_eq!(client.on(id).unconfirmed_room(), left);
    }
    client.bytes();
    assert_eq!(client.on(id).hold(1), Some(Hold::TooManyUnconfirmed));
    client.send(1, &ack(2, false));
    assert_eq!(client.events(), [settled(id, 2, 2, Outcome::Acked)]);
    client.advance(SECOND * 70);
    assert_eq!(client.events(), [late(id, 1, 1), late(id, 3, 3)]);
    assert_eq!(client.on(id).hold(1), None);
    assert_eq!(client.on(id).unconfirmed_room(), 3);
    let plain = client.channel();
    assert_eq!(client.on(plain).unconfirmed_room(), usize::MAX);
}

/// The numbers would be others if it were taken out of the output.
#[test]
fn a_publish_that_waits_in_the_output_beyond_its_time_is_unknown_and_still_leaves() {
    let mut config = Config::default();
    config.limits.output_high = 4 << 20;
    config.timeouts.confirm = Some(SECOND);
    let mut client = Client::open_with(config);
    let id = client.confirm_channel();
    publish_large(&mut client, id, 2 << 20);
    assert_eq!(client.publish(id, b"behind"), Some(seq(2)));
    client.bytes_once();
    client.advance(SECOND * 2);
    assert_eq!(client.events(), [late(id, 1, 2)]);
    let sent = client.sent();
    let publishes = |sent: &Sent| matches!(sent.what, What::Method(Method::BasicPublish(_)));
    assert_eq!(sent.iter().filter(|sent| publishes(sent)).count(), 1);
    client.publish(id, b"next");
    client.bytes();
    client.send(1, &ack(3, true));
    assert_eq!(client.events(), [settled(id, 3, 3, Outcome::Acked)]);
}

#[test]
fn a_publish_that_ends_with_its_channel_has_no_deadline_any_more() {
    let (mut client, id) = with_confirm(Some(SECOND));
    client.publish(id, b"x");
    client.bytes();
    client.send(1, &channel::Close::default());
    assert_eq!(client.events().len(), 2);
    client.bytes();
    client.conn.handle_timeout(client.now);
    assert_eq!(client.conn.poll_timeout(), None);
    assert_eq!(client.advance(SECOND * 10), []);
    // The next channel of that number is another one.
    let id = client.confirm_channel();
    client.publish(id, b"x");
    client.bytes();
    client.advance(SECOND * 2);
    assert_eq!(client.events(), [late(id, 1, 1)]);
    // Nor has a publish that ends with the connection.
    client.publish(id, b"x");
    client.bytes();
    client.conn.handle_eof(client.now);
    assert_eq!(client.events().len(), 2);
    assert_eq!(client.conn.poll_timeout(), None);
}

/// A channel asks for a bounded number of calls, however many publishes it makes.
#[test]
fn deadlines_of_confirms_cost_a_few_calls_and_little_memory() {
    let mut config = Config::default();
    config.limits.unconfirmed = usize::MAX;
    config.timeouts.confirm = Some(SECOND);
    let mut client = Client::open_with(config);
    let id = client.confirm_channel();
    let mut calls = 0;
    for _ in 0..10_000 {
        client.publish(id, b"x");
        client.bytes();
        calls += client.advance(Duration::from_millis(1)).len();
    }
    // Ten seconds.
    assert!(calls <= 10 * 17, "{calls}");
}

/// A publish, and when it was made and settled.
#[derive(Clone, Copy, Debug)]
enum Step {
    Publish(usize),
    Ack(u64, bool),
    Wait(u64),
    Poll,
}

fn any_step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0usize..3).prop_map(Step::Publish),
        2 => (1u64..30, any::<bool>()).prop_map(|(seq, multiple)| Step::Ack(seq, multiple)),
        3 => (0u64..2_000).prop_map(Step::Wait),
        3 => Just(Step::Poll),
    ]
}

proptest! {
    #![proptest_config(amqp_test_support::cases(256))]

    /// Each publish is settled once, by the server or in time: never early, at most an eighth late.
    #[test]
    fn each_publish_is_settled_once_and_in_time(steps in list(any_step(), 0..60)) {
        const TIME: Duration = Duration::from_millis(4_000);
        const SLACK: Duration = Duration::from_millis(500);
        let mut config = Config::default();
        config.timeouts.confirm = Some(TIME);
        let mut client = Client::open_with(config);
        let ids: Vec<ChannelId> = (0..3).map(|_| client.confirm_channel()).collect();
        let mut made: Vec<Vec<(Instant, bool)>> = vec![Vec::new(); 3];
        let look = |client: &mut Client, made: &mut Vec<Vec<(Instant, bool)>>| {
            for event in client.events() {
                let Event::Settled { channel, first, last, outcome } = event else {
                    panic!("{event:?}");
                };
                for number in first.get()..=last.get() {
                    let of_channel = &mut made[usize::from(channel.number()) - 1];
                    let (at, settled) = &mut of_channel[number as usize - 1];
                    assert!(!*settled, "{number} twice");
                    *settled = true;
                    if outcome != Outcome::Acked {
                        assert!(client.now >= *at + TIME, "early");
                    }
                }
            }
            for (at, settled) in made.iter().flatten() {
                assert!(*settled || client.now < *at + TIME + SLACK, "late");
            }
        };
        for step in steps {
            match step {
                Step::Publish(on) => {
                    client.publish(ids[on], b"x");
                    made[on].push((client.now, false));
                }
                Step::Ack(number, multiple) => {
                    if number <= made[0].len() as u64 {
                        client.send(1, &ack(number, multiple));
                    }
                }
                Step::Wait(millis) => drop(client.advance(Duration::from_millis(millis))),
                Step::Poll => drop(client.bytes()),
            }
            look(&mut client, &mut made);
        }
        client.advance(TIME + SLACK + SLACK);
        look(&mut client, &mut made);
        prop_assert!(made.iter().flatten().all(|(_, settled)| *settled));
        client.conn.handle_timeout(client.now);
        prop_assert_eq!(client.conn.poll_timeout(), None);
    }
}

/// The connection ended because the close took too long.
fn assert_close_timed_out(client: &mut Client) {
    let events = client.events();
    let Some(Event::Closed(reason)) = events.last() else {
        panic!("it lives: {events:?}");
    };
    assert_eq!(*reason.cause(), CloseCause::TimedOut(TimeoutReason::Close));
    assert!(client.conn.is_finished());
}

fn publish_large(client: &mut Client, id: ChannelId, len: usize) {
    let properties = basic::Properties::default();
    let mut on = client.on(id);
    on.publish(&publish("q"), &properties, vec![0; len])
        .unwrap();
}

#[test]
fn a_large_message_leaves_before_a_close_however_slow_the_line_is() {
    let mut client = Client::open();
    let id = client.channel();
    publish_large(&mut client, id, 15 << 20);
    client.conn.close(ReplyCode::SUCCESS, "");
    let mut calls = 0;
    while client.conn.buffered() > 0 {
        // 256 KiB in nine seconds, two minutes in all.
        assert!(!client.bytes_once().is_empty());
        client.advance(SECOND * 9);
        assert_eq!(client.events(), []);
        calls += 1;
    }
    assert!(calls >= 60, "{calls}");
    // The close is the last of it, and its answer has as long as ever.
    client.advance(SECOND - Duration::from_nanos(1));
    assert_eq!(client.events(), []);
    client.send(0, &connection::CloseOk);
    let Event::Closed(reason) = client.only_event() else {
        panic!("it lives");
    };
    assert!(reason.is_clean());
}

#[test]
fn a_close_without_progress_times_out_wherever_it_is() {
    // Nothing was taken.
    let mut client = Client::open();
    let id = client.channel();
    publish_large(&mut client, id, 15 << 20);
    client.conn.close(ReplyCode::SUCCESS, "");
    client.advance(SECOND * 10);
    assert_close_timed_out(&mut client);
    // Some was.
    let mut client = Client::open();
    let id = client.channel();
    publish_large(&mut client, id, 15 << 20);
    client.conn.close(ReplyCode::SUCCESS, "");
    client.advance(SECOND * 9);
    client.bytes_once();
    client.advance(SECOND * 9);
    client.conn.handle_written(client.now);
    client.advance(Duration::from_millis(9_999));
    assert_eq!(client.events(), []);
    client.advance(Duration::from_millis(1));
    assert_close_timed_out(&mut client);
    // All was, and the close.
    let mut client = Client::open();
    client.conn.close(ReplyCode::SUCCESS, "");
    client.advance(SECOND * 9);
    client.bytes();
    client.advance(Duration::from_millis(9_999));
    assert_eq!(client.events(), []);
    client.advance(Duration::from_millis(1));
    assert_close_timed_out(&mut client);
}

#[test]
fn a_peer_that_keeps_asking_does_not_keep_a_close_waiting() {
    let mut client = Client::open();
    let (tx, other) = (client.tx_channel(), client.channel());
    // Requests behind an unanswered commit do not leave.
    client.on(tx).call(&tx::Commit).unwrap();
    client.publish(tx, b"x");
    client.bytes();
    client.conn.close(ReplyCode::SUCCESS, "");
    for _ in 0..9 {
        client.advance(SECOND);
        client.send(other.number(), &channel::Flow { active: true });
        client.feed(&frame(FrameKind::Heartbeat, 0, b""));
        assert_eq!(client.sent().len(), 1);
        assert!(!client.conn.is_finished());
    }
    client.events();
    client.advance(SECOND);
    assert_close_timed_out(&mut client);
}

#[test]
fn a_publish_held_back_is_not_among_those_that_time_out() {
    let mut config = Config::default();
    config.limits.unconfirmed = 1;
    config.timeouts.confirm = Some(SECOND);
    let mut client = Client::open_with(config);
    let id = client.confirm_channel();
    client.publish(id, b"x");
    let properties = basic::Properties::default();
    let refused = client.on(id).publish(&publish("q"), &properties, "y");
    assert!(matches!(refused, Err(PublishError::HeldBack { .. })));
    client.advance(SECOND * 2);
    assert_eq!(client.events(), [late(id, 1, 1)]);
    assert_eq!(client.publish(id, b"y"), Some(seq(2)));
}
