//! Secrets stay secret, and are renewed.

use alloc::{boxed::Box, format, vec, vec::Vec};
use core::{fmt::Debug, time::Duration};

use bytes::BytesMut;

use super::{pair::Pair, script::*};
use crate::{
    ApiMisuse, CloseCause, Endpoint, MethodId, RequestError, TimeoutReason, Transmit,
    client::{self, Event},
    protocol::{Method, ReplyCode, basic, connection},
    sasl::{AmqPlain, External, Mechanism, Plain},
    server,
    wire::Secret,
};

const PASSWORD: &str = "correct-horse";
const RENEWED: &str = "battery-staple";

fn assert_silent(what: &(impl Debug + ?Sized), place: &str) {
    for secret in [PASSWORD, RENEWED] {
        for shown in [format!("{what:?}"), format!("{what:#?}")] {
            assert!(!shown.contains(secret), "{place} shows a secret: {shown}");
        }
    }
}

fn mechanisms() -> Vec<Box<dyn Mechanism>> {
    vec![
        Box::new(AmqPlain::new("tom", PASSWORD)),
        Box::new(Plain::new("tom", PASSWORD).unwrap()),
        Box::new(External::new()),
    ]
}

/// Moves bytes, and looks at everything that holds them on their way.
fn carry(pair: &mut Pair) {
    for _ in 0..3 {
        let (mut to_server, mut to_client) = (Transmit::new(), Transmit::new());
        assert_silent(&pair.client, "the client before it sends");
        pair.client.poll_transmit(pair.now, &mut to_server);
        assert_silent(&to_server, "what the client hands out");
        assert_silent(&pair.client, "the client behind it");
        assert_silent(&pair.server, "the server before it sends");
        pair.server.poll_transmit(pair.now, &mut to_client);
        assert_silent(&to_client, "what the server hands out");
        for (segments, connection) in [
            (&mut to_server, &mut pair.server as &mut dyn Endpoint),
            (&mut to_client, &mut pair.client),
        ] {
            let mut input: BytesMut = segments.take_segments().flatten().collect();
            connection.handle_input(pair.now, &mut input);
        }
        assert_silent(&pair.client, "the client that was reported");
        assert_silent(&pair.server, "the server that was reported");
    }
}

#[test]
fn secrets_never_show() {
    for offered in ["PLAIN", "AMQPLAIN", "PLAIN AMQPLAIN"] {
        let config = client::Config {
            mechanisms: mechanisms(),
            ..client::Config::default()
        };
        assert_silent(&config, "the configuration");
        let mut pair = Pair::new(
            config,
            server::Config {
                mechanisms: offered.into(),
                ..server::Config::default()
            },
        );
        carry(&mut pair);
        let events = pair.take_server_events();
        assert_silent(&events, "the server's event");
        let [server::Event::Authenticate(request)] = &events[..] else {
            panic!("{events:?}");
        };
        let secret = PASSWORD.as_bytes();
        assert!(request.response.expose().ends_with(secret));

        pair.server.challenge(RENEWED).unwrap();
        pair.server.accept().unwrap_err();
        pair.shake_hands_with(|server| server.refuse("enough").unwrap());
        assert_silent(&pair.take_client_events(), "the client's events");
    }
}

#[test]
fn renewed_secrets_never_show() {
    let mut pair = Pair::open();
    let secret = Secret::from(RENEWED);
    assert_silent(&secret, "the secret");
    pair.client.update_secret(secret, name("expires")).unwrap();
    carry(&mut pair);
    let events = pair.take_server_events();
    assert_silent(&events, "the server's event");
    let [server::Event::SecretUpdated { secret, reason }] = &events[..] else {
        panic!("{events:?}");
    };
    assert_eq!(secret.expose(), RENEWED.as_bytes());
    assert_eq!(*reason, "expires");
    let events = pair.take_client_events();
    assert!(
        matches!(
            &events[..],
            [Event::Reply {
                channel: None,
                reply: Method::ConnectionUpdateSecretOk(_),
                ..
            }]
        ),
        "{events:?}"
    );
}

fn update(client: &mut Script<client::Connection>) -> crate::RequestId {
    let secret = Secret::from(RENEWED);
    client.conn.update_secret(secret, name("expires")).unwrap()
}

fn updated(request: crate::RequestId) -> Event {
    Event::Reply {
        channel: None,
        request,
        reply: connection::UpdateSecretOk.into(),
    }
}

#[test]
fn a_secret_is_renewed() {
    let mut client = Script::open();
    let (first, second) = (update(&mut client), update(&mut client));
    let reported = connection::UpdateSecret {
        new_secret: RENEWED.into(),
        reason: name("expires"),
    };
    assert_eq!(
        client.sent(),
        [method(0, reported.clone()), method(0, reported)]
    );
    client.send(0, &connection::UpdateSecretOk);
    assert_eq!(client.events(), [updated(first)]);
    client.send(0, &connection::UpdateSecretOk);
    assert_eq!(client.events(), [updated(second)]);
    // And another one is unexpected.
    client.send(0, &connection::UpdateSecretOk);
    let event = client.only_event();
    assert!(
        matches!(&event, Event::Closed(reason) if reason.code() == Some(ReplyCode::COMMAND_INVALID)),
        "{event:?}"
    );
}

