//! Places in definitions, and the errors that name them.

use alloc::string::{String, ToString as _};
use core::fmt;

use amqp_core::text::Escaped;

/// The reason for which definitions cannot be read or applied, and its place.
///
/// ```
/// use amqp_broker::definitions::Definitions;
///
/// let error = Definitions::from_json(r#"{"queues": [{"name": 5, "vhost": "/"}]}"#).unwrap_err();
/// assert_eq!(error.to_string(), "queues[0].name: expected a string, found a number");
/// ```
#[derive(thiserror::Error, Clone, Debug, PartialEq, Eq)]
#[error("{}: {}", Escaped(.path), Escaped(.reason))]
#[non_exhaustive]
pub struct DefinitionsError {
    /// The place, such as `users[2].limits.max-channels`; `line 3, column 7` of a text that is not
    /// JSON.
    pub path: String,
    /// The reason.
    pub reason: String,
}

/// A part of definitions that was skipped, as in RabbitMQ.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct DefinitionsWarning {
    /// The place, such as `queues[0]`.
    pub path: String,
    /// The reason.
    pub reason: String,
}

impl fmt::Display for DefinitionsWarning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", Escaped(&self.path), Escaped(&self.reason))
    }
}

/// A place in definitions.
#[derive(Clone, Copy, Debug)]
pub(super) enum Path<'a> {
    /// The whole.
    Root,
    /// A field of an object.
    Field(&'a Self, &'a str),
    /// An element of an array.
    Element(&'a Self, usize),
}

impl<'a> Path<'a> {
    pub(super) const fn field(&'a self, name: &'a str) -> Self {
        Self::Field(self, name)
    }

    pub(super) const fn element(&'a self, index: usize) -> Self {
        Self::Element(self, index)
    }

    pub(super) fn error(&self, reason: impl fmt::Display) -> DefinitionsError {
        DefinitionsError {
            path: self.to_string(),
            reason: reason.to_string(),
        }
    }

    pub(super) fn warning(&self, reason: impl fmt::Display) -> DefinitionsWarning {
        DefinitionsWarning {
            path: self.to_string(),
            reason: reason.to_string(),
        }
    }
}

impl fmt::Display for Path<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Root => f.write_str("definitions"),
            Self::Field(Path::Root, name) => f.write_str(name),
            Self::Field(parent, name) => write!(f, "{parent}.{name}"),
            Self::Element(parent, index) => write!(f, "{parent}[{index}]"),
        }
    }
}
