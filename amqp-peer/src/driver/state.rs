//! What the lock of a peer protects.

use std::{
    collections::{BTreeMap, VecDeque},
    task::Waker,
    time::Duration,
};

use amqp_core::Instant;

use super::{
    connector::{ConnectorId, ConnectorSlot, ConnectorState, Dialed},
    deliver::Deliveries,
    inbox::Inbox,
    listener::{ListenerId, ListenerSlot},
    queue::{Entry, Queue},
    rpc_port::RpcQueue,
    runner::Job,
    shared::{Aftermath, Settled},
    waiters::Waiters,
};
use crate::{
    event::LinkKey,
    machine::{Event, Machine},
    name::PeerName,
    storage::Batch,
    trace,
};

/// The upper bound for the ends of links and listeners, and for storing, when the peer stops.
const CLOSING: Duration = Duration::from_secs(5);

/// The machine, and what waits for it.
#[derive(Debug)]
pub(crate) struct State {
    pub(super) machine: Machine,
    /// The latest time reported by any clock.
    pub(super) now: Instant,
    pub(super) links: BTreeMap<LinkKey, LinkSlot>,
    /// The tasks of links, that of clients of the broker included.
    pub(super) tasks: BTreeMap<LinkKey, LinkTask>,
    pub(super) events: Queue,
    pub(super) deliveries: Deliveries,
    pub(super) rpc: RpcQueue,
    /// The number of events at the front of the machine's that are noted, and wait for room.
    passed: usize,
    /// The sends that wait for room, by receiver.
    pub(super) room: BTreeMap<PeerName, Waiters>,
    /// The number of messages sent since a driver or the application's task has last made way.
    pub(super) sent_in_turn: usize,
    pub(super) connectors: BTreeMap<ConnectorId, ConnectorSlot>,
    pub(super) listeners: BTreeMap<ListenerId, ListenerSlot>,
    /// The links of connectors.
    pub(super) dialed: BTreeMap<LinkKey, Dialed>,
    pub(super) jobs: VecDeque<Job>,
    /// The number of tasks that have not ended, without the keeper.
    pub(super) running: usize,
    pub(super) inbox: Inbox,
    pub(super) store: Store,
    /// The sends that wait until they are stored.
    pub(super) stored: Waiters,
    /// The tasks that wait for a listener's address, or for the end of the peer.
    pub(super) changed: Waiters,
    pub(super) phase: Phase,
    /// The keeper's waker, and the time until which it sleeps.
    pub(super) keeper: Option<Waker>,
    pub(super) alarm: Option<Instant>,
    /// The last number of a listener or connector.
    pub(super) last_number: u64,
    /// A place for the waker of a task that is about to end.
    pub(super) spare: Option<Waker>,
    /// The effects of the changes that are being made.
    pub(super) after: Aftermath,
}

/// The storage's side of the lock.
#[derive(Debug, Default)]
pub(super) struct Store {
    pub(super) thread: StoreThread,
    /// The thread ends when all is stored.
    pub(super) is_ending: bool,
    /// The batch that the thread has not taken. Further changes wait in the machine, where several of
    /// one clock become one.
    pub(super) batch: Option<Batch>,
    /// The last failure. `Some` until a batch is stored.
    pub(super) failure: Option<String>,
    /// The thread's waker, while it sleeps.
    pub(super) waker: Option<Waker>,
}

/// The thread of the storage.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum StoreThread {
    /// There is no storage: changes count as stored at once.
    #[default]
    None,
    Running,
    /// Changes are not stored any more.
    Ended,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    Running,
    /// Links are closed until that time at most, and then aborted.
    Stopping(Instant),
    Stopped,
}

/// The state of a link's driver.
#[derive(Debug)]
pub(super) struct LinkSlot {
    /// The machine has called for the driver since its last `poll_transmit`.
    pub(super) is_dirty: bool,
    /// The last result of `wants_input`.
    pub(super) is_reading: bool,
    /// The driver's waker, while it sleeps.
    pub(super) driver: Option<Waker>,
}

/// The task that drives a link or a client.
#[derive(Debug, Default)]
pub(super) struct LinkTask {
    pub(super) is_aborted: bool,
    pub(super) waker: Option<Waker>,
}

