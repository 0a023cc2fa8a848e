//! Users, virtual hosts, permissions, policies and limits that were changed at run time, after a
//! restart.

use amqp_broker::{
    AdminError, Broker, Config, Permissions, Policy, TopicPermissions, User, UserLimits,
    VhostLimits,
};

use crate::{
    restarts::{WAYS, Way, changes, journaled},
    rig::{Rig, exchange, queue_with},
    streams::stream,
};

type Outcome = Result<(), AdminError>;

impl Rig {
    /// Returns whether a user can log in.
    fn logs_in(&mut self, user: &str, password: &str, vhost: &str) -> bool {
        let client = self.begin_as(user, password, vhost);
        self.client(client).is_open()
    }
}

/// Makes a change of each kind, with others that are undone.
fn administer(broker: &mut Broker) -> Outcome {
    let mut admin = broker.admin();
    for name in ["staging", "gone"] {
        admin.add_vhost(name)?;
        admin.set_vhost_limits(name, VhostLimits::default().max_connections(9))?;
    }
    for name in ["anna", "bob"] {
        admin.add_user(User::new(name, "secret").may("/", Permissions::all()))?;
        for vhost in ["staging", "gone"] {
            admin.set_permissions(name, vhost, Permissions::new("^a", ".*", "b")?)?;
            let topics = TopicPermissions::new(r"^{username}\.", ".*")?;
            admin.set_topic_permissions(name, vhost, "amq.topic", &topics)?;
        }
    }
    admin.change_password("anna", "changed")?;
    admin.set_user_tags("anna", ["monitoring"])?;
    admin.set_user_limits("anna", UserLimits::default().max_channels(3))?;
    admin.clear_permissions("anna", "/")?;
    admin.set_permissions("guest", "staging", Permissions::all())?;
    admin.set_policy("gone", Policy::new("p", "")?.with("max-length", 1))?;
    admin.set_policy("/", Policy::new("cleared", "")?.with("max-length", 1))?;
    admin.clear_policy("/", "cleared")?;
    let long = Policy::new("p", "^q$")?.with("max-length", 9).priority(-3);
    admin.set_policy("/", long)?;
    let short = Policy::new("p", "^q$")?.with("max-length", 3);
    admin.set_operator_policy("/", short)?;
    admin.delete_vhost("gone")?;
    admin.delete_user("bob")
}

#[test]
fn changes_at_run_time_are_kept() {
    for way in WAYS {
        let mut rig = journaled();
        administer(&mut rig.broker).unwrap();
        let users = rig.broker.list_users();
        let vhosts = rig.broker.inspect().vhosts;
        rig.come_back(way);
        assert_eq!(rig.broker.list_users(), users, "{way:?}");
        assert_eq!(rig.broker.inspect().vhosts, vhosts, "{way:?}");
        assert!(rig.logs_in("anna", "changed", "staging"), "{way:?}");
        assert!(!rig.logs_in("anna", "secret", "staging"), "{way:?}");
        assert!(!rig.logs_in("anna", "changed", "/"), "{way:?}");
        assert!(!rig.logs_in("bob", "secret", "/"), "{way:?}");
        assert!(rig.logs_in("guest", "guest", "staging"), "{way:?}");
        assert!(!rig.logs_in("guest", "guest", "gone"), "{way:?}");
    }
}

