//! The events of a recovery.

use alloc::{boxed::Box, collections::VecDeque, string::String, vec::Vec};
use core::{fmt, time::Duration};

use super::{ConnectFailure, Difference, Entity, PlanStep};
use crate::{
    close::{CloseReason, RequestError},
    error::ApiMisuse,
    ids::{ChannelId, ConsumerId},
    text::{Escaped, Quoted},
    time::Instant,
    wire::ShortStr,
};

/// An event of a recovery and its time. Its display is one line of a log.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct TimedEvent {
    /// The time of the event.
    pub at: Instant,
    /// The time since the loss of the connection, or since the beginning if it was not lost.
    pub elapsed: Duration,
    /// The event.
    pub event: RecoveryEvent,
}

impl fmt::Display for TimedEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "+{:.3} s {}", self.elapsed.as_secs_f64(), self.event)
    }
}

/// An event of a recovery.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum RecoveryEvent {
    /// A connection is open. The topology is restored next, if there is any.
    Connected,
    /// The connection was lost.
    Lost(CloseReason),
    /// Another attempt to connect follows.
    Reconnecting {
        /// The number of the attempt since the loss, from 1.
        attempt: u32,
        /// The delay before it.
        next_in: Duration,
        /// The reason why the attempt before has failed. Empty before the first one.
        cause: String,
    },
    /// Steps of the plan were done.
    Recovering {
        /// The number of steps that were done or have failed.
        done: usize,
        /// The number of all steps.
        of: usize,
    },
    /// The connection and its topology are back.
    Recovered(Report),
    /// The server has closed a channel, which will be reopened.
    ChannelLost {
        /// The channel.
        channel: ChannelId,
        /// The close reason.
        reason: CloseReason,
    },
    /// A channel that the server had closed is back.
    ChannelRecovered {
        /// The channel.
        channel: ChannelId,
        /// The report.
        report: Report,
    },
    /// A channel is not restored: its handles end.
    ChannelEnded {
        /// The channel.
        channel: ChannelId,
        /// The reason.
        reason: FailureReason,
    },
    /// A consumer is not restored: its handle ends.
    ConsumerEnded {
        /// The channel.
        channel: ChannelId,
        /// The consumer.
        consumer: ConsumerId,
        /// The reason.
        reason: FailureReason,
    },
    /// The server has given a queue that it names a new name.
    QueueRenamed {
        /// The old name.
        from: ShortStr,
        /// The new name.
        to: ShortStr,
    },
    /// The recovery has ended: the connection stays closed. The last event.
    GaveUp(GiveUp),
}

/// The result of a recovery.
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct Report {
    /// The time since the loss.
    pub took: Duration,
    /// The number of steps of the plan.
    pub steps: usize,
    /// The number of times that the recovery has waited for replies to all requests in flight.
    pub round_trips: usize,
    /// The steps that have failed and were skipped.
    pub failures: Vec<Failure>,
    /// The queues that have a new name, with the old name first.
    pub renamed: Vec<(ShortStr, ShortStr)>,
}

/// A step that has failed.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Failure {
    /// The step.
    pub step: PlanStep,
    /// The reason.
    pub reason: FailureReason,
    /// The difference between the entity and its declaration. `Some` if the server has named it.
    pub difference: Option<Difference>,
}

/// The reason why a step has failed, or a handle ends.
#[derive(thiserror::Error, Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum FailureReason {
    /// The server has closed the channel for it.
    #[error(transparent)]
    Closed(CloseReason),
    /// The request has failed, and the channel goes on.
    #[error(transparent)]
    Request(RequestError),
    /// The request cannot be sent.
    #[error(transparent)]
    Refused(ApiMisuse),
    /// An entity that it needs was not restored.
    #[error("{0} is not there")]
    Missing(Entity),
    /// The [`Mode`](super::Mode) does not include it.
    #[error("the policy does not restore it")]
    NotIncluded,
}

/// The reason why a recovery was given up.
#[derive(thiserror::Error, Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum GiveUp {
    /// This side has closed the connection.
    #[error(transparent)]
    Requested(CloseReason),
    /// [`Recovery::stop`](super::Recovery::stop) was called.
    #[error("the recovery was stopped")]
    Stopped,
    /// The [attempts](super::Policy::attempts) are used up.
    #[error("{attempts} attempts have failed, the last one: {}", Escaped(.cause))]
    Attempts {
        /// The number of attempts.
        attempts: u32,
        /// The reason why the last one has failed.
        cause: String,
    },
    /// The [deadline](super::Policy::deadline) has passed.
    #[error("not recovered within {deadline:?}: {}", Escaped(.cause))]
    Deadline {
        /// The deadline.
        deadline: Duration,
        /// The last failure. Empty if there was none.
        cause: String,
    },
    /// The policy gives up for such a failure to connect.
    #[error("{kind}: {}", Escaped(.cause))]
    Connect {
        /// The kind of the failure.
        kind: ConnectFailure,
        /// The explanation, human-readable.
        cause: String,
    },
    /// The policy gives up for such a failure of a step.
    #[error(transparent)]
    Step(Box<Failure>),
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.step)?;
        match &self.difference {
            Some(difference) => difference.fmt(f),
            None => self.reason.fmt(f),
        }
    }
}

