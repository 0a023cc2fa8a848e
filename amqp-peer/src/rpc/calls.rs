//! The calls of this peer that wait for their results.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    mem,
};

use amqp_core::Instant;

use super::limits::Limits;
use crate::{message::MessageId, name::PeerName};

/// The end of a call without a reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NoReply {
    /// The deadline has passed, or the request has expired, and it was not sent before.
    NotConnected,
    /// The deadline has passed after the request may have been sent.
    Partial,
    /// The callee was removed from this peer.
    Removed,
    /// The message is longer than a link takes.
    TooLarge,
    /// The peer was stopped.
    Stopped,
}

/// The outcome of a reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ReplyOutcome {
    /// It ends its call.
    Taken,
    /// No call waits for it: it has ended, or never was.
    Late,
    /// It comes from another peer than the callee.
    Forged,
}

/// The reason for which a call was not registered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CallRefused {
    TooMany,
    Stopped,
}

/// The calls in flight, by the id of their request. `R` is a reply.
///
/// Each call has one outcome, which [`poll_ended`](Self::poll_ended) announces once and
/// [`take`](Self::take) returns once. The first cause wins: a reply, the deadline, the removal of the
/// callee, or the stop. The request itself is in the outbox, which sends it again after a reconnect, so
/// that a lost link ends no call.
///
/// ```text
///  insert ──> Unsent ── link up ──> Sent ── reply from the callee ──> Ended ── take ──> gone
///                └── deadline, removed, dropped, stop ──┴───────────────^
/// ```
#[derive(Debug)]
pub(crate) struct Calls<R> {
    limits: Limits,
    calls: BTreeMap<MessageId, Call<R>>,
    /// Invariant: the deadlines of the calls that wait.
    deadlines: BTreeSet<(Instant, MessageId)>,
    /// Invariant: the calls that wait, by callee.
    waiting: BTreeSet<(PeerName, MessageId)>,
    /// The peers with a link.
    up: BTreeSet<PeerName>,
    /// Invariant: the sum of the bytes of the calls.
    bytes: usize,
    ended: VecDeque<MessageId>,
    stopped: bool,
    /// The number of late replies.
    late: u64,
    /// The number of forged replies.
    forged: u64,
}

#[derive(Debug)]
struct Call<R> {
    to: PeerName,
    bytes: usize,
    state: State<R>,
}

#[derive(Debug)]
enum State<R> {
    Waiting {
        deadline: Option<Instant>,
        /// A link to the callee was up since the request is in the outbox.
        may_be_sent: bool,
    },
    Ended(Result<R, NoReply>),
    Taken,
}

impl<R> Calls<R> {
    pub(crate) const fn new(limits: Limits) -> Self {
        Self {
            limits,
            calls: BTreeMap::new(),
            deadlines: BTreeSet::new(),
            waiting: BTreeSet::new(),
            up: BTreeSet::new(),
            bytes: 0,
            ended: VecDeque::new(),
            stopped: false,
            late: 0,
            forged: 0,
        }
    }

    /// Registers a call, before its request is sent: no reply overtakes that. `bytes` are those of
    /// the request.
    pub(crate) fn insert(
        &mut self,
        id: MessageId,
        to: &PeerName,
        bytes: usize,
        deadline: Option<Instant>,
    ) -> Result<(), CallRefused> {
        if self.stopped {
            return Err(CallRefused::Stopped);
        }
        let total = self.bytes.saturating_add(bytes);
        let has_bytes = self.bytes == 0 || total <= self.limits.call_bytes;
        if self.calls.len() >= self.limits.calls || !has_bytes || self.calls.contains_key(&id) {
            return Err(CallRefused::TooMany);
        }
        self.bytes = total;
        self.deadlines.extend(deadline.map(|at| (at, id)));
        self.waiting.insert((to.clone(), id));
        let call = Call {
            to: to.clone(),
            bytes,
            state: State::Waiting {
                deadline,
                may_be_sent: self.up.contains(to),
            },
        };
        self.calls.insert(id, call);
        Ok(())
    }

    /// A link to a peer is up: the requests to it may be sent from now on.
    pub(crate) fn handle_up(&mut self, name: &PeerName) {
        self.up.insert(name.clone());
        for id in self.waiting_for(name) {
            if let Some(Call {
                state: State::Waiting { may_be_sent, .. },
                ..
            }) = self.calls.get_mut(&id)
            {
                *may_be_sent = true;
            }
        }
    }

    /// The link to a peer is down. Its calls go on.
    pub(crate) fn handle_down(&mut self, name: &PeerName) {
        self.up.remove(name);
    }

