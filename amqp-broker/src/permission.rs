//! The permissions of a user in a virtual host: regular expressions over names, as in RabbitMQ
//! (<https://www.rabbitmq.com/docs/access-control>).

use crate::pattern::{BadPattern, Pattern};

/// The permissions of a user for the queues and exchanges of a virtual host.
///
/// Each is a regular expression that is searched for anywhere in the name; the default exchange has
/// the name `amq.default`. The empty expression matches nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Permissions {
    pub(crate) configure: Pattern,
    pub(crate) write: Pattern,
    pub(crate) read: Pattern,
}

impl Permissions {
    /// Creates permissions from three expressions: `configure` for declaring and deleting, `write`
    /// for publishing to and binding, `read` for consuming and binding from.
    ///
    /// # Errors
    /// If an expression does not parse.
    ///
    /// ```
    /// use amqp_broker::Permissions;
    ///
    /// let permissions = Permissions::new("^tmp-", ".*", "^(tmp|log)-")?;
    /// assert!(Permissions::new("(", "", "").is_err());
    /// # Ok::<_, amqp_broker::BadPattern>(())
    /// ```
    pub fn new(configure: &str, write: &str, read: &str) -> Result<Self, BadPattern> {
        Ok(Self {
            configure: Pattern::of_permission(configure)?,
            write: Pattern::of_permission(write)?,
            read: Pattern::of_permission(read)?,
        })
    }

    /// Returns permissions for everything.
    #[must_use]
    pub const fn all() -> Self {
        Self {
            configure: Pattern::all(),
            write: Pattern::all(),
            read: Pattern::all(),
        }
    }

    /// Returns the expression for declaring and deleting.
    #[must_use]
    pub fn configure(&self) -> &str {
        self.configure.as_str()
    }

    /// Returns the expression for publishing to and binding.
    #[must_use]
    pub fn write(&self) -> &str {
        self.write.as_str()
    }

    /// Returns the expression for consuming and binding from.
    #[must_use]
    pub fn read(&self) -> &str {
        self.read.as_str()
    }

    pub(crate) fn allows(&self, access: Access, name: &str) -> bool {
        let name = if name.is_empty() { "amq.default" } else { name };
        match access {
            Access::Configure => self.configure.matches(name),
            Access::Write => self.write.matches(name),
            Access::Read => self.read.matches(name),
        }
    }
}

/// The operation on a queue or an exchange that needs a permission.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Access {
    Configure,
    Write,
    Read,
}

/// The permissions of a user for the routing keys of a topic exchange
/// (<https://www.rabbitmq.com/docs/access-control#topic-authorisation>).
///
/// Each is a regular expression that is searched for anywhere in the key; the empty one matches only
/// the empty key. `{username}` and `{vhost}` stand for the names of the user and of the virtual
/// host. `{client_id}` stands for itself: only MQTT has one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicPermissions {
    pub(crate) write: Pattern,
    pub(crate) read: Pattern,
}

impl TopicPermissions {
    /// Creates permissions from two expressions: `write` for the keys of messages, `read` for the
    /// keys of bindings.
    ///
    /// # Errors
    /// If an expression does not parse.
    ///
    /// ```
    /// use amqp_broker::TopicPermissions;
    ///
    /// let permissions = TopicPermissions::new(r"^{username}\.", ".*")?;
    /// assert_eq!(permissions.write(), r"^{username}\.");
    /// # Ok::<_, amqp_broker::BadPattern>(())
    /// ```
    pub fn new(write: &str, read: &str) -> Result<Self, BadPattern> {
        Ok(Self {
            write: Pattern::of_permission(write)?,
            read: Pattern::of_permission(read)?,
        })
    }

    /// Returns the expression for the keys of messages.
    #[must_use]
    pub fn write(&self) -> &str {
        self.write.as_str()
    }

    /// Returns the expression for the keys of bindings.
    #[must_use]
    pub fn read(&self) -> &str {
        self.read.as_str()
    }

    /// Expands `{username}` and then `{vhost}`, as RabbitMQ does: unescaped.
    pub(crate) fn expand(&self, user: &str, vhost: &str) -> Result<Self, BadPattern> {
        let expand = |pattern: &Pattern| {
            let text = pattern.as_str();
            let expanded = text.replace("{username}", user).replace("{vhost}", vhost);
            Pattern::expanded(text, &expanded)
        };
        Ok(Self {
            write: expand(&self.write)?,
            read: expand(&self.read)?,
        })
    }

    pub(crate) fn allows(&self, access: TopicAccess, key: &str) -> bool {
        match access {
            TopicAccess::Write => self.write.matches(key),
            TopicAccess::Read => self.read.matches(key),
        }
    }
}

/// The use of a routing key of a topic exchange.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TopicAccess {
    /// For a message.
    Write,
    /// For a binding.
    Read,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_expression_is_looked_for_anywhere_in_the_name() {
        let permissions = Permissions::new("^a", "b$", "c").unwrap();
        assert!(permissions.allows(Access::Configure, "abc"));
        assert!(!permissions.allows(Access::Configure, "ba"));
        assert!(permissions.allows(Access::Write, "ab"));
        assert!(!permissions.allows(Access::Write, "ba"));
        assert!(permissions.allows(Access::Read, "xcx"));
        assert!(!permissions.allows(Access::Read, "xx"));
    }

    #[test]
    fn the_empty_expression_allows_nothing() {
        let permissions = Permissions::new("", "^$", ".*").unwrap();
        assert!(!permissions.allows(Access::Configure, "a"));
        assert!(!permissions.allows(Access::Write, ""));
        assert!(permissions.allows(Access::Read, ""));
    }

    #[test]
    fn the_default_exchange_has_a_name() {
        let permissions = Permissions::new("", r"^amq\.default$", "").unwrap();
        assert!(permissions.allows(Access::Write, ""));
        assert!(!permissions.allows(Access::Write, "other"));
    }

    #[test]
    fn bytes_that_are_not_ascii_are_matched() {
        let permissions = Permissions::new(r"^\xc3\xa9.$", r"^[^a-z]+$", r"\w").unwrap();
        assert!(permissions.allows(Access::Configure, "éx"));
        assert!(permissions.allows(Access::Write, "éü"));
        assert!(!permissions.allows(Access::Read, "éü"));
    }

    #[test]
    fn what_does_not_parse_is_told() {
        let error = Permissions::new("", "a(", "").unwrap_err();
        assert_eq!(error.pattern, "a(");
    }
}
