//! When to connect, and when to give up.

use super::*;
use crate::{
    CloseCause,
    protocol::ReplyCode,
    recovery::{Backoff, ConnectFailure, Mode, Reconnect},
};

/// Fails all attempts in the same way, until the recovery gives up or was called 50 times. Returns
/// the number of attempts.
fn fail_all(rig: &mut Rig, kind: ConnectFailure) -> u32 {
    let mut attempts = 0;
    while attempts < 50 {
        match rig.recovery.poll_step(rig.pair.now) {
            Step::Connect { attempt } => {
                attempts += 1;
                assert_eq!(attempt, attempts);
                let next = rig.recovery.poll_step(rig.pair.now);
                assert!(matches!(next, Step::Idle | Step::Wait(_)), "{next:?}");
                rig.recovery.handle_connect_failed(rig.pair.now, kind, "no");
            }
            Step::Wait(at) => rig.pair.now = at,
            Step::GiveUp => break,
            Step::Idle => panic!("idle"),
        }
        rig.take_changes();
    }
    rig.take_changes();
    attempts
}

#[test]
fn attempts_are_unlimited_by_default_and_their_delays_those_of_the_backoff() {
    let mut rig = Rig::open(Policy::new(7));
    rig.lose();
    rig.changes.clear();
    let start = rig.pair.now;
    assert_eq!(fail_all(&mut rig, ConnectFailure::Unreachable), 50);
    let elapsed = rig.pair.now - start;
    assert!(
        elapsed > 400 * SECOND && elapsed < 50 * 30 * SECOND,
        "{elapsed:?}"
    );
    assert!(!rig.recovery.is_stopped());
}

#[test]
fn a_connection_that_is_lost_soon_after_each_recovery_is_dialled_ever_later() {
    let mut rig = Rig::open(Policy::new(7));
    let start = rig.pair.now;
    let mut last = start;
    for _ in 0..12 {
        last = rig.pair.now;
        rig.lose();
        rig.recover();
        rig.pair.now = rig.pair.now + SECOND;
    }
    let elapsed = rig.pair.now - start;
    assert!(elapsed > 60 * SECOND, "{elapsed:?}");
    assert!(rig.pair.now - last > 10 * SECOND);
    // After a longer life the delays begin anew.
    rig.pair.now = rig.pair.now + 30 * SECOND;
    let before = rig.pair.now;
    rig.lose();
    rig.recover();
    assert!(rig.pair.now - before <= Duration::from_millis(300));
}

#[test]
fn attempts_and_deadline_have_their_limit() {
    let mut rig = Rig::open(Policy::new(7).attempts(5));
    rig.lose();
    assert_eq!(fail_all(&mut rig, ConnectFailure::Other), 5);
    assert_eq!(
        rig.given_up().to_string(),
        "5 attempts have failed, the last one: no"
    );

    let mut rig = Rig::open(Policy::new(7).deadline(10 * SECOND));
    rig.lose();
    let start = rig.pair.now;
    assert!(fail_all(&mut rig, ConnectFailure::Other) >= 4);
    assert_eq!(rig.pair.now - start, 10 * SECOND);
    assert_eq!(rig.given_up().to_string(), "not recovered within 10s: no");
}

#[test]
fn the_deadline_ends_a_restoration_that_hangs() {
    let mut rig = Rig::with_topology(Policy::new(7).deadline(10 * SECOND));
    rig.lose();
    rig.broker.silent = alloc::vec!["queue.declare"];
    let start = rig.pair.now;
    while rig.pair.now - start < 10 * SECOND {
        match rig.recovery.poll_step(rig.pair.now) {
            Step::Connect { .. } => rig.connect(),
            Step::Wait(at) => rig.pair.now = at,
            Step::GiveUp => break,
            Step::Idle => {
                rig.pump();
                rig.pass_time();
            }
        }
    }
    assert_eq!(rig.pair.now - start, 10 * SECOND);
    rig.pump();
    assert!(
        rig.given_up()
            .to_string()
            .starts_with("not recovered within 10s: the transport")
    );
    assert!(!rig.pair.client.is_open());
}

#[test]
fn a_refused_login_is_final_unless_the_policy_says_otherwise() {
    let mut rig = Rig::open(Policy::new(7));
    rig.lose();
    assert_eq!(fail_all(&mut rig, ConnectFailure::LoginRefused), 1);
    assert_eq!(rig.given_up().to_string(), "the login was refused: no");

    let mut policy = Policy::new(7);
    policy.connect.login_refused = Reconnect::Retry;
    policy.connect.unreachable = Reconnect::GiveUp;
    let mut rig = Rig::open(policy.clone());
    rig.lose();
    assert_eq!(fail_all(&mut rig, ConnectFailure::LoginRefused), 50);
    let mut rig = Rig::open(policy);
    rig.lose();
    assert_eq!(fail_all(&mut rig, ConnectFailure::Unreachable), 1);
}

