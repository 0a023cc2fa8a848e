//! Every asynchronous method, dropped at every one of its await points, while the server answers at
//! every moment from then on. REG-5, REG-6, REG-7, and the shape of amqprs#196.

use std::{collections::BTreeSet, rc::Rc, time::Duration};

use amqp_driver::{
    Error,
    core::{MethodDef as _, wire::ShortStr},
    protocol::{RULES, basic, connection},
};
use amqp_test_support::{
    Rig, Setup, Task,
    operations::{Handles, OPERATIONS, call, stock},
};
use bytes::Bytes;

/// A way to run: how many bytes move at a time, and in which order things happen.
#[derive(Clone, Copy, Debug)]
struct Way {
    piece: usize,
    stutter: bool,
    seed: Option<u64>,
}

const WAYS: [Way; 6] = [
    Way {
        piece: usize::MAX,
        stutter: false,
        seed: None,
    },
    Way {
        piece: 11,
        stutter: true,
        seed: None,
    },
    Way {
        piece: usize::MAX,
        stutter: false,
        seed: Some(1),
    },
    Way {
        piece: usize::MAX,
        stutter: true,
        seed: Some(2),
    },
    Way {
        piece: 5,
        stutter: false,
        seed: Some(3),
    },
    Way {
        piece: 30,
        stutter: true,
        seed: Some(4),
    },
];

fn start(way: Way) -> (Rig, Handles) {
    let mut setup = Setup {
        seed: way.seed,
        ..Setup::default()
    };
    // Small, so that a large message need not be very large.
    setup.server.frame_max = 8192;
    let (mut rig, connection) = Rig::open_with(setup);
    let on = Handles::new(&mut rig, connection);
    stock(&mut rig.peer());
    let mut world = rig.world();
    world.read_max = way.piece;
    // Large messages take too long in such small pieces.
    world.server_max = way.piece.saturating_mul(100);
    world.write_max = way.piece.saturating_mul(100);
    world.stutter = way.stutter;
    drop(world);
    (rig, on)
}

/// Takes that many steps, at most until the task has ended.
fn steps<T>(rig: &mut Rig, task: &Task<T>, count: usize) {
    for step in 0..count {
        if task.is_done() {
            break;
        }
        assert!(rig.step(), "it hangs after {step}");
    }
}

/// Checks for leaks: the channels are the initial ones, without consumers or unacked deliveries,
/// and all can be used.
fn check(mut rig: Rig, on: Handles, what: &str) {
    rig.run();
    {
        let peer = rig.peer();
        assert_eq!(peer.violations, [""; 0], "{what}");
        assert_eq!(peer.open_channels(), [1, 2, 3], "{what}");
        assert!(peer.consumers.is_empty(), "{what}: {:?}", peer.consumers);
        assert!(
            peer.outstanding.is_empty(),
            "{what}: {:?}",
            peer.outstanding
        );
    }
    assert_eq!(on.connection.channel_count(), 3, "{what}");
    assert_eq!(on.connection.buffered(), 0, "{what}");
    rig.check_channel(&on.plain);
    rig.check_channel(&on.confirm);
    rig.check_channel(&on.tx);
    let to = basic::Publish::default();
    let none = basic::Properties::default();
    let confirm = rig.wait(on.confirm.publish(&to, &none, "last")).unwrap();
    assert_eq!(rig.wait(confirm), Ok(()), "{what}");
    rig.check_usable(&on.connection);
    // No deadline is left without its wait.
    rig.advance(Duration::from_secs(60));
    let Handles {
        connection,
        plain,
        confirm,
        tx,
        ..
    } = on;
    drop((plain, confirm, tx));
    rig.finish(connection);
}

/// The list of operations has all requests of the table that leave the connection open.
#[test]
fn every_request_of_the_table_is_among_the_operations() {
    let mut asked = BTreeSet::new();
    for (_, operation) in OPERATIONS {
        let (mut rig, on) = start(WAYS[0]);
        rig.wait(operation(on)).unwrap();
        let said = rig.peer().said();
        asked.extend(
            said.iter()
                .filter_map(|line| line.split(' ').nth(1).map(str::to_owned)),
        );
    }
    let of_handshake_or_end = [connection::Open::ID, connection::Close::ID];
    let of_table = RULES.iter().filter(|rule| {
        rule.client_sends && !rule.responses.is_empty() && !of_handshake_or_end.contains(&rule.id)
    });
    let missing: Vec<_> = of_table
        .map(|rule| rule.name)
        .filter(|name| !asked.contains(*name))
        .collect();
    assert_eq!(missing, [""; 0]);
}

#[test]
fn every_future_can_be_dropped_at_every_step() {
    for (name, operation) in OPERATIONS {
        for way in WAYS {
            for count in 0.. {
                let (mut rig, on) = start(way);
                let task = rig.spawn(operation(on.clone()));
                steps(&mut rig, &task, count);
                let done = task.take();
                rig.cancel(&task);
                check(rig, on, &format!("{name} {way:?} dropped after {count}"));
                if let Some(result) = done {
                    assert_eq!(result, Ok(()), "{name} {way:?}");
                    break;
                }
            }
        }
    }
}

