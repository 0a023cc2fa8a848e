//! A client's handshake, with a server that does as it likes.

use alloc::{boxed::Box, format, string::ToString as _, vec, vec::Vec};

use super::script::*;
use crate::{
    CloseCause, CloseReason, Fault, NotAmqp, Stage, Tuning,
    client::{Config, Connection, Event},
    frame::PROTOCOL_HEADER,
    protocol::{Method, ReplyCode, connection},
    sasl::{AmqPlain, Mechanism, Plain, SaslError},
    wire::{FieldTable, Secret},
};

pub(super) type Client = Script<Connection>;

fn with_mechanism(mechanism: impl Mechanism + 'static) -> Config {
    Config {
        mechanisms: vec![Box::new(mechanism)],
        ..Config::default()
    }
}

/// A client that has sent `start-ok`, and that.
pub(super) fn authenticating(config: Config) -> (Client, connection::StartOk) {
    let mut client = Client::new(config);
    client.send(0, &start());
    assert_eq!(client.conn.stage(), Stage::Authenticating);
    let start_ok = client.only_method().try_into().unwrap();
    (client, start_ok)
}

/// A client that waits for `open-ok`.
fn opening() -> Client {
    let (mut client, _) = authenticating(Config::default());
    client.send(0, &connection::Tune::default());
    assert_eq!(client.sent().len(), 2);
    assert_eq!(client.conn.stage(), Stage::Opening);
    client
}

/// A client in each stage of the handshake.
pub(super) fn every_stage() -> [(Stage, Client); 3] {
    [
        (Stage::Greeting, Client::new(Config::default())),
        (Stage::Authenticating, authenticating(Config::default()).0),
        (Stage::Opening, opening()),
    ]
}

/// Why a connection ended; it is all over.
pub(super) fn finished(client: &mut Client) -> CloseReason {
    let Event::Closed(reason) = client.only_event() else {
        panic!("the connection is not closed");
    };
    assert_eq!(client.conn.close_reason(), Some(&reason));
    assert!(client.conn.is_finished());
    assert_eq!(client.conn.poll_timeout(), None);
    reason
}

/// Why a connection ended to which the server said that; nothing is sent any more.
pub(super) fn refused(client: &mut Client) -> CloseCause {
    assert_eq!(client.sent(), []);
    finished(client).cause().clone()
}

#[test]
fn the_response_stands_in_start_ok_once() {
    let (mut client, start_ok) = {
        let mut client = Client::new(with_mechanism(Plain::new("foo", "bar").unwrap()));
        client.send(0, &start());
        let sent = client.bytes();
        let plain = b"\x05PLAIN\x00\x00\x00\x08\x00foo\x00bar\x05en_US\xCE";
        assert!(sent.ends_with(plain), "{sent:?}");
        (client, frames(&sent))
    };
    assert_eq!(start_ok.len(), 1);
    assert_eq!(client.events(), []);

    let mut client = Client::new(with_mechanism(AmqPlain::new("foo", "bar")));
    client.send(0, &start());
    let sent = client.bytes();
    let amqplain = b"\x08AMQPLAIN\x00\x00\x00\x1f\
        \x05LOGINS\x00\x00\x00\x03foo\x08PASSWORDS\x00\x00\x00\x03bar\x05en_US\xCE";
    assert!(sent.ends_with(amqplain), "{sent:?}");
}

#[test]
fn the_header_comes_first_and_alone() {
    let client = Client::new(Config::default());
    assert_eq!(PROTOCOL_HEADER, [b'A', b'M', b'Q', b'P', 0, 0, 9, 1]);
    assert_eq!(client.conn.stage(), Stage::Greeting);
    assert!(!client.conn.is_open());
    assert!(!client.conn.has_transmit());
}

#[test]
fn a_server_of_another_version_is_named() {
    for (answer, version) in [
        (b"AMQP\x03\x01\x00\x00", "AMQP 1.0.0 (id 3)"),
        (b"AMQP\x00\x01\x00\x00", "AMQP 1.0.0 (id 0)"),
        (b"AMQP\x01\x01\x00\x0a", "AMQP 1.0.10 (id 1)"),
        (b"AMQP\x00\x00\x09\x01", "AMQP 0.9.1 (id 0)"),
    ] {
        for chunk in [1, 3, 8] {
            let mut client = Client::new(Config::default());
            for piece in answer.chunks(chunk) {
                assert_eq!(client.events(), []);
                client.feed(piece);
            }
            let cause = refused(&mut client);
            let id = answer[4..].try_into().unwrap();
            assert_eq!(cause, CloseCause::NotAmqp(NotAmqp::OtherVersion(id)));
            let text = cause.to_string();
            assert!(text.ends_with(version), "{text}");
        }
    }
}