#[test]
fn a_refused_secret_ends_the_connection_and_says_why() {
    let mut client = Script::open();
    let id = client.channel();
    let request = update(&mut client);
    client.bytes();
    let text = "NOT_ALLOWED - New secret was refused by one of the backends";
    client.send(
        0,
        &connection::Close {
            reply_code: ReplyCode::NOT_ALLOWED,
            reply_text: name(text),
            class_id: 10,
            method_id: 70,
        },
    );
    let [
        Event::Failed {
            request: failed,
            cause,
        },
        Event::Closed(reason),
    ] = &client.events()[..]
    else {
        panic!("no event of it");
    };
    assert_eq!(*failed, request);
    assert_eq!(*cause, RequestError::ConnectionClosed(reason.clone()));
    let close = reason.by_peer().unwrap();
    assert_eq!(
        (close.code, &close.text[..]),
        (ReplyCode::NOT_ALLOWED, text)
    );
    assert_eq!(
        close.method.unwrap().name(),
        Some("connection.update-secret")
    );
    assert!(client.conn.channel(id).is_none());
    assert_eq!(client.sent(), [method(0, connection::CloseOk)]);
}

#[test]
fn a_consumer_that_may_no_longer_read_is_cancelled() {
    let mut client = Script::open();
    let id = client.channel();
    let consumer = client.consumer(id, "ctag", false);
    let request = update(&mut client);
    client.bytes();
    client.send(
        id.number(),
        &basic::Cancel {
            consumer_tag: name("ctag"),
            no_wait: true,
        },
    );
    client.send(0, &connection::UpdateSecretOk);
    assert_eq!(
        client.events(),
        [
            Event::ConsumerCancelled {
                channel: id,
                consumer,
                tag: name("ctag")
            },
            updated(request),
        ]
    );
    assert_eq!(client.sent(), []);
}

#[test]
fn a_secret_that_does_not_fit_is_not_sent() {
    let mut client = Script::open();
    let secret = Secret::from(vec![b'x'; 131_072]);
    let error = client.conn.update_secret(secret, name("")).unwrap_err();
    assert!(matches!(error, ApiMisuse::FrameTooLarge { .. }), "{error}");
    let reason = "r".repeat(256);
    let error = client.conn.update_secret("x".into(), reason).unwrap_err();
    assert!(matches!(error, ApiMisuse::TextTooLong { .. }), "{error}");
    assert_eq!(client.sent(), []);
    client.conn.close(ReplyCode::SUCCESS, "");
    let error = client.conn.update_secret("x".into(), name("")).unwrap_err();
    assert_eq!(error, ApiMisuse::ConnectionNotOpen);
}

#[test]
fn a_renewal_without_an_answer_times_out_once() {
    let mut client = Script::open();
    let request = update(&mut client);
    client.bytes();
    let calls = client.advance(Duration::from_secs(30));
    assert_eq!(calls.last().unwrap().1, TimeoutReason::Request);
    let cause = RequestError::TimedOut {
        request: MethodId::new(10, 70),
        channel: None,
    };
    assert_eq!(client.events(), [Event::Failed { request, cause }]);
    assert_eq!(client.conn.poll_timeout(), None);
    // The late answer is not that of the next one.
    let next = update(&mut client);
    client.send(0, &connection::UpdateSecretOk);
    assert_eq!(client.events(), []);
    client.send(0, &connection::UpdateSecretOk);
    assert_eq!(client.events(), [updated(next)]);
    assert_eq!(client.conn.poll_timeout(), None);
    // One that was settled is not settled again when the connection ends.
    let late = update(&mut client);
    client.advance(Duration::from_secs(30));
    assert_eq!(client.events().len(), 1);
    client.conn.handle_eof(client.now);
    let events = client.events();
    assert!(
        matches!(&events[..], [Event::Closed(reason)] if matches!(reason.cause(), CloseCause::Eof { .. })),
        "{late:?} {events:?}"
    );
}

/// A new secret is wanted once, when it is time, and not on a connection that is closing.
#[test]
fn a_secret_is_renewed_in_time() {
    const HOUR: Duration = Duration::from_secs(3600);
    let mut client = Script::<client::Connection>::open_with(client::Config {
        heartbeat: Some(0),
        ..client::Config::default()
    });
    client.conn.set_secret_deadline(Some(HOUR * 2));
    client.conn.set_secret_deadline(Some(HOUR)); // in place of it
    let due = client.now + HOUR;
    let fired = client.advance(HOUR);
    assert_eq!(fired.last(), Some(&(due, TimeoutReason::Secret)));
    assert_eq!(client.events(), [Event::SecretDue]);
    assert_eq!(client.advance(HOUR), []);
    assert_eq!(client.events(), []);

    client.conn.set_secret_deadline(Some(HOUR));
    client.conn.set_secret_deadline(None);
    assert_eq!(client.conn.poll_timeout(), None);

    client.conn.set_secret_deadline(Some(HOUR / 3600));
    client.conn.close(ReplyCode::SUCCESS, "");
    client.conn.set_secret_deadline(Some(HOUR / 3600)); // which comes to nothing
    let fired = client.advance(HOUR);
    assert!(
        fired
            .iter()
            .all(|(_, reason)| *reason != TimeoutReason::Secret)
    );
}
