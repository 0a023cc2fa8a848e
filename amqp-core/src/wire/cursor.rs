//! A writer into memory of a fixed size.

use core::mem;

use super::{
    ShortStr,
    put::{self, Sink},
};

/// Writes values one after another into a slice.
///
/// A value that does not fit, or has no wire form, is left out, with all after it. So nothing but
/// the end of the writing has to look at [`is_complete`](Self::is_complete).
#[derive(Debug)]
pub struct Cursor<'a> {
    left: &'a mut [u8],
    complete: bool,
}

impl<'a> Cursor<'a> {
    #[inline]
    pub(crate) const fn new(room: &'a mut [u8]) -> Self {
        Self {
            left: room,
            complete: true,
        }
    }

    /// The number of bytes that still fit.
    #[inline]
    pub(crate) const fn left(&self) -> usize {
        self.left.len()
    }

    /// Whether every value was written.
    #[inline]
    pub(crate) const fn is_complete(&self) -> bool {
        self.complete
    }

    /// Leaves out the present value and all after it.
    #[inline]
    fn fail(&mut self) {
        self.left = &mut [];
        self.complete = false;
    }

    /// Takes the place of this cursor for the time of a call that is not inlined, so that this one
    /// can stay in registers.
    #[inline]
    const fn take(&mut self) -> Self {
        mem::replace(self, Self::new(&mut []))
    }

    /// Leaves a gap, for a value that depends on those after it.
    #[inline]
    pub(crate) fn gap<const N: usize>(&mut self) -> Option<&'a mut [u8; N]> {
        let Some((gap, rest)) = mem::take(&mut self.left).split_first_chunk_mut() else {
            self.fail();
            return None;
        };
        self.left = rest;
        Some(gap)
    }

    /// Writes a short string that has another form than its wire format. Fails if it is too long.
    #[inline(never)]
    fn long_text(&mut self, text: &[u8]) {
        match u8::try_from(text.len()) {
            Ok(len) => {
                self.array([len]);
                self.slice(text);
            }
            Err(_) => self.fail(),
        }
    }

    /// Writes the first `len` of the bytes. Where there is room it copies all of them: a copy of
    /// constant size is faster.
    #[inline]
    fn front<const N: usize>(&mut self, bytes: &[u8; N], len: usize) {
        let Some(room) = self.left.first_chunk_mut() else {
            return self.slice(bytes.get(..len).unwrap_or_default());
        };
        *room = *bytes;
        match mem::take(&mut self.left).split_at_mut_checked(len) {
            Some((_, rest)) => self.left = rest,
            None => self.fail(),
        }
    }
}

impl<'a> Sink for Cursor<'a> {
    /// The gap of the length, and the bytes that fitted behind it.
    type Length = Option<(&'a mut [u8; 4], usize)>;

    #[inline]
    fn array<const N: usize>(&mut self, bytes: [u8; N]) {
        if let Some(gap) = self.gap() {
            *gap = bytes;
        }
    }

    #[inline]
    fn slice(&mut self, bytes: &[u8]) {
        match mem::take(&mut self.left).split_at_mut_checked(bytes.len()) {
            Some((room, rest)) => {
                room.copy_from_slice(bytes);
                self.left = rest;
            }
            None => self.fail(),
        }
    }

    #[inline]
    fn short_str(&mut self, text: &ShortStr) {
        match text.inline_wire() {
            Some((wire, len)) => self.front(wire, len),
            None => self.apart(|out| out.long_text(text.as_bytes())),
        }
    }

    #[inline]
    fn apart(&mut self, write: impl FnOnce(&mut Self)) {
        let mut out = self.take();
        write(&mut out);
        *self = out;
    }

    fn begin(&mut self) -> Self::Length {
        let gap = self.gap()?;
        Some((gap, self.left()))
    }

    fn end(&mut self, length: Self::Length) {
        if let Some((gap, before)) = length {
            *gap = put::wire_len(before.saturating_sub(self.left())).to_be_bytes();
        }
    }
}

#[cfg(test)]
mod tests {
    use alloc::{string::String, vec};

    use bytes::BytesMut;

    use super::*;
    use crate::{
        method::Sealed as _,
        protocol::{basic, channel},
        wire::{Encode, FieldTable, Timestamp},
    };

    /// The same bytes as the encoding, in any room that has place for them.
    fn written(value: &impl Encode, put: impl Fn(&mut Cursor<'_>)) {
        let mut encoded = BytesMut::new();
        value.encode(&mut encoded);
        for size in 0..encoded.len() + 50 {
            let mut room = vec![0xff; size];
            let mut out = Cursor::new(&mut room);
            put(&mut out);
            let (complete, left) = (out.is_complete(), out.left());
            assert_eq!(complete, size >= encoded.len(), "{size} bytes");
            if complete {
                assert_eq!(left, size - encoded.len());
                assert_eq!(room[..encoded.len()], encoded);
            }
        }
    }

    #[test]
    fn methods_are_written_as_they_are_encoded() {
        let publish = basic::Publish::default().exchange("amq.topic");
        let long = basic::Publish::default().routing_key("x".repeat(255));
        let close =
            channel::Close::default().reply_text("a text of more than 38 bytes, kept apart");
        written(&publish, |out| publish.put(out));
        written(&long, |out| long.put(out));
        written(&close, |out| close.put(out));
        written(&channel::CloseOk, |out| channel::CloseOk.put(out));
    }

    #[test]
    fn properties_are_written_as_they_are_encoded() {
        let nested = FieldTable::new()
            .with("name", "value")
            .with("more", FieldTable::new());
        let headers = FieldTable::new()
            .with("first", 5)
            .with("table", nested)
            .with("last", "x".repeat(300));
        let all = basic::Properties::default()
            .content_type("text/plain")
            .headers(headers)
            .delivery_mode(2)
            .timestamp(Timestamp(7))
            .correlation_id("x".repeat(100))
            .app_id("app");
        for properties in [basic::Properties::default(), all] {
            written(&properties, |out| properties.write(out));
        }
    }

    #[test]
    fn a_text_that_is_too_long_is_not_written() {
        let publish = basic::Publish::default().exchange(String::from("x").repeat(256));
        let mut room = [0; 1000];
        let mut out = Cursor::new(&mut room);
        publish.put(&mut out);
        assert!(!out.is_complete());
    }
}
