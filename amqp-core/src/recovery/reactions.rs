//! The reactions of a recovery to the events of its connection.

use alloc::{
    string::{String, ToString as _},
    vec::Vec,
};
use core::{mem, time::Duration};

use super::{
    ConnectFailure, FailureReason, GiveUp, Mode, Plan, Recovery, RecoveryEvent,
    machine::State,
    replay::{Replay, Work},
};
use crate::{
    client::Connection,
    close::{CloseCause, CloseReason, RequestError, Stage, TimeoutReason},
    ids::{ChannelId, RequestId},
    protocol::{Method, ReplyCode},
    time::Instant,
};

impl Recovery {
    pub(super) fn knows(&self, channel: ChannelId) -> bool {
        self.channels.get(&channel.number()) == Some(&channel)
    }

    pub(super) fn work<'a>(
        &'a mut self,
        now: Instant,
        connection: &'a mut Connection,
    ) -> (&'a mut Replay, Work<'a>) {
        let work = Work {
            now,
            connection,
            policy: &self.policy,
            topology: &mut self.topology,
            channels: &mut self.channels,
            events: &mut self.events,
        };
        (&mut self.replay, work)
    }

    pub(super) fn on_opened(&mut self, now: Instant, connection: &mut Connection) {
        self.events.push(now, RecoveryEvent::Connected);
        self.state = State::Recovering;
        let plan = self.plan();
        let (replay, mut work) = self.work(now, connection);
        *replay = Replay::default();
        let of = replay.add(plan, now, &mut work);
        if of > 0 {
            let event = RecoveryEvent::Recovering { done: 0, of };
            self.events.push(now, event);
        }
        self.after_replay(now, connection);
    }

    pub(super) fn on_closed(&mut self, now: Instant, reason: &CloseReason) {
        self.recorder.lost(&mut self.topology);
        self.replay = Replay::default();
        self.cause = reason.to_string();
        if is_requested(reason) {
            self.give_up(now, GiveUp::Requested(reason.clone()));
            return;
        }
        match self.state {
            State::Waiting(_) | State::Connecting => {
                self.state = State::Connecting;
                let cause = mem::take(&mut self.cause);
                self.handle_connect_failed(now, ConnectFailure::of(reason), &cause);
            }
            State::Recovering | State::Recovered => {
                if !mem::replace(&mut self.lost, true) {
                    let lived = now.saturating_duration_since(self.recovered_at);
                    let again = self.losses > 0 && lived < self.policy.backoff.max;
                    self.earlier = if again {
                        self.earlier.saturating_add(self.attempt)
                    } else {
                        0
                    };
                    self.events.since = now;
                    self.attempt = 0;
                    self.losses += 1;
                }
                self.events.push(now, RecoveryEvent::Lost(reason.clone()));
                self.drop_excluded(now);
                self.reconnect(now);
            }
            State::Ended => {}
        }
    }

    /// Ends the channels or consumers that the mode does not include.
    fn drop_excluded(&mut self, now: Instant) {
        let mode = self.policy.mode;
        if mode >= Mode::ConsumersOnly {
            return;
        }
        let channels: Vec<_> = self.channels.values().copied().collect();
        for channel in channels {
            self.drop_consumers(now, channel);
            if mode == Mode::Nothing {
                self.topology.close_channel(channel.number());
                let reason = FailureReason::NotIncluded;
                self.events
                    .push(now, RecoveryEvent::ChannelEnded { channel, reason });
            }
        }
        if mode == Mode::Nothing {
            self.channels.clear();
        }
    }

    /// Ends the consumers of a channel, which the mode does not include.
    fn drop_consumers(&mut self, now: Instant, channel: ChannelId) {
        let number = channel.number();
        let consumers = self.topology.channel(number).into_iter();
        let consumers = consumers.flat_map(|it| it.consumers());
        let consumers: Vec<_> = consumers.map(|(consumer, _)| consumer).collect();
        for consumer in consumers {
            self.topology.cancel(number, consumer);
            let reason = FailureReason::NotIncluded;
            self.events.push(
                now,
                RecoveryEvent::ConsumerEnded {
                    channel,
                    consumer,
                    reason,
                },
            );
        }
    }

    /// Waits for the next attempt to connect, or gives up.
    pub(super) fn reconnect(&mut self, now: Instant) {
        let attempts = self.attempt;
        if self.policy.attempts.is_some_and(|most| attempts >= most) {
            let cause = mem::take(&mut self.cause);
            self.give_up(now, GiveUp::Attempts { attempts, cause });
            return;
        }
        self.attempt = attempts.saturating_add(1);
        let seed = self.policy.seed.wrapping_add(self.losses.rotate_left(48));
        let since = self.earlier.saturating_add(self.attempt);
        let next_in = self.policy.backoff.delay(since, seed);
        self.state = State::Waiting(now + next_in);
        let cause = if attempts == 0 {
            String::new() // the event of the loss has it
        } else {
            self.cause.clone()
        };
        let event = RecoveryEvent::Reconnecting {
            attempt: self.attempt,
            next_in,
            cause,
        };
        self.events.push(now, event);
    }

    /// The time of the deadline and its length. `Some` while the connection is not recovered.
    pub(super) fn deadline(&self) -> Option<(Instant, Duration)> {
        let deadline = self.policy.deadline?;
        let pending = match self.state {
            State::Waiting(_) | State::Connecting | State::Recovering => true,
            State::Recovered | State::Ended => false,
        };
        pending.then(|| (self.events.since + deadline, deadline))
    }

    pub(super) fn check_deadline(&mut self, now: Instant) {
        if let Some((_, deadline)) = self.deadline().filter(|&(at, _)| at <= now) {
            let cause = mem::take(&mut self.cause);
            self.closes = self.state == State::Recovering;
            self.give_up(now, GiveUp::Deadline { deadline, cause });
        }
    }

    pub(super) fn give_up(&mut self, now: Instant, reason: GiveUp) {
        self.state = State::Ended;
        self.replay = Replay::default();
        self.events.push(now, RecoveryEvent::GaveUp(reason));
    }

    pub(super) fn on_reply(
        &mut self,
        now: Instant,
        connection: &mut Connection,
        channel: ChannelId,
        request: RequestId,
        reply: &Method,
    ) -> bool {
        let (replay, mut work) = self.work(now, connection);
        if replay.handle_reply(request, reply, &mut work) {
            self.after_replay(now, connection);
            return true;
        }
        if let Method::ChannelOpenOk(_) = reply {
            let number = channel.number();
            if self.channels.insert(number, channel).is_none() {
                // Those of another process do not run here, and their queues are restored.
                self.topology.forget_consumers(number);
            }
            self.closed.remove(&number);
            self.topology.open_channel(number);
        } else if self.knows(channel) {
            self.recorder
                .replied(&mut self.topology, channel, request, reply);
        }
        false
    }

    pub(super) fn on_failed(
        &mut self,
        now: Instant,
        connection: &mut Connection,
        request: RequestId,
        cause: &RequestError,
    ) -> bool {
        if self.state == State::Recovering
            && matches!(cause, RequestError::TimedOut { .. })
            && self.replay.is_unanswered_from(request)
        {
            // The event of the end follows.
            connection.end_unanswered();
            return true;
        }
        let (replay, mut work) = self.work(now, connection);
        if replay.handle_failed(request, cause, &mut work) {
            self.after_replay(now, connection);
            return true;
        }
        match cause {
            // The event of the end follows.
            RequestError::ChannelClosed(_) | RequestError::ConnectionClosed(_) => {}
            RequestError::TimedOut { .. }
            | RequestError::Unreadable(_)
            | RequestError::Cancelled { .. } => self.handle_abandoned(request),
        }
        false
    }

    pub(super) fn on_channel_closed(
        &mut self,
        now: Instant,
        connection: &mut Connection,
        channel: ChannelId,
        reason: &CloseReason,
    ) -> bool {
        let (replay, mut work) = self.work(now, connection);
        if replay.handle_channel_closed(channel, reason, &mut work) {
            self.after_replay(now, connection);
            return true;
        }
        if !self.knows(channel) {
            return false;
        }
        let restored = self.policy.reopen_channels && self.policy.mode > Mode::Nothing;
        if !restored || reason.by_peer().is_none() {
            self.forget_channel(channel);
            return false;
        }
        let number = channel.number();
        self.recorder.channel_ended(number);
        let lost = RecoveryEvent::ChannelLost {
            channel,
            reason: reason.clone(),
        };
        self.events.push(now, lost);
        if self.policy.mode < Mode::ConsumersOnly {
            self.drop_consumers(now, channel);
        }
        let at = now + self.reopen_delay(now, number);
        let runs = |of, id| of != number && self.replay.runs(of, id);
        let plan = Plan::for_channel_beside(&self.topology, self.policy.mode, number, runs);
        let (replay, mut work) = self.work(now, connection);
        replay.add(plan, at, &mut work);
        self.after_replay(now, connection);
        true
    }

    /// The delay before a channel is reopened: none, or that of the back-off if the server has
    /// closed it again and again.
    fn reopen_delay(&mut self, now: Instant, number: u16) -> Duration {
        let backoff = self.policy.backoff;
        let (times, last) = self.closed.entry(number).or_insert((0, now));
        if now.saturating_duration_since(*last) > backoff.max {
            *times = 0;
        }
        let delay = match *times {
            0 => Duration::ZERO,
            times => backoff.delay(times, self.policy.seed),
        };
        *times = times.saturating_add(1);
        *last = now + delay;
        delay
    }

    /// Reports the results of the replay.
    pub(super) fn after_replay(&mut self, now: Instant, connection: &mut Connection) {
        if let Some(reason) = self.replay.gave_up.take() {
            self.give_up(now, reason);
            close(connection);
            return;
        }
        let took = now.saturating_duration_since(self.events.since);
        if self.state == State::Recovered {
            for (channel, since) in mem::take(&mut self.replay.finished) {
                let took = now.saturating_duration_since(since);
                let report = self.replay.take_report(took);
                let event = RecoveryEvent::ChannelRecovered { channel, report };
                self.events.push(now, event);
            }
            return;
        }
        if self.state != State::Recovering {
            return;
        }
        if let Some((done, of)) = self.replay.poll_progress() {
            self.events
                .push(now, RecoveryEvent::Recovering { done, of });
        }
        if self.replay.is_idle() {
            self.state = State::Recovered;
            let report = self.replay.take_report(took);
            if mem::take(&mut self.lost) || report.steps > 0 {
                self.events.push(now, RecoveryEvent::Recovered(report));
            }
            self.replay = Replay::default();
            self.recovered_at = now;
            self.cause.clear();
        }
    }
}

/// Closes a connection after its recovery was given up.
pub(super) fn close(connection: &mut Connection) {
    connection.close(ReplyCode::SUCCESS, "the recovery was given up");
}

/// Whether this side has closed the connection, also if the reply of the peer is missing.
fn is_requested(reason: &CloseReason) -> bool {
    matches!(
        reason.cause(),
        CloseCause::Requested(_)
            | CloseCause::Eof {
                stage: Stage::Closing
            }
            | CloseCause::Transport {
                stage: Stage::Closing,
                ..
            }
            | CloseCause::TimedOut(TimeoutReason::Close)
    )
}
