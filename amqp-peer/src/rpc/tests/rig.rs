//! Peers without sockets: calls over outboxes that the test moves, under virtual time.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    future::Future,
    mem,
    pin::Pin,
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    task::{Context, Poll, Wake, Waker},
    time::Duration,
};

use amqp_core::Instant;
use amqp_driver::io::{Clock, Timer};

use crate::{
    cause::{DropReason, SendError},
    event::{Dropped, Received, Sender, Token},
    message::{Message, MessageId},
    name::PeerName,
    rpc::{
        Limits, Rpc,
        port::{BoxFuture, Event, Port, ttl_until},
    },
    trace::Trace,
};

pub(super) fn name(name: &str) -> PeerName {
    name.parse().unwrap()
}

pub(super) const fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

/// The world: peers, the links between them, the time, and the tasks.
pub(super) struct World {
    now: Arc<Mutex<Time>>,
    nodes: BTreeMap<PeerName, Arc<Node>>,
    rpcs: BTreeMap<PeerName, Rpc>,
    up: BTreeSet<(PeerName, PeerName)>,
    tasks: Vec<Option<Task>>,
    pub(super) limits: Limits,
    /// The messages that an outbox takes.
    pub(super) room: usize,
    processes: u64,
    /// The persistent messages of processes that were killed.
    stored: BTreeMap<PeerName, BTreeMap<PeerName, VecDeque<Out>>>,
}

#[derive(Default)]
struct Time {
    now: Duration,
    alarms: Vec<(Instant, Waker)>,
}

/// A task: its peer, its future, and whether it was woken.
type Task = (PeerName, BoxFuture<'static, ()>, Arc<Flag>);

struct Flag(AtomicBool);

impl Wake for Flag {
    fn wake(self: Arc<Self>) {
        self.0.store(true, SeqCst);
    }
}

#[derive(Default)]
struct State {
    out: BTreeMap<PeerName, VecDeque<Out>>,
    events: VecDeque<Event>,
    waker: Option<Waker>,
    spawned: Vec<BoxFuture<'static, ()>>,
    /// The messages that were given to the application, by token: sender and id.
    given: BTreeMap<u64, (PeerName, MessageId)>,
    /// The acknowledgements that are under way.
    acks: Vec<(PeerName, MessageId)>,
    /// The tasks that wait for room.
    room: Vec<Waker>,
    next: u64,
    capacity: usize,
    stopped: bool,
    /// Sends of requests do not end.
    makes_way: bool,
    /// Tasks are dropped when they are spawned.
    drops_tasks: bool,
}

struct Out {
    id: MessageId,
    message: Message,
    /// The process of the receiver that has it.
    sent_to: Option<u64>,
    pushed: Duration,
}

pub(super) struct Node {
    name: PeerName,
    process: u64,
    now: Arc<Mutex<Time>>,
    state: Mutex<State>,
    trace: Trace,
}

impl Node {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    fn give(&self, event: Event) {
        let mut state = self.lock();
        state.events.push_back(event);
        let waker = state.waker.take();
        drop(state);
        waker.into_iter().for_each(Waker::wake);
    }
}

impl Port for Node {
    fn trace(&self) -> &Trace {
        &self.trace
    }

    fn now(&self) -> Instant {
        Instant::from_origin(self.now.lock().unwrap().now)
    }

    fn send<'a>(
        &'a self,
        to: &'a PeerName,
        message: Message,
    ) -> BoxFuture<'a, Result<MessageId, SendError>> {
        let mut message = Some(message);
        Box::pin(std::future::poll_fn(move |cx| {
            let sent = self.try_send(to, message.clone().unwrap());
            if let Err(SendError::Full { .. }) = sent {
                self.lock().room.push(cx.waker().clone());
                return Poll::Pending;
            }
            message = None;
            Poll::Ready(sent)
        }))
    }

    fn send_request<'a>(
        &'a self,
        to: &'a PeerName,
        message: Message,
        deadline: Option<Instant>,
        is_sent: &'a AtomicBool,
    ) -> BoxFuture<'a, Result<MessageId, SendError>> {
        let mut id = None;
        Box::pin(std::future::poll_fn(move |cx| {
            if let Some(id) = id {
                return Poll::Ready(Ok(id));
            }
            let message = message.clone().ttl(ttl_until(deadline, self.now()));
            let sent = self.try_send(to, message);
            if let Err(SendError::Full { .. }) = sent {
                self.lock().room.push(cx.waker().clone());
                return Poll::Pending;
            }
            is_sent.store(sent.is_ok(), SeqCst);
            if sent.is_ok() && self.lock().makes_way {
                id = sent.ok();
                return Poll::Pending;
            }
            Poll::Ready(sent)
        }))
    }

    fn try_send(&self, to: &PeerName, message: Message) -> Result<MessageId, SendError> {
        let pushed = self.now.lock().unwrap().now;
        let mut state = self.lock();
        if state.stopped {
            return Err(SendError::Stopped);
        }
        if message.body.len() > 1 << 20 {
            let (len, limit) = (message.body.len() as u64, 1 << 20);
            return Err(SendError::TooLarge { len, limit });
        }
        let (capacity, next) = (state.capacity, state.next);
        let queue = state.out.entry(to.clone()).or_default();
        if queue.len() >= capacity {
            let (messages, bytes) = (queue.len(), 0);
            let to = to.clone();
            return Err(SendError::Full {
                to,
                messages,
                bytes,
            });
        }
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&self.process.to_be_bytes());
        bytes[8..].copy_from_slice(&next.to_be_bytes());
        let id = MessageId::from_bytes(bytes);
        queue.push_back(Out {
            id,
            message,
            sent_to: None,
            pushed,
        });
        state.next += 1;
        Ok(id)
    }

    fn settle(&self, token: Token) {
        let mut state = self.lock();
        if !state.stopped
            && let Some(message) = state.given.remove(&token.number)
        {
            state.acks.push(message);
        }
    }

    fn requeue(&self, token: Token) {
        self.lock().given.remove(&token.number);
    }

    fn spawn(&self, task: BoxFuture<'static, ()>) {
        if self.lock().drops_tasks {
            drop(task);
        } else {
            self.lock().spawned.push(task);
        }
    }

    fn poll_event(&self, cx: &mut Context<'_>) -> Poll<Option<Event>> {
        let mut state = self.lock();
        if let Some(event) = state.events.pop_front() {
            return Poll::Ready(Some(event));
        }
        if state.stopped {
            return Poll::Ready(None);
        }
        state.waker = Some(cx.waker().clone());
        Poll::Pending
    }
}

