//! Definitions from JSON.

use alloc::{
    format,
    string::{String, ToString as _},
};

use amqp_core::{
    text::Quoted,
    wire::{FieldTable, FieldValue, Secret},
};
use serde_json::Value;

use super::{
    BindingDefinition, Definitions, DefinitionsError, ExchangeDefinition,
    GlobalParameterDefinition, HashingAlgorithm, ParameterDefinition, PasswordHash,
    PermissionDefinition, PolicyDefinition, QueueDefinition, TopicPermissionDefinition,
    UserDefinition, VhostDefinition, VhostLimitsDefinition, path::Path, reader::Object,
};
use crate::{
    admin::{UserLimits, VhostLimits},
    config::Password,
    inspect::BindingTarget,
    pattern::Pattern,
    permission::{Permissions, TopicPermissions},
    policy::{ApplyTo, Policy},
};

/// The component of the limits of a virtual host.
pub(super) const LIMITS: &str = "vhost-limits";

/// The component of operator policies.
pub(super) const OPERATOR_POLICY: &str = "operator_policy";

type Outcome<T> = Result<T, DefinitionsError>;

impl Definitions {
    /// Reads definitions from JSON, as RabbitMQ exports them: by its HTTP API, by
    /// `rabbitmqadmin export` or by `rabbitmqctl export_definitions`. Unknown fields are ignored.
    ///
    /// # Errors
    /// If the text is not JSON, or a field is missing or has a wrong type.
    pub fn from_json(text: &str) -> Result<Self, DefinitionsError> {
        let value: Value = serde_json::from_str(text).map_err(|error| DefinitionsError {
            path: format!("line {}, column {}", error.line(), error.column()),
            reason: error.to_string(),
        })?;
        let root = Path::Root;
        let all = Object::new(&value, &root)?;
        let version = match all.optional_text("rabbitmq_version")? {
            None => all.optional_text("rabbit_version")?,
            version => version,
        };
        let mut definitions = Self {
            rabbitmq_version: version.map(Into::into),
            users: all.list("users", read_user)?,
            vhosts: all.list("vhosts", read_vhost)?,
            permissions: all.list("permissions", read_permission)?,
            topic_permissions: all.list("topic_permissions", read_topic_permission)?,
            global_parameters: all.list("global_parameters", read_global_parameter)?,
            policies: all.list("policies", read_policy)?,
            queues: all.list("queues", read_queue)?,
            exchanges: all.list("exchanges", read_exchange)?,
            bindings: all.list("bindings", read_binding)?,
            ..Self::default()
        };
        for parameter in all.list("parameters", read_parameter)? {
            match parameter {
                Parameter::VhostLimits(limits) => definitions.vhost_limits.push(limits),
                Parameter::OperatorPolicy(policy) => definitions.operator_policies.push(policy),
                Parameter::Other(other) => definitions.parameters.push(other),
            }
        }
        Ok(definitions)
    }
}

fn read_user(user: &Object<'_>) -> Outcome<UserDefinition> {
    let limits = user.table("limits")?;
    Ok(UserDefinition {
        name: user.text("name")?,
        password: read_password(user)?,
        tags: user.words("tags")?,
        limits: UserLimits {
            max_connections: limit(&limits, "max-connections"),
            max_channels: limit(&limits, "max-channels"),
        },
    })
}

/// Returns a limit: `Some` if it is there and not negative, which means no limit.
fn limit(limits: &FieldTable, name: &str) -> Option<u64> {
    let limit = limits.get(name).and_then(FieldValue::as_i64)?;
    u64::try_from(limit).ok()
}

fn read_password(user: &Object<'_>) -> Outcome<Password> {
    const ALGORITHM: &str = "hashing_algorithm";
    const HASH: &str = "password_hash";
    let password = user.optional_text("password")?;
    match (password, user.optional_text(HASH)?) {
        (Some(_), Some(_)) => Err(user.error(HASH, "there is a password, too")),
        (Some(password), None) => Ok(Password::Plain(Secret::from(password))),
        (None, None | Some("")) => Ok(Password::default()),
        (None, Some(hash)) => {
            let algorithm = match user.optional_text(ALGORITHM)? {
                None => HashingAlgorithm::default(),
                Some(name) => HashingAlgorithm::from_name(name).ok_or_else(|| {
                    let reason = format_args!("{} is not supported", Quoted(name)).to_string();
                    user.error(ALGORITHM, reason)
                })?,
            };
            match PasswordHash::from_base64(algorithm, hash) {
                Some(hash) => Ok(Password::Hash(hash)),
                None => {
                    let name = algorithm.name();
                    let reason = format!("is not the base64 of a salt and a hash of {name}");
                    Err(user.error(HASH, reason))
                }
            }
        }
    }
}

fn read_vhost(vhost: &Object<'_>) -> Outcome<VhostDefinition> {
    Ok(VhostDefinition {
        name: vhost.text("name")?,
        metadata: vhost.table("metadata")?,
    })
}

