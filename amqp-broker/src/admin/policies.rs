//! Policies and operator policies (<https://www.rabbitmq.com/docs/policies>).

use super::{Admin, AdminError};
use crate::policy::{Policy, PolicyKind};

impl Admin<'_> {
    /// Sets a policy, in place of one of the same name. It takes effect at once: queues that are
    /// longer than a new maximum length are cut, by thousands of messages per call of the broker. A
    /// message TTL concerns messages that arrive later, as in RabbitMQ.
    ///
    /// # Errors
    /// If there is no such virtual host, or a setting is invalid.
    pub fn set_policy(&mut self, vhost: &str, policy: Policy) -> Result<(), AdminError> {
        self.insert_policy(vhost, policy, PolicyKind::Plain)
    }

    /// Sets an operator policy, in place of one of the same name: numeric limits that policies and
    /// arguments cannot raise (<https://www.rabbitmq.com/docs/policies#operator-policies>).
    ///
    /// # Errors
    /// As [`set_policy`](Self::set_policy).
    pub fn set_operator_policy(&mut self, vhost: &str, policy: Policy) -> Result<(), AdminError> {
        self.insert_policy(vhost, policy, PolicyKind::Operator)
    }

    /// Clears a policy. Its effects end at once.
    ///
    /// # Errors
    /// If there is no such virtual host or policy.
    pub fn clear_policy(&mut self, vhost: &str, name: &str) -> Result<(), AdminError> {
        self.remove_policy(vhost, name, PolicyKind::Plain)
    }

    /// Clears an operator policy. Its effects end at once.
    ///
    /// # Errors
    /// As [`clear_policy`](Self::clear_policy).
    pub fn clear_operator_policy(&mut self, vhost: &str, name: &str) -> Result<(), AdminError> {
        self.remove_policy(vhost, name, PolicyKind::Operator)
    }

    fn insert_policy(
        &mut self,
        vhost: &str,
        policy: Policy,
        kind: PolicyKind,
    ) -> Result<(), AdminError> {
        let found = self.vhost(vhost)?;
        if let Err(problem) = policy.check(kind) {
            let name = policy.name;
            return Err(AdminError::InvalidPolicy { name, problem });
        }
        let name = policy.name.clone();
        found.policies_of(kind).insert(name.clone(), policy);
        self.broker.record_policy(vhost, kind, &name);
        self.apply_policies(vhost);
        Ok(())
    }

    fn remove_policy(
        &mut self,
        vhost: &str,
        name: &str,
        kind: PolicyKind,
    ) -> Result<(), AdminError> {
        let policies = self.vhost(vhost)?.policies_of(kind);
        if policies.remove(name).is_none() {
            return Err(AdminError::NoPolicy {
                name: name.into(),
                vhost: vhost.into(),
            });
        }
        self.broker.record_policy_cleared(vhost, kind, name);
        self.apply_policies(vhost);
        Ok(())
    }

    fn apply_policies(&mut self, vhost: &str) {
        self.broker.apply_policies(vhost);
        self.broker.finish();
    }
}
