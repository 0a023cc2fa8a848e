//! Commands of an operator: policies, permissions, limits, and connections that are closed.

use amqp_broker::{ApplyTo, Policy, TopicPermissions, VhostLimits};
use amqp_tokio::wire::FieldValue;

use crate::{
    context::Ctx,
    harness::{Failure, Outcome},
    operator::Operator,
};

/// A setting of a policy: a number or a text.
type Setting<'a> = (&'a str, FieldValue);

impl Ctx {
    /// Sets a policy in this scenario's virtual host.
    ///
    /// # Errors
    /// As [`Node::ctl`](crate::rabbitmq::Node::ctl), and when the policy is invalid.
    pub async fn set_policy(
        &self,
        name: &str,
        pattern: &str,
        apply_to: &str,
        definition: &[Setting<'_>],
    ) -> Outcome {
        match self.operator() {
            Operator::RabbitMq(node) => {
                let (vhost, json) = (&self.vhost, json(definition));
                let set = ["set_policy", "--vhost", vhost, name, pattern, &json];
                let of = ["--priority", "1", "--apply-to", apply_to];
                self.ctl(node, &[&set[..], &of].concat()).await?;
            }
            Operator::Embedded(embedded) => {
                let policy = policy(name, pattern, apply_to, definition)?;
                let set = |broker: &mut amqp_broker::Broker| {
                    broker.admin().set_policy(&self.vhost, policy)
                };
                embedded.broker().with(set)?;
            }
        }
        Ok(())
    }

    /// Clears a policy in this scenario's virtual host.
    ///
    /// # Errors
    /// As [`Node::ctl`](crate::rabbitmq::Node::ctl), and when there is no such policy.
    pub async fn clear_policy(&self, name: &str) -> Outcome {
        match self.operator() {
            Operator::RabbitMq(node) => {
                let clear = ["clear_policy", "--vhost", &self.vhost, name];
                self.ctl(node, &clear).await?;
            }
            Operator::Embedded(embedded) => embedded
                .broker()
                .with(|broker| broker.admin().clear_policy(&self.vhost, name))?,
        }
        Ok(())
    }

    /// Sets an operator policy for queues in this scenario's virtual host.
    ///
    /// # Errors
    /// As [`set_policy`](Self::set_policy).
    pub async fn set_operator_policy(
        &self,
        name: &str,
        pattern: &str,
        definition: &[Setting<'_>],
    ) -> Outcome {
        match self.operator() {
            Operator::RabbitMq(node) => {
                let (vhost, json) = (&self.vhost, json(definition));
                let set = ["set_operator_policy", "--vhost", vhost, name, pattern];
                let of = [json.as_str(), "--apply-to", "queues"];
                self.ctl(node, &[&set[..], &of].concat()).await?;
            }
            Operator::Embedded(embedded) => {
                let policy = policy(name, pattern, "queues", definition)?;
                let set = |broker: &mut amqp_broker::Broker| {
                    broker.admin().set_operator_policy(&self.vhost, policy)
                };
                embedded.broker().with(set)?;
            }
        }
        Ok(())
    }

    /// Limits the number of queues in this scenario's virtual host.
    ///
    /// # Errors
    /// As [`Node::ctl`](crate::rabbitmq::Node::ctl).
    pub async fn limit_queues(&self, max: u64) -> Outcome {
        match self.operator() {
            Operator::RabbitMq(node) => {
                let limits = format!("{{\"max-queues\": {max}}}");
                let set = ["set_vhost_limits", "--vhost", &self.vhost, &limits];
                self.ctl(node, &set).await?;
            }
            Operator::Embedded(embedded) => {
                let limits = VhostLimits::default().max_queues(max);
                let broker = embedded.broker();
                broker.with(|broker| broker.admin().set_vhost_limits(&self.vhost, limits))?;
            }
        }
        Ok(())
    }

    /// Sets the permissions of `guest` for the routing keys of an exchange in this scenario's
    /// virtual host.
    ///
    /// # Errors
    /// As [`Node::ctl`](crate::rabbitmq::Node::ctl), and when a pattern is invalid.
    pub async fn permit_topics(&self, exchange: &str, write: &str, read: &str) -> Outcome {
        match self.operator() {
            Operator::RabbitMq(node) => {
                let set = ["set_topic_permissions", "--vhost", &self.vhost, "guest"];
                let of = [exchange, write, read];
                self.ctl(node, &[&set[..], &of].concat()).await?;
            }
            Operator::Embedded(embedded) => {
                let permissions = TopicPermissions::new(write, read)?;
                embedded.broker().with(|broker| {
                    let mut admin = broker.admin();
                    admin.set_topic_permissions("guest", &self.vhost, exchange, &permissions)
                })?;
            }
        }
        Ok(())
    }

    /// Closes all connections to this scenario's virtual host.
    ///
    /// # Errors
    /// As [`Node::ctl`](crate::rabbitmq::Node::ctl).
    pub async fn close_connections(&self, reason: &str) -> Outcome {
        match self.operator() {
            Operator::RabbitMq(node) => {
                let close = ["close_all_connections", "--vhost", &self.vhost, reason];
                self.ctl(node, &close).await?;
            }
            Operator::Embedded(embedded) => {
                let broker = embedded.broker();
                broker.with(|broker| broker.admin().close_vhost_connections(&self.vhost, reason));
            }
        }
        Ok(())
    }
}

fn policy(
    name: &str,
    pattern: &str,
    apply_to: &str,
    definition: &[Setting<'_>],
) -> Result<Policy, Failure> {
    let apply_to = ApplyTo::from_name(apply_to).ok_or("nothing to apply to")?;
    let policy = Policy::new(name, pattern)?.apply_to(apply_to).priority(1);
    let settings = definition.iter();
    Ok(settings.fold(policy, |policy, (setting, value)| {
        policy.with(setting, value.clone())
    }))
}

/// A definition as JSON.
fn json(definition: &[Setting<'_>]) -> String {
    let fields = definition.iter().map(|(setting, value)| {
        let value = match value.as_i64() {
            Some(number) => number.to_string(),
            None => format!("\"{}\"", value.as_str().unwrap_or_default()),
        };
        format!("\"{setting}\": {value}")
    });
    format!("{{{}}}", fields.collect::<Vec<_>>().join(", "))
}
