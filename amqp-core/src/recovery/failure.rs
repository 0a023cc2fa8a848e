//! The response of a replay to failures.

use alloc::boxed::Box;

use super::{
    Entity, Failure, FailureReason, GiveUp, OnFailure, OnStepFailure, PlanStep, Policy,
    RecoveryEvent,
    difference::Difference,
    policy::FailureKind,
    replay::{ENTITIES, Replay, Work},
    track::EntryState,
};
use crate::{protocol::ReplyCode, wire::ShortStr};

impl Replay {
    /// Handles the failure of a step, which is not in flight.
    pub(super) fn fail_entry(
        &mut self,
        key: u16,
        index: usize,
        reason: FailureReason,
        kind: FailureKind,
        work: &mut Work<'_>,
    ) {
        let Some(track) = self.tracks.get_mut(&key) else {
            return;
        };
        let entry = track.entries.get_mut(index);
        // The host has forgotten a consumer that has failed before.
        let Some(entry) = entry.filter(|it| it.state != EntryState::Failed) else {
            return;
        };
        match response(work.policy, &entry.step).response(kind) {
            OnFailure::Retry { attempts, delay } if entry.tries < attempts => {
                entry.tries += 1;
                let at = work.now + delay;
                if key == ENTITIES {
                    entry.state = EntryState::Deferred;
                    self.deferred.extend(entry.step.declares());
                    track.retry_at = track.retry_at.max(Some(at));
                } else {
                    self.sleep(key, at);
                }
            }
            OnFailure::GiveUp => {
                let failure = failure(entry.step.clone(), reason);
                self.gave_up = Some(GiveUp::Step(Box::new(failure)));
            }
            OnFailure::Retry { .. } | OnFailure::Skip => {
                self.skip(key, index, reason, kind, work);
            }
        }
    }

    /// Handles the failure of a channel that no step is known to have caused.
    pub(super) fn fail_channel(
        &mut self,
        key: u16,
        reason: FailureReason,
        kind: FailureKind,
        work: &mut Work<'_>,
    ) {
        let Some(track) = self.tracks.get_mut(&key) else {
            return;
        };
        let step = if key == ENTITIES {
            PlanStep::OpenChannel
        } else {
            PlanStep::ReopenChannel { channel: key }
        };
        match work.policy.channels.response(kind) {
            OnFailure::Retry { attempts, delay } if track.tries < attempts => {
                track.tries += 1;
                self.sleep(key, work.now + delay);
            }
            OnFailure::GiveUp => {
                let failure = failure(step, reason);
                self.gave_up = Some(GiveUp::Step(Box::new(failure)));
            }
            OnFailure::Retry { .. } | OnFailure::Skip => self.end_track(key, step, reason, work),
        }
    }

    /// Goes on without a step.
    pub(super) fn skip(
        &mut self,
        key: u16,
        index: usize,
        reason: FailureReason,
        kind: FailureKind,
        work: &mut Work<'_>,
    ) {
        let Some(track) = self.tracks.get_mut(&key) else {
            return;
        };
        let (channel, entry) = (track.channel, track.entries.get_mut(index));
        let Some(entry) = entry else {
            return;
        };
        entry.state = EntryState::Failed;
        let step = entry.step.clone();
        if !core::mem::replace(&mut entry.counted, true) {
            self.done += 1;
        }
        if let Some(entity) = step.declares() {
            self.deferred.remove(&entity);
            let server_named = self.unnamed.remove(entity.name());
            // An entity that differs exists, and can be bound.
            if kind == FailureKind::Locked || server_named {
                self.missing.insert(entity);
            }
        }
        if kind == FailureKind::NotFound {
            self.missing.extend(missing_entity(&reason));
        }
        match step {
            PlanStep::Consume { consumer, .. } => {
                work.topology.remove_consumer(key, consumer);
                if let Some(channel) = channel {
                    let event = RecoveryEvent::ConsumerEnded {
                        channel,
                        consumer,
                        reason: reason.clone(),
                    };
                    work.events.push(work.now, event);
                }
            }
            // Publishes would be confirmed to no caller.
            PlanStep::SetMode { .. } => {
                self.end_track(key, step, reason, work);
                return;
            }
            PlanStep::OpenChannel
            | PlanStep::DeclareExchange(_)
            | PlanStep::DeclareQueue { .. }
            | PlanStep::Bind(_)
            | PlanStep::CloseChannel
            | PlanStep::ReopenChannel { .. }
            | PlanStep::SetQos { .. } => {}
        }
        self.report.failures.push(failure(step, reason));
    }

    /// Ends a track and gives up its channel.
    fn end_track(&mut self, key: u16, step: PlanStep, reason: FailureReason, work: &mut Work<'_>) {
        let Some(track) = self.tracks.remove(&key) else {
            return;
        };
        self.report.failures.push(failure(step, reason.clone()));
        let left = track.entries.into_iter().filter(|it| !it.counted);
        if key == ENTITIES {
            for entry in left {
                self.done += 1;
                if let PlanStep::DeclareQueue { declare, .. } = &entry.step
                    && self.unnamed.remove(&declare.queue)
                {
                    self.missing.insert(Entity::Queue(declare.queue.clone()));
                }
                self.report
                    .failures
                    .push(failure(entry.step, reason.clone()));
            }
            self.list_channels();
            return;
        }
        self.done += left.count();
        work.topology.close_channel(key);
        if let Some(channel) = work.channels.remove(&key) {
            let event = RecoveryEvent::ChannelEnded { channel, reason };
            work.events.push(work.now, event);
            // Open, if the server has refused the step without closing it.
            let open = work.connection.channel(channel);
            let closed =
                open.map(|mut it| it.close(ReplyCode::SUCCESS, "the channel is not restored"));
            if let Some(Ok(request)) = closed {
                self.sent(request, key);
            }
        }
    }
}

fn failure(step: PlanStep, reason: FailureReason) -> Failure {
    let difference = match &reason {
        FailureReason::Closed(reason) => Difference::of_close(reason),
        FailureReason::Request(_)
        | FailureReason::Refused(_)
        | FailureReason::Missing(_)
        | FailureReason::NotIncluded => None,
    };
    Failure {
        step,
        reason,
        difference,
    }
}

/// The responses to failures of such a step.
const fn response<'a>(policy: &'a Policy, step: &PlanStep) -> &'a OnStepFailure {
    match step {
        PlanStep::DeclareExchange(_) => &policy.exchanges,
        PlanStep::DeclareQueue { .. } => &policy.queues,
        PlanStep::Bind(_) => &policy.bindings,
        PlanStep::Consume { .. } => &policy.consumers,
        PlanStep::OpenChannel
        | PlanStep::CloseChannel
        | PlanStep::ReopenChannel { .. }
        | PlanStep::SetQos { .. }
        | PlanStep::SetMode { .. } => &policy.channels,
    }
}

/// The entity that RabbitMQ names in a text like `NOT_FOUND - no queue 'q' in vhost '/'`. The steps
/// behind that need it fail without being sent.
fn missing_entity(reason: &FailureReason) -> Option<Entity> {
    let FailureReason::Closed(reason) = reason else {
        return None;
    };
    let text = &reason.by_peer()?.text;
    let name = |prefix: &str| {
        let (_, text) = text.split_once(prefix)?;
        let (name, _) = text.rsplit_once("' in vhost '")?;
        ShortStr::try_from(name).ok()
    };
    name("no queue '")
        .map(Entity::Queue)
        .or_else(|| name("no exchange '").map(Entity::Exchange))
}
