//! Calls leave in their order, on each channel, of any kind and size.

use amqp_driver::{
    Error, Requeue, Tags,
    protocol::{basic, queue},
};
use amqp_test_support::{Probe, Rig, Setup};
use bytes::Bytes;

struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        usize::try_from(self.0 >> 33).unwrap() % limit
    }
}

/// Calls of every kind on several channels, in an order of chance, in a transport that takes
/// little at a time.
#[test]
fn calls_leave_in_the_order_in_which_they_are_made() {
    for seed in 1..60 {
        let mut random = Random(seed);
        let mut setup = Setup {
            seed: Some(seed),
            ..Setup::default()
        };
        setup.server.frame_max = 4096;
        setup.server.frame_min = 4096;
        let (mut rig, connection) = Rig::open_with(setup);
        let channels = [(); 3].map(|()| rig.channel(&connection));
        rig.peer().hold = true;
        rig.peer().saw.clear();
        rig.world().capacity = 700 + random.below(3000);
        let mut expected = vec![Vec::new(); channels.len()];
        let mut calls = Vec::new();
        let none = basic::Properties::default();
        let to = basic::Publish::default();
        for number in 0..80 {
            let at = random.below(channels.len());
            let (channel, said) = (&channels[at], &mut expected[at]);
            let on = channel.number();
            match random.below(5) {
                0 | 1 => {
                    let len = [0, 10, 3000, 5000, 20_000][random.below(5)];
                    let mut body = format!("{number}.").into_bytes();
                    body.resize(body.len() + len, b'x');
                    let shown = String::from_utf8_lossy(&body[..body.len().min(20)]).into_owned();
                    let mut publishing = Box::pin(channel.publish(&to, &none, body));
                    if Probe::new().poll(publishing.as_mut()).is_ready() {
                        said.push(format!("{on} basic.publish {shown}"));
                    }
                }
                2 => {
                    let declare = queue::Declare::default();
                    let mut call = Box::pin(channel.call(declare));
                    assert!(Probe::new().poll(call.as_mut()).is_pending());
                    calls.push(call);
                    said.push(format!("{on} queue.declare"));
                }
                3 => {
                    channel.send(&queue::Purge::default()).unwrap();
                    said.push(format!("{on} queue.purge"));
                }
                _ => {
                    channel.recover_async(true).unwrap();
                    said.push(format!("{on} basic.recover-async"));
                }
            }
            for _ in 0..random.below(6) {
                rig.step();
            }
        }
        rig.run();
        drop(calls);
        for (channel, expected) in channels.iter().zip(expected) {
            let on = format!("{} ", channel.number());
            let said: Vec<_> = rig.peer().said();
            let said: Vec<_> = said.into_iter().filter(|it| it.starts_with(&on)).collect();
            assert_eq!(said, expected, "{seed}");
        }
        rig.peer().release();
        drop(channels);
        rig.finish(connection);
    }
}

/// Acknowledgements keep their place among publishes and calls, and the close comes last.
#[test]
fn acknowledgements_and_closes_keep_their_place() {
    let (mut rig, connection, channel) = Rig::with_channel();
    rig.peer().at_once = ["1", "2", "3"].map(Bytes::from).into();
    let mut consumer = rig
        .wait(channel.consume(basic::Consume::default()))
        .unwrap();
    let first = rig.wait(consumer.next()).unwrap().unwrap();
    let second = rig.wait(consumer.next()).unwrap().unwrap();
    rig.peer().saw.clear();
    let (to, none) = (basic::Publish::default(), basic::Properties::default());
    assert!(
        rig.ready(channel.publish(&to, &none, vec![b'a'; 200_000]))
            .is_some()
    );
    first.ack().unwrap();
    assert!(rig.ready(channel.publish(&to, &none, "b")).is_some());
    second.nack(Requeue::Yes).unwrap();
    channel.ack(Tags::All).unwrap();
    assert!(rig.ready(connection.close()).is_none());
    rig.run();
    let a = "a".repeat(20);
    assert_eq!(
        rig.peer().said(),
        [
            &format!("1 basic.publish {a}"),
            "1 basic.ack",
            "1 basic.publish b",
            "1 basic.nack",
            "1 basic.ack",
            "0 connection.close",
        ]
    );
    drop((consumer, channel));
    rig.finish(connection);
}

