//! The arguments of a binding to a headers exchange.

use super::set;
use crate::wire::{FieldTable, FieldValue, IntoShortStr};

/// The headers by which a binding to a headers exchange selects messages
/// (<https://www.rabbitmq.com/tutorials/amqp-concepts#exchange-headers>): the arguments of
/// `queue.bind` and `exchange.bind`.
///
/// ```
/// use amqp_core::{arguments::HeadersMatch, protocol::queue};
///
/// let reports = queue::Bind::default()
///     .queue("reports")
///     .exchange("documents")
///     .arguments(HeadersMatch::all().header("format", "pdf").header("pages", 1));
/// assert_eq!(reports.arguments.len(), 3); // with x-match
/// ```
#[derive(Clone, Debug, PartialEq)]
#[must_use = "it selects nothing until it is in the arguments of a binding"]
pub struct HeadersMatch {
    arguments: FieldTable,
}

impl HeadersMatch {
    /// Selects messages that have all of the headers. Headers with names that begin with `x-` are
    /// ignored.
    pub fn all() -> Self {
        Self::new("all")
    }

    /// Selects messages that have one of the headers. Headers with names that begin with `x-` are
    /// ignored.
    pub fn any() -> Self {
        Self::new("any")
    }

    /// As [`all`](Self::all), with headers that begin with `x-`. RabbitMQ 3.10 and later have it.
    pub fn all_with_x() -> Self {
        Self::new("all-with-x")
    }

    /// As [`any`](Self::any), with headers that begin with `x-`. RabbitMQ 3.10 and later have it.
    pub fn any_with_x() -> Self {
        Self::new("any-with-x")
    }

    /// Adds a header with its value. A binding with a name of more than 255 bytes is
    /// [refused](IntoShortStr).
    pub fn header(mut self, name: impl IntoShortStr, value: impl Into<FieldValue>) -> Self {
        self.arguments.insert(name, value);
        self
    }

    /// Adds a header with any value.
    pub fn present(self, name: impl IntoShortStr) -> Self {
        self.header(name, FieldValue::Void)
    }

    fn new(rule: &'static str) -> Self {
        let mut arguments = FieldTable::new();
        set(&mut arguments, "x-match", rule);
        Self { arguments }
    }
}

impl From<HeadersMatch> for FieldTable {
    fn from(headers: HeadersMatch) -> Self {
        headers.arguments
    }
}
