//! The lanes of the output: no channel starves another one.

use alloc::{vec, vec::Vec};

use proptest::{collection::vec as list, prelude::*};

use super::{pair::Pair, script::*};
use crate::{
    ApiMisuse, ChannelId, Hold, PublishError, Requeue, Tags, Transmit,
    client::{Config, Connection, Event},
    protocol::{ReplyCode, basic, channel, connection, queue, tx},
};

type Client = Script<Connection>;

/// Publishes a body of that many bytes.
fn publish_len(client: &mut Client, id: ChannelId, len: usize) -> Result<(), PublishError> {
    let properties = basic::Properties::default();
    let mut on = client.on(id);
    on.publish(&publish("q"), &properties, vec![7; len])?;
    Ok(())
}

/// The bytes of body frames per channel number, below 100.
fn body_bytes(sent: &[Sent]) -> Vec<usize> {
    let mut bytes = vec![0; 100];
    for sent in sent {
        if let What::Body(body) = &sent.what {
            bytes[usize::from(sent.channel)] += body.len();
        }
    }
    bytes
}

/// An open client with that `output_high`.
fn with_high(output_high: usize) -> Client {
    let mut config = Config::default();
    config.limits.output_high = output_high;
    Client::open_with(config)
}

#[test]
fn a_large_message_leaves_beside_a_busy_channel_with_any_output_high() {
    const LARGE: usize = 1 << 20;
    for output_high in [64 << 10, 256 << 10, 4 << 20, 64 << 20] {
        let mut client = with_high(output_high);
        let (busy, large) = (client.channel(), client.channel());
        publish_len(&mut client, large, LARGE).unwrap();
        let (mut taken, mut calls) = (vec![0; 3], 0);
        while taken[2] < LARGE {
            for _ in 0..300 {
                let _full = publish_len(&mut client, busy, 1000);
            }
            let sent = body_bytes(&frames(&client.bytes_once()));
            // As many bytes of the large message leave as of the other channel.
            assert!(sent[2] >= sent[1].min(LARGE - taken[2]), "{sent:?}");
            assert!(sent[1] > 0);
            taken[2] += sent[2];
            calls += 1;
            assert!(calls < 100, "{} bytes after {calls} calls", taken[2]);
        }
    }
}

#[test]
fn a_small_publish_is_accepted_and_leaves_beside_a_large_message_of_another_channel() {
    let mut client = Client::open();
    let (large, small) = (client.channel(), client.channel());
    publish_len(&mut client, large, 8 << 20).unwrap();
    let mut calls = 0;
    while client.conn.has_transmit() {
        let sent = frames(&client.bytes_once());
        if calls > 0 {
            assert_eq!(sent[..3], content(small.number(), publish("queue"), b"x"));
        }
        client.publish(small, b"x");
        calls += 1;
        if calls > 20 {
            return;
        }
    }
    panic!("it left in {calls} calls");
}

#[test]
fn beside_64_large_messages_a_small_publish_waits_for_a_bounded_number_of_frames() {
    const CHANNELS: usize = 64;
    const LARGE: usize = 1 << 20;
    let mut config = Config::default();
    config.limits.output_backlog = CHANNELS * LARGE;
    let mut client = Client::open_with(config);
    let large: Vec<ChannelId> = (0..CHANNELS).map(|_| client.channel()).collect();
    let small = client.channel();
    for id in &large {
        publish_len(&mut client, *id, LARGE).unwrap();
    }
    let (mut left, mut worst, mut reported) = (vec![0; CHANNELS + 2], 0, 0);
    while client.conn.has_transmit() {
        client.publish(small, b"x");
        let sent = frames(&client.bytes_once());
        // It leaves with the next call, before all else, behind the frames of this call.
        assert_eq!(sent[0], method(small.number(), publish("queue")));
        let bodies = body_bytes(&sent);
        worst = worst.max(sent.len());
        reported += bodies[usize::from(small.number())];
        for (left, bodies) in left.iter_mut().zip(bodies) {
            *left += bodies;
        }
        let large = &left[1..=CHANNELS];
        let (least, most) = (large.iter().min(), large.iter().max());
        assert!(most.unwrap() - least.unwrap() <= 2 * 131_072);
    }
    assert!(left[1..=CHANNELS].iter().all(|left| *left == LARGE));
    // The small message, and 256 KiB in frames of 128 KiB and heads.
    assert!(worst <= 3 + 2 * 2 + 2 * CHANNELS, "{worst} frames");
    assert!(reported > 200, "{reported}");
}

