//! The machine of a recovery, as its host sees it.

use alloc::{collections::BTreeMap, string::String};
use core::mem;

use super::{
    ConnectFailure, GiveUp, Plan, Policy, Reconnect, TimedEvent, Topology, event::Events,
    reactions::close, record::Recorder, replay::Replay,
};
use crate::{
    client::{Connection, Event},
    error::ApiMisuse,
    ids::{ChannelId, ConsumerId, RequestId},
    protocol::{Method, basic},
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
/// the topology. A step that is not answered within [`Timeouts::request`](crate::Timeouts) is such a
/// loss if no later request of the restoration is answered either; otherwise it fails alone.
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
///         Step::GiveUp => break,
///         _ => {} // I/O, until the time of `Step::Wait` or `poll_timeout` at most
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
    pub(super) policy: Policy,
    pub(super) topology: Topology,
    pub(super) recorder: Recorder,
    /// The open channels of the host, and those that are restored.
    pub(super) channels: BTreeMap<u16, ChannelId>,
    pub(super) replay: Replay,
    pub(super) state: State,
    pub(super) events: Events,
    /// The attempts to connect since the last complete recovery.
    pub(super) attempt: u32,
    /// The attempts before those, of a connection that was lost again and again soon after its
    /// recovery: the delays grow on.
    pub(super) earlier: u32,
    /// The time of the last recovery.
    pub(super) recovered_at: Instant,
    /// The number of losses: each has other delays.
    pub(super) losses: u64,
    /// Whether a connection was lost, and is not recovered yet.
    pub(super) lost: bool,
    /// The last failure, for the reason to give up.
    pub(super) cause: String,
    /// The connection is to be closed: the deadline has passed while it was being restored.
    pub(super) closes: bool,
    /// For the channels that the server closed lately: how often in a row, and the time of the last
    /// attempt to reopen them.
    pub(super) closed: BTreeMap<u16, (u32, Instant)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
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
            earlier: 0,
            recovered_at: now,
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

    /// Forgets a consumer that the host needs no more: it is not started again. Returns whether the
    /// recovery is just starting it, and then cancels it by itself; otherwise the host
    /// [abandons](crate::client::ChannelMut::abandon_consumer) it.
    pub fn forget_consumer(&mut self, channel: ChannelId, consumer: ConsumerId) -> bool {
        if !self.knows(channel) {
            return false;
        }
        self.topology.cancel(channel.number(), consumer);
        self.replay.forget_consumer(channel.number(), consumer)
    }

    /// Opens a channel on the connection, under a number that no other channel of the host has:
    /// also none that is being reopened.
    ///
    /// # Errors
    /// As [`Connection::open_channel`].
    pub fn open_channel(
        &self,
        connection: &mut Connection,
    ) -> Result<(ChannelId, RequestId), ApiMisuse> {
        connection.open_channel_except(|number| self.channels.contains_key(&number))
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

    /// Returns the next event. [`RecoveryEvent::GaveUp`](super::RecoveryEvent::GaveUp) is the last one.
    ///
    /// If more than 64 events wait, a new one replaces the one before of the same kind: about the
    /// same channel, if it is about one. The end of a channel or a consumer is never replaced. To
    /// handle each event, call this after each [`handle_event`](Self::handle_event).
    #[must_use]
    pub fn poll_event(&mut self) -> Option<TimedEvent> {
        self.events.pop()
    }

    // Getters.

    /// Whether the connection lives and its topology is back.
    #[must_use]
    pub fn is_recovered(&self) -> bool {
        self.state == State::Recovered
    }

    /// Whether the host is to connect: [`poll_step`](Self::poll_step) has said so, and the connection
    /// is not open yet.
    #[must_use]
    pub fn is_connecting(&self) -> bool {
        self.state == State::Connecting
    }

    /// Whether a channel can be used: the connection is recovered, and the channel is not just being
    /// restored.
    #[must_use]
    pub fn is_channel_recovered(&self, channel: ChannelId) -> bool {
        self.is_recovered() && !self.replay.restores(channel.number())
    }

    /// The number of channel numbers that [`open_channel`](Self::open_channel) does not assign: those
    /// of the channels of the connection, and of the channels that are being reopened.
    #[must_use]
    pub fn channel_count(&self, connection: &Connection) -> usize {
        let waiting = |id: &&ChannelId| !connection.has_channel(**id);
        connection.channel_count() + self.channels.values().filter(waiting).count()
    }

    /// Whether replies to requests of the recovery itself are outstanding. While there are, the host
    /// reads on, however much it has not processed: they may be behind deliveries.
    #[must_use]
    pub fn awaits_replies(&self) -> bool {
        self.replay.awaits_replies()
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
