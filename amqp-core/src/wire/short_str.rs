//! Short strings: the type of all names in the protocol.

use alloc::string::String;
use alloc::sync::Arc;
use core::borrow::Borrow;
use core::cmp::Ordering;
use core::convert::Infallible;
use core::fmt;
use core::hash::{Hash, Hasher};
use core::ops::Deref;
use core::str::FromStr;

use bytes::BytesMut;

use super::{Decode, DecodeError, Encode, parse, put};

/// The capacity of the inline form, in bytes. With the length octet and the tag of the enum, a
/// `ShortStr` takes 40 bytes. Most names and routing keys fit.
const INLINE: usize = 38;

/// A text of at most 255 **bytes** of UTF-8 (section 4.2.5.3 of the specification).
///
/// A setter keeps a longer text, so that it does not fail: see [`IntoShortStr`](super::IntoShortStr).
/// No command sends it.
///
/// Up to 38 bytes are stored inline, longer texts behind a shared pointer, so that a clone never
/// allocates. It compares, sorts and hashes like its `str`.
///
/// ```
/// use amqp_core::wire::ShortStr;
///
/// let queue: ShortStr = "orders".parse()?;
/// assert_eq!(queue, "orders");
/// assert!(ShortStr::try_from("x".repeat(256)).is_err());
/// # Ok::<(), amqp_core::wire::ShortStrError>(())
/// ```
#[derive(Clone)]
pub struct ShortStr(Repr);

/// Invariant: all variants contain UTF-8, `Inline` of at most `INLINE` bytes, `Static` of at most
/// `MAX_LEN`. A `Shared` text of more than `MAX_LEN` bytes is one that a setter was given; its
/// `encoded_len` is [`TOO_LONG`].
#[derive(Clone)]
enum Repr {
    /// The text in its wire format: the length octet, the text, and unused bytes.
    Inline([u8; 1 + INLINE]),
    Static(&'static str),
    Shared(Arc<str>),
}

/// The encoded size of a text that is too long, in bytes. It is above every frame size, so that the
/// check of the size of a frame refuses it. The sizes of all fields of a method can be added, on a
/// platform with addresses of 32 bits too.
pub(crate) const TOO_LONG: usize = match 1_usize.checked_shl(u32::BITS) {
    Some(len) => len,
    None => usize::MAX / 64,
};

impl ShortStr {
    /// The maximum length of a short string, in bytes: the length is one octet.
    pub const MAX_LEN: usize = 255;

    /// Returns the empty string.
    #[must_use]
    pub const fn new() -> Self {
        Self(Repr::Inline([0; 1 + INLINE]))
    }

    /// Creates a short string from a literal, also in a constant. `Some` if it has at most 255
    /// bytes.
    ///
    /// ```
    /// use amqp_core::wire::ShortStr;
    ///
    /// const EXCHANGE: ShortStr = ShortStr::from_static("amq.topic").unwrap();
    /// assert_eq!(EXCHANGE, "amq.topic");
    /// ```
    #[must_use]
    pub const fn from_static(text: &'static str) -> Option<Self> {
        if text.len() > Self::MAX_LEN {
            return None;
        }
        Some(Self(match Self::inline(text.as_bytes()) {
            Some(wire) => Repr::Inline(wire),
            None => Repr::Static(text),
        }))
    }

    /// Returns the inline form. `Some` if the bytes fit into it.
    const fn inline(bytes: &[u8]) -> Option<[u8; 1 + INLINE]> {
        let mut wire = [0; 1 + INLINE];
        let [len, text @ ..] = &mut wire;
        let Some((text, _)) = text.split_at_mut_checked(bytes.len()) else {
            return None;
        };
        text.copy_from_slice(bytes);
        *len = bytes.len() as u8;
        Some(wire)
    }

    /// Creates a short string from a text of any length.
    #[inline]
    pub(super) fn of(text: &str) -> Self {
        Self(match Self::inline(text.as_bytes()) {
            Some(wire) => Repr::Inline(wire),
            None => Repr::Shared(Arc::from(text)),
        })
    }

    /// Consumes a short string at the front of `input`.
    #[inline]
    pub(super) fn read(input: &[u8]) -> Result<(&[u8], Self), DecodeError> {
        let (text, rest) = input
            .split_first()
            .and_then(|(len, rest)| rest.split_at_checked(usize::from(*len)))
            .ok_or(DecodeError::Truncated)?;
        if text.len() > INLINE {
            let text = core::str::from_utf8(text).map_err(|_| DecodeError::InvalidUtf8)?;
            return Ok((rest, Self(Repr::Shared(Arc::from(text)))));
        }
        // Most texts are ASCII, and that check is faster.
        if !text.is_ascii() && core::str::from_utf8(text).is_err() {
            return Err(DecodeError::InvalidUtf8);
        }
        // Copies more than the text: a copy of constant size is faster.
        let wire = match input.first_chunk() {
            Some(wire) => Some(*wire),
            None => Self::inline(text),
        };
        Ok((
            rest,
            wire.map_or_else(Self::new, |wire| Self(Repr::Inline(wire))),
        ))
    }

