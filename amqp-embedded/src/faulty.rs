//! Fault injection on the bytes of a connection: the transport, with the faults that the broker's
//! fault switch requests.

use std::{
    collections::VecDeque,
    fmt, io,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{
            AtomicBool, AtomicUsize,
            Ordering::{Acquire, Relaxed, Release},
        },
    },
    task::{Context, Poll, Waker, ready},
};

use amqp_broker::{BytePlan, Direction, Gate};
use amqp_core::{Instant, Transmit};
use amqp_driver::io::{Timer, Transport, poll_locked};
use bytes::{Buf as _, BytesMut};

use crate::identity::Peer;

/// The maximum of bytes on the way in each direction. A sender at this limit waits.
const CAPACITY: usize = 256 << 10;

/// The minimum room to read into, in bytes.
const READ_MIN: usize = 4 << 10;

/// The state that the broker, the transport and the driver's task share about a connection's bytes.
#[derive(Debug, Default)]
pub(crate) struct WireState {
    /// There is a new plan. Read without the lock.
    changed: AtomicBool,
    /// The number of times that the driver was polled.
    turn: AtomicUsize,
    /// The client gets no bytes, and does not learn of the end.
    stalled: AtomicBool,
    /// There is an identity to take. Read without the lock.
    identified: AtomicBool,
    updates: Mutex<Updates>,
}

#[derive(Debug, Default)]
struct Updates {
    /// The client, once the transport has identified it, until it is taken.
    peer: Option<Peer>,
    /// The new plan, until it is taken.
    plan: Option<BytePlan>,
    /// The waker of the task that waits for a new plan.
    plan_waker: Option<Waker>,
}

impl WireState {
    fn lock(&self) -> MutexGuard<'_, Updates> {
        self.updates.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sets a new plan. Returns the waker of the task that waits for it.
    pub(crate) fn set_plan(&self, plan: BytePlan) -> Option<Waker> {
        let mut updates = self.lock();
        updates.plan = Some(plan);
        self.changed.store(true, Release);
        updates.plan_waker.take()
    }

    /// Counts a poll of the driver.
    pub(crate) fn begin_turn(&self) {
        // There is a single writer: load and store need not be one atomic operation.
        let turn = self.turn.load(Relaxed).wrapping_add(1);
        self.turn.store(turn, Relaxed);
    }

    fn turn(&self) -> usize {
        self.turn.load(Relaxed)
    }

    /// Waits, after the driver has ended, until the client may learn of it.
    pub(crate) fn poll_end(&self, cx: &Context<'_>) -> Poll<()> {
        loop {
            if let Some(plan) = self.take_plan() {
                self.set_stalled(&plan);
            }
            if !self.stalled.load(Relaxed) {
                return Poll::Ready(());
            }
            if self.register(cx) {
                return Poll::Pending;
            }
        }
    }

    /// Takes the new plan, if there is one.
    fn take_plan(&self) -> Option<BytePlan> {
        if !self.changed.load(Acquire) {
            return None;
        }
        let mut updates = self.lock();
        self.changed.store(false, Relaxed);
        updates.plan.take()
    }

    fn identify(&self, peer: Peer) {
        self.lock().peer = Some(peer);
        self.identified.store(true, Release);
    }

    /// Takes the identity of the client. `Some` once, after the transport has identified it.
    pub(crate) fn take_peer(&self) -> Option<Peer> {
        if !self.identified.load(Acquire) {
            return None;
        }
        self.identified.store(false, Relaxed);
        self.lock().peer.take()
    }

    /// Registers the task for a new plan. Returns `false` if there is one already.
    fn register(&self, cx: &Context<'_>) -> bool {
        let changed = |updates: &mut Updates| updates.plan.is_some().then_some(());
        let waiting = poll_locked(&self.updates, cx.waker(), changed, |updates| {
            &mut updates.plan_waker
        });
        waiting.is_pending()
    }

    /// Polls the task again once there is a new plan.
    fn wake_at_new_plan(&self, cx: &Context<'_>) {
        if !self.register(cx) {
            cx.waker().wake_by_ref();
        }
    }

    fn set_stalled(&self, plan: &BytePlan) {
        let stalled = plan.gate(Direction::ToClient) == Gate::Stalled && !plan.is_cut();
        self.stalled.store(stalled, Relaxed);
    }
}

