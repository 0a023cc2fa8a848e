//! Users, virtual hosts, permissions, limits and connections that change at run time. The texts are
//! those of RabbitMQ 3.10.8.

use amqp_broker::{
    AdminError, Config, Permissions, TopicPermissions, User, UserLimits, VhostLimits,
};
use amqp_core::{
    client::Event,
    protocol::{basic::Properties, exchange, queue},
};

use crate::rig::{Refused, Rig, bind, consumer, name, passive, queue, refused};

/// A broker with the user `u1` and the virtual host `m`, to which both users have access.
fn rig() -> Rig {
    let mut rig = Rig::with(Config::default().vhosts(["/".into(), "m".into()]));
    let mut admin = rig.broker.admin();
    admin.add_user(User::new("u1", "p")).unwrap();
    for user in ["guest", "u1"] {
        admin
            .set_permissions(user, "m", Permissions::all())
            .unwrap();
    }
    rig
}

fn forced(reason: &str) -> Refused {
    refused(320, &format!("CONNECTION_FORCED - {reason}"))
}

#[test]
fn a_user_can_be_added_changed_and_deleted() {
    let mut rig = rig();
    let client = rig.begin_as("u1", "p", "m");
    assert!(rig.client(client).is_open());
    rig.broker.admin().change_password("u1", "q").unwrap();
    rig.exchange();
    assert!(rig.client(client).is_open());
    for (password, can) in [("p", false), ("q", true), ("", false)] {
        let other = rig.begin_as("u1", password, "m");
        assert_eq!(rig.client(other).is_open(), can, "{password:?}");
    }
    rig.broker.admin().delete_user("u1").unwrap();
    rig.exchange();
    assert_eq!(rig.closed(client), Some(forced("user 'u1' is deleted")));
    let other = rig.begin_as("u1", "q", "m");
    assert!(!rig.client(other).is_open());
}

#[test]
fn a_user_without_a_password_cannot_log_in_with_one() {
    let mut rig = rig();
    rig.broker.admin().change_password("u1", "").unwrap();
    let client = rig.begin_as("u1", "", "m");
    assert!(!rig.client(client).is_open());
    let u1 = &rig.broker.list_users()[1];
    assert_eq!((u1.name.as_str(), u1.has_password), ("u1", false));
}

#[cfg(feature = "definitions")]
#[test]
fn the_hash_of_a_password_is_enough() {
    use amqp_broker::definitions::{HashingAlgorithm, PasswordHash};

    let mut rig = rig();
    for (name, algorithm) in [
        ("a", HashingAlgorithm::Sha256),
        ("b", HashingAlgorithm::Sha512),
    ] {
        let hash = PasswordHash::new(algorithm, [1, 2, 3, 4], b"secret");
        let read = PasswordHash::from_base64(algorithm, &hash.to_base64());
        assert_eq!(read.as_ref(), Some(&hash));
        let user = User::with_hash(name, hash).may("m", Permissions::all());
        rig.broker.admin().add_user(user).unwrap();
        for (password, can) in [("secret", true), ("Secret", false), ("", false)] {
            let client = rig.begin_as(name, password, "m");
            assert_eq!(rig.client(client).is_open(), can, "{name} {password:?}");
        }
    }
}