#[test]
fn a_message_of_a_frame_waits_for_the_ready_lane_only_and_a_larger_one_for_the_backlogs_only() {
    let mut config = Config::default();
    config.limits.output_high = 256 << 10;
    config.limits.output_backlog = 1 << 20;
    let mut client = Client::open_with(config);
    let ids: Vec<ChannelId> = (0..6).map(|_| client.channel()).collect();
    let [a, b, c, d, e, f] = ids[..] else {
        panic!("no channels");
    };
    let large = 600 << 10;
    // The ready lane is full.
    while client.on(a).hold(1000).is_none() {
        publish_len(&mut client, a, 1000).unwrap();
    }
    assert_eq!(client.on(b).hold(1000), Some(Hold::OutputFull));
    assert_eq!(client.conn.output_room(), 0);
    // A larger message is accepted all the same.
    assert_eq!(client.on(b).hold(large), None);
    publish_len(&mut client, b, large).unwrap();
    assert_eq!(client.on(b).hold(0), Some(Hold::ChannelBacklogFull));
    assert_eq!(client.on(b).hold(large), Some(Hold::ChannelBacklogFull));
    // One beyond the bound of all backlogs.
    assert_eq!(client.on(c).hold(large), None);
    publish_len(&mut client, c, large).unwrap();
    assert_eq!(client.conn.backlog_room(), 0);
    assert_eq!(client.on(d).hold(large), Some(Hold::BacklogFull));
    assert_eq!(client.on(d).hold(1000), Some(Hold::OutputFull));
    // The ready lane is empty again, and the backlogs hold nothing of it back.
    client.bytes_once();
    assert_eq!(client.on(d).hold(1000), None);
    assert_eq!(client.conn.output_room(), 256 << 10);
    assert_eq!(client.on(e).hold(131_072 - 8), None);
    assert_eq!(client.on(f).hold(131_072 - 7), None);
    client.bytes();
    assert_eq!(client.conn.backlog_room(), 1 << 20);
}

#[test]
fn each_event_of_room_comes_when_it_is_wanted_and_once() {
    let mut config = Config::default();
    config.limits.output_backlog = 1 << 20;
    let mut client = Client::open_with(config);
    let (small, large, other) = (client.channel(), client.channel(), client.channel());
    let low = client.conn.limits().output_low;
    let refused = |hold| move |error: PublishError| matches!(error, PublishError::HeldBack { hold: it, .. } if it == hold);
    for asks in [false, true] {
        // Unwanted, none comes.
        publish_len(&mut client, small, 1000).unwrap();
        publish_len(&mut client, large, 1 << 20).unwrap();
        client.bytes();
        assert_eq!(client.events(), []);

        while client.on(small).hold(1000).is_none() {
            publish_len(&mut client, small, 1000).unwrap();
        }
        publish_len(&mut client, large, 2 << 20).unwrap();
        if asks {
            client.conn.want_writable();
            client.conn.want_backlog_writable();
            client.on(large).want_writable();
        } else {
            let (one, two) = (1000, 1 << 20);
            let error = publish_len(&mut client, small, one).unwrap_err();
            assert!(refused(Hold::OutputFull)(error));
            let error = publish_len(&mut client, other, two).unwrap_err();
            assert!(refused(Hold::BacklogFull)(error));
            let error = publish_len(&mut client, large, one).unwrap_err();
            assert!(refused(Hold::ChannelBacklogFull)(error));
        }
        assert_eq!(client.events(), []);
        client.bytes_once();
        assert_eq!(client.events(), [Event::Writable]);
        let (mut reported, mut own) = (false, false);
        while client.conn.has_transmit() {
            client.bytes_once();
            let waiting = client.conn.buffered();
            let mut expected = Vec::new();
            if waiting <= 512 << 10 && !reported {
                expected.push(Event::BacklogWritable);
                reported = true;
            }
            if waiting <= low && !own {
                expected.push(Event::ChannelWritable { channel: large });
                own = true;
            }
            assert_eq!(client.events(), expected, "{waiting}");
        }
        assert!(reported && own);
    }
    // Wanted while there is room, they come with the next call.
    client.conn.want_writable();
    client.conn.want_backlog_writable();
    for _ in 0..3 {
        client.on(large).want_writable();
    }
    client.on(other).want_writable();
    assert_eq!(client.events(), []);
    client.bytes_once();
    let channel_writable = |channel| Event::ChannelWritable { channel };
    let expected = [
        Event::Writable,
        Event::BacklogWritable,
        channel_writable(large),
        channel_writable(other),
    ];
    assert_eq!(client.events(), expected);
    client.bytes_once();
    assert_eq!(client.events(), []);
    // Wanted on a channel that ends, or after the end, they do not.
    client.on(other).want_writable();
    client.send(other.number(), &channel::Close::default());
    client.bytes();
    assert_eq!(client.events().len(), 1);
    client.on(large).want_writable();
    client.conn.handle_eof(client.now);
    client.conn.want_writable();
    client.conn.want_backlog_writable();
    client.bytes();
    assert!(matches!(client.only_event(), Event::Closed(_)));
}