struct FakeClock(Arc<Mutex<Time>>);

impl Timer for FakeClock {
    fn now(&self) -> Instant {
        Instant::from_origin(self.0.lock().unwrap().now)
    }

    fn clock(&self) -> Clock {
        let time = Arc::clone(&self.0);
        Arc::new(move || Instant::from_origin(time.lock().unwrap().now))
    }

    fn poll_deadline(&mut self, cx: &mut Context<'_>, at: Option<Instant>) -> Poll<()> {
        let Some(at) = at else {
            return Poll::Pending;
        };
        let mut time = self.0.lock().unwrap();
        if Instant::from_origin(time.now) >= at {
            return Poll::Ready(());
        }
        time.alarms.push((at, cx.waker().clone()));
        Poll::Pending
    }
}

/// The result of a future that the world runs.
pub(super) struct Outcome<T>(Arc<Mutex<Option<T>>>);

impl<T> Outcome<T> {
    /// Takes the result, once it is there.
    pub(super) fn take(&self) -> Option<T> {
        self.0.lock().unwrap().take()
    }
}

impl World {
    pub(super) fn new() -> Self {
        Self {
            now: Arc::default(),
            nodes: BTreeMap::new(),
            rpcs: BTreeMap::new(),
            up: BTreeSet::new(),
            tasks: Vec::new(),
            limits: Limits::default(),
            room: 10_000,
            processes: 0,
            stored: BTreeMap::new(),
        }
    }

    /// A world of alice and bob, with a link.
    pub(super) fn pair() -> (Self, Rpc, Rpc) {
        let mut world = Self::new();
        let (alice, bob) = (world.start("alice"), world.start("bob"));
        world.connect("alice", "bob");
        (world, alice, bob)
    }

    /// Starts a process of a peer.
    pub(super) fn start(&mut self, peer: &str) -> Rpc {
        self.processes += 1;
        let node = Arc::new(Node {
            name: name(peer),
            trace: Trace::new(&name(peer)),
            process: self.processes,
            now: Arc::clone(&self.now),
            state: Mutex::new(State {
                capacity: self.room,
                out: self.stored.remove(&name(peer)).unwrap_or_default(),
                ..State::default()
            }),
        });
        let clock = FakeClock(Arc::clone(&self.now));
        let (rpc, task) = Rpc::new(
            Arc::clone(&node) as Arc<dyn Port>,
            self.limits,
            self.processes,
            clock,
        );
        self.nodes.insert(name(peer), node);
        self.rpcs.insert(name(peer), rpc.clone());
        self.add(name(peer), Box::pin(task));
        self.run();
        rpc
    }

