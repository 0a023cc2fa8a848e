//! Coming in, and going.

use crate::rig::{Rig, bind, consumer, frame, name, passive, queue, refused, table};
use amqp_broker::{Config, Permissions, User};
use amqp_core::{
    client,
    frame::PROTOCOL_HEADER,
    protocol::{Method, ReplyCode, basic, channel, connection, exchange, queue},
    sasl::{AmqPlain, Plain},
    wire::{FieldTable, Secret},
};

#[test]
fn a_connection_opens_and_closes() {
    let (mut rig, client, _) = Rig::open();
    let properties = rig.client(client).server_properties().clone();
    assert_eq!(
        properties.get("product").unwrap().as_str(),
        Some("RabbitMQ")
    );
    rig.close(client);
    assert!(rig.client(client).is_finished());
    assert!(rig.broker.is_finished(rig.key(client)));
    let (key, now) = (rig.key(client), rig.now);
    rig.broker.remove(key, now);
    assert_eq!(rig.broker.inspect().connections, []);
}

#[test]
fn all_capabilities_of_rabbitmq_are_reported() {
    let (mut rig, client, _) = Rig::open();
    for capability in [
        "publisher_confirms",
        "exchange_exchange_bindings",
        "basic.nack",
        "consumer_cancel_notify",
        "connection.blocked",
        "consumer_priorities",
        "authentication_failure_close",
        "per_consumer_qos",
        "direct_reply_to",
    ] {
        assert!(
            rig.client(client).has_capability(capability),
            "{capability}"
        );
    }
}

#[test]
fn heartbeats_keep_an_idle_connection_alive() {
    let mut rig = Rig::new();
    let client = rig.begin(client::Config::default().heartbeat(1));
    rig.advance(10_000);
    assert!(rig.client(client).is_open());
    rig.try_call(client, &queue("q")).unwrap();
}

#[test]
fn a_silent_client_is_taken_for_dead() {
    let mut rig = Rig::new();
    let client = rig.begin(client::Config::default().heartbeat(1));
    let mut declare = queue("q");
    declare.exclusive = true;
    rig.try_call(client, &declare).unwrap();
    rig.now = rig.now + std::time::Duration::from_secs(3);
    let (key, now) = (rig.key(client), rig.now);
    rig.broker.handle_connection_timeout(key, now);
    assert!(rig.broker.is_finished(key));
    assert!(!rig.has_queue("q"));
}

#[test]
fn an_unknown_virtual_host_is_530() {
    let mut rig = Rig::new();
    let client = rig.begin_as("guest", "guest", "nope");
    let expected = refused(530, "NOT_ALLOWED - vhost nope not found");
    assert_eq!(rig.closed(client), Some(expected));
}

#[test]
fn a_wrong_password_is_403() {
    let mut rig = Rig::new();
    let text = "ACCESS_REFUSED - Login was refused using authentication mechanism PLAIN. For \
                details see the broker logfile.";
    for (user, password) in [("guest", "wrong"), ("nobody", "guest")] {
        let client = rig.begin_as(user, password, "/");
        assert_eq!(rig.closed(client), Some(refused(403, text)));
    }
}

/// Checks that the transport of a client is closed without a close, 3 seconds later.
fn hangs_up_late(rig: &mut Rig, client: usize) {
    let key = rig.key(client);
    rig.advance(2900);
    assert!(!rig.broker.is_finished(key));
    rig.advance(100);
    assert!(rig.broker.is_finished(key));
    assert_eq!(rig.closed(client), None);
}

#[test]
fn a_client_that_leaves_a_refused_login_is_not_waited_for() {
    let mut rig = Rig::with(Config::rabbitmq_4());
    let client = rig.begin(client::Config::default().frame_max(4096));
    let key = rig.key(client);
    assert!(!rig.broker.is_finished(key));
    rig.broker.handle_eof(key, amqp_core::Instant::ORIGIN);
    assert!(rig.broker.is_finished(key));
}