impl State {
    pub(super) fn new(mut machine: Machine, now: Instant) -> Self {
        machine.keep_gone();
        Self {
            machine,
            now,
            links: BTreeMap::new(),
            tasks: BTreeMap::new(),
            events: Queue::default(),
            deliveries: Deliveries::default(),
            rpc: RpcQueue::default(),
            passed: 0,
            room: BTreeMap::new(),
            sent_in_turn: 0,
            connectors: BTreeMap::new(),
            listeners: BTreeMap::new(),
            dialed: BTreeMap::new(),
            jobs: VecDeque::new(),
            running: 0,
            inbox: Inbox::default(),
            store: Store::default(),
            stored: Waiters::default(),
            changed: Waiters::default(),
            phase: Phase::Running,
            keeper: None,
            alarm: None,
            last_number: 0,
            spare: None,
            after: Aftermath::default(),
        }
    }

    /// Advances the clock, and returns its time.
    pub(super) fn advance(&mut self, now: Instant) -> Instant {
        self.now = self.now.max(now);
        self.now
    }

    pub(super) const fn next_number(&mut self) -> u64 {
        self.last_number += 1;
        self.last_number
    }

    pub(super) fn add_link(&mut self, link: LinkKey) {
        let slot = LinkSlot {
            is_dirty: false,
            is_reading: true,
            driver: None,
        };
        self.links.insert(link, slot);
        self.tasks.insert(link, LinkTask::default());
    }

    /// Passes the results of the machine on. Called after every change.
    pub(super) fn collect(&mut self) {
        while self.store.batch.is_none()
            && let Some(batch) = self.machine.poll_changes()
        {
            match self.store.thread {
                StoreThread::Running => {
                    self.store.batch = Some(batch);
                    self.after.wakes.extend(self.store.waker.take());
                }
                StoreThread::Ended => self.after.batches.push(batch),
                StoreThread::None => {
                    self.machine.handle_stored(self.now, batch.id);
                    self.stored.wake_all(&mut self.after.wakes);
                    self.after.batches.push(batch);
                }
            }
        }
        self.machine.take_gone(&mut self.after.messages);
        self.after.notes.delivered(self.machine.take_delivered());
        self.machine.keep_delivered(trace::wants_deliveries());
        self.route();
        while let Some(link) = self.machine.poll_wake() {
            if let Some(slot) = self.links.get_mut(&link) {
                slot.is_dirty = true;
                self.after.wakes.extend(slot.driver.take());
            }
        }
        while let Some(name) = self.machine.poll_room() {
            if let Some(waiters) = self.room.get_mut(&name) {
                waiters.wake_first(&mut self.after.wakes);
            }
        }
        let due = self.machine.poll_timeout();
        if self.is_stopped() {
            self.after.jobs.append(&mut self.jobs);
        }
        if !self.jobs.is_empty()
            || due.is_some_and(|due| self.alarm.is_none_or(|alarm| due < alarm))
        {
            self.after.wakes.extend(self.keeper.take());
        }
    }

    /// Passes the events of the machine on. While the application's queue is full, its events stay
    /// with the machine, and those of deliveries and calls pass by.
    fn route(&mut self) {
        let was_empty = self.events.is_empty();
        loop {
            let has_room = self.events.has_room();
            if has_room && self.passed > 0 {
                self.passed -= 1;
                let passed = self.machine.poll_event();
                let discarded = passed.and_then(|event| self.events.push(Entry::Machine(event)));
                self.after.discarded.extend(discarded);
                continue;
            }
            let Some(event) = self.machine.event(self.passed) else {
                break;
            };
            self.after.notes.event(event);
            let is_elsewhere = self.deliveries.awaits(event) || RpcQueue::awaits(event);
            if !is_elsewhere {
                if matches!(event, Event::Up(_) | Event::Down(_) | Event::Refused(_)) {
                    let event = event.clone();
                    self.rpc.note_link(&event, &mut self.after.wakes);
                    self.note_end(&event);
                }
                self.passed += 1;
                continue;
            }
            let event = self.machine.take_event(self.passed);
            if let Some(event) = event
                && let Some(event) = self.deliveries.note(event, &mut self.after.wakes)
            {
                self.rpc.note(event, &mut self.after.wakes);
            }
        }
        if was_empty && !self.events.is_empty() {
            self.after.wakes.extend(self.events.waker.take());
        }
    }

