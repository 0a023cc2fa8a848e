//! The handle of an object of another peer.

use std::{
    fmt,
    future::poll_fn,
    marker::PhantomData,
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    task::{Context, Poll},
    time::Duration,
};

use amqp_core::{Instant, wire::ShortStr};
use serde::{Serialize, de::DeserializeOwned};

use super::{
    calls::{CallRefused, NoReply},
    codec::{Codec, CodecError},
    error::{CallError, Side},
    shared::Shared,
    wire::{self, CallId, Fault, NAME_MAX, Reply, Request},
};
use crate::{
    message::{Message, MessageId},
    name::PeerName,
};

/// The default time limit of a call.
const TIMEOUT: Duration = Duration::from_secs(60);

/// An object of another peer, with settings for calls. `C` is the codec of its calls.
///
/// Setters return a proxy with that setting; a clone has the settings of the original. Whether the
/// object is there turns out at the first call.
pub struct Proxy<C> {
    shared: Arc<Shared>,
    to: PeerName,
    object: String,
    timeout: Option<Duration>,
    signal_ttl: Option<Duration>,
    persistent_signals: bool,
    codec: PhantomData<fn() -> C>,
}

impl<C: Codec> Proxy<C> {
    pub(super) fn new(shared: Arc<Shared>, to: PeerName, object: &str) -> Self {
        Self {
            shared,
            to,
            object: object.to_owned(),
            timeout: Some(TIMEOUT),
            signal_ttl: Some(Duration::ZERO),
            persistent_signals: false,
            codec: PhantomData,
        }
    }

    /// Sets the time limit of calls, connected or not. `None` removes it: a call then ends with its
    /// reply, when the callee is removed, or when the peer stops, and not if the callee is killed after
    /// it has acknowledged the request: the call then waits for ever. Default 60 s.
    #[must_use]
    pub fn timeout(mut self, timeout: impl Into<Option<Duration>>) -> Self {
        self.timeout = timeout.into();
        self
    }

    /// Sets the [time to live](Message::ttl) of signals. Default zero: now or never. `None` removes
    /// the limit.
    #[must_use]
    pub fn signal_ttl(mut self, ttl: impl Into<Option<Duration>>) -> Self {
        self.signal_ttl = ttl.into();
        self
    }

    /// Sets whether signals are [persistent](Message::is_persistent). Default `false`. A persistent
    /// signal needs a [time to live](Self::signal_ttl) other than zero, or none: one of now or never is
    /// not stored. It survives both processes, and runs once, unless the callee is killed while it
    /// runs, or has no storage and is killed: then it may run again.
    #[must_use]
    pub const fn persistent_signals(mut self, persistent: bool) -> Self {
        self.persistent_signals = persistent;
        self
    }

    /// The callee.
    #[must_use]
    pub const fn callee(&self) -> &PeerName {
        &self.to
    }

    /// The name of the object.
    #[must_use]
    pub fn object(&self) -> &str {
        &self.object
    }

    /// Calls a method, and waits for its result.
    ///
    /// The arguments are one value: a tuple has positional, a struct or a map named ones. The request
    /// waits in the outbox while there is no link to the callee, and is sent again after a link was
    /// lost; the method runs at most once ([`Kind`](super::Kind)).
    ///
    /// # Cancel safety
    /// Dropping it ignores the result. Once the request is in the outbox, the call may still run.
    ///
    /// # Errors
    /// [`CallError`]. After a call of which the handler may have run, it is one that says so.
    pub async fn call<A: Serialize, R: DeserializeOwned>(
        &self,
        method: &str,
        arguments: A,
    ) -> Result<R, CallError> {
        let names = (&*self.object, method);
        let trace = self.shared.port.trace().call(&self.to, names);
        let result = self.run(method, arguments).await;
        trace.end(result.as_ref().err());
        result
    }

    async fn run<A: Serialize, R: DeserializeOwned>(
        &self,
        method: &str,
        arguments: A,
    ) -> Result<R, CallError> {
        let id = self.shared.next_id();
        let message = self.request(Some(id), method, arguments, self.timeout)?;
        let deadline = self.timeout.map(|timeout| self.shared.port.now() + timeout);
        let registered = self
            .shared
            .register(&self.to, message.memory(), deadline, id);
        registered.map_err(|refused| match refused {
            CallRefused::TooMany => CallError::TooMany,
            CallRefused::Stopped => CallError::Stopped,
        })?;
        let call = Call {
            shared: &self.shared,
            id,
        };
        let reply = self.reply_to(&call, message, deadline).await?;
        self.result_of(method, reply)
    }

    /// Sends a signal: runs a method without waiting for it. Returns the id of the message. It is
    /// dropped if it is not delivered within its time to live.
    ///
    /// # Errors
    /// As [`call`](Self::call), as far as it is about the arguments and the outbox:
    /// [`CallError::NotConnected`] if its time to live is zero and there is no link to the callee,
    /// [`CallError::Send`] with [`SendError::Full`](crate::SendError::Full) without room in the outbox.
    pub fn signal<A: Serialize>(&self, method: &str, arguments: A) -> Result<MessageId, CallError> {
        let sent = self.send_signal(method, arguments);
        let names = (&*self.object, method);
        let trace = self.shared.port.trace();
        trace.signal(&self.to, names, sent.as_ref().err());
        sent
    }

