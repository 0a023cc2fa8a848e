//! Nothing hangs: whoever waits is told when the connection ends, however it ends, and everyone is
//! told the same. TRI-10, PUK-07, PUK-41.

#![expect(clippy::type_complexity, reason = "tables of a name and what to do")]

use std::{future::Future, io, pin::Pin, rc::Rc, time::Duration};

use amqp_driver::{
    Channel, ChannelPool, CloseReason, ConfirmChannel, Connection, Error, TxChannel, Unconfirmed,
    core::{
        CloseCause, Stage, TimeoutReason,
        wire::{Secret, ShortStr},
    },
    protocol::{ReplyCode, basic, confirm, exchange, queue, tx},
};
use amqp_test_support::{Cut, Rig, Setup};
use bytes::{BufMut as _, BytesMut};

#[derive(Clone)]
struct Handles {
    connection: Connection,
    plain: Rc<Channel>,
    confirm: Rc<ConfirmChannel>,
    tx: Rc<TxChannel>,
    /// Its only channel is taken.
    pool: ChannelPool,
}

type Waiting = Pin<Box<dyn Future<Output = CloseReason>>>;

/// Everyone who can wait, and what they are told in the end.
const WAITERS: [(&str, fn(Handles) -> Waiting); 24] = [
    ("open_channel", |on| {
        Box::pin(async move { reason(on.connection.open_channel().await.unwrap_err()) })
    }),
    ("update_secret", |on| {
        Box::pin(async move {
            let secret = Secret::from("token");
            let updating = on.connection.update_secret(secret, ShortStr::default());
            reason(updating.await.unwrap_err())
        })
    }),
    ("closed", |on| {
        Box::pin(async move { on.connection.closed().await })
    }),
    ("scope", |on| {
        Box::pin(async move {
            let nothing = std::future::pending::<()>();
            reason(on.connection.scope(nothing).await.unwrap_err())
        })
    }),
    ("channel_pool", |on| {
        Box::pin(async move { reason(on.connection.channel_pool(2).await.unwrap_err()) })
    }),
    ("checkout", |on| {
        Box::pin(async move { reason(on.pool.checkout().await.unwrap_err()) })
    }),
    ("checkout too", |on| {
        Box::pin(async move { reason(on.pool.checkout().await.unwrap_err()) })
    }),
    ("call", |on| {
        Box::pin(async move {
            let declare = queue::Declare::default();
            reason(on.plain.call(declare).await.unwrap_err())
        })
    }),
    ("get", |on| {
        Box::pin(async move { reason(on.plain.get(basic::Get::default()).await.unwrap_err()) })
    }),
    ("consume", |on| {
        Box::pin(async move {
            let consume = basic::Consume::default();
            reason(on.plain.consume(consume).await.unwrap_err())
        })
    }),
    ("publish", |on| {
        Box::pin(async move {
            let (to, none) = (basic::Publish::default(), basic::Properties::default());
            reason(on.plain.publish(&to, &none, "held").await.unwrap_err())
        })
    }),
    ("publish with confirm", |on| {
        Box::pin(async move {
            let (to, none) = (basic::Publish::default(), basic::Properties::default());
            reason(on.confirm.publish(&to, &none, "held").await.unwrap_err())
        })
    }),
    ("returns", |on| {
        Box::pin(async move {
            let mut returns = on.plain.returns();
            assert_eq!(returns.next().await, None);
            reason(returns.error().unwrap())
        })
    }),
    ("returns too", |on| {
        Box::pin(async move {
            let mut returns = on.plain.returns();
            assert_eq!(returns.next().await, None);
            reason(returns.error().unwrap())
        })
    }),
    ("confirm_select", |on| {
        Box::pin(async move {
            let select = confirm::Select::default();
            reason(on.plain.call(select).await.unwrap_err())
        })
    }),
    ("qos", |on| {
        Box::pin(async move { reason(on.plain.call(basic::Qos::default()).await.unwrap_err()) })
    }),
    ("exchange", |on| {
        Box::pin(async move {
            let declare = exchange::Declare::default().exchange("x").unwrap();
            let declare = declare.kind("direct").unwrap();
            reason(on.plain.call(declare).await.unwrap_err())
        })
    }),
    ("recover", |on| {
        Box::pin(async move {
            let recover = basic::Recover::default().requeue(true);
            reason(on.confirm.call(recover).await.unwrap_err())
        })
    }),
    ("tx select", |on| {
        Box::pin(async move { reason(on.tx.call(tx::Select).await.unwrap_err()) })
    }),
    ("rollback", |on| {
        Box::pin(async move { reason(on.tx.rollback().await.unwrap_err()) })
    }),
    ("commit", |on| {
        Box::pin(async move { reason(on.tx.commit().await.unwrap_err()) })
    }),
    ("call behind commit", |on| {
        Box::pin(async move {
            let purge = queue::Purge::default();
            reason(on.tx.call(purge).await.unwrap_err())
        })
    }),
    ("closed too", |on| {
        Box::pin(async move { on.connection.closed().await })
    }),
    ("no_ack", |on| {
        Box::pin(async move {
            let consume = basic::Consume::default();
            reason(on.confirm.consume_no_ack(consume).await.unwrap_err())
        })
    }),
];

