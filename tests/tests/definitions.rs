//! Definitions that go from the embedded broker to RabbitMQ and back.

use std::process::ExitCode;

use amqp_broker::{
    BindingTarget, Broker as Embedded, Config, User,
    definitions::{BindingDefinition, Definitions, VhostDefinition},
};
use amqp_tests::harness::{self, Broker, Outcome, Scenario};

/// An export of RabbitMQ.
const EXPORT: &str = include_str!("../../amqp-broker/tests/definitions/http.json");

fn main() -> ExitCode {
    harness::run(vec![Scenario::alone(
        "definitions_go_to_rabbitmq_and_back",
        definitions_go_to_rabbitmq_and_back,
    )])
}

fn definitions_go_to_rabbitmq_and_back(broker: Broker) -> Outcome {
    let mut embedded = Embedded::new(Config::default())?;
    embedded.apply(&Definitions::from_json(EXPORT)?)?;
    let mut sent = embedded.definitions();
    let directory = tempfile::tempdir()?;
    let path = directory.path().join("definitions.json");
    let file = path.to_str().ok_or("not UTF-8")?;
    std::fs::write(&path, sent.to_json())?;
    broker.node.ctl(&["import_definitions", file])?;
    std::fs::remove_file(&path)?;
    broker.node.ctl(&["export_definitions", file])?;
    let mut back = Definitions::from_json(&std::fs::read_to_string(&path)?)?;

    // `rabbitmqctl` does not export internal exchanges.
    sent.exchanges.retain(|it| !it.internal);
    // RabbitMQ fills these in.
    for vhost in sent.vhosts.iter_mut().chain(&mut back.vhosts) {
        vhost.metadata = VhostDefinition::default().metadata;
    }
    sort(&mut sent);
    sort(&mut back);
    sent.rabbitmq_version.clone_from(&back.rabbitmq_version);
    assert_eq!(back, sent);

    // The hash of a password that the embedded broker has made lets its user in.
    let user = User::new("new", "made here");
    embedded.admin().add_user(user)?;
    std::fs::write(&path, embedded.definitions().to_json())?;
    broker.node.ctl(&["import_definitions", file])?;
    for (user, password, can) in [
        ("new", "made here", true),
        ("new", "made there", false),
        ("anna", "secret", true),
        ("anna", "Secret", false),
    ] {
        let answer = broker.node.ctl(&["authenticate_user", user, password]);
        assert_eq!(answer.is_ok(), can, "{user} {password}: {answer:?}");
    }
    Ok(())
}

/// Brings all lists into one order.
fn sort(all: &mut Definitions) {
    let binding = |it: &BindingDefinition| {
        let (BindingTarget::Queue(to) | BindingTarget::Exchange(to)) = &it.destination;
        (it.source.to_string(), to.to_string())
    };
    all.users.sort_by_key(|it| it.name.clone());
    all.vhosts.sort_by_key(|it| it.name.clone());
    all.permissions
        .sort_by_key(|it| (it.user.clone(), it.vhost.clone()));
    all.policies.sort_by_key(|it| it.policy.name.clone());
    all.global_parameters.sort_by_key(|it| it.name.clone());
    all.global_parameters
        .retain(|it| !it.name.starts_with("internal"));
    all.queues.sort_by_key(|it| it.name.to_string());
    all.exchanges.sort_by_key(|it| it.name.to_string());
    all.bindings.sort_by_key(binding);
}