#[test]
fn peers_of_other_protocols_are_named() {
    let ssh = b"SSH-2.0-OpenSSH_9.6\r\n";
    for (answer, what) in [
        (&b"\x15\x03\x01\x00\x02\x02\x46"[..], NotAmqp::Tls),
        (b"\x16\x03\x03\x00\x7a\x02\x00\x00\x76", NotAmqp::Tls),
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", NotAmqp::Http),
        (ssh, NotAmqp::Unknown(*b"SSH-2.0-")),
        (b"HELLO WORLD", NotAmqp::Unknown(*b"HELLO WO")),
        (
            b"AMQX\x00\x00\x09\x01",
            NotAmqp::Unknown(*b"AMQX\0\0\x09\x01"),
        ),
        (b"\0\0\0\0\0\0\0\0\0", NotAmqp::Unknown([0; 8])),
        // A heartbeat is of this protocol, but never the first frame.
        (
            b"\x08\0\0\0\0\0\0\xCE",
            NotAmqp::Unknown(*b"\x08\0\0\0\0\0\0\xCE"),
        ),
    ] {
        for chunk in 1..=answer.len() {
            let mut client = Client::new(Config::default());
            for piece in answer.chunks(chunk) {
                client.feed(piece);
            }
            assert_eq!(
                refused(&mut client),
                CloseCause::NotAmqp(what.clone()),
                "in pieces of {chunk}"
            );
        }
    }
}

#[test]
fn start_is_answered_and_remembered() {
    let mut client = Client::new(Config::default());
    let capabilities = FieldTable::new()
        .with("publisher_confirms", true)
        .with("direct_reply_to", false);
    let properties = FieldTable::new()
        .with("product", "RabbitMQ")
        .with("capabilities", capabilities);
    let offer = connection::Start {
        server_properties: properties.clone(),
        mechanisms: "PLAIN AMQPLAIN".into(),
        locales: "en_US ru_RU".into(),
        ..start()
    };
    client.send(0, &offer);
    let start_ok: connection::StartOk = client.only_method().try_into().unwrap();
    assert_eq!(start_ok.mechanism, "PLAIN");
    assert_eq!(start_ok.locale, "en_US");
    assert_eq!(start_ok.response.expose(), b"\0guest\0guest");
    assert_eq!(client.conn.server_properties(), &properties);
    assert!(client.conn.has_capability("publisher_confirms"));
    assert!(!client.conn.has_capability("direct_reply_to"));
    assert!(!client.conn.has_capability("basic.nack"));
    assert_eq!(client.conn.stage(), Stage::Authenticating);
    assert!(!client.conn.is_open());
}

#[test]
fn a_client_sends_its_capabilities() {
    let own = FieldTable::new()
        .with("connection_name", "billing")
        .with("product", "my own");
    let (_, start_ok) = authenticating(Config {
        properties: own,
        ..Config::default()
    });
    let reported = &start_ok.client_properties;
    let text = |name: &str| reported.get(name).and_then(|value| value.as_str());
    assert_eq!(text("connection_name"), Some("billing"));
    assert_eq!(text("product"), Some("my own"));
    assert_eq!(
        reported
            .iter()
            .filter(|(name, _)| **name == *"product")
            .count(),
        1
    );
    assert!(text("version").is_some() && text("platform").is_some());
    let capabilities = reported.get("capabilities").unwrap().as_table().unwrap();
    for name in [
        "authentication_failure_close",
        "basic.nack",
        "connection.blocked",
        "consumer_cancel_notify",
        "exchange_exchange_bindings",
        "publisher_confirms",
    ] {
        let announced = capabilities.get(name).and_then(|value| value.as_bool());
        assert_eq!(announced, Some(true), "{name}");
    }
}

#[test]
fn the_first_mechanism_that_both_know_is_taken() {
    let mechanisms = || -> Vec<Box<dyn Mechanism>> {
        vec![
            Box::new(crate::sasl::External::new()),
            Box::new(AmqPlain::new("a", "b")),
            Box::new(Plain::new("c", "d").unwrap()),
        ]
    };
    for (offered, taken) in [
        ("PLAIN AMQPLAIN", "AMQPLAIN"),
        ("PLAIN", "PLAIN"),
        ("  PLAIN\tEXTERNAL ", "EXTERNAL"),
        ("XPLAIN PLAIN", "PLAIN"),
    ] {
        let mut client = Client::new(Config {
            mechanisms: mechanisms(),
            ..Config::default()
        });
        client.send(0, &start().mechanisms(offered));
        let start_ok: connection::StartOk = client.only_method().try_into().unwrap();
        assert_eq!(start_ok.mechanism, taken);
    }
}

