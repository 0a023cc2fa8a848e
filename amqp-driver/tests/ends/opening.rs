//! Connections that end before they are open.

use std::{io, time::Duration};

use amqp_driver::{
    Connection, Error,
    core::{CloseCause, Stage},
    protocol::ReplyCode,
};
use amqp_test_support::{Cut, Rig, Setup};

use super::{LISTEN, frame};

#[test]
fn opened_fails_with_the_reason() {
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
            let reported = task.take();
            let reported = reported.unwrap_or_else(|| panic!("{cause} after {steps}: it hangs"));
            let reason = connection.close_reason().unwrap();
            assert_eq!(
                reported,
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

/// A server that hangs up on a login has refused it, however the transport reports that. Other
/// failures then are no refusals.
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
