//! Administration of a running broker, as by `rabbitmqctl`
//! (<https://www.rabbitmq.com/docs/man/rabbitmqctl.8>).

mod connections;
mod limits;
mod policies;
mod queues;
mod users;
mod vhosts;

use alloc::string::String;

use amqp_core::text::Quoted;

use crate::{broker::Broker, config::User, keys::ConnectionKey, model::vhost::Vhost};

pub use self::limits::{UserLimits, VhostLimits};

/// Administers a running broker: users, virtual hosts, permissions, policies, limits, queues and
/// connections, as `rabbitmqctl` does.
///
/// Each call acts at once, or returns an error and has changed nothing. Permissions concern the next
/// request of an open channel: a RabbitMQ channel may remember what it was permitted until it has
/// been idle for a second.
///
/// ```
/// use amqp_broker::{Broker, Config, Permissions, User};
///
/// let mut broker = Broker::new(Config::default())?;
/// let mut admin = broker.admin();
/// admin.add_vhost("staging")?;
/// admin.add_user(User::new("anna", "secret").tags(["monitoring"]))?;
/// admin.set_permissions("anna", "staging", Permissions::all())?;
/// # Ok::<_, Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Admin<'a> {
    pub(crate) broker: &'a mut Broker,
}

impl Broker {
    /// Returns the administration of the broker.
    pub const fn admin(&mut self) -> Admin<'_> {
        self.begin_work();
        Admin { broker: self }
    }
}

/// The reason for which a call of [`Admin`] is refused.
#[derive(thiserror::Error, Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum AdminError {
    /// There is a user of that name already.
    #[error("user {} already exists", Quoted(.0))]
    UserExists(String),
    /// There is no such user.
    #[error("user {} does not exist", Quoted(.0))]
    NoUser(String),
    /// There is a virtual host of that name already.
    #[error("virtual host {} already exists", Quoted(.0))]
    VhostExists(String),
    /// There is no such virtual host.
    #[error("virtual host {} does not exist", Quoted(.0))]
    NoVhost(String),
    /// There is no such queue in the virtual host.
    #[error("queue {} does not exist in virtual host {}", Quoted(.name), Quoted(.vhost))]
    NoQueue {
        /// The name of the queue.
        name: String,
        /// The virtual host.
        vhost: String,
    },
    /// There is no such policy in the virtual host.
    #[error("policy {} does not exist in virtual host {}", Quoted(.name), Quoted(.vhost))]
    NoPolicy {
        /// The name of the policy.
        name: String,
        /// The virtual host.
        vhost: String,
    },
    /// There is no such connection, or it has ended.
    #[error("connection {} does not exist", .0.number())]
    NoConnection(ConnectionKey),
    /// A setting of a policy is unknown, or its value invalid.
    #[error("the policy {} is invalid: {problem}", Quoted(.name))]
    InvalidPolicy {
        /// The name of the policy.
        name: String,
        /// The text of RabbitMQ.
        problem: String,
    },
    /// A regular expression does not parse with the names of the user and of the virtual host.
    #[error(transparent)]
    Pattern(#[from] crate::pattern::BadPattern),
}

impl Admin<'_> {
    fn user(&mut self, name: &str) -> Result<&mut User, AdminError> {
        let user = self.broker.users.get_mut(name);
        user.ok_or_else(|| AdminError::NoUser(name.into()))
    }

    fn vhost(&mut self, name: &str) -> Result<&mut Vhost, AdminError> {
        let vhost = self.broker.vhosts.get_mut(name);
        vhost.ok_or_else(|| AdminError::NoVhost(name.into()))
    }
}
