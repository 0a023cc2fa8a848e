//! The objects of a peer, and the handlers of their methods.

use std::{collections::BTreeMap, future::Future, pin::Pin, sync::Arc};

use super::{
    codec::{CodecError, Codecs},
    error::Failure,
    wire::Fault,
};
use crate::name::PeerName;

/// The kind of a method.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Kind {
    /// It has a result, and runs at most once for each call.
    Method,
    /// It has a result, and may run twice for a call: a call that was interrupted by the end of this
    /// process runs again in the next one, in place of failing with
    /// [`CallError::PartialCall`](super::CallError::PartialCall).
    Idempotent,
    /// It has no result, and runs at most once for each signal.
    Signal,
}

/// The result of a handler: encoded, or not.
pub(crate) type Ran = Result<Result<Vec<u8>, CodecError>, Failure>;
pub(crate) type Running = Pin<Box<dyn Future<Output = Ran> + Send>>;
type Start = dyn Fn(PeerName, &str, &[u8]) -> Result<Running, CodecError> + Send + Sync;

/// A method: decodes its arguments and starts its handler.
pub(crate) struct Method {
    pub(crate) kind: Kind,
    pub(crate) start: Box<Start>,
}

impl Method {
    /// A method that runs `handler`, in the codecs of `S`.
    pub(crate) fn new<S, A, R, E, H, F>(kind: Kind, handler: H) -> Self
    where
        S: Codecs,
        A: serde::de::DeserializeOwned + 'static,
        R: serde::Serialize + 'static,
        E: Into<Failure> + 'static,
        H: Fn(PeerName, A) -> F + Send + Sync + 'static,
        F: Future<Output = Result<R, E>> + Send + 'static,
    {
        let start = move |caller: PeerName, content_type: &str, body: &[u8]| {
            let arguments = S::decode(content_type, body)?;
            let running = handler(caller, arguments);
            let content_type = content_type.to_owned();
            let running: Running = Box::pin(async move {
                let result = running.await.map_err(Into::into)?;
                if kind == Kind::Signal {
                    return Ok(Ok(Vec::new()));
                }
                Ok(S::encode(&content_type, &result))
            });
            Ok(running)
        };
        Self {
            kind,
            start: Box::new(start),
        }
    }
}

/// The methods of an object, by name.
pub(crate) type Methods = BTreeMap<String, Arc<Method>>;

/// The objects of a peer, by name.
#[derive(Default)]
pub(crate) struct Objects(BTreeMap<String, Methods>);

impl Objects {
    /// Adds an object without methods, unless it is there.
    pub(crate) fn add(&mut self, name: &str) {
        if !self.0.contains_key(name) {
            self.0.insert(name.to_owned(), Methods::new());
        }
    }

    /// Adds a method. Returns the one of that name that it replaces, to be dropped without a lock.
    pub(crate) fn insert(
        &mut self,
        object: &str,
        name: &str,
        method: Arc<Method>,
    ) -> Option<Arc<Method>> {
        self.add(object);
        let methods = self.0.get_mut(object)?;
        methods.insert(name.to_owned(), method)
    }

    /// Removes an object. `Some` if it was there.
    pub(crate) fn remove(&mut self, name: &str) -> Option<Methods> {
        self.0.remove(name)
    }

    pub(crate) fn names(&self) -> Vec<String> {
        self.0.keys().cloned().collect()
    }

    /// The method of a request.
    pub(crate) fn find(&self, object: &str, method: &str) -> Result<Arc<Method>, Fault> {
        let methods = self.0.get(object).ok_or(Fault::NoObject)?;
        methods.get(method).map(Arc::clone).ok_or(Fault::NoMethod)
    }
}
