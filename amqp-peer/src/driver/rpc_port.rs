//! The peer, as calls need it.

use std::{
    collections::VecDeque,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    task::{Context, Poll, Waker},
};

use amqp_core::Instant;
use amqp_driver::io::poll_locked;

use super::{
    runner::Job,
    send::{Tracking, send, send_with},
    shared::{Settled, Shared},
    state::{Phase, State},
};
use crate::{
    cause::SendError,
    event::Sender,
    machine::{Event, Token},
    message::{Message, MessageId},
    name::PeerName,
    rpc::{
        is_rpc, is_signal,
        port::{self, BoxFuture, Port, ttl_until},
    },
    trace::Trace,
};

/// The events of calls that were not taken. Messages are bounded by the windows of their senders, the
/// others by those of the links.
#[derive(Debug, Default)]
pub(super) struct RpcQueue {
    events: VecDeque<port::Event>,
    waker: Option<Waker>,
}

impl RpcQueue {
    /// Whether an event concerns calls only.
    pub(super) fn awaits(event: &Event) -> bool {
        match event {
            Event::Received(received) => {
                matches!(received.from, Sender::Peer(_)) && is_rpc(&received.message)
            }
            Event::Dropped(dropped) => is_rpc(&dropped.message) && !is_signal(&dropped.message),
            _ => false,
        }
    }

    /// Takes an event that concerns calls only.
    pub(super) fn note(&mut self, event: Event, wakes: &mut Vec<Waker>) {
        match event {
            Event::Received(received) => self.push(port::Event::Received(received), wakes),
            Event::Dropped(dropped) => self.push(port::Event::Dropped(dropped), wakes),
            _ => {}
        }
    }

    /// Notes the beginning and the end of a link.
    pub(super) fn note_link(&mut self, event: &Event, wakes: &mut Vec<Waker>) {
        match event {
            Event::Up(up) => self.push(port::Event::Up(up.name.clone()), wakes),
            Event::Down(down) => self.push(port::Event::Down(down.name.clone()), wakes),
            _ => {}
        }
    }

    pub(super) fn push(&mut self, event: port::Event, wakes: &mut Vec<Waker>) {
        self.events.push_back(event);
        wakes.extend(self.waker.take());
    }

    /// Takes the waker, when the peer stops.
    pub(super) const fn take_waker(&mut self) -> Option<Waker> {
        self.waker.take()
    }
}

/// The peer for its calls. It does not keep the peer running.
pub(super) struct RpcPort(pub(super) Arc<Shared>);

impl Port for RpcPort {
    fn now(&self) -> Instant {
        self.0.now()
    }

    fn send<'a>(
        &'a self,
        to: &'a PeerName,
        message: Message,
    ) -> BoxFuture<'a, Result<MessageId, SendError>> {
        Box::pin(send(&self.0, to, message, Tracking::Reply))
    }

    fn send_request<'a>(
        &'a self,
        to: &'a PeerName,
        message: Message,
        deadline: Option<Instant>,
        is_sent: &'a AtomicBool,
    ) -> BoxFuture<'a, Result<MessageId, SendError>> {
        let prepare = move |message: &mut Message, now| message.ttl = ttl_until(deadline, now);
        let note = || is_sent.store(true, SeqCst);
        Box::pin(send_with(
            &self.0,
            to,
            message,
            Tracking::Nothing,
            (prepare, note),
        ))
    }

    fn try_send(&self, to: &PeerName, message: Message) -> Result<MessageId, SendError> {
        self.0
            .at_now(|state, _| state.send(to, message, Tracking::Nothing))
    }

    fn settle(&self, token: Token) {
        self.0.settle(Settled::Accepted(token));
    }

    fn requeue(&self, token: Token) {
        self.0.settle(Settled::Requeued(token));
    }

    fn spawn(&self, task: BoxFuture<'static, ()>) {
        self.0.with(|state| state.jobs.push_back(Job::Task(task)));
    }

    fn trace(&self) -> &Trace {
        &self.0.trace
    }

    fn poll_event(&self, cx: &mut Context<'_>) -> Poll<Option<port::Event>> {
        poll_locked(
            self.0.mutex(),
            cx.waker(),
            |state: &mut State| match state.rpc.events.pop_front() {
                Some(event) => Some(Some(event)),
                None => (state.phase != Phase::Running).then_some(None),
            },
            |state| &mut state.rpc.waker,
        )
    }
}
