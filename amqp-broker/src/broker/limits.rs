//! The limits of virtual hosts and users on connections and channels
//! (<https://www.rabbitmq.com/docs/vhosts#limits>, <https://www.rabbitmq.com/docs/user-limits>).

use amqp_core::MethodId;

use super::Broker;
use crate::{keys::ConnectionKey, model::conn_state::ConnState, refusal::Refusal};

/// The method in the close for too many channels: RabbitMQ names none.
const NO_METHOD: MethodId = MethodId {
    class: 0,
    method: 0,
};

impl Broker {
    /// Returns the refusal of another connection of a user to a virtual host: `Some` if a limit is
    /// reached.
    pub(super) fn connection_limit(&self, user: &str, vhost: &str) -> Option<Refusal> {
        let of_vhost = self
            .vhosts
            .get(vhost)
            .and_then(|vhost| vhost.limits.max_connections);
        if let Some(max) = of_vhost
            && self.count_open(|conn| conn.vhost == vhost) >= max
        {
            return Some(Refusal::not_allowed(format_args!(
                "access to vhost '{vhost}' refused for user '{user}': connection limit ({max}) is \
                 reached"
            )));
        }
        let of_user = self
            .users
            .get(user)
            .and_then(|user| user.limits.max_connections);
        if let Some(max) = of_user
            && self.count_open(|conn| conn.user == user) >= max
        {
            return Some(Refusal::not_allowed(format_args!(
                "connection refused for user '{user}': user connection limit ({max}) is reached"
            )));
        }
        None
    }

    fn count_open(&self, of: impl Fn(&ConnState) -> bool) -> u64 {
        let connections = self.connections.values();
        let open = connections.filter(|conn| conn.machine.is_open() && of(conn));
        open.count() as u64
    }

    /// Closes a connection that opens a channel above the limit of its user with 530 (not-allowed).
    pub(super) fn limit_channels(&mut self, key: ConnectionKey, number: u16) {
        let Some(conn) = self.connections.get(&key) else {
            return;
        };
        let user = self.users.get(&conn.user);
        let Some(max) = user.and_then(|user| user.limits.max_channels) else {
            return;
        };
        // A channel that is open, or one above `channel_max`, is a violation of the protocol.
        let is_new = conn.machine.is_open()
            && !conn.channels.contains_key(&number)
            && conn.channels.len() < usize::from(conn.machine.tuning().channel_max);
        let own = self.connections.values();
        let own = own.filter(|other| other.user == conn.user);
        let channels: usize = own.map(|other| other.channels.len()).sum();
        if is_new && channels as u64 >= max {
            let refusal = Refusal::not_allowed(format_args!(
                "number of channels opened for user '{}' has reached the maximum allowed user \
                 limit of ({max})",
                conn.user
            ));
            self.close_connection(key, &refusal, NO_METHOD);
        }
    }
}
