//! The run of a request: its handler, and its reply.

use std::{
    future::{Future, poll_fn},
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
    task::Poll,
};

use amqp_core::Instant;
use bytes::Bytes;

use super::{
    Errors,
    cache::RequestKey,
    error::Failure,
    objects::{Method, Ran},
    shared::Shared,
    wire::{self, CallId, Fault, Reply, Request},
};
use crate::{cause::SendError, message::Message};

/// A request with its method.
pub(crate) struct Work {
    /// `Some` for a call.
    pub(crate) call: Option<CallId>,
    pub(crate) method: Arc<Method>,
    pub(crate) request: Request,
    pub(crate) arrived: Instant,
    /// The request may have run in an earlier process.
    pub(crate) may_have_run: bool,
}

impl Work {
    /// Whether its time to live has passed while it waited for its turn. One of zero means now or
    /// never: the request has arrived, and may wait.
    fn is_overdue(&self, now: Instant) -> bool {
        let ttl = self.request.ttl.filter(|ttl| !ttl.is_zero());
        ttl.is_some_and(|ttl| now - self.arrived >= ttl)
    }

    fn reply(&self, result: Result<Bytes, Fault>) -> Option<Message> {
        let reply = Reply {
            content_type: self.request.content_type.clone(),
            result,
        };
        // The caller may have lost its link for all of the time that the request had left.
        Some(wire::reply(self.call?, reply, self.request.ttl))
    }
}

/// Frees the place of a request if its task is dropped before its end.
struct RunGuard {
    shared: Arc<Shared>,
    key: RequestKey,
    is_over: bool,
}

impl Drop for RunGuard {
    fn drop(&mut self) {
        self.shared.unregister_run(&self.key);
        if self.is_over {
            return;
        }
        let now = self.shared.port.now();
        let token = self.shared.with(|state| {
            state.cache.finish(&self.key, None);
            state.cache.release(now, &self.key)
        });
        if let Some(token) = token {
            self.shared.port.requeue(token);
        }
        self.shared.start_ready();
    }
}

/// Runs a request, puts its reply into the outbox, and settles it.
///
/// Its place is freed also if the future is never polled.
pub(crate) fn run(
    shared: Arc<Shared>,
    key: RequestKey,
    work: Work,
) -> impl Future<Output = ()> + Send {
    let guard = RunGuard {
        shared: Arc::clone(&shared),
        key,
        is_over: false,
    };
    run_guarded(shared, work, guard)
}

async fn run_guarded(shared: Arc<Shared>, work: Work, mut guard: RunGuard) {
    let key = guard.key.clone();
    let names = (&*work.request.object, &*work.request.method);
    let trace = shared.port.trace().run(&key.0, names);
    let Some(result) = handle(&shared, &key, &work).await else {
        // The peer has stopped. The request is not settled, so that its caller keeps it.
        shared.with(|state| state.cache.finish(&key, None));
        guard.is_over = true;
        return;
    };
    trace.end(result.as_ref().err().map_or("ok", Fault::name));
    let mut reply = work.reply(result);
    let has_room = |reply: &Message| shared.with(|state| state.cache.has_room(reply.memory()));
    if reply.as_ref().is_some_and(|reply| !has_room(reply)) {
        reply = work.reply(Err(Fault::TooLarge));
    }
    let kept = reply.clone().map(|reply| {
        let bytes = reply.memory();
        (reply, bytes)
    });
    let is_expected = shared.with(|state| state.cache.finish(&key, kept));
    shared.start_ready();
    if let Some(reply) = reply.filter(|_| is_expected) {
        let mut sent = shared.port.send(&key.0, reply).await;
        if let (Err(SendError::TooLarge { .. }), Some(fault)) =
            (&sent, work.reply(Err(Fault::TooLarge)))
        {
            sent = shared.port.send(&key.0, fault).await;
        }
        if sent == Err(SendError::Stopped) {
            guard.is_over = true;
            return;
        }
    }
    guard.is_over = true;
    let now = shared.port.now();
    let token = shared.with(|state| state.cache.release(now, &key));
    if let Some(token) = token {
        shared.port.settle(token);
    }
}

/// Runs the handler. `None` if the peer stops before its end.
async fn handle(
    shared: &Arc<Shared>,
    key: &RequestKey,
    work: &Work,
) -> Option<Result<Bytes, Fault>> {
    let Request {
        object,
        method,
        content_type,
        body,
        ..
    } = &work.request;
    if work.is_overdue(shared.port.now()) {
        if work.call.is_none() {
            shared.with(|state| state.refused += 1);
        }
        return Some(Err(Fault::Busy.of_request(work.may_have_run)));
    }
    let place = format!("{object}.{method}");
    let start = || (work.method.start)(key.0.clone(), content_type, body);
    // Unwind safe: a handler that panics is not used again.
    let ran = match catch_unwind(AssertUnwindSafe(start)) {
        Ok(Ok(mut running)) => {
            poll_fn(|cx| {
                let poll = || running.as_mut().poll(cx);
                let polled = catch_unwind(AssertUnwindSafe(poll));
                match polled {
                    Ok(Poll::Ready(ran)) => Poll::Ready(Some(ran)),
                    Ok(Poll::Pending) if shared.register_run(key, cx.waker()) => Poll::Pending,
                    Ok(Poll::Pending) => Poll::Ready(None),
                    Err(panic) => Poll::Ready(Some(Err(Failure::of_panic(&*panic, &place)))),
                }
            })
            .await?
        }
        Ok(Err(error)) => return Some(Err(Fault::Codec(error.reason))),
        Err(panic) => Err(Failure::of_panic(&*panic, &place)),
    };
    let errors = shared.with(|state| state.errors);
    Some(result_of(ran, errors, content_type))
}

fn result_of(ran: Ran, errors: Errors, content_type: &str) -> Result<Bytes, Fault> {
    match (ran, errors) {
        (Ok(Ok(bytes)), _) => Ok(bytes.into()),
        (Ok(Err(_)) | Err(_), Errors::Opaque) => Err(Fault::Opaque),
        (Ok(Err(error)), _) => Err(Fault::Codec(error.reason)),
        (Err(failure), Errors::Full) => Err(Fault::Failed(failure.into_remote(content_type))),
        (Err(failure), Errors::WithoutTrace) => {
            let mut error = failure.into_remote(content_type);
            error.trace = None;
            Err(Fault::Failed(error))
        }
    }
}
