//! Message bodies and properties, received and sent.

use alloc::{borrow::Cow, collections::VecDeque, string::String, vec::Vec};
use core::{
    fmt,
    str::{self, Utf8Error},
};

use bytes::{Buf, Bytes, BytesMut};

use crate::{
    protocol::basic::Properties,
    wire::{Decode as _, DecodeError, Encode},
};

/// The body of a message: bytes, in one piece or several.
///
/// A body received in several frames is kept as the received pieces. They are copied only when
/// [`into_bytes`](Self::into_bytes) joins them. A body is a [`Buf`].
#[derive(Clone, Default)]
pub struct Body(Pieces);

#[derive(Clone)]
enum Pieces {
    One(Bytes),
    Many {
        /// No piece is empty.
        pieces: VecDeque<Bytes>,
        /// The sum of the pieces' lengths, in bytes.
        len: usize,
    },
}

impl Default for Pieces {
    fn default() -> Self {
        Self::One(Bytes::new())
    }
}

impl Body {
    /// Creates an empty body.
    #[must_use]
    pub const fn new() -> Self {
        Self(Pieces::One(Bytes::new()))
    }

    /// Copies bytes, for a slice that is borrowed. Bytes that are `'static` or owned convert without
    /// a copy.
    ///
    /// ```
    /// use amqp_core::Body;
    ///
    /// let line = [1, 2, 3, 4];
    /// let body = Body::copy_from_slice(&line[..2]);
    /// assert_eq!(body, [1, 2][..]);
    /// ```
    #[must_use]
    pub fn copy_from_slice(bytes: &[u8]) -> Self {
        Self(Pieces::One(Bytes::copy_from_slice(bytes)))
    }

    /// Returns the length in bytes.
    #[inline]
    #[must_use]
    pub fn len(&self) -> usize {
        match &self.0 {
            Pieces::One(bytes) => bytes.len(),
            Pieces::Many { len, .. } => *len,
        }
    }

    /// Whether the body is empty.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns the pieces, in order. An empty body has none.
    pub fn pieces(&self) -> impl Iterator<Item = &Bytes> {
        let (one, many) = match &self.0 {
            Pieces::One(bytes) => (Some(bytes).filter(|bytes| !bytes.is_empty()), None),
            Pieces::Many { pieces, .. } => (None, Some(pieces)),
        };
        one.into_iter().chain(many.into_iter().flatten())
    }

    /// Returns the body in one piece. Copies only if there are several.
    #[must_use]
    pub fn into_bytes(self) -> Bytes {
        match self.0 {
            Pieces::One(bytes) => bytes,
            Pieces::Many { pieces, len } => {
                let mut all = BytesMut::with_capacity(len);
                for piece in &pieces {
                    all.extend_from_slice(piece);
                }
                all.freeze()
            }
        }
    }

    /// Returns the body as one slice. Copies only if there are several pieces, as in a message of
    /// several frames.
    #[must_use]
    pub fn as_slice(&self) -> Cow<'_, [u8]> {
        match self.single() {
            Some(bytes) => Cow::Borrowed(bytes),
            None => Cow::Owned(self.to_vec()),
        }
    }

    /// Returns the body as text. Copies only if there are several pieces.
    ///
    /// ```
    /// use amqp_core::Body;
    ///
    /// assert_eq!(Body::from("Grüße").text()?, "Grüße");
    /// assert!(Body::from(b"\xff").text().is_err());
    /// # Ok::<(), core::str::Utf8Error>(())
    /// ```
    ///
    /// # Errors
    /// If it is not UTF-8.
    pub fn text(&self) -> Result<Cow<'_, str>, Utf8Error> {
        match self.as_slice() {
            Cow::Borrowed(bytes) => str::from_utf8(bytes).map(Cow::Borrowed),
            Cow::Owned(bytes) => String::from_utf8(bytes)
                .map(Cow::Owned)
                .map_err(|error| error.utf8_error()),
        }
    }

    /// Copies the body into a vector.
    #[must_use]
    pub fn to_vec(&self) -> Vec<u8> {
        let mut all = Vec::with_capacity(self.len());
        for piece in self.pieces() {
            all.extend_from_slice(piece);
        }
        all
    }

    /// The only piece. `None` if there are several.
    pub(crate) const fn single(&self) -> Option<&Bytes> {
        match &self.0 {
            Pieces::One(bytes) => Some(bytes),
            Pieces::Many { .. } => None,
        }
    }

    /// The pieces, in order.
    pub(crate) fn into_pieces(self) -> impl Iterator<Item = Bytes> {
        let (one, many) = match self.0 {
            Pieces::One(bytes) => (Some(bytes).filter(|bytes| !bytes.is_empty()), None),
            Pieces::Many { pieces, .. } => (None, Some(pieces)),
        };
        one.into_iter().chain(many.into_iter().flatten())
    }

    fn memory(&self) -> usize {
        match &self.0 {
            Pieces::One(bytes) => bytes.len(),
            Pieces::Many { pieces, len } => len + PIECE_OVERHEAD * pieces.len(),
        }
    }

    pub(crate) fn push(&mut self, piece: Bytes) {
        if piece.is_empty() {
            return;
        }
        match &mut self.0 {
            Pieces::One(only) if only.is_empty() => *only = piece,
            Pieces::One(only) => {
                let len = only.len() + piece.len();
                let first = core::mem::take(only);
                self.0 = Pieces::Many {
                    pieces: VecDeque::from([first, piece]),
                    len,
                };
            }
            Pieces::Many { pieces, len } => {
                *len += piece.len();
                pieces.push_back(piece);
            }
        }
    }

    /// Replaces the last `count` pieces by a copy of them in one piece.
    pub(crate) fn copy_last(&mut self, count: usize) {
        match &mut self.0 {
            Pieces::One(only) => *only = Bytes::copy_from_slice(only),
            Pieces::Many { pieces, .. } => {
                let from = pieces.len().saturating_sub(count);
                let len = pieces.range(from..).map(Bytes::len).sum();
                let mut copy = Vec::with_capacity(len);
                for piece in pieces.drain(from..) {
                    copy.extend_from_slice(&piece);
                }
                pieces.push_back(copy.into());
            }
        }
    }

    /// Takes a piece of at most `limit` bytes off the front.
    pub(crate) fn take_front(&mut self, limit: usize) -> Bytes {
        match &mut self.0 {
            Pieces::One(bytes) => bytes.split_to(limit.min(bytes.len())),
            Pieces::Many { pieces, len } => {
                let Some(front) = pieces.front_mut() else {
                    return Bytes::new();
                };
                let taken = if front.len() <= limit {
                    pieces.pop_front().unwrap_or_default()
                } else {
                    front.split_to(limit)
                };
                *len -= taken.len();
                taken
            }
        }
    }
}

