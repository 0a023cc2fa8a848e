//! Routing by headers (section 3.1.3.4 of the specification).

use amqp_core::wire::{FieldTable, FieldValue};

use crate::refusal::{Outcome, Refusal, same_value, type_name};

/// The headers that a binding requires of a message.
#[derive(Clone, Debug)]
pub(crate) struct Matcher {
    /// Whether one matching field is enough.
    any: bool,
    fields: FieldTable,
}

impl Matcher {
    pub(crate) fn new(arguments: &FieldTable) -> Outcome<Self> {
        let (any, with_x) = match arguments.get("x-match") {
            None => (false, false),
            Some(FieldValue::LongStr(kind)) => match kind.as_bytes() {
                b"all" => (false, false),
                b"any" => (true, false),
                b"all-with-x" => (false, true),
                b"any-with-x" => (true, true),
                _ => {
                    return Err(Refusal::precondition(format_args!(
                        "Invalid x-match field value <<{:?}>>; expected all, any, all-with-x, or \
                         any-with-x",
                        kind.to_str_lossy()
                    )));
                }
            },
            Some(other) => {
                return Err(Refusal::precondition(format_args!(
                    "Invalid x-match field type {} (value {}); expected longstr",
                    type_name(other),
                    Shown(other),
                )));
            }
        };
        let fields = arguments
            .iter()
            .filter(|(name, _)| *name != "x-match" && (with_x || !name.starts_with("x-")))
            .map(|(name, value)| (name.clone(), value.clone()))
            .collect();
        Ok(Self { any, fields })
    }

    pub(crate) fn matches(&self, headers: Option<&FieldTable>) -> bool {
        let matches = |name: &str, wanted: &FieldValue| {
            headers
                .and_then(|headers| headers.get(name))
                .is_some_and(|value| {
                    // A field without a value matches any value of the header.
                    matches!(wanted, FieldValue::Void) || same_value(wanted, value)
                })
        };
        let mut fields = self.fields.iter();
        if self.any {
            fields.any(|(name, wanted)| matches(name, wanted))
        } else {
            fields.all(|(name, wanted)| matches(name, wanted))
        }
    }
}

/// Displays a value without its type.
struct Shown<'a>(&'a FieldValue);

impl core::fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match (self.0.as_i64(), self.0.as_bool()) {
            (Some(number), _) => write!(f, "{number}"),
            (_, Some(flag)) => write!(f, "{flag}"),
            _ => write!(f, "{:?}", self.0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matches(kind: Option<&str>, headers: Option<&FieldTable>) -> bool {
        let mut arguments = FieldTable::new()
            .with("a", 1)
            .with("b", "two")
            .with("x-c", 3);
        if let Some(kind) = kind {
            arguments = arguments.with("x-match", kind);
        }
        Matcher::new(&arguments).unwrap().matches(headers)
    }

    #[test]
    fn the_four_kinds() {
        let one = FieldTable::new().with("a", 1_i64);
        let two = one.clone().with("b", "two");
        let three = two.clone().with("x-c", 3);
        let x = FieldTable::new().with("x-c", 3);
        let wrong = FieldTable::new().with("a", "1");
        for (kind, expected) in [
            (None, [false, false, true, true, false, false]),
            (Some("all"), [false, false, true, true, false, false]),
            (Some("any"), [false, true, true, true, false, false]),
            (
                Some("all-with-x"),
                [false, false, false, true, false, false],
            ),
            (Some("any-with-x"), [false, true, true, true, true, false]),
        ] {
            let headers = [
                None,
                Some(&one),
                Some(&two),
                Some(&three),
                Some(&x),
                Some(&wrong),
            ];
            assert_eq!(
                headers.map(|headers| matches(kind, headers)),
                expected,
                "{kind:?}"
            );
        }
    }

    #[test]
    fn no_fields_are_all_there_and_none_is() {
        let none = |kind: &str| {
            let arguments = FieldTable::new().with("x-match", kind);
            Matcher::new(&arguments).unwrap().matches(None)
        };
        assert!(none("all"));
        assert!(!none("any"));
    }

    #[test]
    fn a_field_without_a_value_asks_for_presence() {
        let arguments = FieldTable::new().with("a", FieldValue::Void);
        let matcher = Matcher::new(&arguments).unwrap();
        let headers = FieldTable::new().with("a", "anything");
        assert!(matcher.matches(Some(&headers)));
        assert!(!matcher.matches(None));
    }

    #[test]
    fn another_kind_is_refused() {
        let refusal = |value: FieldValue| {
            let arguments = FieldTable::new().with("x-match", value);
            Matcher::new(&arguments).unwrap_err().text
        };
        assert_eq!(
            refusal("foo".into()),
            "PRECONDITION_FAILED - Invalid x-match field value <<\"foo\">>; expected all, any, \
             all-with-x, or any-with-x"
        );
        assert_eq!(
            refusal(5.into()),
            "PRECONDITION_FAILED - Invalid x-match field type signedint (value 5); expected longstr"
        );
    }
}
