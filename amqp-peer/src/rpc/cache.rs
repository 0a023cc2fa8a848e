//! The requests of other peers: each runs at most once.

use std::{
    collections::{BTreeMap, VecDeque},
    mem,
};

use amqp_core::Instant;

use super::limits::Limits;
use crate::{message::MessageId, name::PeerName};

/// A request: its caller, and its id, which the caller has chosen.
pub(crate) type RequestKey = (PeerName, RequestId);

/// The id of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum RequestId {
    /// The id of a call.
    Call(MessageId),
    /// The id of the message of a signal.
    Signal(MessageId),
}

impl RequestId {
    const MIN: Self = Self::Call(MessageId::from_bytes([0; 16]));
}

/// The past of a request, as far as it is known without the cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum History {
    /// It was given to no application before.
    New,
    /// It may have run: in an earlier process of this peer, or before it was forgotten.
    MayHaveRun,
    /// As before, and its method may run twice.
    Repeatable,
}

/// The state of a request that has arrived before.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Known<R> {
    /// It waits or runs. The reply follows.
    InProgress,
    /// It has run, with this reply.
    Answer(R),
    /// It has run, and there is no reply, or no longer.
    Gone,
}

/// The fate of a request that is new to the cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Admission {
    /// It waits for its turn: see [`Cache::poll_start`]. Its token is returned when it has run.
    Queued,
    /// As before, but its token is to be settled at once: its caller has too many bytes in flight.
    QueuedSettled,
    /// It may have run, and does not run again.
    Forgotten,
    /// There is no place for it.
    Busy,
    /// The peer was stopped.
    Stopped,
}

/// The requests that wait, run, or have run. `J` is the work, `T` the token that settles the message
/// of a request, `R` a reply.
///
/// ```text
///           admit ──> Queued ── poll_start ──> Running ── finish ──> Replying ── release ──> Kept
///                                                └── removed ──> Orphaned ── finish ──> gone
/// ```
///
/// A request that comes again while it is known does not run again. A reply is kept until it is one of
/// the oldest beyond the bounds of number, bytes and time: first its bytes go, then its id. A request
/// that comes again after that is refused if the link says that it may have run
/// ([`History::MayHaveRun`]). Links drop the repeats of settled messages by themselves, so that this
/// is in practice a request that has begun in an earlier process of this peer.
///
/// Invariant: a request is in one state, and no call takes it back to an earlier one.
#[derive(Debug)]
pub(crate) struct Cache<J, T, R> {
    limits: Limits,
    entries: BTreeMap<RequestKey, Entry<J, T, R>>,
    /// Invariant: the requests that wait, in their order.
    queue: VecDeque<RequestKey>,
    /// Invariant: the requests that wait, run or reply, of each caller with any.
    held: BTreeMap<PeerName, Held>,
    running: usize,
    /// Invariant: the bytes of the requests that wait or run.
    request_bytes: usize,
    /// Invariant: the kept ones, the oldest first, with the time of their end.
    kept: VecDeque<(Instant, RequestKey)>,
    /// The number of those at the front of `kept` without a reply, for want of bytes.
    without_reply: usize,
    /// Invariant: the bytes of the kept replies.
    reply_bytes: usize,
    /// Invariant: the bytes of the replies that wait for room in the outbox.
    waiting_bytes: usize,
    /// The replies that are kept no longer, to be dropped without the lock.
    evicted: Vec<R>,
    stopped: bool,
}

/// What is left of the requests that were removed.
#[derive(Debug)]
pub(crate) struct Removed<J, T> {
    /// The tokens, to be settled.
    pub(crate) tokens: Vec<T>,
    /// The work that does not run. It has destructors of the application.
    pub(crate) works: Vec<J>,
}

/// The requests of a caller that wait, run or reply.
#[derive(Debug, Default)]
struct Held {
    count: usize,
    /// The bytes of those with a token.
    unsettled: usize,
}

#[derive(Debug)]
struct Entry<J, T, R> {
    /// Of the request, then of the reply.
    bytes: usize,
    /// Of the request, while its token is here.
    unsettled: usize,
    state: State<J, T, R>,
}

/// The token is `Some` unless it was settled early.
#[derive(Debug)]
enum State<J, T, R> {
    Queued(J, Option<T>),
    Running(Option<T>),
    /// Its caller was removed while it runs: the result is dropped.
    Orphaned,
    Replying(Option<T>, Option<(R, usize)>),
    Kept(Option<R>),
}

impl<J, T, R: Clone> Cache<J, T, R> {
    pub(crate) const fn new(limits: Limits) -> Self {
        Self {
            limits,
            entries: BTreeMap::new(),
            queue: VecDeque::new(),
            held: BTreeMap::new(),
            running: 0,
            request_bytes: 0,
            kept: VecDeque::new(),
            without_reply: 0,
            reply_bytes: 0,
            waiting_bytes: 0,
            evicted: Vec::new(),
            stopped: false,
        }
    }

