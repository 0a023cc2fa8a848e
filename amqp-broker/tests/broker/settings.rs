//! Settings are open to additions, and yet can be made in one expression from outside.

use std::time::Duration;

use amqp_broker::{Config, Limits, Permissions, Rules, User};
use amqp_core::server;

#[test]
fn each_builder_sets_its_field() {
    let server = || server::Config::default().heartbeat(9);
    let user = || User::new("me", "secret").may("a", Permissions::all());
    let limits = || {
        Limits::default()
            .connections(1)
            .queues(2)
            .bindings(3)
            .consumers(4)
            .message(5)
            .memory(6)
            .transaction(7)
            .output(8)
            .replies(9)
    };
    let rules = Rules::default()
        .transient_queues(false)
        .global_qos(false)
        .flow(false);
    let config = Config::default()
        .server(server())
        .vhosts(["a".into()])
        .users([user()])
        .limits(limits())
        .rules(rules)
        .consumer_timeout(Duration::from_secs(3))
        .seed(1)
        .epoch(2)
        .notices(true);

    let mut expected = Limits::default();
    expected.connections = 1;
    expected.queues = 2;
    expected.bindings = 3;
    expected.consumers = 4;
    expected.message = 5;
    expected.memory = 6;
    expected.transaction = 7;
    expected.output = 8;
    expected.replies = 9;
    assert_eq!(limits(), expected);
    assert!(!rules.transient_queues && !rules.global_qos && !rules.flow);
    let mut expected = Config::default();
    expected.server = server();
    expected.vhosts = vec!["a".into()];
    expected.users = vec![user()];
    expected.limits = limits();
    expected.rules = rules;
    expected.consumer_timeout = Some(Duration::from_secs(3));
    expected.seed = 1;
    expected.epoch = Some(2);
    expected.notices = true;
    assert_eq!(format!("{config:?}"), format!("{expected:?}"));
}
