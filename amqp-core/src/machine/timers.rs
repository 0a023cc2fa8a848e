//! The deadlines of a connection.

use alloc::collections::VecDeque;
use core::time::Duration;

use crate::{
    close::TimeoutReason,
    ids::{ChannelId, RequestId},
    stats::HeartbeatStats,
    time::Instant,
};

/// The deadlines of the connection as a whole.
#[derive(Debug)]
pub(crate) struct Timers {
    /// `Some` during the handshake: its deadline.
    handshake: Option<Instant>,
    /// `Some` while closing: its deadline.
    close: Option<Deadline>,
    /// `Some` if a new secret is to be requested: its deadline.
    secret: Option<Deadline>,
    /// The heartbeat interval. `Some` if heartbeats were negotiated (section 4.2.7 of the
    /// specification).
    interval: Option<Duration>,
    /// The time of the last output handed out.
    sent: Instant,
    /// `Some` while output, queued or handed out, is waiting for the transport, as of the last call
    /// with a time: when that began, or when the transport last made progress.
    unwritten: Option<Instant>,
    /// The time of the last input.
    heard: Instant,
    /// Whether reading is paused, so that silence is no sign of a dead peer.
    reading_paused: bool,
    /// Whether the peer may stop reading for an unlimited time.
    may_not_read: bool,
    /// The time of that permission, in all.
    blocked: Duration,
    /// `Some` while the permission holds: its beginning.
    blocked_since: Option<Instant>,
    /// The times of heartbeats.
    heartbeats: HeartbeatStats,
}

/// A deadline. Commands have no time argument: a deadline set by one is armed at the next call that
/// has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Deadline {
    In(Duration),
    At(Instant),
}

impl Timers {
    pub(crate) fn new(now: Instant, handshake: Duration) -> Self {
        Self {
            handshake: Some(now + handshake),
            close: None,
            secret: None,
            interval: None,
            sent: now,
            unwritten: None,
            heard: now,
            reading_paused: false,
            may_not_read: false,
            blocked: Duration::ZERO,
            blocked_since: None,
            heartbeats: HeartbeatStats::new(),
        }
    }

    pub(crate) const fn end_handshake(&mut self) {
        self.handshake = None;
    }

    /// Starts heartbeats at the negotiated interval. `None` for no heartbeats.
    pub(crate) const fn set_interval(&mut self, interval: Option<Duration>, now: Instant) {
        self.interval = interval;
        self.sent = now;
        self.heard = now;
        self.note_written(now);
    }

    /// Sets the deadline of the close, unless it is set already.
    pub(crate) fn start_close(&mut self, after: Duration) {
        self.close.get_or_insert(Deadline::In(after));
        self.handshake = None;
        self.secret = None;
    }

    /// Restarts the deadline of the close: its output has made progress.
    pub(crate) fn restart_close(&mut self, now: Instant, after: Duration) {
        self.close = Some(Deadline::At(now + after));
    }

    /// Sets or replaces the deadline for a new secret.
    pub(crate) fn set_secret(&mut self, after: Option<Duration>) {
        self.secret = after.map(Deadline::In);
    }

    /// Records that the transport has asked for output, having taken all of the previous output.
    /// `handed_out` is whether it got any.
    pub(crate) const fn note_polled(&mut self, now: Instant, handed_out: bool) {
        if handed_out {
            self.sent = now;
            self.unwritten = Some(now);
        } else {
            self.unwritten = None;
        }
    }

    /// Records that output is waiting for the transport.
    pub(crate) fn note_waiting(&mut self, now: Instant) {
        self.unwritten.get_or_insert(now);
    }

    /// Records that the transport has taken some of the output, possibly not all.
    pub(crate) const fn note_written(&mut self, now: Instant) {
        if self.unwritten.is_some() {
            self.unwritten = Some(now);
        }
    }

    pub(crate) fn set_may_not_read(&mut self, allowed: bool, now: Instant) {
        self.may_not_read = allowed;
        self.note_written(now);
        if allowed {
            self.blocked_since.get_or_insert(now);
        } else {
            self.blocked = self.blocked(now);
            self.blocked_since = None;
        }
    }

    /// The time for which the peer was allowed not to read, in all, until `now`.
    pub(crate) fn blocked(&self, now: Instant) -> Duration {
        let current = self
            .blocked_since
            .map_or(Duration::ZERO, |since| now - since);
        self.blocked.saturating_add(current)
    }

    pub(crate) const fn note_heartbeat_sent(&mut self, now: Instant) {
        self.heartbeats.sent.note(now);
    }

    pub(crate) const fn note_heartbeat_received(&mut self, now: Instant) {
        self.heartbeats.received.note(now);
    }

    /// The times of heartbeats, without their numbers.
    pub(crate) const fn heartbeats(&self) -> HeartbeatStats {
        self.heartbeats
    }

    pub(crate) const fn note_heard(&mut self, now: Instant) {
        self.heard = now;
    }

    pub(crate) const fn pause_reading(&mut self, reading_paused: bool, now: Instant) {
        self.reading_paused = reading_paused;
        self.heard = now;
    }

