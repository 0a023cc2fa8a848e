//! Access tickets. AMQP 0-9-1 has removed them. RabbitMQ still grants every client the ticket 1 on
//! `access.request`, and ignores the tickets in later methods
//! (`amqp-core/src/tests/server_faults.rs`).

use crate::{
    method_id::MethodId,
    wire::{DecodeError, parse},
};

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
        parse::all(arguments, |input| match self {
            Self::Request => {
                let (input, _realm) = parse::short_str_ref(input)?;
                let (input, _bits) = parse::bits(input)?;
                Ok((input, ()))
            }
            Self::RequestOk => {
                let (input, _ticket) = parse::short(input)?;
                Ok((input, ()))
            }
        })
    }
}