#[test]
fn unknown_names_are_refused_and_change_nothing() {
    let mut rig = rig();
    let before = rig.broker.inspect();
    let mut admin = rig.broker.admin();
    let user = AdminError::NoUser("zz".into());
    let vhost = AdminError::NoVhost("zz".into());
    let all = Permissions::all;
    let topics = TopicPermissions::new(".*", ".*").unwrap();
    assert_eq!(
        admin.add_user(User::new("u1", "x")),
        Err(AdminError::UserExists("u1".into()))
    );
    assert_eq!(
        admin.add_user(User::new("u2", "x").may("zz", all())),
        Err(vhost.clone())
    );
    assert_eq!(admin.delete_user("zz"), Err(user.clone()));
    assert_eq!(admin.change_password("zz", "x"), Err(user.clone()));
    assert_eq!(admin.set_user_tags("zz", ["x"]), Err(user.clone()));
    assert_eq!(admin.set_permissions("zz", "m", all()), Err(user.clone()));
    assert_eq!(admin.set_permissions("u1", "zz", all()), Err(vhost.clone()));
    assert_eq!(admin.clear_permissions("u1", "zz"), Err(vhost.clone()));
    assert_eq!(
        admin.set_topic_permissions("u1", "zz", "amq.topic", &topics),
        Err(vhost.clone())
    );
    assert_eq!(
        admin.clear_topic_permissions("zz", "m", None),
        Err(user.clone())
    );
    assert_eq!(
        admin.set_user_limits("zz", UserLimits::default()),
        Err(user.clone())
    );
    assert_eq!(
        admin.set_vhost_limits("zz", VhostLimits::default()),
        Err(vhost.clone())
    );
    assert_eq!(
        admin.add_vhost("m"),
        Err(AdminError::VhostExists("m".into()))
    );
    assert_eq!(admin.delete_vhost("zz"), Err(vhost));
    assert_eq!(user.to_string(), "user \"zz\" does not exist");
    assert_eq!(rig.broker.inspect(), before);
}

#[test]
fn a_deleted_vhost_cancels_its_consumers_and_closes_its_connections() {
    let mut rig = rig();
    let elsewhere = rig.connect();
    let client = rig.begin_as("guest", "guest", "m");
    let channel = rig.channel(client);
    rig.declare(client, channel, &queue("q"));
    rig.consume(client, channel, consumer("q", "c")).unwrap();
    rig.events(client);
    rig.broker.admin().delete_vhost("m").unwrap();
    rig.exchange();
    assert_eq!(rig.closed(client), Some(forced("vhost 'm' is deleted")));
    let events = rig.events(client);
    let is_cancel = |event: &Event| matches!(event, Event::ConsumerCancelled { .. });
    assert!(events.iter().any(is_cancel), "{events:?}");
    assert!(rig.client(elsewhere).is_open());
    let other = rig.begin_as("guest", "guest", "m");
    let text = "NOT_ALLOWED - vhost m not found";
    assert_eq!(rig.closed(other), Some(refused(530, text)));

    // One of the same name is another one: without queues, and without permissions.
    rig.broker.admin().add_vhost("m").unwrap();
    let other = rig.begin_as("guest", "guest", "m");
    let text = "NOT_ALLOWED - access to vhost 'm' refused for user 'guest'";
    assert_eq!(rig.closed(other), Some(refused(530, text)));
    let mut admin = rig.broker.admin();
    admin
        .set_permissions("guest", "m", Permissions::all())
        .unwrap();
    let other = rig.begin_as("guest", "guest", "m");
    assert!(rig.try_call(other, &passive("q")).is_err());
}

