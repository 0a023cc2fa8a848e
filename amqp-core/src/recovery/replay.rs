//! The execution of plans: pipelined, one track per channel.

use alloc::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    vec::Vec,
};
use core::{mem, time::Duration};

use super::{
    Entity, FailureReason, GiveUp, Plan, PlanStep, Policy, RecoveryEvent, Report, Topology,
    advance::Advance,
    event::Events,
    policy::FailureKind,
    track::{EntryState, Track, TrackState},
};
use crate::{
    client::Connection,
    close::{CloseReason, RequestError},
    ids::{ChannelId, ConsumerId, RequestId},
    protocol::Method,
    time::Instant,
    wire::ShortStr,
};

/// The delay of the next attempt to send while other output fills
/// [`Limits::unsent_requests`](crate::Limits::unsent_requests).
const UNSENT_DELAY: Duration = Duration::from_millis(10);

/// The track of the entities. The others have the number of their channel.
pub(super) const ENTITIES: u16 = 0;

/// The connection and the state that a replay works on.
pub(super) struct Work<'a> {
    pub(super) now: Instant,
    pub(super) connection: &'a mut Connection,
    pub(super) policy: &'a Policy,
    pub(super) topology: &'a mut Topology,
    /// The channels of the host, by number.
    pub(super) channels: &'a mut BTreeMap<u16, ChannelId>,
    pub(super) events: &'a mut Events,
}

/// The execution of plans. The track of the entities comes first, then the others side by side.
///
/// A step that fails closes its channel, and the steps sent behind it were not carried out. The
/// channel is opened again. The entities go on behind the failed step; a channel of the host begins
/// again without it, as all its state went with it.
#[derive(Debug, Default)]
pub(super) struct Replay {
    pub(super) tracks: BTreeMap<u16, Track>,
    /// The tracks to be advanced.
    pub(super) ready: VecDeque<u16>,
    pub(super) asleep: BTreeSet<(Instant, u16)>,
    /// The requests in flight, with their tracks.
    pub(super) requests: BTreeMap<RequestId, u16>,
    /// The time to try again when no request could be sent and none is in flight.
    pub(super) unsent_until: Option<Instant>,
    /// The new names of queues, by the old ones.
    pub(super) names: BTreeMap<ShortStr, ShortStr>,
    /// The queues, by their old names, that have not got their new one yet.
    pub(super) unnamed: BTreeSet<ShortStr>,
    /// The entities that are tried again later.
    pub(super) deferred: BTreeSet<Entity>,
    /// The entities that are known not to exist, or not for this connection.
    pub(super) missing: BTreeSet<Entity>,
    /// Whether the entities use the channel of another track, for want of a free number.
    pub(super) borrows: bool,
    /// The last request sent, and the one that ends the current round trip with its reply.
    pub(super) last_sent: Option<RequestId>,
    pub(super) trip_ends: Option<RequestId>,
    /// The last request that the server has answered.
    pub(super) last_answered: Option<RequestId>,
    pub(super) done: usize,
    pub(super) reported: usize,
    pub(super) report: Report,
    /// The channels that are back, with the time when they were lost.
    pub(super) finished: Vec<(ChannelId, Instant)>,
    /// The reason to give up.
    pub(super) gave_up: Option<GiveUp>,
}

impl Replay {
    /// Whether all plans are done.
    pub(super) fn is_idle(&self) -> bool {
        self.tracks.is_empty()
    }

    /// Whether requests are in flight.
    pub(super) fn awaits_replies(&self) -> bool {
        !self.requests.is_empty()
    }

    /// Whether the server has answered neither this request of the replay nor a later one.
    pub(super) fn is_unanswered_from(&self, request: RequestId) -> bool {
        self.requests.contains_key(&request) && self.last_answered.is_none_or(|it| it < request)
    }

    /// Whether a channel is being restored.
    pub(super) fn restores(&self, number: u16) -> bool {
        self.tracks.contains_key(&number)
    }

    /// Whether a consumer runs: it is not being restored, or was started again.
    pub(super) fn runs(&self, number: u16, id: ConsumerId) -> bool {
        self.tracks.get(&number).is_none_or(|track| {
            track.entries.iter().any(|entry| {
                matches!(entry.step, PlanStep::Consume { consumer, .. } if consumer == id)
                    && entry.state == EntryState::Done
            })
        })
    }

