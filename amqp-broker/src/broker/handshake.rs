//! Authentication, and access to virtual hosts.

use alloc::{string::String, vec::Vec};
use core::fmt;

use amqp_core::{
    protocol::ReplyCode,
    sasl::{self, AmqPlain, Credentials, External, Plain},
    server::AuthRequest,
    wire::{Secret, ShortStr},
};

use super::Broker;
use crate::{keys::ConnectionKey, notice::Notice, refusal::Refusal};

/// The user that has logged in, or the name that was refused: `Some` if the client or its transport
/// has given one.
type Login = Result<String, Option<String>>;

/// Returns `mechanisms` without EXTERNAL.
pub(super) fn without_external(mechanisms: &str) -> String {
    let names = mechanisms.split(' ').filter(|name| *name != External::NAME);
    names.collect::<Vec<_>>().join(" ")
}

/// The tag of users that may publish with any `user-id`
/// (<https://www.rabbitmq.com/docs/validated-user-id>).
const IMPERSONATOR: &str = "impersonator";

impl Broker {
    /// Decides on a login, and refuses a wrong one with 403
    /// (<https://www.rabbitmq.com/docs/auth-notification>). A response that cannot be parsed ends
    /// the connection without a reply, as in RabbitMQ. Here that includes a user name that is not
    /// UTF-8, which no user has.
    pub(super) fn authenticate(&mut self, key: ConnectionKey, request: &AuthRequest) {
        let response = request.response.expose();
        let mechanism = &request.mechanism;
        let is_offered = self.connections.get(&key).is_some_and(|conn| {
            let mut offered = conn.machine.mechanisms().split(' ');
            offered.any(|name| name == mechanism.as_str())
        });
        let user = match mechanism.as_str() {
            Plain::NAME | AmqPlain::NAME | External::NAME if !is_offered => Err(Refusal::invalid(
                format_args!("invalid authentication mechanism '{mechanism}'"),
            )),
            Plain::NAME => self.user_by_password(sasl::parse_plain(response)),
            AmqPlain::NAME => self.user_by_password(sasl::parse_amqplain(response)),
            External::NAME => Ok(self.user_by_transport(key)),
            _ => Err(Refusal::invalid(format_args!(
                "unknown authentication mechanism '{mechanism}'"
            ))),
        };
        let user = match user {
            Ok(user) => user,
            Err(refusal) => {
                self.close_without_reply(key, &refusal);
                return;
            }
        };
        let Some(conn) = self.connections.get_mut(&key) else {
            return;
        };
        // Neither call fails: the machine waits for the decision.
        match user {
            Ok(user) => {
                let tags = self.users.get(&user).map(|user| &user.tags[..]);
                let is_impersonator = |tags: &[String]| tags.iter().any(|tag| tag == IMPERSONATOR);
                conn.impersonator = tags.is_some_and(is_impersonator);
                conn.user = user;
                let _decided = conn.machine.accept();
            }
            Err(user) => {
                let refusal = Refusal::access_refused(format_args!(
                    "Login was refused using authentication mechanism {mechanism}. For details see \
                     the broker logfile."
                ));
                let _decided = conn.machine.refuse(&refusal.text);
                let mechanism = mechanism.clone();
                self.notify(key, Notice::LoginRefused { user, mechanism });
            }
        }
    }

    /// Returns the user with these credentials, if the password matches. As in RabbitMQ, an
    /// empty password never matches (<https://www.rabbitmq.com/docs/passwords>).
    fn user_by_password<E: fmt::Display>(
        &self,
        credentials: Result<Credentials, E>,
    ) -> Result<Login, Refusal> {
        let unreadable = |error| Refusal::new(ReplyCode::SYNTAX_ERROR, error);
        let credentials = credentials.map_err(unreadable)?;
        if self.has_password(&credentials.username, &credentials.password) {
            Ok(Ok(credentials.username))
        } else {
            Ok(Err(Some(credentials.username)))
        }
    }

    /// Returns whether there is a user with that password, as `rabbitmqctl authenticate_user` does.
    #[must_use]
    pub fn has_password(&self, user: &str, password: &Secret) -> bool {
        let user = self.users.get(user);
        user.is_some_and(|user| user.password.matches(password))
    }

    /// Returns the user that the transport has authenticated. The authorization identity in the
    /// client's response is ignored, as in RabbitMQ.
    fn user_by_transport(&self, key: ConnectionKey) -> Login {
        let conn = self.connections.get(&key);
        let name = conn
            .and_then(|conn| conn.external_user.clone())
            .ok_or(None)?;
        let user = self.users.get(&name).map(|user| user.name.clone());
        user.ok_or(Some(name))
    }

    /// Ends a connection during the handshake without a reply, as RabbitMQ does for an unreadable
    /// login.
    fn close_without_reply(&mut self, key: ConnectionKey, refusal: &Refusal) {
        if let Some(conn) = self.connections.get_mut(&key) {
            conn.machine.close(refusal.code, &refusal.text);
        }
    }

    /// Opens the virtual host of `connection.open` (section 1.4.2.7 of the protocol reference), or
    /// refuses it with 530 (not-allowed) if it does not exist or the user has no permissions in it
    /// (<https://www.rabbitmq.com/docs/access-control>).
    pub(super) fn open_vhost(&mut self, key: ConnectionKey, name: &ShortStr) {
        let Some(conn) = self.connections.get(&key) else {
            return;
        };
        let user = self.users.get(&conn.user);
        let allowed = user.is_some_and(|user| user.permissions.contains_key(name.as_str()));
        let refusal = if !self.vhosts.contains_key(name.as_str()) {
            Some(Refusal::not_allowed(format_args!("vhost {name} not found")))
        } else if let Some(refusal) = self.connection_limit(&conn.user, name) {
            Some(refusal)
        } else if !allowed {
            Some(Refusal::not_allowed(format_args!(
                "access to vhost '{name}' refused for user '{}'",
                conn.user
            )))
        } else {
            None
        };
        let Some(conn) = self.connections.get_mut(&key) else {
            return;
        };
        if let Some(refusal) = refusal {
            conn.machine.close(refusal.code, &refusal.text);
        } else {
            conn.vhost = name.as_str().into();
            // Does not fail: the machine waits for the decision.
            let _opened = conn.machine.open();
        }
    }

    /// Closes a connection because of a method of the client. Pending confirms are sent first.
    pub(crate) fn close_connection(
        &mut self,
        key: ConnectionKey,
        refusal: &Refusal,
        method: amqp_core::MethodId,
    ) {
        debug_assert_ne!(refusal.code, ReplyCode::SUCCESS);
        self.send_confirms(key);
        let method = if refusal.is_crash { NO_METHOD } else { method };
        if let Some(conn) = self.connections.get_mut(&key) {
            conn.machine
                .close_after(refusal.code, &refusal.text, method);
            self.take_events(key);
            self.wake(key);
        }
    }
}

/// Stands for no method in a close (section 1.4.2.5 of the protocol reference).
const NO_METHOD: amqp_core::MethodId = amqp_core::MethodId {
    class: 0,
    method: 0,
};
