//! Access tickets. AMQP 0-9-1 has removed them. RabbitMQ still grants every client the ticket 1 on
//! `access.request`, and ignores the tickets in later methods
//! (`amqp-broker/tests/violations`).

use amqp_core::{MethodId, wire::DecodeError};

/// `access.request-ok` with ticket 1: class, method, ticket.
pub(super) const REQUEST_OK: [u8; 6] = [0, 30, 0, 11, 0, 1];

/// A method of the class `access` (class 30).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum AccessMethod {
    /// Sent by a client: requests access to a realm, with up to five flags.
    Request,
    /// Sent by a server: grants a ticket.
    RequestOk,
}

impl AccessMethod {
    pub(super) const fn of(id: MethodId) -> Option<Self> {
        match (id.class, id.method) {
            (30, 10) => Some(Self::Request),
            (30, 11) => Some(Self::RequestOk),
            _ => None,
        }
    }

    /// Checks that the arguments can be decoded.
    pub(super) fn decode(self, arguments: &[u8]) -> Result<(), DecodeError> {
        let after = |input: &[u8], len: usize| match input.len().checked_sub(len) {
            None => Err(DecodeError::Truncated),
            Some(0) => Ok(()),
            Some(left) => Err(DecodeError::TrailingBytes { left }),
        };
        match self {
            Self::Request => {
                let (len, rest) = arguments.split_first().ok_or(DecodeError::Truncated)?;
                let (realm, flags) = rest
                    .split_at_checked(usize::from(*len))
                    .ok_or(DecodeError::Truncated)?;
                core::str::from_utf8(realm).map_err(|_| DecodeError::InvalidUtf8)?;
                after(flags, 1)
            }
            Self::RequestOk => after(arguments, 2),
        }
    }
}
