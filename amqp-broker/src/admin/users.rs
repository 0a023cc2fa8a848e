//! Users and their permissions (<https://www.rabbitmq.com/docs/access-control>).

use alloc::{
    format,
    string::{String, ToString as _},
};

use amqp_core::wire::Secret;

use super::{Admin, AdminError};
use crate::{
    config::User,
    permission::{Permissions, TopicPermissions},
};

impl Admin<'_> {
    /// Adds a user.
    ///
    /// # Errors
    /// If there is one of that name already, or no virtual host for some of the permissions.
    pub fn add_user(&mut self, user: User) -> Result<(), AdminError> {
        if self.broker.users.contains_key(&user.name) {
            return Err(AdminError::UserExists(user.name));
        }
        for vhost in user.permissions.keys() {
            self.vhost(vhost)?;
        }
        let name = user.name.clone();
        self.broker.users.insert(name.clone(), user);
        self.broker.record_user(&name);
        Ok(())
    }

    /// Deletes a user with the permissions, and closes the user's connections with 320
    /// (connection-forced), as RabbitMQ does.
    ///
    /// # Errors
    /// If there is no such user.
    pub fn delete_user(&mut self, name: &str) -> Result<(), AdminError> {
        self.user(name)?;
        self.broker.users.remove(name);
        self.broker.record_user_deleted(name);
        self.close_user_connections(name, &format!("user '{name}' is deleted"));
        Ok(())
    }

    /// Changes the password of a user. With an empty one, the user can log in only with EXTERNAL.
    /// Open connections stay.
    ///
    /// # Errors
    /// If there is no such user.
    pub fn change_password(
        &mut self,
        user: &str,
        password: impl Into<Secret>,
    ) -> Result<(), AdminError> {
        self.user(user)?.set_password(password.into());
        self.broker.record_user(user);
        Ok(())
    }

    /// Sets the tags of a user, in place of the previous ones. Of RabbitMQ's tags `impersonator` has
    /// an effect here: the user may publish with any `user-id`
    /// (<https://www.rabbitmq.com/docs/validated-user-id>), on connections that log in from now on.
    ///
    /// # Errors
    /// If there is no such user.
    pub fn set_user_tags<T: Into<String>>(
        &mut self,
        user: &str,
        tags: impl IntoIterator<Item = T>,
    ) -> Result<(), AdminError> {
        self.user(user)?.tags = tags.into_iter().map(Into::into).collect();
        self.broker.record_user(user);
        Ok(())
    }

    /// Sets the permissions of a user in a virtual host, in place of the previous ones.
    ///
    /// # Errors
    /// If there is no such user or virtual host.
    pub fn set_permissions(
        &mut self,
        user: &str,
        vhost: &str,
        permissions: Permissions,
    ) -> Result<(), AdminError> {
        self.vhost(vhost)?;
        let found = self.user(user)?;
        found.permissions.insert(vhost.into(), permissions);
        self.broker.record_user(user);
        Ok(())
    }

    /// Clears the permissions of a user in a virtual host. Open connections stay, and their requests
    /// are refused.
    ///
    /// # Errors
    /// If there is no such user or virtual host.
    pub fn clear_permissions(&mut self, user: &str, vhost: &str) -> Result<(), AdminError> {
        self.vhost(vhost)?;
        self.user(user)?.permissions.remove(vhost);
        self.broker.record_user(user);
        Ok(())
    }

    /// Sets the permissions of a user for the routing keys of a topic exchange, in place of the
    /// previous ones. The exchange need not exist. Without them all keys are permitted
    /// (<https://www.rabbitmq.com/docs/access-control#topic-authorisation>).
    ///
    /// # Errors
    /// If there is no such user or virtual host, or if an expression does not parse with their
    /// names.
    pub fn set_topic_permissions(
        &mut self,
        user: &str,
        vhost: &str,
        exchange: &str,
        permissions: &TopicPermissions,
    ) -> Result<(), AdminError> {
        self.vhost(vhost)?;
        let found = self.user(user)?;
        let expanded = permissions.expand(user, vhost)?;
        let key = (vhost.to_string(), exchange.to_string());
        found.topic_permissions.insert(key, expanded);
        self.broker.record_user(user);
        Ok(())
    }

    /// Clears the permissions of a user for the routing keys of topic exchanges: `Some` exchange of
    /// the virtual host, or all of them.
    ///
    /// # Errors
    /// If there is no such user or virtual host.
    pub fn clear_topic_permissions(
        &mut self,
        user: &str,
        vhost: &str,
        exchange: Option<&str>,
    ) -> Result<(), AdminError> {
        self.vhost(vhost)?;
        let permissions = &mut self.user(user)?.topic_permissions;
        permissions.retain(|(host, name), _| {
            host != vhost || exchange.is_some_and(|exchange| name != exchange)
        });
        self.broker.record_user(user);
        Ok(())
    }
}
