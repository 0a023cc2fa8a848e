//! The values of field tables (section 4.2.5.5 of the specification).

use alloc::string::String;
use alloc::vec::{self, Vec};
use core::ops::Deref;
use core::{fmt, mem, slice, time::Duration};

use bytes::Bytes;

use super::{FieldTable, LongStr, ShortStr};

/// A point in time: whole seconds since the Unix epoch (section 4.2.5.4 of the specification).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(pub u64);

impl Timestamp {
    /// Creates a timestamp from the time since the Unix epoch, without its fraction of a second.
    #[must_use]
    pub const fn since_epoch(time: Duration) -> Self {
        Self(time.as_secs())
    }

    /// Returns the time since the Unix epoch.
    #[must_use]
    pub const fn duration_since_epoch(self) -> Duration {
        Duration::from_secs(self.0)
    }
}

/// A decimal number: `value` divided by 10 to the power of `scale`.
///
/// RabbitMQ reads the 32 bits as unsigned, its Java client as signed. The bits are stored as
/// received and available in both forms, so that only decimals with equal bits are equal.
///
/// ```
/// use amqp_core::wire::Decimal;
///
/// let minus_one_point_one = Decimal::from_signed(1, -11);
/// assert_eq!(minus_one_point_one.value, 0xffff_fff5);
/// assert_eq!(minus_one_point_one.signed(), -11);
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Decimal {
    /// The number of digits after the decimal point.
    pub scale: u8,
    /// The digits, as 32 raw bits.
    pub value: u32,
}

impl Decimal {
    /// Creates a decimal from signed digits.
    #[must_use]
    pub const fn from_signed(scale: u8, value: i32) -> Self {
        Self {
            scale,
            value: value.cast_unsigned(),
        }
    }

    /// Returns the digits as a signed number.
    #[must_use]
    pub const fn signed(self) -> i32 {
        self.value.cast_signed()
    }
}

/// A value in a [`FieldTable`] or a [`FieldArray`].
///
/// The tags are those of RabbitMQ, which most peers use
/// (<https://www.rabbitmq.com/amqp-0-9-1-errata#section_3>): `s` is a 16-bit integer and not a short
/// string, and `l` and `L` are both signed.
///
/// Integers convert to the variant of their width. An unsigned 64-bit integer has no variant, so it
/// converts with `try_from`:
///
/// ```
/// use amqp_core::wire::FieldValue;
///
/// assert_eq!(FieldValue::from(60_000_i32), FieldValue::I32(60_000));
/// assert_eq!(FieldValue::try_from(7_u64), Ok(FieldValue::I64(7)));
/// assert!(FieldValue::try_from(u64::MAX).is_err());
/// ```
#[derive(Clone, Debug, PartialEq)]
pub enum FieldValue {
    /// `t`: a boolean.
    Bool(bool),
    /// `b`: a signed octet.
    I8(i8),
    /// `B`: an unsigned octet.
    U8(u8),
    /// `s`: a signed 16-bit integer.
    I16(i16),
    /// `u`: an unsigned 16-bit integer.
    U16(u16),
    /// `I`: a signed 32-bit integer.
    I32(i32),
    /// `i`: an unsigned 32-bit integer.
    U32(u32),
    /// `l`: a signed 64-bit integer.
    I64(i64),
    /// `L`: also a signed 64-bit integer, sent by some peers. [`I64`](Self::I64) is the variant to
    /// send.
    I64Alias(i64),
    /// `f`: a 32-bit floating point number.
    F32(f32),
    /// `d`: a 64-bit floating point number.
    F64(f64),
    /// `D`: a decimal number.
    Decimal(Decimal),
    /// `S`: a long string: bytes, not necessarily text.
    LongStr(LongStr),
    /// `A`: an array of values.
    Array(FieldArray),
    /// `T`: a point in time.
    Timestamp(Timestamp),
    /// `F`: a nested table.
    Table(FieldTable),
    /// `x`: a byte array.
    Bytes(Bytes),
    /// `V`: no value.
    Void,
}

