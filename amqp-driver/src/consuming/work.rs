//! The loop over deliveries, one step at a time.

use std::{
    future::Future,
    mem,
    task::{Context, Poll},
};

use super::{
    claim::Settled,
    end::{Counts, Failure},
    lanes::Lanes,
    options::{Buffered, Key},
    running::Running,
    source::{Arrival, Source},
    stopper::Signal,
};
use crate::{base_channel::BaseChannel, error::Error, session::shared::Alarm};

/// The number of messages that may wait for their key, as a multiple of the number of bodies.
const WAITING: usize = 4;

/// A delivery that a body is to be called for.
pub(super) struct Job {
    pub(super) arrival: Arrival,
    /// The hash of its key. `Some` if deliveries are ordered by a key.
    pub(super) lane: Option<u64>,
    /// The value of `Inner::stale` at its arrival.
    epoch: u32,
}

/// The end of a body, and of its message.
pub(super) struct Outcome<E> {
    pub(super) lane: Option<u64>,
    pub(super) body: BodyEnd,
    pub(super) settled: Settled,
    /// The failure that ends the loop. `Some` if the policy says so.
    pub(super) ends: Option<Failure<E>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum BodyEnd {
    Succeeded,
    Failed,
    Panicked,
}

/// The state of a loop.
///
/// ```text
///  running ── drain, a failure that ends ──> stopping ── source and bodies have ended ──> done
///     ├────────────────── source and bodies have ended ──────────────────────────────────┤
///     └── drain ──────────────────────────────> stopping ── deadline ────────────────────┘
/// ```
pub(super) struct Work<'a, S, N, F, E> {
    pub(super) source: S,
    pub(super) limit: usize,
    pub(super) key: Option<&'a Key>,
    pub(super) buffered: Buffered,
    /// Calls the body.
    pub(super) start: N,
    pub(super) running: Running<F>,
    pub(super) lanes: Lanes<Job>,
    pub(super) counts: Counts,
    pub(super) stop: Stop<'a>,
    /// The failure that ended the loop.
    pub(super) failure: Option<Failure<E>>,
    /// The error of the source, if it has one. `Some` once it has ended.
    pub(super) source_end: Option<Option<Error>>,
}

/// The way in which a loop stops.
pub(super) struct Stop<'a> {
    channel: &'a BaseChannel,
    signal: &'a Signal,
    seen: u64,
    /// The value of `Inner::stale` for which no job that waits is stale.
    epoch: u32,
    alarm: Alarm<'a>,
    /// The treatment of buffered deliveries. `Some` once the loop stops.
    stopping: Option<Buffered>,
    /// Whether it was asked to by a drain, and the number of bodies handled before.
    pub(super) drained: Option<u64>,
    /// The number of deliveries that were requeued without a call of the body.
    pub(super) requeued: u64,
}

impl<'a> Stop<'a> {
    pub(super) fn new(channel: &'a BaseChannel, signal: &'a Signal) -> Self {
        Self {
            channel,
            signal,
            seen: 0,
            epoch: channel.inner().stale(),
            alarm: Alarm::new(channel.shared(), None),
            stopping: None,
            drained: None,
            requeued: 0,
        }
    }

    /// The present epoch, if jobs of an earlier one may wait.
    fn next_epoch(&mut self) -> Option<u32> {
        let epoch = self.channel.inner().stale();
        (mem::replace(&mut self.epoch, epoch) != epoch).then_some(epoch)
    }

    /// Takes requests. Ready at the deadline of the last one.
    pub(super) fn poll(&mut self, cx: &Context<'_>, handled: u64) -> Poll<()> {
        if let Some(deadline) = self.signal.look(cx, &mut self.seen) {
            self.alarm = Alarm::new(self.channel.shared(), Some(deadline));
            self.drained.get_or_insert(handled);
        }
        self.alarm.poll(cx)
    }
}

