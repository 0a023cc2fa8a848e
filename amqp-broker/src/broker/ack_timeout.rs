//! The timeout of acknowledgements
//! (<https://www.rabbitmq.com/docs/consumers#acknowledgement-timeout>).
//!
//! Each channel with unacknowledged deliveries has one deadline, which is not moved when they are
//! acknowledged: when it passes, the one of the then oldest delivery replaces it.

use super::Broker;
use crate::{keys::ChannelKey, model::channel::Channel, refusal::Refusal};

impl Broker {
    /// Registers the deadline of a channel that has an unacknowledged delivery, if it has none yet.
    pub(crate) fn watch_acks(&mut self, key: ChannelKey) {
        let Some(timeout) = self.config.consumer_timeout else {
            return;
        };
        let Ok(channel) = self.channel(key) else {
            return;
        };
        if channel.ack_deadline.is_none()
            && let Some(oldest) = channel.unacked.front()
        {
            let at = oldest.at + timeout;
            channel.ack_deadline = Some(at);
            self.ack_deadlines.insert((at, key));
        }
    }

    /// Removes the deadline of a channel that has ended.
    pub(super) fn unwatch_acks(&mut self, key: ChannelKey, channel: &mut Channel) {
        if let Some(at) = channel.ack_deadline.take() {
            self.ack_deadlines.remove(&(at, key));
        }
    }

    /// Closes the channels with a delivery that is overdue.
    pub(super) fn check_acks(&mut self) {
        while let Some(key) = self.next_ack_deadline() {
            let Ok(channel) = self.channel(key) else {
                continue;
            };
            channel.ack_deadline = None;
            let oldest = channel.unacked.front().map(|oldest| oldest.at);
            let timeout = self.config.consumer_timeout.unwrap_or_default();
            if oldest.is_some_and(|at| at + timeout <= self.now) {
                let refusal = Refusal::precondition(format_args!(
                    "delivery acknowledgement on channel {} timed out. Timeout value used: {} ms. \
                     This timeout value can be configured, see consumers doc guide to learn more",
                    key.id.number(),
                    timeout.as_millis()
                ));
                self.close_channel(key, &refusal, None);
            } else {
                self.watch_acks(key);
            }
        }
    }

    /// Takes the next channel with a deadline that has passed.
    fn next_ack_deadline(&mut self) -> Option<ChannelKey> {
        let (at, _) = self.ack_deadlines.first()?;
        if *at > self.now {
            return None;
        }
        self.ack_deadlines.pop_first().map(|(_, key)| key)
    }
}
