//! What an adapter brings.

use std::{
    fmt,
    io::{self, IoSlice},
    ops::Deref,
    sync::Arc,
    task::{Context, Poll},
};

use amqp_core::{Instant, Transmit};
use bytes::BytesMut;

/// A byte stream, both ways, with what an adapter's runtime does when it is not ready.
///
/// As with the runtimes' own traits, a method that returns [`Poll::Pending`] has arranged for the
/// task to be woken.
pub trait Transport: Send {
    /// Reads into the spare capacity of `buf`, which is not empty, and appends what was read.
    /// Zero bytes mean that the peer sends nothing more.
    ///
    /// # Errors
    /// What the runtime says.
    fn poll_read(&mut self, cx: &mut Context<'_>, buf: &mut BytesMut) -> Poll<io::Result<usize>>;

    /// Writes from the front of `out`, which is not empty, and advances it by what was written.
    ///
    /// # Errors
    /// What the runtime says.
    fn poll_write(&mut self, cx: &mut Context<'_>, out: &mut Transmit) -> Poll<io::Result<usize>>;

    /// Sees to it that what was written is on its way.
    ///
    /// # Errors
    /// What the runtime says.
    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>>;

    /// Ends the stream.
    ///
    /// # Errors
    /// What the runtime says.
    fn poll_close(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>>;
}

/// The time of a [`Timer`], for any thread.
pub type Clock = Arc<dyn Fn() -> Instant + Send + Sync>;

/// A monotonic clock and one alarm.
pub trait Timer: Send {
    /// The time now.
    fn now(&self) -> Instant;

    /// Shows the same time to any thread. It is read often, and never with a lock held.
    fn clock(&self) -> Clock;

    /// Ready when that time has come; the last call's time is the one that counts. Without a time
    /// it is never ready.
    fn poll_deadline(&mut self, cx: &mut Context<'_>, at: Option<Instant>) -> Poll<()>;
}

/// How many pieces go into one vectored write. The kernel takes 1024; beyond a few dozen they gain
/// nothing.
const SLICES: usize = 64;

/// The front of what is to be sent, for one vectored write: what an adapter's
/// [`poll_write`](Transport::poll_write) passes on.
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
    /// As many pieces as one write should have, from the first on.
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
