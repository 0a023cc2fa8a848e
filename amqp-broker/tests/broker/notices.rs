//! Notices of connections.

use amqp_broker::{Config, Notice};
use amqp_core::{CloseCause, protocol::ReplyCode};

use crate::rig::{Rig, name};

fn rig() -> Rig {
    Rig::with(Config::default().notices(true))
}

#[test]
fn a_login_and_a_close_are_notices() {
    let mut rig = rig();
    let client = rig.connect();
    let key = rig.key(client);
    let opened = Notice::Opened {
        user: "guest".into(),
        vhost: "/".into(),
    };
    assert_eq!(rig.broker.poll_notice(), Some((key, opened)));
    assert_eq!(rig.broker.poll_notice(), None);
    rig.close(client);
    let Some((ended, Notice::Ended { user, reason, .. })) = rig.broker.poll_notice() else {
        panic!("not ended");
    };
    assert_eq!((ended, user.as_str()), (key, "guest"));
    assert_eq!(reason.by_peer().unwrap().code, ReplyCode::SUCCESS);
    assert_eq!(rig.broker.poll_notice(), None);
}

#[test]
fn a_wrong_password_and_a_wrong_virtual_host_are_notices() {
    let mut rig = rig();
    let refused = rig.begin_as("guest", "wrong", "/");
    let key = rig.key(refused);
    let login = Notice::LoginRefused {
        user: Some("guest".into()),
        mechanism: name("PLAIN"),
    };
    assert_eq!(rig.broker.poll_notice(), Some((key, login)));
    let ended = rig.broker.poll_notice();
    assert!(matches!(ended, Some((_, Notice::Ended { user, .. })) if user.is_empty()));

    rig.begin_as("guest", "guest", "none");
    let Some((_, Notice::Ended { user, reason, .. })) = rig.broker.poll_notice() else {
        panic!("not ended");
    };
    assert_eq!(user, "guest");
    let CloseCause::Requested(close) = reason.cause() else {
        panic!("{reason:?}");
    };
    assert_eq!(close.text, "NOT_ALLOWED - vhost none not found");
}

#[test]
fn a_lost_connection_is_a_notice() {
    let mut rig = rig();
    let client = rig.connect();
    rig.broker.poll_notice();
    rig.cut(client);
    let Some((_, Notice::Ended { reason, .. })) = rig.broker.poll_notice() else {
        panic!("not ended");
    };
    assert!(matches!(reason.cause(), CloseCause::Eof { .. }));
    assert_eq!(rig.broker.poll_notice(), None);
}

#[test]
fn there_are_none_by_default() {
    let (mut rig, client, _) = Rig::open();
    rig.close(client);
    assert_eq!(rig.broker.poll_notice(), None);
}
