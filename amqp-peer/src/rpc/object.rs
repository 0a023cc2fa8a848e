//! The handle of an object, to which methods are added.

use std::{fmt, future::Future, marker::PhantomData, sync::Arc};

use serde::{Serialize, de::DeserializeOwned};

use super::{
    codec::{BuiltIn, Codec, Codecs},
    error::Failure,
    objects::{Kind, Method},
    shared::Shared,
};
use crate::name::PeerName;

/// An object of this peer: a name with methods. `S` are the codecs of the methods that are added.
///
/// Dropping it changes nothing; [`Rpc::remove`](super::Rpc::remove) removes the object.
///
/// # Handlers
/// A handler takes the arguments of a call, one value that the codec of the caller decodes, and returns
/// a `Result`; its error becomes a [`Failure`]. It runs as a task of the runtime, beside the links and
/// other handlers. It must not block its thread for long, as any task. A panic is an error of the kind
/// `panic` for the caller. A handler may call back, also its own caller.
///
/// When the peer stops, its objects and the handlers that run are dropped. A handler that owns a handle
/// of its own peer keeps the peer from stopping by itself: it then stops by its `stop` alone.
pub struct Object<S = BuiltIn> {
    shared: Arc<Shared>,
    name: String,
    codecs: PhantomData<fn() -> S>,
}

impl Object {
    pub(super) fn new(shared: Arc<Shared>, name: &str) -> Self {
        shared.with(|state| state.add_object(name));
        Self {
            shared,
            name: name.to_owned(),
            codecs: PhantomData,
        }
    }
}

impl<S: Codecs> Object<S> {
    /// Adds a codec for the methods that are added from now on.
    #[must_use]
    pub fn codec<C: Codec>(self) -> Object<(C, S)> {
        Object {
            shared: self.shared,
            name: self.name,
            codecs: PhantomData,
        }
    }

    /// Adds a method with a result, which runs at most once for each call. It replaces one of that
    /// name.
    pub fn method<A, R, E, H, F>(&self, name: &str, handler: H) -> &Self
    where
        A: DeserializeOwned + 'static,
        R: Serialize + 'static,
        E: Into<Failure> + 'static,
        H: Fn(A) -> F + Send + Sync + 'static,
        F: Future<Output = Result<R, E>> + Send + 'static,
    {
        self.handle(Kind::Method, name, move |_, arguments| handler(arguments))
    }

    /// As [`method`](Self::method), for one that may run twice ([`Kind::Idempotent`]).
    pub fn idempotent<A, R, E, H, F>(&self, name: &str, handler: H) -> &Self
    where
        A: DeserializeOwned + 'static,
        R: Serialize + 'static,
        E: Into<Failure> + 'static,
        H: Fn(A) -> F + Send + Sync + 'static,
        F: Future<Output = Result<R, E>> + Send + 'static,
    {
        self.handle(Kind::Idempotent, name, move |_, arguments| {
            handler(arguments)
        })
    }

    /// Adds a signal: a method without a result, of which the caller does not learn whether it has
    /// run.
    pub fn signal<A, E, H, F>(&self, name: &str, handler: H) -> &Self
    where
        A: DeserializeOwned + 'static,
        E: Into<Failure> + 'static,
        H: Fn(A) -> F + Send + Sync + 'static,
        F: Future<Output = Result<(), E>> + Send + 'static,
    {
        self.handle(Kind::Signal, name, move |_, arguments| handler(arguments))
    }

    /// Adds a method of any kind, with a handler that takes the name of the caller, too. Does nothing
    /// once the peer has stopped.
    pub fn handle<A, R, E, H, F>(&self, kind: Kind, name: &str, handler: H) -> &Self
    where
        A: DeserializeOwned + 'static,
        R: Serialize + 'static,
        E: Into<Failure> + 'static,
        H: Fn(PeerName, A) -> F + Send + Sync + 'static,
        F: Future<Output = Result<R, E>> + Send + 'static,
    {
        let method = Arc::new(Method::new::<S, A, R, E, H, F>(kind, handler));
        let replaced = self
            .shared
            .with(|state| state.insert_method(&self.name, name, method));
        drop(replaced);
        self
    }

    /// The name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }
}

impl<S> Clone for Object<S> {
    fn clone(&self) -> Self {
        Self {
            shared: Arc::clone(&self.shared),
            name: self.name.clone(),
            codecs: PhantomData,
        }
    }
}

impl<S> fmt::Debug for Object<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Object")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}
