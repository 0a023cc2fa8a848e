//! Limits of virtual hosts and users (<https://www.rabbitmq.com/docs/vhosts#limits>,
//! <https://www.rabbitmq.com/docs/user-limits>).

use super::{Admin, AdminError};

/// The limits of a virtual host. More than the limit is refused; existing connections and queues
/// stay. Default no limits.
///
/// ```
/// use amqp_broker::VhostLimits;
///
/// let limits = VhostLimits::default().max_connections(10).max_queues(100);
/// assert_eq!(limits.max_queues, Some(100));
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct VhostLimits {
    /// The maximum number of open connections: `Some` if there is a limit.
    pub max_connections: Option<u64>,
    /// The maximum number of queues: `Some` if there is a limit.
    pub max_queues: Option<u64>,
}

impl VhostLimits {
    /// Sets `max_connections`.
    #[must_use]
    pub fn max_connections(mut self, max: u64) -> Self {
        self.max_connections = Some(max);
        self
    }

    /// Sets `max_queues`.
    #[must_use]
    pub fn max_queues(mut self, max: u64) -> Self {
        self.max_queues = Some(max);
        self
    }
}

/// The limits of a user. More than the limit is refused; existing connections and channels stay.
/// Default no limits.
///
/// ```
/// use amqp_broker::UserLimits;
///
/// let limits = UserLimits::default().max_connections(2).max_channels(10);
/// assert_eq!(limits.max_channels, Some(10));
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct UserLimits {
    /// The maximum number of open connections: `Some` if there is a limit.
    pub max_connections: Option<u64>,
    /// The maximum number of channels on all connections together: `Some` if there is a limit.
    pub max_channels: Option<u64>,
}

impl UserLimits {
    /// Sets `max_connections`.
    #[must_use]
    pub fn max_connections(mut self, max: u64) -> Self {
        self.max_connections = Some(max);
        self
    }

    /// Sets `max_channels`.
    #[must_use]
    pub fn max_channels(mut self, max: u64) -> Self {
        self.max_channels = Some(max);
        self
    }
}

impl Admin<'_> {
    /// Sets the limits of a virtual host, in place of the previous ones.
    ///
    /// # Errors
    /// If there is no such virtual host.
    pub fn set_vhost_limits(&mut self, vhost: &str, limits: VhostLimits) -> Result<(), AdminError> {
        self.vhost(vhost)?.limits = limits;
        self.broker.record_vhost(vhost);
        Ok(())
    }

    /// Sets the limits of a user, in place of the previous ones.
    ///
    /// # Errors
    /// If there is no such user.
    pub fn set_user_limits(&mut self, user: &str, limits: UserLimits) -> Result<(), AdminError> {
        self.user(user)?.limits = limits;
        self.broker.record_user(user);
        Ok(())
    }
}