/// REG-30: calls on a transactional channel that is committing wait, and keep their order.
#[test]
fn nothing_overtakes_a_commit() {
    // A body that fills one transmit of the machine, to the byte, and around it: the commit is then
    // the last that leaves at once.
    for len in (262_000..262_200).chain([0, 1, 100_000, 300_000]) {
        for eager in [false, true] {
            let (mut rig, connection) = Rig::open();
            let channel = rig.tx_channel(&connection);
            rig.peer().saw.clear();
            rig.world().eager = eager;
            let (to, none) = (basic::Publish::default(), basic::Properties::default());
            assert!(
                rig.ready(channel.publish(&to, &none, vec![b'a'; len]))
                    .is_some()
            );
            let mut commit = Box::pin(channel.commit());
            assert!(Probe::new().poll(commit.as_mut()).is_pending());
            let after = rig.ready(channel.publish(&to, &none, "b")).is_some();
            let mut again = Box::pin(channel.commit());
            assert!(Probe::new().poll(again.as_mut()).is_pending());
            rig.wait(commit).unwrap();
            rig.wait(again).unwrap();
            rig.check_channel(&channel);
            let said = rig.peer().said();
            let methods: Vec<_> = said
                .iter()
                .map(|it| it.split(' ').nth(1).unwrap())
                .collect();
            if after {
                assert_eq!(methods[2], "basic.publish");
            }
            assert_eq!(methods[1], "tx.commit");
            assert_eq!(*methods.last().unwrap(), "queue.declare");
            drop(channel);
            rig.finish(connection);
        }
    }
}

/// A transactional channel that is closed while it commits: the close waits for the commit.
#[test]
fn a_close_waits_for_the_commit() {
    for dropped in [false, true] {
        let (mut rig, connection) = Rig::open();
        let channel = rig.tx_channel(&connection);
        rig.peer().hold = true;
        let mut commit = Box::pin(channel.commit());
        assert!(Probe::new().poll(commit.as_mut()).is_pending());
        drop(commit);
        if dropped {
            drop(channel);
            rig.run();
            assert_eq!(connection.channel_count(), 1);
            rig.peer().release();
            rig.run();
        } else {
            let task = rig.spawn(async move { channel.close().await });
            rig.run();
            assert!(!task.is_done());
            rig.peer().release();
            rig.run();
            assert_eq!(task.take(), Some(Ok(())));
        }
        assert_eq!(connection.channel_count(), 0);
        rig.finish(connection);
    }
}

/// The commit fails, and the channel was to be closed behind it: the close says so, too.
#[test]
fn a_commit_that_fails_closes_the_channel() {
    let (mut rig, connection) = Rig::open();
    let channel = rig.tx_channel(&connection);
    rig.peer().hold = true;
    let mut commit = Box::pin(channel.commit());
    assert!(Probe::new().poll(commit.as_mut()).is_pending());
    drop(commit);
    rig.run();
    let task = rig.spawn(async move { channel.close().await });
    rig.run();
    let failed = amqp_driver::protocol::ReplyCode::PRECONDITION_FAILED;
    rig.peer().close_channel(1, failed, "the commit failed");
    rig.run();
    let Some(Err(Error::ChannelClosed(reason))) = task.take() else {
        panic!("the close is reported as good");
    };
    assert_eq!(reason.code(), Some(failed));
    assert_eq!(connection.channel_count(), 0);
    rig.peer().release();
    rig.check_usable(&connection);
    rig.finish(connection);
}