impl FieldValue {
    /// Returns the octet that identifies the type in the wire format.
    #[must_use]
    pub const fn tag(&self) -> u8 {
        match self {
            Self::Bool(_) => b't',
            Self::I8(_) => b'b',
            Self::U8(_) => b'B',
            Self::I16(_) => b's',
            Self::U16(_) => b'u',
            Self::I32(_) => b'I',
            Self::U32(_) => b'i',
            Self::I64(_) => b'l',
            Self::I64Alias(_) => b'L',
            Self::F32(_) => b'f',
            Self::F64(_) => b'd',
            Self::Decimal(_) => b'D',
            Self::LongStr(_) => b'S',
            Self::Array(_) => b'A',
            Self::Timestamp(_) => b'T',
            Self::Table(_) => b'F',
            Self::Bytes(_) => b'x',
            Self::Void => b'V',
        }
    }

    /// Returns the encoded size without the tag, in bytes; for an array or a table, the size of its
    /// length only.
    pub(super) fn shallow_len(&self) -> usize {
        match self {
            Self::Bool(_) | Self::I8(_) | Self::U8(_) => 1,
            Self::I16(_) | Self::U16(_) => 2,
            Self::I32(_) | Self::U32(_) | Self::F32(_) => 4,
            Self::I64(_) | Self::I64Alias(_) | Self::F64(_) | Self::Timestamp(_) => 8,
            Self::Decimal(_) => 5,
            Self::LongStr(text) => text.encoded_len(),
            Self::Bytes(bytes) => 4 + bytes.len(),
            Self::Array(_) | Self::Table(_) => 4,
            Self::Void => 0,
        }
    }

    /// Returns the value. `Some` for a `Bool`.
    #[must_use]
    pub const fn as_bool(&self) -> Option<bool> {
        if let Self::Bool(value) = self {
            Some(*value)
        } else {
            None
        }
    }

    /// Returns the value. `Some` for an integer of any width.
    #[must_use]
    pub fn as_i64(&self) -> Option<i64> {
        Some(match self {
            Self::I8(value) => i64::from(*value),
            Self::U8(value) => i64::from(*value),
            Self::I16(value) => i64::from(*value),
            Self::U16(value) => i64::from(*value),
            Self::I32(value) => i64::from(*value),
            Self::U32(value) => i64::from(*value),
            Self::I64(value) | Self::I64Alias(value) => *value,
            Self::Bool(_)
            | Self::F32(_)
            | Self::F64(_)
            | Self::Decimal(_)
            | Self::LongStr(_)
            | Self::Array(_)
            | Self::Timestamp(_)
            | Self::Table(_)
            | Self::Bytes(_)
            | Self::Void => return None,
        })
    }

    /// Returns the value. `Some` for an `F32` or an `F64`.
    #[must_use]
    pub fn as_f64(&self) -> Option<f64> {
        if let Self::F32(value) = self {
            Some(f64::from(*value))
        } else if let Self::F64(value) = self {
            Some(*value)
        } else {
            None
        }
    }

    /// Returns the bytes. `Some` for a `LongStr` or `Bytes`.
    #[must_use]
    pub fn as_bytes(&self) -> Option<&[u8]> {
        if let Self::LongStr(LongStr(bytes)) | Self::Bytes(bytes) = self {
            Some(bytes)
        } else {
            None
        }
    }

    /// Returns the long string. `Some` for a `LongStr`.
    #[must_use]
    pub const fn as_long_str(&self) -> Option<&LongStr> {
        if let Self::LongStr(text) = self {
            Some(text)
        } else {
            None
        }
    }

    /// Returns the text. `Some` for a `LongStr` that is UTF-8.
    #[must_use]
    pub fn as_str(&self) -> Option<&str> {
        self.as_long_str().and_then(LongStr::as_str)
    }

    /// Returns the elements. `Some` for an `Array`.
    #[must_use]
    pub const fn as_array(&self) -> Option<&FieldArray> {
        if let Self::Array(array) = self {
            Some(array)
        } else {
            None
        }
    }

    /// Returns the fields. `Some` for a `Table`.
    #[must_use]
    pub const fn as_table(&self) -> Option<&FieldTable> {
        if let Self::Table(table) = self {
            Some(table)
        } else {
            None
        }
    }

    /// Returns the point in time. `Some` for a `Timestamp`.
    #[must_use]
    pub const fn as_timestamp(&self) -> Option<Timestamp> {
        if let Self::Timestamp(timestamp) = self {
            Some(*timestamp)
        } else {
            None
        }
    }

    /// Returns whether the value is a container.
    const fn is_nest(&self) -> bool {
        matches!(self, Self::Array(_) | Self::Table(_))
    }
}

