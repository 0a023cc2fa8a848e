//! The world that a driver moves bytes in: two byte queues with a server at the other end, and a
//! clock that a test turns.

use std::{
    io,
    sync::{Arc, Mutex, MutexGuard},
    task::{Context, Poll, Waker},
    time::Duration,
};

use amqp_driver::{
    core::{Instant, Transmit, server},
    io::{Timer, Transport},
};
use bytes::{Buf as _, BytesMut};

use super::peer::Peer;

/// How a transport ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cut {
    /// The server has hung up: its output is still read, then the stream ends. Writes vanish.
    Eof,
    /// Reading fails, and writing vanishes.
    ReadError,
    /// Writing fails. Reading finds nothing new.
    WriteError,
    /// Both fail.
    Reset,
}

/// Everything outside the client.
#[derive(Debug)]
pub struct World {
    pub now: Instant,
    pub peer: Peer,
    pub to_server: BytesMut,
    pub to_client: BytesMut,
    /// How many bytes are read, written, or taken by the server at a time.
    pub read_max: usize,
    pub write_max: usize,
    pub server_max: usize,
    /// How many bytes on their way to the server make the transport take no more.
    pub capacity: usize,
    /// Each read and each write has to be asked for twice.
    pub stutter: bool,
    /// The server acts within the client's write.
    pub eager: bool,
    /// Flushing waits until this is false.
    pub flush_stalled: bool,
    /// Closing waits for ever.
    pub close_stalled: bool,
    pub cut: Option<Cut>,
    /// The error of a failing read.
    pub read_error: io::ErrorKind,
    /// So many heartbeats come one by one when nothing else does.
    pub babble: usize,
    /// After so many bytes that were read, or written, the transport is cut.
    pub read_budget: Option<(u64, Cut)>,
    pub write_budget: Option<(u64, Cut)>,
    /// How many bytes were ever read and written.
    pub read: u64,
    pub written: u64,
    /// The client has closed its end, or dropped it.
    pub closed: bool,
    pub dropped: bool,
    told_eof: bool,
    read_waker: Option<Waker>,
    write_waker: Option<Waker>,
    flush_waker: Option<Waker>,
    pub alarm: Option<(Instant, Waker)>,
    stuttered: [bool; 2],
}

impl World {
    pub fn new(config: server::Config) -> Self {
        // Not the origin, so that nothing is right by chance.
        let now = Instant::ORIGIN + Duration::from_secs(1000);
        Self {
            now,
            peer: Peer::new(config, now),
            to_server: BytesMut::new(),
            to_client: BytesMut::new(),
            read_max: usize::MAX,
            write_max: usize::MAX,
            server_max: usize::MAX,
            capacity: usize::MAX,
            stutter: false,
            eager: false,
            flush_stalled: false,
            close_stalled: false,
            cut: None,
            read_error: io::ErrorKind::ConnectionReset,
            babble: 0,
            read_budget: None,
            write_budget: None,
            read: 0,
            written: 0,
            closed: false,
            dropped: false,
            told_eof: false,
            read_waker: None,
            write_waker: None,
            flush_waker: None,
            alarm: None,
            stuttered: [false; 2],
        }
    }

    /// Whether the server has anything to do.
    pub fn server_ready(&self) -> bool {
        let peer = &self.peer;
        let reads = !peer.deaf && !self.to_server.is_empty();
        let sends = peer.sends() && !self.is_closed();
        let eof = self.is_closed() && !self.told_eof && self.to_server.is_empty();
        reads || sends || eof || self.hangs_up()
    }

    /// Whether the server has nothing more to say, and hangs up.
    fn hangs_up(&self) -> bool {
        self.peer.machine.is_finished() && !self.is_closed()
    }

    const fn is_closed(&self) -> bool {
        self.closed || self.dropped || self.cut.is_some()
    }

    /// The server reads its input, acts, and sends.
    pub fn step_server(&mut self) {
        if !self.peer.deaf {
            let count = self.to_server.len().min(self.server_max);
            let bytes = self.to_server.split_to(count);
            if !bytes.is_empty() {
                self.peer.receive(self.now, &bytes);
                self.wake_writer();
            }
        }
        if self.is_closed() && self.to_server.is_empty() && !self.told_eof {
            self.told_eof = true;
            self.peer.eof(self.now);
            self.cut.get_or_insert(Cut::Eof);
            wake(&mut self.read_waker);
        }
        let sent = self.peer.send(self.now);
        if !sent.is_empty() && self.cut.is_none() {
            self.inject(&sent);
        }
        if self.hangs_up() {
            self.cut(Cut::Eof);
        }
    }