fn read_permission(permission: &Object<'_>) -> Outcome<PermissionDefinition> {
    let configure = read_pattern(permission, "configure")?;
    let write = read_pattern(permission, "write")?;
    let read = read_pattern(permission, "read")?;
    Ok(PermissionDefinition {
        user: permission.text("user")?,
        vhost: permission.text("vhost")?,
        permissions: Permissions {
            configure,
            write,
            read,
        },
    })
}

fn read_topic_permission(permission: &Object<'_>) -> Outcome<TopicPermissionDefinition> {
    let write = read_pattern(permission, "write")?;
    let read = read_pattern(permission, "read")?;
    Ok(TopicPermissionDefinition {
        user: permission.text("user")?,
        vhost: permission.text("vhost")?,
        exchange: permission.text("exchange")?,
        permissions: TopicPermissions { write, read },
    })
}

fn read_pattern(object: &Object<'_>, name: &str) -> Outcome<Pattern> {
    Pattern::of_permission(&object.text(name)?).map_err(|bad| object.error(name, bad))
}

/// The runtime parameters by component.
enum Parameter {
    VhostLimits(VhostLimitsDefinition),
    OperatorPolicy(PolicyDefinition),
    Other(ParameterDefinition),
}

fn read_parameter(parameter: &Object<'_>) -> Outcome<Parameter> {
    let vhost = parameter.text("vhost")?;
    let name = parameter.text("name")?;
    let component = parameter.text("component")?;
    Ok(match component.as_str() {
        LIMITS => {
            let limits = parameter.table("value")?;
            Parameter::VhostLimits(VhostLimitsDefinition {
                vhost,
                limits: VhostLimits {
                    max_connections: limit(&limits, "max-connections"),
                    max_queues: limit(&limits, "max-queues"),
                },
            })
        }
        OPERATOR_POLICY => {
            let policy = parameter.object("value", |value| read_policy_as(value, name))?;
            Parameter::OperatorPolicy(PolicyDefinition { vhost, policy })
        }
        _ => Parameter::Other(ParameterDefinition {
            vhost,
            component,
            name,
            value: parameter.value("value")?,
        }),
    })
}

fn read_global_parameter(parameter: &Object<'_>) -> Outcome<GlobalParameterDefinition> {
    Ok(GlobalParameterDefinition {
        name: parameter.text("name")?,
        value: parameter.value("value")?,
    })
}

fn read_policy(policy: &Object<'_>) -> Outcome<PolicyDefinition> {
    let vhost = policy.text("vhost")?;
    let policy = read_policy_as(policy, policy.text("name")?)?;
    Ok(PolicyDefinition { vhost, policy })
}

/// Reads a policy, or the value of an operator policy.
fn read_policy_as(object: &Object<'_>, name: String) -> Outcome<Policy> {
    let pattern = object.text("pattern")?;
    let apply_to = object.optional_text("apply-to")?.unwrap_or("all");
    let apply_to = ApplyTo::from_name(apply_to)
        .ok_or_else(|| object.error("apply-to", format_args!("{} is unknown", Quoted(apply_to))))?;
    let policy = Policy::new(name, pattern).map_err(|bad| object.error("pattern", bad))?;
    Ok(policy
        .apply_to(apply_to)
        .priority(object.integer("priority")?)
        .definition(object.table("definition")?))
}

fn read_queue(queue: &Object<'_>) -> Outcome<QueueDefinition> {
    Ok(QueueDefinition {
        name: queue.short("name")?,
        vhost: queue.text("vhost")?,
        durable: queue.flag("durable")?,
        auto_delete: queue.flag("auto_delete")?,
        arguments: queue.table("arguments")?,
    })
}

fn read_exchange(exchange: &Object<'_>) -> Outcome<ExchangeDefinition> {
    Ok(ExchangeDefinition {
        name: exchange.short("name")?,
        vhost: exchange.text("vhost")?,
        kind: exchange.text("type")?,
        durable: exchange.flag("durable")?,
        auto_delete: exchange.flag("auto_delete")?,
        internal: exchange.flag("internal")?,
        arguments: exchange.table("arguments")?,
    })
}

fn read_binding(binding: &Object<'_>) -> Outcome<BindingDefinition> {
    const KIND: &str = "destination_type";
    let destination = binding.short("destination")?;
    let destination = match binding.text(KIND)?.as_str() {
        "queue" => BindingTarget::Queue(destination),
        "exchange" => BindingTarget::Exchange(destination),
        other => {
            return Err(binding.error(KIND, format_args!("{} is unknown", Quoted(other))));
        }
    };
    Ok(BindingDefinition {
        source: binding.short("source")?,
        vhost: binding.text("vhost")?,
        destination,
        routing_key: binding.short("routing_key")?,
        arguments: binding.table("arguments")?,
    })
}
