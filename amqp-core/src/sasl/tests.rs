use alloc::boxed::Box;
use alloc::string::ToString;
use alloc::{format, vec};

use bytes::BytesMut;
use proptest::prelude::*;

use super::*;
use crate::wire::{Encode as _, FieldTable, FieldValue, LongStr, put};

/// The bytes that AMQPLAIN sends for user `foo` and password `bar`.
const AMQPLAIN: &[u8] = b"\x05LOGINS\0\0\0\x03foo\x08PASSWORDS\0\0\0\x03bar";

#[test]
fn plain() {
    let mut plain = Plain::new("foo", "bar").unwrap();
    assert_eq!(plain.name(), "PLAIN");
    assert_eq!(plain.initial_response().expose(), b"\0foo\0bar");
    assert_eq!(plain.respond(b"?"), Err(SaslError::UnexpectedChallenge));
    // It serves the next connection too.
    assert_eq!(plain.initial_response().expose(), b"\0foo\0bar");
    assert_eq!(
        Plain::default().initial_response().expose(),
        b"\0guest\0guest"
    );
    let mut nobody = Plain::new("", "").unwrap();
    assert_eq!(nobody.initial_response().expose(), b"\0\0");
}

#[test]
fn plain_has_no_nul() {
    assert_eq!(Plain::new("f\0oo", "bar"), Err(SaslError::Nul));
    assert_eq!(Plain::new("foo", "b\0ar"), Err(SaslError::Nul));
}

#[test]
fn amqplain_is_a_bare_table() {
    let mut amqplain = AmqPlain::new("foo", "bar");
    assert_eq!(amqplain.name(), "AMQPLAIN");
    let response = amqplain.initial_response();
    assert_eq!(response.expose(), AMQPLAIN);
    assert_eq!(response.len(), 31);
    // In start-ok it is a long string, which has the only length there is.
    let mut out = BytesMut::new();
    put::secret(&mut out, &response);
    assert_eq!(out, [&[0, 0, 0, 0x1f], AMQPLAIN].concat());
    assert_eq!(amqplain.respond(b""), Err(SaslError::UnexpectedChallenge));
}

#[test]
fn external() {
    assert_eq!(External::new().name(), "EXTERNAL");
    assert!(External::new().initial_response().is_empty());
    assert_eq!(
        External::on_behalf_of("tom").initial_response().expose(),
        b"tom"
    );
    assert_eq!(
        External::new().respond(b""),
        Err(SaslError::UnexpectedChallenge)
    );
}

/// Answers any number of challenges, and counts them from the start of each exchange.
#[derive(Clone, Debug)]
struct Double {
    rounds: u32,
}

impl Mechanism for Double {
    fn name(&self) -> &str {
        "DOUBLE"
    }

    fn initial_response(&mut self) -> Secret {
        self.rounds = 0;
        Secret::new()
    }

    fn respond(&mut self, challenge: &[u8]) -> Result<Secret, SaslError> {
        self.rounds += 1;
        let number: u64 = core::str::from_utf8(challenge)
            .ok()
            .and_then(|digits| digits.parse().ok())
            .ok_or_else(|| SaslError::Challenge(format!("round {}", self.rounds)))?;
        Ok((number * 2).to_string().into())
    }

    fn boxed(&self) -> Box<dyn Mechanism> {
        Box::new(self.clone())
    }
}

#[test]
fn a_mechanism_of_ones_own() {
    let mut mechanism: Box<dyn Mechanism> = Box::new(Double { rounds: 7 });
    assert_eq!(mechanism.name(), "DOUBLE");
    assert!(mechanism.initial_response().is_empty());
    assert_eq!(mechanism.respond(b"123").unwrap().expose(), b"246");
    assert_eq!(mechanism.respond(b"246").unwrap().expose(), b"492");
    let error = mechanism.respond(b"?").unwrap_err();
    assert_eq!(error.to_string(), "the challenge has no answer: round 3");
}

