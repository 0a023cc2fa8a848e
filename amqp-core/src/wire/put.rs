//! Writers of the data types (section 4.2.5 of the specification). Each appends one value.

use alloc::vec::Vec;

use bytes::BytesMut;

use super::table::{Step, Walk};
use super::{FieldTable, FieldValue, LongStr, Secret, ShortStr, Timestamp};

// Appending a slice is inlined to one check and one store; the writers of `BufMut` are not.

#[inline]
pub(crate) fn octet(out: &mut BytesMut, value: u8) {
    out.extend_from_slice(&[value]);
}

#[inline]
pub(crate) fn short(out: &mut BytesMut, value: u16) {
    out.extend_from_slice(&value.to_be_bytes());
}

#[inline]
pub(crate) fn long(out: &mut BytesMut, value: u32) {
    out.extend_from_slice(&value.to_be_bytes());
}

#[inline]
pub(crate) fn longlong(out: &mut BytesMut, value: u64) {
    out.extend_from_slice(&value.to_be_bytes());
}

#[inline]
pub(crate) fn short_str(out: &mut BytesMut, text: &ShortStr) {
    text.write(out);
}

pub(crate) fn long_str(out: &mut BytesMut, text: &LongStr) {
    long_bytes(out, text);
}

pub(crate) fn secret(out: &mut BytesMut, secret: &Secret) {
    long_bytes(out, secret.expose());
}

#[inline]
pub(crate) fn timestamp(out: &mut BytesMut, timestamp: Timestamp) {
    longlong(out, timestamp.0);
}

pub(crate) fn table(out: &mut BytesMut, table: &FieldTable) {
    let start = begin(out);
    // The positions of the open containers' lengths, the innermost last.
    let mut starts = Vec::new();
    for step in Walk::new(table) {
        match step {
            Step::Plain(name, value) => {
                head(out, name, value);
                plain(out, value);
            }
            Step::Begin(name, value) => {
                head(out, name, value);
                starts.push(begin(out));
            }
            Step::End => {
                if let Some(start) = starts.pop() {
                    end(out, start);
                }
            }
        }
    }
    end(out, start);
}

/// Writes the name, which only a field of a table has, and the tag.
fn head(out: &mut BytesMut, name: Option<&ShortStr>, value: &FieldValue) {
    if let Some(name) = name {
        short_str(out, name);
    }
    octet(out, value.tag());
}

/// Reserves space for a length. Returns its position.
fn begin(out: &mut BytesMut) -> usize {
    let start = out.len();
    long(out, 0);
    start
}

/// Writes the length of all bytes after the reserved space into that space.
fn end(out: &mut BytesMut, start: usize) {
    if let Some([a, b, c, d, body @ ..]) = out.get_mut(start..) {
        [*a, *b, *c, *d] = wire_len(body.len()).to_be_bytes();
    }
}

fn long_bytes(out: &mut BytesMut, bytes: &[u8]) {
    long(out, wire_len(bytes.len()));
    out.extend_from_slice(bytes);
}

/// Returns a length as it is encoded. A longer value fits into no frame, and is refused before it
/// is encoded (see [`Encode`](super::Encode)).
pub(crate) fn wire_len(len: usize) -> u32 {
    u32::try_from(len).unwrap_or(u32::MAX)
}

fn plain(out: &mut BytesMut, value: &FieldValue) {
    match value {
        FieldValue::Bool(value) => octet(out, u8::from(*value)),
        FieldValue::I8(value) => out.extend_from_slice(&value.to_be_bytes()),
        FieldValue::U8(value) => octet(out, *value),
        FieldValue::I16(value) => out.extend_from_slice(&value.to_be_bytes()),
        FieldValue::U16(value) => short(out, *value),
        FieldValue::I32(value) => out.extend_from_slice(&value.to_be_bytes()),
        FieldValue::U32(value) => long(out, *value),
        FieldValue::I64(value) | FieldValue::I64Alias(value) => {
            out.extend_from_slice(&value.to_be_bytes())
        }
        FieldValue::F32(value) => out.extend_from_slice(&value.to_be_bytes()),
        FieldValue::F64(value) => out.extend_from_slice(&value.to_be_bytes()),
        FieldValue::Decimal(value) => {
            octet(out, value.scale);
            long(out, value.value);
        }
        FieldValue::LongStr(text) => long_str(out, text),
        FieldValue::Timestamp(value) => timestamp(out, *value),
        FieldValue::Bytes(bytes) => long_bytes(out, bytes),
        // [`Walk`] yields the contents of a container as steps of their own.
        FieldValue::Array(_) | FieldValue::Table(_) | FieldValue::Void => {}
    }
}
