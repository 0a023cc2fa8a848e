//! The data types of AMQP 0-9-1 and their wire format (section 4.2.5 of the specification):
//! encoding and decoding.
//!
//! | wire type | Rust type |
//! |---|---|
//! | bit, octet, short, long, longlong | `bool`, `u8`, `u16`, `u32`, `u64`, big-endian |
//! | short string | [`ShortStr`]: a length octet, then at most 255 bytes of UTF-8 |
//! | long string | [`LongStr`], or [`Secret`] if it must not be logged: a 32-bit length, then any bytes |
//! | timestamp | [`Timestamp`]: seconds since the Unix epoch |
//! | field table | [`FieldTable`] of [`FieldValue`]s: a 32-bit length in bytes, then name, tag and value of each field |
//!
//! The tags of field values are those of RabbitMQ, which differ from the specification; see
//! [`FieldValue`].
//!
//! The feature `serde` serialises the values of this module, [`Secret`] excepted, without loss. A
//! format for humans, such as JSON, has the common ones as they are, and the others with the name
//! of their type:
//!
//! | type | JSON |
//! |---|---|
//! | [`FieldTable`] | `{"name": 5}`, or `[["name", 5], ["name", 6]]` if a name occurs twice |
//! | `Bool`, `I32`, `Array`, `Void` | `true`, `5`, `[5]`, `null` |
//! | `LongStr` | `"quorum"`; `{"long_str": [255]}` if it is not UTF-8 |
//! | `I64` and other integers | `{"i64": 5}` |
//! | `F32`, `F64` | `{"f64": "0.1"}`; NaN as its bits, `{"f64": "0x7ff8000000000000"}` |
//! | `Timestamp`, `Bytes` | `{"timestamp": 1700000000}`, `{"bytes": [1, 2]}` |
//! | `Decimal` | `{"decimal": [1, 11]}`: the scale, and the value |
//! | a table in a table or an array | `{"table": {"name": 5}}` |
//!
//! A plain number above the range of `I32` is read as an `I64`, and one with a fraction as an
//! `F64`. A reader that sorts maps, as `serde_json::Value` does, loses the order of a table.
//!
//! The decoder does not trust its input. A length is compared with the available bytes before
//! anything is allocated, nesting is limited to [`MAX_TABLE_DEPTH`], and every violation is
//! returned as a [`DecodeError`]. There is one exception: names in the arguments of methods with
//! content, in properties and in tables need not be UTF-8, because RabbitMQ forwards them as the
//! publisher wrote them. Invalid UTF-8 in them is replaced by U+FFFD.

pub(crate) mod cursor;
mod into_short_str;
mod long_str;
pub(crate) mod parse;
pub(crate) mod put;
#[cfg(feature = "serde")]
mod serial;
mod short_str;
mod table;
#[cfg(test)]
mod tests;
mod value;
mod wiped;

pub(crate) use into_short_str::sealed;
pub use into_short_str::{IntoShortStr, TextTooLong};
pub use long_str::{LongStr, Secret};
pub(crate) use short_str::TOO_LONG;
pub use short_str::{ShortStr, ShortStrError};
pub use table::{FieldTable, FieldTableIter, MAX_TABLE_DEPTH};
pub use value::{Decimal, FieldArray, FieldValue, IntegerTooLarge, Timestamp};

use bytes::BytesMut;

use crate::method_id::MethodId;

/// A type with a wire format.
///
/// Encoding cannot fail. A long string or a table of 4 GiB or more does not fit its 32-bit length,
/// and a text that a setter was given may be [too long](IntoShortStr) for a short string; the caller
/// compares [`encoded_len`](Self::encoded_len) with the frame size first, which is a 32-bit number
/// too.
pub trait Encode {
    /// Returns the number of bytes that [`encode`](Self::encode) appends.
    fn encoded_len(&self) -> usize;

    /// Appends the encoded value to `out`.
    fn encode(&self, out: &mut BytesMut);

    /// Returns the first field with a text that is [too long](IntoShortStr) for a short string.
    /// `Some` only if [`encoded_len`](Self::encoded_len) exceeds every frame.
    fn text_too_long(&self) -> Option<TextTooLong> {
        None
    }
}

/// A type that can be decoded from its wire format.
pub trait Decode: Sized {
    /// Decodes one value from the whole of `input`.
    ///
    /// # Errors
    /// The violation of the wire format; [`DecodeError::TrailingBytes`] if bytes follow the value.
    fn decode(input: &[u8]) -> Result<Self, DecodeError>;
}

/// A violation of the wire format by the sender.
#[derive(thiserror::Error, Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum DecodeError {
    /// The input ends inside the value.
    #[error("the input ends in the middle of a value")]
    Truncated,
    /// Bytes follow the value.
    #[error("{left} bytes follow the end of the value")]
    TrailingBytes {
        /// The number of bytes after the value.
        left: usize,
    },
    /// A short string is not UTF-8.
    #[error("a short string is not UTF-8")]
    InvalidUtf8,
    /// The type tag of a table field is unknown.
    #[error("a table has a field of the unknown type {0:#04x}")]
    UnknownFieldType(u8),
    /// Tables and arrays are nested more than [`MAX_TABLE_DEPTH`] deep.
    #[error("tables are nested more than {MAX_TABLE_DEPTH} deep")]
    TableTooDeep,
    /// A value inside a table or an array extends beyond the end of its container.
    #[error("a field reaches beyond the end of its table")]
    LengthMismatch,
    /// The class has no such method, or this side may not receive it.
    #[error("there is no method {}.{}", .0.class, .0.method)]
    UnknownMethod(MethodId),
    /// There is no class with this number.
    #[error("there is no class {0}")]
    UnknownClass(u16),
    /// The property flags of a content header announce a property that the class does not have.
    #[error("the property flags name an unknown property")]
    UnknownProperty,
}

/// The parsers return only errors of this crate. An error of nom itself means that it ran out of
/// input.
impl nom::error::ParseError<&[u8]> for DecodeError {
    fn from_error_kind(_input: &[u8], _kind: nom::error::ErrorKind) -> Self {
        Self::Truncated
    }

    fn append(_input: &[u8], _kind: nom::error::ErrorKind, other: Self) -> Self {
        other
    }
}

/// The only fallible conversion in a parser is that of a text.
impl nom::error::FromExternalError<&[u8], core::str::Utf8Error> for DecodeError {
    fn from_external_error(
        _input: &[u8],
        _kind: nom::error::ErrorKind,
        _error: core::str::Utf8Error,
    ) -> Self {
        Self::InvalidUtf8
    }
}