    /// Stops all timers.
    pub(crate) const fn stop(&mut self) {
        self.handshake = None;
        self.close = None;
        self.secret = None;
        self.interval = None;
    }

    /// Ends the time in which the peer may not read: the connection has ended.
    pub(crate) fn end_blocked(&mut self, now: Instant) {
        self.blocked = self.blocked(now);
        self.blocked_since = None;
    }

    /// Arms the deadlines set by commands.
    pub(crate) fn advance_clock(&mut self, now: Instant) {
        for deadline in [&mut self.close, &mut self.secret] {
            if let Some(Deadline::In(after)) = *deadline {
                *deadline = Some(Deadline::At(now + after));
            }
        }
    }

    /// The next deadline. `waiting` is whether output is waiting, in which case no heartbeat is
    /// due: any sent octet replaces one (section 4.2.7 of the specification). A peer is considered
    /// dead after two intervals, as in <https://www.rabbitmq.com/docs/heartbeats>.
    pub(crate) fn next(&self, now: Instant, waiting: bool) -> Option<(Instant, TimeoutReason)> {
        let when = |deadline: Option<Deadline>, reason| {
            deadline.map(|deadline| match deadline {
                Deadline::In(_) => (now, TimeoutReason::SetDeadline),
                Deadline::At(at) => (at, reason),
            })
        };
        let close = when(self.close, TimeoutReason::Close);
        let secret = when(self.secret, TimeoutReason::Secret);
        let handshake = self.handshake.map(|at| (at, TimeoutReason::Handshake));
        let due = self
            .interval
            .filter(|_| !waiting)
            .map(|interval| (self.sent + interval / 2, TimeoutReason::HeartbeatDue));
        let stuck = self
            .interval
            .zip(self.unwritten.filter(|_| !self.may_not_read))
            .map(|(interval, since)| (since + interval * 2, TimeoutReason::PeerNotReading));
        let silent = self
            .interval
            .filter(|_| !self.reading_paused)
            .map(|interval| (self.heard + interval * 2, TimeoutReason::PeerSilent));
        [close, secret, handshake, due, silent, stuck]
            .into_iter()
            .flatten()
            .min()
    }
}

/// The deadlines of unanswered requests. All have the same timeout, so that they are ordered as the
/// requests were made.
#[derive(Debug, Default)]
pub(crate) struct RequestDeadlines {
    /// The timeout. `None` for no timeout.
    after: Option<Duration>,
    /// May contain answered requests, until they reach the front or are swept out.
    queue: VecDeque<Entry>,
    /// The number of unanswered requests.
    open: usize,
    /// The number of entries at the back with a deadline that is not armed yet.
    unset: usize,
}

/// A request, the channel it was made on, and its deadline. The channel is `None` for a request on
/// the connection itself; the deadline is `Some` once it is armed.
type Entry = (RequestId, Option<ChannelId>, Option<Instant>);

/// Answered requests are swept out when there are this many more than unanswered ones.
const SWEEP_FROM: usize = 64;

impl RequestDeadlines {
    pub(crate) const fn new(after: Option<Duration>) -> Self {
        Self {
            after,
            queue: VecDeque::new(),
            open: 0,
            unset: 0,
        }
    }

    pub(crate) fn add(&mut self, id: RequestId, channel: Option<ChannelId>) {
        if self.after.is_some() {
            self.queue.push_back((id, channel, None));
            self.open += 1;
            self.unset += 1;
        }
    }

    /// Records that one request was answered. `is_open` returns whether a request is still
    /// unanswered.
    pub(crate) fn settle(&mut self, is_open: impl Fn(RequestId, Option<ChannelId>) -> bool) {
        if self.after.is_none() {
            return;
        }
        self.open = self.open.saturating_sub(1);
        if self.queue.len() > 2 * self.open + SWEEP_FROM {
            self.queue.retain(|&(id, channel, _)| is_open(id, channel));
            self.unset = self.queue.iter().filter(|entry| entry.2.is_none()).count();
        }
    }

    pub(crate) fn advance_clock(&mut self, now: Instant) {
        let Some(after) = self.after.filter(|_| self.unset > 0) else {
            return;
        };
        for entry in self.queue.iter_mut().rev().take(self.unset) {
            entry.2 = Some(now + after);
        }
        self.unset = 0;
    }

    /// Removes and returns the first entry if its deadline has passed. The request may already be
    /// answered.
    pub(crate) fn expire(&mut self, now: Instant) -> Option<(RequestId, Option<ChannelId>)> {
        let &(id, channel, at) = self.queue.front()?;
        if at? > now {
            return None;
        }
        self.queue.pop_front();
        Some((id, channel))
    }

    pub(crate) fn next(&self, now: Instant) -> Option<(Instant, TimeoutReason)> {
        if self.open == 0 {
            return None;
        }
        if self.unset > 0 {
            return Some((now, TimeoutReason::SetDeadline));
        }
        let &(_, _, at) = self.queue.front()?;
        Some((at?, TimeoutReason::Request))
    }

    pub(crate) fn clear(&mut self) {
        self.queue = VecDeque::new();
        self.open = 0;
        self.unset = 0;
    }
}
