//! The deadlines of a link beside AMQP's own: joining, and the probe of silence.

use std::time::Duration;

use amqp_core::Instant;

use super::{
    Machine,
    link::{Link, Stage},
};
use crate::cause::DownCause;

impl Machine {
    /// The next deadline of the keepalive, and whether it is the end of the wait for an answer.
    pub(super) fn keepalive_at(&self, link: &Link) -> Option<(Instant, bool)> {
        let keepalive = self.config.keepalive.filter(|_| link.is_up())?;
        // The throttle of receiving may leave the answer unread for a moment.
        let throttled = link.receive_bucket.is_some();
        let slack = if throttled { SLACK } else { Duration::ZERO };
        Some(match link.probed {
            Some(probed) => (probed + keepalive.wait + slack, true),
            None => (link.heard + keepalive.interval, false),
        })
    }

    /// Handles the deadlines of a link that have passed.
    pub(super) fn check_deadlines(&mut self, link: &mut Link) {
        let now = self.now;
        if !matches!(link.stage, Stage::Up | Stage::Ended) && link.join_by <= now {
            link.cause = Some(DownCause::Handshake);
            self.cut(link, "the link was not up in time");
        }
        match self.keepalive_at(link) {
            Some((at, true)) if at <= now => {
                link.cause = Some(DownCause::Silent);
                self.cut(link, "the peer did not answer a probe");
            }
            Some((at, false)) if at <= now => link.probe(now),
            _ => {}
        }
    }

    /// Handles input after a probe: the link is alive.
    pub(super) fn answered(&mut self, link: &Link) {
        if let Some(key) = link.peer {
            self.incumbent_is_alive(key);
        }
    }
}

/// The time that a throttled link may take longer to answer.
const SLACK: Duration = Duration::from_secs(1);
