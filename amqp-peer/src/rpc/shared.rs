//! The state of calls, shared by handles, handlers and the task of the peer.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    task::{Poll, Waker},
};

use amqp_core::{Instant, wire::ShortStr};

use super::{
    Errors,
    cache::{Admission, Cache, History, Known, Removed, RequestId, RequestKey},
    calls::{CallRefused, Calls, NoReply},
    limits::Limits,
    objects::{Kind, Method, Methods, Objects},
    port::{Event, Port},
    run::{Work, run},
    stats::Stats,
    wire::{self, CallId, Fault, Incoming, Reply, Request},
};
use crate::{
    cause::{DropReason, SendError},
    event::{Dropped, Received, Sender, Token},
    message::{Message, MessageId},
    name::PeerName,
};

/// The calls of a peer, in both directions.
///
/// The lock is held across no call of the peer and no code of the application. Wakers are woken and
/// dropped without it.
pub(crate) struct Shared {
    pub(crate) port: Arc<dyn Port>,
    state: Mutex<State>,
    /// The first half of the ids of calls, random per process.
    seed: u64,
    next: AtomicU64,
}

pub(crate) struct State {
    pub(crate) calls: Calls<Reply>,
    pub(crate) cache: Cache<Work, Token, Message>,
    pub(crate) objects: Objects,
    pub(crate) errors: Errors,
    /// The tasks that wait for the results of calls.
    callers: BTreeMap<CallId, Waker>,
    /// The tasks that run handlers, to be woken at the stop.
    runs: BTreeMap<RequestKey, Waker>,
    /// The replies that wait for room outside of the cache, by caller.
    answering: BTreeMap<PeerName, usize>,
    per_caller: usize,
    /// Requests that have their turn are being started.
    is_starting: bool,
    is_stopped: bool,
    /// The task of the peer, while it sleeps, and the deadline that it knows.
    task: Option<Waker>,
    alarm: Option<Instant>,
    /// The requests that were refused without a reply.
    pub(crate) refused: u64,
}

