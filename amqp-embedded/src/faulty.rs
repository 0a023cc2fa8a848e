//! The line to a broker in this process: the transport, with what the broker's fault switch lets go
//! wrong with the bytes on it.

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

use amqp_broker::{BytePlan, Direction, Passage};
use amqp_core::{Instant, Transmit};
use amqp_driver::io::{Timer, Transport, register_waker};
use bytes::{Buf as _, BytesMut};

use crate::identity::Peer;

/// How many bytes are on the way at most, each way: what a sender sends before it waits.
const CAPACITY: usize = 256 << 10;

/// The least room to read into, in bytes.
const READ_MIN: usize = 4 << 10;

/// What the broker, the transport and whoever polls them tell each other about a connection's line.
#[derive(Debug, Default)]
pub(crate) struct Line {
    /// There is a plan to be taken. It tells so without the lock.
    changed: AtomicBool,
    /// How often the driver was polled.
    turn: AtomicUsize,
    /// Nothing may arrive at the client, nor may an end.
    stalled: AtomicBool,
    /// There is an identity to be taken. Read without the lock.
    identified: AtomicBool,
    notice: Mutex<Notice>,
}

#[derive(Debug, Default)]
struct Notice {
    /// The client, once the transport knows it.
    peer: Option<Peer>,
    /// What holds from now on.
    plan: Option<BytePlan>,
    /// Who waits for another plan.
    waiting: Option<Waker>,
}

impl Line {
    fn lock(&self) -> MutexGuard<'_, Notice> {
        self.notice.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Another plan holds from now on. Gives back who is to be woken for it.
    pub(crate) fn change(&self, plan: BytePlan) -> Option<Waker> {
        let mut notice = self.lock();
        notice.plan = Some(plan);
        self.changed.store(true, Release);
        notice.waiting.take()
    }

    /// The driver is polled.
    pub(crate) fn begin_turn(&self) {
        // Nobody else writes it, so that it needs not be done in one step.
        let turn = self.turn.load(Relaxed).wrapping_add(1);
        self.turn.store(turn, Relaxed);
    }

    fn turn(&self) -> usize {
        self.turn.load(Relaxed)
    }

    /// The driver has ended. Ready when the client may learn of it.
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

    /// The plan that holds from now on, if it is another than before.
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

    /// Takes the identity of the client, once, after the transport knows it.
    pub(crate) fn take_peer(&self) -> Option<Peer> {
        if !self.identified.load(Acquire) {
            return None;
        }
        self.identified.store(false, Relaxed);
        self.lock().peer.take()
    }

    /// Waits for another plan; false if there is one.
    fn wait(&self, cx: &Context<'_>) -> bool {
        let mut notice = self.lock();
        if notice.plan.is_some() {
            return false;
        }
        register_waker(&mut notice.waiting, cx);
        true
    }

    /// The task is to be polled again when there is another plan.
    fn wake_at_change(&self, cx: &Context<'_>) {
        if !self.wait(cx) {
            cx.waker().wake_by_ref();
        }
    }

    fn set_stalled(&self, plan: &BytePlan) {
        let stalled = plan.passage(Direction::ToClient) == Passage::Stalled && !plan.is_cut();
        self.stalled.store(stalled, Relaxed);
    }
}

/// Reads the identity of the client from a transport.
pub(crate) type PeerOf<T> = fn(&T) -> Option<&Peer>;

/// A transport that does what the broker's fault switch says. As long as that says nothing, bytes go
/// straight through.
#[derive(Debug)]
pub(crate) struct Faulty<T, C> {
    /// None after a cut.
    transport: Option<T>,
    /// The identity of the client, as far as the transport knows it. `None` once it was noted.
    peer: Option<PeerOf<T>>,
    line: Arc<Line>,
    clock: C,
    /// The way of the bytes while anything goes wrong, or is still on the way.
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
    /// Which way bytes go now. Fails if the connection was cut.
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

    /// Notes the identity of the client, which the transport knows with the first input at the latest.
    fn note_peer(&mut self) {
        if let (Some(peer), Some(transport)) = (self.peer, &self.transport)
            && let Some(peer) = peer(transport)
        {
            self.line.identify(peer.clone());
            self.peer = None;
        }
    }

    /// Follows what has become of the plan by what has passed.
    fn settle(&mut self) {
        let Some(detour) = &self.detour else {
            return;
        };
        self.line.set_stalled(&detour.plan);
        if detour.plan.is_cut() {
            // Both ends learn it: the client by this, the driver when it calls next.
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

/// The way of the bytes of a connection with which something goes wrong. What is on the way stays
/// in here.
struct Detour<C> {
    plan: BytePlan,
    line: Arc<Line>,
    /// When what is in `departing` is to arrive.
    to_client: Lane<C>,
    /// What the driver has written.
    departing: Transmit,
    /// The part of it that arrives now.
    piece: Transmit,
    /// How long that was before any of it was written; 0 when it has arrived.
    piece_len: usize,
    /// When what is in `arriving` is to arrive.
    from_client: Lane<C>,
    /// What the client has sent.
    arriving: BytesMut,
    /// When the client's end of the stream, or a failure, is to arrive.
    end: Option<(Instant, io::Result<()>)>,
}

impl<C> fmt::Debug for Detour<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // What passes may be a password.
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
        // What is left of a piece is under the new plan, too.
        self.to_client.put_back(self.piece.len());
        self.departing.move_front(usize::MAX, &mut self.piece);
        std::mem::swap(&mut self.departing, &mut self.piece);
        self.piece_len = 0;
    }

    /// Nothing goes wrong any more, and nothing is on the way.
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
        let Passage::Open(count) = self.plan.passage(Direction::FromClient) else {
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

    /// Takes what the client has sent, also while what came before is still on the way: its delay
    /// begins when it is sent.
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

    /// Everything that the client has sent has arrived.
    fn poll_end(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let Some((due, end)) = &mut self.end else {
            return Poll::Pending;
        };
        ready!(self.from_client.poll_due(cx, *due));
        // A failure is told once.
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
            return Poll::Pending; // draining is
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
        if self.plan.passage(Direction::ToClient) == Passage::Stalled {
            self.line.wake_at_change(cx);
            return Poll::Pending;
        }
        transport.poll_close(cx)
    }

    /// Lets what was written arrive. Ready when all of it has.
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
            let Passage::Open(count) = self.plan.passage(Direction::ToClient) else {
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

/// When what is on the way in one direction is to arrive.
#[derive(Debug)]
struct Lane<C> {
    clock: C,
    /// When, and how many bytes, in the order in which they were sent. What is due waits for what is
    /// before it.
    dues: VecDeque<(Instant, usize)>,
    /// The sum of their numbers.
    len: usize,
    /// The turn of the driver in which a piece arrived last.
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

    /// What has arrived and was not taken is the first that arrives next.
    fn put_back(&mut self, count: usize) {
        if count > 0 {
            self.len += count;
            self.dues.push_front((Instant::ORIGIN, count));
        }
    }

    /// Ready when that time has come.
    fn poll_due(&mut self, cx: &mut Context<'_>, due: Instant) -> Poll<()> {
        while self.clock.now() < due {
            ready!(self.clock.poll_deadline(cx, Some(due)));
        }
        Poll::Ready(())
    }

    /// Lets some of what is on the way arrive, at most that many bytes. Only one piece arrives in a
    /// turn of the driver: others are to see it before the next one comes.
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
