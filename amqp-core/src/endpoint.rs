//! The operations that a driver needs of any connection.

use bytes::BytesMut;

use crate::{close::TimeoutReason, time::Instant, transmit::Transmit};

/// One side of a connection, for drivers that work with either.
///
/// The methods are those of [`Connection`](crate::Connection), where they are described.
pub trait Endpoint {
    /// Processes input. Consumes all complete frames at the front of `input`.
    fn handle_input(&mut self, now: Instant, input: &mut BytesMut);
    /// Reports the end of the transport.
    fn handle_eof(&mut self, now: Instant);
    /// Reports that the transport failed because the peer hung up. A server treats it as any other
    /// failure.
    fn handle_reset(&mut self, now: Instant, message: &str) {
        self.handle_transport_error(now, message);
    }
    /// Reports a failure of the transport.
    fn handle_transport_error(&mut self, now: Instant, message: &str);
    /// Processes all deadlines that have passed.
    fn handle_timeout(&mut self, now: Instant);
    /// Reports that the transport has taken some of the output. A server ignores it.
    fn handle_written(&mut self, now: Instant) {
        let _ = now;
    }
    /// Moves output to `out`. Returns whether there was any.
    fn poll_transmit(&mut self, now: Instant, out: &mut Transmit) -> bool;
    /// Returns the time at which to call [`handle_timeout`](Self::handle_timeout), and the reason.
    fn poll_timeout(&self) -> Option<(Instant, TimeoutReason)>;
    /// Returns the number of bytes that the frame in progress needs at least.
    fn read_hint(&self) -> usize;
    /// Returns the expected size of the next frames in the middle of a large body, otherwise 0, as
    /// by default.
    fn frame_hint(&self) -> usize {
        0
    }
    /// Whether the connection has ended and all of its output was handed out.
    fn is_finished(&self) -> bool;
}
