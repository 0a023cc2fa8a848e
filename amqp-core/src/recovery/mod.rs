//! Recovery of a client's connection.
//!
//! [`Recovery`] is the state machine: it records the [`Topology`] of a connection while that lives,
//! says when to connect again, and restores the topology on the next connection by a [`Plan`]. The
//! [`Policy`] has its settings, [`RecoveryEvent`] is its output.

mod backoff;
mod bindings;
mod channel;
mod difference;
mod event;
mod failure;
mod lane;
mod plan;
mod policy;
mod record;
mod replay;
mod topology;

use alloc::{collections::BTreeMap, string::String, string::ToString as _};
use core::{mem, time::Duration};

pub use self::{
    backoff::Backoff,
    bindings::{Binding, Entity},
    channel::{Channel, ChannelMode, Consumer},
    difference::Difference,
    event::{Change, Failure, FailureReason, GiveUp, RecoveryEvent, Report},
    plan::{Plan, PlanStep},
    policy::{ConnectFailure, Mode, OnConnectFailure, OnFailure, OnStepFailure, Policy, Reconnect},
    topology::{Queue, Topology},
};
use self::{
    event::Events,
    record::Recorder,
    replay::{Replay, Work},
};
use crate::{
    client::{Connection, Event},
    close::{CloseCause, CloseReason, RequestError, Stage, TimeoutReason},
    ids::{ChannelId, ConsumerId, RequestId},
    protocol::{Method, ReplyCode, basic},
    time::Instant,
};

/// Restores a client's connection when it was lost: a state machine beside that of the
/// [connection](Connection).
///
/// ```text
///                 the delay has passed           opened                     plan done
/// new ─> Waiting ──────────────────> Connecting ───────> Recovering ───────────────────> Recovered
///           ^                            │                   │  nothing to restore           │
///           ├── failed to connect ───────┘                   │                               │
///           └── lost ────────────────────────────────────────┴───────────────────────────────┘
///
/// (any) ── closed by this side, stopped, given up by the policy ──> Ended
/// ```
///
/// The host passes in each event of the connection with [`handle_event`](Self::handle_event), and
/// each request that changes the topology with [`handle_sent`](Self::handle_sent) and
/// [`handle_consume_sent`](Self::handle_consume_sent). It connects when [`poll_step`](Self::poll_step)
/// says so: the next connection is [resumed](Connection::resume) from the one that has ended, with
/// [`Config::resumable`](crate::client::Config::resumable). While
/// [`is_recovered`](Self::is_recovered) is `false` it sends nothing of its own.
///
/// A connection is recovered from every end but a close by this side. Before the host closes it, it
/// calls [`stop`](Self::stop).
///
/// A lost connection may be lost again at any step of its recovery. The next one begins anew from
/// the topology.
///
/// ```
/// use amqp_core::{Instant, client::{Config, Connection}, recovery::{Policy, Recovery, Step}};
///
/// # fn now() -> Instant { Instant::ORIGIN }
/// # fn seed() -> u64 { 1 }
/// let config = Config::default().resumable(true);
/// let mut recovery = Recovery::new(Policy::new(seed()), now());
/// let mut connection = None;
/// # let mut turns = 0;
/// loop {
///     match recovery.poll_step(now()) {
///         Step::Connect { .. } => {
///             // Connect a transport; if that fails, `handle_connect_failed`.
///             match &mut connection {
///                 None => connection = Some(Connection::new(config.clone(), now())?),
///                 Some(ended) => drop(ended.resume(config.clone(), now())?),
///             }
///         }
///         Step::Wait(_) | Step::Idle => {} // I/O, until that time or `poll_timeout` at most
///         Step::GiveUp => break,
///     }
///     let Some(connection) = &mut connection else { continue };
///     // `handle_input`, `poll_transmit` and so on
///     while let Some(event) = connection.poll_event() {
///         if !recovery.handle_event(now(), connection, &event) {
///             println!("{event:?}"); // an event of the host's own requests
///         }
///     }
///     recovery.handle_timeout(now(), connection);
///     while let Some(change) = recovery.poll_event() {
///         println!("{change}");
///     }
/// #   turns += 1;
/// #   if turns > 2 { recovery.stop(now()) }
/// }
/// # Ok::<_, amqp_core::ApiMisuse>(())
/// ```
#[derive(Debug)]
pub struct Recovery {
    policy: Policy,
    topology: Topology,
    recorder: Recorder,
    /// The open channels of the host, and those that are restored.
    channels: BTreeMap<u16, ChannelId>,
    replay: Replay,
    state: State,
    events: Events,
    /// The attempts to connect since the last complete recovery.
    attempt: u32,
    /// The number of losses: each has other delays.
    losses: u64,
    /// Whether a connection was lost, and is not recovered yet.
    lost: bool,
    /// The last failure, for the reason to give up.
    cause: String,
    /// The connection is to be closed: the deadline has passed while it was being restored.
    closes: bool,
    /// For the channels that the server closed lately: how often in a row, and when last.
    closed: BTreeMap<u16, (u32, Instant)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// The next attempt to connect follows at that time.
    Waiting(Instant),
    Connecting,
    Recovering,
    Recovered,
    Ended,
}

