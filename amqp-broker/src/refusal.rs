//! The refusals of requests: the reply codes, and RabbitMQ's texts.

use alloc::{
    format,
    string::{String, ToString as _},
};
use core::fmt;

use amqp_core::{
    protocol::ReplyCode,
    wire::{FieldValue, ShortStr},
};

/// The refusal of a request. The reply code determines whether its channel or its connection closes
/// (section 4.8.1 of the specification).
#[derive(Debug)]
pub(crate) struct Refusal {
    pub(crate) code: ReplyCode,
    pub(crate) text: String,
    /// Whether the channel crashes in RabbitMQ: the close then names no method.
    pub(crate) is_crash: bool,
}

/// The end of a text that is truncated to a short string (section 4.2.5.3 of the specification).
const DOTS: &str = "...";

/// The result of most requests.
pub(crate) type Outcome<T = ()> = Result<T, Refusal>;

impl Refusal {
    /// Creates a refusal with a text that begins with the name of the code, as in RabbitMQ.
    pub(crate) fn new(code: ReplyCode, text: impl fmt::Display) -> Self {
        let name = code.name().unwrap_or("unknown");
        let mut name = name.to_ascii_uppercase().replace('-', "_");
        if let Some(rest) = name.strip_prefix("REPLY_") {
            name = rest.to_string();
        }
        let mut text = format!("{name} - {text}");
        if text.len() > ShortStr::MAX_LEN {
            while text.len() + DOTS.len() > ShortStr::MAX_LEN {
                text.pop();
            }
            text.push_str(DOTS);
        }
        Self {
            code,
            text,
            is_crash: false,
        }
    }

    pub(crate) fn not_found(text: impl fmt::Display) -> Self {
        Self::new(ReplyCode::NOT_FOUND, text)
    }

    pub(crate) fn access_refused(text: impl fmt::Display) -> Self {
        Self::new(ReplyCode::ACCESS_REFUSED, text)
    }

    pub(crate) fn precondition(text: impl fmt::Display) -> Self {
        Self::new(ReplyCode::PRECONDITION_FAILED, text)
    }

    pub(crate) fn not_allowed(text: impl fmt::Display) -> Self {
        Self::new(ReplyCode::NOT_ALLOWED, text)
    }

    pub(crate) fn not_implemented(text: impl fmt::Display) -> Self {
        Self::new(ReplyCode::NOT_IMPLEMENTED, text)
    }

    pub(crate) fn invalid(text: impl fmt::Display) -> Self {
        Self::new(ReplyCode::COMMAND_INVALID, text)
    }

    /// Refuses a request that crashes the channel in RabbitMQ: its text is the name of the code.
    pub(crate) fn internal() -> Self {
        Self {
            code: ReplyCode::INTERNAL_ERROR,
            text: "INTERNAL_ERROR".into(),
            is_crash: true,
        }
    }

    /// Refuses a request that streams do not support
    /// (<https://www.rabbitmq.com/docs/streams#limitations>).
    pub(crate) fn of_stream(request: &str, queue: &Resource<'_>) -> Self {
        Self::not_implemented(format_args!(
            "{request} not supported by stream queues {queue}"
        ))
    }

    /// Refuses an operation on the default exchange, which supports only publishing.
    pub(crate) fn default_exchange() -> Self {
        Self::access_refused("operation not permitted on the default exchange")
    }

    /// Refuses a queue that is exclusive to another connection.
    pub(crate) fn locked(queue: &Resource<'_>) -> Self {
        Self::new(
            ReplyCode::RESOURCE_LOCKED,
            format_args!(
                "cannot obtain exclusive access to locked {queue}. It could be originally declared \
                 on another connection or the exclusive property value does not match that of the \
                 original declaration."
            ),
        )
    }

