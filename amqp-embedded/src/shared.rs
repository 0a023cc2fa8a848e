//! A broker in this process, and the drivers of its connections.

use std::{
    collections::BTreeMap,
    fmt,
    future::Future,
    ops::Deref,
    pin::Pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{
            AtomicBool,
            Ordering::{Acquire, Release},
        },
    },
    task::{Context, Poll, Waker, ready},
};

use amqp_broker::{AcceptError, Broker, ByteFaults, ConnectionKey, Inspection};
use amqp_core::{
    Endpoint, Instant, TimeoutReason, Transmit,
    server::{self, AuthRequest},
};
use amqp_driver::io::{DrivenEndpoint, Driver, Timer, Transport, wake_all};
use bytes::BytesMut;

use crate::{
    faulty::{Faulty, PeerOf, WireState},
    watch::Watchers,
};

/// The number of bytes that the driver of a connection moves before it yields: a busy connection
/// delays the others by as much, times the number of polls between two looks of the runtime at its
/// sockets (61 in tokio).
const BYTES_PER_POLL: usize = 64 << 10;

/// A broker that several drivers share, one for each connection.
///
/// All clones are the same broker. It is dropped with the last clone and the last connection.
/// Adapters add sockets and clocks; all these clocks must show the same time.
#[derive(Clone, Debug)]
pub struct SharedBroker(pub(crate) Arc<Clones>);

/// The clones of a broker, without its connections. Only a clone can end a pause or a stall, so that
/// dropping the last one does: a driver that stands still would own the broker for ever.
#[derive(Debug)]
pub(crate) struct Clones {
    pub(crate) owner: Arc<Owner>,
}

impl Clones {
    fn of(owner: Owner) -> Arc<Self> {
        let owner = Arc::new(owner);
        Arc::new(Self { owner })
    }
}

impl Deref for Clones {
    type Target = Shared;

    fn deref(&self) -> &Shared {
        &self.owner
    }
}

impl Drop for Clones {
    fn drop(&mut self) {
        self.end_byte_faults();
        self.set_paused(false);
    }
}

/// The owner of a broker: its clones and its connections, but not the tasks that serve it.
#[derive(Debug)]
pub(crate) struct Owner {
    shared: Arc<Shared>,
    /// Ends the store: `Some` if the broker has one.
    #[cfg(feature = "store")]
    store: Option<crate::store::StoreGuard>,
}

impl Deref for Owner {
    type Target = Shared;

    fn deref(&self) -> &Shared {
        &self.shared
    }
}

/// The one lock of a broker. It is not held across a system call. Wakers are cloned before it is
/// taken, and woken and dropped after it is released, as they may use the broker.
pub(crate) struct Shared {
    state: Mutex<SharedState>,
    /// A copy of `SharedState::paused`, read without the lock.
    paused: AtomicBool,
}

pub(crate) struct SharedState {
    pub(crate) broker: Broker,
    /// The connections with a driver.
    slots: BTreeMap<ConnectionKey, ConnSlot>,
    /// The latest time reported by any clock.
    pub(crate) now: Instant,
    /// Drivers and the timekeeper stand still.
    pub(crate) paused: bool,
    /// The tasks that wait for a change of the broker, by their numbers.
    pub(crate) watchers: Watchers,
    /// The store's waker, while it waits for changes to store.
    #[cfg(feature = "store")]
    pub(crate) store_waker: Option<Waker>,
    /// The store ends when all changes are stored.
    #[cfg(feature = "store")]
    pub(crate) store_ending: bool,
    /// The failure of the store: `Some` after one. The broker is stopped.
    #[cfg(feature = "store")]
    pub(crate) store_error: Option<Arc<crate::store::StoreError>>,
    /// A [`Timekeeper`](crate::timekeeper::Timekeeper) exists.
    pub(crate) timekeeper_running: bool,
    /// The deadline of the timekeeper's sleep, and its waker.
    pub(crate) alarm: Option<Instant>,
    pub(crate) timekeeper_waker: Option<Waker>,
}

/// The state of a connection's driver.
#[derive(Debug)]
struct ConnSlot {
    /// The broker has called for the driver since its last `poll_transmit`.
    dirty: bool,
    /// The last result of `wants_input`.
    reading: bool,
    /// The driver's waker, while it sleeps.
    driver: Option<Waker>,
    /// The driver's waker, while it stands still.
    paused: Option<Waker>,
    wire: Arc<WireState>,
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.lock();
        f.debug_struct("Shared")
            .field("connections", &state.slots.len())
            .field("now", &state.now)
            .finish_non_exhaustive()
    }
}

