//! The progress of the tracks of a replay.

use core::iter;

use super::{
    Entity, FailureReason, PlanStep,
    policy::FailureKind,
    replay::{ENTITIES, Replay, Work},
    track::{EntryState, TrackState, send},
};
use crate::{
    error::ApiMisuse,
    ids::{ChannelId, RequestId},
    protocol::ReplyCode,
    wire::ShortStr,
};

/// The maximum number of requests in flight. A broker that takes 30 ms for each, as for a quorum
/// queue under load, answers the last one within [`Timeouts::request`](crate::Timeouts::request).
pub(super) const WINDOW: usize = 1000;

/// The highest number of the channel of the entities: the table of channels grows with it.
const OWN_MAX: u16 = 2047;

/// The result of an attempt to advance a track.
#[derive(PartialEq, Eq)]
pub(super) enum Advance {
    /// The track waits for a reply or for the time, or has ended.
    Waits,
    /// No further request can be sent.
    Blocked,
}

impl Replay {
    /// Sends the steps of a track.
    pub(super) fn advance(&mut self, key: u16, work: &mut Work<'_>) -> Advance {
        while self.gave_up.is_none()
            && let Some(track) = self.tracks.get_mut(&key)
            && !track.asleep
        {
            let next = track.next_todo();
            let (state, channel) = (track.state, track.channel);
            let open = match state {
                TrackState::Opening(_) | TrackState::Closing(_) => break,
                TrackState::Closed => false,
                TrackState::Open => true,
            };
            let finished = next.is_none() && (open || key == ENTITIES);
            if self.requests.len() >= WINDOW {
                return Advance::Blocked;
            }
            let sent = if finished || track.forgotten {
                if !track.in_flight.is_empty() {
                    break;
                }
                self.finish(key, work)
            } else if !open {
                self.open(key, work)
            } else if let (Some(index), Some(channel)) = (next, channel) {
                match self.send_entry(key, index, channel, work) {
                    Some(sent) => sent,
                    None => break,
                }
            } else {
                break;
            };
            match sent {
                Ok(()) => {}
                Err(ApiMisuse::TooManyUnsent { .. }) => return Advance::Blocked,
                // The event of the end follows.
                Err(_) => break,
            }
        }
        Advance::Waits
    }

    fn open(&mut self, key: u16, work: &mut Work<'_>) -> Result<(), ApiMisuse> {
        let Some(track) = self.tracks.get(&key) else {
            return Ok(());
        };
        let opened = match track.channel {
            Some(id) => work.connection.reopen_channel(id),
            None => self.open_own(work),
        };
        match opened {
            Ok(request) => {
                if let Some(track) = self.tracks.get_mut(&key) {
                    track.state = TrackState::Opening(request);
                }
                self.sent(request, key);
                Ok(())
            }
            Err(misuse @ (ApiMisuse::TooManyUnsent { .. } | ApiMisuse::ConnectionNotOpen)) => {
                Err(misuse)
            }
            Err(misuse) => {
                let reason = FailureReason::Refused(misuse);
                self.fail_channel(key, reason, FailureKind::Other, work);
                Ok(())
            }
        }
    }

    /// Opens the channel of the entities, under a number that no channel of the host has: it stays
    /// free for that. If all numbers are in use, a channel that is not restored yet is opened for
    /// the entities first.
    fn open_own(&mut self, work: &mut Work<'_>) -> Result<RequestId, ApiMisuse> {
        let channel_max = work.connection.tuning().channel_max;
        let mut channel = None;
        let mut request = Err(ApiMisuse::NoFreeChannel { channel_max });
        let numbers = (1..=channel_max.min(OWN_MAX)).rev();
        for number in numbers.filter(|number| !work.channels.contains_key(number)) {
            match work.connection.open_channel_at(number) {
                Err(ApiMisuse::ChannelNumber { .. }) => {}
                Err(misuse) => return Err(misuse),
                Ok((id, opened)) => {
                    (channel, request) = (Some(id), Ok(opened));
                    break;
                }
            }
        }
        let others = self.tracks.iter().filter(|(key, _)| **key != ENTITIES);
        let mut others = others.filter(|(_, track)| track.state == TrackState::Closed);
        if channel.is_none()
            && let Some(id) = others.find_map(|(_, track)| track.channel)
        {
            (channel, request) = (Some(id), work.connection.reopen_channel(id));
            self.borrows = true;
        }
        if request.is_ok()
            && let Some(track) = self.tracks.get_mut(&ENTITIES)
        {
            track.channel = channel;
        }
        request
    }