impl<S, N, F, E> Work<'_, S, N, F, E>
where
    S: Source,
    N: FnMut(Job) -> F,
    F: Future<Output = Outcome<E>>,
{
    /// Ready with `true` when all is done, and with `false` at the deadline of a drain.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<bool> {
        let deadline = self.stop.poll(cx, self.counts.handled());
        if self.stop.drained.is_some() && self.stop.stopping.is_none() {
            self.begin_stop(self.buffered, cx);
        }
        // The server has requeued the deliveries of a channel that has ended: none gets a body.
        if self.stop.stopping != Some(Buffered::Requeue) && self.stop.channel.end().is_some() {
            self.begin_stop(Buffered::Requeue, cx);
        }
        self.requeue_stale();
        // Bodies that have ended are noted before the deadline counts.
        let mut idle = false;
        while !idle {
            idle = true;
            while let Poll::Ready(outcome) = self.running.poll_next(cx) {
                self.finish(outcome, cx);
                idle = false;
            }
            while self.poll_source(cx) {
                idle = false;
            }
        }
        if self.source_end.is_some() && self.running.len() == 0 {
            return Poll::Ready(true);
        }
        deadline.map(|()| false)
    }

    /// Takes a delivery, or notes the end of the source. Returns whether there was either.
    fn poll_source(&mut self, cx: &mut Context<'_>) -> bool {
        let requeues = self.stop.stopping == Some(Buffered::Requeue);
        if self.source_end.is_some() || !(requeues || self.has_room()) {
            return false;
        }
        match self.source.poll_delivery(cx) {
            Poll::Pending => return false,
            Poll::Ready(Some(Ok(arrival))) if requeues => self.requeue(arrival),
            Poll::Ready(Some(Ok(arrival))) => self.arrive(arrival),
            Poll::Ready(Some(Err(error))) => self.source_end = Some(Some(error)),
            Poll::Ready(None) => self.source_end = Some(None),
        }
        true
    }

    fn has_room(&self) -> bool {
        let (waiting, bytes) = self.lanes.waiting();
        self.running.len() < self.limit
            && waiting < self.limit.saturating_mul(WAITING)
            && (bytes == 0
                || bytes
                    < self
                        .stop
                        .channel
                        .shared()
                        .lock()
                        .machine
                        .limits()
                        .undelivered)
    }

    fn arrive(&mut self, arrival: Arrival) {
        // Not earlier than the delivery: it is never taken for one of an earlier epoch.
        let epoch = self.stop.channel.inner().stale();
        let lane = self.key.map(|key| key(&arrival.message));
        let bytes = arrival.message.body.len();
        let job = Job {
            arrival,
            lane,
            epoch,
        };
        let first = match lane {
            Some(lane) => self.lanes.enter(lane, bytes, job),
            None => Some(job),
        };
        if let Some(job) = first {
            self.run(job);
        }
    }

    fn run(&mut self, job: Job) {
        let body = (self.start)(job);
        self.running.push(body);
    }

    fn finish(&mut self, outcome: Outcome<E>, cx: &mut Context<'_>) {
        let counts = &mut self.counts;
        match outcome.body {
            BodyEnd::Succeeded => counts.succeeded += 1,
            BodyEnd::Failed => counts.failed += 1,
            BodyEnd::Panicked => counts.panicked += 1,
        }
        self.count(outcome.settled);
        if let Some(failure) = outcome.ends
            && self.failure.is_none()
        {
            self.failure = Some(failure);
            self.begin_stop(Buffered::Requeue, cx);
        }
        self.requeue_stale();
        if let Some(job) = outcome.lane.and_then(|lane| self.lanes.leave(lane)) {
            self.run(job);
        }
    }

    fn count(&mut self, settled: Settled) {
        let counts = &mut self.counts;
        match settled {
            Settled::Acked => counts.acked += 1,
            Settled::Batched => {}
            Settled::Requeued => counts.requeued += 1,
            Settled::Rejected => counts.rejected += 1,
            Settled::Retried => counts.retried += 1,
            Settled::Stale => counts.stale += 1,
        }
    }

    /// Cancels the consumer, and treats the deliveries that no body has got.
    fn begin_stop(&mut self, buffered: Buffered, cx: &mut Context<'_>) {
        self.stop.stopping = Some(buffered);
        if self.source_end.is_none() {
            self.source.begin_cancel(cx);
        }
        if buffered == Buffered::Requeue {
            self.requeue_waiting(|_| true);
        }
    }

    /// Drops the deliveries that wait for their key and were requeued by a recovery of the channel.
    fn requeue_stale(&mut self) {
        if let Some(epoch) = self.stop.next_epoch() {
            self.requeue_waiting(|job| job.epoch != epoch);
        }
    }

    fn requeue_waiting(&mut self, matches: impl Fn(&Job) -> bool) {
        for job in self.lanes.take_waiting(matches) {
            self.requeue(job.arrival);
        }
    }

    fn requeue(&mut self, arrival: Arrival) {
        let settled = arrival.claim.requeue();
        self.count(settled);
        self.stop.requeued += u64::from(settled == Settled::Requeued);
    }

    /// Interrupts the bodies that run, and requeues the deliveries that no body has got. Returns the
    /// number of these bodies.
    pub(super) fn interrupt(&mut self, cx: &mut Context<'_>) -> u64 {
        let unfinished = self.running.len() as u64;
        self.running.clear();
        self.counts.requeued += unfinished;
        self.stop.stopping = Some(Buffered::Requeue);
        self.requeue_waiting(|_| true);
        // One that is pending may have yielded only.
        let mut pending = 0;
        while pending < 2 {
            pending = if self.poll_source(cx) { 0 } else { pending + 1 };
        }
        unfinished
    }
}
