//! The ways in which a client's handshake can go wrong.

use alloc::string::ToString as _;
use core::time::Duration;

use super::{
    handshake::{Client, authenticating, every_stage, finished, refused},
    script::*,
};
use crate::{
    CloseCause, Fault, Instant, Stage, TimeoutReason,
    client::{Config, Connection, Event},
    frame::FrameKind,
    protocol::{Method, ReplyCode, channel, connection},
    wire::FieldTable,
};

#[test]
fn a_server_may_close_in_each_stage() {
    for (code, text) in [
        (
            ReplyCode::ACCESS_REFUSED,
            "ACCESS_REFUSED - Login was refused",
        ),
        (ReplyCode::NOT_ALLOWED, "NOT_ALLOWED - vhost nope not found"),
        (ReplyCode::CONNECTION_FORCED, "node is shutting down"),
    ] {
        for (stage, mut client) in every_stage() {
            let close = connection::Close {
                reply_code: code,
                reply_text: name(text),
                class_id: 10,
                method_id: 40,
            };
            client.send(0, &close);
            assert_eq!(client.only_method(), connection::CloseOk.into(), "{stage}");
            let reason = finished(&mut client);
            assert_eq!(reason.code(), Some(code));
            assert_eq!(reason.by_peer().unwrap().text, text);
            // That credentials are refused is the same cause whether it is said or not.
            let refused = stage == Stage::Authenticating && code == ReplyCode::ACCESS_REFUSED;
            match reason.cause() {
                CloseCause::AuthenticationFailed { why, .. } if refused => assert_eq!(why, text),
                CloseCause::ByPeer(_) if !refused => {}
                other => panic!("{stage}: {other}"),
            }
            client.conn.handle_eof(client.now);
            assert_eq!(client.events(), []);
        }
    }
}

#[test]
fn the_end_of_the_transport_has_a_cause_in_each_stage() {
    for (stage, mut client) in every_stage() {
        client.conn.handle_eof(client.now);
        let reason = finished(&mut client);
        if stage == Stage::Authenticating {
            // RabbitMQ's treatment of a client without `authentication_failure_close`.
            assert!(matches!(
                reason.cause(),
                CloseCause::AuthenticationFailed { .. }
            ));
        } else {
            assert_eq!(reason.cause(), &CloseCause::Eof { stage });
        }
        assert!(!reason.is_clean());
        assert_eq!(reason.code(), None);
    }
    for (stage, mut client) in every_stage() {
        client.conn.handle_transport_error(client.now, "timed out");
        let message = "timed out".into();
        let cause = CloseCause::Transport { stage, message };
        assert_eq!(refused(&mut client), cause);
    }
}

/// How RabbitMQ hangs up over plain TCP.
#[test]
fn a_reset_during_authentication_refuses_the_credentials() {
    for (stage, mut client) in every_stage() {
        client.conn.handle_reset(client.now, "reset by peer");
        let cause = if stage == Stage::Authenticating {
            CloseCause::AuthenticationFailed {
                why: "the peer hung up instead of answering: reset by peer".into(),
                close: None,
            }
        } else {
            let message = "reset by peer".into();
            CloseCause::Transport { stage, message }
        };
        assert_eq!(refused(&mut client), cause);
    }
}

/// A client during authentication; each argument is that side's `authentication_failure_close`.
fn logging_in(server: bool, client: bool) -> Client {
    let capabilities = |can: bool| {
        let table = FieldTable::new().with("authentication_failure_close", can);
        FieldTable::new().with("capabilities", table)
    };
    let mut config = Config::default();
    if !client {
        config.properties = capabilities(false);
    }
    let mut script = Client::new(config);
    let server_properties = capabilities(server);
    script.send(
        0,
        &connection::Start {
            server_properties,
            ..start()
        },
    );
    script.bytes();
    assert_eq!(script.conn.stage(), Stage::Authenticating);
    script
}

/// A server that would say so has not refused anything when the line breaks.
#[test]
fn a_hang_up_during_the_login_is_a_refusal_only_if_no_close_would_say_so() {
    let ends: [fn(&mut Client); 2] = [
        |client| client.conn.handle_eof(client.now),
        |client| client.conn.handle_reset(client.now, "reset by peer"),
    ];
    for end in ends {
        for (server, client) in [(true, true), (true, false), (false, true), (false, false)] {
            let mut client_side = logging_in(server, client);
            end(&mut client_side);
            let cause = refused(&mut client_side);
            let is_refusal = matches!(cause, CloseCause::AuthenticationFailed { .. });
            assert_eq!(is_refusal, !(server && client), "{cause}");
            if !is_refusal {
                let at = Stage::Authenticating;
                assert!(
                    matches!(
                        cause,
                        CloseCause::Eof { stage } | CloseCause::Transport { stage, .. } if stage == at
                    ),
                    "{cause}"
                );
            }
        }
    }
}

#[test]
fn the_chosen_mechanism_is_reported() {
    let mut client = Client::new(Config::default());
    assert_eq!(client.conn.mechanism(), None);
    client.send(0, &start());
    assert_eq!(client.conn.mechanism(), Some(&name("PLAIN")));
}

