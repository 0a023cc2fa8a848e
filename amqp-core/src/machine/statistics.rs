//! The statistics of a connection.

use super::{Machine, Role};
use crate::{
    stats::{ConnectionStats, HeartbeatStats},
    time::Instant,
};

impl<R: Role> Machine<R> {
    /// The statistics at the time `now`, or at the last time that is known if that is later.
    pub(crate) fn stats(&self, now: Instant) -> ConnectionStats {
        let mut stats = self.stats;
        if R::PUBLISHES {
            stats.published = self.output.messages();
            stats.blocked = self.timers.blocked(self.now.max(now));
        }
        stats.buffered = self.output.len() as u64;
        for id in self.channels.ids() {
            if let Some(channel) = self.channels.get(id) {
                let (unconfirmed, unacked) = R::outstanding(&channel.role);
                stats.unconfirmed += unconfirmed;
                stats.unacked += unacked;
            }
        }
        stats
    }

    pub(crate) fn heartbeats(&self) -> HeartbeatStats {
        let mut heartbeats = self.timers.heartbeats();
        heartbeats.interval = self.tuning.heartbeat_interval();
        heartbeats.sent.count = self.stats.sent.heartbeats;
        heartbeats.received.count = self.stats.received.heartbeats;
        heartbeats
    }

    pub(super) const fn heartbeat_received(&mut self) {
        self.stats.received.heartbeats += 1;
        self.timers.note_heartbeat_received(self.now);
    }
}