    /// Puts bytes on their way to the client.
    pub fn inject(&mut self, bytes: &[u8]) {
        self.to_client.extend_from_slice(bytes);
        wake(&mut self.read_waker);
    }

    /// The transport ends.
    pub fn cut(&mut self, cut: Cut) {
        self.cut = Some(cut);
        self.to_server.clear();
        if cut != Cut::Eof {
            self.to_client.clear();
        }
        wake(&mut self.read_waker);
        self.wake_writer();
    }

    /// The transport takes so many bytes from now on.
    pub fn set_capacity(&mut self, capacity: usize) {
        self.capacity = capacity;
        self.wake_writer();
    }

    /// Lets flushing go on.
    pub fn end_flush_stall(&mut self) {
        self.flush_stalled = false;
        wake(&mut self.flush_waker);
    }

    pub fn wake_writer(&mut self) {
        wake(&mut self.write_waker);
    }

    /// The next time at which anything happens by itself.
    pub fn next_deadline(&self) -> Option<Instant> {
        let alarm = self.alarm.as_ref().map(|(at, _)| *at);
        let peer = self.peer.machine.poll_timeout().map(|(at, _)| at);
        alarm.into_iter().chain(peer).min()
    }

    /// It is that time.
    pub fn set_now(&mut self, now: Instant) {
        self.now = self.now.max(now);
        self.peer.timeout(self.now);
        if self.alarm.as_ref().is_some_and(|(at, _)| *at <= self.now)
            && let Some((_, waker)) = self.alarm.take()
        {
            waker.wake();
        }
    }

    /// Whether this read (0) or write (1) is one that has to be asked for again.
    fn stutters(&mut self, which: usize, cx: &Context<'_>) -> bool {
        self.stuttered[which] = self.stutter && !self.stuttered[which];
        if self.stuttered[which] {
            cx.waker().wake_by_ref();
        }
        self.stuttered[which]
    }

    fn poll_read(&mut self, cx: &Context<'_>, buf: &mut BytesMut) -> Poll<io::Result<usize>> {
        assert!(buf.capacity() > buf.len(), "no room to read into");
        let left = match self.read_budget {
            Some((budget, _)) => usize::try_from(budget - self.read).unwrap(),
            None => usize::MAX,
        };
        if left == 0
            && let Some((_, cut)) = self.read_budget.take()
        {
            self.to_client.clear();
            self.cut(cut);
        }
        if self.to_client.is_empty() && self.babble > 0 {
            self.babble -= 1;
            self.to_client
                .extend_from_slice(&[8, 0, 0, 0, 0, 0, 0, 0xce]);
        }
        let room = buf.capacity() - buf.len();
        let count = self.to_client.len().min(room).min(self.read_max).min(left);
        if count > 0 {
            if self.stutters(0, cx) {
                return Poll::Pending;
            }
            buf.extend_from_slice(&self.to_client.split_to(count));
            self.read += count as u64;
            return Poll::Ready(Ok(count));
        }
        match self.cut {
            Some(Cut::Eof) => Poll::Ready(Ok(0)),
            Some(Cut::ReadError | Cut::Reset) => Poll::Ready(Err(self.read_error.into())),
            Some(Cut::WriteError) | None => {
                self.read_waker = Some(cx.waker().clone());
                Poll::Pending
            }
        }
    }

    fn poll_write(&mut self, cx: &Context<'_>, out: &mut Transmit) -> Poll<io::Result<usize>> {
        assert!(!out.is_empty(), "nothing to write");
        assert!(!self.closed, "written after closing");
        if let Some((budget, cut)) = self.write_budget
            && self.written >= budget
        {
            self.write_budget = None;
            self.cut(cut);
        }
        match self.cut {
            Some(Cut::WriteError | Cut::Reset) => {
                return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
            }
            Some(Cut::Eof | Cut::ReadError) => {
                let count = out.len();
                out.advance(count);
                return Poll::Ready(Ok(count));
            }
            None => {}
        }
        let room = self.capacity.saturating_sub(self.to_server.len());
        let left = match self.write_budget {
            Some((budget, _)) => usize::try_from(budget - self.written).unwrap(),
            None => usize::MAX,
        };
        let mut count = out.len().min(room).min(self.write_max).min(left);
        if count == 0 {
            self.write_waker = Some(cx.waker().clone());
            return Poll::Pending;
        }
        if self.stutters(1, cx) {
            return Poll::Pending;
        }
        let written = count;
        self.written += written as u64;
        while count > 0 {
            let chunk = out.chunk();
            let len = chunk.len().min(count);
            self.to_server.extend_from_slice(&chunk[..len]);
            out.advance(len);
            count -= len;
        }
        if self.eager {
            self.step_server();
        }
        Poll::Ready(Ok(written))
    }