#[test]
fn calls_behind_a_commit_hold_back_their_own_channel_and_no_small_publish_of_another() {
    let mut config = Config::default();
    config.limits.output_backlog = 1 << 20;
    let mut client = Client::open_with(config);
    let (tx, other) = (client.tx_channel(), client.channel());
    let commit = client.on(tx).call(&tx::Commit).unwrap();
    client.bytes();
    while client.on(tx).hold(10_000).is_none() {
        publish_len(&mut client, tx, 10_000).unwrap();
    }
    assert_eq!(client.on(tx).hold(10_000), Some(Hold::ChannelBacklogFull));
    client.on(tx).want_writable();
    for _ in 0..1000 {
        publish_len(&mut client, other, 1000).unwrap();
        assert_eq!(client.sent().len(), 3);
    }
    // It does count among all backlogs.
    assert_eq!(client.on(other).hold(1 << 20), None);
    publish_len(&mut client, other, 1 << 20).unwrap();
    let mark = client.conn.flush_mark();
    assert_eq!(client.conn.backlog_room(), 0);
    client.bytes();
    assert!(client.conn.backlog_room() < 1 << 20);
    assert!(!client.conn.is_flushed(&mark));
    assert_eq!(client.events(), []);
    client.send(tx.number(), &tx::CommitOk);
    client.bytes();
    let reported = Event::ChannelWritable { channel: tx };
    assert_eq!(
        client.events(),
        [replied(tx, commit, tx::CommitOk), reported]
    );
    assert!(client.conn.is_flushed(&mark));
    assert_eq!(client.conn.backlog_room(), 1 << 20);
}

/// Whether a command was refused because too many requests wait.
fn is_too_many<T>(result: Result<T, ApiMisuse>) -> bool {
    let limit = 4096;
    match result {
        Err(ApiMisuse::TooManyUnsent {
            buffered,
            limit: it,
        }) => buffered > limit && it == limit,
        Err(_) | Ok(_) => false,
    }
}

/// Makes requests until one is refused; how many.
fn fill_with_requests(client: &mut Client, id: ChannelId) -> usize {
    let declare = queue::Declare::default();
    let mut count = 0;
    loop {
        let result = client.on(id).call(&declare);
        if result.is_err() {
            assert!(is_too_many(result));
            return count;
        }
        count += 1;
        assert!(count < 1000);
    }
}