impl Buf for Body {
    fn remaining(&self) -> usize {
        self.len()
    }

    fn chunk(&self) -> &[u8] {
        self.pieces().next().map_or(&[], |piece| &piece[..])
    }

    /// Advances past `count` bytes, at most to the end.
    fn advance(&mut self, count: usize) {
        let mut left = count.min(self.len());
        while left > 0 {
            left -= self.take_front(left).len();
        }
    }
}

macro_rules! body_from {
    ($($source:ty),*) => {$(
        impl From<$source> for Body {
            fn from(source: $source) -> Self {
                Self(Pieces::One(Bytes::from(source)))
            }
        }
    )*};
}

body_from!(
    Bytes,
    BytesMut,
    Vec<u8>,
    String,
    &'static [u8],
    &'static str
);

impl<const N: usize> From<&'static [u8; N]> for Body {
    fn from(source: &'static [u8; N]) -> Self {
        Self(Pieces::One(Bytes::from_static(source)))
    }
}

impl PartialEq for Body {
    fn eq(&self, other: &Self) -> bool {
        self.len() == other.len()
            && self
                .pieces()
                .flat_map(|piece| piece.iter())
                .eq(other.pieces().flat_map(|piece| piece.iter()))
    }
}

impl Eq for Body {}

impl PartialEq<[u8]> for Body {
    fn eq(&self, other: &[u8]) -> bool {
        self.len() == other.len()
            && self
                .pieces()
                .flat_map(|piece| piece.iter())
                .eq(other.iter())
    }
}

impl PartialEq<&[u8]> for Body {
    fn eq(&self, other: &&[u8]) -> bool {
        *self == **other
    }
}

impl<const N: usize> PartialEq<&[u8; N]> for Body {
    fn eq(&self, other: &&[u8; N]) -> bool {
        *self == other[..]
    }
}

impl PartialEq<&str> for Body {
    fn eq(&self, other: &&str) -> bool {
        *self == *other.as_bytes()
    }
}

/// The body as text, with U+FFFD in place of what is not UTF-8. For logs,
/// [`Escaped`](crate::text::Escaped) keeps control characters out.
impl fmt::Display for Body {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&String::from_utf8_lossy(&self.as_slice()))
    }
}

impl fmt::Debug for Body {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        /// The number of bytes that are printed.
        const SHOWN: usize = 64;
        let mut rest = self.clone();
        let mut shown = rest.take_front(SHOWN);
        while shown.len() < SHOWN && !rest.is_empty() {
            let more = rest.take_front(SHOWN - shown.len());
            let mut joined = BytesMut::from(&shown[..]);
            joined.extend_from_slice(&more);
            shown = joined.freeze();
        }
        write!(f, "Body({} bytes: {shown:?}", self.len())?;
        f.write_str(if rest.is_empty() { ")" } else { "..)" })
    }
}

/// The property list of a content header: [`Properties`] or [`EncodedProperties`].
///
/// Sealed, because it encodes itself in the middle of a frame.
pub trait PropertyList: Encode + sealed::Sealed {
    /// The `reply-to` property. `Some` if it is set and known without decoding.
    fn reply_to(&self) -> Option<&str> {
        None
    }