/// The same request is made again before the answer to the dropped one has come: each gets its own.
#[test]
fn a_late_answer_is_not_taken_for_that_of_the_next_request() {
    for (name, operation) in OPERATIONS {
        for way in WAYS {
            for count in 0..200 {
                let (mut rig, on) = start(way);
                let first: Task<_> = rig.spawn(operation(on.clone()));
                steps(&mut rig, &first, count);
                let done = first.is_done();
                rig.peer().mute = true;
                rig.run();
                rig.cancel(&first);
                let again = Handles {
                    number: 2,
                    ..on.clone()
                };
                let second = rig.spawn(operation(again));
                rig.run();
                rig.peer().mute = false;
                rig.run();
                let what = format!("{name} {way:?} dropped after {count}");
                assert_eq!(second.take(), Some(Ok(())), "{what}");
                check(rig, on, &what);
                if done {
                    break;
                }
            }
        }
    }
}

/// The answer comes after the request has timed out: at once, during the next one, or later.
#[test]
fn a_request_that_timed_out_is_taken_back_when_its_answer_comes() {
    for (name, operation) in OPERATIONS {
        for count in 0..40 {
            let way = WAYS[0];
            let (mut rig, on) = start(way);
            let first = rig.spawn(operation(on.clone()));
            steps(&mut rig, &first, count);
            rig.peer().mute = true;
            rig.run();
            let done = first.is_done();
            rig.advance(Duration::from_secs(31));
            let what = format!("{name} muted after {count}");
            match first.take() {
                Some(Err(Error::Unanswered { .. } | Error::TimedOut { .. }) | Ok(())) => {}
                Some(other) => panic!("{what}: {other:?}"),
                // A wait for a message or a confirm goes on.
                None => rig.cancel(&first),
            }
            let second = rig.spawn(operation(Handles {
                number: 2,
                ..on.clone()
            }));
            rig.run();
            rig.peer().mute = false;
            rig.run();
            assert_eq!(second.take(), Some(Ok(())), "{what}");
            check(rig, on, &what);
            if done {
                break;
            }
        }
    }
}

/// Waiting to be opened, and closing, end the connection's life, so that they stand alone.
#[test]
fn opened_and_close_can_be_dropped_at_every_step() {
    for way in WAYS {
        for count in 0.. {
            let (mut rig, connection) = Rig::start(Setup {
                seed: way.seed,
                ..Setup::default()
            });
            {
                let mut world = rig.world();
                (world.read_max, world.write_max) = (way.piece, way.piece);
                world.stutter = way.stutter;
            }
            let waiting = connection.clone();
            let task = rig.spawn(async move {
                waiting.opened().await?;
                waiting.close().await
            });
            steps(&mut rig, &task, count);
            let done = task.take();
            rig.cancel(&task);
            rig.run();
            // Whichever future was dropped, the next one has the same result.
            assert!(rig.wait(connection.close()).is_ok());
            assert!(rig.wait(connection.closed()).is_clean());
            assert!(matches!(
                rig.wait(connection.opened()),
                Err(Error::ConnectionClosed(_))
            ));
            rig.finish(connection);
            if let Some(result) = done {
                assert_eq!(result, Ok(()));
                break;
            }
        }
    }
}

/// A publish that waits for room, and is dropped, was never made.
#[test]
fn a_publish_that_waits_can_be_dropped() {
    let to = basic::Publish::default();
    let none = basic::Properties::default();
    let (mut rig, connection) = Rig::open();
    let on = Rc::new(rig.confirm_channel(&connection));
    rig.peer().machine.block(ShortStr::default()).unwrap();
    rig.run();
    let spawn = |rig: &mut Rig, body: &'static str| {
        let (on, to, none) = (Rc::clone(&on), to.clone(), none.clone());
        rig.spawn(async move { on.publish(&to, &none, body).await })
    };
    let kept = spawn(&mut rig, "kept");
    let dropped = spawn(&mut rig, "dropped");
    let last = spawn(&mut rig, "last");
    rig.run();
    rig.cancel(&dropped);
    rig.peer().machine.unblock().unwrap();
    rig.run();
    for task in [kept, last] {
        let confirm = task.take().unwrap().unwrap();
        assert_eq!(rig.wait(confirm), Ok(()));
    }
    let bodies: Vec<Bytes> = rig
        .peer()
        .messages()
        .into_iter()
        .map(|it| it.body)
        .collect();
    assert_eq!(bodies, ["kept", "last"]);
    drop(on);
    rig.finish(connection);
}

/// amqprs#196: the future of a request is dropped while the answer is already there.
#[test]
fn an_answer_that_is_not_taken_strands_nothing() {
    let (mut rig, connection, channel) = Rig::with_channel();
    for round in 0..100 {
        let channel = &channel;
        let mut future = Box::pin(call(channel, round));
        let probe = amqp_test_support::Probe::new();
        assert!(probe.poll(future.as_mut()).is_pending());
        rig.run();
        assert!(probe.take(), "the answer is there");
        drop(future);
        rig.wait(call(channel, round + 1000)).unwrap();
    }
    drop(channel);
    rig.finish(connection);
}

/// A future that is not polled queues nothing, and one poll queues the command whole.
#[test]
fn a_command_is_queued_when_its_future_is_first_polled() {
    for (name, operation) in OPERATIONS {
        let (mut rig, on) = start(WAYS[0]);
        rig.run();
        let future = operation(on.clone());
        let mut call = Box::pin(call(&on.plain, 1));
        rig.run();
        let written = rig.world().written;
        assert_eq!(on.connection.buffered(), 0, "{name}");
        drop(future);
        assert!(
            amqp_test_support::Probe::new()
                .poll(call.as_mut())
                .is_pending()
        );
        assert!(on.connection.buffered() > 0, "{name}");
        drop(call);
        rig.peer().saw.clear();
        rig.run();
        assert!(rig.world().written > written, "{name}");
        assert_eq!(rig.peer().said(), ["1 queue.declare"], "{name}");
        check(rig, on, name);
    }
}
