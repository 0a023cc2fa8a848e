//! A loop that only awaits yields to other tasks, though there is always something ready.

use std::{future::Future, pin::pin, task::Poll, time::Duration};

use amqp_driver::protocol::{ReplyCode, basic};
use amqp_test_support::{Probe, Rig, Setup};

use crate::{none, to_queue};

/// The most polls of a loop, one after the other, that were all ready.
fn longest_run(polls: impl IntoIterator<Item = bool>) -> usize {
    let (mut longest, mut run) = (0, 0);
    for ready in polls {
        run = if ready { run + 1 } else { 0 };
        longest = longest.max(run);
    }
    longest
}

/// How long each turn of a loop takes, and the most of them one after the other. The clock is looked at
/// now and then.
const TURNS: [(Duration, usize); 3] = [
    (Duration::from_micros(10), 32),
    (Duration::from_millis(2), 32),
    // A clock that stands still.
    (Duration::ZERO, 4096),
];

/// Polls a future to its end, each time for so long, and notes each poll. Pending without a wake-up
/// fails.
fn polls<T>(
    rig: &Rig,
    takes: Duration,
    notes: &mut Vec<bool>,
    future: impl Future<Output = T>,
) -> T {
    let mut future = pin!(future);
    let probe = Probe::new();
    loop {
        let now = rig.world().now;
        rig.world().now = now + takes;
        match probe.poll(future.as_mut()) {
            Poll::Ready(output) => {
                notes.push(true);
                return output;
            }
            Poll::Pending => {
                notes.push(false);
                assert!(probe.take(), "it waits in place of yielding");
            }
        }
    }
}

/// More than any loop may go on for.
const COUNT: usize = 5000;

#[test]
fn a_consumer_yields() {
    for (takes, turns) in TURNS {
        let (mut rig, connection, channel) = Rig::with_channel();
        let mut consumer = rig
            .wait(channel.consume(basic::Consume::default()))
            .unwrap();
        let tag = consumer.tag().to_string();
        for _ in 0..COUNT {
            assert!(rig.peer().deliver(1, &tag, "x"));
        }
        rig.run();
        let mut notes = Vec::new();
        for _ in 0..COUNT {
            let delivery = polls(&rig, takes, &mut notes, consumer.next());
            delivery.unwrap().unwrap().ack().unwrap();
        }
        assert!(longest_run(notes) <= turns, "{takes:?}");
        drop((consumer, channel));
        rig.finish(connection);
    }
}

#[test]
fn confirms_yield() {
    for (takes, turns) in TURNS {
        let mut setup = Setup::default();
        setup.client.limits.unconfirmed = COUNT;
        let (mut rig, connection) = Rig::open_with(setup);
        let channel = rig.confirm_channel(&connection);
        let confirms: Vec<_> = (0..COUNT)
            .map(|_| {
                rig.wait(channel.publish(&to_queue(), &none(), "x"))
                    .unwrap()
            })
            .collect();
        rig.run();
        rig.peer().ack(1, COUNT as u64, true);
        rig.run();
        let mut notes = Vec::new();
        for confirm in confirms {
            assert_eq!(polls(&rig, takes, &mut notes, confirm), Ok(()));
        }
        assert!(longest_run(notes) <= turns, "{takes:?}");
        drop(channel);
        rig.finish(connection);
    }
}

#[test]
fn returns_yield() {
    for (takes, turns) in TURNS {
        let (mut rig, connection, channel) = Rig::with_channel();
        rig.peer().unroutable = true;
        let mut returns = channel.returns();
        let mandatory = to_queue().mandatory(true);
        for _ in 0..COUNT {
            rig.wait(channel.publish(&mandatory, &none(), "x")).unwrap();
        }
        rig.run();
        let mut notes = Vec::new();
        for _ in 0..COUNT {
            assert!(polls(&rig, takes, &mut notes, returns.next()).is_some());
        }
        assert!(longest_run(notes) <= turns, "{takes:?}");
        drop((returns, channel));
        rig.finish(connection);
    }
}

/// Also one that fails each time.
#[test]
fn publishing_yields() {
    for is_open in [true, false] {
        for (takes, turns) in TURNS {
            let mut setup = Setup::default();
            setup.client.limits.output_high = 4 << 20;
            let (mut rig, connection) = Rig::open_with(setup);
            let channel = rig.channel(&connection);
            if !is_open {
                rig.peer().close(ReplyCode::CONNECTION_FORCED, "bye");
                rig.run();
            }
            let mut notes = Vec::new();
            for _ in 0..COUNT {
                let (to, none) = (to_queue(), none());
                let publish = channel.publish(&to, &none, "x");
                let published = polls(&rig, takes, &mut notes, publish);
                assert_eq!(published.is_ok(), is_open);
            }
            assert!(longest_run(notes) <= turns, "{takes:?}");
            drop(channel);
            connection.abort();
            rig.run();
        }
    }
}

/// Also the driver, though there is always something to read.
#[test]
fn the_driver_yields() {
    const BABBLE: usize = 100_000;
    for takes in [Duration::ZERO, Duration::from_micros(100)] {
        let (mut rig, connection, channel) = Rig::with_channel();
        rig.world().babble = BABBLE;
        let polls = 20;
        for _ in 0..polls {
            let now = rig.world().now;
            rig.world().now = now + takes;
            let (wakes, before) = (rig.driver_wakes(), rig.world().babble);
            rig.poll_driver();
            assert!(rig.driver_wakes() > wakes, "it has more to do");
            let read = before - rig.world().babble;
            assert!((1..1000).contains(&read), "{read}");
        }
        rig.world().babble = 0;
        rig.run();
        drop(channel);
        rig.finish(connection);
    }
}