    /// Adds a plan, which begins at the time `at`. Returns the number of its steps.
    pub(super) fn add(&mut self, plan: Plan, at: Instant, work: &mut Work<'_>) -> usize {
        if self.is_idle() {
            *self = Self::default();
        }
        let of_entities = self.tracks.get(&ENTITIES);
        let has_channel = of_entities.is_some_and(|track| {
            !matches!(track.state, TrackState::Closing(_)) || track.has_todo()
        });
        for step in plan.steps {
            let key = step.channel().unwrap_or(ENTITIES);
            let channel = work.channels.get(&key).copied();
            if key != ENTITIES && channel.is_none() {
                continue; // a topology of another process
            }
            if has_channel && matches!(step, PlanStep::OpenChannel | PlanStep::CloseChannel) {
                continue; // the one of the plan before
            }
            if let PlanStep::DeclareQueue {
                declare,
                server_named: true,
            } = &step
                && !self.unnamed.insert(declare.queue.clone())
            {
                continue; // it is being declared
            }
            self.report.steps += 1;
            let track = self.tracks.entry(key);
            let track = track.or_insert_with(|| Track::new(channel, work.now));
            match step {
                PlanStep::OpenChannel | PlanStep::CloseChannel | PlanStep::ReopenChannel { .. } => {
                }
                step => track.push(step),
            }
            if at > work.now && key != ENTITIES && !track.asleep {
                track.asleep = true;
                self.asleep.insert((at, key));
            }
        }
        if self.tracks.contains_key(&ENTITIES) {
            self.list(ENTITIES);
        } else {
            self.list_channels();
        }
        self.drive(work);
        self.report.steps
    }

    /// The number of steps done and of all, if that has changed by a twentieth since the last call.
    pub(super) fn poll_progress(&mut self) -> Option<(usize, usize)> {
        let of = self.report.steps;
        let next = self.reported + (of / 20).max(1);
        (self.done >= next.min(of) && self.done > self.reported).then(|| {
            self.reported = self.done;
            (self.done, of)
        })
    }

    /// The result so far. Each failure and each new name is part of one result only.
    pub(super) fn take_report(&mut self, took: Duration) -> Report {
        Report {
            took,
            failures: mem::take(&mut self.report.failures),
            renamed: mem::take(&mut self.report.renamed),
            ..self.report
        }
    }

