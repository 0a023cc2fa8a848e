//! The state of a broker in bounded pieces.

use amqp_broker::Config;
use amqp_core::protocol::basic::Properties;

use crate::rig::{Rig, bind, consumer, exchange, name, queue, tag};

#[test]
fn queues_are_listed_by_virtual_host_and_name() {
    let mut rig = Rig::with({
        let mut config = Config::default().vhosts(["/".into(), "a".into(), "z".into()]);
        let user = config.users.remove(0);
        config
            .users
            .push(user.may("z", amqp_broker::Permissions::all()));
        config
    });
    for (vhost, names) in [("z", ["a", "b"]), ("/", ["y", "x"])] {
        let client = rig.begin_as("guest", "guest", vhost);
        let channel = rig.channel(client);
        for queue in names {
            rig.declare(client, channel, &crate::rig::queue(queue));
        }
    }
    let list = |after: Option<(&str, &str)>, limit| {
        let queues = rig.broker.list_queues(after, limit).into_iter();
        let names = queues.map(|it| format!("{} {}", it.vhost, it.name));
        names.collect::<Vec<_>>().join(", ")
    };
    assert_eq!(list(None, 9), "/ x, / y, z a, z b");
    assert_eq!(list(None, 3), "/ x, / y, z a");
    assert_eq!(list(None, 0), "");
    assert_eq!(list(Some(("/", "x")), 9), "/ y, z a, z b");
    assert_eq!(list(Some(("/", "y")), 1), "z a");
    assert_eq!(list(Some(("a", "any")), 1), "z a");
    assert_eq!(list(Some(("z", "a")), 9), "z b");
    assert_eq!(list(Some(("z", "b")), 9), "");
    assert_eq!(rig.broker.totals().queues, 4);
    assert_eq!(rig.broker.totals().exchanges, 21);
}

#[test]
fn messages_are_counted_where_they_pass() {
    let (mut rig, client, channel) = Rig::open();
    rig.declare(client, channel, &queue("q"));
    for body in ["1", "2", "3"] {
        rig.publish(client, channel, "q", body);
    }
    rig.publish(client, channel, "none", "unroutable");
    rig.consume(client, channel, consumer("q", "c")).unwrap();
    rig.ack(client, channel, tag(1));
    rig.nack(client, channel, tag(2), true);
    let counts = |rig: &Rig| {
        let own = rig.broker.list_queues(None, 1)[0].messages;
        let all = rig.broker.totals().messages;
        assert_eq!(rig.inspect("q").messages, own);
        [own, all].map(|it| (it.published, it.delivered, it.acked))
    };
    assert_eq!(counts(&rig), [(3, 4, 1), (4, 4, 1)]);
    rig.cancel(client, channel, "c");
    rig.publish(client, channel, "q", "4");
    rig.get(client, channel, "q").unwrap();
    assert_eq!(counts(&rig), [(4, 5, 1), (5, 5, 1)]);
    let conn = &rig.broker.list_connections(0, 9)[0];
    assert_eq!((conn.stats.published, conn.stats.fetched), (5, 1));
    assert!(conn.stats.received.bytes > 100);
}

#[test]
fn a_committed_publish_counts_and_one_that_is_rolled_back_does_not() {
    let (mut rig, client, channel) = Rig::open();
    rig.declare(client, channel, &queue("q"));
    rig.transaction(client, channel);
    rig.publish(client, channel, "q", "1");
    assert_eq!(rig.broker.totals().messages.published, 0);
    rig.call(client, channel, &amqp_core::protocol::tx::Rollback)
        .unwrap();
    rig.publish(client, channel, "q", "2");
    rig.call(client, channel, &amqp_core::protocol::tx::Commit)
        .unwrap();
    assert_eq!(rig.broker.totals().messages.published, 1);
}

#[test]
fn exchanges_and_bindings_are_listed() {
    let (mut rig, client, channel) = Rig::open();
    rig.declare(client, channel, &queue("q"));
    rig.call(client, channel, &exchange("x", "topic")).unwrap();
    for key in ["a", "b", "c"] {
        rig.call(client, channel, &bind("q", "x", key)).unwrap();
    }
    let exchanges = rig.broker.list_exchanges(Some(("/", "amq.topic")), 9);
    let [x] = &exchanges[..] else {
        panic!("{exchanges:?}");
    };
    assert_eq!((x.name.as_str(), x.kind, x.bindings), ("x", "topic", 3));
    let bindings = rig.broker.list_bindings("/", "x", 2).unwrap();
    let keys: Vec<_> = bindings.iter().map(|it| it.routing_key.as_str()).collect();
    assert_eq!(keys, ["a", "b"]);
    assert_eq!(rig.broker.list_bindings("/", "", 9), Some(Vec::new()));
    assert_eq!(rig.broker.list_bindings("/", "none", 9), None);
    assert_eq!(rig.broker.list_bindings("none", "x", 9), None);
}

#[test]
fn connections_are_listed_in_the_order_of_their_acceptance() {
    let mut rig = Rig::new();
    let keys: Vec<_> = (0..3)
        .map(|_| {
            let client = rig.connect();
            rig.key(client)
        })
        .collect();
    let list = |after, limit| {
        let connections = rig.broker.list_connections(after, limit).into_iter();
        connections.map(|it| it.key).collect::<Vec<_>>()
    };
    assert_eq!(list(0, 2), keys[..2]);
    assert_eq!(list(keys[1].number(), 9), keys[2..]);
    assert_eq!(rig.broker.totals().connections, 3);
}

#[test]
fn a_peek_leaves_messages_as_they_are() {
    let (mut rig, client, channel) = Rig::open();
    rig.declare(client, channel, &queue("q"));
    let properties = Properties {
        content_type: Some(name("text/plain")),
        ..Properties::default()
    };
    let large = "x".repeat(300_000); // several body frames
    for body in ["first", &large, "third"] {
        rig.publish_to(client, channel, "", "q", &properties, body);
    }
    let before = rig.broker.list_queues(None, 9);
    let peeked = rig.broker.peek("/", "q", 2, 200_000).unwrap();
    let [first, second] = &peeked[..] else {
        panic!("{} messages", peeked.len());
    };
    assert_eq!((&first.body[..], first.size), (&b"first"[..], 5));
    assert_eq!(
        (first.exchange.as_str(), first.routing_key.as_str()),
        ("", "q")
    );
    assert_eq!(first.properties.decode().unwrap(), properties);
    assert_eq!((second.body.len(), second.size), (200_000, 300_000));
    assert_eq!(rig.broker.list_queues(None, 9), before);

    let got = rig.get(client, channel, "q").unwrap();
    assert!(!got.method.redelivered);
    assert_eq!(rig.broker.peek("/", "q", 9, 0).unwrap().len(), 2);
    rig.cut(client);
    let peeked = rig.broker.peek("/", "q", 1, 5).unwrap();
    assert!(peeked[0].redelivered);
    assert_eq!(rig.broker.peek("/", "none", 1, 1), None);
    assert_eq!(rig.broker.peek("none", "q", 1, 1), None);
}
