//! The traits and types that the generated methods share.

use core::fmt;

use crate::{
    method_id::MethodId,
    protocol,
    wire::{Decode, Encode, put::Sink},
};

/// One row of the legality table: the senders of a method, its channel, its content and its
/// replies.
///
/// The machine enforces the rows in both roles; [`protocol::RULES`] is the whole table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rule {
    /// The id of the method.
    pub id: MethodId,
    /// The name of the method, such as `queue.declare`.
    pub name: &'static str,
    /// Whether a client may send the method.
    pub client_sends: bool,
    /// Whether a server may send the method.
    pub server_sends: bool,
    /// Whether the method belongs to the connection and is legal on channel 0 only. All other
    /// methods are legal on an open channel only (section 4.2.3 of the specification).
    pub connection: bool,
    /// Whether a content header and a body follow (section 4.2.6 of the specification).
    pub content: bool,
    /// Whether the sender waits for a reply.
    pub synchronous: bool,
    /// Whether a client sends the request by a command of its own, and not by
    /// [`call`](crate::client::ChannelMut::call).
    pub own_command: bool,
    /// The methods that reply to this one. Empty if it has no reply.
    pub responses: &'static [MethodId],
    /// The methods to which this one is a reply. Empty if it is not a reply.
    pub answers: &'static [MethodId],
}

/// Implemented by the methods of the specification only.
#[allow(unnameable_types, reason = "this seals the traits of methods")]
pub trait Sealed {
    /// Writes the arguments.
    fn put<S: Sink>(&self, out: &mut S);
}

/// A method of the protocol: a struct of its arguments.
///
/// Sealed, because a method encodes itself into an unfinished frame.
pub trait MethodDef:
    Sealed + Encode + Decode + Clone + PartialEq + fmt::Debug + Into<protocol::Method>
{
    /// The class id and the method id.
    const ID: MethodId;
    /// The name, such as `queue.declare`.
    const NAME: &'static str;
}

/// A method that a client may send.
pub trait ClientSent: MethodDef + Into<protocol::ClientMethod> {}

/// A method that a server may send.
pub trait ServerSent: MethodDef + Into<protocol::ServerMethod> {}

/// A method to which the peer replies.
pub trait Request: MethodDef {
    /// The reply.
    type Reply: TryFrom<protocol::Method, Error = protocol::Method>;

    /// Returns whether the `no-wait` bit is set: the peer then sends no reply.
    fn no_wait(&self) -> bool {
        false
    }
}

/// A request with a `no-wait` bit.
pub trait NoWait: Request {
    /// Sets the `no-wait` bit. If it is `true`, the peer sends no reply.
    fn set_no_wait(&mut self, no_wait: bool);
}
