//! Connections that are closed with a reason.

use alloc::vec::Vec;

use amqp_core::protocol::ReplyCode;

use super::{Admin, AdminError};
use crate::{keys::ConnectionKey, model::conn_state::ConnState, refusal::Refusal};

impl Admin<'_> {
    /// Closes a connection with 320 (connection-forced) and the reason, as `rabbitmqctl
    /// close_connection` does. During the handshake it ends without a reply.
    ///
    /// # Errors
    /// If there is no such connection, or it has ended.
    pub fn close_connection(&mut self, key: ConnectionKey, reason: &str) -> Result<(), AdminError> {
        let conn = self.broker.connections.get(&key);
        if conn.is_none_or(|conn| conn.machine.is_finished()) {
            return Err(AdminError::NoConnection(key));
        }
        self.force_close(key, reason);
        self.broker.finish();
        Ok(())
    }

    /// Closes all connections of a user, as [`close_connection`](Self::close_connection) does.
    /// Returns their number.
    pub fn close_user_connections(&mut self, user: &str, reason: &str) -> usize {
        self.close_connections(reason, |conn| conn.user == user)
    }

    /// Closes all connections to a virtual host, as [`close_connection`](Self::close_connection)
    /// does. Returns their number.
    pub fn close_vhost_connections(&mut self, vhost: &str, reason: &str) -> usize {
        self.close_connections(reason, |conn| conn.vhost == vhost)
    }

    fn close_connections(&mut self, reason: &str, of: impl Fn(&ConnState) -> bool) -> usize {
        let connections = self.broker.connections.iter();
        let open = connections.filter(|(_, conn)| of(conn) && !conn.machine.is_finished());
        let keys: Vec<ConnectionKey> = open.map(|(key, _)| *key).collect();
        for key in &keys {
            self.force_close(*key, reason);
        }
        self.broker.finish();
        keys.len()
    }

    /// Closes a connection. The confirms of its publishes are sent first.
    fn force_close(&mut self, key: ConnectionKey, reason: &str) {
        let refusal = Refusal::new(ReplyCode::CONNECTION_FORCED, reason);
        self.broker.send_confirms(key);
        if let Some(conn) = self.broker.connections.get_mut(&key) {
            conn.machine.close(refusal.code, &refusal.text);
        }
        self.broker.take_events(key);
        self.broker.wake(key);
    }
}
