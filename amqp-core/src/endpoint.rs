//! What drives alike: the verbs that both sides of a connection share.

use bytes::BytesMut;

use crate::{close::TimeoutReason, time::Instant, transmit::Transmit};

/// One end of a connection, for code that moves bytes and time and does not care which end it is.
///
/// The methods are those of [`client::Connection`](crate::client::Connection) and
/// [`server::Connection`](crate::server::Connection), where they are described.
pub trait Endpoint {
    /// Bytes came in; takes the whole frames off the front.
    fn handle_input(&mut self, now: Instant, input: &mut BytesMut);
    /// The transport ended.
    fn handle_eof(&mut self, now: Instant);
    /// The transport failed because the peer has hung up. To a server that is a failure like any
    /// other.
    fn handle_reset(&mut self, now: Instant, message: &str) {
        self.handle_transport_error(now, message);
    }
    /// The transport failed.
    fn handle_transport_error(&mut self, now: Instant, message: &str);
    /// Time has passed.
    fn handle_timeout(&mut self, now: Instant);
    /// The transport has taken some of what was handed out. To a server it makes no difference.
    fn handle_written(&mut self, now: Instant) {
        let _ = now;
    }
    /// Moves bytes to send into `out`; false if there are none.
    fn poll_transmit(&mut self, now: Instant, out: &mut Transmit) -> bool;
    /// When to call [`handle_timeout`](Self::handle_timeout), and what for.
    fn poll_timeout(&self) -> Option<(Instant, TimeoutReason)>;
    /// How many more bytes the frame in progress needs at least.
    fn read_hint(&self) -> usize;
    /// Whether it is all over.
    fn is_finished(&self) -> bool;
}