    /// Handles a reply. One from another peer than the callee does not end the call.
    pub(crate) fn handle_reply(
        &mut self,
        from: &PeerName,
        id: MessageId,
        reply: R,
    ) -> ReplyOutcome {
        match self.calls.get(&id) {
            Some(call) if call.to != *from => {
                self.forged += 1;
                ReplyOutcome::Forged
            }
            Some(Call {
                state: State::Waiting { .. },
                ..
            }) => {
                self.end(id, Ok(reply));
                ReplyOutcome::Taken
            }
            Some(_) | None => {
                self.late += 1;
                ReplyOutcome::Late
            }
        }
    }

    /// The outbox has dropped a request.
    pub(crate) fn handle_dropped(&mut self, id: MessageId, reason: NoReply) {
        self.end(id, Err(reason));
    }

    /// A peer was removed: its calls end. A link to it stays up until it is [down](Self::handle_down).
    pub(crate) fn handle_removed(&mut self, name: &PeerName) {
        for id in self.waiting_for(name) {
            self.end(id, Err(NoReply::Removed));
        }
    }

    /// Ends all calls, and refuses further ones.
    pub(crate) fn stop(&mut self) {
        self.stopped = true;
        self.up.clear();
        for (_, id) in mem::take(&mut self.waiting) {
            self.end(id, Err(NoReply::Stopped));
        }
    }

    /// The earliest deadline.
    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        self.deadlines.first().map(|(at, _)| *at)
    }

    /// Ends the calls with a deadline until `now`.
    pub(crate) fn handle_timeout(&mut self, now: Instant) {
        while let Some((at, id)) = self.deadlines.first().copied() {
            if at > now {
                break;
            }
            let reason = self.overdue(id);
            self.end(id, Err(reason));
            self.deadlines.remove(&(at, id));
        }
    }

    /// The next call that has ended.
    pub(crate) fn poll_ended(&mut self) -> Option<MessageId> {
        self.ended.pop_front()
    }

    /// Returns the outcome of a call, once it has ended. The call stays until it is
    /// [removed](Self::remove).
    pub(crate) fn take(&mut self, id: MessageId) -> Option<Result<R, NoReply>> {
        let call = self.calls.get_mut(&id)?;
        match mem::replace(&mut call.state, State::Taken) {
            State::Ended(outcome) => Some(outcome),
            other => {
                call.state = other;
                None
            }
        }
    }

    /// Removes a call: its outcome was taken, or nothing waits for it any more. Its reply is late.
    pub(crate) fn remove(&mut self, id: MessageId) {
        let Some(call) = self.calls.remove(&id) else {
            return;
        };
        self.bytes -= call.bytes;
        if let State::Waiting { deadline, .. } = call.state {
            self.unlink(&call.to, id, deadline);
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.calls.len()
    }

    pub(crate) const fn late(&self) -> u64 {
        self.late
    }

    pub(crate) const fn forged(&self) -> u64 {
        self.forged
    }

    /// Returns whether nothing of an ended call is left.
    #[cfg(test)]
    pub(crate) fn is_empty(&self) -> bool {
        self.calls.is_empty()
            && self.deadlines.is_empty()
            && self.waiting.is_empty()
            && self.bytes == 0
    }

    fn waiting_for(&self, name: &PeerName) -> Vec<MessageId> {
        let from = (name.clone(), MessageId::from_bytes([0; 16]));
        let range = self.waiting.range(from..);
        let of_name = range.take_while(|(to, _)| to == name);
        of_name.map(|(_, id)| *id).collect()
    }

    /// The outcome of a call that is overdue.
    fn overdue(&self, id: MessageId) -> NoReply {
        match self.calls.get(&id).map(|call| &call.state) {
            Some(State::Waiting {
                may_be_sent: true, ..
            }) => NoReply::Partial,
            _ => NoReply::NotConnected,
        }
    }

    fn end(&mut self, id: MessageId, outcome: Result<R, NoReply>) {
        let Some(call) = self.calls.get_mut(&id) else {
            return;
        };
        let State::Waiting { deadline, .. } = call.state else {
            return;
        };
        call.state = State::Ended(outcome);
        let to = call.to.clone();
        self.unlink(&to, id, deadline);
        self.ended.push_back(id);
    }

    fn unlink(&mut self, to: &PeerName, id: MessageId, deadline: Option<Instant>) {
        if let Some(at) = deadline {
            self.deadlines.remove(&(at, id));
        }
        self.waiting.remove(&(to.clone(), id));
    }
}