/// The next step of the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Step {
    /// Nothing: the connection is being established or restored, or lives.
    Idle,
    /// Wait until that time.
    Wait(Instant),
    /// Connect. Returned once for each attempt.
    Connect {
        /// The number of the attempt, from 1.
        attempt: u32,
    },
    /// The recovery has ended. An attempt to connect is abandoned.
    GiveUp,
}

impl Recovery {
    /// Creates the machine. The first step is to connect.
    #[must_use]
    pub fn new(policy: Policy, now: Instant) -> Self {
        Self {
            policy,
            topology: Topology::default(),
            recorder: Recorder::default(),
            channels: BTreeMap::new(),
            replay: Replay::default(),
            state: State::Waiting(now),
            events: Events::new(now),
            attempt: 1,
            losses: 0,
            lost: false,
            cause: String::new(),
            closes: false,
            closed: BTreeMap::new(),
        }
    }

    // Inputs.

    /// Handles an event of the connection. Returns `true` if it belongs to the recovery alone: a
    /// reply to one of its requests, or the end of a channel that is restored.
    ///
    /// Call it for each event, in order.
    pub fn handle_event(
        &mut self,
        now: Instant,
        connection: &mut Connection,
        event: &Event,
    ) -> bool {
        if self.state == State::Ended {
            return false;
        }
        match event {
            Event::Opened => {
                self.on_opened(now, connection);
                false
            }
            Event::Closed(reason) => {
                self.on_closed(now, reason);
                false
            }
            Event::Reply {
                channel: Some(channel),
                request,
                reply,
            } => self.on_reply(now, connection, *channel, *request, reply),
            Event::Failed { request, cause } => self.on_failed(now, connection, *request, cause),
            Event::ConsumerCancelled {
                channel, consumer, ..
            } => {
                self.forget_consumer(*channel, *consumer);
                false
            }
            Event::ChannelClosed { channel, reason } => {
                self.on_channel_closed(now, connection, *channel, reason)
            }
            _ => false,
        }
    }

    /// Records a request that the host has sent: the declaration, deletion or binding of an entity,
    /// a prefetch, a mode, a cancel, or the close of a channel. Others are ignored. With its number
    /// if it has a reply: it takes effect when that arrives. A consume has a
    /// [call of its own](Self::handle_consume_sent).
    pub fn handle_sent(&mut self, channel: ChannelId, request: Option<RequestId>, method: &Method) {
        if let Method::ChannelClose(_) = method {
            self.forget_channel(channel);
        } else if self.knows(channel) {
            self.recorder
                .sent(&mut self.topology, channel, request, method);
        }
    }

    /// Records a consumer that the host has started, with its tag.
    pub fn handle_consume_sent(
        &mut self,
        channel: ChannelId,
        consumer: ConsumerId,
        request: RequestId,
        consume: &basic::Consume,
    ) {
        if self.knows(channel) {
            let topology = &mut self.topology;
            self.recorder
                .consume_sent(topology, channel, consumer, request, consume);
        }
    }

    /// Handles that the host has [abandoned](Connection::abandon) a request. Declarations are not
    /// recorded, deletions are.
    pub fn handle_abandoned(&mut self, request: RequestId) {
        self.recorder.abandoned(&mut self.topology, request);
    }

    /// Handles a failed attempt to connect, with its explanation. A connection that ends during the
    /// handshake reports it by its event.
    pub fn handle_connect_failed(&mut self, now: Instant, kind: ConnectFailure, cause: &str) {
        if self.state == State::Connecting {
            self.cause = cause.into();
            match self.policy.connect.response(kind) {
                Reconnect::Retry => self.reconnect(now),
                Reconnect::GiveUp => {
                    let cause = cause.into();
                    self.give_up(now, GiveUp::Connect { kind, cause });
                }
            }
        }
    }