#[test]
fn limits_that_cannot_be_agreed_on_end_the_connection() {
    let version = |major, minor| NotAmqp::StartVersion { major, minor }.into();
    let no_mechanism = |offered: &str| CloseCause::NoCommonMechanism {
        offered: offered.into(),
    };
    let no_locale = |offered: &str| CloseCause::NoCommonLocale {
        wanted: "en_US".into(),
        offered: offered.into(),
    };
    for (offer, cause) in [
        (start().version_major(1), version(1, 9)),
        (start().version_minor(8), version(0, 8)),
        (start().mechanisms(""), no_mechanism("")),
        (
            start().mechanisms("GSSAPI PLAINER plain"),
            no_mechanism("GSSAPI PLAINER plain"),
        ),
        (start().locales(""), no_locale("")),
        (start().locales("ru_RU de_DE"), no_locale("ru_RU de_DE")),
    ] {
        let mut client = Client::new(Config::default());
        client.send(0, &offer);
        assert_eq!(refused(&mut client), cause);
    }
    let mut client = Client::new(Config {
        locale: name("fr_FR"),
        ..Config::default()
    });
    client.send(0, &start());
    assert_eq!(
        refused(&mut client),
        CloseCause::NoCommonLocale {
            wanted: "fr_FR".into(),
            offered: "en_US".into()
        }
    );
}

#[test]
fn limits_are_brought_together() {
    const NONE: u32 = u32::MAX;
    // The client's setting, the server's suggestion, tune-ok, the agreed value.
    for (ours, theirs, answered, agreed) in [
        // The first three rows are those of the scenario; 0 means no limit.
        (
            (0, 0, Some(0)),
            (10, 12_000, 60),
            (10, 12_000, 0),
            (10, 12_000, 0),
        ),
        ((0, 0, Some(60)), (0, 0, 0), (0, 0, 60), (65_535, NONE, 60)),
        (
            (10, 12_000, Some(60)),
            (20, 14_000, 120),
            (10, 12_000, 60),
            (10, 12_000, 60),
        ),
        (
            (20, 14_000, Some(120)),
            (10, 12_000, 60),
            (10, 12_000, 120),
            (10, 12_000, 120),
        ),
        // Either side without a limit takes the other's.
        (
            (10, 12_000, None),
            (0, 0, 60),
            (10, 12_000, 60),
            (10, 12_000, 60),
        ),
        (
            (0, 0, None),
            (2047, 131_072, 0),
            (2047, 131_072, 0),
            (2047, 131_072, 0),
        ),
        (
            (0, 0, None),
            (1, 4096, 65_535),
            (1, 4096, 65_535),
            (1, 4096, 65_535),
        ),
        (
            (65_535, NONE, None),
            (65_535, NONE, 1),
            (65_535, NONE, 1),
            (65_535, NONE, 1),
        ),
        (
            (1, 4096, Some(1)),
            (65_535, NONE, 65_535),
            (1, 4096, 1),
            (1, 4096, 1),
        ),
    ] {
        let (mut client, _) = authenticating(Config {
            channel_max: ours.0,
            frame_max: ours.1,
            heartbeat: ours.2,
            virtual_host: name("/test"),
            ..Config::default()
        });
        let (channel_max, frame_max, heartbeat) = theirs;
        client.send(
            0,
            &connection::Tune {
                channel_max,
                frame_max,
                heartbeat,
            },
        );
        let (channel_max, frame_max, heartbeat) = answered;
        let tune_ok = connection::TuneOk {
            channel_max,
            frame_max,
            heartbeat,
        };
        let open = connection::Open {
            virtual_host: name("/test"),
        };
        assert_eq!(client.sent(), [method(0, tune_ok), method(0, open)]);
        let (channel_max, frame_max, heartbeat) = agreed;
        let tuning = Tuning {
            channel_max,
            frame_max,
            heartbeat,
        };
        assert_eq!(client.conn.tuning(), &tuning);
        assert_eq!(tuning.is_frame_unlimited(), frame_max == NONE);
        assert_eq!(client.conn.stage(), Stage::Opening);
        assert_eq!(client.events(), []);
    }
}

#[test]
fn a_frame_limit_below_the_standard_s_is_refused() {
    for frame_max in [1, 8, 4095] {
        let (mut client, _) = authenticating(Config::default());
        client.send(0, &connection::Tune::default().frame_max(frame_max));
        assert_eq!(client.sent(), []);
        let Event::Closed(reason) = client.only_event() else {
            panic!("the suggestion was accepted");
        };
        let CloseCause::ProtocolError(error) = reason.cause() else {
            panic!("{reason}");
        };
        assert_eq!(
            error.fault,
            Fault::Tuning {
                setting: "frame_max",
                value: frame_max
            }
        );
    }
}

#[test]
fn open_ok_opens() {
    let mut client = opening();
    assert!(client.conn.open_channel().is_err());
    client.send(0, &connection::OpenOk);
    assert_eq!(client.events(), [Event::Opened]);
    assert!(client.conn.is_open());
    assert_eq!(client.conn.stage(), Stage::Open);
    assert_eq!(client.conn.close_reason(), None);
    assert!(client.conn.open_channel().is_ok());
}