fn reason(error: Error) -> CloseReason {
    match error {
        Error::ConnectionClosed(reason) => reason,
        other => panic!("{other:?}"),
    }
}

/// A method frame on channel 0.
fn frame(class: u16, method: u16, arguments: &[u8]) -> BytesMut {
    let mut frame = BytesMut::new();
    frame.put_u8(1);
    frame.put_u16(0);
    frame.put_u32(u32::try_from(arguments.len() + 4).unwrap());
    frame.put_u16(class);
    frame.put_u16(method);
    frame.extend_from_slice(arguments);
    frame.put_u8(0xce);
    frame
}

/// The ways in which a connection can end.
const CAUSES: [(&str, fn(&mut Rig, &Handles)); 10] = [
    ("eof", |rig, _| rig.world().cut(Cut::Eof)),
    ("read error", |rig, _| rig.world().cut(Cut::ReadError)),
    ("reset", |rig, _| rig.world().cut(Cut::Reset)),
    ("write error", |rig, on| {
        rig.world().cut(Cut::WriteError);
        on.plain
            .send(&queue::Declare::default().queue("q").unwrap())
            .unwrap();
    }),
    ("closed by the server", |rig, _| {
        let close = frame(10, 50, b"\x01\x40\x08shutdown\0\0\0\0");
        rig.world().inject(&close);
    }),
    ("the server breaks the protocol", |rig, _| {
        rig.world().inject(&[1, 0, 0, 0, 0, 0, 0, 0])
    }),
    ("an answer to nothing", |rig, _| {
        rig.world().inject(&frame(10, 41, &[0]))
    }),
    ("the server is silent", |rig, _| {
        rig.advance(Duration::from_secs(25))
    }),
    ("the driver is dropped", |rig, _| rig.drop_driver()),
    ("abort", |_, on| on.connection.abort()),
];

