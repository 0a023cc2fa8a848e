//! Connections of machines that have begun elsewhere.

use amqp_broker::{AcceptError, Config};
use amqp_core::{client, sasl::Plain};

use crate::rig::{Rig, queue, refused};

const REFUSAL: &str = "ACCESS_REFUSED - Login was refused using authentication mechanism PLAIN. For \
                       details see the broker logfile.";

fn guest(password: &str) -> client::Config {
    let plain = Plain::new("guest", password).unwrap();
    client::Config::default().mechanisms(vec![Box::new(plain)])
}

#[test]
fn an_adopted_client_works_as_an_accepted_one() {
    let mut rig = Rig::new();
    let accepted = rig.connect();
    let adopted = rig.begin_adopted(guest("guest")).unwrap();
    assert!(rig.client(adopted).is_open());
    let connections = rig.broker.inspect().connections;
    assert_eq!(connections[1].key, rig.key(adopted));
    assert_eq!(connections[1].user, "guest");

    let publishing = rig.channel(accepted);
    let channel = rig.channel(adopted);
    rig.declare(adopted, channel, &queue("q"));
    rig.publish(accepted, publishing, "q", "to the adopted");
    assert_eq!(rig.drain(adopted, channel, "q"), ["to the adopted"]);
    rig.publish(adopted, channel, "q", "to the accepted");
    assert_eq!(rig.drain(accepted, publishing, "q"), ["to the accepted"]);

    rig.close(adopted);
    assert_eq!(rig.broker.inspect().connections[1].channels, []);
    assert!(rig.broker.is_finished(rig.key(adopted)));
}

#[test]
fn a_wrong_password_of_an_adopted_client_is_refused_with_403() {
    let mut rig = Rig::new();
    let client = rig.begin_adopted(guest("wrong")).unwrap();
    assert_eq!(rig.closed(client), Some(refused(403, REFUSAL)));
}

#[test]
fn an_adopted_client_counts_as_a_connection() {
    let mut config = Config::default();
    config.limits.connections = 1;
    let mut rig = Rig::with(config);
    let first = rig.begin_adopted(guest("guest")).unwrap();
    let limit = AcceptError::TooManyConnections { limit: 1 };
    assert_eq!(rig.begin_adopted(guest("guest")), Err(limit.clone()));
    assert_eq!(rig.broker.accept(rig.now), Err(limit));
    rig.cut(first);
    assert!(rig.begin_adopted(guest("guest")).is_ok());
}

#[test]
fn a_stopped_broker_adopts_none() {
    let mut rig = Rig::new();
    rig.broker.stop(rig.now);
    let refused = rig.begin_adopted(guest("guest"));
    assert_eq!(refused, Err(AcceptError::Stopped));
}

#[test]
fn the_limit_of_messages_holds_for_an_adopted_client() {
    let mut config = Config::default();
    config.limits.message = 1000;
    let mut rig = Rig::with(config);
    let client = rig.begin_adopted(guest("guest")).unwrap();
    let channel = rig.channel(client);
    rig.declare(client, channel, &queue("q"));
    rig.publish(client, channel, "q", &"x".repeat(1001));
    assert_eq!(rig.channel_closed(client).unwrap().0, 406);
    assert_eq!(rig.inspect("q").ready, 0);
}
