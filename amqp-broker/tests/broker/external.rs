//! EXTERNAL: the login as the user that the transport has identified.

use amqp_broker::{Broker, Config, Permissions, User};
use amqp_core::{
    CloseCause, Instant, client,
    sasl::{AmqPlain, External, Mechanism, Plain},
};

use bytes::BytesMut;

use crate::rig::{Rig, refused};

/// The reply to an unknown user.
const REFUSAL: &str = "ACCESS_REFUSED - Login was refused using authentication mechanism EXTERNAL. \
                       For details see the broker logfile.";

fn with(mechanism: impl Mechanism + 'static) -> client::Config {
    client::Config::default().mechanisms(vec![Box::new(mechanism)])
}

/// The user of a connection.
fn user(rig: &Rig, client: usize) -> String {
    let key = rig.key(client);
    let connections = rig.broker.inspect().connections;
    let own = connections.into_iter().find(|it| it.key == key);
    own.unwrap().user
}

#[test]
fn the_user_of_the_transport_is_let_in() {
    let somebody = User::new("CN=somebody,O=Example", "unused").may("/", Permissions::all());
    let mut config = Config::default();
    config.users.push(somebody);
    let mut rig = Rig::with(config);
    for name in ["guest", "CN=somebody,O=Example"] {
        // The authorisation identity of the client does not count.
        for mechanism in [External::new(), External::on_behalf_of("nobody")] {
            let client = rig.begin_secured(with(mechanism), Some(name));
            assert!(rig.client(client).is_open());
            assert_eq!(user(&rig, client), name);
        }
    }
}

#[test]
fn an_unknown_user_is_refused() {
    let mut rig = Rig::new();
    for name in [None, Some(""), Some("nobody"), Some("CN=guest")] {
        let client = rig.begin_secured(with(External::new()), name);
        assert_eq!(rig.closed(client), Some(refused(403, REFUSAL)), "{name:?}");
        assert_eq!(user(&rig, client), "");
    }
}

#[test]
fn a_password_counts_beside_it() {
    let mut rig = Rig::new();
    for name in [None, Some("nobody")] {
        let plain = Plain::new("guest", "guest").unwrap();
        let client = rig.begin_secured(with(plain), name);
        assert_eq!(user(&rig, client), "guest");
        let plain = Plain::new("guest", "wrong").unwrap();
        let client = rig.begin_secured(with(plain), Some("guest"));
        assert_eq!(rig.closed(client).unwrap().0, 403);
    }
}

#[test]
fn it_is_offered_where_the_transport_is_secured_and_the_configuration_has_it() {
    for (configured, secured, offered) in [
        ("PLAIN AMQPLAIN EXTERNAL", false, "PLAIN AMQPLAIN"),
        ("PLAIN AMQPLAIN EXTERNAL", true, "PLAIN AMQPLAIN EXTERNAL"),
        ("EXTERNAL PLAIN", false, "PLAIN"),
        ("EXTERNAL PLAIN", true, "EXTERNAL PLAIN"),
        ("PLAIN", true, "PLAIN"),
    ] {
        let mut config = Config::default();
        config.server.mechanisms = configured.into();
        let mut rig = Rig::with(config);
        let asking = with(Unheard);
        let client = if secured {
            rig.begin_secured(asking, Some("guest"))
        } else {
            rig.begin(asking)
        };
        let reason = rig.client(client).close_reason().unwrap();
        let CloseCause::NoCommonMechanism { offered: reported } = reason.cause() else {
            panic!("{reason}");
        };
        assert_eq!(&**reported, offered);
    }
}

/// The login does not depend on the client's response.
#[test]
fn a_mechanism_that_is_not_offered_is_refused() {
    const PLAIN: (&str, &[u8]) = ("PLAIN", b"\0guest\0guest");
    const EXTERNAL: (&str, &[u8]) = ("EXTERNAL", b"");
    let amqplain = AmqPlain::new("guest", "guest").initial_response();
    let amqplain = ("AMQPLAIN", amqplain.expose());
    for (offered, secured, asked, let_in) in [
        ("EXTERNAL", true, PLAIN, false),
        ("EXTERNAL", true, amqplain, false),
        ("EXTERNAL", true, EXTERNAL, true),
        ("EXTERNAL", false, PLAIN, false),
        ("EXTERNAL", false, EXTERNAL, false),
        ("AMQPLAIN", false, PLAIN, false),
        ("AMQPLAIN", false, amqplain, true),
        ("PLAIN", false, amqplain, false),
        ("PLAIN", true, EXTERNAL, false),
        ("PLAIN", true, PLAIN, true),
    ] {
        let mut config = Config::default();
        config.server.mechanisms = offered.into();
        let mut broker = Broker::new(config).unwrap();
        let now = Instant::ORIGIN;
        let key = broker.accept(now).unwrap();
        if secured {
            broker.handle_secured(key, Some("guest".into()));
        }
        let mut input = BytesMut::from(&b"AMQP\0\0\x09\x01"[..]);
        broker.handle_input(key, now, &mut input);
        input.extend_from_slice(&start_ok(asked.0, asked.1));
        broker.handle_input(key, now, &mut input);
        let connections = broker.inspect().connections;
        let user = connections.first().map_or("", |it| &it.user);
        assert_eq!(user == "guest", let_in, "{offered}, {secured}, {}", asked.0);
    }
}

/// The frame of a `connection.start-ok`.
fn start_ok(mechanism: &str, response: &[u8]) -> Vec<u8> {
    let length = |length: usize| u32::try_from(length).unwrap().to_be_bytes();
    let short = |text: &str| [&[u8::try_from(text.len()).unwrap()], text.as_bytes()].concat();
    let payload = [
        &b"\0\x0a\0\x0b\0\0\0\0"[..],
        &short(mechanism),
        &length(response.len()),
        response,
        &short("en_US"),
    ]
    .concat();
    let head = [&b"\x01\0\0"[..], &length(payload.len())].concat();
    [head, payload, vec![0xce]].concat()
}

/// The permissions of a user with a certificate.
#[test]
fn an_empty_password_is_refused() {
    let mut config = Config::default();
    config
        .users
        .push(User::new("somebody", "").may("/", Permissions::all()));
    let mut rig = Rig::with(config);
    for asking in [
        with(Plain::new("somebody", "").unwrap()),
        with(AmqPlain::new("somebody", "")),
    ] {
        let client = rig.begin(asking);
        assert_eq!(rig.closed(client).unwrap().0, 403);
    }
    let client = rig.begin_secured(with(External::new()), Some("somebody"));
    assert_eq!(user(&rig, client), "somebody");
}

/// A mechanism that no server has.
#[derive(Clone, Debug)]
struct Unheard;

impl Mechanism for Unheard {
    fn name(&self) -> &str {
        "UNHEARD"
    }

    fn initial_response(&mut self) -> amqp_core::wire::Secret {
        amqp_core::wire::Secret::default()
    }

    fn boxed(&self) -> Box<dyn Mechanism> {
        Box::new(self.clone())
    }
}

#[test]
fn a_transport_that_is_secured_too_late_changes_nothing() {
    let mut rig = Rig::new();
    let client = rig.connect();
    let key = rig.key(client);
    rig.broker.handle_secured(key, Some("nobody".into()));
    assert!(rig.client(client).is_open());
    assert_eq!(user(&rig, client), "guest");
}