/// Reads the identity of the client from a transport.
pub(crate) type PeerOf<T> = fn(&T) -> Option<&Peer>;

/// A transport that applies the plans of the broker's fault switch. Without a fault, it does not
/// buffer bytes.
#[derive(Debug)]
pub(crate) struct Faulty<T, C> {
    /// `None` after a cut.
    transport: Option<T>,
    /// Reads the identity of the client. `Some` until the transport has identified it.
    peer: Option<PeerOf<T>>,
    wire: Arc<WireState>,
    clock: C,
    /// `Some` while there is a fault, or bytes of one are still on the way.
    path: Option<Box<ImpairedPath<C>>>,
}

impl<T, C> Faulty<T, C> {
    pub(crate) const fn new(transport: T, peer: PeerOf<T>, wire: Arc<WireState>, clock: C) -> Self {
        Self {
            transport: Some(transport),
            peer: Some(peer),
            wire,
            clock,
            path: None,
        }
    }
}

impl<T: Transport, C: Timer + Clone> Faulty<T, C> {
    /// Applies a new plan. Returns the transport, and the path if there is a fault. Fails after a
    /// cut.
    fn apply_plan(&mut self) -> io::Result<(&mut T, Option<&mut ImpairedPath<C>>)> {
        if let Some(plan) = self.wire.take_plan() {
            match &mut self.path {
                Some(path) => path.set_plan(plan),
                None => {
                    let wire = Arc::clone(&self.wire);
                    self.path = Some(Box::new(ImpairedPath::new(plan, wire, &self.clock)));
                }
            }
            self.apply_passed();
        }
        let transport = self.transport.as_mut().ok_or_else(cut_error)?;
        Ok((transport, self.path.as_deref_mut()))
    }

    /// Records the identity of the client, which the transport knows by the first input.
    fn record_peer(&mut self) {
        if let (Some(peer), Some(transport)) = (self.peer, &self.transport)
            && let Some(peer) = peer(transport)
        {
            self.wire.identify(peer.clone());
            self.peer = None;
        }
    }

    /// Applies the consequences of passed bytes: a stall, a cut, the end of the faults.
    fn apply_passed(&mut self) {
        let Some(path) = &self.path else {
            return;
        };
        self.wire.set_stalled(&path.plan);
        if path.plan.is_cut() {
            // Both ends learn of it: the client by the drop, the driver at its next call.
            self.transport = None;
        }
        if self.transport.is_none() || path.is_done() {
            self.path = None;
        }
    }
}

fn cut_error() -> io::Error {
    io::Error::new(io::ErrorKind::ConnectionReset, "cut for a test")
}

impl<T: Transport, C: Timer + Clone> Transport for Faulty<T, C> {
    fn poll_read(&mut self, cx: &mut Context<'_>, buf: &mut BytesMut) -> Poll<io::Result<usize>> {
        let read = match self.apply_plan()? {
            (transport, None) => transport.poll_read(cx, buf),
            (transport, Some(path)) => {
                let read = path.poll_read(cx, buf, transport);
                self.apply_passed();
                read
            }
        };
        if let Poll::Ready(Ok(1..)) = read {
            self.record_peer();
        }
        read
    }

    fn poll_write(&mut self, cx: &mut Context<'_>, out: &mut Transmit) -> Poll<io::Result<usize>> {
        match self.apply_plan()? {
            (transport, None) => transport.poll_write(cx, out),
            (transport, Some(path)) => {
                let written = path.poll_write(cx, out, transport);
                self.apply_passed();
                written
            }
        }
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.apply_plan()? {
            (transport, None) => transport.poll_flush(cx),
            (transport, Some(path)) => {
                let flushed = path.poll_flush(cx, transport);
                self.apply_passed();
                flushed
            }
        }
    }

    fn poll_close(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.apply_plan()? {
            (transport, None) => transport.poll_close(cx),
            (transport, Some(path)) => {
                let closed = path.poll_close(cx, transport);
                self.apply_passed();
                closed
            }
        }
    }
}

/// The path of the bytes of a connection with a fault. Buffers the bytes in flight.
struct ImpairedPath<C> {
    plan: BytePlan,
    wire: Arc<WireState>,
    /// The arrival times of `outgoing`.
    to_client: DelayQueue<C>,
    /// Bytes that the driver has written.
    outgoing: Transmit,
    /// The part of them that arrives now.
    piece: Transmit,
    /// The initial length of `piece`; 0 once it has arrived.
    piece_len: usize,
    /// The arrival times of `incoming`.
    from_client: DelayQueue<C>,
    /// Bytes that the client has sent.
    incoming: BytesMut,
    /// The arrival time and result of the client's end of stream, or of a failure.
    end: Option<(Instant, io::Result<()>)>,
}

