//! A server's handshake, with a client that does as it likes.

use alloc::{string::ToString as _, vec};
use core::time::Duration;

use super::script::*;
use crate::{
    ApiMisuse, CloseCause, CloseReason, Fault, MethodDef as _, MethodId, NotAmqp, Stage,
    TimeoutReason, Tuning,
    frame::PROTOCOL_HEADER,
    protocol::{Method, ReplyCode, channel, connection},
    server::{Config, Connection, Event},
    wire::FieldTable,
};

type Server = Script<Connection>;

/// A server that has sent `start`.
fn started(config: Config) -> Server {
    let mut server = Server::server(config);
    server.feed(&PROTOCOL_HEADER);
    assert!(matches!(server.only_method(), Method::ConnectionStart(_)));
    assert_eq!(server.conn.stage(), Stage::Authenticating);
    server
}

/// The answer of RabbitMQ's clients.
fn start_ok() -> connection::StartOk {
    let capabilities = FieldTable::new().with("authentication_failure_close", true);
    let properties = FieldTable::new().with("capabilities", capabilities);
    connection::StartOk {
        client_properties: properties,
        mechanism: name("PLAIN"),
        response: "\0guest\0guest".into(),
        locale: name("en_US"),
    }
}

fn only_event(server: &mut Server) -> Event {
    let [event] = <[Event; 1]>::try_from(server.server_events()).unwrap();
    event
}

/// A server that is to decide on credentials.
fn deciding() -> Server {
    let mut server = started(Config::default());
    server.send(0, &start_ok());
    assert!(matches!(only_event(&mut server), Event::Authenticate(_)));
    server
}

/// A server that waits for `tune-ok`.
fn tuning(config: Config) -> Server {
    let mut server = started(config);
    server.send(0, &start_ok());
    server.conn.accept().unwrap();
    server.server_events();
    assert!(matches!(server.only_method(), Method::ConnectionTune(_)));
    assert_eq!(server.conn.stage(), Stage::Tuning);
    server
}

/// A server that waits for `open`.
fn tuned() -> Server {
    let mut server = tuning(Config::default());
    server.send(
        0,
        &connection::TuneOk::default()
            .channel_max(10)
            .frame_max(8192),
    );
    assert_eq!(server.conn.stage(), Stage::Opening);
    server
}

/// A server that is to decide on the virtual host.
fn opening() -> Server {
    let mut server = tuned();
    server.send(0, &connection::Open::default().virtual_host("/"));
    let virtual_host = name("/");
    assert_eq!(only_event(&mut server), Event::Open { virtual_host });
    server
}

/// A server in each step of the handshake.
fn every_stage() -> [(Stage, Server); 6] {
    [
        (Stage::Greeting, Server::server(Config::default())),
        (Stage::Authenticating, started(Config::default())),
        (Stage::Authenticating, deciding()),
        (Stage::Tuning, tuning(Config::default())),
        (Stage::Opening, tuned()),
        (Stage::Opening, opening()),
    ]
}

fn closed(server: &mut Server) -> CloseReason {
    let Event::Closed(reason) = only_event(server) else {
        panic!("the connection is not closed");
    };
    reason
}

/// The connection was closed for that fault, with that code, or the client was hung up on.
fn faulted(server: &mut Server, code: Option<ReplyCode>) -> Fault {
    let reason = closed(server);
    let CloseCause::ProtocolError(error) = reason.cause() else {
        panic!("{reason}");
    };
    assert_eq!((error.code, reason.code()), (code, code));
    assert_eq!(server.conn.is_finished(), code.is_none());
    if let Some(code) = code {
        let Method::ConnectionClose(close) = server.only_method() else {
            panic!("no close was sent");
        };
        assert_eq!(close.reply_code, code);
    } else {
        assert_eq!(server.sent(), []);
    }
    error.fault.clone()
}

