//! The strategies of frames, and of the pieces of a byte stream.

use alloc::vec::Vec;

use bytes::{Bytes, BytesMut};
use proptest::{
    arbitrary::{Arbitrary, any, any_with},
    collection::vec,
    prop_oneof,
    sample::Index,
    strategy::{BoxedStrategy, Just, Strategy},
};

use super::values::Values;
use crate::{
    frame::{CONTENT_HEAD, Frame, FrameKind},
    protocol::{Method, basic},
    wire::Encode,
};

/// The class `basic`, the only one with content.
const BASIC: u16 = 60;

/// A frame that owns its payload.
///
/// [`Arbitrary`] gives frames that are well-formed each by itself, on channels 0 to 3: a stream of
/// them has good ones in a bad order.
///
/// ```
/// use amqp_core::{frame::Frame, strategies::OwnedFrame};
/// use proptest::prelude::*;
///
/// proptest!(|(frame: OwnedFrame)| {
///     let bytes = frame.to_bytes();
///     prop_assert_eq!(Frame::parse(&bytes, u32::MAX), Ok(Some(frame.as_frame())));
/// });
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OwnedFrame {
    /// The type.
    pub kind: FrameKind,
    /// The channel number; 0 is the connection.
    pub channel: u16,
    /// The payload.
    pub payload: Bytes,
}

impl OwnedFrame {
    /// Creates a method frame.
    #[must_use]
    pub fn method(channel: u16, method: impl Into<Method>) -> Self {
        let method = method.into();
        let id = method.id();
        let mut payload = BytesMut::new();
        payload.extend_from_slice(&id.class.to_be_bytes());
        payload.extend_from_slice(&id.method.to_be_bytes());
        method.encode(&mut payload);
        Self {
            kind: FrameKind::Method,
            channel,
            payload: payload.freeze(),
        }
    }

    /// Creates a content header frame (section 4.2.6.1 of the specification).
    #[must_use]
    pub fn header(channel: u16, properties: &basic::Properties, body_size: u64) -> Self {
        let mut payload = BytesMut::with_capacity(CONTENT_HEAD);
        payload.extend_from_slice(&BASIC.to_be_bytes());
        payload.extend_from_slice(&[0, 0]);
        payload.extend_from_slice(&body_size.to_be_bytes());
        properties.encode(&mut payload);
        Self {
            kind: FrameKind::Header,
            channel,
            payload: payload.freeze(),
        }
    }

    /// Creates a body frame.
    #[must_use]
    pub fn body(channel: u16, piece: impl Into<Bytes>) -> Self {
        Self {
            kind: FrameKind::Body,
            channel,
            payload: piece.into(),
        }
    }

    /// Creates a heartbeat frame.
    #[must_use]
    pub const fn heartbeat() -> Self {
        Self {
            kind: FrameKind::Heartbeat,
            channel: 0,
            payload: Bytes::new(),
        }
    }

    /// Creates the frames of a method with content, with at most `chunk` bytes of the body in each
    /// frame, and at least one.
    #[must_use]
    pub fn message(
        channel: u16,
        method: impl Into<Method>,
        properties: &basic::Properties,
        body: &[u8],
        chunk: usize,
    ) -> Vec<Self> {
        let header = Self::header(channel, properties, body.len() as u64);
        let pieces = body.chunks(chunk.max(1));
        let pieces = pieces.map(|piece| Self::body(channel, Bytes::copy_from_slice(piece)));
        let head = [Self::method(channel, method), header];
        head.into_iter().chain(pieces).collect()
    }

    /// Returns the frame with a borrowed payload.
    #[must_use]
    pub fn as_frame(&self) -> Frame<'_> {
        Frame {
            kind: self.kind,
            channel: self.channel,
            payload: &self.payload,
        }
    }

    /// Returns the encoded frame.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut out = BytesMut::new();
        self.as_frame().encode(&mut out);
        out.to_vec()
    }
}

impl Arbitrary for OwnedFrame {
    type Parameters = Values;
    type Strategy = BoxedStrategy<Self>;

    fn arbitrary_with(values: Values) -> Self::Strategy {
        let channel = 0_u16..4;
        let method = (channel.clone(), any_with::<Method>(values.clone()));
        let properties = any_with::<basic::Properties>(values);
        let header = (channel.clone(), properties, 0_u64..300);
        let body = (channel, vec(any::<u8>(), 0..100));
        prop_oneof![
            6 => method.prop_map(|(channel, method)| {
                let channel = if method.rule().connection { 0 } else { channel };
                Self::method(channel, method)
            }),
            2 => header.prop_map(|(channel, properties, size)| {
                Self::header(channel, &properties, size)
            }),
            2 => body.prop_map(|(channel, piece)| Self::body(channel, piece)),
            1 => Just(Self::heartbeat()),
        ]
        .boxed()
    }
}

/// The places at which a byte stream is cut into pieces, for any stream.
///
/// ```
/// use amqp_core::strategies::Cuts;
/// use proptest::prelude::*;
///
/// proptest!(|(cuts: Cuts, bytes: Vec<u8>)| {
///     prop_assert_eq!(cuts.pieces(&bytes).concat(), bytes);
/// });
/// ```
#[derive(Clone, Debug, Default)]
pub struct Cuts(Vec<Index>);

impl Cuts {
    /// Cuts the bytes into pieces, in order. Some of them may be empty.
    #[must_use]
    pub fn pieces<'a>(&self, bytes: &'a [u8]) -> Vec<&'a [u8]> {
        let mut places: Vec<usize> = self.0.iter().map(|at| at.index(bytes.len() + 1)).collect();
        places.sort_unstable();
        let mut pieces = Vec::with_capacity(places.len() + 1);
        let (mut rest, mut position) = (bytes, 0);
        for place in places {
            if let Some((piece, behind)) = rest.split_at_checked(place - position) {
                pieces.push(piece);
                rest = behind;
                position = place;
            }
        }
        pieces.push(rest);
        pieces
    }
}

/// Up to 40 places.
impl Arbitrary for Cuts {
    type Parameters = ();
    type Strategy = BoxedStrategy<Self>;

    fn arbitrary_with((): ()) -> Self::Strategy {
        prop_oneof![
            3 => vec(any::<Index>(), 0..6).prop_map(Self),
            1 => vec(any::<Index>(), 0..40).prop_map(Self),
        ]
        .boxed()
    }
}