    /// Creates a short string from bytes that may be invalid UTF-8. Invalid UTF-8 is replaced by
    /// U+FFFD, and a result of more than 255 bytes is truncated.
    pub(super) fn from_lossy(bytes: &[u8]) -> Self {
        Self::of(truncated(&String::from_utf8_lossy(bytes)))
    }

    /// A copy of an inline text, as integers: the compiler writes them straight into the value that
    /// the copy becomes a part of, and the bytes of a clone by way of other places.
    #[inline]
    pub(crate) fn copy_inline(&self) -> Option<Self> {
        let Repr::Inline(wire) = &self.0 else {
            return None;
        };
        let (a, from) = wire.split_first_chunk()?;
        let (b, from) = from.split_first_chunk()?;
        let (c, from) = from.split_first_chunk()?;
        let (d, from) = from.split_first_chunk()?;
        let (e, from) = from.split_first_chunk()?;
        let (f, from) = from.split_first_chunk()?;
        let mut copy = [0; 1 + INLINE];
        let (to_a, to) = copy.split_first_chunk_mut()?;
        let (to_b, to) = to.split_first_chunk_mut()?;
        let (to_c, to) = to.split_first_chunk_mut()?;
        let (to_d, to) = to.split_first_chunk_mut()?;
        let (to_e, to) = to.split_first_chunk_mut()?;
        let (to_f, to) = to.split_first_chunk_mut()?;
        *to_a = u64::from_ne_bytes(*a).to_ne_bytes();
        *to_b = u64::from_ne_bytes(*b).to_ne_bytes();
        *to_c = u64::from_ne_bytes(*c).to_ne_bytes();
        *to_d = u64::from_ne_bytes(*d).to_ne_bytes();
        *to_e = u32::from_ne_bytes(*e).to_ne_bytes();
        *to_f = u16::from_ne_bytes(*f).to_ne_bytes();
        *to.first_mut()? = *from.first()?;
        Some(Self(Repr::Inline(copy)))
    }

    /// Returns the text. For an inline text this checks again that it is UTF-8;
    /// [`as_bytes`](Self::as_bytes) does not.
    #[must_use]
    pub fn as_str(&self) -> &str {
        match &self.0 {
            // Invariant: the text is valid UTF-8, so the default is never used.
            Repr::Inline(_) => core::str::from_utf8(self.as_bytes()).unwrap_or_default(),
            Repr::Static(text) => text,
            Repr::Shared(text) => text,
        }
    }

    /// Returns the bytes of the text.
    #[inline]
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        match &self.0 {
            // Invariant: the length is at most `INLINE`, so the default is never used.
            Repr::Inline([len, text @ ..]) => text.get(..usize::from(*len)).unwrap_or_default(),
            Repr::Static(text) => text.as_bytes(),
            Repr::Shared(text) => text.as_bytes(),
        }
    }

    /// Returns the length in bytes.
    #[inline]
    #[must_use]
    pub fn len(&self) -> usize {
        match &self.0 {
            Repr::Inline([len, ..]) => usize::from(*len),
            Repr::Static(text) => text.len(),
            Repr::Shared(text) => text.len(),
        }
    }

    /// Returns whether the string is empty.
    #[inline]
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Appends the length octet and the text. A text that is too long, whose size was to be checked
    /// before, is truncated, so that the following fields stay where they belong.
    #[inline]
    pub(super) fn write(&self, out: &mut BytesMut) {
        if let Repr::Inline(wire) = &self.0 {
            out.extend_from_slice(wire.get(..1 + self.len()).unwrap_or_default());
        } else {
            let text = truncated(self.as_str());
            out.extend_from_slice(&[text.len() as u8]); // at most `MAX_LEN`
            out.extend_from_slice(text.as_bytes());
        }
    }

    /// The wire format and unused bytes behind it, and its size in bytes. `Some` for an inline text.
    #[inline]
    pub(super) const fn inline_wire(&self) -> Option<(&[u8; 1 + INLINE], usize)> {
        match &self.0 {
            Repr::Inline(wire) => {
                let [len, ..] = wire;
                Some((wire, 1 + *len as usize))
            }
            Repr::Static(_) | Repr::Shared(_) => None,
        }
    }

    /// Returns the encoded size, in bytes: the length octet, and the text. For a text that is too
    /// long, a size that fits into no frame.
    #[inline]
    #[must_use]
    pub fn encoded_len(&self) -> usize {
        let len = self.len();
        if len > Self::MAX_LEN {
            return TOO_LONG;
        }
        1 + len
    }
}