#[test]
fn requests_that_are_not_taken_are_bounded_and_acknowledgements_are_not_refused() {
    let mut config = Config::default();
    config.limits.unsent_requests = 4096;
    let mut client = Client::open_with(config);
    let (id, other) = (client.channel(), client.channel());
    client.consumer(id, "t", false);
    for number in 1..=3 {
        client.deliver(id, "t", number);
    }
    client.events();
    for _ in 0..3 {
        // Publishes do not count.
        publish_len(&mut client, other, 100_000).unwrap();
        assert!(fill_with_requests(&mut client, id) > 50);
        let buffered = client.conn.buffered();
        assert!(buffered < 100_000 + 2 * 4096, "{buffered}");
        assert!(is_too_many(
            client.on(other).call(&queue::Declare::default())
        ));
        let purge = queue::Purge::default().queue("q");
        assert!(is_too_many(client.on(id).send(&purge)));
        assert!(is_too_many(client.on(id).consume(consume("q", ""))));
        assert!(is_too_many(client.on(id).get(&basic::Get::default())));
        assert!(is_too_many(client.on(id).recover_async(true)));
        assert!(is_too_many(client.conn.open_channel()));
        assert!(is_too_many(client.conn.open_channel_at(9)));
        // Nothing has changed.
        assert_eq!(client.conn.buffered(), buffered);
        assert_eq!(client.conn.channel_count(), 2);
        // These are sent all the same.
        client.publish(id, b"x");
        client.bytes();
    }
    assert!(fill_with_requests(&mut client, id) > 50);
    client.on(id).ack(Tags::One(tag(1))).unwrap();
    client.on(id).nack(Tags::One(tag(2)), Requeue::No).unwrap();
    client.on(id).reject(tag(3), Requeue::No).unwrap();
    client.on(other).close(ReplyCode::SUCCESS, "").unwrap();
    client.bytes();
    client.on(id).call(&queue::Declare::default()).unwrap();
}

#[test]
fn requests_behind_a_large_message_are_bounded_on_their_channel() {
    let mut config = Config::default();
    config.limits.unsent_requests = 4096;
    let mut client = Client::open_with(config);
    let (id, other) = (client.channel(), client.channel());
    publish_len(&mut client, id, 8 << 20).unwrap();
    assert!(fill_with_requests(&mut client, id) > 50);
    // The other channel's leave at once.
    assert!(fill_with_requests(&mut client, other) > 50);
    client.bytes_once();
    client.on(other).call(&queue::Declare::default()).unwrap();
    assert!(is_too_many(client.on(id).call(&queue::Declare::default())));
    client.bytes();
    assert!(fill_with_requests(&mut client, id) > 50);
    // A channel that ends takes them along.
    client.bytes();
    publish_len(&mut client, id, 8 << 20).unwrap();
    fill_with_requests(&mut client, id);
    client.send(id.number(), &channel::Close::default());
    client.bytes();
    client.events();
    let id = client.channel();
    client.on(id).call(&queue::Declare::default()).unwrap();
}

/// Something that a program does.
#[derive(Clone, Copy, Debug)]
enum Deed {
    Publish { on: usize, len: usize },
    Declare { on: usize },
    Commit,
    CommitOk,
    Poll,
}

fn any_deed() -> impl Strategy<Value = Deed> {
    let len = prop_oneof![0usize..200, 4_000usize..4_200, 4_000usize..40_000];
    prop_oneof![
        8 => (0usize..4, len).prop_map(|(on, len)| Deed::Publish { on, len }),
        2 => (0usize..4).prop_map(|on| Deed::Declare { on }),
        1 => Just(Deed::Commit),
        1 => Just(Deed::CommitOk),
        6 => Just(Deed::Poll),
    ]
}