    /// Handles the time of [`poll_timeout`](Self::poll_timeout). An early or unnecessary call has no
    /// effect.
    pub fn handle_timeout(&mut self, now: Instant, connection: &mut Connection) {
        self.check_deadline(now);
        match self.state {
            State::Recovering | State::Recovered => {
                let (replay, mut work) = self.work(now, connection);
                replay.handle_timeout(&mut work);
                self.after_replay(now, connection);
            }
            State::Ended if mem::take(&mut self.closes) => close(connection),
            State::Waiting(_) | State::Connecting | State::Ended => {}
        }
    }

    /// Forgets a channel that the host needs no more, with its consumers. It is closed if it is just
    /// being restored. Recorded with the close of a channel by itself.
    pub fn forget_channel(&mut self, channel: ChannelId) {
        let number = channel.number();
        if self.knows(channel) {
            self.channels.remove(&number);
            self.closed.remove(&number);
            self.recorder.channel_ended(number);
            self.topology.close_channel(number);
            self.replay.forget_channel(number);
        }
    }

    /// Forgets a consumer that the host has
    /// [abandoned](crate::client::ChannelMut::abandon_consumer): it is not started again.
    pub fn forget_consumer(&mut self, channel: ChannelId, consumer: ConsumerId) {
        if self.knows(channel) {
            self.topology.cancel(channel.number(), consumer);
            self.replay.forget_consumer(channel.number(), consumer);
        }
    }

    /// Ends the recovery: the connection stays as it is, and its end is final.
    pub fn stop(&mut self, now: Instant) {
        if self.state != State::Ended {
            self.give_up(now, GiveUp::Stopped);
        }
    }

    // Outputs.

    /// Returns the next step of the host.
    #[must_use]
    pub fn poll_step(&mut self, now: Instant) -> Step {
        self.check_deadline(now);
        match self.state {
            State::Waiting(at) if at <= now => {
                self.state = State::Connecting;
                Step::Connect {
                    attempt: self.attempt,
                }
            }
            State::Waiting(_) | State::Connecting => {
                self.poll_timeout().map_or(Step::Idle, Step::Wait)
            }
            State::Recovering | State::Recovered => Step::Idle,
            State::Ended => Step::GiveUp,
        }
    }

    /// Returns the time for the next call of [`handle_timeout`](Self::handle_timeout), or of
    /// [`poll_step`](Self::poll_step) if there is no connection. Any other call may change it.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        let deadline = self.deadline().map(|(at, _)| at);
        let own = match self.state {
            State::Waiting(at) => Some(at),
            State::Recovering | State::Recovered => self.replay.poll_timeout(),
            State::Connecting | State::Ended => None,
        };
        [own, deadline].into_iter().flatten().min()
    }

    /// Returns the next event. [`RecoveryEvent::GaveUp`] is the last one.
    #[must_use]
    pub fn poll_event(&mut self) -> Option<Change> {
        self.events.pop()
    }

    // Getters.

    /// Whether the connection lives and its topology is back.
    #[must_use]
    pub fn is_recovered(&self) -> bool {
        self.state == State::Recovered
    }

    /// Whether a channel can be used: the connection is recovered, and the channel is not just being
    /// restored.
    #[must_use]
    pub fn is_channel_recovered(&self, channel: ChannelId) -> bool {
        self.is_recovered() && !self.replay.restores(channel.number())
    }

    /// Whether the recovery has ended.
    #[must_use]
    pub fn is_stopped(&self) -> bool {
        self.state == State::Ended
    }

    /// The policy.
    #[must_use]
    pub const fn policy(&self) -> &Policy {
        &self.policy
    }

    /// The topology.
    #[must_use]
    pub const fn topology(&self) -> &Topology {
        &self.topology
    }

    /// The topology, to be edited. A change applies to the next recovery. One that is set before the
    /// first connection, such as that of an earlier process, is restored on it, without its
    /// channels.
    pub const fn topology_mut(&mut self) -> &mut Topology {
        &mut self.topology
    }

    /// The plan of a recovery that would begin now.
    #[must_use]
    pub fn plan(&self) -> Plan {
        Plan::new(&self.topology, self.policy.mode)
    }
}