#[test]
fn a_half_frame_at_the_end_changes_nothing() {
    for (stage, mut client) in every_stage() {
        let close = connection::Close::default();
        client.feed(&method_frame(0, &close)[..10]);
        assert_eq!(client.events(), []);
        client.conn.handle_eof(client.now);
        let reason = finished(&mut client);
        assert!(stage == Stage::Authenticating || *reason.cause() == CloseCause::Eof { stage });
    }
}

#[test]
fn a_handshake_has_a_deadline_in_each_stage() {
    for (stage, mut client) in every_stage() {
        // It holds for the whole handshake, however much is said in between.
        let (at, reason) = client.conn.poll_timeout().unwrap();
        assert_eq!(at, client.now + Duration::from_secs(10), "{stage}");
        assert_eq!(reason, TimeoutReason::Handshake);
        client.advance(Duration::from_millis(9_999));
        assert_eq!(client.events(), []);
        client.advance(Duration::from_millis(1));
        assert_eq!(
            refused(&mut client),
            CloseCause::TimedOut(TimeoutReason::Handshake)
        );
    }
    let mut config = Config::default();
    config.timeouts.handshake = Duration::from_secs(2);
    let (mut client, _) = authenticating(config);
    client.advance(Duration::from_secs(1));
    client.send(0, &connection::Tune::default());
    client.bytes();
    client.advance(Duration::from_secs(1));
    assert_eq!(
        refused(&mut client),
        CloseCause::TimedOut(TimeoutReason::Handshake)
    );
}

#[test]
fn the_deadline_of_the_handshake_ends_with_it() {
    let mut client = Client::open();
    assert_eq!(client.conn.poll_timeout(), None);
    client.advance(Duration::from_secs(3600));
    assert_eq!(client.events(), []);
}

#[test]
fn methods_of_another_stage_are_faults() {
    let said: [&dyn Fn(&mut Client); 6] = [
        &|client| client.send(0, &start()),
        &|client| client.send(0, &connection::Secure::default()),
        &|client| client.send(0, &connection::Tune::default()),
        &|client| client.send(0, &connection::OpenOk),
        &|client| client.send(0, &connection::Blocked::default()),
        &|client| client.send(1, &channel::OpenOk),
    ];
    let due = [(0, 0), (1, 1), (1, 2), (2, 3)];
    for stage in 0..3 {
        for (number, say) in said.iter().enumerate() {
            if due.contains(&(stage, number)) {
                continue;
            }
            let (stage, mut client) = every_stage().into_iter().nth(stage).unwrap();
            say(&mut client);
            let Event::Closed(reason) = client.only_event() else {
                panic!("{stage}: {number} was taken");
            };
            let CloseCause::ProtocolError(error) = reason.cause() else {
                panic!("{reason}");
            };
            assert_eq!(error.fault, Fault::NotDue);
            // Section 2.2.4 of the specification: a close may be sent from `connection.open` on.
            if stage == Stage::Opening {
                assert_eq!(error.code, Some(ReplyCode::COMMAND_INVALID));
                assert!(matches!(client.only_method(), Method::ConnectionClose(_)));
            } else {
                assert_eq!(error.code, None);
                assert_eq!(client.sent(), []);
            }
        }
    }
}

#[test]
fn heartbeats_may_come_during_the_handshake() {
    for (stage, mut client) in every_stage() {
        if stage == Stage::Greeting {
            continue;
        }
        client.feed(&frame(FrameKind::Heartbeat, 0, b""));
        assert_eq!(client.events(), []);
        assert_eq!(client.sent(), []);
    }
}

#[test]
fn a_client_may_give_up_in_each_stage() {
    for (stage, mut client) in every_stage() {
        client.conn.close(ReplyCode::SUCCESS, "changed my mind");
        assert_eq!(client.sent(), [], "{stage}");
        assert!(finished(&mut client).is_clean());
        client.send(0, &connection::OpenOk);
        assert_eq!(client.events(), []);
        assert_eq!(client.sent(), []);
    }
}

/// Makes a configuration wrong.
type Spoil = fn(&mut Config);

#[test]
fn a_configuration_that_no_server_takes_is_refused() {
    let configs: [(&str, Spoil); 9] = [
        ("frame_max", |config| config.frame_max = 4095),
        ("mechanisms", |config| config.mechanisms.clear()),
        ("output_low", |config| {
            config.limits.output_low = config.limits.output_high + 1;
        }),
        ("output_high", |config| {
            config.limits.output_high = 0;
            config.limits.output_low = 0;
        }),
        ("output_high", |config| config.limits.output_high = 4095),
        ("output_backlog", |config| config.limits.output_backlog = 0),
        ("unconfirmed", |config| config.limits.unconfirmed = 0),
        ("unlimited_frame", |config| {
            config.limits.unlimited_frame = 4095;
        }),
        ("frame_max", |config| config.frame_max = 1),
    ];
    for (setting, spoil) in configs {
        let mut config = Config::default();
        spoil(&mut config);
        let error = Connection::new(config, Instant::ORIGIN).unwrap_err();
        assert!(error.to_string().starts_with(setting), "{error}");
    }
    // The bounds of output may be the same.
    let mut config = Config::default();
    config.limits.output_low = config.limits.output_high;
    assert!(Connection::new(config, Instant::ORIGIN).is_ok());
}
