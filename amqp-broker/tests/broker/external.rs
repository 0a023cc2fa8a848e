//! Logging in as whom the transport says the client is.

use amqp_broker::{Config, Permissions, User};
use amqp_core::{
    CloseCause, client,
    sasl::{External, Mechanism, Plain},
};

use crate::rig::{Rig, refused};

/// What is answered to somebody who is not known.
const REFUSAL: &str = "ACCESS_REFUSED - Login was refused using authentication mechanism EXTERNAL. \
                       For details see the broker logfile.";

fn with(mechanism: impl Mechanism + 'static) -> client::Config {
    client::Config {
        mechanisms: vec![Box::new(mechanism)],
        ..client::Config::default()
    }
}

/// Who is logged in.
fn user(rig: &Rig, client: usize) -> String {
    let key = rig.key(client);
    let connections = rig.broker.inspect().connections;
    let own = connections.into_iter().find(|it| it.key == key);
    own.unwrap().user
}

#[test]
fn whom_the_transport_vouches_for_is_let_in() {
    let somebody = User::new("CN=somebody,O=Example", "unused").may("/", Permissions::all());
    let mut config = Config::default();
    config.users.push(somebody);
    let mut rig = Rig::with(config);
    for name in ["guest", "CN=somebody,O=Example"] {
        // Whom the client would rather be does not count.
        for mechanism in [External::new(), External::on_behalf_of("nobody")] {
            let client = rig.begin_secured(with(mechanism), Some(name));
            assert!(rig.client(client).is_open());
            assert_eq!(user(&rig, client), name);
        }
    }
}

#[test]
fn who_is_not_known_is_refused() {
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
        let CloseCause::NoCommonMechanism { offered: told } = reason.cause() else {
            panic!("{reason}");
        };
        assert_eq!(&**told, offered);
    }
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