impl<C> fmt::Debug for ImpairedPath<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The bytes may contain a password.
        f.debug_struct("ImpairedPath")
            .field("plan", &self.plan)
            .field("outgoing", &self.outgoing.len())
            .field("incoming", &self.incoming.len())
            .finish_non_exhaustive()
    }
}

impl<C: Timer + Clone> ImpairedPath<C> {
    fn new(plan: BytePlan, wire: Arc<WireState>, clock: &C) -> Self {
        Self {
            plan,
            wire,
            to_client: DelayQueue::new(clock.clone()),
            outgoing: Transmit::new(),
            piece: Transmit::new(),
            piece_len: 0,
            from_client: DelayQueue::new(clock.clone()),
            incoming: BytesMut::new(),
            end: None,
        }
    }

    fn set_plan(&mut self, plan: BytePlan) {
        self.plan = plan;
        // The new plan also applies to the unsent rest of a piece.
        self.to_client.push_front(self.piece.len());
        self.outgoing.move_front(usize::MAX, &mut self.piece);
        std::mem::swap(&mut self.outgoing, &mut self.piece);
        self.piece_len = 0;
    }

    /// Whether there is no fault any more, and nothing is on the way.
    fn is_done(&self) -> bool {
        let empty = self.to_client.is_empty() && self.from_client.is_empty();
        self.plan.is_clear() && empty && self.piece.is_empty() && self.end.is_none()
    }

    fn poll_read<T: Transport>(
        &mut self,
        cx: &mut Context<'_>,
        buf: &mut BytesMut,
        transport: &mut T,
    ) -> Poll<io::Result<usize>> {
        let Gate::Open(count) = self.plan.gate(Direction::FromClient) else {
            self.wire.wake_at_new_plan(cx);
            return Poll::Pending;
        };
        self.read_ahead(cx, transport);
        if self.from_client.is_empty() {
            return self.poll_end(cx);
        }
        let room = buf.capacity() - buf.len();
        let turn = self.wire.turn();
        let count = ready!(self.from_client.poll_deliver(cx, count.min(room), turn));
        buf.extend_from_slice(&self.incoming[..count]);
        self.incoming.advance(count);
        self.plan.passed(Direction::FromClient, count);
        Poll::Ready(Ok(count))
    }

    /// Reads client input, even while earlier input is still on the way: the delay counts from the
    /// time of sending.
    fn read_ahead<T: Transport>(&mut self, cx: &mut Context<'_>, transport: &mut T) {
        let delay = self.plan.delay(Direction::FromClient);
        let queue = &mut self.from_client;
        while self.end.is_none() && queue.len < CAPACITY {
            self.incoming.reserve(READ_MIN);
            let read = transport.poll_read(cx, &mut self.incoming);
            let due = queue.clock.now() + delay;
            match read {
                Poll::Ready(Ok(0)) => self.end = Some((due, Ok(()))),
                Poll::Ready(Ok(count)) => queue.push(due, count),
                Poll::Ready(Err(error)) => self.end = Some((due, Err(error))),
                Poll::Pending => return,
            }
        }
    }

    /// Reports the end of stream or the failure, after all client input has arrived.
    fn poll_end(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let Some((due, end)) = &mut self.end else {
            return Poll::Pending;
        };
        ready!(self.from_client.poll_due(cx, *due));
        // A failure is reported once, and then an end of stream.
        let end = std::mem::replace(end, Ok(()));
        Poll::Ready(end.map(|()| 0))
    }

    fn poll_write<T: Transport>(
        &mut self,
        cx: &mut Context<'_>,
        out: &mut Transmit,
        transport: &mut T,
    ) -> Poll<io::Result<usize>> {
        let _drained = self.poll_drain(cx, transport)?;
        let room = CAPACITY.saturating_sub(self.to_client.len);
        if room == 0 {
            return Poll::Pending; // `poll_drain` has registered the task
        }
        let count = out.len().min(room);
        out.move_front(count, &mut self.outgoing);
        let queue = &mut self.to_client;
        let due = queue.clock.now() + self.plan.delay(Direction::ToClient);
        queue.push(due, count);
        // The driver calls again, to write the rest or to flush.
        Poll::Ready(Ok(count))
    }

