//! Queues.

use amqp_core::wire::ShortStr;

use super::{Admin, AdminError};

impl Admin<'_> {
    /// Deletes a queue with its messages, as `rabbitmqctl delete_queue` does
    /// (<https://www.rabbitmq.com/docs/man/rabbitmqctl.8>). Its consumers are cancelled. Returns the
    /// number of messages that were ready.
    ///
    /// # Errors
    /// If there is no such virtual host, or no such queue in it.
    pub fn delete_queue(&mut self, vhost: &str, name: &str) -> Result<usize, AdminError> {
        let queues = &self.vhost(vhost)?.queues;
        let key = ShortStr::try_from(name)
            .ok()
            .and_then(|name| queues.get(&name))
            .copied();
        let key = key.ok_or_else(|| AdminError::NoQueue {
            name: name.into(),
            vhost: vhost.into(),
        })?;
        let ready = self.broker.delete_queue(key);
        self.broker.finish();
        Ok(ready)
    }
}
