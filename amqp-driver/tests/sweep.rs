//! One fault, at every step and behind every byte of a session that uses everything: every wait
//! fails, and the connection ends.

use std::{
    cell::RefCell,
    future::poll_fn,
    rc::Rc,
    task::{Poll, Waker},
    time::Duration,
};

use amqp_driver::{Error, core::wire::ShortStr, protocol::ReplyCode};
use amqp_test_support::{
    Cut, Rig, Setup, Task,
    operations::{Handles, OPERATIONS, stock},
};

/// A session in which everything goes on at once, and which ends with a close.
struct Session {
    rig: Rig,
    on: Handles,
    tasks: Vec<(&'static str, Task<Result<(), Error>>)>,
    close: Task<Result<(), Error>>,
}

impl Session {
    fn start(seed: Option<u64>) -> Self {
        let mut setup = Setup {
            seed,
            ..Setup::default()
        };
        setup.server.frame_max = 8192;
        setup.server.heartbeat = 10;
        let (mut rig, connection) = Rig::open_with(setup);
        let on = Handles::new(&mut rig, connection);
        stock(&mut rig.peer());
        rig.run();
        let left = Rc::new(RefCell::new((OPERATIONS.len(), None::<Waker>)));
        let mut tasks = Vec::new();
        for (number, (name, operation)) in (1..).zip(OPERATIONS) {
            let operation = operation(Handles {
                number,
                ..on.clone()
            });
            let left = Rc::clone(&left);
            let task = rig.spawn(async move {
                let result = operation.await;
                let mut left = left.borrow_mut();
                left.0 -= 1;
                if let Some(waker) = left.1.take() {
                    Waker::wake(waker);
                }
                result
            });
            tasks.push((name, task));
        }
        let connection = on.connection.clone();
        let close = rig.spawn(async move {
            poll_fn(|cx| {
                let mut left = left.borrow_mut();
                left.1 = Some(cx.waker().clone());
                if left.0 == 0 {
                    Poll::Ready(())
                } else {
                    Poll::Pending
                }
            })
            .await;
            connection.close().await
        });
        Self {
            rig,
            on,
            tasks,
            close,
        }
    }

    /// Takes that many steps; false if it came to rest before.
    fn steps(&mut self, count: usize) -> bool {
        (0..count).all(|_| self.rig.step())
    }

