//! The traits of an adapter's streams and clock.

use std::{
    fmt,
    io::{self, IoSlice},
    ops::Deref,
    sync::{Arc, LazyLock},
    task::{Context, Poll, Wake, Waker},
};

use amqp_core::{Instant, Transmit};
use bytes::BytesMut;

use super::lent::LentDriver;

/// A byte stream in both directions, polled by a task of the adapter's runtime.
///
/// As with the runtimes' own traits, a method that returns [`Poll::Pending`] has arranged for the
/// task to be woken.
pub trait Transport: Send {
    /// Reads into the spare capacity of `buf`, which is not empty, and appends the bytes read. Zero
    /// bytes mean the end of the peer's output.
    ///
    /// # Errors
    /// The runtime's error.
    fn poll_read(&mut self, cx: &mut Context<'_>, buf: &mut BytesMut) -> Poll<io::Result<usize>>;

    /// Writes from the front of `out`, which is not empty, and advances it by the bytes written.
    ///
    /// # Errors
    /// The runtime's error.
    fn poll_write(&mut self, cx: &mut Context<'_>, out: &mut Transmit) -> Poll<io::Result<usize>>;

    /// Flushes the bytes written.
    ///
    /// # Errors
    /// The runtime's error.
    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>>;

    /// Whether a command that awaits its answer, beside no other, may write and flush on its own
    /// thread, which saves a wake-up of the driver's task. Such a poll may be on any thread, outside
    /// of the runtime and within a task of another; its waker is [`no_wakeup`], and if it is
    /// [`Pending`](Poll::Pending), the task is woken and polls again. The default is `false`.
    fn is_inline(&self) -> bool {
        false
    }

    /// The function that takes the driver for the thread of a command that was written
    /// [inline](Self::is_inline), to use it while the command waits for its answer. It is called on
    /// that thread, and may drop the driver. The transport is then polled on that thread, too; a poll
    /// on the task's thread comes at any time in between. The default is none.
    fn lender(&self) -> Option<fn(LentDriver)> {
        None
    }

    /// Ends the output: the peer reads the end of the stream. Input is still read afterwards.
    ///
    /// # Errors
    /// The runtime's error.
    fn poll_close(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>>;
}

/// Wakes nothing. A waker of this type equals no other, as [`Waker::noop`] may.
struct NoWakeup;

impl Wake for NoWakeup {
    fn wake(self: Arc<Self>) {}
}

static NO_WAKEUP: LazyLock<Waker> = LazyLock::new(|| Waker::from(Arc::new(NoWakeup)));

/// The waker of the polls of an [inline](Transport::is_inline) transport by a command, which arrange
/// no wake-up. A transport recognizes it by [`Waker::will_wake`].
#[must_use]
pub fn no_wakeup() -> &'static Waker {
    &NO_WAKEUP
}

/// The time of a [`Timer`], readable from any thread.
pub type Clock = Arc<dyn Fn() -> Instant + Send + Sync>;

/// A monotonic clock and one alarm.
pub trait Timer: Send {
    /// The current time.
    fn now(&self) -> Instant;

    /// Returns the same time, readable from any thread. It is read often, and never with a lock
    /// held.
    fn clock(&self) -> Clock;

    /// Ready once the time `at` has passed; each call replaces the time of the one before. Never
    /// ready without a time.
    fn poll_deadline(&mut self, cx: &mut Context<'_>, at: Option<Instant>) -> Poll<()>;

    /// Arranges that the task is woken after the runtime has looked for events of sockets. The
    /// default wakes it at once, which is enough where that look does not wait for idle tasks.
    fn yield_now(&mut self, cx: &mut Context<'_>) {
        cx.waker().wake_by_ref();
    }
}

/// The maximum number of slices in one vectored write. The kernel accepts 1024; more than a few
/// dozen gain nothing.
const SLICES: usize = 64;

/// The front of the output, as the slices of one vectored write. An adapter's
/// [`poll_write`](Transport::poll_write) passes them on.
///
/// ```
/// use std::io::Write;
/// use amqp_driver::{Config, io::Slices, core::{Instant, Transmit, client}};
/// use bytes::Buf;
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let mut machine = client::Connection::new(Config::default(), Instant::ORIGIN)?;
/// let mut out = Transmit::new();
/// machine.poll_transmit(Instant::ORIGIN, &mut out);
///
/// let mut socket = Vec::new();
/// let count = socket.write_vectored(&Slices::of(&out))?;
/// out.advance(count);
/// assert_eq!(socket, *b"AMQP\0\0\x09\x01");
/// # Ok(()) }
/// ```
pub struct Slices<'a> {
    slices: [IoSlice<'a>; SLICES],
    count: usize,
}

impl<'a> Slices<'a> {
    /// Returns the first segments of `out`, as many as one write should have.
    #[must_use]
    pub fn of(out: &'a Transmit) -> Self {
        let mut slices = [IoSlice::new(&[]); SLICES];
        let mut count = 0;
        for (slice, segment) in slices.iter_mut().zip(out.segments()) {
            *slice = IoSlice::new(segment);
            count += 1;
        }
        Self { slices, count }
    }
}

impl<'a> Deref for Slices<'a> {
    type Target = [IoSlice<'a>];

    fn deref(&self) -> &Self::Target {
        &self.slices[..self.count]
    }
}

impl fmt::Debug for Slices<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list()
            .entries(self.iter().map(|slice| slice.len()))
            .finish()
    }
}
