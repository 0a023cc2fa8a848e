//! Definitions as JSON.

use alloc::{
    format,
    string::{String, ToString as _},
    vec::Vec,
};

use amqp_core::wire::{FieldTable, FieldValue};
use serde_json::{Map, Value, json};

use super::{
    BindingDefinition, Definitions, HashingAlgorithm, QueueDefinition, UserDefinition,
    read::{LIMITS, OPERATOR_POLICY},
};
use crate::{config::Password, inspect::BindingTarget, policy::Policy};

impl Definitions {
    /// Writes the definitions as JSON, which RabbitMQ can import. The order of the fields is that of
    /// their names.
    ///
    /// A password that is not hashed is written as it is; [`Broker::definitions`] hashes it.
    ///
    /// [`Broker::definitions`]: crate::Broker::definitions
    #[must_use]
    pub fn to_json(&self) -> String {
        let mut all = Map::new();
        let mut add = |name: &str, list: Vec<Value>| {
            all.insert(name.into(), Value::Array(list));
        };
        add("users", self.users.iter().map(user).collect());
        let vhosts = self
            .vhosts
            .iter()
            .map(|vhost| json!({"name": vhost.name, "metadata": table(&vhost.metadata)}));
        add("vhosts", vhosts.collect());
        let permissions = self.permissions.iter().map(|it| {
            json!({
                "user": it.user,
                "vhost": it.vhost,
                "configure": it.permissions.configure(),
                "write": it.permissions.write(),
                "read": it.permissions.read(),
            })
        });
        add("permissions", permissions.collect());
        let permissions = self.topic_permissions.iter().map(|it| {
            json!({
                "user": it.user,
                "vhost": it.vhost,
                "exchange": it.exchange,
                "write": it.permissions.write(),
                "read": it.permissions.read(),
            })
        });
        add("topic_permissions", permissions.collect());
        add("parameters", self.parameters());
        let parameters = self.global_parameters.iter();
        let parameters = parameters.map(|it| json!({"name": it.name, "value": field(&it.value)}));
        add("global_parameters", parameters.collect());
        let policies = self.policies.iter().map(|it| {
            let mut fields = policy(&it.policy);
            fields.insert("vhost".into(), it.vhost.as_str().into());
            fields.insert("name".into(), it.policy.name.as_str().into());
            Value::Object(fields)
        });
        add("policies", policies.collect());
        add("queues", self.queues.iter().map(queue).collect());
        let exchanges = self.exchanges.iter().map(|it| {
            json!({
                "name": it.name.as_str(),
                "vhost": it.vhost,
                "type": it.kind,
                "durable": it.durable,
                "auto_delete": it.auto_delete,
                "internal": it.internal,
                "arguments": table(&it.arguments),
            })
        });
        add("exchanges", exchanges.collect());
        add("bindings", self.bindings.iter().map(binding).collect());
        if let Some(version) = &self.rabbitmq_version {
            for name in ["rabbit_version", "rabbitmq_version"] {
                all.insert(name.into(), version.as_str().into());
            }
        }
        format!("{:#}", Value::Object(all))
    }

    fn parameters(&self) -> Vec<Value> {
        let parameter = |vhost: &str, component: &str, name: &str, value: Value| json!({"vhost": vhost, "component": component, "name": name, "value": value});
        let limits = self.vhost_limits.iter().map(|it| {
            let limits = [
                ("max-connections", it.limits.max_connections),
                ("max-queues", it.limits.max_queues),
            ];
            parameter(&it.vhost, LIMITS, "limits", limits_of(limits))
        });
        let policies = self.operator_policies.iter().map(|it| {
            let value = Value::Object(policy(&it.policy));
            parameter(&it.vhost, OPERATOR_POLICY, &it.policy.name, value)
        });
        let others = self.parameters.iter();
        let others =
            others.map(|it| parameter(&it.vhost, &it.component, &it.name, field(&it.value)));
        limits.chain(policies).chain(others).collect()
    }
}