    /// Checks that the encoded properties decode.
    ///
    /// # Errors
    /// The error of decoding them. Never fails for [`Properties`].
    fn check(&self) -> Result<(), DecodeError> {
        Ok(())
    }
}

mod sealed {
    use crate::wire::{cursor::Cursor, put::Sink as _};

    pub trait Sealed {
        /// Writes the property flags and the values.
        fn put(&self, out: &mut Cursor<'_>);
    }

    impl Sealed for super::Properties {
        #[inline]
        fn put(&self, out: &mut Cursor<'_>) {
            self.write(out);
        }
    }

    impl Sealed for super::EncodedProperties {
        #[inline]
        fn put(&self, out: &mut Cursor<'_>) {
            out.slice(self.as_bytes());
        }
    }
}

impl PropertyList for Properties {
    #[inline]
    fn reply_to(&self) -> Option<&str> {
        self.reply_to.as_deref()
    }
}

/// Message properties in wire format (section 4.2.6.1 of the specification), decoded on request.
///
/// Most consumers read few properties or none, so a delivery has them encoded. They are the
/// publisher's and not checked: malformed ones are reported by [`decode`](Self::decode). They can
/// be published again, which forwards properties without keeping them decoded; malformed ones are
/// refused there.
#[derive(Clone, PartialEq, Eq)]
pub struct EncodedProperties {
    /// Property flags and values.
    encoded: Bytes,
}

/// The wire format of an empty property list: one word of flags, none set.
pub(crate) const NO_FLAGS: &[u8] = &[0, 0];

impl Default for EncodedProperties {
    fn default() -> Self {
        Self::from_wire(Bytes::from_static(NO_FLAGS))
    }
}

impl EncodedProperties {
    /// Creates properties from their wire format.
    ///
    /// # Errors
    /// If they do not decode.
    pub fn new(encoded: Bytes) -> Result<Self, DecodeError> {
        Properties::check(&encoded)?;
        Ok(Self::from_wire(encoded))
    }

    /// Creates properties from peer input, without checking them.
    pub(crate) const fn from_wire(encoded: Bytes) -> Self {
        Self { encoded }
    }

    /// Whether no property is set.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.encoded == NO_FLAGS
    }

    /// Decodes the properties, anew at each call.
    ///
    /// # Errors
    /// If they are malformed: a field of an unknown type, a wrong length, or tables nested more
    /// than [`MAX_TABLE_DEPTH`](crate::wire::MAX_TABLE_DEPTH) deep. RabbitMQ does not check all of
    /// a publisher's properties before it forwards them. The message can still be acknowledged or
    /// rejected.
    pub fn decode(&self) -> Result<Properties, DecodeError> {
        Properties::decode(&self.encoded)
    }

    /// The wire format: property flags and values.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.encoded
    }
}

impl Encode for EncodedProperties {
    fn encoded_len(&self) -> usize {
        self.as_bytes().len()
    }

    fn encode(&self, out: &mut BytesMut) {
        out.extend_from_slice(self.as_bytes());
    }
}

impl PropertyList for EncodedProperties {
    fn check(&self) -> Result<(), DecodeError> {
        Properties::check(self.as_bytes())
    }
}

/// Properties with a text that is [too long](crate::wire::IntoShortStr) become malformed ones, which
/// a publish refuses.
impl From<&Properties> for EncodedProperties {
    fn from(properties: &Properties) -> Self {
        if properties.text_too_long().is_some() {
            return Self::from_wire(Bytes::new());
        }
        let mut encoded = BytesMut::with_capacity(properties.encoded_len());
        properties.encode(&mut encoded);
        Self::from_wire(encoded.freeze())
    }
}

impl fmt::Debug for EncodedProperties {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.decode() {
            Ok(properties) => properties.fmt(f),
            Err(error) => write!(
                f,
                "EncodedProperties({} bytes: {error})",
                self.encoded.len()
            ),
        }
    }
}

/// The content of a message: its properties and its body.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Content {
    /// The properties of the message.
    pub properties: EncodedProperties,
    /// The body of the message.
    pub body: Body,
}

/// The memory of a message in addition to its properties, its body and the strings of its method,
/// in bytes: the fields of both, and its entry in a queue.
const MESSAGE_OVERHEAD: usize = 256;

/// The memory of a piece of a body in addition to its bytes, in bytes: its entry in the list of
/// pieces, and its reference count.
const PIECE_OVERHEAD: usize = 64;

impl Content {
    /// Returns the memory that the message occupies, in bytes: properties, body, and a fixed
    /// overhead. The limits on memory count by this.
    ///
    /// A small body shares a block of 8 KiB with its neighbours, of which up to a sixth is unused.
    /// A large piece of a body is a slice of the read buffer, and can keep up to three times its
    /// length alive if little else of that buffer is in use; for a body of more than a mebibyte, an
    /// eighth more than its length, and a mebibyte. It counts as its length.
    #[must_use]
    pub fn memory(&self) -> usize {
        MESSAGE_OVERHEAD + self.properties.encoded.len() + self.body.memory()
    }
}
