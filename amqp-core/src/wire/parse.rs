//! Parsers of the data types (section 4.2.5 of the specification). Each consumes one value at the
//! front of its input.

use bytes::Bytes;
use nom::{Err, IResult};

use super::{
    Decimal, DecodeError, FieldArray, FieldTable, FieldValue, LongStr, MAX_TABLE_DEPTH, Secret,
    ShortStr, Timestamp,
};

/// The rest of the input, and the value.
pub(crate) type Parsed<'a, T> = IResult<&'a [u8], T, DecodeError>;

/// Runs a parser that must consume the whole input.
#[inline]
pub(crate) fn all<'a, T>(
    input: &'a [u8],
    parser: impl FnOnce(&'a [u8]) -> Parsed<'a, T>,
) -> Result<T, DecodeError> {
    match parser(input) {
        Ok(([], value)) => Ok(value),
        Ok((rest, _)) => Err(DecodeError::TrailingBytes { left: rest.len() }),
        Err(error) => Err(cause(error)),
    }
}

fn cause(error: Err<DecodeError>) -> DecodeError {
    match error {
        Err::Incomplete(_) => DecodeError::Truncated,
        Err::Error(error) | Err::Failure(error) => error,
    }
}

/// Turns `Truncated` into `LengthMismatch`: the bytes of the table are complete, so a length inside
/// it is wrong.
fn inside(error: Err<DecodeError>) -> Err<DecodeError> {
    let error = cause(error);
    Err::Error(if error == DecodeError::Truncated {
        DecodeError::LengthMismatch
    } else {
        error
    })
}

#[inline]
fn array<const N: usize>(input: &[u8]) -> Parsed<'_, [u8; N]> {
    match input.split_first_chunk() {
        Some((bytes, rest)) => Ok((rest, *bytes)),
        None => Err(Err::Error(DecodeError::Truncated)),
    }
}

/// Consumes `len` bytes, without a copy.
#[inline]
fn bytes(input: &[u8], len: usize) -> Parsed<'_, &[u8]> {
    match input.split_at_checked(len) {
        Some((bytes, rest)) => Ok((rest, bytes)),
        None => Err(Err::Error(DecodeError::Truncated)),
    }
}

/// Consumes a 32-bit length and that many bytes, without a copy.
#[inline]
fn long_bytes(input: &[u8]) -> Parsed<'_, &[u8]> {
    let (input, len) = long(input)?;
    // A length above `usize::MAX` exceeds any input.
    bytes(input, usize::try_from(len).unwrap_or(usize::MAX))
}

/// Consumes a length octet and that many bytes, without a copy.
#[inline]
fn short_bytes(input: &[u8]) -> Parsed<'_, &[u8]> {
    let (input, len) = octet(input)?;
    bytes(input, usize::from(len))
}

#[inline]
pub(crate) fn octet(input: &[u8]) -> Parsed<'_, u8> {
    match input {
        [octet, rest @ ..] => Ok((rest, *octet)),
        [] => Err(Err::Error(DecodeError::Truncated)),
    }
}

/// Consumes an octet of up to eight consecutive bit arguments, the first in the lowest bit (section
/// 4.2.5.2 of the specification).
#[inline]
pub(crate) fn bits(input: &[u8]) -> Parsed<'_, u8> {
    octet(input)
}

#[inline]
pub(crate) fn short(input: &[u8]) -> Parsed<'_, u16> {
    let (rest, bytes) = array(input)?;
    Ok((rest, u16::from_be_bytes(bytes)))
}

#[inline]
pub(crate) fn long(input: &[u8]) -> Parsed<'_, u32> {
    let (rest, bytes) = array(input)?;
    Ok((rest, u32::from_be_bytes(bytes)))
}

#[inline]
pub(crate) fn longlong(input: &[u8]) -> Parsed<'_, u64> {
    let (rest, bytes) = array(input)?;
    Ok((rest, u64::from_be_bytes(bytes)))
}

#[inline]
pub(crate) fn short_str(input: &[u8]) -> Parsed<'_, ShortStr> {
    ShortStr::read(input).map_err(Err::Error)
}

/// Consumes a short string that need not be UTF-8, because RabbitMQ forwards it as the publisher
/// wrote it. Invalid UTF-8 is replaced: an error would close the consumer's connection, and close
/// it again with each redelivery.
#[inline]
pub(crate) fn text(input: &[u8]) -> Parsed<'_, ShortStr> {
    short_str(input).or_else(|_| lossy_text(input))
}

