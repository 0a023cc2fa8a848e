//! RabbitMQ's definitions: users, virtual hosts, permissions, policies, queues, exchanges and
//! bindings, as in its `definitions.json` (<https://www.rabbitmq.com/docs/definitions>).
//!
//! ```
//! use amqp_broker::{Broker, Config, definitions::Definitions};
//!
//! let definitions = Definitions::from_json(
//!     r#"{
//!         "vhosts": [{"name": "shop"}],
//!         "users": [{"name": "anna", "password": "secret", "tags": ["administrator"]}],
//!         "permissions": [
//!             {"user": "anna", "vhost": "shop", "configure": ".*", "write": ".*", "read": ".*"}
//!         ],
//!         "queues": [{"name": "orders", "vhost": "shop", "durable": true}]
//!     }"#,
//! )?;
//! let mut broker = Broker::new(Config::default())?;
//! let warnings = broker.apply(&definitions)?;
//! assert!(warnings.is_empty());
//! assert!(broker.inspect().vhost("shop").is_some_and(|shop| shop.queue("orders").is_some()));
//!
//! let exported = broker.definitions().to_json();
//! assert!(exported.contains("orders") && !exported.contains("secret"));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod apply;
mod check;
mod export;
mod password;
mod path;
mod read;
mod reader;
mod write;

use alloc::{string::String, vec::Vec};

use amqp_core::wire::{FieldTable, FieldValue, ShortStr};

use crate::{
    admin::{UserLimits, VhostLimits},
    config::Password,
    inspect::BindingTarget,
    permission::{Permissions, TopicPermissions},
    policy::Policy,
};

pub use self::{
    password::{HashingAlgorithm, PasswordHash},
    path::{DefinitionsError, DefinitionsWarning},
};

/// RabbitMQ's definitions (<https://www.rabbitmq.com/docs/definitions>). Messages are not among
/// them.
///
/// They are read with [`from_json`](Self::from_json) and written with [`to_json`](Self::to_json);
/// [`Broker::apply`](crate::Broker::apply) imports and
/// [`Broker::definitions`](crate::Broker::definitions) exports them.
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct Definitions {
    /// The version of RabbitMQ that wrote them: `Some` if it is in the file.
    pub rabbitmq_version: Option<String>,
    /// The users.
    pub users: Vec<UserDefinition>,
    /// The virtual hosts.
    pub vhosts: Vec<VhostDefinition>,
    /// The permissions of users in virtual hosts.
    pub permissions: Vec<PermissionDefinition>,
    /// The permissions of users for routing keys of topic exchanges.
    pub topic_permissions: Vec<TopicPermissionDefinition>,
    /// The limits of virtual hosts: in the file, runtime parameters of the component `vhost-limits`.
    pub vhost_limits: Vec<VhostLimitsDefinition>,
    /// The operator policies: in the file, runtime parameters of the component `operator_policy`.
    pub operator_policies: Vec<PolicyDefinition>,
    /// The other runtime parameters of virtual hosts, which are kept.
    pub parameters: Vec<ParameterDefinition>,
    /// The global runtime parameters.
    pub global_parameters: Vec<GlobalParameterDefinition>,
    /// The policies.
    pub policies: Vec<PolicyDefinition>,
    /// The queues.
    pub queues: Vec<QueueDefinition>,
    /// The exchanges.
    pub exchanges: Vec<ExchangeDefinition>,
    /// The bindings.
    pub bindings: Vec<BindingDefinition>,
}

/// A user.
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct UserDefinition {
    /// The name.
    pub name: String,
    /// The password or its hash; an empty one matches none.
    pub password: Password,
    /// The tags.
    pub tags: Vec<String>,
    /// The limits.
    pub limits: UserLimits,
}

/// A virtual host.
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct VhostDefinition {
    /// The name.
    pub name: String,
    /// The description, the tags, and other data without an effect here.
    pub metadata: FieldTable,
}

/// The permissions of a user in a virtual host.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct PermissionDefinition {
    /// The user.
    pub user: String,
    /// The virtual host.
    pub vhost: String,
    /// The permissions.
    pub permissions: Permissions,
}

/// The permissions of a user for the routing keys of a topic exchange.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct TopicPermissionDefinition {
    /// The user.
    pub user: String,
    /// The virtual host.
    pub vhost: String,
    /// The exchange.
    pub exchange: String,
    /// The permissions.
    pub permissions: TopicPermissions,
}

/// The limits of a virtual host.
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct VhostLimitsDefinition {
    /// The virtual host.
    pub vhost: String,
    /// The limits.
    pub limits: VhostLimits,
}

/// A runtime parameter of a virtual host (<https://www.rabbitmq.com/docs/parameters>), which is kept
/// without an effect.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct ParameterDefinition {
    /// The virtual host.
    pub vhost: String,
    /// The component.
    pub component: String,
    /// The name.
    pub name: String,
    /// The value.
    pub value: FieldValue,
}

/// A global runtime parameter (<https://www.rabbitmq.com/docs/parameters>), which is kept.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct GlobalParameterDefinition {
    /// The name.
    pub name: String,
    /// The value.
    pub value: FieldValue,
}

/// A policy or an operator policy.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct PolicyDefinition {
    /// The virtual host.
    pub vhost: String,
    /// The policy.
    pub policy: Policy,
}

/// A queue. Exclusive queues are not among them.
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct QueueDefinition {
    /// The name.
    pub name: ShortStr,
    /// The virtual host.
    pub vhost: String,
    /// Whether it is durable.
    pub durable: bool,
    /// Whether it is deleted with its last consumer.
    pub auto_delete: bool,
    /// The arguments of its declaration.
    pub arguments: FieldTable,
}

/// An exchange.
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct ExchangeDefinition {
    /// The name.
    pub name: ShortStr,
    /// The virtual host.
    pub vhost: String,
    /// The type, such as `topic`.
    pub kind: String,
    /// Whether it is durable.
    pub durable: bool,
    /// Whether it is deleted with its last binding.
    pub auto_delete: bool,
    /// Whether it accepts messages only from other exchanges.
    pub internal: bool,
    /// The arguments of its declaration.
    pub arguments: FieldTable,
}

/// A binding.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct BindingDefinition {
    /// The source exchange.
    pub source: ShortStr,
    /// The virtual host.
    pub vhost: String,
    /// The destination.
    pub destination: BindingTarget,
    /// The routing key or pattern.
    pub routing_key: ShortStr,
    /// The arguments.
    pub arguments: FieldTable,
}
