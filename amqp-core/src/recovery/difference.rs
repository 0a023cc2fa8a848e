//! The difference between an entity and its declaration, from the text of the server.

use alloc::string::String;
use core::fmt;

use crate::{close::CloseReason, protocol::ReplyCode, text::Quoted};

/// The argument in which an entity differs from its declaration, as RabbitMQ says it with 406
/// (<https://www.rabbitmq.com/docs/queues#property-equivalence>).
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Difference {
    /// The name of the argument, such as `durable` or `x-max-length`.
    pub argument: String,
    /// The declared value.
    pub wanted: String,
    /// The value that the entity has.
    pub found: String,
}

impl Difference {
    /// Reads the text of a close.
    pub(super) fn of_close(reason: &CloseReason) -> Option<Self> {
        if reason.code() != Some(ReplyCode::PRECONDITION_FAILED) {
            return None;
        }
        Self::parse(&reason.by_peer()?.text)
    }

    /// Reads a text like `inequivalent arg 'durable' for queue 'q' in vhost '/': received 'true' but
    /// current is 'false'`.
    fn parse(text: &str) -> Option<Self> {
        let (_, text) = text.split_once("inequivalent arg '")?;
        let (argument, text) = text.split_once("' for ")?;
        // The names of entities may contain any text.
        let (_, text) = text.rsplit_once(": received ")?;
        let (wanted, found) = text.split_once(" but current is ")?;
        Some(Self {
            argument: argument.into(),
            wanted: value(wanted).into(),
            found: value(found).into(),
        })
    }
}

/// The value in a text like `'true'`, `the value 'a' of type 'longstr'` or `none`.
fn value(text: &str) -> &str {
    let quoted = text.strip_prefix("the value ").unwrap_or(text);
    let quoted = quoted.split_once("' of type '").map_or_else(
        || quoted.strip_suffix('\'').unwrap_or(quoted),
        |(value, _)| value,
    );
    quoted.strip_prefix('\'').unwrap_or(quoted)
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (argument, found) = (Quoted(&self.argument), Quoted(&self.found));
        write!(
            f,
            "{argument} is {found} instead of {}",
            Quoted(&self.wanted)
        )
    }
}

#[cfg(test)]
mod tests {
    use alloc::string::ToString as _;

    use super::*;

    #[test]
    fn the_difference_is_read_from_the_texts_of_rabbitmq() {
        let read = |text: &str| Difference::parse(text).map(|it| it.to_string());
        let prefix = "PRECONDITION_FAILED - inequivalent arg";
        for (rest, expected) in [
            (
                "'durable' for queue 'q' in vhost '/': received 'true' but current is 'false'",
                r#""durable" is "false" instead of "true""#,
            ),
            (
                "'x-max-length' for queue 'a: received ' in vhost '/': received the value '5' of \
                 type 'signedint' but current is none",
                r#""x-max-length" is "none" instead of "5""#,
            ),
            (
                "'x-queue-type' for queue 'q' in vhost '/': received none but current is the value \
                 'quorum' of type 'longstr'",
                r#""x-queue-type" is "quorum" instead of "none""#,
            ),
            (
                "'type' for exchange 'e' in vhost '/': received 'topic' but current is 'direct'",
                r#""type" is "direct" instead of "topic""#,
            ),
        ] {
            let text = alloc::format!("{prefix} {rest}");
            assert_eq!(read(&text).as_deref(), Some(expected), "{text}");
        }
        for text in [
            "",
            "PRECONDITION_FAILED - unknown delivery tag 1",
            "inequivalent arg 'a' for",
            "inequivalent arg 'a' for queue: received but current",
        ] {
            assert_eq!(read(text), None, "{text}");
        }
    }
}
