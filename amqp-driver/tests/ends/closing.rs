//! Connections that end while they are being closed.

use std::time::Duration;

use amqp_driver::{Error, Unconfirmed, core::CloseCause, protocol::basic};
use amqp_test_support::{Cut, Rig};

use super::{
    frame,
    waiters::{CAUSES, start},
};

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
            panic!("the close is reported as good");
        };
        assert!(!reason.is_clean());
        assert_eq!(connection.close_reason(), Some(reason.clone()));
        let of_channel = CloseCause::Connection(reason.clone());
        let doubt = Unconfirmed::Unknown(of_channel.into());
        assert_eq!(rig.wait(confirm), Err(doubt));
    }
}

/// A connection that is being closed by its handle ends in time, with any behaviour of the server.
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
