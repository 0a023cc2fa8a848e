//! The name of a peer.

use std::{fmt, str::FromStr, sync::Arc};

/// The name of a peer: 1 to 128 bytes of UTF-8 without control characters. It identifies the peer
/// to all others, whichever side has connected.
///
/// Cheap to clone.
///
/// ```
/// use amqp_peer::PeerName;
///
/// let bob: PeerName = "bob".parse()?;
/// assert_eq!(bob.as_str(), "bob");
/// assert!("".parse::<PeerName>().is_err());
/// # Ok::<(), amqp_peer::PeerNameError>(())
/// ```
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PeerName(Arc<str>);

impl PeerName {
    /// The maximum length, in bytes: a name travels in the frames before the limits are negotiated,
    /// and in the text of refusals.
    pub const MAX_LEN: usize = 128;

    /// Creates a name.
    ///
    /// # Errors
    /// [`PeerNameError`] for a text that is no name.
    pub fn new(name: &str) -> Result<Self, PeerNameError> {
        if name.is_empty() {
            return Err(PeerNameError::Empty);
        }
        if name.len() > Self::MAX_LEN {
            return Err(PeerNameError::TooLong { len: name.len() });
        }
        if name.chars().any(char::is_control) {
            return Err(PeerNameError::ControlCharacter);
        }
        Ok(Self(name.into()))
    }

    /// Returns the text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for PeerName {
    type Err = PeerNameError;

    fn from_str(name: &str) -> Result<Self, PeerNameError> {
        Self::new(name)
    }
}

impl TryFrom<&str> for PeerName {
    type Error = PeerNameError;

    fn try_from(name: &str) -> Result<Self, PeerNameError> {
        Self::new(name)
    }
}

impl TryFrom<String> for PeerName {
    type Error = PeerNameError;

    fn try_from(name: String) -> Result<Self, PeerNameError> {
        Self::new(&name)
    }
}

impl AsRef<str> for PeerName {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for PeerName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl fmt::Debug for PeerName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PeerName({:?})", &*self.0)
    }
}

/// The reason why a text is not the name of a peer.
#[derive(thiserror::Error, Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum PeerNameError {
    /// It is empty.
    #[error("the name of a peer is not empty")]
    Empty,
    /// It is longer than [`PeerName::MAX_LEN`].
    #[error("the name of a peer has at most 128 bytes, not {len}")]
    TooLong {
        /// Its length, in bytes.
        len: usize,
    },
    /// It contains a control character, such as NUL or a line feed.
    #[error("the name of a peer has no control characters")]
    ControlCharacter,
}