fn user(user: &UserDefinition) -> Value {
    let mut fields = Map::new();
    fields.insert("name".into(), user.name.as_str().into());
    fields.insert("tags".into(), user.tags.as_slice().into());
    let limits = [
        ("max-connections", user.limits.max_connections),
        ("max-channels", user.limits.max_channels),
    ];
    fields.insert("limits".into(), limits_of(limits));
    let hash = match &user.password {
        Password::Plain(password) if password.is_empty() => Some(String::new()),
        Password::Plain(password) => {
            let password = String::from_utf8_lossy(password.expose());
            fields.insert("password".into(), password.as_ref().into());
            None
        }
        Password::Hash(hash) => Some(hash.to_base64()),
    };
    if let Some(hash) = hash {
        let algorithm = match &user.password {
            Password::Plain(_) => HashingAlgorithm::default(),
            Password::Hash(hash) => hash.algorithm(),
        };
        fields.insert("password_hash".into(), hash.into());
        fields.insert("hashing_algorithm".into(), algorithm.name().into());
    }
    Value::Object(fields)
}

fn limits_of(limits: [(&str, Option<u64>); 2]) -> Value {
    let set = limits.into_iter().filter_map(|(name, limit)| {
        let limit = limit?;
        Some((name.to_string(), limit.into()))
    });
    Value::Object(set.collect())
}

fn policy(policy: &Policy) -> Map<String, Value> {
    let mut fields = Map::new();
    fields.insert("pattern".into(), policy.pattern.as_str().into());
    fields.insert("apply-to".into(), policy.apply_to.name().into());
    fields.insert("priority".into(), policy.priority.into());
    fields.insert("definition".into(), table(&policy.definition));
    fields
}

fn queue(queue: &QueueDefinition) -> Value {
    let kind = queue.arguments.get("x-queue-type");
    json!({
        "name": queue.name.as_str(),
        "vhost": queue.vhost,
        "type": kind.and_then(FieldValue::as_str).unwrap_or("classic"),
        "durable": queue.durable,
        "auto_delete": queue.auto_delete,
        "arguments": table(&queue.arguments),
    })
}

fn binding(binding: &BindingDefinition) -> Value {
    let (kind, destination) = match &binding.destination {
        BindingTarget::Queue(name) => ("queue", name),
        BindingTarget::Exchange(name) => ("exchange", name),
    };
    json!({
        "source": binding.source.as_str(),
        "vhost": binding.vhost,
        "destination": destination.as_str(),
        "destination_type": kind,
        "routing_key": binding.routing_key.as_str(),
        "arguments": table(&binding.arguments),
    })
}

fn table(table: &FieldTable) -> Value {
    let fields = table.iter();
    let fields = fields.map(|(name, value)| (name.as_str().to_string(), field(value)));
    Value::Object(fields.collect())
}

/// Converts a field. The types that JSON does not have become numbers and texts, as in RabbitMQ.
fn field(value: &FieldValue) -> Value {
    match value {
        FieldValue::Bool(flag) => (*flag).into(),
        FieldValue::Array(values) => values.iter().map(field).collect(),
        FieldValue::Table(fields) => table(fields),
        FieldValue::Decimal(decimal) => {
            let digits = f64::from(decimal.signed());
            (0..decimal.scale)
                .fold(digits, |number, _| number / 10.0)
                .into()
        }
        FieldValue::Timestamp(time) => time.0.into(),
        FieldValue::Void => Value::Null,
        other => match (other.as_i64(), other.as_f64(), other.as_bytes()) {
            (Some(number), ..) => number.into(),
            (None, Some(number), _) => number.into(),
            (None, None, Some(bytes)) => String::from_utf8_lossy(bytes).as_ref().into(),
            (None, None, None) => Value::Null,
        },
    }
}