#[test]
fn a_login_that_the_server_refuses_is_read_from_the_connection() {
    let mut rig = Rig::open(Policy::new(7));
    rig.lose();
    let Step::Wait(at) = rig.recovery.poll_step(rig.pair.now) else {
        panic!("no delay");
    };
    assert_eq!(rig.recovery.poll_step(at), Step::Connect { attempt: 1 });
    rig.pair = Pair::new(config(), server::Config::default());
    rig.pair
        .shake_hands_with(|server| server.refuse("ACCESS_REFUSED - login").unwrap());
    rig.pump();
    assert!(
        rig.given_up()
            .to_string()
            .starts_with("the login was refused: authentication failed")
    );
}

#[test]
fn a_handshake_that_breaks_off_counts_as_a_failed_attempt() {
    let mut rig = Rig::open(Policy::new(7));
    rig.lose();
    rig.pair.now = rig.pair.now + SECOND;
    assert_eq!(
        rig.recovery.poll_step(rig.pair.now),
        Step::Connect { attempt: 1 }
    );
    rig.pair = Pair::new(config(), server::Config::default());
    rig.pair.client.handle_eof(rig.pair.now);
    rig.pump();
    let last = rig.changes.last().unwrap();
    assert!(
        matches!(last.event, RecoveryEvent::Reconnecting { attempt: 2, .. }),
        "{last}"
    );
    rig.recover();
    assert!(rig.recovery.is_recovered());
}

#[test]
fn a_close_by_an_operator_is_recovered_and_one_by_this_side_is_not() {
    let mut rig = Rig::with_topology(Policy::new(7));
    let text = "CONNECTION_FORCED - Closed via management plugin";
    rig.pair.server.close(ReplyCode::CONNECTION_FORCED, text);
    rig.pump();
    assert!(!rig.recovery.is_recovered());
    rig.recover();
    assert_eq!(rig.consumers().len(), 2);

    rig.pair.client.close(ReplyCode::SUCCESS, "bye");
    rig.pump();
    assert!(matches!(rig.given_up(), GiveUp::Requested(reason) if reason.is_clean()));
    assert_eq!(rig.recovery.poll_step(rig.pair.now), Step::GiveUp);
}

#[test]
fn a_close_by_this_side_stays_one_when_its_reply_is_missing() {
    let mut rig = Rig::open(Policy::new(7));
    rig.pair.client.close(ReplyCode::SUCCESS, "bye");
    rig.pair.client.handle_eof(rig.pair.now);
    rig.pump();
    let GiveUp::Requested(reason) = rig.given_up() else {
        panic!("{:?}", rig.given_up());
    };
    assert!(
        matches!(reason.cause(), CloseCause::Eof { .. }),
        "{reason:?}"
    );
}

#[test]
fn a_recovery_can_be_stopped_at_any_time() {
    let mut rig = Rig::open(Policy::new(7));
    rig.recovery.stop(rig.pair.now);
    rig.recovery.stop(rig.pair.now);
    rig.lose();
    assert!(matches!(rig.given_up(), GiveUp::Stopped));
    assert_eq!(rig.recovery.poll_timeout(), None);

    let mut rig = Rig::open(Policy::new(7));
    rig.lose();
    rig.recovery.stop(rig.pair.now);
    assert_eq!(
        rig.recovery.poll_step(rig.pair.now + 60 * SECOND),
        Step::GiveUp
    );
    let again = rig
        .recovery
        .handle_event(rig.pair.now, &mut rig.pair.client, &Event::Opened);
    assert!(!again && rig.recovery.is_stopped());
}

#[test]
fn events_that_are_not_taken_are_bounded() {
    let policy = Policy::new(7)
        .mode(Mode::Everything)
        .backoff(Backoff::default().jitter(0));
    let mut rig = Rig::open(policy);
    rig.lose();
    for _ in 0..10_000 {
        match rig.recovery.poll_step(rig.pair.now) {
            Step::Connect { .. } => {
                let kind = ConnectFailure::Other;
                rig.recovery.handle_connect_failed(rig.pair.now, kind, "no");
            }
            Step::Wait(at) => rig.pair.now = at,
            other => panic!("{other:?}"),
        }
    }
    rig.changes.clear();
    rig.take_changes();
    assert!(rig.changes.len() <= 64, "{}", rig.changes.len());
}