    /// Refuses a redeclaration of a queue or an exchange with another property.
    pub(crate) fn inequivalent(
        property: &str,
        resource: &Resource<'_>,
        received: impl fmt::Display,
        current: impl fmt::Display,
    ) -> Self {
        Self::precondition(format_args!(
            "inequivalent arg '{property}' for {resource}: received {received} but current is \
             {current}"
        ))
    }

    /// Refuses an argument of a declaration.
    pub(crate) fn argument(
        name: &str,
        resource: &Resource<'_>,
        problem: impl fmt::Display,
    ) -> Self {
        Self::precondition(format_args!(
            "invalid arg '{name}' for {resource}: {problem}"
        ))
    }
}

/// A queue or an exchange, as named in error texts.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Resource<'a> {
    kind: &'static str,
    name: &'a str,
    vhost: &'a str,
}

impl<'a> Resource<'a> {
    pub(crate) const fn queue(name: &'a str, vhost: &'a str) -> Self {
        Self {
            kind: "queue",
            name,
            vhost,
        }
    }

    pub(crate) const fn exchange(name: &'a str, vhost: &'a str) -> Self {
        Self {
            kind: "exchange",
            name,
            vhost,
        }
    }
}

impl fmt::Display for Resource<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} '{}' in vhost '{}'", self.kind, self.name, self.vhost)
    }
}

/// Quotes a flag for error texts.
pub(crate) fn quoted(value: impl fmt::Display) -> String {
    format!("'{value}'")
}

/// Returns RabbitMQ's name of the type of a field.
pub(crate) const fn type_name(value: &FieldValue) -> &'static str {
    match value {
        FieldValue::Bool(_) => "bool",
        FieldValue::I8(_) => "byte",
        FieldValue::U8(_) => "unsignedbyte",
        FieldValue::I16(_) => "short",
        FieldValue::U16(_) => "unsignedshort",
        FieldValue::I32(_) => "signedint",
        FieldValue::U32(_) => "unsignedint",
        FieldValue::I64(_) | FieldValue::I64Alias(_) => "long",
        FieldValue::F32(_) => "float",
        FieldValue::F64(_) => "double",
        FieldValue::Decimal(_) => "decimal",
        FieldValue::LongStr(_) => "longstr",
        FieldValue::Array(_) => "array",
        FieldValue::Timestamp(_) => "timestamp",
        FieldValue::Table(_) => "table",
        FieldValue::Bytes(_) => "binary",
        FieldValue::Void => "void",
    }
}

/// Displays an optional field for error texts.
pub(crate) struct Quoted<'a>(pub(crate) Option<&'a FieldValue>);

impl fmt::Display for Quoted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(value) = self.0 else {
            return f.write_str("none");
        };
        write!(
            f,
            "the value {} of type '{}'",
            QuotedValue(value),
            type_name(value)
        )
    }
}

/// Displays the value of a field for error texts, without its type.
pub(crate) struct QuotedValue<'a>(pub(crate) &'a FieldValue);

impl fmt::Display for QuotedValue<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("'")?;
        if let Some(number) = self.0.as_i64() {
            write!(f, "{number}")?;
        } else if let Some(text) = self.0.as_long_str() {
            f.write_str(&text.to_str_lossy())?;
        } else if let Some(flag) = self.0.as_bool() {
            write!(f, "{flag}")?;
        } else {
            write!(f, "{:?}", self.0)?;
        }
        f.write_str("'")
    }
}

/// Returns whether two fields have the same value. Integers of all widths are comparable, and so
/// are floats.
pub(crate) fn same_value(one: &FieldValue, other: &FieldValue) -> bool {
    match (one.as_i64(), other.as_i64(), one.as_f64(), other.as_f64()) {
        (Some(one), Some(other), ..) => one == other,
        (_, _, Some(one), Some(other)) => one == other,
        _ => one == other,
    }
}

/// Converts a name to a short string; one of more than 255 bytes becomes empty.
pub(crate) fn short(text: &str) -> ShortStr {
    ShortStr::try_from(text).unwrap_or_default()
}