#[test]
fn debug_never_shows_a_password() {
    let mechanisms: [Box<dyn Mechanism>; 3] = [
        Box::new(Plain::new("tom", "hunter2").unwrap()),
        Box::new(AmqPlain::new("tom", "hunter2")),
        Box::new(External::on_behalf_of("tom")),
    ];
    for mechanism in mechanisms {
        let shown = format!("{mechanism:?} {mechanism:#?}");
        assert!(
            shown.contains("tom") && !shown.contains("hunter2"),
            "{shown}"
        );
    }
    let credentials = parse_plain(b"\0tom\0hunter2").unwrap();
    assert!(!format!("{credentials:?}").contains("hunter2"));
}

#[test]
fn a_server_reads_plain() {
    let credentials = parse_plain(b"\0foo\0bar").unwrap();
    assert_eq!(credentials.username, "foo");
    assert_eq!(credentials.password, Secret::from("bar"));
    assert_eq!(parse_plain(b"\0\0").unwrap().username, "");

    for (response, reason) in [
        (&b""[..], "two NULs"),
        (b"foo", "two NULs"),
        (b"\0foo", "two NULs"),
        (b"foo\0bar", "two NULs"),
        (b"\0foo\0bar\0", "two NULs"),
        (b"\0f\0oo\0bar", "two NULs"),
        (b"root\0foo\0bar", "begin with a NUL"),
        (b"\0f\xffo\0bar", "UTF-8"),
    ] {
        let error = parse_plain(response).unwrap_err().to_string();
        assert!(error.contains(reason), "{response:?}: {error}");
    }
}

#[test]
fn a_server_reads_amqplain() {
    let credentials = parse_amqplain(AMQPLAIN).unwrap();
    assert_eq!(credentials.username, "foo");
    assert_eq!(credentials.password, Secret::from("bar"));

    let bare = |fields: &[(&str, FieldValue)]| {
        let fields = fields
            .iter()
            .map(|(name, value)| (name.parse().unwrap(), value.clone()));
        let mut out = BytesMut::new();
        FieldTable::from_iter(fields).encode(&mut out);
        out[4..].to_vec()
    };
    // In any order, with more fields, and the first of a name counts.
    let credentials = parse_amqplain(&bare(&[
        ("PASSWORD", "bar".into()),
        ("more", FieldValue::Void),
        ("LOGIN", "foo".into()),
        ("LOGIN", "root".into()),
    ]));
    assert_eq!(credentials.unwrap().username, "foo");

    let not_text = LongStr::from(b"\xff").into();
    for (response, reason) in [
        (vec![], "no LOGIN"),
        (bare(&[("PASSWORD", "bar".into())]), "no LOGIN"),
        (bare(&[("LOGIN", "foo".into())]), "no PASSWORD"),
        (
            bare(&[("login", "foo".into()), ("PASSWORD", "bar".into())]),
            "no LOGIN",
        ),
        (
            bare(&[("LOGIN", 1.into()), ("PASSWORD", "bar".into())]),
            "no LOGIN",
        ),
        (
            bare(&[("LOGIN", not_text), ("PASSWORD", "bar".into())]),
            "UTF-8",
        ),
        (b"\0\0\0\x01a".to_vec(), "unknown type"),
        (AMQPLAIN[..30].to_vec(), "ends in the middle"),
        // A table with a length of its own, as one client used to send it.
        ([&[0, 0, 0, 0x1f], AMQPLAIN].concat(), "unknown type"),
    ] {
        let error = parse_amqplain(&response).unwrap_err().to_string();
        assert!(error.contains(reason), "{response:?}: {error}");
    }
}

proptest! {
    #[test]
    fn methods_of_a_client_are_read_by_a_server(
        username in "[^\0]{0,20}",
        password in proptest::collection::vec(1_u8.., 0..20),
    ) {
        let credentials = Credentials { username: username.clone(), password: password.into() };
        let password = credentials.password.clone();
        let mut plain = Plain::new(&username, password.clone()).unwrap();
        let read = parse_plain(plain.initial_response().expose());
        prop_assert_eq!(read.as_ref(), Ok(&credentials));
        let response = AmqPlain::new(username, password).initial_response();
        prop_assert_eq!(parse_amqplain(response.expose()), Ok(credentials));
    }

    /// Nothing makes them panic.
    #[test]
    fn any_response(response in proptest::collection::vec(any::<u8>(), 0..60)) {
        let _ = parse_plain(&response);
        let _ = parse_amqplain(&response);
    }
}
