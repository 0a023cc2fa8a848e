//! The time of a connection: its clock, and what happens at its deadlines.

use core::time::Duration;

use super::{Life, Machine, Role};
use crate::{
    close::{CloseCause, TimeoutReason},
    time::Instant,
};

impl<R: Role> Machine<R> {
    pub(crate) fn handle_timeout(&mut self, now: Instant) {
        self.advance_clock(now);
        let now = self.now;
        self.events.release(now);
        self.arena.release(now);
        while let Some((request, channel)) = self.deadlines.expire(now) {
            if R::is_waiting(self, channel, request) {
                self.request_settled();
                R::on_request_timeout(self, channel, request);
            }
        }
        R::on_timeout(self);
        while let Some((at, reason)) = self.timers.next(now, self.has_transmit()) {
            if at > now {
                break;
            }
            match reason {
                TimeoutReason::HeartbeatDue => {
                    self.output.put_heartbeat();
                    self.stats.sent.heartbeats += 1;
                    self.timers.note_heartbeat_sent(now);
                    self.timers.note_waiting(now);
                }
                // The reason is the timeout, also after a requested close: the peer may not have
                // received all of the output accepted before.
                TimeoutReason::Close
                | TimeoutReason::Handshake
                | TimeoutReason::PeerSilent
                | TimeoutReason::PeerNotReading => {
                    self.finish(CloseCause::TimedOut(reason).into());
                    self.drop_output();
                }
                TimeoutReason::Secret => {
                    self.timers.set_secret(None);
                    R::on_secret_due(self);
                }
                // Not deadlines of the connection as a whole.
                TimeoutReason::SetDeadline
                | TimeoutReason::Idle
                | TimeoutReason::Request
                | TimeoutReason::Confirm
                | TimeoutReason::Publish
                | TimeoutReason::Flush
                | TimeoutReason::Checkout
                | TimeoutReason::Call => break,
            }
        }
    }

    /// Records that the transport has taken some of the output.
    pub(crate) fn handle_written(&mut self, now: Instant) {
        self.advance_clock(now);
        self.timers.note_written(self.now);
        if matches!(self.life, Life::Draining(_) | Life::Closing(_)) {
            self.timers.restart_close(self.now, self.timeouts.close);
        }
    }

    /// Sets the time after which a new secret is requested. `Some` if the secret expires.
    pub(crate) fn set_secret_deadline(&mut self, after: Option<Duration>) {
        if self.is_open() {
            self.timers.set_secret(after);
        }
    }

    /// Pauses or resumes the detection of a silent peer: called when the driver stops or resumes
    /// reading from the transport.
    pub(crate) fn set_reading(&mut self, now: Instant, reading: bool) {
        self.advance_clock(now);
        self.timers.pause_reading(!reading, self.now);
    }

    pub(crate) fn poll_timeout(&self) -> Option<(Instant, TimeoutReason)> {
        let connection = self.timers.next(self.now, self.has_transmit());
        let request = self.deadlines.next(self.now);
        let role = R::next_deadline(self);
        let idle = [self.events.release_at(), self.arena.release_at()];
        let idle = idle.into_iter().flatten().min();
        let idle = idle.filter(|_| !self.is_finished());
        let idle = idle.map(|at| (at, TimeoutReason::Idle));
        [connection, request, role, idle]
            .into_iter()
            .flatten()
            .min()
    }

    /// Advances the clock and arms the deadlines set by commands.
    #[inline]
    pub(super) fn advance_clock(&mut self, now: Instant) {
        self.now = self.now.max(now);
        self.timers.advance_clock(self.now);
        if self.output.has_transmit() {
            self.timers.note_waiting(self.now);
        }
        self.deadlines.advance_clock(self.now);
        R::on_time(self);
    }

    /// Allows the peer to stop reading for an unlimited time, or ends that permission.
    pub(crate) fn set_may_not_read(&mut self, allowed: bool) {
        self.timers.set_may_not_read(allowed, self.now);
    }
}