#[test]
fn a_client_that_would_not_understand_a_refused_login_is_hung_up_on() {
    let mut rig = Rig::new();
    let mut properties = FieldTable::new();
    properties.push(name("capabilities"), FieldTable::new());
    let client = rig.begin(
        client::Config::default()
            .mechanisms(vec![Box::new(Plain::new("guest", "wrong").unwrap())])
            .properties(properties),
    );
    hangs_up_late(&mut rig, client);
}

#[test]
fn amqplain_is_taken() {
    let mut rig = Rig::new();
    let client = rig.begin(
        client::Config::default().mechanisms(vec![Box::new(AmqPlain::new("guest", "guest"))]),
    );
    assert!(rig.client(client).is_open());
}

#[test]
fn the_limits_of_the_client_are_negotiated() {
    let mut rig = Rig::new();
    let client = rig.begin(
        client::Config::default()
            .channel_max(10)
            .frame_max(10_000)
            .heartbeat(20),
    );
    let tuning = rig.broker.inspect().connections[client].tuning;
    assert_eq!(
        (tuning.channel_max, tuning.frame_max, tuning.heartbeat),
        (10, 10_000, 20)
    );
}

#[test]
fn the_minimum_frame_limit_is_that_of_the_version() {
    for (config, min) in [(Config::default(), 4096), (Config::rabbitmq_4(), 8192)] {
        let mut rig = Rig::with(config);
        let client = rig.begin(client::Config::default().frame_max(min));
        assert!(rig.client(client).is_open());
        if min > 4096 {
            let client = rig.begin(client::Config::default().frame_max(min - 1));
            hangs_up_late(&mut rig, client);
        }
    }
}

/// `start-ok` in a frame of `len` bytes, framing included.
fn start_ok(len: usize) -> Vec<u8> {
    let with = |text: String| {
        let start_ok = connection::StartOk {
            client_properties: table([("p", text.as_str().into())]),
            mechanism: name("PLAIN"),
            response: Secret::from(&b"\0guest\0guest"[..]),
            locale: name("en_US"),
        };
        frame(0, &start_ok.into())
    };
    let empty = with(String::new()).len();
    with("x".repeat(len - empty))
}

#[test]
fn a_frame_before_tune_ok_is_as_large_as_the_minimum_limit() {
    for (config, min) in [(Config::default(), 4096), (Config::rabbitmq_4(), 8192)] {
        // RabbitMQ tolerates the 8 octets of framing in addition.
        for (len, taken) in [(min, true), (min + 8, true), (min + 9, false)] {
            let mut rig = Rig::with(config.clone());
            let client = rig.begin_raw();
            rig.ask_raw(client, &PROTOCOL_HEADER);
            let said = rig.ask_raw(client, &start_ok(len));
            assert_eq!(!said.is_empty(), taken, "{len}");
            let key = rig.key(client);
            // Further input does not end it sooner.
            rig.ask_raw(client, &[0; 100]);
            if !taken {
                rig.advance(2900);
                assert!(!rig.broker.is_finished(key), "{len}");
                rig.advance(100);
                assert!(rig.broker.is_finished(key), "{len}");
            }
        }
    }
}

#[test]
fn client_properties_can_be_inspected() {
    let mut rig = Rig::new();
    let client = rig.begin(
        client::Config::default()
            .properties(table([("program", "test".into()), ("build", 7.into())])),
    );
    let info = &rig.broker.inspect().connections[client];
    let field = |name| info.client_properties.get(name).unwrap().clone();
    assert_eq!(field("program").as_str(), Some("test"));
    assert_eq!(field("build").as_i64(), Some(7));
    assert_eq!((info.user.as_str(), info.vhost.as_str()), ("guest", "/"));
}

