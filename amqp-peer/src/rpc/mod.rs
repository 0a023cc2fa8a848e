//! Remote procedure calls between peers.
//!
//! A peer serves objects: names with methods, each with a function as its handler. Another peer calls them
//! by a [`Proxy`]. Every peer may do both at once, whichever side has connected, and a handler may call
//! back.
//!
//! ```
//! # #[cfg(feature = "json")] {
//! use amqp_peer::{PeerName, rpc::{CallError, Failure, Json, Proxy, Rpc}};
//!
//! fn serve(rpc: &Rpc) {
//!     rpc.object("calc")
//!         .method("add", async |(a, b): (i64, i64)| a.checked_add(b).ok_or(Failure::new("Overflow", "too large")));
//! }
//!
//! async fn add(rpc: &Rpc, bob: PeerName) -> Result<i64, CallError> {
//!     let calc: Proxy<Json> = rpc.proxy(bob, "calc");
//!     calc.call("add", (3, 8)).await
//! }
//! # }
//! ```
//!
//! # What holds
//!
//! - **A call ends once**: with its result, with the error of its handler, or with the reason why there
//!   is none ([`CallError`]), at the latest at its time limit, when the callee is removed from the peer,
//!   or when the peer stops. A reply that comes later is ignored, and so is one of another peer.
//! - **A call survives its link.** The request is in the outbox of the caller, the reply in that of the
//!   callee; either is sent again after a reconnect. A request is acknowledged only when its reply is
//!   in the outbox, so that one that is interrupted by the end of the callee's process is sent to the
//!   next process. Not so one beyond [`Limits::unsettled_bytes`] of its caller, nor a reply in the
//!   outbox: they are gone with the process, and the call ends by its time limit.
//! - **A method runs at most once for a call.** A request that comes again while it is remembered gets
//!   the reply of its first run. One that may have run in an earlier process of the callee, or that is
//!   no longer remembered, is refused with [`CallError::PartialCall`], unless its method is declared
//!   to be [idempotent](Kind::Idempotent).
//!   Objects are added before listeners and connectors: a request that comes again before its object
//!   is there is refused as one that may have run.
//! - **A call does not become a signal**, nor the reverse: a request of the wrong kind does not run. The
//!   call fails with [`CallError::WrongKind`], the signal is dropped and counted
//!   ([`Stats::refused`]).
//! - **Handlers do not stop a link.** They run as tasks, side by side and in no order, a limited number at a time; further requests
//!   wait, a limited number, too; beyond that they are refused ([`CallError::Busy`]). A handler that
//!   never returns keeps its place.
//! - **All is bounded** by [`Limits`]: calls in flight, requests, replies that are kept.
//!
//! # Encodings
//!
//! The arguments of a call are one value of `serde`, the result another: a tuple for positional
//! arguments, a struct or a map for named ones. The caller chooses the [`Codec`] of a proxy, and the
//! callee answers in that. `Json` and `Cbor` are there with the features of their names; further
//! codecs are added on both sides ([`Object::codec`], [`Rpc::proxy`]).
//!
//! # On the wire
//!
//! A request has the type `rpc.call` or `rpc.signal`, the headers `object` and `method`, its arguments as
//! the body, and their content type. A call has its id as the correlation id, 32 hexadecimal digits;
//! its reply has the same, and the type `rpc.reply` or `rpc.error`. An error has the header `error`:
//! `failed` with the further headers `kind`, `message` and `trace` and the data of the error as the body,
//! or `no-object`, `no-method`, `wrong-kind`, `codec`, `opaque`, `busy`, `forgotten`, `too-large`. The time
//! limit of a call is the time to live of its request and of its reply.
//!
//! # How it works
//!
//! Two state machines without I/O and without a clock: `Calls` has the calls of this peer, by id, with
//! their deadlines; `Cache` has the requests of others, by caller and id. A task of the peer gives them
//! the messages of calls and the time. Handles and handlers act on them under one lock.

#[cfg(feature = "blocking")]
pub mod blocking;
mod cache;
mod calls;
mod codec;
mod error;
#[cfg(feature = "hooks")]
mod hooks;
mod limits;
mod object;
mod objects;
pub(crate) mod port;
mod proxy;
mod run;
mod shared;
mod stats;
mod task;
#[cfg(test)]
mod tests;
mod wire;

use std::{fmt, sync::Arc};

#[cfg(feature = "cbor")]
pub use self::codec::Cbor;
#[cfg(feature = "json")]
pub use self::codec::Json;
#[cfg(feature = "hooks")]
pub use self::hooks::{HookError, Hooks};
pub use self::{
    codec::{BuiltIn, Codec, CodecError, Codecs},
    error::{CallError, Failure, RemoteError, Side},
    limits::Limits,
    object::Object,
    objects::Kind,
    proxy::Proxy,
    stats::Stats,
};
use self::{port::Port, shared::Shared};
pub(crate) use self::{
    task::Task,
    wire::{has_reserved_kind, is_rpc, is_signal},
};
use crate::name::PeerName;

/// The part of a handler's error that its caller gets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Errors {
    /// All of it.
    #[default]
    Full,
    /// All but the trace.
    WithoutTrace,
    /// Nothing: the call fails with [`CallError::Opaque`], at once.
    Opaque,
}

/// The calls of a peer: the objects that it serves, and proxies of the objects of others.
///
/// Clones are the same.
#[derive(Clone)]
pub struct Rpc(Arc<Shared>);

impl Rpc {
    /// Creates the calls of a peer, and the task that handles their events, which must be spawned.
    /// `seed` is random for each process.
    pub(crate) fn new<C>(
        port: Arc<dyn Port>,
        limits: Limits,
        seed: u64,
        clock: C,
    ) -> (Self, Task<C>) {
        let shared = Shared::new(port, limits, seed);
        let task = Task {
            shared: Arc::clone(&shared),
            clock,
        };
        (Self(shared), task)
    }

    /// Returns an object of this peer, to which methods are added. It is created unless it is there.
    #[must_use]
    pub fn object(&self, name: &str) -> Object {
        Object::new(Arc::clone(&self.0), name)
    }

    /// Removes an object. Handlers that run go on. Returns whether it was there.
    pub fn remove(&self, name: &str) -> bool {
        let removed = self.0.remove_object(name);
        removed.is_some()
    }

    /// The names of the objects of this peer, in their order.
    #[must_use]
    pub fn objects(&self) -> Vec<String> {
        self.0.with(|state| state.objects.names())
    }

    /// Returns a proxy of an object of another peer. `C` is the codec of its calls.
    #[must_use]
    pub fn proxy<C: Codec>(&self, callee: PeerName, object: &str) -> Proxy<C> {
        Proxy::new(Arc::clone(&self.0), callee, object)
    }

    /// Sets the part of the errors of handlers that callers get, from now on.
    pub fn set_errors(&self, errors: Errors) {
        self.0.with(|state| state.errors = errors);
    }

    /// Ends all that concerns a peer.
    pub(crate) fn handle_removed(&self, name: &PeerName) {
        self.0.handle_removed(name);
    }

    /// The numbers of calls.
    #[must_use]
    pub fn stats(&self) -> Stats {
        self.0.stats()
    }
}

impl fmt::Debug for Rpc {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