    /// The time of the next call of [`handle_timeout`](Self::handle_timeout).
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        let asleep = self.asleep.first().map(|&(at, _)| at);
        [asleep, self.unsent_until].into_iter().flatten().min()
    }

    pub(super) fn handle_timeout(&mut self, work: &mut Work<'_>) {
        self.unsent_until = self.unsent_until.filter(|&at| at > work.now);
        while let Some(&(at, key)) = self.asleep.first()
            && at <= work.now
        {
            self.asleep.pop_first();
            if let Some(track) = self.tracks.get_mut(&key) {
                track.asleep = false;
                if key == ENTITIES {
                    track.undefer();
                    self.deferred.clear();
                }
                if key == ENTITIES || self.are_entities_done() {
                    self.list(key);
                }
            }
        }
        self.drive(work);
    }

    /// Handles a reply. Returns `false` if the request is not one of the replay.
    pub(super) fn handle_reply(
        &mut self,
        request: RequestId,
        reply: &Method,
        work: &mut Work<'_>,
    ) -> bool {
        let Some(key) = self.requests.remove(&request) else {
            return false;
        };
        self.last_answered = self.last_answered.max(Some(request));
        self.count_trip(request);
        let Some(track) = self.tracks.get_mut(&key) else {
            return true;
        };
        if track.state == TrackState::Opening(request) {
            track.state = TrackState::Open;
            if !mem::replace(&mut track.opened, true) {
                self.done += 1;
            }
        } else if track.state == TrackState::Closing(request) {
            self.end_closing(key);
        } else if let Some(index) = take(&mut track.in_flight, request) {
            self.complete(key, index, reply, work);
        }
        self.list(key);
        self.drive(work);
        true
    }

    fn complete(&mut self, key: u16, index: usize, reply: &Method, work: &mut Work<'_>) {
        let Some(track) = self.tracks.get_mut(&key) else {
            return;
        };
        let (channel, forgotten) = (track.channel, !track.carried_out(index));
        let Some(entry) = track.entries.get_mut(index) else {
            return;
        };
        if forgotten {
            if let (
                PlanStep::Consume {
                    consumer, consume, ..
                },
                Some(id),
            ) = (&entry.step, channel)
                && let Some(mut channel) = work.connection.channel(id)
            {
                channel.abandon_consumer(&consume.consumer_tag, *consumer);
            }
            return;
        }
        if !mem::replace(&mut entry.counted, true) {
            self.done += 1;
        }
        if let Some(entity) = entry.step.declares() {
            self.missing.remove(&entity);
            self.deferred.remove(&entity);
        }
        if let (PlanStep::DeclareQueue { declare, .. }, Method::QueueDeclareOk(ok)) =
            (&entry.step, reply)
        {
            let (from, to) = (declare.queue.clone(), ok.queue.clone());
            self.unnamed.remove(&from);
            if from != to {
                work.topology.rename_queue(&from, &to);
                self.names.insert(from.clone(), to.clone());
                self.report.renamed.push((from.clone(), to.clone()));
                let event = RecoveryEvent::QueueRenamed { from, to };
                work.events.push(work.now, event);
            }
        }
    }

    /// Handles a failed request. Returns `false` if it is not one of the replay.
    pub(super) fn handle_failed(
        &mut self,
        request: RequestId,
        cause: &RequestError,
        work: &mut Work<'_>,
    ) -> bool {
        let Some(key) = self.requests.remove(&request) else {
            return false;
        };
        self.count_trip(request);
        let closed = matches!(
            cause,
            RequestError::ChannelClosed(_) | RequestError::ConnectionClosed(_)
        );
        let Some(track) = self.tracks.get_mut(&key) else {
            return true;
        };
        let index = take(&mut track.in_flight, request);
        if let Some(index) = index {
            track.unsend(index);
        }
        if closed {
            self.last_answered = self.last_answered.max(Some(request));
            // The server handles requests in order: the first one is the reason of the close.
            track.culprit = track.culprit.or(index);
            return true; // the close follows
        }
        let reason = FailureReason::Request(cause.clone());
        match index {
            Some(index) => self.fail_entry(key, index, reason, FailureKind::Other, work),
            None if track.state == TrackState::Opening(request) => {
                track.state = TrackState::Closed;
                if key == ENTITIES {
                    (track.channel, self.borrows) = (None, false);
                }
                self.fail_channel(key, reason, FailureKind::Other, work);
            }
            None => self.end_closing(key),
        }
        self.list(key);
        self.drive(work);
        true
    }

    /// Ends a track when its channel is closed, or the close is not answered. That of the entities
    /// opens another channel for the steps that were added meanwhile.
    fn end_closing(&mut self, key: u16) {
        if key != ENTITIES {
            self.tracks.remove(&key);
            return;
        }
        let Some(track) = self.tracks.get_mut(&ENTITIES) else {
            return;
        };
        self.done += 1;
        self.borrows = false;
        if track.has_todo() {
            track.state = TrackState::Closed;
            (track.channel, track.opened) = (None, false);
        } else {
            self.tracks.remove(&ENTITIES);
            self.list_channels();
        }
    }

    /// Handles the end of a channel. Returns `false` if it is not one of the replay.
    pub(super) fn handle_channel_closed(
        &mut self,
        id: ChannelId,
        reason: &CloseReason,
        work: &mut Work<'_>,
    ) -> bool {
        let keys = [ENTITIES, id.number()];
        let mut keys = keys.into_iter();
        let is_its = |key: &u16| {
            let track = self.tracks.get(key);
            track.is_some_and(|track| track.channel == Some(id))
        };
        let Some(key) = keys.find(is_its) else {
            return false;
        };
        let Some(track) = self.tracks.get_mut(&key) else {
            return false;
        };
        // A close for no method, or for another one, says nothing about the step.
        let method = reason.by_peer().and_then(|close| close.method);
        let culprit = track.culprit.take().filter(|&index| {
            let entry = track.entries.get(index);
            method.is_some() && entry.map(|it| it.step.method()) == method
        });
        let closing = matches!(track.state, TrackState::Closing(_));
        track.state = TrackState::Closed;
        if closing || track.forgotten {
            self.end_closing(key);
        } else {
            if key == ENTITIES {
                // The host may open a channel under the number.
                (track.channel, self.borrows) = (None, false);
            } else {
                track.undo();
            }
            let kind = FailureKind::of_close(reason);
            let failure = FailureReason::Closed(reason.clone());
            match culprit {
                Some(index) => self.fail_entry(key, index, failure, kind, work),
                None => self.fail_channel(key, failure, kind, work),
            }
        }
        self.list(key);
        self.drive(work);
        true
    }

    /// Forgets a channel that the host needs no more.
    pub(super) fn forget_channel(&mut self, number: u16) {
        if let Some(track) = self.tracks.get_mut(&number) {
            track.forgotten = true;
            self.done += track.uncounted();
            track.entries.clear();
            track.in_flight.clear();
            if track.state == TrackState::Closed {
                self.tracks.remove(&number);
            }
        }
    }

    /// Skips a consumer that was not started yet. Returns whether its start is in flight: it is
    /// cancelled with the reply.
    pub(super) fn forget_consumer(&mut self, number: u16, id: ConsumerId) -> bool {
        let mut starting = false;
        let entries = self.tracks.get_mut(&number).map(|it| &mut it.entries);
        for entry in entries.into_iter().flatten() {
            if matches!(entry.step, PlanStep::Consume { consumer, .. } if consumer == id) {
                starting |= entry.state == EntryState::Sent;
                entry.state = EntryState::Failed;
                if !mem::replace(&mut entry.counted, true) {
                    self.done += 1;
                }
            }
        }
        starting
    }

    pub(super) fn are_entities_done(&self) -> bool {
        self.tracks.get(&ENTITIES).is_none_or(|track| {
            let closing = matches!(track.state, TrackState::Closing(_));
            closing && !self.borrows && !track.has_todo()
        })
    }

    /// Lists a track to be advanced.
    fn list(&mut self, key: u16) {
        if let Some(track) = self.tracks.get_mut(&key)
            && !track.asleep
            && !mem::replace(&mut track.ready, true)
        {
            self.ready.push_back(key);
        }
    }

    pub(super) fn list_channels(&mut self) {
        let keys: Vec<u16> = self.tracks.keys().copied().collect();
        for key in keys.into_iter().filter(|&key| key != ENTITIES) {
            self.list(key);
        }
    }

    /// Advances the listed tracks as far as the window allows.
    fn drive(&mut self, work: &mut Work<'_>) {
        while self.gave_up.is_none()
            && let Some(key) = self.ready.pop_front()
        {
            if let Some(track) = self.tracks.get_mut(&key) {
                track.ready = false;
            }
            if self.advance(key, work) == Advance::Blocked {
                self.list(key);
                if self.requests.is_empty() {
                    self.unsent_until = Some(work.now + UNSENT_DELAY);
                }
                break;
            }
        }
    }

    pub(super) fn sent(&mut self, request: RequestId, key: u16) {
        self.requests.insert(request, key);
        self.last_sent = Some(request);
    }

    /// A round trip ends with the reply to the last request that was sent when it began.
    fn count_trip(&mut self, request: RequestId) {
        let ends = self.trip_ends.or(self.last_sent);
        self.trip_ends = ends;
        if ends.is_some_and(|ends| request >= ends) {
            self.report.round_trips += 1;
            self.trip_ends = None;
        }
    }

    pub(super) fn sleep(&mut self, key: u16, at: Instant) {
        if let Some(track) = self.tracks.get_mut(&key)
            && !mem::replace(&mut track.asleep, true)
        {
            self.asleep.insert((at, key));
        }
    }
}

/// Removes a request from those in flight, and returns its entry.
fn take(in_flight: &mut VecDeque<(RequestId, usize)>, request: RequestId) -> Option<usize> {
    let at = in_flight.iter().position(|(it, _)| *it == request)?;
    in_flight.remove(at).map(|(_, index)| index)
}