    /// Handles the arrival of a request. `Some` if it has arrived before: it does not run again.
    pub(crate) fn handle_repeat(&mut self, now: Instant, key: &RequestKey) -> Option<Known<R>> {
        self.handle_timeout(now);
        let entry = self.entries.get_mut(key)?;
        Some(match &entry.state {
            State::Queued(..) | State::Running(_) | State::Replying(..) => Known::InProgress,
            State::Orphaned => {
                entry.state = State::Running(None);
                self.held.entry(key.0.clone()).or_default().count += 1;
                Known::InProgress
            }
            State::Kept(Some(reply)) => Known::Answer(reply.clone()),
            State::Kept(None) => Known::Gone,
        })
    }

    /// Handles a request of `bytes` that is [new](Self::handle_repeat).
    pub(crate) fn admit(
        &mut self,
        key: RequestKey,
        history: History,
        (work, bytes): (J, usize),
        token: T,
    ) -> Admission {
        if self.stopped {
            return Admission::Stopped;
        }
        if history == History::MayHaveRun {
            return Admission::Forgotten;
        }
        let total = self.request_bytes.saturating_add(bytes);
        let places = self.limits.queued.saturating_add(self.concurrent());
        let of_caller = self.held.get(&key.0).map_or(0, |held| held.count);
        let has_bytes = self.request_bytes == 0 || total <= self.limits.request_bytes;
        if self.queue.len() + self.running >= places
            || of_caller >= self.limits.per_caller
            || !has_bytes
            || self.entries.contains_key(&key)
        {
            return Admission::Busy;
        }
        self.request_bytes = total;
        let held = self.held.entry(key.0.clone()).or_default();
        held.count += 1;
        let is_early = held.unsettled.saturating_add(bytes) > self.limits.unsettled_bytes;
        let (token, unsettled, admission) = if is_early {
            (None, 0, Admission::QueuedSettled)
        } else {
            (Some(token), bytes, Admission::Queued)
        };
        held.unsettled += unsettled;
        self.queue.push_back(key.clone());
        let entry = Entry {
            bytes,
            unsettled,
            state: State::Queued(work, token),
        };
        self.entries.insert(key, entry);
        admission
    }

    /// The next request to run, while fewer than the limit do. Each request is returned once.
    pub(crate) fn poll_start(&mut self) -> Option<(RequestKey, J)> {
        if self.running >= self.concurrent() {
            return None;
        }
        let key = self.queue.pop_front()?;
        let mut entry = self.entries.remove(&key)?;
        let work = match entry.state {
            State::Queued(work, token) => {
                entry.state = State::Running(token);
                self.running += 1;
                Some(work)
            }
            other => {
                entry.state = other;
                None
            }
        };
        self.entries.insert(key.clone(), entry);
        Some((key, work?))
    }

    /// Whether there is room for a reply of these bytes beside those that wait. One may exceed it.
    pub(crate) const fn has_room(&self, bytes: usize) -> bool {
        let total = self.waiting_bytes.saturating_add(bytes);
        self.waiting_bytes == 0 || total <= self.limits.waiting_bytes
    }

    /// A request has run. Its place is free for another, while `reply`, of these bytes, is handed to
    /// the outbox. Returns `false` if there is nothing to reply to: the caller was removed.
    pub(crate) fn finish(&mut self, key: &RequestKey, reply: Option<(R, usize)>) -> bool {
        let Some(entry) = self.entries.get_mut(key) else {
            return false;
        };
        let is_expected = match &mut entry.state {
            State::Running(token) => {
                self.waiting_bytes += reply.as_ref().map_or(0, |(_, bytes)| *bytes);
                entry.state = State::Replying(token.take(), reply);
                true
            }
            State::Orphaned => {
                self.evicted.extend(reply.map(|(reply, _)| reply));
                false
            }
            State::Queued(..) | State::Replying(..) | State::Kept(_) => return false,
        };
        self.running -= 1;
        self.request_bytes -= mem::take(&mut entry.bytes);
        if !is_expected {
            self.entries.remove(key);
        }
        is_expected
    }

    /// The reply of a request is in the outbox, or is not sent at all. Returns the token that is to be
    /// settled: `Some` unless it was before.
    pub(crate) fn release(&mut self, now: Instant, key: &RequestKey) -> Option<T> {
        let entry = self.entries.get_mut(key)?;
        let token = match mem::replace(&mut entry.state, State::Kept(None)) {
            State::Replying(token, reply) => {
                self.waiting_bytes -= reply.as_ref().map_or(0, |(_, bytes)| *bytes);
                match reply {
                    Some((reply, bytes)) if bytes <= self.limits.reply_bytes => {
                        entry.bytes = bytes;
                        entry.state = State::Kept(Some(reply));
                    }
                    reply => self.evicted.extend(reply.map(|(reply, _)| reply)),
                }
                token
            }
            other => {
                entry.state = other;
                return None;
            }
        };
        self.reply_bytes += entry.bytes;
        let unsettled = mem::take(&mut entry.unsettled);
        self.release_place(&key.0, unsettled);
        self.kept.push_back((now, key.clone()));
        self.evict();
        token
    }

