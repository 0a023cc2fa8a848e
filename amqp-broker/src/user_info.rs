//! The users of a broker, as values.

use alloc::{string::String, vec::Vec};

use crate::{
    admin::UserLimits,
    broker::Broker,
    config::User,
    permission::{Permissions, TopicPermissions},
};

/// A user, without the password.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct UserInfo {
    /// The name.
    pub name: String,
    /// The tags.
    pub tags: Vec<String>,
    /// Whether there is a password. A user without one can log in only with EXTERNAL.
    pub has_password: bool,
    /// The limits.
    pub limits: UserLimits,
    /// The permissions, by virtual host.
    pub permissions: Vec<PermissionInfo>,
    /// The permissions for routing keys of topic exchanges, by virtual host and exchange.
    pub topic_permissions: Vec<TopicPermissionInfo>,
}

/// The permissions of a user in a virtual host.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct PermissionInfo {
    /// The virtual host.
    pub vhost: String,
    /// The permissions.
    pub permissions: Permissions,
}

/// The permissions of a user for the routing keys of a topic exchange.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct TopicPermissionInfo {
    /// The virtual host.
    pub vhost: String,
    /// The exchange.
    pub exchange: String,
    /// The permissions.
    pub permissions: TopicPermissions,
}

impl Broker {
    /// Returns the users, by name.
    ///
    /// ```
    /// use amqp_broker::{Broker, Config};
    ///
    /// let broker = Broker::new(Config::default())?;
    /// assert_eq!(broker.list_users()[0].name, "guest");
    /// # Ok::<_, amqp_broker::ConfigError>(())
    /// ```
    #[must_use]
    pub fn list_users(&self) -> Vec<UserInfo> {
        self.users.values().map(inspect_user).collect()
    }
}

fn inspect_user(user: &User) -> UserInfo {
    let permissions = user.permissions.iter();
    let topic_permissions = user.topic_permissions.iter();
    UserInfo {
        name: user.name.clone(),
        tags: user.tags.clone(),
        has_password: user.password.is_set(),
        limits: user.limits,
        permissions: permissions
            .map(|(vhost, permissions)| PermissionInfo {
                vhost: vhost.clone(),
                permissions: permissions.clone(),
            })
            .collect(),
        topic_permissions: topic_permissions
            .map(|((vhost, exchange), permissions)| TopicPermissionInfo {
                vhost: vhost.clone(),
                exchange: exchange.clone(),
                permissions: permissions.clone(),
            })
            .collect(),
    }
}
