//! The peer as a pure state machine.

mod info;

use amqp_core::{Instant, TimeoutReason, Transmit};
use bytes::{Bytes, BytesMut};

pub use self::info::{Client, LinkInfo, OutboxInfo};
pub use crate::event::{Event, Received, Token};
use crate::{
    cause::{LinkError, SendError},
    config::{Config, ConfigError, Receipts},
    event::LinkKey,
    message::{Message, MessageId},
    name::PeerName,
    storage::{Batch, BatchId, Stored, WallTime},
};

/// A peer as a pure state machine with many links.
#[derive(Debug)]
pub struct Machine {
    config: Config,
}

#[expect(unused_variables, reason = "signatures first")]
impl Machine {
    /// Creates a peer with what a storage has kept of an earlier run. `wall` is the wall time at
    /// `now`.
    ///
    /// # Errors
    /// [`ConfigError`] for a setting outside its bounds.
    pub fn new(
        config: Config,
        stored: Stored,
        now: Instant,
        wall: WallTime,
    ) -> Result<Self, ConfigError> {
        config.check()?;
        Ok(Self { config })
    }

    /// Returns the configuration.
    #[must_use]
    pub const fn config(&self) -> &Config {
        &self.config
    }

    // Links. They are driven as the connections of `amqp_broker::Broker` are.

    /// Begins a link over a transport that this side has connected.
    ///
    /// # Errors
    /// [`LinkError`]: close the transport.
    pub fn dial(&mut self, now: Instant) -> Result<LinkKey, LinkError> {
        Err(LinkError::Stopped)
    }

    /// Begins a link over a transport that a listener has accepted.
    ///
    /// # Errors
    /// [`LinkError`]: close the transport.
    pub fn accept(&mut self, now: Instant) -> Result<LinkKey, LinkError> {
        Err(LinkError::Stopped)
    }

    /// Notes the certificates that the peer has shown, in DER, its own one first. Call it before
    /// the first input.
    pub fn handle_certificates(&mut self, link: LinkKey, certificates: Vec<Bytes>) {}

    /// Handles received bytes: removes complete frames from the front of `input`.
    pub fn handle_input(&mut self, link: LinkKey, now: Instant, input: &mut BytesMut) {}

    /// Handles the end of the transport.
    pub fn handle_eof(&mut self, link: LinkKey, now: Instant) {}

    /// Handles a failure of the transport because the peer has hung up, with its message.
    pub fn handle_reset(&mut self, link: LinkKey, now: Instant, message: &str) {}

    /// Handles a failure of the transport, with its message.
    pub fn handle_transport_error(&mut self, link: LinkKey, now: Instant, message: &str) {}

    /// Handles the time of [`poll_link_timeout`](Self::poll_link_timeout).
    pub fn handle_link_timeout(&mut self, link: LinkKey, now: Instant) {}

    /// Handles a partial write of the output.
    pub fn handle_written(&mut self, link: LinkKey, now: Instant) {}

    /// Moves bytes to send into `out`, behind its contents. Returns `false` if there are none, or
    /// none that the throttle allows now: [`poll_link_timeout`](Self::poll_link_timeout) is then
    /// the time at which there are. Call it when the contents of `out` have been written.
    pub fn poll_transmit(&mut self, link: LinkKey, now: Instant, out: &mut Transmit) -> bool {
        false
    }

    /// Whether [`poll_transmit`](Self::poll_transmit) would return bytes now.
    #[must_use]
    pub fn has_transmit(&self, link: LinkKey, now: Instant) -> bool {
        false
    }

    /// Returns the next deadline of a link, for
    /// [`handle_link_timeout`](Self::handle_link_timeout), after which the link is to be driven.
    #[must_use]
    pub fn poll_link_timeout(&self, link: LinkKey) -> Option<(Instant, TimeoutReason)> {
        None
    }

    /// Whether to read from the transport. `false` while the throttle of receiving forbids it.
    pub fn wants_input(&mut self, link: LinkKey, now: Instant) -> bool {
        true
    }

    /// Returns the number of bytes to read at most now, for an accurate throttle of receiving.
    #[must_use]
    pub fn read_budget(&self, link: LinkKey, now: Instant) -> usize {
        usize::MAX
    }

    /// Returns the number of bytes that the frame in progress needs at least.
    #[must_use]
    pub fn read_hint(&self, link: LinkKey) -> usize {
        0
    }

    /// Whether the link has ended and all of its output was handed out. Also `true` for a link that
    /// was removed.
    #[must_use]
    pub fn is_finished(&self, link: LinkKey) -> bool {
        true
    }

    /// Whether to send the rest of the output after the link's end, such as the answer to the
    /// peer's close.
    #[must_use]
    pub fn flush_on_close(&self, link: LinkKey) -> bool {
        true
    }

