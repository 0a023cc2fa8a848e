//! The failures of a [`Dialer`](super::Dialer).

use alloc::{
    string::{String, ToString as _},
    vec::Vec,
};
use core::{fmt, net::SocketAddr};

use super::{Address, SrvError};

/// The failure of one attempt, or of an address without one.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Failure {
    /// The address.
    pub address: Address,
    /// The socket address of the attempt. `Some` if a TCP connection was attempted.
    pub socket: Option<SocketAddr>,
    /// The reported reason, or that the timeout has passed.
    pub text: String,
    /// The reason why the records of a service name no address. `Some` if that failed.
    pub srv: Option<SrvError>,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.address.fmt(f)?;
        if let Some(socket) = self.socket
            && self.address.to_string() != socket.to_string()
        {
            write!(f, " at {socket}")?;
        }
        write!(f, ": {}", self.text)
    }
}

/// The failures, in chronological order. Its text lists them with their reasons, or states that no
/// address was tried.
///
/// Bounded by the number of addresses, those of SRV records included: each has at most one failure
/// per attempt, and there are at most [`MAX_RESOLVED`](super::MAX_RESOLVED) attempts, and one of its
/// own.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Failures(pub(super) Vec<Failure>);

impl Failures {
    /// The failures as a slice.
    #[must_use]
    pub fn as_slice(&self) -> &[Failure] {
        &self.0
    }
}

impl fmt::Display for Failures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some((first, rest)) = self.0.split_first() else {
            return f.write_str("any address: none was tried");
        };
        first.fmt(f)?;
        for failure in rest {
            write!(f, "; {failure}")?;
        }
        Ok(())
    }
}

impl core::error::Error for Failures {}