#[test]
fn channels_come_and_go() {
    let (mut rig, client, first) = Rig::open();
    let second = rig.channel(client);
    assert_ne!(first.number(), second.number());
    let channels = |rig: &Rig| rig.broker.inspect().connections[0].channels.len();
    assert_eq!(channels(&rig), 2);
    let close = rig
        .client(client)
        .channel(first)
        .unwrap()
        .close(ReplyCode::SUCCESS, "");
    close.unwrap();
    rig.exchange();
    assert_eq!(channels(&rig), 1);
    let (again, _) = rig.client(client).open_channel_at(first.number()).unwrap();
    rig.exchange();
    assert_eq!(again.number(), first.number());
    assert_eq!(channels(&rig), 2);
}

#[test]
fn immediate_closes_the_connection() {
    let (mut rig, client, channel) = Rig::open();
    let publish = basic::Publish {
        immediate: true,
        ..basic::Publish::default()
    };
    rig.publish_as(client, channel, &publish, &Default::default(), "");
    let expected = refused(540, "NOT_IMPLEMENTED - immediate=true");
    assert_eq!(rig.closed(client), Some(expected));
}

#[test]
fn flow_true_is_answered() {
    let (mut rig, client, channel) = Rig::open();
    let number = channel.number();
    let flow = frame(number, &channel::Flow { active: true }.into());
    let ok: Method = channel::FlowOk { active: true }.into();
    for _ in 0..2 {
        assert_eq!(rig.ask_raw(client, &flow), std::slice::from_ref(&ok));
    }
}

#[test]
fn flow_pauses_deliveries_or_is_540_as_the_rules_say() {
    let mut config = Config::default();
    config.rules.flow = true;
    let mut rig = Rig::with(config);
    let client = rig.connect();
    let channel = rig.channel(client);
    rig.declare(client, channel, &queue("q"));
    rig.consume(client, channel, consumer("q", "c")).unwrap();
    let pause = |active| channel::Flow { active };
    rig.call(client, channel, &pause(false)).unwrap();
    rig.publish(client, channel, "q", "1");
    assert_eq!(rig.bodies(client), [""; 0]);
    rig.call(client, channel, &pause(true)).unwrap();
    assert_eq!(rig.bodies(client), ["1"]);

    for config in [Config::default(), Config::rabbitmq_4()] {
        let mut rig = Rig::with(config);
        let client = rig.connect();
        assert_eq!(
            rig.try_call(client, &pause(false)),
            Err(refused(540, "NOT_IMPLEMENTED - active=false"))
        );
    }
}

#[test]
fn a_dead_connection_gives_everything_back() {
    let (mut rig, client, channel) = Rig::open();
    let other = rig.connect();
    let watch = rig.channel(other);
    rig.declare(client, channel, &queue("shared"));
    let mut exclusive = queue("own");
    exclusive.exclusive = true;
    rig.declare(client, channel, &exclusive);
    rig.publish(client, channel, "shared", "1");
    rig.consume(client, channel, consumer("shared", "c"))
        .unwrap();
    assert_eq!(rig.counts(other, watch, "shared"), (0, 1));
    rig.cut(client);
    assert_eq!(rig.counts(other, watch, "shared"), (1, 0));
    let message = rig.get(other, watch, "shared").unwrap();
    assert!(message.method.redelivered);
    // SER-28
    assert_eq!(
        rig.call(other, watch, &passive("own")),
        Err(refused(404, "NOT_FOUND - no queue 'own' in vhost '/'"))
    );
}

#[test]
fn virtual_hosts_are_apart() {
    let config = Config::default()
        .vhosts(vec!["/".into(), "other".into()])
        .users(vec![
            User::new("guest", "guest")
                .may("/", Permissions::all())
                .may("other", Permissions::all()),
        ]);
    let mut rig = Rig::with(config);
    let here = rig.connect();
    let there = rig.begin_as("guest", "guest", "other");
    rig.try_call(here, &queue("q")).unwrap();
    assert_eq!(
        rig.try_call(there, &passive("q")),
        Err(refused(404, "NOT_FOUND - no queue 'q' in vhost 'other'"))
    );
}