impl Recovery {
    fn knows(&self, channel: ChannelId) -> bool {
        self.channels.get(&channel.number()) == Some(&channel)
    }

    fn work<'a>(
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

    fn on_opened(&mut self, now: Instant, connection: &mut Connection) {
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

    fn on_closed(&mut self, now: Instant, reason: &CloseReason) {
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
                self.handle_connect_failed(now, connect_failure(reason), &cause);
            }
            State::Recovering | State::Recovered => {
                if !mem::replace(&mut self.lost, true) {
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
        for (&number, &channel) in &self.channels {
            let consumers = self.topology.channel(number).into_iter();
            let consumers = consumers.flat_map(|it| it.consumers());
            let consumers: alloc::vec::Vec<_> = consumers.map(|(consumer, _)| consumer).collect();
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
            if mode == Mode::Nothing {
                self.topology.close_channel(number);
                let reason = FailureReason::NotIncluded;
                self.events
                    .push(now, RecoveryEvent::ChannelEnded { channel, reason });
            }
        }
        if mode == Mode::Nothing {
            self.channels.clear();
        }
    }

    /// Waits for the next attempt to connect, or gives up.
    fn reconnect(&mut self, now: Instant) {
        let attempts = self.attempt;
        if self.policy.attempts.is_some_and(|most| attempts >= most) {
            let cause = mem::take(&mut self.cause);
            self.give_up(now, GiveUp::Attempts { attempts, cause });
            return;
        }
        self.attempt = attempts.saturating_add(1);
        let seed = self.policy.seed.wrapping_add(self.losses.rotate_left(48));
        let next_in = self.policy.backoff.delay(self.attempt, seed);
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
    fn deadline(&self) -> Option<(Instant, Duration)> {
        let deadline = self.policy.deadline?;
        let pending = match self.state {
            State::Waiting(_) | State::Connecting | State::Recovering => true,
            State::Recovered | State::Ended => false,
        };
        pending.then(|| (self.events.since + deadline, deadline))
    }

    fn check_deadline(&mut self, now: Instant) {
        if let Some((_, deadline)) = self.deadline().filter(|&(at, _)| at <= now) {
            let cause = mem::take(&mut self.cause);
            self.closes = self.state == State::Recovering;
            self.give_up(now, GiveUp::Deadline { deadline, cause });
        }
    }

    fn give_up(&mut self, now: Instant, reason: GiveUp) {
        self.state = State::Ended;
        self.replay = Replay::default();
        self.events.push(now, RecoveryEvent::GaveUp(reason));
    }

    fn on_reply(
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
            self.channels.insert(channel.number(), channel);
            self.closed.remove(&channel.number());
            self.topology.open_channel(channel.number());
        } else if self.knows(channel) {
            self.recorder
                .replied(&mut self.topology, channel, request, reply);
        }
        false
    }

    fn on_failed(
        &mut self,
        now: Instant,
        connection: &mut Connection,
        request: RequestId,
        cause: &RequestError,
    ) -> bool {
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

    fn on_channel_closed(
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
        let at = now + self.reopen_delay(now, number);
        let plan = Plan::for_channel(&self.topology, self.policy.mode, number);
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
        *last = now;
        delay
    }

    /// Reports the results of the replay.
    fn after_replay(&mut self, now: Instant, connection: &mut Connection) {
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
            self.attempt = 0;
            self.cause.clear();
        }
    }
}

/// Closes a connection whose recovery was given up.
fn close(connection: &mut Connection) {
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

/// The kind of the failure of a connection that ended before it was open.
fn connect_failure(reason: &CloseReason) -> ConnectFailure {
    match reason.cause() {
        CloseCause::AuthenticationFailed { .. } => ConnectFailure::LoginRefused,
        CloseCause::Eof { .. } | CloseCause::Transport { .. } | CloseCause::TimedOut(_) => {
            ConnectFailure::Unreachable
        }
        CloseCause::Requested(_)
        | CloseCause::ByPeer(_)
        | CloseCause::ProtocolError(_)
        | CloseCause::LimitExceeded(_)
        | CloseCause::NotAmqp(_)
        | CloseCause::NoCommonMechanism { .. }
        | CloseCause::NoCommonLocale { .. }
        | CloseCause::StartOkTooLarge { .. }
        | CloseCause::NotRecovered { .. }
        | CloseCause::Connection(_) => ConnectFailure::Other,
    }
}
