//! Calls that are pending when a connection ends.

use std::time::Duration;

use amqp_driver::{
    CloseReason,
    core::{CloseCause, Stage, TimeoutReason},
    protocol::{ReplyCode, queue},
};
use amqp_test_support::Rig;

use super::{
    LISTEN, reason,
    waiters::{CAUSES, Handles, WAITERS, start},
};

/// TRI-10: pending calls fail, connection and channels report closed. PUK-07: each waiter ends
/// once.
#[test]
fn every_wait_ends_with_the_same_reason() {
    for stalled in [false, true] {
        for (cause, end) in CAUSES {
            if stalled && cause == "write error" {
                continue;
            }
            let (mut rig, on, tasks) = start(stalled);
            end(&mut rig, &on);
            rig.run();
            rig.advance(LISTEN);
            let reported = on.connection.close_reason();
            let reported = reported.unwrap_or_else(|| panic!("{cause}: the connection lives"));
            for (name, task) in &tasks {
                let reason = task.take();
                assert_eq!(
                    reason.as_ref(),
                    Some(&reported),
                    "{cause}: {name}, {stalled}"
                );
            }
            // The driver gives up in time, with output left for the server or without.
            rig.advance(Duration::from_secs(30));
            assert!(rig.driver_ended(), "{cause}: the driver runs on, {stalled}");
            assert!(rig.world().dropped);
            check_closed(&mut rig, &on, &reported);
        }
    }
}

/// PUK-41: on a closed connection every operation says so, and nothing is sent.
fn check_closed(rig: &mut Rig, on: &Handles, reported: &CloseReason) {
    let written = rig.world().written;
    assert!(!on.connection.is_open());
    assert!(!on.plain.is_open());
    assert!(on.plain.close_reason().is_some());
    for (name, waiter) in WAITERS {
        assert_eq!(reason(rig.wait(waiter(on.clone()))), *reported, "{name}");
    }
    assert_eq!(reason(rig.wait(on.plain.close()).unwrap_err()), *reported);
    assert_eq!(
        reason(rig.wait(on.connection.opened()).unwrap_err()),
        *reported
    );
    assert_eq!(
        reason(rig.wait(on.connection.close()).unwrap_err()),
        *reported
    );
    assert_eq!(
        reason(on.plain.ack(amqp_driver::Tags::All).unwrap_err()),
        *reported
    );
    assert_eq!(reason(on.plain.recover_async(true).unwrap_err()), *reported);
    assert_eq!(
        reason(on.plain.send(&queue::Purge::default()).unwrap_err()),
        *reported
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
    // The reason does not suggest a bug in the wrong place.
    assert!(!cause_of("abort").to_string().contains("driver was dropped"));
}