/// Drops nested values iteratively, because a recursive drop of deeply nested containers would
/// exhaust the stack. Called by the drop of a container, with its values, if any of them is a
/// container.
pub(super) fn dismantle(values: impl Iterator<Item = FieldValue>) {
    let mut nests: Vec<FieldValue> = values.filter(FieldValue::is_nest).collect();
    while let Some(mut nest) = nests.pop() {
        if let FieldValue::Array(array) = &mut nest {
            nests.extend(
                mem::take(&mut array.0)
                    .into_iter()
                    .filter(FieldValue::is_nest),
            );
        } else if let FieldValue::Table(table) = &mut nest {
            nests.extend(table.take_values().filter(FieldValue::is_nest));
        }
    }
}

/// An array of values of different types, for [`FieldValue::Array`].
///
/// It dereferences to a slice, and is created from a `Vec` or an iterator.
///
/// ```
/// use amqp_core::wire::{FieldArray, FieldValue};
///
/// let array: FieldArray = ["a", "b"].map(FieldValue::from).into_iter().collect();
/// assert_eq!(array.len(), 2);
/// ```
#[derive(Clone, Default, PartialEq)]
pub struct FieldArray(Vec<FieldValue>);

impl FieldArray {
    /// Creates an empty array.
    #[must_use]
    pub const fn new() -> Self {
        Self(Vec::new())
    }

    /// Appends a value.
    pub fn push(&mut self, value: impl Into<FieldValue>) {
        self.0.push(value.into());
    }
}

impl Drop for FieldArray {
    fn drop(&mut self) {
        if self.0.iter().any(FieldValue::is_nest) {
            dismantle(mem::take(&mut self.0).into_iter());
        }
    }
}

impl Deref for FieldArray {
    type Target = [FieldValue];

    fn deref(&self) -> &[FieldValue] {
        &self.0
    }
}

impl fmt::Debug for FieldArray {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromIterator<FieldValue> for FieldArray {
    fn from_iter<I: IntoIterator<Item = FieldValue>>(values: I) -> Self {
        Self(values.into_iter().collect())
    }
}

impl Extend<FieldValue> for FieldArray {
    fn extend<I: IntoIterator<Item = FieldValue>>(&mut self, values: I) {
        self.0.extend(values);
    }
}

impl IntoIterator for FieldArray {
    type Item = FieldValue;
    type IntoIter = vec::IntoIter<FieldValue>;

    fn into_iter(mut self) -> Self::IntoIter {
        mem::take(&mut self.0).into_iter()
    }
}

impl<'a> IntoIterator for &'a FieldArray {
    type Item = &'a FieldValue;
    type IntoIter = slice::Iter<'a, FieldValue>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.iter()
    }
}

impl From<Vec<FieldValue>> for FieldArray {
    fn from(values: Vec<FieldValue>) -> Self {
        Self(values)
    }
}

/// An integer above `i64::MAX`, for which there is no field type.
#[derive(thiserror::Error, Clone, Copy, Debug, PartialEq, Eq)]
#[error("{0} does not fit a field value: the widest integer of a table is a signed 64-bit one")]
pub struct IntegerTooLarge(pub u64);

impl TryFrom<u64> for FieldValue {
    type Error = IntegerTooLarge;

    fn try_from(value: u64) -> Result<Self, IntegerTooLarge> {
        i64::try_from(value)
            .map(Self::I64)
            .map_err(|_| IntegerTooLarge(value))
    }
}

macro_rules! from_values {
    ($($source:ty => $variant:ident),* $(,)?) => {$(
        impl From<$source> for FieldValue {
            fn from(value: $source) -> Self {
                Self::$variant(value.into())
            }
        }
    )*};
}

from_values! {
    bool => Bool,
    i8 => I8,
    u8 => U8,
    i16 => I16,
    u16 => U16,
    i32 => I32,
    u32 => U32,
    i64 => I64,
    f32 => F32,
    f64 => F64,
    Decimal => Decimal,
    &str => LongStr,
    String => LongStr,
    &String => LongStr,
    LongStr => LongStr,
    Vec<FieldValue> => Array,
    FieldArray => Array,
    Timestamp => Timestamp,
    FieldTable => Table,
}

impl From<&ShortStr> for FieldValue {
    fn from(text: &ShortStr) -> Self {
        Self::LongStr(LongStr::from(text.as_bytes()))
    }
}

impl From<ShortStr> for FieldValue {
    fn from(text: ShortStr) -> Self {
        Self::from(&text)
    }
}