#[test]
fn permissions_are_kept_to() {
    let mut config = Config::default();
    let permissions = Permissions::new("^ok", "^ok", "^ok").unwrap();
    config
        .users
        .push(User::new("bob", "b").may("/", permissions));
    config.users.push(User::new("tim", "t"));
    let mut rig = Rig::with(config);
    let client = rig.begin_as("tim", "t", "/");
    let expected = refused(
        530,
        "NOT_ALLOWED - access to vhost '/' refused for user 'tim'",
    );
    assert_eq!(rig.closed(client), Some(expected));

    let guest = rig.connect();
    rig.try_call(guest, &queue("no")).unwrap();
    let bob = rig.begin_as("bob", "b", "/");
    let queue_text = "ACCESS_REFUSED - access to queue 'no' in vhost '/' refused for user 'bob'";
    let exchange_text =
        "ACCESS_REFUSED - access to exchange 'amq.direct' in vhost '/' refused for user 'bob'";
    let purge = queue::Purge {
        queue: name("no"),
        no_wait: false,
    };
    assert_eq!(
        rig.try_call(bob, &queue("no")),
        Err(refused(403, queue_text))
    );
    assert!(rig.try_call(bob, &passive("no")).is_ok());
    assert!(rig.try_call(bob, &queue("ok")).is_ok());
    assert_eq!(rig.try_call(bob, &purge), Err(refused(403, queue_text)));
    assert_eq!(
        rig.try_call(bob, &crate::rig::delete("no")),
        Err(refused(403, queue_text))
    );
    assert_eq!(
        rig.try_call(bob, &bind("ok", "amq.direct", "")),
        Err(refused(403, exchange_text))
    );
    let channel = rig.channel(bob);
    assert_eq!(
        rig.try_get(bob, channel, "no", true),
        Err(refused(403, queue_text))
    );
    let channel = rig.channel(bob);
    rig.publish(bob, channel, "ok", "");
    let text =
        "ACCESS_REFUSED - access to exchange 'amq.default' in vhost '/' refused for user 'bob'";
    assert_eq!(rig.channel_closed(bob), Some(refused(403, text)));
    let create = exchange::Declare {
        exchange: name("ok-ae"),
        kind: name("direct"),
        arguments: table([("alternate-exchange", "amq.direct".into())]),
        ..exchange::Declare::default()
    };
    assert_eq!(rig.try_call(bob, &create), Err(refused(403, exchange_text)));
}

#[test]
fn requests_in_one_piece_are_answered_in_order() {
    let (mut rig, client, channel) = Rig::open();
    let number = channel.number();
    let asked = [
        frame(number, &queue("q").into()),
        frame(number, &channel::Flow { active: true }.into()),
        frame(number, &passive("q").into()),
        frame(number, &channel::Close::default().into()),
        frame(number + 1, &channel::Open.into()),
    ];
    let names: Vec<_> = rig
        .ask_raw(client, &asked.concat())
        .iter()
        .map(Method::name)
        .collect();
    assert_eq!(
        names,
        [
            "queue.declare-ok",
            "channel.flow-ok",
            "queue.declare-ok",
            "channel.close-ok",
            "channel.open-ok"
        ]
    );
}

#[test]
fn a_message_published_right_before_the_end_is_not_lost() {
    let (mut rig, client, channel) = Rig::open();
    rig.declare(client, channel, &queue("q"));
    let publish = basic::Publish {
        routing_key: name("q"),
        ..basic::Publish::default()
    };
    let properties = basic::Properties::default();
    let mut commands = rig.client(client).channel(channel).unwrap();
    commands.publish(&publish, &properties, "1").unwrap();
    rig.close(client);
    assert_eq!(rig.inspect("q").ready, 1);
}