/// A connection on which all wait, with a server that answers nothing.
fn start(
    stalled: bool,
) -> (
    Rig,
    Handles,
    Vec<(&'static str, amqp_test_support::Task<CloseReason>)>,
) {
    let mut setup = Setup::default();
    setup.server.heartbeat = 10;
    let (mut rig, connection) = Rig::open_with(setup);
    let pool = rig.wait(connection.channel_pool(1)).unwrap();
    let on = Handles {
        plain: Rc::new(rig.channel(&connection)),
        confirm: Rc::new(rig.confirm_channel(&connection)),
        tx: Rc::new(rig.tx_channel(&connection)),
        pool,
        connection,
    };
    let taken = rig.wait(on.pool.checkout()).unwrap();
    let mut tasks = Vec::new();

    rig.peer().confirming = amqp_test_support::Confirming::ByHand;
    let (to, none) = (basic::Publish::default(), basic::Properties::default());
    let sent = rig.wait(on.confirm.publish(&to, &none, "sent")).unwrap();
    let mut consumer = rig
        .wait(on.plain.consume(basic::Consume::default()))
        .unwrap();
    let mut cancelled = rig
        .wait(on.plain.consume(basic::Consume::default()))
        .unwrap();
    let closing = rig.channel(&on.connection);
    rig.peer().machine.block(ShortStr::default()).unwrap();
    rig.run();
    rig.peer().mute = true;
    if stalled {
        rig.world().set_capacity(0);
    }

    tasks.push((
        "confirm",
        rig.spawn(async move {
            match sent.await.unwrap_err() {
                Unconfirmed::Unknown(reason) => of_connection(&reason),
                other => panic!("{other:?}"),
            }
        }),
    ));
    tasks.push((
        "next",
        rig.spawn(async move {
            let error = consumer.next().await.unwrap().unwrap_err();
            assert!(consumer.next().await.is_none());
            reason(error)
        }),
    ));
    tasks.push((
        "cancel",
        rig.spawn(async move {
            let error = reason(cancelled.cancel().await.unwrap_err());
            // The consumer tells the same.
            assert_eq!(reason(cancelled.next().await.unwrap().unwrap_err()), error);
            error
        }),
    ));
    tasks.push((
        "channel.close",
        rig.spawn(async move { reason(closing.close().await.unwrap_err()) }),
    ));
    for (name, waiter) in WAITERS {
        tasks.push((name, rig.spawn(waiter(on.clone()))));
    }
    // Whoever has taken the pool's channel keeps it.
    std::mem::forget(taken);
    rig.run();
    for (name, task) in &tasks {
        assert!(!task.is_done(), "{name} does not wait");
    }
    (rig, on, tasks)
}

/// What ended the connection, when it is what ended a channel.
fn of_connection(reason: &CloseReason) -> CloseReason {
    match reason.cause() {
        CloseCause::Connection(reason) => reason.clone(),
        other => panic!("{other:?}"),
    }
}

/// For so long the driver listens for the reason when writing has failed.
const LISTEN: Duration = Duration::from_millis(20);

/// TRI-10: pending calls fail, connection and channels report closed. PUK-07: each waiter is told
/// once.
#[test]
fn everyone_is_told_the_same() {
    for stalled in [false, true] {
        for (cause, end) in CAUSES {
            if stalled && cause == "write error" {
                continue;
            }
            let (mut rig, on, tasks) = start(stalled);
            end(&mut rig, &on);
            rig.run();
            rig.advance(LISTEN);
            let told = on.connection.close_reason();
            let told = told.unwrap_or_else(|| panic!("{cause}: the connection lives"));
            for (name, task) in &tasks {
                let reason = task.take();
                assert_eq!(reason.as_ref(), Some(&told), "{cause}: {name}, {stalled}");
            }
            // Whatever the server is still to be told, the driver gives up in time.
            rig.advance(Duration::from_secs(30));
            assert!(rig.driver_ended(), "{cause}: the driver runs on, {stalled}");
            assert!(rig.world().dropped);
            check_closed(&mut rig, &on, &told);
        }
    }
}

/// PUK-41: on a closed connection every operation says so, and nothing is sent.
fn check_closed(rig: &mut Rig, on: &Handles, told: &CloseReason) {
    let written = rig.world().written;
    assert!(!on.connection.is_open());
    assert!(!on.plain.is_open());
    assert!(on.plain.close_reason().is_some());
    for (name, waiter) in WAITERS {
        assert_eq!(&rig.wait(waiter(on.clone())), told, "{name}");
    }
    assert_eq!(reason(rig.wait(on.plain.close()).unwrap_err()), *told);
    assert_eq!(reason(rig.wait(on.connection.opened()).unwrap_err()), *told);
    assert_eq!(reason(rig.wait(on.connection.close()).unwrap_err()), *told);
    assert_eq!(
        reason(on.plain.ack(amqp_driver::Tags::All).unwrap_err()),
        *told
    );
    assert_eq!(reason(on.plain.recover_async(true).unwrap_err()), *told);
    assert_eq!(
        reason(on.plain.send(&queue::Purge::default()).unwrap_err()),
        *told
    );
    assert_eq!(on.pool.idle(), 0);
    assert_eq!(rig.world().written, written);
}

#[test]
fn the_reason_is_the_right_one() {
    let cause_of = |wanted: &str| {
        let (_, end) = CAUSES
            .into_iter()
            .find(|(name, _)| *name == wanted)
            .unwrap();
        let (mut rig, on, _tasks) = start(false);
        end(&mut rig, &on);
        rig.run();
        rig.advance(LISTEN);
        on.connection.close_reason().unwrap()
    };
    let stage = Stage::Open;
    assert_eq!(*cause_of("eof").cause(), CloseCause::Eof { stage });
    for failed in [
        "read error",
        "reset",
        "write error",
        "abort",
        "the driver is dropped",
    ] {
        let reason = cause_of(failed);
        assert!(
            matches!(reason.cause(), CloseCause::Transport { .. }),
            "{reason:?}"
        );
    }
    let by_server = cause_of("closed by the server");
    let close = by_server.by_peer().unwrap();
    assert_eq!(
        (close.code, close.text.as_str()),
        (ReplyCode::CONNECTION_FORCED, "shutdown")
    );
    for fault in ["the server breaks the protocol", "an answer to nothing"] {
        let reason = cause_of(fault);
        assert!(
            matches!(reason.cause(), CloseCause::ProtocolError(_)),
            "{reason:?}"
        );
    }
    let silent = CloseCause::TimedOut(TimeoutReason::PeerSilent);
    assert_eq!(*cause_of("the server is silent").cause(), silent);
    // Who reads the reason is not sent looking for a bug in the wrong place.
    assert!(!cause_of("abort").to_string().contains("driver was dropped"));
}

/// Without heartbeats, a request that is not answered times out, whatever it is; who waits for
/// something else waits on.
#[test]
fn requests_time_out() {
    const UNTIMED: [&str; 11] = [
        "closed",
        "closed too",
        "scope",
        "publish",
        "publish with confirm",
        "returns",
        "returns too",
        "confirm",
        "next",
        "checkout",
        "checkout too",
    ];
    let (mut rig, connection) = Rig::open();
    let pool = rig.wait(connection.channel_pool(1)).unwrap();
    let on = Handles {
        plain: Rc::new(rig.channel(&connection)),
        confirm: Rc::new(rig.confirm_channel(&connection)),
        tx: Rc::new(rig.tx_channel(&connection)),
        pool,
        connection,
    };
    rig.peer().mute = true;
    let declare = || queue::Declare::default();
    let request = |name: &str, on: &Handles| -> Pin<Box<dyn Future<Output = Error>>> {
        let on = on.clone();
        match name {
            "open_channel" => {
                Box::pin(async move { on.connection.open_channel().await.unwrap_err() })
            }
            "channel_pool" => {
                Box::pin(async move { on.connection.channel_pool(2).await.unwrap_err() })
            }
            "update_secret" => Box::pin(async move {
                let secret = Secret::from("token");
                on.connection
                    .update_secret(secret, ShortStr::default())
                    .await
                    .unwrap_err()
            }),
            "call" => Box::pin(async move { on.plain.call(declare()).await.unwrap_err() }),
            "get" => {
                Box::pin(async move { on.plain.get(basic::Get::default()).await.unwrap_err() })
            }
            "consume" => Box::pin(async move {
                on.plain
                    .consume(basic::Consume::default())
                    .await
                    .unwrap_err()
            }),
            "commit" => Box::pin(async move { on.tx.commit().await.unwrap_err() }),
            "behind commit" => Box::pin(async move { on.tx.call(declare()).await.unwrap_err() }),
            "close" => Box::pin(async move { on.confirm.close().await.unwrap_err() }),
            other => unreachable!("{other}"),
        }
    };
    let names = [
        "open_channel",
        "channel_pool",
        "update_secret",
        "call",
        "get",
        "consume",
        "commit",
        "behind commit",
        "close",
    ];
    let tasks = names.map(|name| rig.spawn(request(name, &on)));
    rig.advance(Duration::from_secs(29));
    assert!(tasks.iter().all(|task| !task.is_done()));
    rig.advance(Duration::from_secs(2));
    for (name, task) in names.iter().zip(&tasks) {
        assert_eq!(
            task.take(),
            Some(Error::TimedOut(TimeoutReason::Request)),
            "{name}"
        );
    }
    assert!(!UNTIMED.is_empty());
    // What comes late is taken back, and the connection can be used.
    rig.peer().mute = false;
    rig.run();
    assert!(rig.peer().consumers.is_empty());
    rig.check_channel(&on.plain);
    rig.check_channel(&on.tx);
    rig.check_usable(&on.connection);
    let Handles {
        connection,
        plain,
        confirm,
        tx,
        pool,
    } = on;
    drop((plain, confirm, tx, pool));
    rig.run();
    assert_eq!(connection.channel_count(), 0);
    rig.finish(connection);
}

#[test]
fn opened_tells_why_it_was_not() {
    let causes: [(&str, fn(&mut Rig, &Connection)); 7] = [
        ("eof", |rig, _| rig.world().cut(Cut::Eof)),
        ("reset", |rig, _| rig.world().cut(Cut::Reset)),
        ("nonsense", |rig, _| {
            rig.world().inject(b"HTTP/1.1 400 Bad Request")
        }),
        ("silence", |rig, _| rig.advance(Duration::from_secs(11))),
        ("dropped", |rig, _| rig.drop_driver()),
        ("abort", |_, connection| connection.abort()),
        ("refused", |rig, _| {
            let mut peer = rig.peer();
            peer.machine.close(ReplyCode::NOT_ALLOWED, "no such vhost");
            peer.mute = false;
        }),
    ];
    for steps in 0..20 {
        for (cause, end) in causes {
            let (mut rig, connection) = Rig::start(Setup::default());
            rig.peer().hold_open = true;
            let waiting = connection.clone();
            let task = rig.spawn(async move { waiting.opened().await });
            for _ in 0..steps {
                rig.step();
            }
            end(&mut rig, &connection);
            rig.run();
            let told = task.take();
            let told = told.unwrap_or_else(|| panic!("{cause} after {steps}: it hangs"));
            let reason = connection.close_reason().unwrap();
            assert_eq!(
                told,
                Err(Error::ConnectionClosed(reason)),
                "{cause} after {steps}"
            );
            assert!(rig.driver_ended(), "{cause} after {steps}");
        }
    }
}

/// Connects to a server that says nothing more once the client has logged in, or tries to.
fn log_in(before: impl FnOnce(&mut Rig)) -> (Rig, Connection) {
    let start = frame(10, 10, b"\0\x09\0\0\0\0\0\0\0\x05PLAIN\0\0\0\x05en_US");
    let (mut rig, connection) = Rig::start(Setup::default());
    rig.peer().mute = true;
    rig.run();
    before(&mut rig);
    rig.world().inject(&start);
    rig.run();
    (rig, connection)
}

/// A server that hangs up on a login has refused it, in whichever way the transport tells. What
/// else goes wrong then is no word of the server's.
#[test]
fn hanging_up_on_a_login_refuses_it() {
    use io::ErrorKind::*;
    let refused = |connection: &Connection, what: &str| {
        let reason = connection.close_reason().unwrap();
        match reason.cause() {
            CloseCause::AuthenticationFailed { why, close: None } => assert!(why.contains(what)),
            other => panic!("{what}: {other:?}"),
        }
    };
    for kind in [ConnectionReset, ConnectionAborted, BrokenPipe] {
        let (mut rig, connection) = log_in(|_| ());
        rig.world().read_error = kind;
        rig.world().cut(Cut::ReadError);
        rig.run();
        refused(&connection, &kind.to_string());
        assert!(rig.driver_ended());
    }
    let (mut rig, connection) = log_in(|rig| rig.world().cut(Cut::WriteError));
    rig.advance(LISTEN);
    refused(&connection, &BrokenPipe.to_string());

    for kind in [TimedOut, HostUnreachable, NetworkDown, Other] {
        let (mut rig, connection) = log_in(|_| ());
        rig.world().read_error = kind;
        rig.world().cut(Cut::ReadError);
        rig.run();
        let reason = connection.close_reason().unwrap();
        let cause = CloseCause::Transport {
            stage: Stage::Authenticating,
            message: kind.to_string(),
        };
        assert_eq!(*reason.cause(), cause);
    }
}

/// A close is good if the server has answered it, and only then.
#[test]
fn a_close_without_its_answer_is_no_success() {
    let ends: [fn(&mut Rig); 4] = [
        |rig| rig.world().cut(Cut::Eof),
        |rig| rig.world().cut(Cut::Reset),
        |rig| rig.world().inject(b"HTTP/1.1 400 Bad Request"),
        // A close that crosses: 320, for maintenance.
        |rig| {
            let arguments = b"\x01\x40\x0bmaintenance\0\0\0\0";
            rig.world().inject(&frame(10, 50, arguments));
        },
    ];
    for end in ends {
        let (mut rig, connection) = Rig::open();
        let channel = rig.confirm_channel(&connection);
        let (to, none) = (basic::Publish::default(), basic::Properties::default());
        let confirm = rig.wait(channel.publish(&to, &none, "x")).unwrap();
        rig.peer().mute = true;
        let closing = connection.clone();
        let close = rig.spawn(async move { closing.close().await });
        rig.run();
        end(&mut rig);
        rig.run();
        let Some(Err(Error::ConnectionClosed(reason))) = close.take() else {
            panic!("the close is told as good");
        };
        assert!(!reason.is_clean());
        assert_eq!(connection.close_reason(), Some(reason.clone()));
        let of_channel = CloseCause::Connection(reason.clone());
        let doubt = Unconfirmed::Unknown(of_channel.into());
        assert_eq!(rig.wait(confirm), Err(doubt));
    }
}

/// A connection that is being closed by its handle ends in time, whatever the server does.
#[test]
fn close_ends_in_time() {
    for stalled in [false, true] {
        for (cause, end) in CAUSES {
            if stalled && cause == "write error" {
                continue;
            }
            let (mut rig, on, tasks) = start(stalled);
            let closing = on.connection.clone();
            let close = rig.spawn(async move { closing.close().await });
            rig.run();
            if cause != "write error" {
                end(&mut rig, &on);
            }
            rig.advance(Duration::from_secs(40));
            let reason = on.connection.close_reason().unwrap();
            let result = close.take();
            if reason.is_clean() {
                assert_eq!(result, Some(Ok(())), "{cause}, {stalled}");
            } else {
                let error = Error::ConnectionClosed(reason.clone());
                assert_eq!(result, Some(Err(error)), "{cause}, {stalled}");
            }
            for (name, task) in &tasks {
                assert!(
                    name == &"next" || task.is_done(),
                    "{cause}: {name}, {stalled}"
                );
            }
            assert!(rig.driver_ended(), "{cause}, {stalled}");
        }
    }
}

/// When all is over the driver leaves: at once if there is nothing left to say, and soon if the
/// transport does not take what there is.
#[test]
fn the_driver_leaves_in_time() {
    let start = || {
        let (mut rig, connection, channel) = Rig::with_channel();
        rig.world().set_capacity(0);
        channel.send(&queue::Purge::default()).unwrap();
        rig.run();
        (rig, connection, channel)
    };

    let (mut rig, connection, _channel) = start();
    connection.abort();
    rig.run();
    assert!(rig.driver_ended());
    assert!(rig.world().closed);

    // The answer to the server's close is worth waiting for.
    let close = frame(10, 50, b"\x01\x40\x00\0\0\0\0");
    let (mut rig, _connection, _channel) = start();
    rig.world().inject(&close);
    rig.run();
    assert!(!rig.driver_ended());
    rig.world().set_capacity(usize::MAX);
    rig.run();
    assert!(rig.driver_ended());

    // Not for ever: as long as a close, and then as long as the transport is given to close.
    let (mut rig, _connection, _channel) = start();
    rig.world().inject(&close);
    rig.advance(Duration::from_secs(9));
    assert!(!rig.driver_ended());
    rig.advance(Duration::from_secs(7));
    assert!(rig.driver_ended());

    // Nor for the transport to close.
    let (mut rig, connection, channel) = Rig::with_channel();
    rig.world().close_stalled = true;
    assert_eq!(rig.wait(connection.close()), Ok(()));
    drop((connection, channel));
    rig.advance(Duration::from_secs(4));
    assert!(!rig.driver_ended());
    rig.advance(Duration::from_secs(2));
    assert!(rig.driver_ended());

    // What was written is flushed before.
    let (mut rig, connection, _channel) = Rig::with_channel();
    rig.world().flush_stalled = true;
    rig.peer().close(ReplyCode::CONNECTION_FORCED, "");
    rig.world().step_server();
    rig.world().peer.deaf = true;
    rig.run();
    assert!(connection.close_reason().is_some() && !rig.driver_ended());
    rig.world().end_flush_stall();
    rig.run();
    assert!(rig.driver_ended());
}

/// The server has said why it hangs up. That writing fails is noticed first, and the reason is not
/// lost for it.
#[test]
fn what_the_server_said_before_writing_failed_comes_late() {
    for ends in [false, true] {
        let (mut rig, connection, channel) = Rig::with_channel();
        rig.world().cut(Cut::WriteError);
        channel.send(&queue::Purge::default()).unwrap();
        rig.run();
        assert_eq!(connection.close_reason(), None);
        let close = frame(10, 50, b"\x01\x40\x08shutdown\0\0\0\0");
        rig.world().inject(&close);
        if ends {
            rig.world().cut(Cut::Eof);
        }
        rig.run();
        if !ends {
            rig.advance(LISTEN);
        }
        let reason = connection.close_reason().unwrap();
        let close = reason.by_peer().unwrap();
        assert_eq!(close.text.as_str(), "shutdown");
    }
}

/// A server that takes nothing more and goes on talking: it is listened to for the reason, and not
/// for ever.
#[test]
fn writing_fails_while_the_server_talks_on() {
    const BABBLE: usize = 100_000;
    let (mut rig, connection, channel) = Rig::with_channel();
    rig.world().cut(Cut::WriteError);
    rig.world().babble = BABBLE;
    channel.send(&queue::Purge::default()).unwrap();
    rig.poll_driver();
    let reason = connection.close_reason().unwrap();
    assert!(matches!(reason.cause(), CloseCause::Transport { .. }));
    assert!(rig.world().babble > BABBLE - 1000);
}

/// A driver that is dropped hands the transport what it takes at once: all, or as much as has room.
#[test]
fn a_driver_that_is_dropped_writes_what_is_taken_at_once() {
    for (capacity, expected) in [(usize::MAX, 5), (20_000, 1), (0, 0)] {
        let (mut rig, connection, channel) = Rig::with_channel();
        rig.run();
        rig.peer().saw.clear();
        rig.world().set_capacity(capacity);
        let (to, none) = (basic::Publish::default(), basic::Properties::default());
        for _ in 0..5 {
            let published = rig.ready(channel.publish(&to, &none, vec![0; 10_000]));
            assert_eq!(published, Some(Ok(())));
        }
        rig.drop_driver();
        rig.world().step_server();
        let arrived = rig.peer().messages().len();
        assert_eq!(arrived, expected, "{capacity}");
        drop((channel, connection));
    }
}
