//! The permissions of a user in a virtual host: regular expressions over names, as in RabbitMQ
//! (<https://www.rabbitmq.com/docs/access-control>).

use alloc::string::String;

use regex_automata::{
    nfa::thompson::{self, pikevm::PikeVM},
    util::syntax,
};

/// A regular expression that does not parse.
///
/// The syntax is that of the `regex` family of crates, on bytes: unlike in RabbitMQ, look-around
/// and back references are not supported. Matching takes at most linear time.
#[derive(thiserror::Error, Clone, Debug, PartialEq, Eq)]
#[error("the pattern `{pattern}` does not parse: {problem}")]
pub struct BadPattern {
    /// The expression.
    pub pattern: String,
    /// The error of the parser.
    pub problem: String,
}

/// The permissions of a user for the queues and exchanges of a virtual host.
///
/// Each is a regular expression that is searched for anywhere in the name; the default exchange has
/// the name `amq.default`. The empty expression matches nothing.
#[derive(Clone, Debug)]
pub struct Permissions {
    configure: Pattern,
    write: Pattern,
    read: Pattern,
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
            configure: Pattern::new(configure)?,
            write: Pattern::new(write)?,
            read: Pattern::new(read)?,
        })
    }

    /// Returns permissions for everything.
    #[must_use]
    pub const fn all() -> Self {
        Self {
            configure: Pattern::All,
            write: Pattern::All,
            read: Pattern::All,
        }
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

#[derive(Clone, Debug)]
enum Pattern {
    All,
    None,
    Expression(PikeVM),
}

impl Pattern {
    fn new(pattern: &str) -> Result<Self, BadPattern> {
        if pattern.is_empty() {
            return Ok(Self::None);
        }
        if pattern == ".*" {
            return Ok(Self::All);
        }
        let bytes = syntax::Config::new().unicode(false).utf8(false);
        PikeVM::builder()
            .syntax(bytes)
            .thompson(
                thompson::Config::new()
                    .utf8(false)
                    .nfa_size_limit(Some(NFA_MAX)),
            )
            .build(pattern)
            .map(Self::Expression)
            .map_err(|error| BadPattern {
                pattern: pattern.into(),
                problem: alloc::string::ToString::to_string(&error),
            })
    }

    fn matches(&self, name: &str) -> bool {
        match self {
            Self::All => true,
            Self::None => false,
            Self::Expression(vm) => {
                let mut cache = vm.create_cache();
                vm.is_match(&mut cache, name)
            }
        }
    }
}

/// The memory limit of a compiled expression, in bytes: far above that of any expression written by
/// hand, and low enough to be harmless.
const NFA_MAX: usize = 1 << 20;

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