proptest! {
    #![proptest_config(amqp_test_support::cases(128))]

    /// For a message in any lane, the order within a channel is strict, each lane is bounded, and
    /// each hold ends with an event.
    #[test]
    fn lanes_keep_the_order_of_each_channel_and_their_bounds(deeds in list(any_deed(), 0..80)) {
        const HIGH: usize = 10_000;
        const BACKLOG: usize = 50_000;
        let mut config = Config::default();
        config.limits.output_high = HIGH;
        config.limits.output_low = 1000;
        config.limits.output_backlog = BACKLOG;
        let tune = connection::Tune { channel_max: 100, frame_max: 4096, heartbeat: 0 };
        let mut client = Client::tuned(config, &tune);
        let ids: Vec<ChannelId> = (0..4).map(|_| client.tx_channel()).collect();
        let (mut expected, mut sent) = (vec![Vec::new(); 4], Vec::new());
        let (mut committing, mut wanted) = (false, Vec::new());
        for (count, deed) in deeds.into_iter().enumerate() {
            match deed {
                Deed::Publish { on, len } => {
                    let hold = client.on(ids[on]).hold(len);
                    let (body, properties) = (vec![count as u8; len], basic::Properties::default());
                    let result = client.on(ids[on]).publish(&publish("q"), &properties, body.clone());
                    match (hold, result) {
                        (None, Ok(_)) => {
                            expected[on].push(What::Method(publish("q").into()));
                            expected[on].push(What::Header(len as u64, vec![0, 0]));
                            expected[on].extend((len > 0).then_some(What::Body(body)));
                        }
                        (Some(hold), Err(PublishError::HeldBack { hold: reported, .. })) => {
                            prop_assert_eq!(hold, reported);
                            wanted.push(match hold {
                                Hold::OutputFull => Event::Writable,
                                Hold::BacklogFull => Event::BacklogWritable,
                                _ => Event::ChannelWritable { channel: ids[on] },
                            });
                        }
                        other => panic!("{other:?}"),
                    }
                }
                Deed::Declare { on } => {
                    let declare = queue::Declare::default();
                    client.on(ids[on]).call(&declare).unwrap();
                    expected[on].push(What::Method(declare.into()));
                }
                Deed::Commit if !committing => {
                    client.on(ids[0]).call(&tx::Commit).unwrap();
                    expected[0].push(What::Method(tx::Commit.into()));
                    committing = true;
                }
                Deed::CommitOk if committing && of_channel(&frames(&sent), 1).contains(&What::Method(tx::Commit.into())) => {
                    // It answers the last one at the earliest.
                    let commits = |all: &[What]| {
                        all.iter().filter(|what| **what == What::Method(tx::Commit.into())).count()
                    };
                    if commits(&of_channel(&frames(&sent), 1)) == commits(&expected[0]) {
                        let before = client.events();
                        wanted.retain(|event| !before.contains(event));
                        client.send(1, &tx::CommitOk);
                        committing = false;
                    }
                }
                Deed::Commit | Deed::CommitOk => {}
                Deed::Poll => sent.extend(client.bytes_once()),
            }
            let reported = client.events();
            wanted.retain(|event| !reported.contains(event));
            let largest = 40_000 + 200;
            prop_assert!(client.conn.buffered() <= HIGH + 4096 + 81 * 24 + BACKLOG + largest);
        }
        if committing {
            while client.conn.has_transmit() {
                sent.extend(client.bytes_once());
            }
            client.send(1, &tx::CommitOk);
        }
        sent.extend(client.bytes());
        let reported = client.events();
        wanted.retain(|event| !reported.contains(event));
        prop_assert_eq!(wanted, []);
        let sent = frames(&sent);
        for (id, expected) in ids.iter().zip(expected) {
            prop_assert_eq!(of_channel(&sent, id.number()), expected);
        }
        prop_assert_eq!(client.conn.output_room(), HIGH);
        prop_assert_eq!(client.conn.backlog_room(), BACKLOG);
    }
}

#[test]
fn paced_output_has_as_many_frames_of_a_large_message_as_it_takes_turns() {
    let mut pair = Pair::open();
    let id = pair.open_channel();
    let frame = pair.client.tuning().frame_max as usize;
    let body = alloc::vec![7; 3 * frame];
    let properties = basic::Properties::default();
    let publish = basic::Publish::default();
    let mut channel = pair.client.channel(id).unwrap();
    channel.publish(&publish, &properties, body).unwrap();

    let mut out = Transmit::new();
    let now = pair.now;
    assert!(!pair.client.has_ready_transmit() && pair.client.has_transmit());
    assert!(!pair.client.poll_transmit_turns(now, &mut out, 0));
    let mut lens = Vec::new();
    while pair.client.poll_transmit_turns(now, &mut out, 1) {
        lens.push(out.len());
        out.clear();
    }
    let whole = lens.iter().filter(|len| **len == frame).count();
    assert_eq!(whole, 3);
    assert!(lens.iter().all(|len| *len <= frame), "{lens:?}");
}
