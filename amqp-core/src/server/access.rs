//! Access tickets. AMQP 0-9-1 has none any more; RabbitMQ still gives the one that earlier versions
//! began with to every client that asks, and takes no notice of it afterwards.

use crate::{
    method::MethodId,
    wire::{DecodeError, parse},
};

/// `access.request-ok` with ticket 1: class, method, ticket.
pub(super) const REQUEST_OK: [u8; 6] = [0, 30, 0, 11, 0, 1];

/// A method of the class.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum AccessMethod {
    /// A client asks for access to a realm, in up to five ways that are bits.
    Request,
    /// A server gives a ticket.
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

    /// Whether the arguments can be read.
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
