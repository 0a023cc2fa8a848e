//! The errors of calls, on both sides.

use std::{
    any::{Any, type_name},
    borrow::Cow,
    error::Error,
    fmt,
    panic::{AssertUnwindSafe, catch_unwind},
};

use bytes::Bytes;
use serde::{Serialize, de::DeserializeOwned};

use super::codec::{BuiltIn, Codec, CodecError, Codecs};
use crate::{cause::SendError, name::PeerName};

/// The longest kind of an error on the wire, in bytes.
pub(crate) const KIND_MAX: usize = 255;
/// The longest message of an error on the wire, in bytes.
pub(crate) const MESSAGE_MAX: usize = 2048;
/// The longest trace of an error on the wire, in bytes.
pub(crate) const TRACE_MAX: usize = 4096;

/// The error of a handler, as its caller has it.
#[derive(thiserror::Error, Clone, Debug, PartialEq, Eq)]
#[error("{kind}: {message}")]
#[non_exhaustive]
pub struct RemoteError {
    /// The kind: the name of the type, or that of [`Failure::new`]. At most 255 bytes.
    pub kind: String,
    /// The text. At most 2,048 bytes.
    pub message: String,
    /// The causes of the error, a line each, from the outermost: `Some` unless the callee withholds
    /// them. At most 4,096 bytes.
    pub trace: Option<String>,
    /// The value of [`Failure::data`], in the codec of the call: `Some` if the handler has set it.
    pub data: Option<Bytes>,
}

impl RemoteError {
    /// Decodes [`data`](Self::data). `C` is the codec of the call. `None` without data.
    ///
    /// # Errors
    /// [`CodecError`] if it is not a `T`.
    pub fn decode_data<C: Codec, T: DeserializeOwned>(&self) -> Option<Result<T, CodecError>> {
        self.data.as_deref().map(C::decode)
    }
}

/// A side of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Side {
    /// The peer that calls.
    Caller,
    /// The peer with the handler.
    Callee,
}

impl fmt::Display for Side {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Caller => "the caller",
            Self::Callee => "the callee",
        })
    }
}

/// The reason for which a call has no result.
///
/// | error | whether the handler has run |
/// |---|---|
/// | `NotConnected`, `NoObject`, `NoMethod`, `WrongKind`, `Busy`, `TooMany`, `Send` | no |
/// | `Remote`, `Opaque` | yes, and it has failed |
/// | `PartialCall`, `Removed`, `Stopped` | unknown |
/// | `Codec`, `TooLarge` | no if it is about the arguments, yes if it is about the result |
#[derive(thiserror::Error, Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum CallError {
    /// There was no link to the callee within the time limit. The request was not sent.
    #[error("there is no link to {to}")]
    NotConnected {
        /// The callee.
        to: PeerName,
    },
    /// The request may have been sent, and there is no result: the time limit has passed, or the
    /// callee was started anew in between and does not repeat a call that may have run.
    #[error("{to} may have run the call, without a result in time")]
    PartialCall {
        /// The callee.
        to: PeerName,
    },
    /// The callee has no object of this name.
    #[error("there is no object {object:?}")]
    NoObject {
        /// The name.
        object: String,
    },
    /// The object has no method of this name.
    #[error("the object {object:?} has no method {method:?}")]
    NoMethod {
        /// The name of the object.
        object: String,
        /// The name of the method.
        method: String,
    },
    /// The handler has failed.
    #[error("the call has failed: {0}")]
    Remote(RemoteError),
    /// The handler has failed, and the callee withholds the reason
    /// ([`Errors::Opaque`](super::Errors::Opaque)).
    #[error("the call has failed, for a reason that the callee withholds")]
    Opaque,
    /// The method is a signal: it has no result.
    #[error("the method {method:?} is a signal")]
    WrongKind {
        /// The name of the method.
        method: String,
    },
    /// The arguments or the result could not be encoded or decoded.
    #[error("{side} could not encode or decode: {reason}")]
    Codec {
        /// The side with the failure.
        side: Side,
        /// The reason.
        reason: String,
    },
    /// The callee was removed from this peer.
    #[error("{to} was removed")]
    Removed {
        /// The callee.
        to: PeerName,
    },
    /// The peer was stopped.
    #[error("the peer was stopped")]
    Stopped,
    /// Too many calls of this peer wait for their results.
    #[error("too many calls are in flight")]
    TooMany,
    /// The callee has no place for the request.
    #[error("{to} has no place for the request")]
    Busy {
        /// The callee.
        to: PeerName,
    },
    /// The request, or the reply, is longer than the other side takes.
    #[error("the message of {side} is too large")]
    TooLarge {
        /// The side that sends it.
        side: Side,
    },
    /// The request was not accepted into the outbox.
    #[error("the request cannot be sent: {0}")]
    Send(SendError),
}

