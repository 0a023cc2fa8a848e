//! Policies that are set while programs run: one for each queue and exchange, by the end of its
//! name, and operator policies.

use amqp_broker::definitions::Definitions;

use crate::{
    embedded::Embedded,
    harness::{Failure, Outcome},
    rabbitmq::Node,
};

/// The policies, as RabbitMQ exports them, with `VHOST` in place of the virtual host. Times do not
/// come while a test runs. A queue that the server names has none of the endings.
const POLICIES: &str = r#"{
    "policies": [
        {"vhost": "VHOST", "name": "none", "pattern": "-[qe][0-9]$", "priority": -1, "apply-to": "all",
         "definition": {"max-length": 0, "alternate-exchange": "amq.fanout"}},
        {"vhost": "VHOST", "name": "short", "pattern": "-q0$", "priority": 1, "apply-to": "queues",
         "definition": {"max-length": 3, "message-ttl": 3600000}},
        {"vhost": "VHOST", "name": "full", "pattern": "-q1$", "priority": 1, "apply-to": "all",
         "definition": {"max-length": 2, "overflow": "reject-publish", "expires": 3600000}},
        {"vhost": "VHOST", "name": "letters", "pattern": "-q2$", "priority": 1, "apply-to": "queues",
         "definition": {"dead-letter-exchange": "amq.direct", "dead-letter-routing-key": "a"}},
        {"vhost": "VHOST", "name": "small", "pattern": "-q3$", "priority": 1, "apply-to": "queues",
         "definition": {"max-length": 5, "max-length-bytes": 40, "overflow": "reject-publish-dlx"}},
        {"vhost": "VHOST", "name": "named", "pattern": "^amq[.]gen-", "apply-to": "queues",
         "definition": {"max-length": 4, "dead-letter-routing-key": "a"}},
        {"vhost": "VHOST", "name": "lost", "pattern": "-e0$", "priority": 1, "apply-to": "exchanges",
         "definition": {"alternate-exchange": "amq.direct"}},
        {"vhost": "VHOST", "name": "not here", "pattern": "-q[0-3]$", "priority": 9,
         "definition": {"delivery-limit": 1, "max-length": 0}},
        {"vhost": "VHOST", "name": "nor here", "pattern": "-q[0-3]$", "priority": 9,
         "apply-to": "exchanges", "definition": {"max-length": 0}}
    ],
    "parameters": [
        {"vhost": "VHOST", "component": "operator_policy", "name": "roof", "value":
         {"pattern": "-q[13]$", "priority": 0, "apply-to": "queues", "definition": {"max-length": 3}}},
        {"vhost": "VHOST", "component": "operator_policy", "name": "low", "value":
         {"pattern": "", "priority": -1, "apply-to": "queues", "definition": {"max-length": 8}}}
    ]
}"#;

fn policies(vhost: &str) -> Result<Definitions, Failure> {
    Ok(Definitions::from_json(&POLICIES.replace("VHOST", vhost))?)
}

/// Sets the policies in a virtual host of a RabbitMQ.
///
/// # Errors
/// When RabbitMQ does not import them.
pub fn set_at_rabbitmq(node: &Node, vhost: &str) -> Outcome {
    let file = tempfile::NamedTempFile::new()?;
    std::fs::write(file.path(), policies(vhost)?.to_json())?;
    let path = file.path().to_str().ok_or("not UTF-8")?;
    node.ctl(&["import_definitions", path])?;
    Ok(())
}

/// Sets the policies in the virtual host of an embedded broker.
///
/// # Errors
/// When the broker does not import them.
pub fn set_at_embedded(embedded: &Embedded) -> Outcome {
    let policies = policies(embedded.vhost())?;
    let warnings = embedded.broker().with(|broker| broker.apply(&policies))?;
    match warnings.first() {
        None => Ok(()),
        Some(warning) => Err(warning.to_string().into()),
    }
}
