//! The export of definitions.

use alloc::vec::Vec;

use amqp_core::wire::ShortStr;

use super::{
    BindingDefinition, Definitions, ExchangeDefinition, GlobalParameterDefinition,
    ParameterDefinition, PermissionDefinition, PolicyDefinition, QueueDefinition,
    TopicPermissionDefinition, UserDefinition, VhostDefinition, VhostLimitsDefinition,
};
use crate::{
    admin::VhostLimits,
    broker::Broker,
    inspect::BindingTarget,
    model::{
        exchange::{Binding, Destination},
        vhost::Vhost,
    },
    policy::{Policies, Policy},
};

/// The version of RabbitMQ that has the format of the export.
const VERSION: &str = "3.10.8";

impl Broker {
    /// Returns the definitions of the broker, without exclusive queues and predeclared exchanges.
    /// Passwords are hashed, with salts from the [seed](crate::Config::seed).
    #[must_use]
    pub fn definitions(&self) -> Definitions {
        let mut definitions = Definitions {
            rabbitmq_version: Some(VERSION.into()),
            ..Definitions::default()
        };
        self.export_users(&mut definitions);
        for vhost in self.vhosts.values() {
            self.export_vhost(vhost, &mut definitions);
        }
        let parameters = self.global_parameters.iter();
        definitions.global_parameters = parameters
            .map(|(name, value)| GlobalParameterDefinition {
                name: name.clone(),
                value: value.clone(),
            })
            .collect();
        definitions
    }

    fn export_users(&self, definitions: &mut Definitions) {
        let mut random = self.random.clone();
        for user in self.users.values() {
            definitions.users.push(UserDefinition {
                name: user.name.clone(),
                password: user.password.hashed(&mut random),
                tags: user.tags.clone(),
                limits: user.limits,
            });
            for (vhost, permissions) in &user.permissions {
                // A permission of the configuration may be for a virtual host that does not exist.
                if self.vhosts.contains_key(vhost) {
                    definitions.permissions.push(PermissionDefinition {
                        user: user.name.clone(),
                        vhost: vhost.clone(),
                        permissions: permissions.clone(),
                    });
                }
            }
            for ((vhost, exchange), permissions) in &user.topic_permissions {
                definitions
                    .topic_permissions
                    .push(TopicPermissionDefinition {
                        user: user.name.clone(),
                        vhost: vhost.clone(),
                        exchange: exchange.clone(),
                        permissions: permissions.clone(),
                    });
            }
        }
    }

    fn export_vhost(&self, vhost: &Vhost, definitions: &mut Definitions) {
        let name = &vhost.name;
        definitions.vhosts.push(VhostDefinition {
            name: name.clone(),
            metadata: vhost.metadata.clone(),
        });
        if vhost.limits != VhostLimits::default() {
            definitions.vhost_limits.push(VhostLimitsDefinition {
                vhost: name.clone(),
                limits: vhost.limits,
            });
        }
        let parameters = vhost.parameters.iter();
        let parameters = parameters.map(|((component, parameter), value)| ParameterDefinition {
            vhost: name.clone(),
            component: component.clone(),
            name: parameter.clone(),
            value: value.clone(),
        });
        definitions.parameters.extend(parameters);
        let policies = |policies: &Policies| -> Vec<PolicyDefinition> {
            let policies = policies.values();
            let definition = |policy: &Policy| PolicyDefinition {
                vhost: name.clone(),
                policy: policy.clone(),
            };
            policies.map(definition).collect()
        };
        definitions.policies.extend(policies(&vhost.policies));
        let operator = policies(&vhost.operator_policies);
        definitions.operator_policies.extend(operator);
        self.export_entities(vhost, definitions);
    }

    fn export_entities(&self, vhost: &Vhost, definitions: &mut Definitions) {
        let name = &vhost.name;
        let queues = vhost.queues.values().filter_map(|key| self.queues.get(key));
        let queues = queues.filter(|queue| queue.owner.is_none());
        definitions
            .queues
            .extend(queues.map(|queue| QueueDefinition {
                name: queue.name.clone(),
                vhost: name.clone(),
                durable: queue.durable,
                auto_delete: queue.auto_delete,
                arguments: queue.table.clone(),
            }));
        for (source, exchange) in &vhost.exchanges {
            if !source.is_empty() && !source.starts_with("amq.") {
                definitions.exchanges.push(ExchangeDefinition {
                    name: source.clone(),
                    vhost: name.clone(),
                    kind: exchange.kind.name().into(),
                    durable: exchange.durable,
                    auto_delete: exchange.auto_delete,
                    internal: exchange.internal,
                    arguments: exchange.arguments.clone(),
                });
            }
            let bindings = exchange.bindings().iter();
            let bindings = bindings.filter_map(|it| self.export_binding(name, source, it));
            definitions.bindings.extend(bindings);
        }
    }

    fn export_binding(
        &self,
        vhost: &str,
        source: &ShortStr,
        binding: &Binding,
    ) -> Option<BindingDefinition> {
        let destination = match &binding.destination {
            Destination::Exchange(name) => BindingTarget::Exchange(name.clone()),
            Destination::Queue(key) => {
                let queue = self.queues.get(key)?;
                // That of an exclusive queue cannot be imported.
                queue
                    .owner
                    .is_none()
                    .then(|| BindingTarget::Queue(queue.name.clone()))?
            }
        };
        Some(BindingDefinition {
            source: source.clone(),
            vhost: vhost.into(),
            destination,
            routing_key: binding.routing_key.clone(),
            arguments: binding.arguments.clone(),
        })
    }
}
