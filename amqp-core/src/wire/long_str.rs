//! Long strings: arbitrary bytes, and secrets.

use alloc::borrow::Cow;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;
use core::ops::Deref;

use bytes::{Bytes, BytesMut};

use super::{Decode, DecodeError, Encode, parse, put, wiped::wiped};

/// Up to 4 GiB of bytes, which are usually but not necessarily UTF-8 (section 4.2.5.3 of the
/// specification).
///
/// A clone shares the bytes.
///
/// ```
/// use amqp_core::wire::LongStr;
///
/// let text = LongStr::from("en_US");
/// assert_eq!(text.as_str(), Some("en_US"));
/// assert_eq!(LongStr::from(vec![0xff]).as_str(), None);
/// ```
#[derive(Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LongStr(pub Bytes);

impl LongStr {
    /// Returns the empty string.
    #[must_use]
    pub const fn new() -> Self {
        Self(Bytes::new())
    }

    /// Creates a long string from a literal, without a copy.
    #[must_use]
    pub const fn from_static(text: &'static str) -> Self {
        Self(Bytes::from_static(text.as_bytes()))
    }

    fn owning(bytes: Vec<u8>) -> Self {
        Self(bytes.into())
    }

    /// Returns the bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// Returns the text. `Some` if the bytes are UTF-8.
    #[must_use]
    pub fn as_str(&self) -> Option<&str> {
        core::str::from_utf8(&self.0).ok()
    }

    /// Returns the text, with U+FFFD in place of invalid UTF-8.
    #[must_use]
    pub fn to_str_lossy(&self) -> Cow<'_, str> {
        String::from_utf8_lossy(&self.0)
    }

    /// Returns the encoded size, in bytes: 4 bytes of length, and the bytes themselves.
    #[must_use]
    pub fn encoded_len(&self) -> usize {
        4 + self.0.len()
    }
}

impl Deref for LongStr {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}

impl AsRef<[u8]> for LongStr {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

/// Shows the text if the bytes are UTF-8, otherwise the bytes.
impl fmt::Debug for LongStr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.as_str() {
            Some(text) => fmt::Debug::fmt(text, f),
            None => fmt::Debug::fmt(&self.0, f),
        }
    }
}

impl PartialEq<[u8]> for LongStr {
    fn eq(&self, other: &[u8]) -> bool {
        self.as_bytes() == other
    }
}

impl PartialEq<str> for LongStr {
    fn eq(&self, other: &str) -> bool {
        self.as_bytes() == other.as_bytes()
    }
}

impl PartialEq<&str> for LongStr {
    fn eq(&self, other: &&str) -> bool {
        self.as_bytes() == other.as_bytes()
    }
}

impl Encode for LongStr {
    fn encoded_len(&self) -> usize {
        self.encoded_len()
    }

    fn encode(&self, out: &mut BytesMut) {
        put::long_str(out, self);
    }
}

impl Decode for LongStr {
    fn decode(input: &[u8]) -> Result<Self, DecodeError> {
        parse::all(input, parse::long_str)
    }
}

/// A long string that is never logged: a password, a token, a SASL response.
///
/// It has no `Display`, and its `Debug` is `Secret(..)`. Only [`expose`](Self::expose) returns the
/// bytes.
///
/// A clone shares the bytes. When the last clone is dropped, they are overwritten with zeros,
/// unless they were passed in as [`Bytes`] or [`LongStr`], which may be shared. This applies to the
/// memory of the secret only, not to copies such as the output buffers of a connection.
///
/// ```
/// use amqp_core::wire::Secret;
///
/// let password = Secret::from("swordfish");
/// assert_eq!(format!("{password:?}"), "Secret(..)");
/// assert_eq!(password.expose(), b"swordfish");
/// ```
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Secret(Bytes);

impl Secret {
    /// Returns the empty secret.
    #[must_use]
    pub const fn new() -> Self {
        Self(Bytes::new())
    }

    /// Creates a secret from a literal, without a copy.
    #[must_use]
    pub const fn from_static(text: &'static str) -> Self {
        Self(Bytes::from_static(text.as_bytes()))
    }

    fn owning(bytes: Vec<u8>) -> Self {
        Self(wiped(bytes))
    }

    /// Returns the bytes. The caller is responsible for keeping them secret.
    #[must_use]
    pub fn expose(&self) -> &[u8] {
        &self.0
    }

    /// Returns the length in bytes.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Returns whether the secret is empty.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns the encoded size, in bytes: 4 bytes of length, and the bytes themselves.
    #[must_use]
    pub fn encoded_len(&self) -> usize {
        4 + self.0.len()
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

impl Encode for Secret {
    fn encoded_len(&self) -> usize {
        self.encoded_len()
    }

    fn encode(&self, out: &mut BytesMut) {
        put::secret(out, self);
    }
}

impl Decode for Secret {
    fn decode(input: &[u8]) -> Result<Self, DecodeError> {
        parse::all(input, parse::secret)
    }
}

impl From<LongStr> for Secret {
    fn from(text: LongStr) -> Self {
        Self(text.0)
    }
}

/// The conversions into both types, which store bytes alike.
macro_rules! from_bytes {
    ($($target:ident)*) => {$(
        impl From<Bytes> for $target {
            fn from(bytes: Bytes) -> Self {
                Self(bytes)
            }
        }

        impl From<Vec<u8>> for $target {
            fn from(bytes: Vec<u8>) -> Self {
                Self::owning(bytes)
            }
        }

        impl From<String> for $target {
            fn from(text: String) -> Self {
                Self::owning(text.into())
            }
        }

        impl From<&str> for $target {
            fn from(text: &str) -> Self {
                Self::owning(text.into())
            }
        }

        impl From<&String> for $target {
            fn from(text: &String) -> Self {
                Self::from(text.as_str())
            }
        }

        impl From<&[u8]> for $target {
            fn from(bytes: &[u8]) -> Self {
                Self::owning(bytes.into())
            }
        }

        impl<const N: usize> From<&[u8; N]> for $target {
            fn from(bytes: &[u8; N]) -> Self {
                Self::owning(bytes.into())
            }
        }
    )*};
}

from_bytes! { LongStr Secret }
