//! Message bodies and properties as they arrive and leave.

use alloc::{collections::VecDeque, string::String, vec::Vec};
use core::fmt;

use bytes::{Buf, Bytes, BytesMut};

use crate::{
    protocol::basic::Properties,
    wire::{Decode as _, DecodeError, Encode},
};

/// The body of a message: bytes, in one piece or several.
///
/// A body that came in several frames is kept as the pieces it came in, so that nothing is copied
/// until somebody asks for one piece with [`into_bytes`](Self::into_bytes). It is a [`Buf`].
#[derive(Clone, Default)]
pub struct Body(Pieces);

#[derive(Clone)]
enum Pieces {
    One(Bytes),
    Many {
        /// None is empty.
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
    /// An empty body.
    #[must_use]
    pub const fn new() -> Self {
        Self(Pieces::One(Bytes::new()))
    }

    /// The length in bytes.
    #[must_use]
    pub fn len(&self) -> usize {
        match &self.0 {
            Pieces::One(bytes) => bytes.len(),
            Pieces::Many { len, .. } => *len,
        }
    }

    /// Whether there is nothing in it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The pieces, in order; an empty body has none.
    pub fn pieces(&self) -> impl Iterator<Item = &Bytes> {
        let (one, many) = match &self.0 {
            Pieces::One(bytes) => (Some(bytes).filter(|bytes| !bytes.is_empty()), None),
            Pieces::Many { pieces, .. } => (None, Some(pieces)),
        };
        one.into_iter().chain(many.into_iter().flatten())
    }

    /// The whole body in one piece. Copies only when there are several.
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

    /// A copy of the whole body.
    #[must_use]
    pub fn to_vec(&self) -> Vec<u8> {
        let mut all = Vec::with_capacity(self.len());
        for piece in self.pieces() {
            all.extend_from_slice(piece);
        }
        all
    }

    /// The body, if it is in one piece.
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

impl fmt::Debug for Body {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        /// How much of a body is worth showing, in bytes.
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

/// Something that can stand as the property list of a content header: [`Properties`] or
/// [`EncodedProperties`].
///
/// It is sealed: it encodes itself in the middle of a frame.
pub trait PropertyList: Encode + sealed::Sealed {
    /// The `reply-to` property, where it is known without decoding.
    fn reply_to(&self) -> Option<&str> {
        None
    }

    /// Checks that what would be sent can be read.
    ///
    /// # Errors
    /// What is wrong with it. Never for [`Properties`].
    fn check(&self) -> Result<(), DecodeError> {
        Ok(())
    }
}

mod sealed {
    pub trait Sealed {}
    impl Sealed for super::Properties {}
    impl Sealed for super::EncodedProperties {}
}

impl PropertyList for Properties {
    fn reply_to(&self) -> Option<&str> {
        self.reply_to.as_deref()
    }
}

/// Message properties as they stand on the wire, decoded on request.
///
/// Most consumers look at few properties or none, so a delivery carries them like this. Those of a
/// delivery are what the publisher sent: whether they can be read is found out by
/// [`decode`](Self::decode). They can also be published as they are, which passes properties on
/// without keeping them decoded; properties that cannot be read are refused there.
#[derive(Clone, PartialEq, Eq)]
pub struct EncodedProperties {
    /// Flag words and values.
    encoded: Bytes,
}

/// The wire form of no property: one word of flags, none set.
pub(crate) const NO_FLAGS: &[u8] = &[0, 0];

impl Default for EncodedProperties {
    fn default() -> Self {
        Self::from_wire(Bytes::from_static(NO_FLAGS))
    }
}

impl EncodedProperties {
    /// Takes over properties in their wire form.
    ///
    /// # Errors
    /// When they do not decode.
    pub fn new(encoded: Bytes) -> Result<Self, DecodeError> {
        Properties::check(&encoded)?;
        Ok(Self::from_wire(encoded))
    }

    /// Takes over what a peer sent, which may be anything.
    pub(crate) const fn from_wire(encoded: Bytes) -> Self {
        Self { encoded }
    }

    /// Whether no property is set.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.encoded == NO_FLAGS
    }

    /// The properties. Decodes them each time.
    ///
    /// # Errors
    /// When they cannot be read: a field of an unknown type, a length that is wrong, or tables
    /// nested more than [`MAX_TABLE_DEPTH`](crate::wire::MAX_TABLE_DEPTH) deep. RabbitMQ passes on
    /// what a publisher sent without looking at all of it. The message can still be acknowledged
    /// or rejected.
    pub fn decode(&self) -> Result<Properties, DecodeError> {
        Properties::decode(&self.encoded)
    }

    /// The wire form: flag words and values.
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

impl From<&Properties> for EncodedProperties {
    fn from(properties: &Properties) -> Self {
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

/// What follows a method that carries content: the properties and the body of a message.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Content {
    /// The message's properties.
    pub properties: EncodedProperties,
    /// The message's body.
    pub body: Body,
}

/// What a message takes beside its properties, its body and the strings of its method, in bytes:
/// the fields of both, and its place in a queue.
const MESSAGE_OVERHEAD: usize = 256;

/// What a piece of a body takes beside its bytes, in bytes: its place in the list of pieces, and the
/// count of those that share it.
const PIECE_OVERHEAD: usize = 64;

impl Content {
    /// How much memory the message takes, in bytes: properties, body, and what each message takes
    /// beside them. What bounds memory counts by this.
    ///
    /// A large piece of a body is a slice of the buffer that it was read into, and may keep up to
    /// three times its length alive when little else of that buffer is in use. It counts with its
    /// length.
    #[must_use]
    pub fn memory(&self) -> usize {
        MESSAGE_OVERHEAD + self.properties.encoded.len() + self.body.memory()
    }
}