impl From<SendError> for CallError {
    fn from(error: SendError) -> Self {
        match error {
            SendError::TooLarge { .. } => Self::TooLarge { side: Side::Caller },
            SendError::NotConnected { to } => Self::NotConnected { to },
            SendError::Stopped => Self::Stopped,
            other => Self::Send(other),
        }
    }
}

/// The error of a handler, as it is sent to the caller.
///
/// Any [`Error`] becomes one: its kind is the name of its type, its message its text, its trace the
/// texts of its [sources](Error::source). It does not implement [`Error`] itself, as that would
/// exclude this conversion.
///
/// ```
/// use amqp_peer::rpc::Failure;
///
/// fn half(number: i64) -> Result<i64, Failure> {
///     if number % 2 != 0 {
///         return Err(Failure::new("Odd", format!("{number} is odd")));
///     }
///     Ok(number / 2)
/// }
/// fn half_of(text: &str) -> Result<i64, Failure> {
///     half(text.parse()?) // a ParseIntError becomes a failure
/// }
/// assert_eq!(half_of("8").ok(), Some(4));
/// assert_eq!(half_of("7").unwrap_err().kind, "Odd");
/// assert!(half_of("x").unwrap_err().kind.ends_with("ParseIntError"));
/// ```
pub struct Failure {
    /// The kind, by which the caller distinguishes errors. Of an [`Error`] the name of the type, which the
    /// compiler may change.
    pub kind: Cow<'static, str>,
    /// The text.
    pub message: String,
    /// The causes, a line each.
    pub trace: String,
    /// Encodes the data for a content type.
    data: Option<Box<Encode>>,
}

impl Failure {
    /// Creates a failure of a kind.
    #[must_use]
    pub fn new(kind: impl Into<Cow<'static, str>>, message: impl Into<String>) -> Self {
        let (kind, message) = (kind.into(), message.into());
        let trace = format!("{kind}: {message}");
        Self {
            kind,
            message,
            trace,
            data: None,
        }
    }

    /// Sets the value for [`RemoteError::data`], in the codecs of this crate.
    #[must_use]
    pub fn data<T: Serialize + Send + Sync + 'static>(self, data: T) -> Self {
        self.data_in::<BuiltIn, T>(data)
    }

    /// As [`data`](Self::data), in other codecs.
    #[must_use]
    pub fn data_in<S: Codecs, T: Serialize + Send + Sync + 'static>(mut self, data: T) -> Self {
        self.data = Some(Box::new(move |content_type| S::encode(content_type, &data)));
        self
    }

    /// The failure of a handler that has panicked.
    pub(crate) fn of_panic(panic: &(dyn Any + Send), place: &str) -> Self {
        let text = panic.downcast_ref::<&str>().copied();
        let text = text.or_else(|| panic.downcast_ref::<String>().map(String::as_str));
        let message = text.unwrap_or("a value that is not a text").to_owned();
        let trace = format!("panic in {place}: {message}");
        Self {
            trace,
            ..Self::new("panic", message)
        }
    }

    /// The error for the caller. Data that cannot be encoded do not mask it.
    pub(crate) fn into_remote(self, content_type: &str) -> RemoteError {
        let Self {
            kind,
            message,
            mut trace,
            data,
        } = self;
        // The code of the application may panic.
        let encode = || data.map(|encode| encode(content_type));
        let data = match catch_unwind(AssertUnwindSafe(encode)) {
            Ok(Some(Ok(data))) => Some(data.into()),
            Ok(Some(Err(error))) => {
                trace.push_str(&format!("\nthe data of the error: {error}"));
                None
            }
            Ok(None) => None,
            Err(_panic) => {
                trace.push_str("\nthe data of the error: its encoding panicked");
                None
            }
        };
        RemoteError {
            kind: truncated(kind.into_owned(), KIND_MAX),
            message: truncated(message, MESSAGE_MAX),
            trace: Some(truncated(trace, TRACE_MAX)),
            data,
        }
    }
}

type Encode = dyn Fn(&str) -> Result<Vec<u8>, CodecError> + Send + Sync;

impl<E: Error> From<E> for Failure {
    fn from(error: E) -> Self {
        let kind = type_name::<E>();
        let message = error.to_string();
        let mut trace = format!("{kind}: {message}");
        let mut source = error.source();
        while let Some(cause) = source {
            if trace.len() > TRACE_MAX {
                break;
            }
            trace.push_str(&format!("\ncaused by: {cause}"));
            source = cause.source();
        }
        Self {
            kind: kind.into(),
            message,
            trace,
            data: None,
        }
    }
}

impl fmt::Debug for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Failure")
            .field("kind", &self.kind)
            .field("message", &self.message)
            .field("trace", &self.trace)
            .finish_non_exhaustive()
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.kind, self.message)
    }
}

/// A text of at most `max` bytes.
pub(crate) fn truncated(mut text: String, max: usize) -> String {
    if text.len() > max {
        let end = (0..=max).rev().find(|end| text.is_char_boundary(*end));
        text.truncate(end.unwrap_or_default());
    }
    text
}