#[test]
fn a_deleted_queue_cancels_its_consumers() {
    let mut rig = rig();
    let client = rig.connect();
    let channel = rig.channel(client);
    for name in ["q", "other"] {
        rig.declare(client, channel, &queue(name));
    }
    rig.publish(client, channel, "q", "1");
    rig.publish(client, channel, "other", "2");
    rig.consume(client, channel, consumer("other", "c"))
        .unwrap();
    rig.events(client);
    assert_eq!(rig.broker.admin().delete_queue("/", "q"), Ok(1));
    assert_eq!(rig.broker.admin().delete_queue("/", "other"), Ok(0));
    rig.exchange();
    let events = rig.events(client);
    let is_cancel = |event: &Event| matches!(event, Event::ConsumerCancelled { .. });
    assert!(events.iter().any(is_cancel), "{events:?}");
    assert!(rig.broker.inspect().vhosts[0].queues.is_empty());
    for (vhost, text) in [
        ("/", r#"queue "q" does not exist in virtual host "/""#),
        ("n", r#"virtual host "n" does not exist"#),
    ] {
        let refused = rig.broker.admin().delete_queue(vhost, "q").unwrap_err();
        assert_eq!(refused.to_string(), text);
    }
}

#[test]
fn permissions_concern_the_next_request_of_an_open_channel() {
    let mut rig = rig();
    let client = rig.begin_as("u1", "p", "m");
    rig.try_call(client, &queue("a")).unwrap();
    let text = "ACCESS_REFUSED - access to queue 'b' in vhost 'm' refused for user 'u1'";
    let only_a = Permissions::new("^a", "", "").unwrap();
    rig.broker
        .admin()
        .set_permissions("u1", "m", only_a)
        .unwrap();
    assert!(rig.try_call(client, &queue("a")).is_ok());
    assert_eq!(rig.try_call(client, &queue("b")), Err(refused(403, text)));
    rig.broker.admin().clear_permissions("u1", "m").unwrap();
    assert_eq!(rig.try_call(client, &queue("b")), Err(refused(403, text)));
    assert!(rig.client(client).is_open());
    let other = rig.begin_as("u1", "p", "m");
    let text = "NOT_ALLOWED - access to vhost 'm' refused for user 'u1'";
    assert_eq!(rig.closed(other), Some(refused(530, text)));
}

#[test]
fn topic_permissions_are_those_of_rabbitmq() {
    let mut rig = rig();
    let topics = |write: &str, read: &str| TopicPermissions::new(write, read).unwrap();
    let set = |rig: &mut Rig, write: &str, read: &str| {
        let mut admin = rig.broker.admin();
        admin
            .set_topic_permissions("u1", "m", "amq.topic", &topics(write, read))
            .unwrap();
    };
    set(&mut rig, "^{username}[.]{client_id}$|^ok|^{vhost}$", "^r");
    let client = rig.begin_as("u1", "p", "m");
    rig.try_call(client, &queue("q")).unwrap();
    let publish = |rig: &mut Rig, exchange: &str, key: &str| {
        let channel = rig.channel(client);
        rig.events(client);
        rig.publish_to(client, channel, exchange, key, &Properties::default(), "x");
        rig.channel_closed(client)
    };
    let refusal = |key: &str| {
        let text = format!(
            "ACCESS_REFUSED - access to topic '{key}' in exchange 'amq.topic' in vhost 'm' refused \
             for user 'u1'"
        );
        refused(403, &text)
    };
    for key in ["u1.{client_id}", "m", "ok.1"] {
        assert_eq!(publish(&mut rig, "amq.topic", key), None);
    }
    for key in ["", "bad", "u1.x", "{vhost}"] {
        assert_eq!(publish(&mut rig, "amq.topic", key), Some(refusal(key)));
    }
    assert_eq!(publish(&mut rig, "amq.direct", "bad"), None);

    assert!(rig.try_call(client, &bind("q", "amq.topic", "r.1")).is_ok());
    let x = Err(refusal("x.1"));
    assert_eq!(rig.try_call(client, &bind("q", "amq.topic", "x.1")), x);
    assert_eq!(rig.try_call(client, &bind("none", "amq.topic", "x.1")), x);
    let unbind = queue::Unbind {
        queue: name("q"),
        exchange: name("amq.topic"),
        routing_key: name("x.1"),
        ..queue::Unbind::default()
    };
    assert_eq!(rig.try_call(client, &unbind), x);
    let between = exchange::Bind {
        destination: name("amq.fanout"),
        source: name("amq.topic"),
        routing_key: name("x.1"),
        ..exchange::Bind::default()
    };
    assert_eq!(rig.try_call(client, &between), x);

    set(&mut rig, "", "^$");
    assert_eq!(publish(&mut rig, "amq.topic", ""), None);
    assert_eq!(publish(&mut rig, "amq.topic", "x"), Some(refusal("x")));
    let mut admin = rig.broker.admin();
    admin
        .clear_topic_permissions("u1", "m", Some("other"))
        .unwrap();
    assert_eq!(publish(&mut rig, "amq.topic", "x"), Some(refusal("x")));
    let mut admin = rig.broker.admin();
    admin
        .clear_topic_permissions("u1", "m", Some("amq.topic"))
        .unwrap();
    assert_eq!(publish(&mut rig, "amq.topic", "x"), None);
}

#[test]
fn an_impersonator_may_claim_any_user_id() {
    let mut rig = rig();
    let claim = Properties {
        user_id: Some(name("guest")),
        ..Properties::default()
    };
    let publish = |rig: &mut Rig| {
        let client = rig.begin_as("u1", "p", "m");
        let channel = rig.channel(client);
        rig.publish_to(client, channel, "", "q", &claim, "x");
        rig.channel_closed(client)
    };
    let text = "PRECONDITION_FAILED - user_id property set to 'guest' but authenticated user was \
                'u1'";
    assert_eq!(publish(&mut rig), Some(refused(406, text)));
    rig.broker
        .admin()
        .set_user_tags("u1", ["impersonator"])
        .unwrap();
    assert_eq!(publish(&mut rig), None);
}

#[test]
fn the_limits_of_a_vhost_are_kept_to() {
    let mut rig = rig();
    let limit = |rig: &mut Rig, limits| {
        rig.broker.admin().set_vhost_limits("m", limits).unwrap();
    };
    let first = rig.begin_as("u1", "p", "m");
    limit(&mut rig, VhostLimits::default().max_connections(1));
    let text = "NOT_ALLOWED - access to vhost 'm' refused for user 'guest': connection limit (1) \
                is reached";
    let second = rig.begin_as("guest", "guest", "m");
    assert_eq!(rig.closed(second), Some(refused(530, text)));
    assert!(rig.client(first).is_open());
    rig.close(first);
    let third = rig.begin_as("guest", "guest", "m");
    assert!(rig.client(third).is_open());

    limit(&mut rig, VhostLimits::default().max_queues(1));
    rig.try_call(third, &queue("l1")).unwrap();
    rig.try_call(third, &queue("l1")).unwrap();
    let text = "PRECONDITION_FAILED - cannot declare queue 'l2': queue limit in vhost 'm' (1) is \
                reached";
    assert_eq!(rig.try_call(third, &queue("l2")), Err(refused(406, text)));
    rig.try_call(third, &crate::rig::delete("l1")).unwrap();
    rig.try_call(third, &queue("l2")).unwrap();
    limit(&mut rig, VhostLimits::default());
    rig.try_call(third, &queue("l3")).unwrap();
}

#[test]
fn the_limits_of_a_user_are_kept_to() {
    let mut rig = rig();
    let limit = |rig: &mut Rig, limits| {
        rig.broker.admin().set_user_limits("u1", limits).unwrap();
    };
    limit(&mut rig, UserLimits::default().max_connections(1));
    let first = rig.begin_as("u1", "p", "m");
    let text = "NOT_ALLOWED - connection refused for user 'u1': user connection limit (1) is \
                reached";
    let second = rig.begin_as("u1", "p", "m");
    assert_eq!(rig.closed(second), Some(refused(530, text)));

    limit(&mut rig, UserLimits::default().max_channels(1));
    let channel = rig.channel(first);
    let other = rig.begin_as("u1", "p", "m");
    let text = "NOT_ALLOWED - number of channels opened for user 'u1' has reached the maximum \
                allowed user limit of (1)";
    let open = |rig: &mut Rig, client| {
        let (_, request) = rig.client(client).open_channel().unwrap();
        rig.exchange();
        rig.reply(client, request).err()
    };
    assert_eq!(open(&mut rig, other), Some(refused(530, text)));
    assert_eq!(rig.closed(other), Some(refused(530, text)));
    rig.client(first)
        .channel(channel)
        .unwrap()
        .close(amqp_core::protocol::ReplyCode::SUCCESS, "")
        .unwrap();
    rig.exchange();
    assert_eq!(open(&mut rig, first), None);
    assert_eq!(open(&mut rig, first), Some(refused(530, text)));

    // A channel that is open already is a violation of the protocol, whatever the limit.
    let client = rig.begin_as("u1", "p", "m");
    let channel = rig.channel(client);
    rig.inject(client, channel.number(), amqp_core::protocol::channel::Open);
    rig.exchange();
    let closed = refused(504, "CHANNEL_ERROR - second 'channel.open' seen");
    assert_eq!(rig.closed(client), Some(closed));
}

#[test]
fn connections_can_be_closed_with_a_reason() {
    let mut rig = rig();
    let [one, two] = [(), ()].map(|()| rig.begin_as("u1", "p", "m"));
    let guest = rig.begin_as("guest", "guest", "m");
    let key = rig.key(one);
    let mut admin = rig.broker.admin();
    admin.close_connection(key, "bye now").unwrap();
    rig.exchange();
    assert_eq!(rig.closed(one), Some(forced("bye now")));
    assert_eq!(
        rig.broker.admin().close_connection(key, "again"),
        Err(AdminError::NoConnection(key))
    );
    assert_eq!(rig.broker.admin().close_user_connections("u1", "you"), 1);
    rig.exchange();
    assert_eq!(rig.closed(two), Some(forced("you")));
    assert!(rig.client(guest).is_open());
    assert_eq!(rig.broker.admin().close_vhost_connections("m", "all"), 1);
    rig.exchange();
    assert_eq!(rig.closed(guest), Some(forced("all")));
}

#[test]
fn a_connection_that_is_not_open_ends_without_a_reply() {
    let mut rig = rig();
    let client = rig.begin_raw();
    let key = rig.key(client);
    let said = rig.ask_raw(client, b"AMQP\0\0\x09\x01");
    assert_eq!(said.len(), 1, "connection.start");
    rig.broker.admin().close_connection(key, "early").unwrap();
    assert!(rig.ask_raw(client, b"").is_empty());
    rig.advance(60_000);
    assert!(rig.broker.is_finished(key));
}

#[test]
fn confirms_precede_a_forced_close() {
    let (mut rig, client, channel) = Rig::open();
    rig.confirms(client, channel);
    rig.declare(client, channel, &queue("q"));
    rig.publish(client, channel, "q", "x");
    let key = rig.key(client);
    rig.broker
        .admin()
        .close_connection(key, "maintenance")
        .unwrap();
    rig.exchange();
    assert_eq!(rig.settled(client).len(), 1);
    assert_eq!(rig.closed(client), Some(forced("maintenance")));
}

#[test]
fn users_are_listed_without_passwords() {
    let mut rig = rig();
    let mut admin = rig.broker.admin();
    let topics = TopicPermissions::new("^{username}", ".*").unwrap();
    admin
        .set_topic_permissions("u1", "m", "amq.topic", &topics)
        .unwrap();
    admin.set_user_tags("u1", ["monitoring"]).unwrap();
    let limits = UserLimits::default().max_channels(3);
    admin.set_user_limits("u1", limits).unwrap();
    let all = rig.broker.inspect();
    let [guest, u1] = &all.users[..] else {
        panic!("{:?}", all.users);
    };
    assert_eq!(guest.permissions.len(), 2);
    assert_eq!(u1.tags, ["monitoring"]);
    assert!(u1.has_password);
    assert_eq!(u1.limits, limits);
    assert_eq!(u1.permissions[0].vhost, "m");
    assert_eq!(u1.permissions[0].permissions, Permissions::all());
    assert_eq!(u1.topic_permissions[0].exchange, "amq.topic");
    assert_eq!(u1.topic_permissions[0].permissions, topics);
    assert!(!format!("{all:?}").contains("\"p\""));
}