    /// Sends a step. `None` if it waits for the name of a queue, or for the entities.
    fn send_entry(
        &mut self,
        key: u16,
        index: usize,
        channel: ChannelId,
        work: &mut Work<'_>,
    ) -> Option<Result<(), ApiMisuse>> {
        let step = self.tracks.get(&key)?.entries.get(index)?.step.clone();
        for entity in step.needs().into_iter().flatten() {
            if self.missing.contains(&entity) {
                let reason = FailureReason::Missing(entity);
                self.skip(key, index, reason, FailureKind::NotFound, work);
                return Some(Ok(()));
            }
            if self.deferred.contains(&entity) {
                self.tracks.get_mut(&key)?.set(index, EntryState::Deferred);
                return Some(Ok(()));
            }
            if self.unnamed.contains(entity.name()) && matches!(entity, Entity::Queue(_)) {
                return None;
            }
        }
        // The queue of a consumer may be declared by the plan of another channel.
        if matches!(step, PlanStep::Consume { .. }) && !self.are_entities_done() {
            return None;
        }
        match send(work.connection, channel, &self.renamed(step)) {
            Ok(request) => {
                let track = self.tracks.get_mut(&key)?;
                track.set(index, EntryState::Sent);
                track.in_flight.push_back((request, index));
                self.sent(request, key);
            }
            Err(
                misuse @ (ApiMisuse::TooManyUnsent { .. }
                | ApiMisuse::ConnectionNotOpen
                | ApiMisuse::ChannelNotOpen),
            ) => return Some(Err(misuse)),
            Err(misuse) => {
                let reason = FailureReason::Refused(misuse);
                self.fail_entry(key, index, reason, FailureKind::Other, work);
            }
        }
        Some(Ok(()))
    }

    /// A step with the new names of queues.
    fn renamed(&self, mut step: PlanStep) -> PlanStep {
        match &mut step {
            PlanStep::Bind(binding) => {
                if let Entity::Queue(name) = &mut binding.destination
                    && let Some(new) = self.new_name(name)
                {
                    if binding.routing_key == *name {
                        binding.routing_key = new.clone();
                    }
                    *name = new.clone();
                }
            }
            PlanStep::Consume { consume, .. } => {
                if let Some(new) = self.new_name(&consume.queue) {
                    consume.queue = new.clone();
                }
            }
            PlanStep::OpenChannel
            | PlanStep::DeclareExchange(_)
            | PlanStep::DeclareQueue { .. }
            | PlanStep::CloseChannel
            | PlanStep::ReopenChannel { .. }
            | PlanStep::SetQos { .. }
            | PlanStep::SetMode { .. } => {}
        }
        step
    }

    /// The last new name of a queue. A queue that is lost twice has several.
    fn new_name(&self, name: &ShortStr) -> Option<&ShortStr> {
        let first = self.names.get(name)?;
        let later = iter::successors(Some(first), |name| self.names.get(*name));
        // A server may repeat a name.
        later.take(self.names.len()).last()
    }

    /// Ends a track without further steps, or puts it to sleep until the deferred ones are due.
    fn finish(&mut self, key: u16, work: &mut Work<'_>) -> Result<(), ApiMisuse> {
        let Some(track) = self.tracks.get_mut(&key) else {
            return Ok(());
        };
        if let Some(at) = track.retry_at.filter(|_| !track.forgotten) {
            self.sleep(key, at);
            return Ok(());
        }
        if key != ENTITIES && !track.forgotten {
            let (channel, since) = (track.channel, track.since);
            self.tracks.remove(&key);
            if let Some(channel) = channel {
                self.finished.push((channel, since));
            }
            return Ok(());
        }
        let open = track.channel.filter(|_| track.state == TrackState::Open);
        let channel = open.and_then(|id| work.connection.channel(id));
        // The host itself may have closed a channel that it has forgotten.
        match channel.filter(|it| key == ENTITIES || it.is_open()) {
            Some(mut channel) => {
                let request = channel.close(ReplyCode::SUCCESS, "the topology is restored")?;
                track.state = TrackState::Closing(request);
                self.sent(request, key);
            }
            None => {
                self.tracks.remove(&key);
                self.done += usize::from(key == ENTITIES);
            }
        }
        if key == ENTITIES && self.are_entities_done() {
            self.list_channels();
        }
        Ok(())
    }
}