    /// Checks that every wait has ended, and that by and by everything ends.
    fn check(mut self, what: &str) {
        self.rig.run();
        self.rig.advance(Duration::from_secs(70));
        let reason = self.on.connection.close_reason();
        let reason = reason.unwrap_or_else(|| panic!("{what}: the connection lives on"));
        let error = Error::ConnectionClosed(reason);
        for (name, task) in &self.tasks {
            let reported = task
                .take()
                .unwrap_or_else(|| panic!("{what}: {name} hangs"));
            let known = match &reported {
                Ok(()) | Err(Error::Unanswered { .. } | Error::TimedOut { .. }) => true,
                Err(reported) => *reported == error,
            };
            assert!(
                known,
                "{what}: {name} was reported {reported:?} instead of {error:?}"
            );
        }
        assert!(self.close.is_done(), "{what}: close hangs");
        assert!(self.rig.driver_ended(), "{what}: the driver runs on");
    }
}

/// How many steps the session takes when nothing goes wrong, how many bytes it reads and writes.
fn undisturbed(seed: Option<u64>) -> (usize, u64, u64) {
    let mut session = Session::start(seed);
    let (start, read, written) = {
        let world = session.rig.world();
        (session.rig.steps, world.read, world.written)
    };
    session.rig.run();
    for (name, task) in &session.tasks {
        assert_eq!(task.take(), Some(Ok(())), "{name}");
    }
    assert_eq!(session.close.take(), Some(Ok(())));
    let rig = session.rig;
    assert!(rig.driver_ended());
    assert_eq!(rig.peer().violations, [""; 0]);
    assert!(rig.peer().closed_in_good_order());
    let world = rig.world();
    assert!(world.peer.outstanding.is_empty());
    (
        rig.steps - start,
        world.read - read,
        world.written - written,
    )
}

#[test]
fn nothing_goes_wrong_by_itself() {
    undisturbed(None);
    for seed in 1..200 {
        undisturbed(Some(seed));
    }
}

type Fault = fn(&mut Rig, &Handles);

const FAULTS: [(&str, Fault); 11] = [
    ("eof", |rig, _| rig.world().cut(Cut::Eof)),
    ("read error", |rig, _| rig.world().cut(Cut::ReadError)),
    ("write error", |rig, _| rig.world().cut(Cut::WriteError)),
    ("reset", |rig, _| rig.world().cut(Cut::Reset)),
    ("dropped", |rig, _| rig.drop_driver()),
    ("abort", |_, on| on.connection.abort()),
    ("silence", |rig, _| {
        let mut peer = rig.peer();
        (peer.mute, peer.deaf) = (true, true);
    }),
    ("stall", |rig, _| {
        rig.world().set_capacity(0);
        rig.peer().mute = true;
    }),
    ("server closes", |rig, _| {
        rig.peer().close(ReplyCode::CONNECTION_FORCED, "shutdown")
    }),
    ("nonsense", |rig, _| rig.world().inject(&[9; 9])),
    ("blocked", |rig, _| {
        if rig.peer().machine.block(ShortStr::default()).is_ok() {
            rig.run();
        }
        rig.peer().mute = true;
    }),
];

#[test]
fn a_fault_at_every_step() {
    for (name, fault) in FAULTS {
        for seed in [None, Some(1), Some(2)] {
            let (total, _, _) = undisturbed(seed);
            for count in 0..=total {
                let mut session = Session::start(seed);
                session.steps(count);
                fault(&mut session.rig, &session.on);
                session.check(&format!("{name} after {count} steps, {seed:?}"));
            }
        }
    }
}

#[test]
fn a_cut_behind_every_byte_that_is_read() {
    let (_, total, _) = undisturbed(None);
    for bytes in 0..total {
        let cut = if bytes % 3 == 0 { Cut::Eof } else { Cut::Reset };
        let mut session = Session::start(None);
        {
            let mut world = session.rig.world();
            world.read_budget = Some((world.read + bytes, cut));
        }
        session.rig.run();
        session.check(&format!("{cut:?} after {bytes} bytes read"));
    }
}

#[test]
fn a_cut_behind_every_byte_that_is_written() {
    let (_, _, total) = undisturbed(None);
    // Most of these are in the bodies of two messages.
    for bytes in (0..3000).chain((3000..total).step_by(97)) {
        let cut = if bytes % 3 == 0 {
            Cut::Eof
        } else {
            Cut::WriteError
        };
        let mut session = Session::start(None);
        {
            let mut world = session.rig.world();
            world.write_budget = Some((world.written + bytes, cut));
        }
        session.rig.run();
        session.check(&format!("{cut:?} after {bytes} bytes written"));
    }
}

/// REG-8: the server closes a channel at every step. Its calls fail, those of others go on.
#[test]
fn a_channel_is_closed_at_every_step() {
    for seed in [None, Some(1), Some(2), Some(3)] {
        let (total, _, _) = undisturbed(seed);
        for number in 1..=3 {
            for count in 0..total {
                let mut session = Session::start(seed);
                session.steps(count);
                if !session.rig.peer().open_channels().contains(&number) {
                    continue;
                }
                session
                    .rig
                    .peer()
                    .close_channel(number, ReplyCode::NOT_FOUND, "gone");
                session.rig.run();
                let what = format!("{number} closed after {count} steps, {seed:?}");
                let mut failed = 0;
                for (name, task) in &session.tasks {
                    let reported = task
                        .take()
                        .unwrap_or_else(|| panic!("{what}: {name} hangs"));
                    match reported {
                        Ok(()) => {}
                        Err(Error::ChannelClosed(reason)) => {
                            assert_eq!(reason.by_peer().unwrap().code, ReplyCode::NOT_FOUND);
                            failed += 1;
                        }
                        Err(other) => panic!("{what}: {name} was reported {other:?}"),
                    }
                }
                assert!(failed < session.tasks.len(), "{what}");
                assert_eq!(session.close.take(), Some(Ok(())), "{what}");
                assert_eq!(session.rig.peer().violations, [""; 0], "{what}");
                assert!(session.rig.driver_ended(), "{what}");
            }
        }
    }
}