    fn poll_flush<T: Transport>(
        &mut self,
        cx: &mut Context<'_>,
        transport: &mut T,
    ) -> Poll<io::Result<()>> {
        ready!(self.poll_drain(cx, transport))?;
        transport.poll_flush(cx)
    }

    fn poll_close<T: Transport>(
        &mut self,
        cx: &mut Context<'_>,
        transport: &mut T,
    ) -> Poll<io::Result<()>> {
        ready!(self.poll_drain(cx, transport))?;
        if self.plan.gate(Direction::ToClient) == Gate::Stalled {
            self.wire.wake_at_new_plan(cx);
            return Poll::Pending;
        }
        transport.poll_close(cx)
    }

    /// Delivers the written bytes. Ready once all have arrived.
    fn poll_drain<T: Transport>(
        &mut self,
        cx: &mut Context<'_>,
        transport: &mut T,
    ) -> Poll<io::Result<()>> {
        loop {
            while !self.piece.is_empty() {
                if ready!(transport.poll_write(cx, &mut self.piece))? == 0 {
                    return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
                }
            }
            if self.piece_len > 0 {
                ready!(transport.poll_flush(cx))?;
                let passed = std::mem::take(&mut self.piece_len);
                self.plan.passed(Direction::ToClient, passed);
            }
            if self.plan.is_cut() {
                return Poll::Ready(Err(cut_error()));
            }
            if self.to_client.is_empty() {
                return Poll::Ready(Ok(()));
            }
            let Gate::Open(count) = self.plan.gate(Direction::ToClient) else {
                self.wire.wake_at_new_plan(cx);
                return Poll::Pending;
            };
            let turn = self.wire.turn();
            let count = ready!(self.to_client.poll_deliver(cx, count, turn));
            self.outgoing.move_front(count, &mut self.piece);
            self.piece_len = count;
        }
    }
}

/// The arrival times of the bytes on the way in one direction.
#[derive(Debug)]
struct DelayQueue<C> {
    clock: C,
    /// Arrival time and number of bytes, in the order of sending. Bytes never overtake earlier
    /// ones.
    dues: VecDeque<(Instant, usize)>,
    /// The sum of these numbers.
    len: usize,
    /// The driver's turn in which a piece last arrived.
    turn: Option<usize>,
}

impl<C: Timer> DelayQueue<C> {
    const fn new(clock: C) -> Self {
        Self {
            clock,
            dues: VecDeque::new(),
            len: 0,
            turn: None,
        }
    }

    const fn is_empty(&self) -> bool {
        self.len == 0
    }

    fn push(&mut self, due: Instant, count: usize) {
        self.len += count;
        match self.dues.back_mut() {
            Some((last, sum)) if *last == due => *sum += count,
            _ => self.dues.push_back((due, count)),
        }
    }

    /// Adds the unsent bytes of a piece to the front, where they are due at once.
    fn push_front(&mut self, count: usize) {
        if count > 0 {
            self.len += count;
            self.dues.push_front((Instant::ORIGIN, count));
        }
    }

    /// Ready once `due` has passed.
    fn poll_due(&mut self, cx: &mut Context<'_>, due: Instant) -> Poll<()> {
        while self.clock.now() < due {
            ready!(self.clock.poll_deadline(cx, Some(due)));
        }
        Poll::Ready(())
    }

    /// Lets at most `most` bytes arrive, and returns their number. Only one piece arrives in a turn
    /// of the driver, so that other tasks see it before the next.
    fn poll_deliver(&mut self, cx: &mut Context<'_>, most: usize, turn: usize) -> Poll<usize> {
        if let Some(&(due, _)) = self.dues.front() {
            ready!(self.poll_due(cx, due));
        }
        if self.turn == Some(turn) {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        self.turn = Some(turn);
        let now = self.clock.now();
        let mut count = 0;
        while count < most
            && let Some((due, sum)) = self.dues.front_mut()
            && *due <= now
        {
            let passing = (*sum).min(most - count);
            count += passing;
            *sum -= passing;
            if *sum == 0 {
                self.dues.pop_front();
            }
        }
        self.len -= count;
        Poll::Ready(count)
    }
}
