//! The changes of users, virtual hosts, policies and parameters at run time.

use alloc::{string::String, vec::Vec};

#[cfg(feature = "definitions")]
use amqp_core::wire::FieldValue;

use super::change::{Change, DurableVhost};
#[cfg(feature = "definitions")]
use crate::definitions::ParameterDefinition;
use crate::{
    admin::VhostLimits,
    broker::Broker,
    model::vhost::Vhost,
    policy::{Policies, PolicyKind},
};

impl Broker {
    /// Records a user that is added or changed. With the feature `definitions` the broker keeps the
    /// hash of the password from now on, as RabbitMQ does.
    pub(crate) fn record_user(&mut self, name: &str) {
        if let Some(user) = self.users.get_mut(name) {
            #[cfg(feature = "definitions")]
            {
                user.password = user.password.hashed(&mut self.random);
            }
            if self.journal.enabled {
                self.journal.push(Change::UserSet(user.clone()));
            }
        }
    }

    pub(crate) fn record_user_deleted(&mut self, name: &str) {
        self.journal.push(Change::UserDeleted { name: name.into() });
    }

    /// Records a virtual host that is added or changed.
    pub(crate) fn record_vhost(&mut self, name: &str) {
        if self.journal.enabled
            && let Some(found) = self.vhosts.get(name)
        {
            self.journal.push(vhost(found));
        }
    }

    pub(crate) fn record_vhost_deleted(&mut self, name: &str) {
        self.journal
            .push(Change::VhostDeleted { name: name.into() });
    }

    /// Records that a policy is set.
    pub(crate) fn record_policy(&mut self, vhost: &str, kind: PolicyKind, name: &str) {
        if self.journal.enabled
            && let Some(found) = self.vhosts.get_mut(vhost)
            && let Some(policy) = found.policies_of(kind).get(name)
        {
            self.journal.push(Change::PolicySet {
                vhost: vhost.into(),
                kind,
                policy: policy.clone(),
            });
        }
    }

    pub(crate) fn record_policy_cleared(&mut self, vhost: &str, kind: PolicyKind, name: &str) {
        self.journal.push(Change::PolicyCleared {
            vhost: vhost.into(),
            kind,
            name: name.into(),
        });
    }

    /// Records that a parameter is set.
    #[cfg(feature = "definitions")]
    pub(crate) fn record_parameter(&mut self, parameter: &ParameterDefinition) {
        if self.journal.enabled {
            self.journal.push(Change::ParameterSet {
                vhost: parameter.vhost.clone(),
                component: parameter.component.clone(),
                name: parameter.name.clone(),
                value: parameter.value.clone(),
            });
        }
    }

    #[cfg(feature = "definitions")]
    pub(crate) fn record_global_parameter(&mut self, name: String, value: FieldValue) {
        self.journal
            .push(Change::GlobalParameterSet { name, value });
    }

    /// Adds the users and virtual hosts that are not as in the configuration, and all policies and
    /// parameters.
    pub(super) fn snapshot_administration(&self, changes: &mut Vec<Change>) {
        for found in self.vhosts.values() {
            if !self.is_configured(found) {
                changes.push(vhost(found));
            }
        }
        for user in self.users.values() {
            if !self.config.users.contains(user) {
                changes.push(Change::UserSet(user.clone()));
            }
        }
        for (name, vhost) in &self.vhosts {
            policies(name, PolicyKind::Plain, &vhost.policies, changes);
            policies(
                name,
                PolicyKind::Operator,
                &vhost.operator_policies,
                changes,
            );
            let parameters = vhost.parameters.iter();
            changes.extend(parameters.map(|((component, parameter), value)| {
                Change::ParameterSet {
                    vhost: name.clone(),
                    component: component.clone(),
                    name: parameter.clone(),
                    value: value.clone(),
                }
            }));
        }
        let parameters = self.global_parameters.iter();
        changes.extend(parameters.map(|(name, value)| Change::GlobalParameterSet {
            name: name.clone(),
            value: value.clone(),
        }));
    }

    /// Returns whether a virtual host is as the configuration makes it.
    fn is_configured(&self, vhost: &Vhost) -> bool {
        self.config.vhosts.contains(&vhost.name)
            && vhost.limits == VhostLimits::default()
            && vhost.metadata.is_empty()
    }

    pub(super) fn apply_vhost(&mut self, durable: DurableVhost) {
        let vhost = self.vhost_named(durable.name);
        vhost.limits = durable.limits;
        vhost.metadata = durable.metadata;
    }

    /// Adds the users and virtual hosts of the configuration that are missing, and applies all
    /// policies.
    pub(super) fn end_administration(&mut self) {
        for user in self.config.users.clone() {
            let name = user.name.clone();
            self.users.entry(name).or_insert(user);
        }
        for name in self.config.vhosts.clone() {
            self.vhost_named(name);
        }
        let names: Vec<String> = self.vhosts.keys().cloned().collect();
        for name in names {
            self.apply_policies(&name);
        }
    }
}

fn vhost(found: &Vhost) -> Change {
    Change::VhostSet(DurableVhost {
        name: found.name.clone(),
        limits: found.limits,
        metadata: found.metadata.clone(),
    })
}

fn policies(vhost: &str, kind: PolicyKind, policies: &Policies, changes: &mut Vec<Change>) {
    changes.extend(policies.values().map(|policy| Change::PolicySet {
        vhost: vhost.into(),
        kind,
        policy: policy.clone(),
    }));
}