    fn poll_flush(&mut self, cx: &Context<'_>) -> Poll<io::Result<()>> {
        if self.flush_stalled && self.cut.is_none() {
            self.flush_waker = Some(cx.waker().clone());
            return Poll::Pending;
        }
        Poll::Ready(Ok(()))
    }

    fn poll_deadline(&mut self, cx: &Context<'_>, at: Option<Instant>) -> Poll<()> {
        self.alarm = None;
        let Some(at) = at else {
            return Poll::Pending;
        };
        if at <= self.now {
            return Poll::Ready(());
        }
        self.alarm = Some((at, cx.waker().clone()));
        Poll::Pending
    }
}

fn wake(waker: &mut Option<Waker>) {
    if let Some(waker) = waker.take() {
        waker.wake();
    }
}

/// The world, shared between the driver's transport, its clock and the test.
pub type Shared = Arc<Mutex<World>>;

fn lock(world: &Shared) -> MutexGuard<'_, World> {
    world
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// An action while the driver calls its transport or its clock: that of another thread in between
/// the driver's looks at the connection.
#[derive(Default)]
pub struct Hook(Mutex<Hooked>);

#[derive(Default)]
struct Hooked {
    calls: usize,
    /// The number of the call, and the action.
    action: Option<(usize, Action)>,
}

pub type Action = Box<dyn FnOnce() + Send>;

impl Hook {
    /// How many calls there were.
    pub fn calls(&self) -> usize {
        self.0.lock().unwrap().calls
    }

    /// Does that after so many more calls.
    pub fn set(&self, after: usize, action: Action) {
        let mut hooked = self.0.lock().unwrap();
        let at = hooked.calls + after;
        hooked.action = Some((at, action));
    }

    /// Nothing is done until it is put back.
    pub fn take(&self) -> Option<(usize, Action)> {
        self.0.lock().unwrap().action.take()
    }

    pub fn put_back(&self, action: Option<(usize, Action)>) {
        self.0.lock().unwrap().action = action;
    }

    /// Whether it was done.
    pub fn is_done(&self) -> bool {
        self.0.lock().unwrap().action.is_none()
    }

    fn call(&self) {
        let mut hooked = self.0.lock().unwrap();
        let at = hooked.calls;
        hooked.calls += 1;
        let due = hooked.action.as_ref().is_some_and(|&(when, _)| when == at);
        let action = if due { hooked.action.take() } else { None };
        drop(hooked);
        if let Some((_, action)) = action {
            action();
        }
    }
}

/// The client's end of the byte queues.
pub struct Wire(pub(crate) Shared, pub(crate) Arc<Hook>);

impl Transport for Wire {
    fn poll_read(&mut self, cx: &mut Context<'_>, buf: &mut BytesMut) -> Poll<io::Result<usize>> {
        self.1.call();
        let read = lock(&self.0).poll_read(cx, buf);
        self.1.call();
        read
    }

    fn poll_write(&mut self, cx: &mut Context<'_>, out: &mut Transmit) -> Poll<io::Result<usize>> {
        self.1.call();
        let written = lock(&self.0).poll_write(cx, out);
        self.1.call();
        written
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.1.call();
        lock(&self.0).poll_flush(cx)
    }

    fn poll_close(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut world = lock(&self.0);
        if world.close_stalled {
            return Poll::Pending;
        }
        world.closed = true;
        Poll::Ready(Ok(()))
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        lock(&self.0).dropped = true;
    }
}

/// The clock that the test turns.
pub struct Clock(pub(crate) Shared, pub(crate) Arc<Hook>);

impl Timer for Clock {
    fn now(&self) -> Instant {
        self.1.call();
        lock(&self.0).now
    }

    fn clock(&self) -> amqp_driver::io::Clock {
        let world = Arc::clone(&self.0);
        Arc::new(move || lock(&world).now)
    }

    fn poll_deadline(&mut self, cx: &mut Context<'_>, at: Option<Instant>) -> Poll<()> {
        self.1.call();
        let due = lock(&self.0).poll_deadline(cx, at);
        self.1.call();
        due
    }
}