    fn add(&mut self, owner: PeerName, task: BoxFuture<'static, ()>) {
        let flag = Arc::new(Flag(AtomicBool::new(true)));
        self.tasks.push(Some((owner, task, flag)));
    }

    /// Runs a future of the process of a peer.
    pub(super) fn spawn<T: Send + 'static>(
        &mut self,
        peer: &str,
        future: impl Future<Output = T> + Send + 'static,
    ) -> Outcome<T> {
        let outcome = Arc::new(Mutex::new(None));
        let place = Arc::clone(&outcome);
        let task = async move {
            let result = future.await;
            *place.lock().unwrap() = Some(result);
        };
        self.add(name(peer), Box::pin(task));
        self.run();
        Outcome(outcome)
    }

    pub(super) fn connect(&mut self, one: &str, other: &str) {
        for (from, to) in [(one, other), (other, one)] {
            if self.up.insert((name(from), name(to))) {
                self.nodes[&name(from)].give(Event::Up(name(to)));
            }
        }
        self.run();
    }

    pub(super) fn cut(&mut self, one: &str, other: &str) {
        for (from, to) in [(one, other), (other, one)] {
            if self.up.remove(&(name(from), name(to))) {
                self.nodes[&name(from)].give(Event::Down(name(to)));
            }
        }
        self.run();
    }

    /// Ends the process of a peer without any farewell. Acknowledgements under way are lost.
    pub(super) fn kill(&mut self, peer: &str) {
        let others: Vec<PeerName> = self.nodes.keys().cloned().collect();
        for other in others {
            self.cut(peer, other.as_str());
        }
        for task in &mut self.tasks {
            if task
                .as_ref()
                .is_some_and(|(owner, ..)| *owner == name(peer))
            {
                // The memory of a process that is killed is not dropped in any order.
                mem::forget(task.take());
            }
        }
        if let Some(node) = self.nodes.remove(&name(peer)) {
            let mut out = mem::take(&mut node.lock().out);
            for queue in out.values_mut() {
                queue.retain(|out| out.message.is_persistent);
                // The next process does not know whether it was sent.
                queue.iter_mut().for_each(|out| out.sent_to = Some(0));
            }
            self.stored.insert(name(peer), out);
        }
        self.rpcs.remove(&name(peer));
    }

    /// Stops a peer in good order.
    pub(super) fn stop(&mut self, peer: &str) {
        let node = Arc::clone(&self.nodes[&name(peer)]);
        let mut state = node.lock();
        state.stopped = true;
        let waker = state.waker.take();
        let room = mem::take(&mut state.room);
        drop(state);
        waker.into_iter().chain(room).for_each(Waker::wake);
        self.run();
    }

    /// The sends of requests of a peer do not end.
    pub(super) fn make_way(&self, peer: &str) {
        self.nodes[&name(peer)].lock().makes_way = true;
    }

    /// The tasks that a peer spawns from now on are dropped.
    pub(super) fn drop_tasks(&self, peer: &str, drops: bool) {
        self.nodes[&name(peer)].lock().drops_tasks = drops;
    }

    /// Drops the task that a peer has spawned last.
    pub(super) fn drop_last_task(&mut self, peer: &str) {
        let is_of_peer =
            |task: &Option<Task>| task.as_ref().is_some_and(|task| task.0 == name(peer));
        let last = self.tasks.iter().rposition(is_of_peer).unwrap();
        drop(self.tasks.remove(last));
        self.run();
    }

    /// Fills an outbox with messages that are not delivered.
    pub(super) fn fill(&self, from: &str, to: &str) {
        let mut state = self.nodes[&name(from)].lock();
        let (pushed, capacity) = (self.now.lock().unwrap().now, state.capacity);
        let queue = state.out.entry(name(to)).or_default();
        while queue.len() < capacity {
            queue.push_back(Out {
                id: MessageId::from_bytes([0xff; 16]),
                message: Message::new("in the way"),
                sent_to: self.nodes.get(&name(to)).map(|node| node.process),
                pushed,
            });
        }
    }

    /// Removes a peer from another one.
    pub(super) fn forget(&mut self, at: &str, peer: &str) {
        let node = Arc::clone(&self.nodes[&name(at)]);
        self.rpcs[&name(at)].handle_removed(&name(peer));
        node.lock().out.remove(&name(peer));
        self.run();
    }

    /// Puts a message into an outbox, as it is.
    pub(super) fn inject(&mut self, from: &str, to: &str, message: Message) {
        self.nodes[&name(from)]
            .try_send(&name(to), message)
            .unwrap();
        self.run();
    }

    /// The messages in an outbox that are not acknowledged.
    pub(super) fn outbox(&self, from: &str, to: &str) -> usize {
        let state = self.nodes[&name(from)].lock();
        state.out.get(&name(to)).map_or(0, VecDeque::len)
    }

    /// The received messages that are not settled.
    pub(super) fn unsettled(&self, peer: &str) -> usize {
        self.nodes[&name(peer)].lock().given.len()
    }

    pub(super) fn advance(&mut self, time: Duration) {
        let due = {
            let mut shared = self.now.lock().unwrap();
            shared.now += time;
            let now = Instant::from_origin(shared.now);
            let alarms = mem::take(&mut shared.alarms);
            let (due, later) = alarms.into_iter().partition(|(at, _)| *at <= now);
            shared.alarms = later;
            due
        };
        due.into_iter()
            .for_each(|(_, waker): (_, Waker)| waker.wake());
        self.run();
    }

    /// Polls tasks and moves messages until nothing happens.
    pub(super) fn run(&mut self) {
        loop {
            let polled = self.poll_tasks();
            let moved = self.move_messages();
            if !polled && !moved {
                break;
            }
        }
    }

    fn poll_tasks(&mut self) -> bool {
        let mut polled = false;
        let mut at = 0;
        while at < self.tasks.len() {
            if let Some((_, task, flag)) = &mut self.tasks[at]
                && flag.0.swap(false, SeqCst)
            {
                polled = true;
                let waker = Waker::from(Arc::clone(flag));
                if Pin::new(task)
                    .poll(&mut Context::from_waker(&waker))
                    .is_ready()
                {
                    self.tasks[at] = None;
                }
            }
            at += 1;
        }
        for node in self.nodes.values() {
            let spawned = mem::take(&mut node.lock().spawned);
            for task in spawned {
                let flag = Arc::new(Flag(AtomicBool::new(true)));
                self.tasks.push(Some((node.name.clone(), task, flag)));
                polled = true;
            }
        }
        self.tasks.retain(Option::is_some);
        polled
    }

    fn move_messages(&self) -> bool {
        let mut moved = self.expire();
        for (from, to) in &self.up {
            let (Some(sender), Some(receiver)) = (self.nodes.get(from), self.nodes.get(to)) else {
                continue;
            };
            let acks = {
                let mut state = receiver.lock();
                let all = mem::take(&mut state.acks);
                let (acks, others) = all.into_iter().partition(|(of, _)| of == from);
                state.acks = others;
                acks
            };
            let mut state = sender.lock();
            let Some(queue) = state.out.get_mut(to) else {
                continue;
            };
            let acks: Vec<(PeerName, MessageId)> = acks;
            let makes_room = !acks.is_empty();
            for (_, id) in acks {
                moved = true;
                queue.retain(|out| out.id != id);
            }
            let mut given = Vec::new();
            for out in queue.iter_mut() {
                if out.sent_to == Some(receiver.process) {
                    continue;
                }
                given.push((out.id, out.message.clone(), out.sent_to.is_some()));
                out.sent_to = Some(receiver.process);
            }
            let room = if makes_room {
                mem::take(&mut state.room)
            } else {
                Vec::new()
            };
            drop(state);
            room.into_iter().for_each(Waker::wake);
            for (id, message, is_repeated) in given {
                moved = true;
                let mut state = receiver.lock();
                state.next += 1;
                let number = state.next;
                state.given.insert(number, (from.clone(), id));
                drop(state);
                receiver.give(Event::Received(Received {
                    from: Sender::Peer(from.clone()),
                    id,
                    message,
                    token: Token { sender: 0, number },
                    is_repeated,
                }));
            }
        }
        moved
    }

    /// Drops the messages without a link that have expired.
    fn expire(&self) -> bool {
        let now = self.now.lock().unwrap().now;
        let mut expired = Vec::new();
        for (from, node) in &self.nodes {
            for (to, queue) in &mut node.lock().out {
                if self.up.contains(&(from.clone(), to.clone())) {
                    continue;
                }
                let is_over =
                    |out: &Out| out.message.ttl.is_some_and(|ttl| out.pushed + ttl <= now);
                for out in queue.iter().filter(|out| is_over(out)) {
                    expired.push((
                        from.clone(),
                        Dropped {
                            to: to.clone(),
                            id: out.id,
                            message: out.message.clone(),
                            reason: DropReason::Expired,
                            was_sent: out.sent_to.is_some(),
                        },
                    ));
                }
                queue.retain(|out| !is_over(out));
            }
        }
        let any = !expired.is_empty();
        for (from, dropped) in expired {
            self.nodes[&from].give(Event::Dropped(dropped));
            let room = mem::take(&mut self.nodes[&from].lock().room);
            room.into_iter().for_each(Waker::wake);
        }
        any
    }
}