#[test]
fn a_client_of_another_protocol_is_answered_with_ours() {
    for (greeting, what) in [
        (
            &b"AMQP\x00\x01\x00\x00"[..],
            NotAmqp::OtherVersion([0, 1, 0, 0]),
        ),
        (b"AMQP\x01\x01\x08\x00", NotAmqp::OtherVersion([1, 1, 8, 0])),
        (b"AMQP\x01\x01\x09\x01", NotAmqp::OtherVersion([1, 1, 9, 1])),
        (b"AMQP\x00\x00\x09\x00", NotAmqp::OtherVersion([0, 0, 9, 0])),
        (
            b"AMQP\x03\x01\x00\x00\x00\x00",
            NotAmqp::OtherVersion([3, 1, 0, 0]),
        ),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc", NotAmqp::Tls),
        (b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", NotAmqp::Http),
        (b"POST /api HTTP/1.1\r\n", NotAmqp::Http),
        (b"hello, world", NotAmqp::Unknown(*b"hello, w")),
        (
            b"AMXP\x00\x00\x09\x01",
            NotAmqp::Unknown(*b"AMXP\0\0\x09\x01"),
        ),
    ] {
        for chunk in 1..=greeting.len() {
            let mut server = Server::server(Config::default());
            for piece in greeting.chunks(chunk) {
                server.feed(piece);
            }
            assert_eq!(server.bytes(), PROTOCOL_HEADER, "in pieces of {chunk}");
            let cause = CloseCause::NotAmqp(what.clone());
            assert_eq!(closed(&mut server).cause(), &cause, "in pieces of {chunk}");
            assert!(server.conn.is_finished());
            assert_eq!(server.conn.poll_timeout(), None);
        }
    }
}

#[test]
fn a_header_in_pieces_is_a_header() {
    for cut in 0..=8 {
        let mut server = Server::server(Config::default());
        server.feed(&PROTOCOL_HEADER[..cut]);
        assert_eq!(server.bytes().is_empty(), cut < 8);
        server.feed(&PROTOCOL_HEADER[cut..]);
        assert_eq!(server.conn.stage(), Stage::Authenticating);
    }
}

#[test]
fn start_offers_the_configured_mechanisms() {
    let config = Config {
        mechanisms: "PLAIN EXTERNAL".into(),
        locales: "en_US de_DE".into(),
        properties: FieldTable::new().with("product", "test"),
        ..Config::default()
    };
    let mut server = Server::server(config);
    assert_eq!(server.conn.mechanisms(), "PLAIN EXTERNAL");
    server.feed(&PROTOCOL_HEADER);
    let start: connection::Start = server.only_method().try_into().unwrap();
    assert_eq!((start.version_major, start.version_minor), (0, 9));
    assert_eq!(start.mechanisms, "PLAIN EXTERNAL");
    assert_eq!(start.locales, "en_US de_DE");
    assert!(start.server_properties.contains_key("product"));
}

#[test]
fn other_mechanisms_can_be_offered_until_the_client_has_spoken() {
    let mut server = Server::server(Config::default());
    server.conn.set_mechanisms("EXTERNAL");
    server.feed(&PROTOCOL_HEADER);
    server.conn.set_mechanisms("PLAIN");
    let start: connection::Start = server.only_method().try_into().unwrap();
    assert_eq!(start.mechanisms, "EXTERNAL");
}

#[test]
fn credentials_go_to_the_application() {
    let mut server = started(Config::default());
    server.send(0, &start_ok());
    let Event::Authenticate(request) = only_event(&mut server) else {
        panic!("nobody wants to log in");
    };
    assert_eq!(request.mechanism, "PLAIN");
    assert_eq!(request.response.expose(), b"\0guest\0guest");
    assert_eq!(request.locale, "en_US");
    assert_eq!(request.client_properties, start_ok().client_properties);
    assert!(
        server
            .conn
            .client_has_capability("authentication_failure_close")
    );
    assert!(!server.conn.client_has_capability("basic.nack"));
    // Nothing is said before the decision.
    assert_eq!(server.sent(), []);
}

#[test]
fn a_server_may_challenge_any_number_of_times() {
    for rounds in [1, 2, 50] {
        let mut server = deciding();
        for round in 0..rounds {
            server.conn.challenge(round.to_string()).unwrap();
            let secure: connection::Secure = server.only_method().try_into().unwrap();
            assert_eq!(secure.challenge, *round.to_string());
            // One challenge, one answer.
            assert!(server.conn.challenge("more").is_err());
            assert!(server.conn.accept().is_err());
            let answer = (round * 2).to_string();
            server.send(0, &connection::SecureOk::default().response(answer.clone()));
            let Event::Authenticate(request) = only_event(&mut server) else {
                panic!("the answer is lost");
            };
            assert_eq!(request.response.expose(), answer.as_bytes());
            assert_eq!(request.mechanism, "PLAIN");
        }
        server.conn.accept().unwrap();
        assert!(matches!(server.only_method(), Method::ConnectionTune(_)));
    }
}

#[test]
fn a_challenge_that_does_not_fit_changes_nothing() {
    let mut server = deciding();
    let error = server.conn.challenge(vec![b'x'; 8192]).unwrap_err();
    assert!(matches!(error, ApiMisuse::FrameTooLarge { .. }), "{error}");
    assert_eq!(server.sent(), []);
    server.conn.challenge(vec![b'x'; 8000]).unwrap();
    assert!(matches!(server.only_method(), Method::ConnectionSecure(_)));
}

#[test]
fn refused_credentials_are_reported_to_clients_with_the_capability() {
    let mut server = deciding();
    server.conn.refuse("no such user").unwrap();
    let Method::ConnectionClose(close) = server.only_method() else {
        panic!("no close was sent");
    };
    assert_eq!(close.reply_code, ReplyCode::ACCESS_REFUSED);
    assert_eq!(close.reply_text, "no such user");
    let cause = CloseCause::AuthenticationFailed {
        why: "no such user".into(),
        close: None,
    };
    assert_eq!(closed(&mut server).cause(), &cause);
    assert!(!server.conn.is_finished());
    server.send(0, &connection::CloseOk);
    assert!(server.conn.is_finished());

    let mut server = started(Config::default());
    server.send(0, &start_ok().client_properties(FieldTable::new()));
    server.server_events();
    server.conn.refuse("no such user").unwrap();
    assert_eq!(server.sent(), []);
    assert_eq!(closed(&mut server).cause(), &cause);
    assert!(server.conn.is_finished());
}

#[test]
fn tune_ok_must_keep_to_the_rules() {
    // The server's suggestion, its least values, the client's answer, and the verdict.
    let default = (2047, 131_072, 8192);
    for (config, answer, fault) in [
        (default, (2047, 131_072, 60), None),
        (default, (1, 8192, 0), None),
        (default, (1, 8192, 65_535), None),
        // No limit may be answered only to no limit (note 19).
        (default, (0, 131_072, 60), Some(("channel_max", 0))),
        (default, (2047, 0, 60), Some(("frame_max", 0))),
        (default, (2048, 131_072, 60), Some(("channel_max", 2048))),
        (default, (2047, 131_073, 60), Some(("frame_max", 131_073))),
        (default, (2047, 8191, 60), Some(("frame_max", 8191))),
        (default, (2047, 1, 60), Some(("frame_max", 1))),
        ((2047, 131_072, 4096), (1, 4096, 0), None),
        (
            (2047, 131_072, 4096),
            (1, 4095, 0),
            Some(("frame_max", 4095)),
        ),
        ((0, 0, 8192), (0, 0, 0), None),
        ((0, 0, 8192), (65_535, u32::MAX, 0), None),
        ((0, 0, 8192), (1, 8192, 0), None),
        ((0, 0, 8192), (1, 8191, 0), Some(("frame_max", 8191))),
    ] {
        let (channel_max, frame_max, frame_min) = config;
        let mut server = tuning(Config {
            channel_max,
            frame_max,
            frame_min,
            ..Config::default()
        });
        let (channel_max, frame_max, heartbeat) = answer;
        let tune_ok = connection::TuneOk {
            channel_max,
            frame_max,
            heartbeat,
        };
        server.send(0, &tune_ok);
        if let Some((setting, value)) = fault {
            assert_eq!(faulted(&mut server, None), Fault::Tuning { setting, value });
            continue;
        }
        assert_eq!(server.server_events(), []);
        assert_eq!(server.conn.stage(), Stage::Opening);
        let tuning = Tuning {
            channel_max: if channel_max == 0 {
                65_535
            } else {
                channel_max
            },
            frame_max: if frame_max == 0 { u32::MAX } else { frame_max },
            heartbeat,
        };
        assert_eq!(server.conn.tuning(), &tuning);
    }
}

#[test]
fn tune_suggests_the_configured_limits() {
    let mut server = started(Config {
        channel_max: 7,
        frame_max: 10_000,
        heartbeat: 9,
        ..Config::default()
    });
    server.send(0, &start_ok());
    server.conn.accept().unwrap();
    let tune = connection::Tune {
        channel_max: 7,
        frame_max: 10_000,
        heartbeat: 9,
    };
    assert_eq!(server.only_method(), tune.into());
}

#[test]
fn a_virtual_host_is_opened() {
    let mut server = opening();
    assert_eq!(server.sent(), []);
    server.conn.open().unwrap();
    assert_eq!(server.only_method(), connection::OpenOk.into());
    assert_eq!(server.server_events(), [Event::Opened]);
    assert!(server.conn.is_open());
    assert!(server.conn.open().is_err());
    assert_eq!(server.sent(), []);
}

#[test]
fn a_virtual_host_is_refused_with_530() {
    let mut server = opening();
    let text = "NOT_ALLOWED - vhost nope not found";
    server.conn.close(ReplyCode::NOT_ALLOWED, text);
    let Method::ConnectionClose(close) = server.only_method() else {
        panic!("no close for the client");
    };
    let named = MethodId::new(close.class_id, close.method_id);
    assert_eq!(named, connection::Open::ID);
    assert_eq!(close.reply_code, ReplyCode::NOT_ALLOWED);
    assert_eq!(close.reply_text, text);
    assert!(!server.conn.is_finished());
    assert!(server.conn.open().is_err());
    server.send(0, &connection::CloseOk);
    assert!(server.conn.is_finished());
    let reason = closed(&mut server);
    assert!(matches!(reason.cause(), CloseCause::Requested(_)));
    assert_eq!(reason.code(), Some(ReplyCode::NOT_ALLOWED));
    assert_eq!(server.conn.poll_timeout(), None);
}

#[test]
fn a_refused_client_that_does_not_answer_is_dropped() {
    let mut server = opening();
    server.conn.close(ReplyCode::NOT_ALLOWED, "no");
    server.bytes();
    server.advance(Duration::from_secs(10));
    assert!(server.conn.is_finished());
    assert_eq!(server.server_events().len(), 1);
}

#[test]
fn decisions_are_asked_for_before_they_are_made() {
    for (number, (stage, mut server)) in every_stage().into_iter().enumerate() {
        let (credentials, virtual_host) = (number == 2, number == 5);
        let error = |method| Err(ApiMisuse::NothingToAnswer { method });
        if !credentials {
            assert_eq!(
                server.conn.accept(),
                error("connection.start-ok"),
                "{stage}"
            );
            assert_eq!(server.conn.refuse("no"), error("connection.start-ok"));
            assert_eq!(server.conn.challenge("1"), error("connection.secure"));
        }
        if !virtual_host {
            assert_eq!(server.conn.open(), error("connection.open"));
        }
        assert_eq!(server.sent(), []);
        assert_eq!(server.server_events(), []);
        assert_eq!(server.conn.stage(), stage);
    }
}

#[test]
fn methods_of_another_stage_are_faults() {
    let said: [&dyn Fn(&mut Server); 7] = [
        &|server| server.send(0, &start_ok()),
        &|server| server.send(0, &connection::SecureOk::default()),
        &|server| server.send(0, &connection::TuneOk::default()),
        &|server| server.send(0, &connection::Open::default()),
        &|server| server.send(0, &connection::UpdateSecret::default()),
        &|server| server.send(0, &connection::CloseOk),
        &|server| server.send(1, &channel::Open),
    ];
    let due = [(1, 0), (3, 2), (4, 3)];
    // In the first stage, a header is due instead of a frame.
    for step in 1..6 {
        for (number, say) in said.iter().enumerate() {
            if due.contains(&(step, number)) {
                continue;
            }
            let (_, mut server) = every_stage().into_iter().nth(step).unwrap();
            say(&mut server);
            // Section 2.2.4 of the specification: without a method before `connection.open`.
            let fault = faulted(&mut server, None);
            let expected = match number {
                5 => Fault::UnexpectedReply,
                _ => Fault::NotDue,
            };
            assert_eq!(fault, expected, "{number} in step {step}");
        }
    }
}

#[test]
fn the_end_of_the_transport_has_a_cause_in_each_stage() {
    for (stage, mut server) in every_stage() {
        server.conn.handle_eof(server.now);
        let reason = closed(&mut server);
        // A client that hangs up has not refused credentials.
        assert_eq!(reason.cause(), &CloseCause::Eof { stage });
        assert!(server.conn.is_finished());
        assert_eq!(server.conn.poll_timeout(), None);
    }
}

#[test]
fn a_handshake_has_a_deadline_in_each_stage() {
    for (_, mut server) in every_stage() {
        server.advance(Duration::from_millis(9_999));
        assert_eq!(server.server_events(), []);
        server.advance(Duration::from_millis(1));
        let cause = CloseCause::TimedOut(TimeoutReason::Handshake);
        assert_eq!(closed(&mut server).cause(), &cause);
        assert!(server.conn.is_finished());
        assert_eq!(server.conn.poll_timeout(), None);
    }
}

/// Makes a configuration wrong.
type Spoil = fn(&mut Config);

#[test]
fn a_configuration_that_no_client_takes_is_refused() {
    let configs: [(&str, Spoil); 5] = [
        ("output_high", |config| {
            (config.limits.output_high, config.limits.output_low) = (0, 0);
        }),
        ("frame_min", |config| config.frame_min = 4095),
        ("frame_max", |config| config.frame_max = 8191),
        ("frame_max", |config| {
            (config.frame_min, config.frame_max) = (10_000, 9_999);
        }),
        ("output_low", |config| {
            config.limits.output_low = config.limits.output_high + 1;
        }),
    ];
    for (setting, spoil) in configs {
        let mut config = Config::default();
        spoil(&mut config);
        let error = Connection::new(config, crate::Instant::ORIGIN).unwrap_err();
        assert!(error.to_string().starts_with(setting), "{error}");
    }
    // The bounds of output may be the same.
    let mut config = Config::default();
    config.limits.output_low = config.limits.output_high;
    assert!(Connection::new(config, crate::Instant::ORIGIN).is_ok());
}