    /// Removes a link whose driver is gone: no bytes move any more.
    pub fn remove(&mut self, link: LinkKey, now: Instant) {}

    /// Takes a plain AMQP client out of a link, if one has come and
    /// [clients are allowed](crate::Clients::Allow). The link ends without an event; the transport
    /// belongs to the client's machine from now on.
    pub fn take_client(&mut self, link: LinkKey) -> Option<Client> {
        None
    }

    /// Returns the next link that is to be driven: it has output or another deadline, may be read
    /// from again, or has ended. To be called after any other call.
    pub fn poll_wake(&mut self) -> Option<LinkKey> {
        None
    }

    // Messages.

    /// Puts a message into the outbox of its receiver, to be sent over the link to it, now or
    /// later.
    ///
    /// # Errors
    /// [`SendError`]; nothing has changed. With [`room`](Self::room) beforehand, it is not
    /// [`SendError::Full`].
    pub fn send(
        &mut self,
        now: Instant,
        to: &PeerName,
        message: Message,
    ) -> Result<MessageId, SendError> {
        self.send_with(now, to, message, self.config.receipts)
    }

    /// As [`send`](Self::send), with other receipts than those of the configuration.
    ///
    /// # Errors
    /// As [`send`](Self::send).
    pub fn send_with(
        &mut self,
        now: Instant,
        to: &PeerName,
        message: Message,
        receipts: Receipts,
    ) -> Result<MessageId, SendError> {
        Err(SendError::Stopped)
    }

    /// Whether the outbox of a receiver has room for a message of that many bytes by
    /// [`Message::memory`]. If not, [`poll_room`](Self::poll_room) names it when it has room again.
    #[must_use]
    pub fn room(&mut self, to: &PeerName, bytes: usize) -> bool {
        false
    }

    /// Returns the next receiver that has room again, after it had none.
    pub fn poll_room(&mut self) -> Option<PeerName> {
        None
    }

    /// Accepts a received message: it is acknowledged, and not given again. Does nothing if it was
    /// accepted or requeued before.
    pub fn settle(&mut self, now: Instant, token: Token) {}

    /// Gives a received message back: its sender sends it again, behind those under way. Does
    /// nothing if it was accepted or requeued before.
    pub fn requeue(&mut self, now: Instant, token: Token) {}

    /// Returns the next event.
    pub fn poll_event(&mut self) -> Option<Event> {
        None
    }

    /// Whether a link to that peer is up.
    #[must_use]
    pub fn is_up(&self, name: &PeerName) -> bool {
        false
    }

    /// Returns the links, in the order in which they were begun.
    pub fn links(&self) -> impl Iterator<Item = LinkInfo> + '_ {
        std::iter::empty()
    }

    /// Returns the state of the outbox of a receiver.
    #[must_use]
    pub fn outbox(&self, name: &PeerName) -> OutboxInfo {
        OutboxInfo::default()
    }

    /// Ends the link to a peer, if one is up. What was not acknowledged waits for the next one.
    pub fn disconnect(&mut self, name: &PeerName, now: Instant) {}

    /// Drops all messages that wait for a receiver, each with an event.
    pub fn forget(&mut self, name: &PeerName, now: Instant) {}

    /// Stops the peer: ends all links, and takes no message any more. Transient messages are
    /// dropped with an event; persistent ones stay in the storage.
    pub fn stop(&mut self, now: Instant) {}

    /// Whether the peer has stopped.
    #[must_use]
    pub fn is_stopped(&self) -> bool {
        false
    }

    // Time.

    /// Returns the next deadline of the peer itself, such as the end of a time to live.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        None
    }

    /// Handles the time of [`poll_timeout`](Self::poll_timeout).
    pub fn handle_timeout(&mut self, now: Instant) {}

    // Storage.

    /// Returns the next changes to be stored. Batches are stored in order; further ones may be
    /// taken meanwhile.
    pub fn poll_changes(&mut self) -> Option<Batch> {
        None
    }

    /// Returns the number of the batch that the latest change is in, or will be in. `None` if
    /// there was no change yet. A persistent message that was sent is stored with that batch.
    #[must_use]
    pub fn latest_batch(&self) -> Option<BatchId> {
        None
    }

    /// Whether a batch is stored, and with it all before it.
    #[must_use]
    pub fn is_stored(&self, batch: BatchId) -> bool {
        false
    }

    /// Notes that all batches up to one are stored. What depends on them goes on: the first
    /// transmission of persistent messages, and acknowledgements of received ones.
    pub fn handle_stored(&mut self, now: Instant, up_to: BatchId) {}

    /// Notes that storing has failed, with the error's text. The batch has to be stored again; until
    /// that has worked, nothing persistent is taken.
    pub fn handle_store_failed(&mut self, now: Instant, message: &str) {}
}
