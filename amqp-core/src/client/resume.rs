//! Connections that take the place of an ended one, and channels that are opened again.

use alloc::collections::BTreeMap;

use super::{Client, Config, Connection, channel_state::Numbering};
use crate::{
    error::ApiMisuse,
    ids::{ChannelId, RequestId},
    machine::{ChannelLife, Machine},
    protocol::channel as channel_class,
    time::Instant,
};

/// The last numbers of the channels that have ended, for those that are opened again. At most one
/// per channel number.
#[derive(Debug, Default)]
pub(super) struct Ended(BTreeMap<u16, (ChannelId, Numbering)>);

impl Connection {
    /// Replaces an ended connection by one on a new transport, and returns the ended one. The
    /// request numbers, channel identifiers and statistics go on, so that none of them is ambiguous.
    /// No channel is open; [`reopen_channel`](Self::reopen_channel) opens one of before. Events that
    /// were not polled stay with the ended connection.
    ///
    /// ```
    /// use amqp_core::{Instant, client::{Config, Connection}};
    ///
    /// let now = Instant::ORIGIN; // from a monotonic clock
    /// let config = Config::default().resumable(true);
    /// let mut connection = Connection::new(config.clone(), now)?;
    /// connection.handle_eof(now);
    /// let ended = connection.resume(config, now)?;
    /// assert!(ended.close_reason().is_some());
    /// assert!(connection.close_reason().is_none());
    /// # Ok::<_, amqp_core::ApiMisuse>(())
    /// ```
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn resume(&mut self, config: Config, now: Instant) -> Result<Self, ApiMisuse> {
        let mut resumed = Self::new(config, now)?;
        let ended = &mut self.0;
        resumed.0.role.ended = core::mem::take(&mut ended.role.ended);
        resumed.0.continue_from(ended);
        Ok(core::mem::replace(self, resumed))
    }

    /// Opens a channel that has ended, under the same identifier: a channel of the connection
    /// before, or one that the server has closed. The request's reply is `channel.open-ok`.
    ///
    /// With [`Config::resumable`] the delivery tags, publish numbers and consumers of the channel go
    /// on counting, so that those of before name nothing else: an acknowledgement of an earlier
    /// delivery is refused with [`ApiMisuse::StaleDeliveryTag`]. The server knows nothing of before:
    /// prefetch, confirm mode and consumers
    /// ([`resume_consumer`](super::ChannelMut::resume_consumer)) are set again.
    ///
    /// # Errors
    /// When the connection is not open, the number is in use, was used by a later channel or exceeds
    /// the negotiated `channel_max`, or [too many requests](crate::Limits::unsent_requests) wait to
    /// be sent.
    pub fn reopen_channel(&mut self, id: ChannelId) -> Result<RequestId, ApiMisuse> {
        let machine = &mut self.0;
        machine.check_open()?;
        machine.check_requests(None)?;
        let request = machine.next_request();
        machine.readd_channel(id, ChannelLife::Opening(request))?;
        let before = machine.role.ended.0.remove(&id.number());
        if let Some((_, numbering)) = before.filter(|(ended, _)| *ended == id)
            && let Some(channel) = machine.channel_mut(id)
        {
            channel.role.continue_from(numbering);
        }
        machine.put_request_anyway(id, &channel_class::Open);
        machine.add_deadline(request, Some(id));
        Ok(request)
    }
}

impl Machine<Client> {
    /// Keeps the last numbers of a channel that ends, if the connection is resumable.
    pub(super) fn keep_numbering(&mut self, id: ChannelId) {
        if !self.role.resumable {
            return;
        }
        if let Some(numbering) = self.channel(id).map(|channel| channel.role.numbering()) {
            self.role.ended.0.insert(id.number(), (id, numbering));
        }
    }
}