    /// Forgets a caller: its waiting requests do not run, its replies are dropped. A handler that runs
    /// goes on, and its result is dropped.
    pub(crate) fn handle_removed(&mut self, name: &PeerName) -> Removed<J, T> {
        let from = (name.clone(), RequestId::MIN);
        let entries = self.entries.range(from..);
        let of_name = entries.take_while(|((caller, _), _)| caller == name);
        let keys: Vec<RequestKey> = of_name.map(|(key, _)| key.clone()).collect();
        self.queue.retain(|(caller, _)| caller != name);
        let without_reply = self.kept.iter().take(self.without_reply);
        self.without_reply -= without_reply.filter(|(_, key)| key.0 == *name).count();
        self.kept.retain(|(_, (caller, _))| caller != name);
        self.held.remove(name);
        let mut removed = Removed {
            tokens: Vec::new(),
            works: Vec::new(),
        };
        for key in keys {
            let (work, token) = self.remove(&key);
            removed.works.extend(work);
            removed.tokens.extend(token);
        }
        removed
    }

    /// Removes the requests that wait, without settling them, and refuses further ones. Returns the
    /// work that does not run.
    pub(crate) fn stop(&mut self) -> Vec<J> {
        self.stopped = true;
        let mut callers: Vec<_> = self.entries.keys().map(|(name, _)| name.clone()).collect();
        callers.dedup();
        let removed = callers.iter().map(|name| self.handle_removed(name));
        removed.flat_map(|removed| removed.works).collect()
    }

    /// The time from which a reply is kept no longer.
    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        let (since, _) = self.kept.front()?;
        Some(*since + self.limits.reply_time)
    }

    /// Drops the replies that are kept no longer.
    pub(crate) fn handle_timeout(&mut self, now: Instant) {
        while self.poll_timeout().is_some_and(|at| at <= now) {
            self.forget_oldest();
        }
    }

    /// Takes the replies that are kept no longer.
    #[must_use]
    pub(crate) fn take_evicted(&mut self) -> Vec<R> {
        mem::take(&mut self.evicted)
    }

    /// The handlers that run.
    pub(crate) const fn running(&self) -> usize {
        self.running
    }

    /// The requests that wait.
    pub(crate) fn queued(&self) -> usize {
        self.queue.len()
    }

    /// The requests that are remembered after their end.
    pub(crate) fn kept(&self) -> usize {
        self.kept.len()
    }

    /// Returns whether nothing is left but `kept` requests with this many bytes of replies.
    #[cfg(test)]
    pub(crate) fn holds_only(&self, kept: usize, reply_bytes: usize) -> bool {
        self.entries.len() == kept
            && self.kept.len() == kept
            && self.reply_bytes == reply_bytes
            && self.queue.is_empty()
            && self.held.is_empty()
            && self.running == 0
            && self.request_bytes == 0
            && self.waiting_bytes == 0
    }

    fn concurrent(&self) -> usize {
        self.limits.concurrent.max(1)
    }

    /// Removes an entry that is in no other collection any more. One that runs stays until its end.
    fn remove(&mut self, key: &RequestKey) -> (Option<J>, Option<T>) {
        let Some(mut entry) = self.entries.remove(key) else {
            return (None, None);
        };
        match entry.state {
            State::Running(_) | State::Orphaned => {
                let state = mem::replace(&mut entry.state, State::Orphaned);
                entry.unsettled = 0;
                self.entries.insert(key.clone(), entry);
                match state {
                    State::Running(token) => (None, token),
                    _ => (None, None),
                }
            }
            State::Queued(work, token) => {
                self.request_bytes -= entry.bytes;
                (Some(work), token)
            }
            State::Replying(token, reply) => {
                self.waiting_bytes -= reply.as_ref().map_or(0, |(_, bytes)| *bytes);
                self.evicted.extend(reply.map(|(reply, _)| reply));
                (None, token)
            }
            State::Kept(reply) => {
                self.evicted.extend(reply);
                self.reply_bytes -= entry.bytes;
                (None, None)
            }
        }
    }

    fn release_place(&mut self, caller: &PeerName, unsettled: usize) {
        if let Some(held) = self.held.get_mut(caller) {
            held.count -= 1;
            held.unsettled -= unsettled;
            if held.count == 0 {
                self.held.remove(caller);
            }
        }
    }

    /// Holds the bounds of number and bytes.
    fn evict(&mut self) {
        while self.kept.len() > self.limits.replies {
            self.forget_oldest();
        }
        while self.reply_bytes > self.limits.reply_bytes {
            let Some((_, key)) = self.kept.get(self.without_reply) else {
                break;
            };
            self.without_reply += 1;
            if let Some(entry) = self.entries.get_mut(key) {
                self.reply_bytes -= mem::take(&mut entry.bytes);
                if let State::Kept(reply) = mem::replace(&mut entry.state, State::Kept(None)) {
                    self.evicted.extend(reply);
                }
            }
        }
    }

    fn forget_oldest(&mut self) {
        if let Some((_, key)) = self.kept.pop_front() {
            self.without_reply = self.without_reply.saturating_sub(1);
            let _nothing = self.remove(&key);
        }
    }
}
