//! What the generated methods have in common.

use core::fmt;

use crate::{
    protocol,
    wire::{Decode, Encode},
};

/// The two numbers that name a method on the wire.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MethodId {
    /// The class, for example 60 for `basic`.
    pub class: u16,
    /// The method within its class, for example 40 for `publish`.
    pub method: u16,
}

impl MethodId {
    /// The method of that number in that class.
    #[must_use]
    pub const fn new(class: u16, method: u16) -> Self {
        Self { class, method }
    }

    /// The method's name, such as `basic.publish`, when the protocol knows it.
    #[must_use]
    pub fn name(self) -> Option<&'static str> {
        protocol::rule(self).map(|rule| rule.name)
    }
}

impl fmt::Display for MethodId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => f.write_str(name),
            None => write!(f, "method {}.{}", self.class, self.method),
        }
    }
}

impl fmt::Debug for MethodId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.class, self.method)?;
        match self.name() {
            Some(name) => write!(f, " ({name})"),
            None => Ok(()),
        }
    }
}

/// One row of the legality table: who may send a method, where, with what, and what answers it.
///
/// The machine reads the rows for both roles; [`protocol::RULES`] is the whole table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rule {
    /// Which method.
    pub id: MethodId,
    /// Its name, such as `queue.declare`.
    pub name: &'static str,
    /// Whether a client may send it.
    pub client_sends: bool,
    /// Whether a server may send it.
    pub server_sends: bool,
    /// Whether it concerns the connection and so travels on channel 0 only; all others travel on
    /// an open channel only.
    pub connection: bool,
    /// Whether a content header and a body follow.
    pub content: bool,
    /// Whether the sender waits for an answer.
    pub synchronous: bool,
    /// The methods that answer it; empty when nothing does.
    pub responses: &'static [MethodId],
    /// The methods it answers; empty when it is not an answer.
    pub answers: &'static [MethodId],
}

/// Implemented by the methods of the specification, and nothing else.
#[allow(unnameable_types, reason = "this seals the traits of methods")]
pub trait Sealed {}

/// A method of the protocol: a struct of its arguments.
///
/// It is sealed: what encodes itself does so in the middle of a frame.
pub trait MethodDef:
    Sealed + Encode + Decode + Clone + PartialEq + fmt::Debug + Into<protocol::Method>
{
    /// Its numbers on the wire.
    const ID: MethodId;
    /// Its name, such as `queue.declare`.
    const NAME: &'static str;
}

/// A method that a client may send.
pub trait ClientSent: MethodDef + Into<protocol::ClientMethod> {}

/// A method that a server may send.
pub trait ServerSent: MethodDef + Into<protocol::ServerMethod> {}

/// A method that the other side answers.
pub trait Request: MethodDef {
    /// The answer.
    type Reply: TryFrom<protocol::Method, Error = protocol::Method>;

    /// Whether this request asks for no answer.
    fn no_wait(&self) -> bool {
        false
    }
}

/// A request that can ask for no answer.
pub trait NoWait: Request {
    /// Sets whether the answer is left out.
    fn set_no_wait(&mut self, no_wait: bool);
}
