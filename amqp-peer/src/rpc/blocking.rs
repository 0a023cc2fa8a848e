//! Calls with blocking handles. Each handler runs in a thread of its own.
//!
//! ```no_run
//! # #[cfg(feature = "json")] {
//! use amqp_peer::{PeerName, rpc::{CallError, Failure, Json, blocking::Rpc}};
//!
//! fn serve(rpc: &Rpc) {
//!     let add = |(a, b): (i64, i64)| a.checked_add(b).ok_or(Failure::new("Overflow", "too large"));
//!     rpc.object("calc").method("add", add);
//! }
//!
//! fn add(rpc: &Rpc, bob: PeerName) -> Result<i64, CallError> {
//!     rpc.proxy::<Json>(bob, "calc").call("add", (3, 8))
//! }
//! # }
//! ```

use std::{sync::Arc, time::Duration};

use amqp_blocking::wait;
use serde::{Serialize, de::DeserializeOwned};

use super::{
    Errors, Stats,
    codec::{BuiltIn, Codec, Codecs},
    error::{CallError, Failure},
    objects::Kind,
};
use crate::{message::MessageId, name::PeerName};

/// The calls of a peer: the objects that it serves, and proxies of the objects of others.
///
/// Wraps [`rpc::Rpc`](super::Rpc). Clones are the same.
#[derive(Clone, Debug)]
pub struct Rpc(super::Rpc);

impl Rpc {
    /// See [`Rpc::object`](super::Rpc::object).
    #[must_use]
    pub fn object(&self, name: &str) -> Object {
        Object(self.0.object(name))
    }

    /// See [`Rpc::remove`](super::Rpc::remove).
    pub fn remove(&self, name: &str) -> bool {
        self.0.remove(name)
    }

    /// See [`Rpc::objects`](super::Rpc::objects).
    #[must_use]
    pub fn objects(&self) -> Vec<String> {
        self.0.objects()
    }

    /// See [`Rpc::proxy`](super::Rpc::proxy).
    #[must_use]
    pub fn proxy<C: Codec>(&self, callee: PeerName, object: &str) -> Proxy<C> {
        Proxy(self.0.proxy(callee, object))
    }

    /// See [`Rpc::set_errors`](super::Rpc::set_errors).
    pub fn set_errors(&self, errors: Errors) {
        self.0.set_errors(errors);
    }

    /// See [`Rpc::stats`](super::Rpc::stats).
    #[must_use]
    pub fn stats(&self) -> Stats {
        self.0.stats()
    }

    /// The asynchronous handle.
    #[must_use]
    pub const fn as_async(&self) -> &super::Rpc {
        &self.0
    }
}

impl From<super::Rpc> for Rpc {
    fn from(rpc: super::Rpc) -> Self {
        Self(rpc)
    }
}

/// An object of this peer, with handlers that may block.
///
/// Wraps [`rpc::Object`](super::Object).
#[derive(Clone, Debug)]
pub struct Object<S = BuiltIn>(super::Object<S>);

impl<S: Codecs> Object<S> {
    /// See [`Object::codec`](super::Object::codec).
    #[must_use]
    pub fn codec<C: Codec>(self) -> Object<(C, S)> {
        Object(self.0.codec())
    }

    /// See [`Object::method`](super::Object::method).
    pub fn method<A, R, E>(
        &self,
        name: &str,
        handler: impl Fn(A) -> Result<R, E> + Send + Sync + 'static,
    ) -> &Self
    where
        A: DeserializeOwned + Send + 'static,
        R: Serialize + Send + 'static,
        E: Into<Failure> + Send + 'static,
    {
        self.handle(Kind::Method, name, move |_, arguments| handler(arguments))
    }

    /// See [`Object::idempotent`](super::Object::idempotent).
    pub fn idempotent<A, R, E>(
        &self,
        name: &str,
        handler: impl Fn(A) -> Result<R, E> + Send + Sync + 'static,
    ) -> &Self
    where
        A: DeserializeOwned + Send + 'static,
        R: Serialize + Send + 'static,
        E: Into<Failure> + Send + 'static,
    {
        self.handle(Kind::Idempotent, name, move |_, arguments| {
            handler(arguments)
        })
    }

    /// See [`Object::signal`](super::Object::signal).
    pub fn signal<A, E>(
        &self,
        name: &str,
        handler: impl Fn(A) -> Result<(), E> + Send + Sync + 'static,
    ) -> &Self
    where
        A: DeserializeOwned + Send + 'static,
        E: Into<Failure> + Send + 'static,
    {
        self.handle(Kind::Signal, name, move |_, arguments| handler(arguments))
    }

    /// See [`Object::handle`](super::Object::handle).
    pub fn handle<A, R, E>(
        &self,
        kind: Kind,
        name: &str,
        handler: impl Fn(PeerName, A) -> Result<R, E> + Send + Sync + 'static,
    ) -> &Self
    where
        A: DeserializeOwned + Send + 'static,
        R: Serialize + Send + 'static,
        E: Into<Failure> + Send + 'static,
    {
        let handler = Arc::new(handler);
        self.0.handle(kind, name, move |caller, arguments| {
            let handler = Arc::clone(&handler);
            async move { handler(caller, arguments) }
        });
        self
    }

    /// The name.
    #[must_use]
    pub fn name(&self) -> &str {
        self.0.name()
    }
}

/// An object of another peer, with settings for calls.
///
/// Wraps [`rpc::Proxy`](super::Proxy).
#[derive(Debug)]
pub struct Proxy<C>(super::Proxy<C>);

impl<C: Codec> Proxy<C> {
    /// See [`Proxy::timeout`](super::Proxy::timeout).
    #[must_use]
    pub fn timeout(self, timeout: impl Into<Option<Duration>>) -> Self {
        Self(self.0.timeout(timeout))
    }

    /// See [`Proxy::signal_ttl`](super::Proxy::signal_ttl).
    #[must_use]
    pub fn signal_ttl(self, ttl: impl Into<Option<Duration>>) -> Self {
        Self(self.0.signal_ttl(ttl))
    }

    /// See [`Proxy::persistent_signals`](super::Proxy::persistent_signals).
    #[must_use]
    pub fn persistent_signals(self, persistent: bool) -> Self {
        Self(self.0.persistent_signals(persistent))
    }

    /// See [`Proxy::callee`](super::Proxy::callee).
    #[must_use]
    pub const fn callee(&self) -> &PeerName {
        self.0.callee()
    }

    /// See [`Proxy::object`](super::Proxy::object).
    #[must_use]
    pub fn object(&self) -> &str {
        self.0.object()
    }

    /// Calls a method, and waits for its result.
    ///
    /// # Errors
    /// As [`Proxy::call`](super::Proxy::call); [`CallError::PartialCall`] also beyond the limit of
    /// [`amqp_blocking::within`].
    pub fn call<A: Serialize, R: DeserializeOwned>(
        &self,
        method: &str,
        arguments: A,
    ) -> Result<R, CallError> {
        let called = wait(self.0.call(method, arguments));
        called.unwrap_or_else(|_timed_out| {
            let to = self.callee().clone();
            Err(CallError::PartialCall { to })
        })
    }

    /// See [`Proxy::signal`](super::Proxy::signal).
    ///
    /// # Errors
    /// As there.
    pub fn signal<A: Serialize>(&self, method: &str, arguments: A) -> Result<MessageId, CallError> {
        self.0.signal(method, arguments)
    }

    /// The asynchronous handle.
    #[must_use]
    pub const fn as_async(&self) -> &super::Proxy<C> {
        &self.0
    }
}

impl<C> Clone for Proxy<C> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}
