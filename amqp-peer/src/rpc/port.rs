//! The peer, as calls need it.

use std::{
    future::Future,
    pin::Pin,
    sync::atomic::AtomicBool,
    task::{Context, Poll},
    time::Duration,
};

use amqp_core::Instant;

use crate::{
    cause::SendError,
    event::{Dropped, Received, Token},
    message::{Message, MessageId},
    name::PeerName,
    trace::Trace,
};

/// The shortest time to live of a request: zero means now or never.
const TTL_MIN: Duration = Duration::from_millis(1);

/// The time to live of a request that enters the outbox now.
pub(crate) fn ttl_until(deadline: Option<Instant>, now: Instant) -> Option<Duration> {
    deadline.map(|deadline| (deadline - now).max(TTL_MIN))
}

pub(crate) type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// An event of the peer that concerns calls.
#[derive(Clone, Debug)]
pub(crate) enum Event {
    /// A message of one of the kinds of calls, from another peer.
    Received(Received),
    /// A message of this kind will not be delivered.
    Dropped(Dropped),
    /// A link is up.
    Up(PeerName),
    /// A link has ended.
    Down(PeerName),
}

/// The peer. Its methods are called without the lock of the calls, and it calls nothing under its own.
pub(crate) trait Port: Send + Sync + 'static {
    /// The time.
    fn now(&self) -> Instant;

    /// Puts a reply into the outbox, without receipts. Waits for room, and for a place among the
    /// receivers.
    fn send<'a>(
        &'a self,
        to: &'a PeerName,
        message: Message,
    ) -> BoxFuture<'a, Result<MessageId, SendError>>;

    /// As [`send`](Self::send), for a request, which waits for room alone. Its time to live is what is left until `deadline` when
    /// it enters the outbox; then `is_sent` is set, which may be before the future ends.
    fn send_request<'a>(
        &'a self,
        to: &'a PeerName,
        message: Message,
        deadline: Option<Instant>,
        is_sent: &'a AtomicBool,
    ) -> BoxFuture<'a, Result<MessageId, SendError>>;

    /// As [`send`](Self::send), without waiting.
    fn try_send(&self, to: &PeerName, message: Message) -> Result<MessageId, SendError>;

    /// Accepts a received message.
    fn settle(&self, token: Token);

    /// Gives a received message back, to be sent again.
    fn requeue(&self, token: Token);

    /// Runs a task beside the caller.
    fn spawn(&self, task: BoxFuture<'static, ()>);

    /// The subscriber's view of the peer.
    fn trace(&self) -> &Trace;

    /// The next event. `None` once the peer was stopped.
    fn poll_event(&self, cx: &mut Context<'_>) -> Poll<Option<Event>>;
}