impl Shared {
    pub(crate) fn new(broker: Broker) -> Self {
        Self {
            state: Mutex::new(SharedState {
                broker,
                slots: BTreeMap::new(),
                now: Instant::ORIGIN,
                paused: false,
                watchers: Watchers::default(),
                #[cfg(feature = "store")]
                store_waker: None,
                #[cfg(feature = "store")]
                store_ending: false,
                #[cfg(feature = "store")]
                store_error: None,
                timekeeper_running: false,
                alarm: None,
                timekeeper_waker: None,
            }),
            paused: AtomicBool::new(false),
        }
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, SharedState> {
        // Nothing in a critical section panics. If it does, the state is still the best available.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sets whether drivers and the timekeeper stand still.
    pub(crate) fn set_paused(&self, paused: bool) {
        let mut wakes = Vec::new();
        let mut state = self.lock();
        state.paused = paused;
        self.paused.store(paused, Release);
        if !paused {
            let slots = state.slots.values_mut();
            wakes.extend(slots.filter_map(|slot| slot.paused.take()));
            wakes.extend(state.timekeeper_waker.take());
        }
        drop(state);
        wake_all(wakes);
    }

    /// Ends the faults of the bytes of all connections.
    fn end_byte_faults(&self) {
        self.with(|state| {
            for &key in state.slots.keys() {
                state.broker.faults().bytes(key, ByteFaults::new());
            }
        });
    }

    /// Registers the driver of a connection for the end of a pause. Returns `false` if the broker is
    /// not paused.
    fn register_paused(&self, key: ConnectionKey, waker: &Waker) -> bool {
        if !self.paused.load(Acquire) {
            return false;
        }
        let waker = waker.clone();
        let mut state = self.lock();
        if !state.paused {
            return false;
        }
        let Some(slot) = state.slots.get_mut(&key) else {
            return false;
        };
        let replaced = slot.paused.replace(waker);
        drop(state);
        drop(replaced);
        true
    }

    /// Runs `act` under the lock, and then wakes the tasks that it affects.
    pub(crate) fn with<T>(&self, act: impl FnOnce(&mut SharedState) -> T) -> T {
        let mut wakes = Vec::new();
        let mut state = self.lock();
        let result = act(&mut state);
        state.collect(&mut wakes);
        drop(state);
        wake_all(wakes);
        result
    }
}

impl SharedState {
    fn collect(&mut self, wakes: &mut Vec<Waker>) {
        while let Some(key) = self.broker.poll_wake() {
            if let Some(slot) = self.slots.get_mut(&key) {
                slot.dirty = true;
                wakes.extend(slot.driver.take());
            }
        }
        while let Some((key, plan)) = self.broker.poll_byte_plan() {
            if let Some(slot) = self.slots.get(&key) {
                wakes.extend(slot.wire.set_plan(plan));
            }
        }
        self.watchers.wake(wakes);
        #[cfg(feature = "store")]
        if self.broker.has_changes() {
            wakes.extend(self.store_waker.take());
        }
        let due = self.broker.poll_timeout();
        if due.is_some_and(|due| self.alarm.is_none_or(|alarm| due < alarm)) {
            wakes.extend(self.timekeeper_waker.take());
        }
    }

    /// Returns whether the store of the broker has failed.
    pub(crate) const fn has_failed(&self) -> bool {
        #[cfg(feature = "store")]
        let failed = self.store_error.is_some();
        #[cfg(not(feature = "store"))]
        let failed = false;
        failed
    }

    pub(crate) fn advance_clock(&mut self, now: Instant) {
        self.now = self.now.max(now);
    }

    /// Removes a connection. Returns its slot, to be dropped after the lock is released.
    fn remove_connection(&mut self, key: ConnectionKey) -> Option<ConnSlot> {
        let slot = self.slots.remove(&key)?;
        self.broker.remove(key, self.now);
        Some(slot)
    }
}

impl SharedBroker {
    /// Shares a broker.
    #[must_use]
    pub fn new(broker: Broker) -> Self {
        Self(Clones::of(Owner {
            shared: Arc::new(Shared::new(broker)),
            #[cfg(feature = "store")]
            store: None,
        }))
    }

    /// Shares a broker that has a store, which is ended with the owner.
    #[cfg(feature = "store")]
    pub(crate) fn with_store(shared: Arc<Shared>, store: crate::store::StoreGuard) -> Self {
        Self(Clones::of(Owner {
            shared,
            store: Some(store),
        }))
    }

    /// Accepts a new connection over a transport, and returns its driver, which must be spawned.
    /// All clones of the clock must show the same time, and each has its own alarm.
    ///
    /// # Errors
    /// If the broker refuses the connection. The transport is dropped.
    pub fn accept<T: Transport, C: Timer + Clone>(
        &self,
        transport: T,
        clock: C,
    ) -> Result<BrokerDriver<T, C>, AcceptError> {
        self.accept_identified(transport, |_| None, clock)
    }

    /// As [`accept`](Self::accept), over a transport that can identify the client. `peer` is called
    /// after each read until it returns `Some`.
    ///
    /// # Errors
    /// As [`accept`](Self::accept).
    pub fn accept_identified<T: Transport, C: Timer + Clone>(
        &self,
        transport: T,
        peer: PeerOf<T>,
        clock: C,
    ) -> Result<BrokerDriver<T, C>, AcceptError> {
        let endpoint = self.add(clock.now(), Broker::accept)?;
        let wire = Arc::clone(&endpoint.wire);
        let transport = Faulty::new(transport, peer, Arc::clone(&wire), clock.clone());
        Ok(BrokerDriver {
            driver: Driver::new(endpoint, transport, clock),
            wire,
            removed: false,
            finished: false,
        })
    }

    /// Adopts a connection from a machine that has begun elsewhere: see [`Broker::adopt`]. Returns
    /// its endpoint, for the driver that has driven the machine. [`pause`](Self::pause) and the
    /// [fault switch](amqp_broker::Faults::bytes) for bytes do not reach that driver.
    ///
    /// # Errors
    /// If the broker refuses the connection. The machine is dropped: close its transport.
    pub fn adopt(
        &self,
        machine: server::Connection,
        request: &AuthRequest,
        now: Instant,
    ) -> Result<BrokerEndpoint, AcceptError> {
        self.add(now, |broker, now| broker.adopt(machine, request, now))
    }

    /// Adds a connection, by `add`, with a slot for its driver.
    fn add(
        &self,
        now: Instant,
        add: impl FnOnce(&mut Broker, Instant) -> Result<ConnectionKey, AcceptError>,
    ) -> Result<BrokerEndpoint, AcceptError> {
        let wire = Arc::<WireState>::default();
        let key = self.0.with(|state| {
            state.advance_clock(now);
            let key = add(&mut state.broker, now)?;
            let slot = ConnSlot {
                dirty: false,
                reading: true,
                driver: None,
                paused: None,
                wire: Arc::clone(&wire),
            };
            state.slots.insert(key, slot);
            Ok::<_, AcceptError>(key)
        })?;
        Ok(BrokerEndpoint {
            shared: Arc::clone(&self.0.owner),
            key,
            wire,
        })
    }

    /// Lets all drivers and the [`Timekeeper`](crate::timekeeper::Timekeeper) stand still, as `SIGSTOP` does with a process: nothing
    /// is read or written, and no deadline is handled. [`with`](Self::with) goes on. Dropping the last
    /// clone ends it.
    pub fn pause(&self) {
        self.0.set_paused(true);
    }

    /// Ends a [pause](Self::pause).
    pub fn resume(&self) {
        self.0.set_paused(false);
    }

    /// Calls `act` with the broker, which is locked meanwhile.
    pub fn with<T>(&self, act: impl FnOnce(&mut Broker) -> T) -> T {
        self.0.with(|state| act(&mut state.broker))
    }

    /// The state of the broker: queues with their messages, bindings, consumers, connections.
    #[must_use]
    pub fn inspect(&self) -> Inspection {
        self.0.lock().broker.inspect()
    }
}

/// The driver's end of a connection of the broker.
#[derive(Debug)]
pub struct BrokerEndpoint {
    shared: Arc<Owner>,
    key: ConnectionKey,
    wire: Arc<WireState>,
}

impl BrokerEndpoint {
    /// The key of the connection in the broker.
    #[must_use]
    pub const fn key(&self) -> ConnectionKey {
        self.key
    }

    /// Removes the connection from the broker, before its driver is dropped. Call it when the
    /// transport is closed.
    pub fn remove(&self) {
        self.shared
            .with(|state| state.broker.remove(self.key, state.now));
    }

    fn with<T>(&self, now: Instant, act: impl FnOnce(&mut Broker, ConnectionKey) -> T) -> T {
        self.shared.with(|state| {
            state.advance_clock(now);
            act(&mut state.broker, self.key)
        })
    }
}

impl Endpoint for BrokerEndpoint {
    fn handle_input(&mut self, now: Instant, input: &mut BytesMut) {
        let peer = self.wire.take_peer();
        self.with(now, |broker, key| {
            if let Some(peer) = peer {
                broker.handle_secured(key, peer.user);
                if let Some(certificate) = peer.certificate {
                    broker.handle_certificate(key, certificate);
                }
            }
            broker.handle_input(key, now, input);
        });
    }

    fn handle_eof(&mut self, now: Instant) {
        self.with(now, |broker, key| broker.handle_eof(key, now));
    }

    fn handle_transport_error(&mut self, now: Instant, message: &str) {
        self.with(now, |broker, key| {
            broker.handle_transport_error(key, now, message);
        });
    }

    fn handle_timeout(&mut self, now: Instant) {
        self.with(now, |broker, key| {
            broker.handle_connection_timeout(key, now);
        });
    }

    fn poll_transmit(&mut self, now: Instant, out: &mut Transmit) -> bool {
        self.shared.with(|state| {
            state.advance_clock(now);
            if let Some(slot) = state.slots.get_mut(&self.key) {
                slot.dirty = false;
            }
            state.broker.poll_transmit(self.key, now, out)
        })
    }

    fn poll_timeout(&self) -> Option<(Instant, TimeoutReason)> {
        self.shared.lock().broker.poll_connection_timeout(self.key)
    }

    fn read_hint(&self) -> usize {
        self.shared.lock().broker.read_hint(self.key)
    }

    fn frame_hint(&self) -> usize {
        self.shared.lock().broker.frame_hint(self.key)
    }

    fn is_finished(&self) -> bool {
        self.shared.lock().broker.is_finished(self.key)
    }
}

impl DrivenEndpoint for BrokerEndpoint {
    const BYTES_PER_POLL: usize = BYTES_PER_POLL;

    fn wants_input(&mut self, _now: Instant) -> bool {
        let mut state = self.shared.lock();
        let wants = state.broker.wants_input(self.key);
        if let Some(slot) = state.slots.get_mut(&self.key) {
            slot.reading = wants;
        }
        wants
    }

    fn register_waker(&mut self, waker: &Waker, output: bool, alarm: Option<Instant>) -> bool {
        let waker = waker.clone();
        let mut state = self.shared.lock();
        let due = state.broker.poll_connection_timeout(self.key);
        let wants = state.broker.wants_input(self.key);
        let finished = state.broker.is_finished(self.key);
        let Some(slot) = state.slots.get_mut(&self.key) else {
            return false;
        };
        let readable = wants && !slot.reading;
        let writable = output && slot.dirty;
        let earlier = due.is_some_and(|(due, _)| alarm.is_none_or(|alarm| due < alarm));
        if readable || writable || earlier || finished {
            return false;
        }
        let replaced = slot.driver.replace(waker);
        drop(state);
        drop(replaced);
        true
    }

    fn flush_on_close(&self) -> bool {
        true // the reply to a close, or the reason of a refusal
    }

    fn abandon(&mut self) {
        let removed = self.shared.with(|state| state.remove_connection(self.key));
        drop(removed);
    }
}

/// Moves the bytes of one connection between a broker and a transport, and keeps its time, as
/// [`Driver`] does for a client. Applies the broker's [fault switch](amqp_broker::Faults::bytes)
/// for bytes. Ends after the connection has ended and the transport is closed. Over a stalled
/// transport the client cannot learn of the end, and the driver waits until the stall is lifted, by
/// the switch or by the drop of the last clone of the broker.
///
/// Must be spawned or polled. Dropping it ends the connection at once, without a close handshake.
#[must_use = "it does nothing unless it is spawned"]
pub struct BrokerDriver<T: Transport, C: Timer + Clone> {
    driver: Driver<BrokerEndpoint, Faulty<T, C>, C>,
    wire: Arc<WireState>,
    /// The connection is removed from the broker. The inner driver may still discard input.
    removed: bool,
    /// The inner driver has ended.
    finished: bool,
}

impl<T: Transport, C: Timer + Clone> BrokerDriver<T, C> {
    /// The endpoint that it drives.
    pub const fn endpoint(&self) -> &BrokerEndpoint {
        self.driver.endpoint()
    }
}

impl<T, C> Future for BrokerDriver<T, C>
where
    T: Transport + Unpin,
    C: Timer + Clone + Unpin,
{
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = &mut *self;
        let endpoint = this.endpoint();
        if endpoint.shared.register_paused(endpoint.key, cx.waker()) {
            return Poll::Pending;
        }
        if !this.finished {
            this.wire.begin_turn();
            let ended = Pin::new(&mut this.driver).poll(cx);
            if !this.removed && (ended.is_ready() || this.driver.is_closed()) {
                this.removed = true;
                this.endpoint().remove();
            }
            ready!(ended);
            this.finished = true;
        }
        this.wire.poll_end(cx)
    }
}

impl<T: Transport, C: Timer + Clone> fmt::Debug for BrokerDriver<T, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BrokerDriver")
            .field("driver", &self.driver)
            .field("finished", &self.finished)
            .finish_non_exhaustive()
    }
}

impl Drop for Owner {
    fn drop(&mut self) {
        let waker = self.lock().timekeeper_waker.take();
        wake_all(waker);
        #[cfg(feature = "store")]
        if let Some(store) = self.store.take() {
            store.end(&self.shared);
        }
    }
}