/// Returns the text up to the last character that ends within [`ShortStr::MAX_LEN`] bytes.
fn truncated(text: &str) -> &str {
    let mut end = text.len().min(ShortStr::MAX_LEN);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text.get(..end).unwrap_or_default()
}

/// The text has more than [`ShortStr::MAX_LEN`] bytes, and so cannot be a short string.
#[derive(thiserror::Error, Clone, Copy, Debug, PartialEq, Eq)]
#[error("a short string has at most {max} bytes, this text has {len}", max = ShortStr::MAX_LEN)]
pub struct ShortStrError {
    /// The length of the text, in bytes.
    pub len: usize,
}

/// Lets a function with an `impl TryInto<ShortStr>` argument accept a `ShortStr`, where the
/// conversion cannot fail.
impl From<Infallible> for ShortStrError {
    fn from(never: Infallible) -> Self {
        match never {}
    }
}

impl TryFrom<&str> for ShortStr {
    type Error = ShortStrError;

    fn try_from(text: &str) -> Result<Self, ShortStrError> {
        if text.len() > Self::MAX_LEN {
            return Err(ShortStrError { len: text.len() });
        }
        Ok(Self::of(text))
    }
}

impl TryFrom<String> for ShortStr {
    type Error = ShortStrError;

    fn try_from(text: String) -> Result<Self, ShortStrError> {
        Self::try_from(text.as_str())
    }
}

impl TryFrom<&String> for ShortStr {
    type Error = ShortStrError;

    fn try_from(text: &String) -> Result<Self, ShortStrError> {
        Self::try_from(text.as_str())
    }
}

impl FromStr for ShortStr {
    type Err = ShortStrError;

    fn from_str(text: &str) -> Result<Self, ShortStrError> {
        Self::try_from(text)
    }
}

impl From<&Self> for ShortStr {
    fn from(text: &Self) -> Self {
        text.clone()
    }
}

impl From<ShortStr> for String {
    fn from(text: ShortStr) -> Self {
        Self::from(text.as_str())
    }
}

impl Default for ShortStr {
    fn default() -> Self {
        Self::new()
    }
}

impl Deref for ShortStr {
    type Target = str;

    fn deref(&self) -> &str {
        self.as_str()
    }
}

impl AsRef<str> for ShortStr {
    fn as_ref(&self) -> &str {
        self.as_str()
    }
}

impl AsRef<[u8]> for ShortStr {
    fn as_ref(&self) -> &[u8] {
        self.as_bytes()
    }
}

impl Borrow<str> for ShortStr {
    fn borrow(&self) -> &str {
        self.as_str()
    }
}

impl fmt::Debug for ShortStr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.as_str(), f)
    }
}

impl fmt::Display for ShortStr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self.as_str(), f)
    }
}

impl PartialEq for ShortStr {
    #[inline]
    fn eq(&self, other: &Self) -> bool {
        self.as_bytes() == other.as_bytes()
    }
}

impl Eq for ShortStr {}

impl PartialEq<str> for ShortStr {
    #[inline]
    fn eq(&self, other: &str) -> bool {
        self.as_bytes() == other.as_bytes()
    }
}

impl PartialEq<&str> for ShortStr {
    #[inline]
    fn eq(&self, other: &&str) -> bool {
        self.as_bytes() == other.as_bytes()
    }
}

impl PartialEq<String> for ShortStr {
    #[inline]
    fn eq(&self, other: &String) -> bool {
        self.as_bytes() == other.as_bytes()
    }
}

impl PartialOrd for ShortStr {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// The order of `str` is the order of its bytes.
impl Ord for ShortStr {
    fn cmp(&self, other: &Self) -> Ordering {
        self.as_bytes().cmp(other.as_bytes())
    }
}

/// Hashes as `str`, as `Borrow<str>` requires: no other way makes the same calls to every hasher.
impl Hash for ShortStr {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.as_str().hash(state);
    }
}

impl Encode for ShortStr {
    fn encoded_len(&self) -> usize {
        self.encoded_len()
    }

    fn encode(&self, out: &mut BytesMut) {
        put::short_str(out, self);
    }
}

impl Decode for ShortStr {
    fn decode(input: &[u8]) -> Result<Self, DecodeError> {
        parse::all(input, parse::short_str)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_of_an_inline_text_equals_it() {
        for len in 0..=ShortStr::MAX_LEN {
            let text: String = ('a'..='z').cycle().take(len).collect();
            let text = ShortStr::of(&text);
            let copy = text.copy_inline();
            assert_eq!(copy, (len <= INLINE).then(|| text.clone()));
            let wire = copy.as_ref().map(ShortStr::inline_wire);
            assert_eq!(
                wire.unwrap_or_else(|| text.inline_wire()),
                text.inline_wire()
            );
        }
    }
}
