//! The deadlines of a connection.

use alloc::collections::VecDeque;
use core::time::Duration;

use crate::{
    close::TimeoutReason,
    ids::{ChannelId, RequestId},
    time::Instant,
};

/// When the connection as a whole wants attention.
#[derive(Debug)]
pub(crate) struct Timers {
    /// The end of the handshake; none when it is over.
    handshake: Option<Instant>,
    /// The end of closing; none when nothing is closing.
    close: Option<Deadline>,
    /// When a new secret is wanted; none for never.
    secret: Option<Deadline>,
    /// The heartbeat interval; none when there are no heartbeats.
    interval: Option<Duration>,
    /// When bytes were last handed to the transport.
    sent: Instant,
    /// Since when something waits that the transport has not taken, be it queued or handed out;
    /// none when nothing does, as of the last call that was told the time. Each progress of the
    /// transport begins it anew.
    unwritten: Option<Instant>,
    /// When bytes last came in.
    heard: Instant,
    /// Nobody reads, so that silence says nothing about the peer.
    deaf: bool,
    /// The peer may stop reading for as long as it likes.
    may_not_read: bool,
}

/// A deadline. A command does not know the time: its deadline is set at the next call that does.
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
            deaf: false,
            may_not_read: false,
        }
    }

    pub(crate) const fn end_handshake(&mut self) {
        self.handshake = None;
    }

    /// Heartbeats begin, at the interval agreed on.
    pub(crate) const fn set_interval(&mut self, interval: Option<Duration>, now: Instant) {
        self.interval = interval;
        self.sent = now;
        self.heard = now;
        self.note_written(now);
    }

    /// Sets the deadline of closing, unless it is set.
    pub(crate) fn start_close(&mut self, after: Duration) {
        self.close.get_or_insert(Deadline::In(after));
        self.handshake = None;
        self.secret = None;
    }

    /// The output of a connection that is closing has moved: its time begins anew.
    pub(crate) fn restart_close(&mut self, now: Instant, after: Duration) {
        self.close = Some(Deadline::At(now + after));
    }

    /// Sets when a new secret is wanted, in place of what was set before.
    pub(crate) fn set_secret(&mut self, after: Option<Duration>) {
        self.secret = after.map(Deadline::In);
    }

    /// The transport has asked for output, having taken all of what it got before. Whether it got
    /// any.
    pub(crate) const fn note_polled(&mut self, now: Instant, handed_out: bool) {
        if handed_out {
            self.sent = now;
            self.unwritten = Some(now);
        } else {
            self.unwritten = None;
        }
    }

    /// Something waits for the transport.
    pub(crate) fn note_waiting(&mut self, now: Instant) {
        self.unwritten.get_or_insert(now);
    }

    /// The transport has taken something, and may not have taken all.
    pub(crate) const fn note_written(&mut self, now: Instant) {
        if self.unwritten.is_some() {
            self.unwritten = Some(now);
        }
    }

    pub(crate) const fn set_may_not_read(&mut self, allowed: bool, now: Instant) {
        self.may_not_read = allowed;
        self.note_written(now);
    }

    pub(crate) const fn note_heard(&mut self, now: Instant) {
        self.heard = now;
    }

    pub(crate) const fn set_deaf(&mut self, deaf: bool, now: Instant) {
        self.deaf = deaf;
        self.heard = now;
    }

    /// Everything is over.
    pub(crate) const fn stop(&mut self) {
        self.handshake = None;
        self.close = None;
        self.secret = None;
        self.interval = None;
    }

    /// Sets what waits for the time.
    pub(crate) fn learn(&mut self, now: Instant) {
        for deadline in [&mut self.close, &mut self.secret] {
            if let Some(Deadline::In(after)) = *deadline {
                *deadline = Some(Deadline::At(now + after));
            }
        }
    }

    /// The next deadline. `waiting` tells whether there is something to send, which will be the sign
    /// of life: none is due besides.
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
            .filter(|_| !self.deaf)
            .map(|interval| (self.heard + interval * 2, TimeoutReason::PeerSilent));
        [close, secret, handshake, due, silent, stuck]
            .into_iter()
            .flatten()
            .min()
    }
}

/// The requests that wait for an answer, in the order of their deadlines. All wait equally long, so
/// that the order is the one in which they were made.
#[derive(Debug, Default)]
pub(crate) struct RequestDeadlines {
    /// How long each waits; none for ever.
    after: Option<Duration>,
    /// Answered ones are left in until they come to the front, or are too many.
    queue: VecDeque<Entry>,
    /// How many of the queue are unanswered.
    open: usize,
    /// How many at the back have no time yet.
    unset: usize,
}

/// A request, the channel it was made on unless the connection itself, and its deadline once that
/// is set.
type Entry = (RequestId, Option<ChannelId>, Option<Instant>);

/// Answered requests are swept out of the queue when there are this many more than open ones.
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

    /// One of the queue was answered. `is_open` tells of each whether it still waits.
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

    pub(crate) fn learn(&mut self, now: Instant) {
        let Some(after) = self.after.filter(|_| self.unset > 0) else {
            return;
        };
        for entry in self.queue.iter_mut().rev().take(self.unset) {
            entry.2 = Some(now + after);
        }
        self.unset = 0;
    }

    /// Takes out the first request, when its time has come.
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
