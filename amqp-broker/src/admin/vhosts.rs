//! Virtual hosts (<https://www.rabbitmq.com/docs/vhosts>).

use alloc::{format, string::String, vec::Vec};

use super::{Admin, AdminError};
use crate::model::vhost::Vhost;

impl Admin<'_> {
    /// Adds a virtual host with the predeclared exchanges. No user has permissions in it.
    ///
    /// # Errors
    /// If there is one of that name already.
    pub fn add_vhost(&mut self, name: impl Into<String>) -> Result<(), AdminError> {
        let name = name.into();
        if self.broker.vhosts.contains_key(&name) {
            return Err(AdminError::VhostExists(name));
        }
        let vhost = Vhost::new(name.clone());
        self.broker.vhosts.insert(name.clone(), vhost);
        self.broker.record_vhost(&name);
        Ok(())
    }

    /// Deletes a virtual host with its queues, exchanges, policies and permissions. Its consumers
    /// are cancelled, and its connections closed with 320 (connection-forced), as in RabbitMQ.
    ///
    /// # Errors
    /// If there is no such virtual host.
    pub fn delete_vhost(&mut self, name: &str) -> Result<(), AdminError> {
        let queues: Vec<_> = self.vhost(name)?.queues.values().copied().collect();
        for queue in queues {
            self.broker.delete_queue(queue);
        }
        if let Some(gone) = self.broker.vhosts.remove(name) {
            let exchanges = gone.exchanges.into_iter();
            let durable = exchanges.filter(|(_, exchange)| exchange.durable);
            let durable = durable.map(|(name, _)| name);
            self.broker.record_exchanges_deleted(name, durable);
        }
        let mut changed = Vec::new();
        for user in self.broker.users.values_mut() {
            let had = user.topic_permissions.len();
            user.topic_permissions.retain(|(vhost, _), _| vhost != name);
            if user.permissions.remove(name).is_some() || user.topic_permissions.len() < had {
                changed.push(user.name.clone());
            }
        }
        for user in changed {
            self.broker.record_user(&user);
        }
        self.broker.record_vhost_deleted(name);
        self.close_vhost_connections(name, &format!("vhost '{name}' is deleted"));
        Ok(())
    }
}