/// Doubles the number that the server sends.
#[derive(Clone, Debug)]
struct Double;

impl Mechanism for Double {
    fn name(&self) -> &str {
        "DOUBLE"
    }

    fn initial_response(&mut self) -> Secret {
        Secret::from("1")
    }

    fn respond(&mut self, challenge: &[u8]) -> Result<Secret, SaslError> {
        let number = core::str::from_utf8(challenge).ok();
        let number: Option<u64> = number.and_then(|digits| digits.parse().ok());
        number
            .map(|number| (number * 2).to_string().into())
            .ok_or_else(|| SaslError::Challenge("not a number".into()))
    }

    fn boxed(&self) -> Box<dyn Mechanism> {
        Box::new(self.clone())
    }
}

#[test]
fn any_number_of_challenges_is_answered() {
    for rounds in [0, 1, 2, 100] {
        let mut client = Client::new(with_mechanism(Double));
        client.send(0, &start().mechanisms("DOUBLE PLAIN"));
        let start_ok: connection::StartOk = client.only_method().try_into().unwrap();
        assert_eq!(start_ok.response.expose(), b"1");
        for round in 0..rounds {
            let challenge = (123 + round).to_string();
            client.send(0, &connection::Secure::default().challenge(challenge));
            let secure_ok: connection::SecureOk = client.only_method().try_into().unwrap();
            let doubled = (246 + 2 * round).to_string();
            assert_eq!(secure_ok.response.expose(), doubled.as_bytes());
        }
        client.send(0, &connection::Tune::default());
        client.send(0, &connection::OpenOk);
        assert_eq!(client.events(), [Event::Opened]);
    }
}

#[test]
fn a_challenge_without_an_answer_is_a_failed_authentication() {
    for (config, mechanism, challenge) in [
        (with_mechanism(Double), "DOUBLE", "not a number"),
        (Config::default(), "PLAIN", "who are you?"),
    ] {
        let mut client = Client::new(config);
        client.send(0, &start().mechanisms(mechanism));
        client.bytes();
        client.send(0, &connection::Secure::default().challenge(challenge));
        let Method::ConnectionClose(close) = client.only_method() else {
            panic!("the challenge was answered");
        };
        assert_eq!(close.reply_code, ReplyCode::ACCESS_REFUSED);
        let Event::Closed(reason) = client.only_event() else {
            panic!("the connection goes on");
        };
        let cause = reason.cause();
        assert!(matches!(cause, CloseCause::AuthenticationFailed { why, .. } if !why.is_empty()));
        client.send(0, &connection::CloseOk);
        assert!(client.conn.is_finished());
    }
}

#[test]
fn a_start_ok_that_does_not_fit_is_not_sent() {
    // A frame before negotiation holds 8192 bytes (note 18).
    let password = |len| with_mechanism(Plain::new("u", "x".repeat(len)).unwrap());
    let (mut client, _) = authenticating(password(0));
    client.send(0, &connection::Tune::default());
    let mut probe = Client::new(password(0));
    probe.send(0, &start());
    let room = 8192 - probe.bytes().len();

    let mut client = Client::new(password(room));
    client.send(0, &start());
    assert_eq!(client.bytes().len(), 8192);
    assert_eq!(client.events(), []);

    let mut client = Client::new(password(room + 1));
    client.send(0, &start());
    let cause = refused(&mut client);
    let (len, limit) = (8193, 8192);
    assert_eq!(cause, CloseCause::StartOkTooLarge { len, limit });
    assert!(cause.to_string().contains("8193"));
}

#[test]
fn a_frame_before_tune_has_at_most_8192_bytes() {
    let longest = |len: usize| {
        let empty = method_frame(0, &start()).len();
        let filler = "x".repeat(len - empty - 1);
        start().mechanisms(format!("PLAIN AMQPLAIN {filler}"))
    };
    let mut client = Client::new(Config::default());
    client.send(0, &longest(8192));
    assert_eq!(client.sent().len(), 1);
    assert_eq!(client.conn.stage(), Stage::Authenticating);

    let mut client = Client::new(Config::default());
    client.send(0, &longest(8193));
    // Before `connection.open` the transport is closed without a method: section 2.2.4 of the
    // specification.
    assert_eq!(client.sent(), []);
    let Event::Closed(reason) = client.only_event() else {
        panic!("the frame was accepted");
    };
    let CloseCause::ProtocolError(error) = reason.cause() else {
        panic!("{reason}");
    };
    assert!(matches!(
        error.fault,
        Fault::FrameTooLarge { size: 8193, .. }
    ));
    assert_eq!(error.code, None);
}