impl Shared {
    pub(crate) fn new(port: Arc<dyn Port>, limits: Limits, seed: u64) -> Arc<Self> {
        Arc::new(Self {
            port,
            state: Mutex::new(State {
                calls: Calls::new(limits),
                cache: Cache::new(limits),
                objects: Objects::default(),
                errors: Errors::default(),
                callers: BTreeMap::new(),
                runs: BTreeMap::new(),
                answering: BTreeMap::new(),
                per_caller: limits.per_caller.max(1),
                is_starting: false,
                is_stopped: false,
                task: None,
                alarm: None,
                refused: 0,
            }),
            seed,
            next: AtomicU64::new(0),
        })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // No critical section panics. If one did, the state would still be the best there is.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs `act` under the lock, and wakes the tasks that it concerns.
    pub(crate) fn with<T>(&self, act: impl FnOnce(&mut State) -> T) -> T {
        let mut wakes = Vec::new();
        let mut state = self.lock();
        let result = act(&mut state);
        let evicted = state.cache.take_evicted();
        while let Some(id) = state.calls.poll_ended() {
            wakes.extend(state.callers.remove(&id));
        }
        let due = state.poll_timeout();
        if due.is_some_and(|due| state.alarm.is_none_or(|alarm| due < alarm)) {
            wakes.extend(state.task.take());
        }
        drop(state);
        wakes.into_iter().for_each(Waker::wake);
        drop(evicted);
        result
    }

    /// Registers a call, for a request of these bytes that is sent next.
    pub(crate) fn register(
        &self,
        to: &PeerName,
        bytes: usize,
        deadline: Option<Instant>,
        id: CallId,
    ) -> Result<(), CallRefused> {
        self.with(|state| state.calls.insert(id, to, bytes, deadline))
    }

    /// An id that no other call of any process has.
    pub(crate) fn next_id(&self) -> CallId {
        let number = self.next.fetch_add(1, Relaxed);
        let mut bytes = [0; 16];
        let (seed, rest) = bytes.split_at_mut(8);
        seed.copy_from_slice(&self.seed.to_be_bytes());
        rest.copy_from_slice(&number.to_be_bytes());
        MessageId::from_bytes(bytes)
    }

    /// Ready with the outcome of a call.
    pub(crate) fn poll_outcome(&self, id: CallId, waker: &Waker) -> Poll<Result<Reply, NoReply>> {
        let waker = waker.clone();
        let mut state = self.lock();
        if let Some(outcome) = state.calls.take(id) {
            drop(state);
            return Poll::Ready(outcome);
        }
        let replaced = state.callers.insert(id, waker);
        drop(state);
        drop(replaced);
        Poll::Pending
    }

    /// Drops a call.
    pub(crate) fn forget(&self, id: CallId) {
        let mut state = self.lock();
        state.calls.remove(id);
        let waker = state.callers.remove(&id);
        drop(state);
        drop(waker);
    }

    /// Registers the task of a handler for the stop. Returns `false` after that.
    pub(crate) fn register_run(&self, key: &RequestKey, waker: &Waker) -> bool {
        let waker = waker.clone();
        let mut state = self.lock();
        let replaced = if state.is_stopped {
            Some(waker)
        } else {
            state.runs.insert(key.clone(), waker)
        };
        let is_running = !state.is_stopped;
        drop(state);
        drop(replaced);
        is_running
    }

    pub(crate) fn unregister_run(&self, key: &RequestKey) {
        let waker = self.lock().runs.remove(key);
        drop(waker);
    }

    /// Registers the task of the peer. Returns the time for [`handle_timeout`](Self::handle_timeout).
    pub(crate) fn register_task(&self, waker: &Waker) -> Option<Instant> {
        let waker = waker.clone();
        let mut state = self.lock();
        let due = state.poll_timeout();
        state.alarm = due;
        let replaced = state.task.replace(waker);
        drop(state);
        drop(replaced);
        due
    }

    pub(crate) fn handle_timeout(&self, now: Instant) {
        self.with(|state| {
            state.alarm = None;
            state.calls.handle_timeout(now);
            state.cache.handle_timeout(now);
        });
    }

    /// Ends all calls, and drops the objects. The handlers that run are dropped.
    pub(crate) fn stop(&self) {
        let (objects, runs, works) = self.with(|state| {
            state.is_stopped = true;
            state.calls.stop();
            let works = state.cache.stop();
            (
                std::mem::take(&mut state.objects),
                std::mem::take(&mut state.runs),
                works,
            )
        });
        runs.into_values().for_each(Waker::wake);
        drop((objects, works));
    }

    pub(crate) fn remove_object(&self, name: &str) -> Option<Methods> {
        self.with(|state| state.objects.remove(name))
    }

    pub(crate) fn stats(&self) -> Stats {
        let state = self.lock();
        Stats {
            calls: state.calls.len(),
            running: state.cache.running(),
            queued: state.cache.queued(),
            kept: state.cache.kept(),
            late: state.calls.late(),
            forged: state.calls.forged(),
            refused: state.refused,
        }
    }

    pub(crate) fn handle_event(self: &Arc<Self>, event: Event) {
        match event {
            Event::Received(received) => self.handle_received(received),
            Event::Dropped(dropped) => self.handle_dropped(dropped),
            Event::Up(name) => self.with(|state| state.calls.handle_up(&name)),
            Event::Down(name) => self.with(|state| state.calls.handle_down(&name)),
        }
    }

    /// Ends all that concerns a peer.
    pub(crate) fn handle_removed(&self, name: &PeerName) {
        let Removed { tokens, works } = self.with(|state| {
            state.calls.handle_removed(name);
            state.cache.handle_removed(name)
        });
        tokens.into_iter().for_each(|token| self.port.settle(token));
        drop(works);
    }

    fn handle_received(self: &Arc<Self>, received: Received) {
        let Received {
            from,
            id,
            message,
            token,
            is_repeated,
        } = received;
        let bytes = message.memory();
        match (from, wire::parse(message)) {
            (Sender::Peer(from), Incoming::Reply(id, reply)) => {
                self.with(|state| state.calls.handle_reply(&from, id, reply));
                self.port.settle(token);
            }
            (Sender::Peer(from), Incoming::Request(call, request)) => {
                let key = (from, call.map_or(RequestId::Signal(id), RequestId::Call));
                self.handle_request(key, call, (request, bytes), is_repeated, token);
            }
            (Sender::Client { .. }, _) | (_, Incoming::Malformed) => {
                self.with(|state| state.refused += 1);
                self.port.settle(token);
            }
        }
    }

    fn handle_request(
        self: &Arc<Self>,
        key: RequestKey,
        call: Option<CallId>,
        (request, bytes): (Request, usize),
        is_repeated: bool,
        token: Token,
    ) {
        let now = self.port.now();
        let (content_type, ttl) = (request.content_type.clone(), request.ttl);
        let to = key.0.clone();
        let names = (&*request.object, &*request.method);
        self.port.trace().request(&to, names, call.is_some());
        let disposition = self.with(|state| {
            if let Some(known) = state.cache.handle_repeat(now, &key) {
                return Disposition::Known(known);
            }
            let found = state.objects.find(&request.object, &request.method);
            let method = match found {
                Ok(method) if (method.kind == Kind::Signal) == call.is_none() => method,
                Ok(_) => return Disposition::Refused(Fault::WrongKind.of_request(is_repeated)),
                Err(fault) => return Disposition::Refused(fault.of_request(is_repeated)),
            };
            let history = match (is_repeated, method.kind) {
                (false, _) => History::New,
                (true, Kind::Idempotent) => History::Repeatable,
                // Its sender says so of each that it has from its storage. Those that were accepted
                // do not come here: the links drop them.
                (true, Kind::Signal) if request.is_stored => History::Repeatable,
                (true, Kind::Method | Kind::Signal) => History::MayHaveRun,
            };
            let work = Work {
                call,
                method,
                request,
                arrived: now,
                may_have_run: is_repeated,
            };
            match state.cache.admit(key, history, (work, bytes), token) {
                Admission::Queued => Disposition::Queued,
                Admission::QueuedSettled => Disposition::QueuedSettled,
                Admission::Forgotten => Disposition::Refused(Fault::Forgotten),
                Admission::Busy => Disposition::Refused(Fault::Busy.of_request(is_repeated)),
                Admission::Stopped => Disposition::Stopped,
            }
        });
        match disposition {
            Disposition::Queued => self.start_ready(),
            Disposition::QueuedSettled => {
                self.port.settle(token);
                self.start_ready();
            }
            // The next process of this peer gets it.
            Disposition::Stopped => {}
            Disposition::Known(Known::InProgress) => self.port.settle(token),
            Disposition::Known(Known::Answer(message)) => {
                self.answer(to, message, Some(token));
            }
            Disposition::Known(Known::Gone) => {
                self.refuse(to, call, (content_type, Fault::Forgotten), ttl, token);
            }
            Disposition::Refused(fault) => {
                self.refuse(to, call, (content_type, fault), ttl, token);
            }
        }
    }

    /// Refuses a request: with an error if it is a call.
    fn refuse(
        self: &Arc<Self>,
        to: PeerName,
        call: Option<CallId>,
        (content_type, fault): (ShortStr, Fault),
        ttl: Option<std::time::Duration>,
        token: Token,
    ) {
        self.port.trace().request_refused(&to, fault.name());
        if let Some(id) = call {
            let reply = Reply {
                content_type,
                result: Err(fault),
            };
            self.answer(to, wire::reply(id, reply, ttl), Some(token));
        } else {
            self.with(|state| state.refused += 1);
            self.port.settle(token);
        }
    }

    /// Sends a reply that is known, and settles its request then. A task waits for room in the outbox
    /// if need be; there are so many at a time as a caller may have requests. Beyond, the reply is
    /// dropped, and the call ends by its time limit.
    fn answer(self: &Arc<Self>, to: PeerName, reply: Message, token: Option<Token>) {
        let sent = self.port.try_send(&to, reply.clone());
        let is_full = matches!(
            sent,
            Err(SendError::Full { .. } | SendError::TooManyReceivers { .. })
        );
        if is_full && self.with(|state| state.begin_answer(&to)) {
            let answering = Answering(Arc::clone(self), to);
            self.port.spawn(Box::pin(async move {
                let Answering(shared, to) = &answering;
                let sent = shared.port.send(to, reply).await;
                if let (Some(token), false) = (token, sent == Err(SendError::Stopped)) {
                    shared.port.settle(token);
                }
            }));
        } else if let Some(token) = token {
            self.port.settle(token);
        }
    }

    /// Starts the requests that have their turn.
    pub(crate) fn start_ready(self: &Arc<Self>) {
        // A task that is dropped as it is spawned, at the stop, comes here again.
        if self.with(|state| std::mem::replace(&mut state.is_starting, true)) {
            return;
        }
        while let Some((key, work)) = self.with(|state| {
            let started = state.cache.poll_start();
            state.is_starting = started.is_some();
            started
        }) {
            self.port.spawn(Box::pin(run(Arc::clone(self), key, work)));
        }
    }

    fn handle_dropped(self: &Arc<Self>, dropped: Dropped) {
        let Dropped {
            to,
            message,
            reason,
            was_sent,
            ..
        } = dropped;
        match wire::parse(message) {
            Incoming::Request(Some(id), _) => {
                let reason = match (reason, was_sent) {
                    (DropReason::Expired, false) => NoReply::NotConnected,
                    (DropReason::Expired, true) => NoReply::Partial,
                    (DropReason::Removed, _) => NoReply::Removed,
                    (DropReason::Stopped, _) => NoReply::Stopped,
                    (DropReason::TooLarge, _) => NoReply::TooLarge,
                };
                self.with(|state| state.calls.handle_dropped(id, reason));
            }
            Incoming::Reply(id, reply) if reason == DropReason::TooLarge => {
                let reply = Reply {
                    content_type: reply.content_type,
                    result: Err(Fault::TooLarge),
                };
                self.answer(to, wire::reply(id, reply, None), None);
            }
            Incoming::Request(None, _) | Incoming::Reply(..) | Incoming::Malformed => {}
        }
    }
}

/// What is done with a request that has arrived.
enum Disposition {
    Queued,
    QueuedSettled,
    Known(Known<Message>),
    Refused(Fault),
    Stopped,
}

/// The place of a reply that waits for room.
struct Answering(Arc<Shared>, PeerName);

impl Drop for Answering {
    fn drop(&mut self) {
        self.0.with(|state| state.end_answer(&self.1));
    }
}

impl State {
    /// Adds an object, unless the peer was stopped.
    pub(super) fn add_object(&mut self, name: &str) {
        if !self.is_stopped {
            self.objects.add(name);
        }
    }

    /// Adds a method. Returns the one that is not needed: the one that it replaces, or itself after the
    /// stop.
    pub(super) fn insert_method(
        &mut self,
        object: &str,
        name: &str,
        method: Arc<Method>,
    ) -> Option<Arc<Method>> {
        if self.is_stopped {
            return Some(method);
        }
        self.objects.insert(object, name, method)
    }

    fn begin_answer(&mut self, to: &PeerName) -> bool {
        let count = self.answering.entry(to.clone()).or_default();
        let has_place = *count < self.per_caller;
        if has_place {
            *count += 1;
        }
        has_place
    }

    fn end_answer(&mut self, to: &PeerName) {
        if let Some(count) = self.answering.get_mut(to) {
            *count -= 1;
            if *count == 0 {
                self.answering.remove(to);
            }
        }
    }

    fn poll_timeout(&self) -> Option<Instant> {
        let dues = [self.calls.poll_timeout(), self.cache.poll_timeout()];
        dues.into_iter().flatten().min()
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let stats = self.stats();
        f.debug_struct("Rpc")
            .field("stats", &stats)
            .finish_non_exhaustive()
    }
}