    fn send_signal<A: Serialize>(
        &self,
        method: &str,
        arguments: A,
    ) -> Result<MessageId, CallError> {
        let message = self.request(None, method, arguments, self.signal_ttl)?;
        Ok(self.shared.port.try_send(&self.to, message)?)
    }

    fn request<A: Serialize>(
        &self,
        id: Option<CallId>,
        method: &str,
        arguments: A,
        ttl: Option<Duration>,
    ) -> Result<Message, CallError> {
        if self.object.len() > NAME_MAX {
            return Err(self.error(method, Fault::NoObject));
        }
        if method.len() > NAME_MAX {
            return Err(self.error(method, Fault::NoMethod));
        }
        let codec = |error: CodecError| CallError::Codec {
            side: Side::Caller,
            reason: error.reason,
        };
        let content_type =
            ShortStr::try_from(C::CONTENT_TYPE).map_err(|error| codec(CodecError::new(error)))?;
        let request = Request {
            object: self.object.clone(),
            method: method.to_owned(),
            content_type,
            body: C::encode(&arguments).map_err(codec)?.into(),
            ttl,
            is_stored: id.is_none() && self.persistent_signals,
        };
        Ok(wire::request(id, request))
    }

    /// Puts the request into the outbox, and waits for the outcome.
    async fn reply_to(
        &self,
        call: &Call<'_>,
        message: Message,
        deadline: Option<Instant>,
    ) -> Result<Reply, CallError> {
        let is_sent = AtomicBool::new(false);
        let port = &self.shared.port;
        let mut sending = pin!(port.send_request(&self.to, message, deadline, &is_sent));
        let mut is_sending = true;
        poll_fn(|cx| {
            if let Poll::Ready(outcome) = call.poll(cx) {
                let to = self.to.clone();
                return Poll::Ready(outcome.map_err(|reason| match reason {
                    // The request is still on its way to the outbox.
                    NoReply::Partial if !is_sent.load(SeqCst) => CallError::NotConnected { to },
                    NoReply::Partial => CallError::PartialCall { to },
                    NoReply::NotConnected => CallError::NotConnected { to },
                    NoReply::Removed => CallError::Removed { to },
                    NoReply::TooLarge => CallError::TooLarge { side: Side::Caller },
                    NoReply::Stopped => CallError::Stopped,
                }));
            }
            if is_sending {
                match sending.as_mut().poll(cx) {
                    Poll::Ready(Ok(_)) => is_sending = false,
                    Poll::Ready(Err(error)) => return Poll::Ready(Err(error.into())),
                    Poll::Pending => {}
                }
            }
            Poll::Pending
        })
        .await
    }

    fn result_of<R: DeserializeOwned>(&self, method: &str, reply: Reply) -> Result<R, CallError> {
        let Reply {
            content_type,
            result,
        } = reply;
        let body = result.map_err(|fault| self.error(method, fault))?;
        let decoded = if content_type == C::CONTENT_TYPE {
            C::decode(&body)
        } else {
            Err(CodecError::new("the reply has another content type"))
        };
        decoded.map_err(|error| CallError::Codec {
            side: Side::Caller,
            reason: error.reason,
        })
    }

    fn error(&self, method: &str, fault: Fault) -> CallError {
        let to = self.to.clone();
        let method = method.to_owned();
        match fault {
            Fault::NoObject => CallError::NoObject {
                object: self.object.clone(),
            },
            Fault::NoMethod => CallError::NoMethod {
                object: self.object.clone(),
                method,
            },
            Fault::WrongKind => CallError::WrongKind { method },
            Fault::Codec(reason) => CallError::Codec {
                side: Side::Callee,
                reason,
            },
            Fault::Opaque => CallError::Opaque,
            Fault::Busy => CallError::Busy { to },
            Fault::Forgotten => CallError::PartialCall { to },
            Fault::TooLarge => CallError::TooLarge { side: Side::Callee },
            Fault::Failed(error) => CallError::Remote(error),
        }
    }
}

/// A call that is registered. Dropping it makes its reply a late one.
struct Call<'a> {
    shared: &'a Shared,
    id: CallId,
}

impl Call<'_> {
    fn poll(&self, cx: &Context<'_>) -> Poll<Result<Reply, NoReply>> {
        self.shared.poll_outcome(self.id, cx.waker())
    }
}

impl Drop for Call<'_> {
    fn drop(&mut self) {
        self.shared.forget(self.id);
    }
}

impl<C> Clone for Proxy<C> {
    fn clone(&self) -> Self {
        Self {
            shared: Arc::clone(&self.shared),
            to: self.to.clone(),
            object: self.object.clone(),
            timeout: self.timeout,
            signal_ttl: self.signal_ttl,
            persistent_signals: self.persistent_signals,
            codec: PhantomData,
        }
    }
}

impl<C> fmt::Debug for Proxy<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Proxy")
            .field("to", &self.to)
            .field("object", &self.object)
            .field("timeout", &self.timeout)
            .field("signal_ttl", &self.signal_ttl)
            .field("persistent_signals", &self.persistent_signals)
            .finish_non_exhaustive()
    }
}