impl core::error::Error for Failure {}

/// A number and its noun, in the singular or with an s.
struct Counted(usize, &'static str);

impl fmt::Display for Counted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(count, noun) = self;
        let plural = if *count == 1 { "" } else { "s" };
        write!(f, "{count} {noun}{plural}")
    }
}

/// The number of failures in the display of a report.
const SHOWN: usize = 3;

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (took, steps, trips) = (self.took.as_secs_f64(), self.steps, self.round_trips);
        let (steps, trips) = (Counted(steps, "step"), Counted(trips, "round trip"));
        write!(f, "in {took:.3} s, {steps}, {trips}")?;
        if !self.renamed.is_empty() {
            write!(f, ", {} renamed", Counted(self.renamed.len(), "queue"))?;
        }
        if self.failures.is_empty() {
            return Ok(());
        }
        write!(f, ", {} failed: ", self.failures.len())?;
        for (number, failure) in self.failures.iter().take(SHOWN).enumerate() {
            let before = if number > 0 { "; " } else { "" };
            write!(f, "{before}{failure}")?;
        }
        if self.failures.len() > SHOWN {
            f.write_str("; ...")?;
        }
        Ok(())
    }
}

impl RecoveryEvent {
    /// Whether a later event says the same, and more.
    fn is_replaced_by(&self, later: &Self) -> bool {
        match (self, later) {
            (Self::ChannelLost { channel, .. }, Self::ChannelLost { channel: later, .. })
            | (
                Self::ChannelRecovered { channel, .. },
                Self::ChannelRecovered { channel: later, .. },
            ) => channel == later,
            (Self::QueueRenamed { to, .. }, Self::QueueRenamed { from, .. }) => to == from,
            (Self::Connected, Self::Connected)
            | (Self::Lost(_), Self::Lost(_))
            | (Self::Reconnecting { .. }, Self::Reconnecting { .. })
            | (Self::Recovering { .. }, Self::Recovering { .. })
            | (Self::Recovered(_), Self::Recovered(_)) => true,
            _ => false,
        }
    }
}

impl fmt::Display for RecoveryEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Connected => f.write_str("connected"),
            Self::Lost(reason) => write!(f, "lost: {reason}"),
            Self::Reconnecting {
                attempt,
                next_in,
                cause,
            } => {
                let next = next_in.as_secs_f64();
                write!(f, "reconnecting: attempt {attempt} in {next:.3} s")?;
                if cause.is_empty() {
                    return Ok(());
                }
                write!(f, ", after: {}", Escaped(cause))
            }
            Self::Recovering { done, of } => write!(f, "recovering: {done} of {of} steps"),
            Self::Recovered(report) => write!(f, "recovered {report}"),
            Self::ChannelLost { channel, reason } => write!(f, "channel {channel} lost: {reason}"),
            Self::ChannelRecovered { channel, report } => {
                write!(f, "channel {channel} recovered {report}")
            }
            Self::ChannelEnded { channel, reason } => {
                write!(f, "channel {channel} ended: {reason}")
            }
            Self::ConsumerEnded {
                channel,
                consumer,
                reason,
            } => {
                let consumer = consumer.index();
                write!(
                    f,
                    "consumer {consumer} of channel {channel} ended: {reason}"
                )
            }
            Self::QueueRenamed { from, to } => {
                write!(f, "queue {} renamed to {}", Quoted(from), Quoted(to))
            }
            Self::GaveUp(reason) => write!(f, "gave up: {reason}"),
        }
    }
}

/// The events that the host has not taken.
#[derive(Debug)]
pub(super) struct Events {
    queue: VecDeque<TimedEvent>,
    /// The time of the loss, or of the beginning.
    pub(super) since: Instant,
}

/// The number of events beyond which they replace older ones.
const KEPT: usize = 64;

impl Events {
    pub(super) const fn new(since: Instant) -> Self {
        let queue = VecDeque::new();
        Self { queue, since }
    }

    /// Adds an event. Beyond [`KEPT`] it replaces the one of the same kind about the same object, so
    /// that the last state of each channel is always reported.
    pub(super) fn push(&mut self, at: Instant, mut event: RecoveryEvent) {
        let elapsed = at.saturating_duration_since(self.since);
        if self.queue.len() >= KEPT
            && let Some(older) = self
                .queue
                .iter()
                .position(|it| it.event.is_replaced_by(&event))
            && let Some(older) = self.queue.remove(older)
            && let (
                RecoveryEvent::QueueRenamed { from, .. },
                RecoveryEvent::QueueRenamed { from: first, .. },
            ) = (&mut event, older.event)
        {
            *from = first;
        }
        self.queue.push_back(TimedEvent { at, elapsed, event });
    }

    pub(super) fn pop(&mut self) -> Option<TimedEvent> {
        self.queue.pop_front()
    }
}