#[cold]
fn lossy_text(input: &[u8]) -> Parsed<'_, ShortStr> {
    let (rest, bytes) = short_bytes(input)?;
    Ok((rest, ShortStr::from_lossy(bytes)))
}

/// Like [`text`], but without keeping the text.
#[inline]
pub(crate) fn skip_text(input: &[u8]) -> Parsed<'_, ()> {
    let (rest, _) = short_bytes(input)?;
    Ok((rest, ()))
}

/// Consumes a short string, without a copy.
#[inline]
pub(crate) fn short_str_ref(input: &[u8]) -> Parsed<'_, &str> {
    let (rest, bytes) = short_bytes(input)?;
    match core::str::from_utf8(bytes) {
        Ok(text) => Ok((rest, text)),
        Err(_) => Err(Err::Error(DecodeError::InvalidUtf8)),
    }
}

pub(crate) fn long_str(input: &[u8]) -> Parsed<'_, LongStr> {
    let (rest, bytes) = long_bytes(input)?;
    Ok((rest, LongStr::from(bytes)))
}

pub(crate) fn secret(input: &[u8]) -> Parsed<'_, Secret> {
    let (rest, bytes) = long_bytes(input)?;
    Ok((rest, Secret::from(bytes)))
}

#[inline]
pub(crate) fn timestamp(input: &[u8]) -> Parsed<'_, Timestamp> {
    let (rest, seconds) = longlong(input)?;
    Ok((rest, Timestamp(seconds)))
}

pub(crate) fn table(input: &[u8]) -> Parsed<'_, FieldTable> {
    let (rest, body) = long_bytes(input)?;
    Ok((rest, fields(body, 1).map_err(inside)?))
}

/// Returns the long string in the first field called `name` of a table. `Some` if there is such a
/// field and it is a long string. `table` is the whole table without its length. Copies nothing.
///
/// # Errors
/// If `table` is not a table.
pub(crate) fn bare_long_str<'a>(
    mut table: &'a [u8],
    name: &str,
) -> Result<Option<&'a [u8]>, DecodeError> {
    let mut first = None;
    while !table.is_empty() {
        let (value, key) = short_bytes(table).map_err(cause)?;
        let (rest, ()) = skip_value(value, 1).map_err(cause)?;
        if first.is_none() && key == name.as_bytes() {
            first = Some(value);
        }
        table = rest;
    }
    match first {
        Some([b'S', text @ ..]) => {
            let (_, text) = long_bytes(text).map_err(cause)?;
            Ok(Some(text))
        }
        Some(_) | None => Ok(None),
    }
}

/// Calls `each` with the name and the encoded bytes of each field of a table, which is the whole
/// input.
pub(crate) fn visit_table<'a>(
    table: &'a [u8],
    mut each: impl FnMut(&'a [u8], &'a [u8]),
) -> Result<(), DecodeError> {
    let mut fields = all(table, long_bytes)?;
    while !fields.is_empty() {
        let (value, name) = short_bytes(fields).map_err(cause)?;
        let (rest, ()) = skip_value(value, 1).map_err(cause)?;
        each(name, before(fields, rest));
        fields = rest;
    }
    Ok(())
}

/// Returns the part of `input` before its suffix `end`.
#[inline]
pub(crate) fn before<'a>(input: &'a [u8], end: &[u8]) -> &'a [u8] {
    let len = input.len().saturating_sub(end.len());
    input.get(..len).unwrap_or_default()
}

/// Consumes a table without an allocation. Fails exactly if [`table`] fails.
pub(crate) fn skip_table(input: &[u8]) -> Parsed<'_, ()> {
    let (rest, body) = long_bytes(input)?;
    skip_fields(body, 1).map_err(inside)?;
    Ok((rest, ()))
}

/// Parses the fields of a table at nesting depth `depth`. The depth bounds the recursion.
fn fields(mut body: &[u8], depth: usize) -> Result<FieldTable, Err<DecodeError>> {
    check_depth(depth)?;
    let mut table = FieldTable::new();
    while !body.is_empty() {
        let (rest, name) = text(body)?;
        let (rest, value) = value(rest, depth)?;
        table.push(name, value);
        body = rest;
    }
    Ok(table)
}

fn elements(mut body: &[u8], depth: usize) -> Result<FieldArray, Err<DecodeError>> {
    check_depth(depth)?;
    let mut array = FieldArray::new();
    while !body.is_empty() {
        let (rest, value) = value(body, depth)?;
        array.push(value);
        body = rest;
    }
    Ok(array)
}

fn check_depth(depth: usize) -> Result<(), Err<DecodeError>> {
    if depth > MAX_TABLE_DEPTH {
        return Err(Err::Error(DecodeError::TableTooDeep));
    }
    Ok(())
}

