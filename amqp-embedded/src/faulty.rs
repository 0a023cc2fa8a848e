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
use amqp_driver::io::{Timer, Transport, register_waker};
use bytes::{Buf as _, BytesMut};

use crate::identity::Peer;

/// The maximum of bytes on the way in each direction. A sender at this limit waits.
const CAPACITY: usize = 256 << 10;

/// The minimum room to read into, in bytes.
const READ_MIN: usize = 4 << 10;

/// The state that the broker, the transport and the driver's task share about a connection's bytes.
#[derive(Debug, Default)]
pub(crate) struct Line {
    /// There is a new plan. Read without the lock.
    changed: AtomicBool,
    /// The number of times that the driver was polled.
    turn: AtomicUsize,
    /// The client gets no bytes, and does not learn of the end.
    stalled: AtomicBool,
    /// There is an identity to take. Read without the lock.
    identified: AtomicBool,
    notice: Mutex<Notice>,
}

#[derive(Debug, Default)]
struct Notice {
    /// The client, once the transport has identified it, until it is taken.
    peer: Option<Peer>,
    /// The new plan, until it is taken.
    plan: Option<BytePlan>,
    /// The waker of the task that waits for a new plan.
    waiting: Option<Waker>,
}

impl Line {
    fn lock(&self) -> MutexGuard<'_, Notice> {
        self.notice.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sets a new plan. Returns the waker of the task that waits for it.
    pub(crate) fn change(&self, plan: BytePlan) -> Option<Waker> {
        let mut notice = self.lock();
        notice.plan = Some(plan);
        self.changed.store(true, Release);
        notice.waiting.take()
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
            if let Some(plan) = self.take() {
                self.set_stalled(&plan);
            }
            if !self.stalled.load(Relaxed) {
                return Poll::Ready(());
            }
            if self.wait(cx) {
                return Poll::Pending;
            }
        }
    }

    /// Takes the new plan, if there is one.
    fn take(&self) -> Option<BytePlan> {
        if !self.changed.load(Acquire) {
            return None;
        }
        let mut notice = self.lock();
        self.changed.store(false, Relaxed);
        notice.plan.take()
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
    fn wait(&self, cx: &Context<'_>) -> bool {
        let mut notice = self.lock();
        if notice.plan.is_some() {
            return false;
        }
        register_waker(&mut notice.waiting, cx);
        true
    }

    /// Polls the task again once there is a new plan.
    fn wake_at_change(&self, cx: &Context<'_>) {
        if !self.wait(cx) {
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

/// A transport that applies the plans of the broker's fault switch. Without a fault, bytes take no
/// detour.
#[derive(Debug)]
pub(crate) struct Faulty<T, C> {
    /// `None` after a cut.
    transport: Option<T>,
    /// Reads the identity of the client. `Some` until the transport has identified it.
    peer: Option<PeerOf<T>>,
    line: Arc<Line>,
    clock: C,
    /// `Some` while there is a fault, or bytes of one are still on the way.
    detour: Option<Box<Detour<C>>>,
}

impl<T, C> Faulty<T, C> {
    pub(crate) const fn new(transport: T, peer: PeerOf<T>, line: Arc<Line>, clock: C) -> Self {
        Self {
            transport: Some(transport),
            peer: Some(peer),
            line,
            clock,
            detour: None,
        }
    }
}

impl<T: Transport, C: Timer + Clone> Faulty<T, C> {
    /// The transport, and the detour if there is one. Applies a new plan first. Fails after a cut.
    fn look(&mut self) -> io::Result<(&mut T, Option<&mut Detour<C>>)> {
        if let Some(plan) = self.line.take() {
            match &mut self.detour {
                Some(detour) => detour.change(plan),
                None => {
                    let line = Arc::clone(&self.line);
                    self.detour = Some(Box::new(Detour::new(plan, line, &self.clock)));
                }
            }
            self.settle();
        }
        let transport = self.transport.as_mut().ok_or_else(cut)?;
        Ok((transport, self.detour.as_deref_mut()))
    }

    /// Records the identity of the client, which the transport knows by the first input.
    fn note_peer(&mut self) {
        if let (Some(peer), Some(transport)) = (self.peer, &self.transport)
            && let Some(peer) = peer(transport)
        {
            self.line.identify(peer.clone());
            self.peer = None;
        }
    }

    /// Applies the consequences of passed bytes: a stall, a cut, the end of the detour.
    fn settle(&mut self) {
        let Some(detour) = &self.detour else {
            return;
        };
        self.line.set_stalled(&detour.plan);
        if detour.plan.is_cut() {
            // Both ends learn of it: the client by the drop, the driver at its next call.
            self.transport = None;
        }
        if self.transport.is_none() || detour.is_done() {
            self.detour = None;
        }
    }
}

fn cut() -> io::Error {
    io::Error::new(io::ErrorKind::ConnectionReset, "cut for a test")
}

impl<T: Transport, C: Timer + Clone> Transport for Faulty<T, C> {
    fn poll_read(&mut self, cx: &mut Context<'_>, buf: &mut BytesMut) -> Poll<io::Result<usize>> {
        let read = match self.look()? {
            (transport, None) => transport.poll_read(cx, buf),
            (transport, Some(detour)) => {
                let read = detour.poll_read(cx, buf, transport);
                self.settle();
                read
            }
        };
        if let Poll::Ready(Ok(1..)) = read {
            self.note_peer();
        }
        read
    }

    fn poll_write(&mut self, cx: &mut Context<'_>, out: &mut Transmit) -> Poll<io::Result<usize>> {
        match self.look()? {
            (transport, None) => transport.poll_write(cx, out),
            (transport, Some(detour)) => {
                let written = detour.poll_write(cx, out, transport);
                self.settle();
                written
            }
        }
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.look()? {
            (transport, None) => transport.poll_flush(cx),
            (transport, Some(detour)) => {
                let flushed = detour.poll_flush(cx, transport);
                self.settle();
                flushed
            }
        }
    }

    fn poll_close(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.look()? {
            (transport, None) => transport.poll_close(cx),
            (transport, Some(detour)) => {
                let closed = detour.poll_close(cx, transport);
                self.settle();
                closed
            }
        }
    }
}

/// The path of the bytes of a connection with a fault. Holds the bytes on the way.
struct Detour<C> {
    plan: BytePlan,
    line: Arc<Line>,
    /// The arrival times of `departing`.
    to_client: Lane<C>,
    /// Bytes that the driver has written.
    departing: Transmit,
    /// The part of them that arrives now.
    piece: Transmit,
    /// The initial length of `piece`; 0 once it has arrived.
    piece_len: usize,
    /// The arrival times of `arriving`.
    from_client: Lane<C>,
    /// Bytes that the client has sent.
    arriving: BytesMut,
    /// The arrival time and result of the client's end of stream, or of a failure.
    end: Option<(Instant, io::Result<()>)>,
}

impl<C> fmt::Debug for Detour<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The bytes may contain a password.
        f.debug_struct("Detour")
            .field("plan", &self.plan)
            .field("departing", &self.departing.len())
            .field("arriving", &self.arriving.len())
            .finish_non_exhaustive()
    }
}

impl<C: Timer + Clone> Detour<C> {
    fn new(plan: BytePlan, line: Arc<Line>, clock: &C) -> Self {
        Self {
            plan,
            line,
            to_client: Lane::new(clock.clone()),
            departing: Transmit::new(),
            piece: Transmit::new(),
            piece_len: 0,
            from_client: Lane::new(clock.clone()),
            arriving: BytesMut::new(),
            end: None,
        }
    }

    fn change(&mut self, plan: BytePlan) {
        self.plan = plan;
        // The new plan also applies to the unsent rest of a piece.
        self.to_client.put_back(self.piece.len());
        self.departing.move_front(usize::MAX, &mut self.piece);
        std::mem::swap(&mut self.departing, &mut self.piece);
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
            self.line.wake_at_change(cx);
            return Poll::Pending;
        };
        self.take_in(cx, transport);
        if self.from_client.is_empty() {
            return self.poll_end(cx);
        }
        let room = buf.capacity() - buf.len();
        let turn = self.line.turn();
        let count = ready!(self.from_client.poll_pass(cx, count.min(room), turn));
        buf.extend_from_slice(&self.arriving[..count]);
        self.arriving.advance(count);
        self.plan.passed(Direction::FromClient, count);
        Poll::Ready(Ok(count))
    }

    /// Reads client input, even while earlier input is still on the way: the delay counts from the
    /// time of sending.
    fn take_in<T: Transport>(&mut self, cx: &mut Context<'_>, transport: &mut T) {
        let delay = self.plan.delay(Direction::FromClient);
        let lane = &mut self.from_client;
        while self.end.is_none() && lane.len < CAPACITY {
            self.arriving.reserve(READ_MIN);
            let read = transport.poll_read(cx, &mut self.arriving);
            let due = lane.clock.now() + delay;
            match read {
                Poll::Ready(Ok(0)) => self.end = Some((due, Ok(()))),
                Poll::Ready(Ok(count)) => lane.enter(due, count),
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
        out.move_front(count, &mut self.departing);
        let lane = &mut self.to_client;
        let due = lane.clock.now() + self.plan.delay(Direction::ToClient);
        lane.enter(due, count);
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
            self.line.wake_at_change(cx);
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
                return Poll::Ready(Err(cut()));
            }
            if self.to_client.is_empty() {
                return Poll::Ready(Ok(()));
            }
            let Gate::Open(count) = self.plan.gate(Direction::ToClient) else {
                self.line.wake_at_change(cx);
                return Poll::Pending;
            };
            let turn = self.line.turn();
            let count = ready!(self.to_client.poll_pass(cx, count, turn));
            self.departing.move_front(count, &mut self.piece);
            self.piece_len = count;
        }
    }
}

/// The arrival times of the bytes on the way in one direction.
#[derive(Debug)]
struct Lane<C> {
    clock: C,
    /// Arrival time and number of bytes, in the order of sending. Bytes never overtake earlier
    /// ones.
    dues: VecDeque<(Instant, usize)>,
    /// The sum of these numbers.
    len: usize,
    /// The driver's turn in which a piece last arrived.
    turn: Option<usize>,
}

impl<C: Timer> Lane<C> {
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

    fn enter(&mut self, due: Instant, count: usize) {
        self.len += count;
        match self.dues.back_mut() {
            Some((last, sum)) if *last == due => *sum += count,
            _ => self.dues.push_back((due, count)),
        }
    }

    /// Returns the untaken bytes of a piece to the front, where they are due at once.
    fn put_back(&mut self, count: usize) {
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
    fn poll_pass(&mut self, cx: &mut Context<'_>, most: usize, turn: usize) -> Poll<usize> {
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