#[test]
fn a_policy_applies_to_the_entities_that_come_back() {
    for way in WAYS {
        let mut rig = journaled();
        let client = rig.connect();
        let channel = rig.channel(client);
        rig.declare(client, channel, &queue_with("q", []));
        rig.declare(client, channel, &stream("s", []));
        let mut lost = exchange("e", "fanout");
        lost.durable = true;
        rig.call(client, channel, &lost).unwrap();
        let mut admin = rig.broker.admin();
        let of_streams = Policy::new("s", "^s$").unwrap();
        let of_streams = of_streams
            .with("max-length-bytes", 500)
            .with("stream-max-segment-size-bytes", 300);
        let of_queues = Policy::new("q", "^q$").unwrap().with("max-length", 2);
        let of_exchanges = Policy::new("e", "^e$").unwrap();
        let of_exchanges = of_exchanges.with("alternate-exchange", "amq.fanout");
        for policy in [of_streams, of_queues, of_exchanges] {
            admin.set_policy("/", policy).unwrap();
        }
        let before = rig.broker.inspect().vhosts;
        let (client, channel) = rig.come_back(way);
        assert_eq!(rig.broker.inspect().vhosts, before, "{way:?}");
        for _ in 0..9 {
            rig.publish(client, channel, "q", "m");
            rig.publish(client, channel, "s", &"x".repeat(100));
        }
        assert_eq!(rig.inspect("q").ready, 2, "{way:?}");
        assert!(rig.inspect("s").ready < 6, "{way:?}");
    }
}

#[test]
fn a_change_at_run_time_precedes_the_configuration() {
    let mut rig = journaled();
    let mut admin = rig.broker.admin();
    admin.change_password("guest", "changed").unwrap();
    let so_far = changes(&mut rig.broker);
    let again = Config::default().users([
        User::new("guest", "other").may("/", Permissions::all()),
        User::new("new", "new").may("/", Permissions::all()),
    ]);
    rig.broker = Broker::restore(again, rig.now, so_far).unwrap();
    assert!(rig.logs_in("guest", "changed", "/"));
    assert!(!rig.logs_in("guest", "other", "/"));
    assert!(rig.logs_in("new", "new", "/"));
}

#[test]
fn what_was_not_changed_is_as_in_the_configuration() {
    let mut rig = journaled();
    let taken = rig.broker.snapshot();
    let again = Config::default().users([User::new("guest", "other")]);
    rig.broker = Broker::restore(again, rig.now, taken).unwrap();
    let users = rig.broker.list_users();
    assert!(users.len() == 1 && users[0].permissions.is_empty());
}

#[test]
fn a_deleted_user_or_vhost_of_the_configuration_is_added_again() {
    for way in WAYS {
        let config = || Config::default().vhosts(["/".to_owned(), "b".to_owned()]);
        let config = || {
            let both = User::new("both", "b").may("b", Permissions::all());
            let guest = User::new("guest", "guest").may("/", Permissions::all());
            config().users([both, guest]).journal(true)
        };
        let mut rig = Rig::with(config());
        let mut admin = rig.broker.admin();
        admin.delete_user("both").unwrap();
        admin.delete_vhost("b").unwrap();
        rig.come_back_with(way, config());
        let is_new = way != Way::InPlace;
        assert_eq!(rig.logs_in("both", "b", "b"), is_new, "{way:?}");
    }
}

#[cfg(feature = "definitions")]
#[test]
fn imported_definitions_are_kept() {
    use amqp_broker::definitions::Definitions;

    for way in WAYS {
        let mut rig = journaled();
        let text = include_str!("../definitions/http.json");
        let definitions = Definitions::from_json(text).unwrap();
        rig.broker.apply(&definitions).unwrap();
        let before = rig.broker.definitions();
        rig.come_back(way);
        let mut after = rig.broker.definitions();
        // The salts of passwords that are plain differ.
        for (user, old) in after.users.iter_mut().zip(&before.users) {
            if user.name == "guest" {
                user.password = old.password.clone();
            }
        }
        assert_eq!(after, before, "{way:?}");
    }
}

#[cfg(feature = "definitions")]
#[test]
fn a_changed_password_is_recorded_as_its_hash() {
    use amqp_broker::{Change, Password};

    let mut rig = journaled();
    let mut admin = rig.broker.admin();
    admin.add_user(User::new("anna", "secret")).unwrap();
    let changes = changes(&mut rig.broker);
    let [Change::UserSet(user)] = &changes[..] else {
        panic!("{changes:?}");
    };
    assert!(matches!(user.password(), Password::Hash(_)));
}