    /// Adds an event that is not of the machine.
    pub(super) fn push_event(&mut self, entry: Entry) {
        self.after.discarded.extend(self.events.push(entry));
        self.after.wakes.extend(self.events.waker.take());
    }

    /// Notes beginnings and ends of links for the connectors.
    fn note_end(&mut self, event: &Event) {
        match event {
            Event::Up(up) => {
                if let Some(dialed) = self.dialed.get_mut(&up.link) {
                    dialed.handle_up(up.name.clone(), self.now);
                    if let Some(slot) = self.connectors.get_mut(&dialed.connector) {
                        slot.state = ConnectorState::Up(up.name.clone());
                    }
                }
            }
            Event::Down(down) => {
                if let Some(dialed) = self.dialed.get_mut(&down.link) {
                    dialed.handle_end(Some(down.name.clone()), down.cause.clone());
                }
                // Another connector may have waited for the end of that link.
                self.wake_connectors();
            }
            Event::Refused(refused) => {
                if let Some(dialed) = self.dialed.get_mut(&refused.link) {
                    dialed.handle_end(refused.name.clone(), refused.cause.clone());
                    self.wake_connectors();
                }
            }
            _ => {}
        }
    }

    fn wake_connectors(&mut self) {
        let slots = self.connectors.values_mut();
        let wakers = slots.filter_map(|slot| slot.progress.take());
        self.after.wakes.extend(wakers);
    }

    /// Passes the decisions on received messages on.
    pub(super) fn apply(&mut self, settled: Vec<Settled>) {
        for settled in settled {
            match settled {
                Settled::Accepted(token) => self.machine.settle(self.now, token),
                Settled::Requeued(token) => self.machine.requeue(self.now, token),
            }
        }
    }

    /// Removes a link after its transport is closed.
    pub(super) fn remove_link(&mut self, link: LinkKey) {
        let Some(slot) = self.links.remove(&link) else {
            return;
        };
        // Woken rather than dropped: the lock is held.
        self.after.wakes.extend(slot.driver);
        self.machine.remove(link, self.now);
        if let Some(dialed) = self.dialed.get_mut(&link) {
            dialed.handle_removed();
            self.wake_connectors();
        }
    }

    /// Ends a link at once.
    pub(super) fn abort_link(&mut self, link: LinkKey) {
        if let Some(task) = self.tasks.get_mut(&link) {
            task.is_aborted = true;
            self.after.wakes.extend(task.waker.take());
        }
    }

    /// Ends all links at once.
    pub(super) fn abort_links(&mut self) {
        let links: Vec<LinkKey> = self.tasks.keys().copied().collect();
        for link in links {
            self.abort_link(link);
        }
    }

    /// Notes the end of a task.
    pub(super) fn end_task(&mut self) {
        self.running = self.running.saturating_sub(1);
        if self.phase != Phase::Running {
            self.after.wakes.extend(self.keeper.take());
        }
    }

    /// Begins to stop: no more connections are made, and the links are closed.
    pub(super) fn begin_stop(&mut self, now: Instant) {
        if self.phase != Phase::Running {
            return;
        }
        self.phase = Phase::Stopping(now + CLOSING);
        self.after.notes.stopping();
        self.machine.stop(now);
        for slot in std::mem::take(&mut self.connectors).into_values() {
            self.after.wakes.extend(slot.wakers());
        }
        for slot in std::mem::take(&mut self.listeners).into_values() {
            self.after.wakes.extend(slot.waker);
        }
        for waiters in self.room.values_mut() {
            waiters.wake_all(&mut self.after.wakes);
        }
        self.after.wakes.extend(self.rpc.take_waker());
        self.changed.wake_all(&mut self.after.wakes);
        self.jobs.push_back(Job::Stop);
    }

    /// Ends the peer, after its tasks, or with its runtime.
    pub(super) fn finish(&mut self, now: Instant) {
        self.begin_stop(now);
        if !self.is_stopped() {
            self.after.notes.stopped();
        }
        self.phase = Phase::Stopped;
        self.store.is_ending = true;
        let wakes = &mut self.after.wakes;
        wakes.extend(self.store.waker.take());
        wakes.extend(self.events.waker.take());
        self.stored.wake_all(wakes);
        self.changed.wake_all(wakes);
        self.deliveries.end(wakes);
    }

    pub(super) const fn is_stopped(&self) -> bool {
        matches!(self.phase, Phase::Stopped)
    }
}