/// Consumes a tag and a value, in a table or array at nesting depth `depth`.
fn value(input: &[u8], depth: usize) -> Parsed<'_, FieldValue> {
    let (input, tag) = octet(input)?;
    Ok(match tag {
        b't' => {
            let (rest, [octet]) = array(input)?;
            (rest, FieldValue::Bool(octet != 0))
        }
        b'b' => {
            let (rest, bytes) = array(input)?;
            (rest, FieldValue::I8(i8::from_be_bytes(bytes)))
        }
        b'B' => {
            let (rest, octet) = octet(input)?;
            (rest, FieldValue::U8(octet))
        }
        b's' => {
            let (rest, bytes) = array(input)?;
            (rest, FieldValue::I16(i16::from_be_bytes(bytes)))
        }
        b'u' => {
            let (rest, bytes) = array(input)?;
            (rest, FieldValue::U16(u16::from_be_bytes(bytes)))
        }
        b'I' => {
            let (rest, bytes) = array(input)?;
            (rest, FieldValue::I32(i32::from_be_bytes(bytes)))
        }
        b'i' => {
            let (rest, bytes) = array(input)?;
            (rest, FieldValue::U32(u32::from_be_bytes(bytes)))
        }
        b'l' => {
            let (rest, bytes) = array(input)?;
            (rest, FieldValue::I64(i64::from_be_bytes(bytes)))
        }
        b'L' => {
            let (rest, bytes) = array(input)?;
            (rest, FieldValue::I64Alias(i64::from_be_bytes(bytes)))
        }
        b'f' => {
            let (rest, bytes) = array(input)?;
            (rest, FieldValue::F32(f32::from_be_bytes(bytes)))
        }
        b'd' => {
            let (rest, bytes) = array(input)?;
            (rest, FieldValue::F64(f64::from_be_bytes(bytes)))
        }
        b'D' => {
            let (rest, scale) = octet(input)?;
            let (rest, value) = long(rest)?;
            (rest, FieldValue::Decimal(Decimal { scale, value }))
        }
        b'S' => {
            let (rest, text) = long_str(input)?;
            (rest, FieldValue::LongStr(text))
        }
        b'A' => {
            let (rest, body) = long_bytes(input)?;
            (rest, FieldValue::Array(elements(body, depth + 1)?))
        }
        b'T' => {
            let (rest, timestamp) = timestamp(input)?;
            (rest, FieldValue::Timestamp(timestamp))
        }
        b'F' => {
            let (rest, body) = long_bytes(input)?;
            (rest, FieldValue::Table(fields(body, depth + 1)?))
        }
        b'x' => {
            let (rest, bytes) = long_bytes(input)?;
            (rest, FieldValue::Bytes(Bytes::copy_from_slice(bytes)))
        }
        b'V' => (input, FieldValue::Void),
        unknown => return Err(Err::Error(DecodeError::UnknownFieldType(unknown))),
    })
}

fn skip_fields(mut body: &[u8], depth: usize) -> Result<(), Err<DecodeError>> {
    check_depth(depth)?;
    while !body.is_empty() {
        let (rest, ()) = skip_text(body)?;
        (body, _) = skip_value(rest, depth)?;
    }
    Ok(())
}

fn skip_elements(mut body: &[u8], depth: usize) -> Result<(), Err<DecodeError>> {
    check_depth(depth)?;
    while !body.is_empty() {
        (body, _) = skip_value(body, depth)?;
    }
    Ok(())
}

/// Like [`value`], but without keeping the value.
fn skip_value(input: &[u8], depth: usize) -> Parsed<'_, ()> {
    let (input, tag) = octet(input)?;
    let (rest, _) = match tag {
        b't' | b'b' | b'B' => bytes(input, 1)?,
        b's' | b'u' => bytes(input, 2)?,
        b'I' | b'i' | b'f' => bytes(input, 4)?,
        b'l' | b'L' | b'd' | b'T' => bytes(input, 8)?,
        b'D' => bytes(input, 5)?,
        b'S' | b'x' => long_bytes(input)?,
        b'V' => (input, input),
        b'A' => {
            let (rest, body) = long_bytes(input)?;
            skip_elements(body, depth + 1)?;
            (rest, body)
        }
        b'F' => {
            let (rest, body) = long_bytes(input)?;
            skip_fields(body, depth + 1)?;
            (rest, body)
        }
        unknown => return Err(Err::Error(DecodeError::UnknownFieldType(unknown))),
    };
    Ok((rest, ()))
}
