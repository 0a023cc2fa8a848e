//! Writers of the data types (section 4.2.5 of the specification). Each writes one value.

use alloc::vec::Vec;

use bytes::BytesMut;

use super::table::{Step, Walk};
use super::{FieldTable, FieldValue, LongStr, Secret, ShortStr, Timestamp};

/// The destination of encoded values: a buffer that grows, or a [`Cursor`](super::cursor::Cursor).
#[allow(unnameable_types, reason = "methods encode themselves into one")]
pub trait Sink {
    /// The place of a length that is not known yet.
    type Length;

    /// Writes bytes of a constant number.
    fn array<const N: usize>(&mut self, bytes: [u8; N]);

    /// Writes bytes.
    fn slice(&mut self, bytes: &[u8]);

    /// Writes a short string.
    fn short_str(&mut self, text: &ShortStr);

    /// Calls a writer that is not inlined.
    fn apart(&mut self, write: impl FnOnce(&mut Self));

    /// Reserves space for a length.
    fn begin(&mut self) -> Self::Length;

    /// Writes the length of all bytes after the reserved space into that space.
    fn end(&mut self, length: Self::Length);
}

impl Sink for BytesMut {
    /// The position of the length.
    type Length = usize;

    // Appending a slice is inlined to one check and one store; the writers of `BufMut` are not.
    #[inline]
    fn array<const N: usize>(&mut self, bytes: [u8; N]) {
        self.extend_from_slice(&bytes);
    }

    #[inline]
    fn slice(&mut self, bytes: &[u8]) {
        self.extend_from_slice(bytes);
    }

    #[inline]
    fn short_str(&mut self, text: &ShortStr) {
        text.write(self);
    }

    #[inline]
    fn apart(&mut self, write: impl FnOnce(&mut Self)) {
        write(self);
    }

    fn begin(&mut self) -> usize {
        let start = self.len();
        self.array([0; 4]);
        start
    }

    fn end(&mut self, start: usize) {
        if let Some([a, b, c, d, body @ ..]) = self.get_mut(start..) {
            [*a, *b, *c, *d] = wire_len(body.len()).to_be_bytes();
        }
    }
}

#[inline]
pub(crate) fn octet<S: Sink>(out: &mut S, value: u8) {
    out.array([value]);
}

#[inline]
pub(crate) fn short<S: Sink>(out: &mut S, value: u16) {
    out.array(value.to_be_bytes());
}

#[inline]
pub(crate) fn long<S: Sink>(out: &mut S, value: u32) {
    out.array(value.to_be_bytes());
}

#[inline]
pub(crate) fn longlong<S: Sink>(out: &mut S, value: u64) {
    out.array(value.to_be_bytes());
}

#[inline]
pub(crate) fn short_str<S: Sink>(out: &mut S, text: &ShortStr) {
    out.short_str(text);
}

#[inline]
pub(crate) fn long_str<S: Sink>(out: &mut S, text: &LongStr) {
    out.apart(|out| long_bytes(out, text));
}

#[inline]
pub(crate) fn secret<S: Sink>(out: &mut S, secret: &Secret) {
    out.apart(|out| long_bytes(out, secret.expose()));
}

#[inline]
pub(crate) fn timestamp<S: Sink>(out: &mut S, timestamp: Timestamp) {
    longlong(out, timestamp.0);
}

#[inline]
pub(crate) fn table<S: Sink>(out: &mut S, table: &FieldTable) {
    out.apart(|out| fields(out, table));
}

#[inline(never)]
fn fields<S: Sink>(out: &mut S, table: &FieldTable) {
    let length = out.begin();
    // The lengths of the open containers, the innermost last.
    let mut lengths = Vec::new();
    for step in Walk::new(table) {
        match step {
            Step::Plain(name, value) => {
                head(out, name, value);
                plain(out, value);
            }
            Step::Begin(name, value) => {
                head(out, name, value);
                lengths.push(out.begin());
            }
            Step::End => {
                if let Some(length) = lengths.pop() {
                    out.end(length);
                }
            }
        }
    }
    out.end(length);
}

/// Writes the name, which only a field of a table has, and the tag.
fn head<S: Sink>(out: &mut S, name: Option<&ShortStr>, value: &FieldValue) {
    if let Some(name) = name {
        short_str(out, name);
    }
    octet(out, value.tag());
}

fn long_bytes<S: Sink>(out: &mut S, bytes: &[u8]) {
    long(out, wire_len(bytes.len()));
    out.slice(bytes);
}

/// Returns a length as it is encoded. A longer value fits into no frame, and is refused before it
/// is encoded (see [`Encode`](super::Encode)).
pub(crate) fn wire_len(len: usize) -> u32 {
    u32::try_from(len).unwrap_or(u32::MAX)
}

fn plain<S: Sink>(out: &mut S, value: &FieldValue) {
    match value {
        FieldValue::Bool(value) => octet(out, u8::from(*value)),
        FieldValue::I8(value) => out.array(value.to_be_bytes()),
        FieldValue::U8(value) => octet(out, *value),
        FieldValue::I16(value) => out.array(value.to_be_bytes()),
        FieldValue::U16(value) => short(out, *value),
        FieldValue::I32(value) => out.array(value.to_be_bytes()),
        FieldValue::U32(value) => long(out, *value),
        FieldValue::I64(value) | FieldValue::I64Alias(value) => out.array(value.to_be_bytes()),
        FieldValue::F32(value) => out.array(value.to_be_bytes()),
        FieldValue::F64(value) => out.array(value.to_be_bytes()),
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
