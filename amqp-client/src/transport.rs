//! What an adapter brings.

use std::{
    io,
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

/// A monotonic clock and one alarm.
pub trait Timer: Send {
    /// The time now.
    fn now(&self) -> Instant;

    /// Ready when that time has come; the last call's time is the one that counts. Without a time
    /// it is never ready.
    fn poll_deadline(&mut self, cx: &mut Context<'_>, at: Option<Instant>) -> Poll<()>;
}
