//! The import of definitions.

use alloc::{collections::BTreeSet, vec::Vec};

use super::{
    BindingDefinition, Definitions, DefinitionsError, DefinitionsWarning, UserDefinition,
    check::check,
};
use crate::{
    admin::UserLimits,
    broker::Broker,
    config::User,
    inspect::BindingTarget,
    model::{
        exchange::{Binding, Destination, Exchange, ExchangeFlags},
        queue::Declared,
        vhost::Vhost,
    },
};

impl Broker {
    /// Adds the entities of definitions to the broker, as RabbitMQ imports them: users, permissions,
    /// limits, parameters and policies replace those of the same name, while existing virtual hosts,
    /// queues, exchanges and bindings stay as they are. Returns the parts that were skipped.
    ///
    /// Exclusive queues and predeclared exchanges are skipped, as are bindings of entities that do
    /// not exist, and settings of policies that RabbitMQ does not know without plugins.
    ///
    /// # Errors
    /// If a definition is invalid, refers to a user or a virtual host that does not exist, or
    /// exceeds a [limit](crate::Limits). Nothing is applied then.
    pub fn apply(
        &mut self,
        definitions: &Definitions,
    ) -> Result<Vec<DefinitionsWarning>, DefinitionsError> {
        let plan = check(self, definitions)?;
        let mut users = BTreeSet::new();
        for user in &definitions.users {
            self.import_user(user);
            users.insert(&user.name);
        }
        for definition in &definitions.vhosts {
            let name = &definition.name;
            let vhost = self.vhosts.entry(name.clone());
            let vhost = vhost.or_insert_with(|| Vhost::new(name.clone()));
            vhost.metadata = definition.metadata.clone();
            self.record_vhost(name);
        }
        for it in &definitions.permissions {
            if let Some(user) = self.users.get_mut(&it.user) {
                let permissions = it.permissions.clone();
                user.permissions.insert(it.vhost.clone(), permissions);
                users.insert(&it.user);
            }
        }
        for (it, permissions) in plan.topic_permissions {
            if let Some(user) = self.users.get_mut(&it.user) {
                let key = (it.vhost.clone(), it.exchange.clone());
                user.topic_permissions.insert(key, permissions);
                users.insert(&it.user);
            }
        }
        for user in users {
            self.record_user(user);
        }
        for (it, kind, alternate) in plan.exchanges {
            let flags = ExchangeFlags {
                durable: it.durable,
                auto_delete: it.auto_delete,
                internal: it.internal,
            };
            let exchange = Exchange::new(kind, flags, it.arguments.clone(), alternate);
            self.insert_exchange(&it.vhost, it.name.clone(), exchange);
        }
        for (kind, vhost, policy) in plan.policies {
            if let Some(found) = self.vhosts.get_mut(vhost) {
                let name = policy.name.clone();
                found.policies_of(kind).insert(name.clone(), policy);
                self.record_policy(vhost, kind, &name);
            }
        }
        self.import_parameters(definitions);
        for (it, declared_arguments) in plan.queues {
            self.insert_queue(Declared {
                name: it.name.clone(),
                vhost: it.vhost.clone(),
                durable: it.durable,
                owner: None,
                auto_delete: it.auto_delete,
                table: it.arguments.clone(),
                declared_arguments,
            });
        }
        for binding in plan.bindings {
            self.import_binding(binding);
        }
        let vhosts: Vec<_> = self.vhosts.keys().cloned().collect();
        for vhost in vhosts {
            self.apply_policies(&vhost);
        }
        self.finish();
        Ok(plan.warnings)
    }

    fn import_user(&mut self, definition: &UserDefinition) {
        let name = &definition.name;
        let user = self.users.entry(name.clone());
        let user = user.or_insert_with(|| User::new(name.clone(), ""));
        user.password = definition.password.clone();
        user.tags = definition.tags.clone();
        // Of the limits, those that are given replace the previous ones.
        let (old, new) = (user.limits, definition.limits);
        user.limits = UserLimits {
            max_connections: new.max_connections.or(old.max_connections),
            max_channels: new.max_channels.or(old.max_channels),
        };
    }

    fn import_parameters(&mut self, definitions: &Definitions) {
        for it in &definitions.vhost_limits {
            if let Some(vhost) = self.vhosts.get_mut(&it.vhost) {
                vhost.limits = it.limits;
                self.record_vhost(&it.vhost);
            }
        }
        for it in &definitions.parameters {
            if let Some(vhost) = self.vhosts.get_mut(&it.vhost) {
                let key = (it.component.clone(), it.name.clone());
                vhost.parameters.insert(key, it.value.clone());
                self.record_parameter(it);
            }
        }
        for it in &definitions.global_parameters {
            let (name, value) = (it.name.clone(), it.value.clone());
            self.global_parameters.insert(name.clone(), value.clone());
            self.record_global_parameter(name, value);
        }
    }

    fn import_binding(&mut self, definition: &BindingDefinition) {
        let Some(vhost) = self.vhosts.get_mut(&definition.vhost) else {
            return;
        };
        let destination = match &definition.destination {
            BindingTarget::Exchange(name) => Destination::Exchange(name.clone()),
            BindingTarget::Queue(name) => match vhost.queues.get(name) {
                Some(key) => Destination::Queue(*key),
                None => return,
            },
        };
        let routing_key = definition.routing_key.clone();
        let binding = Binding::new(destination, routing_key, definition.arguments.clone());
        // Does not fail: `check` has validated the arguments.
        if let Some(exchange) = vhost.exchanges.get_mut(&definition.source)
            && exchange.bind(binding.clone()).is_ok_and(|is_new| is_new)
        {
            vhost.bindings += 1;
            self.record_binding(&definition.vhost, &definition.source, &binding);
        }
    }
}
