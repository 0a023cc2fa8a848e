//! The data types of AMQP 0-9-1 as they stand on the wire: how bytes become values and values
//! become bytes.
//!
//! | wire type | Rust type |
//! |---|---|
//! | bit, octet, short, long, longlong | `bool`, `u8`, `u16`, `u32`, `u64`, big-endian |
//! | short string | [`ShortStr`]: a length octet, then at most 255 bytes of UTF-8 |
//! | long string | [`LongStr`], or [`Secret`] where it must not be seen: a 32-bit length, then any bytes |
//! | timestamp | [`Timestamp`]: seconds since the Unix epoch |
//! | field table | [`FieldTable`] of [`FieldValue`]s: a 32-bit length in bytes, then name, tag and value of each field |
//!
//! The tags of field values are those that RabbitMQ speaks, which differ from the published
//! standard; see [`FieldValue`].
//!
//! Decoding trusts nothing. A length is compared with the bytes that are there before anything is
//! allocated, nesting ends at [`MAX_TABLE_DEPTH`], and whatever is wrong comes back as a
//! [`DecodeError`]. One thing is let pass: names in the arguments of methods with content, in
//! properties and in tables need not be UTF-8, because RabbitMQ passes them on as a publisher wrote
//! them. What is not text in them is replaced by U+FFFD.

mod long_str;
pub(crate) mod parse;
pub(crate) mod put;
mod short_str;
mod table;
#[cfg(test)]
mod tests;
mod value;
mod wiped;

pub use long_str::{LongStr, Secret};
pub use short_str::{ShortStr, ShortStrError};
pub use table::{FieldTable, FieldTableIter, MAX_TABLE_DEPTH};
pub use value::{Decimal, FieldArray, FieldValue, IntegerTooLarge, Timestamp};

use bytes::BytesMut;

use crate::method::MethodId;

/// Something that has one form on the wire.
///
/// Encoding cannot fail. A long string or a table of 4 GiB or more does not fit its 32-bit length;
/// whoever puts a value into a frame compares [`encoded_len`](Self::encoded_len) with the frame
/// size first, and that is a 32-bit number too.
pub trait Encode {
    /// How many bytes [`encode`](Self::encode) appends.
    fn encoded_len(&self) -> usize;

    /// Appends the wire form to `out`.
    fn encode(&self, out: &mut BytesMut);
}

/// Something that can be read from its wire form.
pub trait Decode: Sized {
    /// Reads one value, which must use the whole of `input`.
    ///
    /// # Errors
    /// What is wrong with the input; [`DecodeError::TrailingBytes`] if it holds more than the
    /// value.
    fn decode(input: &[u8]) -> Result<Self, DecodeError>;
}

/// Why bytes are not what they should be. It is always the sender's fault.
#[derive(thiserror::Error, Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum DecodeError {
    /// The input ends before the value does.
    #[error("the input ends in the middle of a value")]
    Truncated,
    /// The value ends before the input does.
    #[error("{left} bytes follow the end of the value")]
    TrailingBytes {
        /// How many bytes are too many.
        left: usize,
    },
    /// A short string is not UTF-8.
    #[error("a short string is not UTF-8")]
    InvalidUtf8,
    /// A field of a table has a tag that no type has.
    #[error("a table has a field of the unknown type {0:#04x}")]
    UnknownFieldType(u8),
    /// Tables and arrays are nested more than [`MAX_TABLE_DEPTH`] deep.
    #[error("tables are nested more than {MAX_TABLE_DEPTH} deep")]
    TableTooDeep,
    /// A value inside a table or an array reaches beyond the end of what contains it.
    #[error("a field reaches beyond the end of its table")]
    LengthMismatch,
    /// The class has no such method, or none that this side may receive.
    #[error("there is no method {}.{}", .0.class, .0.method)]
    UnknownMethod(MethodId),
    /// There is no class of this number.
    #[error("there is no class {0}")]
    UnknownClass(u16),
    /// The flags of a content header announce a property that its class does not have.
    #[error("the property flags name an unknown property")]
    UnknownProperty,
}

/// Parsers fail only with errors of our own; should one of nom's arise, it means that it found too
/// little.
impl nom::error::ParseError<&[u8]> for DecodeError {
    fn from_error_kind(_input: &[u8], _kind: nom::error::ErrorKind) -> Self {
        Self::Truncated
    }

    fn append(_input: &[u8], _kind: nom::error::ErrorKind, other: Self) -> Self {
        other
    }
}
