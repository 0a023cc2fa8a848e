//! The encodings of arguments and results.

#[cfg(feature = "cbor")]
use cbor4ii::{
    core::{
        dec::{Read as _, Reference},
        utils::SliceReader,
    },
    serde::Deserializer,
};
use serde::{Serialize, de::DeserializeOwned};

use super::error::truncated;

/// The longest reason of a [`CodecError`], in bytes: a part of it may be the input's.
const REASON_MAX: usize = 512;

/// An encoding of values as bytes, named by a content type.
///
/// ```
/// # #[cfg(feature = "json")] {
/// use amqp_peer::rpc::{Codec, Json};
///
/// let bytes = Json::encode(&(3, 8))?;
/// assert_eq!(bytes, b"[3,8]");
/// assert_eq!(Json::decode::<(i64, i64)>(&bytes)?, (3, 8));
/// # }
/// # Ok::<(), amqp_peer::rpc::CodecError>(())
/// ```
pub trait Codec: 'static {
    /// The content type: at most 255 bytes.
    const CONTENT_TYPE: &'static str;

    /// Encodes a value.
    ///
    /// # Errors
    /// [`CodecError`] if the value has no such encoding.
    fn encode<T: Serialize + ?Sized>(value: &T) -> Result<Vec<u8>, CodecError>;

    /// Decodes a value. Bytes after it are an error.
    ///
    /// # Errors
    /// [`CodecError`] if the bytes are not that of a `T`.
    fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, CodecError>;
}

/// A value that has no encoding, or bytes that are not the encoding of a value of the type.
#[derive(thiserror::Error, Clone, Debug, PartialEq, Eq)]
#[error("{reason}")]
#[non_exhaustive]
pub struct CodecError {
    /// The reason, at most 512 bytes. It may contain parts of the input.
    pub reason: String,
}

impl CodecError {
    /// Creates an error.
    #[must_use]
    pub fn new(reason: impl ToString) -> Self {
        let reason = truncated(reason.to_string(), REASON_MAX);
        Self { reason }
    }

    fn unknown(content_type: &str) -> Self {
        let escaped = content_type.escape_debug();
        Self::new(format!("no codec for the content type \"{escaped}\""))
    }
}

/// JSON, by `serde_json`. Feature `json`.
///
/// A tuple is an array, a struct an object. Structs decode from both, so that a method that takes a
/// struct is called with positional or named arguments.
#[cfg(feature = "json")]
#[derive(Clone, Copy, Debug, Default)]
pub struct Json;

#[cfg(feature = "json")]
impl Codec for Json {
    const CONTENT_TYPE: &'static str = "application/json";

    fn encode<T: Serialize + ?Sized>(value: &T) -> Result<Vec<u8>, CodecError> {
        serde_json::to_vec(value).map_err(CodecError::new)
    }

    fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, CodecError> {
        serde_json::from_slice(bytes).map_err(CodecError::new)
    }
}

/// CBOR ([RFC 8949](https://www.rfc-editor.org/rfc/rfc8949)), by `cbor4ii`. Feature `cbor`.
///
/// A tuple is an array, a struct a map, `()` an array without elements.
#[cfg(feature = "cbor")]
#[derive(Clone, Copy, Debug, Default)]
pub struct Cbor;

#[cfg(feature = "cbor")]
impl Codec for Cbor {
    /// Section 9.5 of RFC 8949.
    const CONTENT_TYPE: &'static str = "application/cbor";

    fn encode<T: Serialize + ?Sized>(value: &T) -> Result<Vec<u8>, CodecError> {
        cbor4ii::serde::to_vec(Vec::new(), &value).map_err(CodecError::new)
    }

    fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, CodecError> {
        let mut deserializer = Deserializer::new(SliceReader::new(bytes));
        let value = T::deserialize(&mut deserializer).map_err(CodecError::new)?;
        let mut rest = deserializer.into_inner();
        match rest.fill(1) {
            Ok(Reference::Long([]) | Reference::Short([])) => Ok(value),
            Ok(_) | Err(_) => Err(CodecError::new("there are bytes after the value")),
        }
    }
}

/// A set of codecs, from which the content type of a request chooses. Implemented by [`BuiltIn`] and
/// by pairs of a [`Codec`] and a set.
pub trait Codecs: 'static {
    /// Encodes a value.
    ///
    /// # Errors
    /// [`CodecError`] if there is no codec of the content type, or the value has no such encoding.
    fn encode<T: Serialize + ?Sized>(content_type: &str, value: &T) -> Result<Vec<u8>, CodecError>;

    /// Decodes a value.
    ///
    /// # Errors
    /// [`CodecError`] if there is no codec of the content type, or the bytes are not that of a `T`.
    fn decode<T: DeserializeOwned>(content_type: &str, bytes: &[u8]) -> Result<T, CodecError>;
}

/// The codecs of this crate: those of the features `json` and `cbor`.
#[derive(Clone, Copy, Debug, Default)]
pub struct BuiltIn;

impl Codecs for BuiltIn {
    fn encode<T: Serialize + ?Sized>(content_type: &str, value: &T) -> Result<Vec<u8>, CodecError> {
        let _ = value;
        match content_type {
            #[cfg(feature = "json")]
            Json::CONTENT_TYPE => Json::encode(value),
            #[cfg(feature = "cbor")]
            Cbor::CONTENT_TYPE => Cbor::encode(value),
            other => Err(CodecError::unknown(other)),
        }
    }

    fn decode<T: DeserializeOwned>(content_type: &str, bytes: &[u8]) -> Result<T, CodecError> {
        let _ = bytes;
        match content_type {
            #[cfg(feature = "json")]
            Json::CONTENT_TYPE => Json::decode(bytes),
            #[cfg(feature = "cbor")]
            Cbor::CONTENT_TYPE => Cbor::decode(bytes),
            other => Err(CodecError::unknown(other)),
        }
    }
}

impl<C: Codec, S: Codecs> Codecs for (C, S) {
    fn encode<T: Serialize + ?Sized>(content_type: &str, value: &T) -> Result<Vec<u8>, CodecError> {
        if content_type == C::CONTENT_TYPE {
            return C::encode(value);
        }
        S::encode(content_type, value)
    }

    fn decode<T: DeserializeOwned>(content_type: &str, bytes: &[u8]) -> Result<T, CodecError> {
        if content_type == C::CONTENT_TYPE {
            return C::decode(bytes);
        }
        S::decode(content_type, bytes)
    }
}
