//! The session of a connection that recovers: its handles wait while it is lost, and go on.

use std::{
    collections::{BTreeSet, VecDeque},
    mem,
};

use amqp_core::{
    ChannelId, CloseCause, CloseReason, ConsumerId, Instant, RequestId, Requeue, Tags,
    client::{self, Config, Event},
    protocol::{Method, ReplyCode, basic},
    recovery::{
        ConnectFailure, FailureReason, Policy, Recovery, RecoveryEvent, Step, TimedEvent, Topology,
    },
    wire::ShortStr,
};

use super::{
    later::Later,
    lines::LineId,
    shared::Shared,
    state::{ChannelState, State},
    untaken::ConsumerEnd,
    waiters::Waiters,
    withheld::Withheld,
};
use crate::error::Error;

/// The number of events kept for the streams of them: those of several recoveries. Progress is
/// reported a few dozen times per recovery.
const EVENTS: usize = 512;

/// The recovery of a connection.
///
/// ```text
///             the transport ends, the server closes
///  recovered ──────────────────────────────────────> lost ── the supervisor gives up ──> (closed)
///      ^                                             │  ^
///      │                              new transport  │  │ lost again
///      │                                             v  │
///      └──── topology restored ─────────────────── restoring
/// ```
#[derive(Debug)]
pub(crate) struct Recovering {
    pub(super) recovery: Recovery,
    /// Handles wait: the connection is lost, or its topology is not restored yet.
    paused: bool,
    /// The channels that are reopened while the connection lives: their handles wait.
    reopening: BTreeSet<ChannelId>,
    /// The reason of the last loss.
    lost: Option<CloseReason>,
    /// The connection is being closed on request: its end is final.
    closing: bool,
    /// Futures that wait for the end of a pause.
    pub(super) resumed: Waiters,
    /// The events, the oldest first, with the number of the first one.
    events: VecDeque<TimedEvent>,
    first_event: u64,
    /// Futures that wait for an event.
    pub(crate) listeners: Waiters,
}

impl Recovering {
    fn new(policy: Policy, now: Instant) -> Self {
        let mut recovery = Recovery::new(policy, now);
        // The first life is being connected.
        let _connect = recovery.poll_step(now);
        Self {
            recovery,
            paused: false,
            reopening: BTreeSet::new(),
            lost: None,
            closing: false,
            resumed: Waiters::default(),
            events: VecDeque::new(),
            first_event: 0,
            listeners: Waiters::default(),
        }
    }

    /// The first event with that number or a later one, and its number.
    pub(crate) fn event(&self, number: u64) -> Option<(u64, &TimedEvent)> {
        let number = number.max(self.first_event);
        let at = usize::try_from(number - self.first_event).ok()?;
        Some((number, self.events.get(at)?))
    }

    fn keep_event(&mut self, event: TimedEvent, later: &mut Later) {
        if self.events.len() == EVENTS {
            self.events.pop_front();
            self.first_event += 1;
        }
        self.events.push_back(event);
        self.listeners.wake_all(later);
    }

    /// Whether the handles of a channel, or those of the connection, wait.
    fn holds(&self, channel: Option<ChannelId>) -> bool {
        self.paused || channel.is_some_and(|id| self.reopening.contains(&id))
    }
}

impl State {
    /// Lets the connection recover. Called before its handshake.
    pub(crate) fn recover_by(&mut self, policy: Policy, now: Instant) {
        self.recovery = Some(Box::new(Recovering::new(policy, now)));
    }

    /// Whether the handles of a channel, or those of the connection, wait for the recovery.
    #[inline]
    pub(crate) fn is_held(&self, channel: Option<ChannelId>) -> bool {
        match &self.recovery {
            Some(recovering) => recovering.holds(channel),
            None => false,
        }
    }

    /// Whether the connection that is being recovered is closing on request.
    pub(crate) fn is_closing(&self) -> bool {
        self.recovery.as_ref().is_some_and(|it| it.closing)
    }

    /// Whether the server's part of a handshake or replies to requests of the recovery are
    /// outstanding. They may be queued behind deliveries, and the buffer may be full of those of
    /// before.
    pub(super) fn is_restoring(&self) -> bool {
        let recovering = self.recovery.as_ref();
        recovering.is_some_and(|it| !self.opened || it.recovery.awaits_replies())
    }

    /// The error for an operation that began in that life of the connection. `Some` if the life has
    /// ended and another one follows.
    pub(crate) fn lost_since(&self, life: u32) -> Option<Error> {
        let recovering = self.recovery.as_ref()?;
        if self.life == life && !recovering.paused {
            return None;
        }
        let lost = recovering.lost.clone();
        Some(lost.map_or(Error::Recovering, Error::ConnectionClosed))
    }

    /// The topology to be restored. `Some` on a connection that recovers.
    pub(crate) fn topology(&mut self) -> Option<&mut Topology> {
        Some(self.recovery.as_mut()?.recovery.topology_mut())
    }

    // Recording.

    /// Records a request that changes the topology, before its reply can arrive. `request` is `None`
    /// if the reply is not awaited.
    #[inline]
    pub(crate) fn record(
        &mut self,
        channel: ChannelId,
        request: Option<RequestId>,
        method: impl FnOnce() -> Method,
    ) {
        if let Some(recovering) = &mut self.recovery {
            recovering.recovery.handle_sent(channel, request, &method());
        }
    }

    /// Records a consumer that is being started, before its reply can arrive.
    pub(crate) fn record_consumer(
        &mut self,
        channel: ChannelId,
        consumer: ConsumerId,
        request: RequestId,
        tag: &ShortStr,
        consume: &basic::Consume,
    ) {
        if let Some(recovering) = &mut self.recovery {
            let mut consume = consume.clone();
            consume.consumer_tag = tag.clone();
            recovering
                .recovery
                .handle_consume_sent(channel, consumer, request, &consume);
        }
    }

    /// Whether a recovery has ended the transaction of a channel.
    pub(crate) fn is_transaction_lost(&self, channel: ChannelId) -> bool {
        let channel = self.channels.get(channel);
        channel.is_some_and(|channel| channel.transaction_lost)
    }

    /// Records that the reply to a request is not awaited any more.
    pub(super) fn record_abandoned(&mut self, request: RequestId) {
        if let Some(recovering) = &mut self.recovery {
            recovering.recovery.handle_abandoned(request);
        }
    }

    /// Records the end of a consumer by its handle.
    pub(crate) fn record_cancel(&mut self, channel: ChannelId, tag: &ShortStr) {
        self.record(channel, None, || {
            let cancel = basic::Cancel {
                consumer_tag: tag.clone(),
                no_wait: true,
            };
            cancel.into()
        });
    }

    /// Ends a consumer whose channel is held: it is not started again, or cancelled if it was.
    pub(crate) fn end_held_consumer(&mut self, channel: ChannelId, id: ConsumerId, tag: &ShortStr) {
        let Some(recovering) = &mut self.recovery else {
            return;
        };
        let starting = recovering.recovery.forget_consumer(channel, id);
        if !starting && let Some(mut commands) = self.machine.channel(channel) {
            commands.abandon_consumer(tag, id);
        }
    }

    /// Opens a channel, under a number that no channel has which is being reopened.
    pub(crate) fn open_channel(&mut self) -> Result<(ChannelId, RequestId), Error> {
        if let Some(reason) = self.machine.close_reason() {
            return Err(Error::ConnectionClosed(reason.clone()));
        }
        Ok(match &self.recovery {
            Some(it) => it.recovery.open_channel(&mut self.machine),
            None => self.machine.open_channel(),
        }?)
    }

    /// The number of channel numbers in use, those of channels included that are being reopened.
    pub(crate) fn used_numbers(&self) -> usize {
        match &self.recovery {
            Some(it) => it.recovery.channel_count(&self.machine),
            None => self.machine.channel_count(),
        }
    }

    /// Records the end of a channel by its handle. Returns whether the channel is not open at the
    /// server, because of the recovery.
    pub(crate) fn forget_recorded(&mut self, channel: ChannelId) -> bool {
        let Some(recovering) = &mut self.recovery else {
            return false;
        };
        recovering.recovery.forget_channel(channel);
        let held = recovering.holds(Some(channel));
        recovering.reopening.remove(&channel);
        held
    }

    // The life of the connection.

    /// Closes the connection on request.
    pub(crate) fn close(&mut self, text: &str, later: &mut Later) {
        self.stop_recovery(later);
        self.machine.close(ReplyCode::SUCCESS, text);
    }

    /// Ends the recovery: the connection is being closed on request. If it is lost, it has ended.
    pub(crate) fn stop_recovery(&mut self, later: &mut Later) {
        let Some(recovering) = &mut self.recovery else {
            return;
        };
        recovering.closing = true;
        if self.closed.is_none()
            && recovering.paused
            && self.machine.close_reason().is_some()
            && let Some(reason) = recovering.lost.clone()
        {
            recovering.recovery.stop(self.now);
            self.on_closed(&reason, later);
            self.process_recovery(later);
            later.commanded = true;
        }
    }

    /// Handles the end of a life of the connection.
    pub(super) fn on_end(&mut self, reason: &CloseReason, later: &mut Later) {
        let recovers = self.on_lost(reason, later);
        if !recovers {
            self.on_closed(reason, later);
        }
    }

    /// Handles a loss. Returns `false` if the end of this life is that of the connection.
    fn on_lost(&mut self, reason: &CloseReason, later: &mut Later) -> bool {
        let Some(recovering) = &mut self.recovery else {
            return false;
        };
        if recovering.closing || (recovering.lost.is_none() && !self.opened_once) {
            return false;
        }
        if !self.opened {
            // The supervisor reports it, with the failures of all addresses.
            return true;
        }
        // Events before the loss do not end the pause that it begins.
        self.process_recovery(later);
        let Some(recovering) = &mut self.recovery else {
            return false;
        };
        let closed = Event::Closed(reason.clone());
        let recovery = &mut recovering.recovery;
        recovery.handle_event(self.now, &mut self.machine, &closed);
        recovering.lost = Some(reason.clone());
        if recovering.recovery.is_stopped() {
            self.process_recovery(later);
            return false;
        }
        recovering.paused = true;
        (self.opened, self.blocked, self.secret_due) = (false, None, false);
        (self.reading_paused, self.overfull, self.untaken) = (false, false, false);
        (self.in_transit, self.round_due) = (false, false);
        (self.stalled_at, self.recalled_at) = (None, None);
        for id in self.channels.ids() {
            self.interrupt_channel(id, reason, later);
        }
        self.flushers.wake_all(later);
        self.state_changed.wake_all(later);
        self.process_recovery(later);
        true
    }

    /// Whether the recovery lets the next life begin now.
    pub(crate) fn is_connecting(&self) -> bool {
        let recovering = self.recovery.as_ref();
        recovering.is_some_and(|it| it.recovery.is_connecting())
    }

    /// Begins the next life on a new transport. Returns the machine of the ended one.
    ///
    /// # Errors
    /// [`Error::Recovering`] if another life was open meanwhile: the next one follows later.
    pub(crate) fn begin_life(
        &mut self,
        config: Config,
        now: Instant,
    ) -> Result<client::Connection, Error> {
        if let Some(reason) = &self.closed {
            return Err(Error::ConnectionClosed(reason.clone()));
        }
        if !self.is_connecting() {
            return Err(Error::Recovering);
        }
        let ended = self.machine.resume(config, now)?;
        self.life = self.life.wrapping_add(1);
        Ok(ended)
    }

    /// Passes an event of the machine to the recovery. Returns whether it concerns nothing else.
    pub(super) fn recover_on(&mut self, event: &Event) -> bool {
        match &mut self.recovery {
            // Reported by `on_lost`.
            Some(_) if matches!(event, Event::Closed(_)) => false,
            Some(recovering) => {
                let recovery = &mut recovering.recovery;
                recovery.handle_event(self.now, &mut self.machine, event)
            }
            None => false,
        }
    }

    /// The next deadline of the recovery while the connection lives.
    pub(super) fn recovery_deadline(&self) -> Option<Instant> {
        self.recovery.as_ref()?.recovery.poll_timeout()
    }

    /// Wakes the futures that wait for the recovery or its events: the connection has ended.
    pub(super) fn wake_recovering(&mut self, later: &mut Later) {
        if let Some(recovering) = &mut self.recovery {
            recovering.resumed.wake_all(later);
            recovering.listeners.wake_all(later);
        }
    }

    /// Advances the clock of the recovery.
    pub(super) fn advance_recovery(&mut self, now: Instant, later: &mut Later) {
        if let Some(recovering) = &mut self.recovery
            && recovering
                .recovery
                .poll_timeout()
                .is_some_and(|at| at <= now)
        {
            recovering.recovery.handle_timeout(now, &mut self.machine);
            later.commanded = true;
            self.process_recovery(later);
        }
    }

    /// The next step of the host while the connection is lost. `None` once it has ended.
    pub(crate) fn recovery_step(&mut self, now: Instant, later: &mut Later) -> Option<Step> {
        let step = self.recovery.as_mut()?.recovery.poll_step(now);
        self.process_recovery(later);
        self.closed.is_none().then_some(step)
    }

    /// Handles a failure to connect.
    pub(crate) fn connect_failed(
        &mut self,
        now: Instant,
        failure: ConnectFailure,
        text: &str,
        later: &mut Later,
    ) {
        if let Some(recovering) = &mut self.recovery {
            recovering
                .recovery
                .handle_connect_failed(now, failure, text);
        }
        self.process_recovery(later);
    }

    /// Advances the clock while no driver does. Returns whether the connection has ended.
    pub(crate) fn pass_time(&mut self, now: Instant, later: &mut Later) -> bool {
        self.advance(now, later);
        self.closed.is_some()
    }

    /// Processes the events of the recovery.
    pub(super) fn process_recovery(&mut self, later: &mut Later) {
        while let Some(recovering) = &mut self.recovery
            && let Some(change) = recovering.recovery.poll_event()
        {
            later.commanded = true;
            self.on_recovery_event(&change.event, later);
            if let Some(recovering) = &mut self.recovery {
                recovering.keep_event(change, later);
            }
        }
    }

    fn on_recovery_event(&mut self, event: &RecoveryEvent, later: &mut Later) {
        let Some(recovering) = &mut self.recovery else {
            return;
        };
        match event {
            RecoveryEvent::ConsumerEnded {
                channel,
                consumer,
                reason,
            } => {
                let end = ConsumerEnd::Error(error_of(reason));
                self.end_consumer(*channel, *consumer, end, later);
            }
            RecoveryEvent::ChannelEnded { channel, reason } => {
                recovering.reopening.remove(channel);
                self.on_channel_closed(*channel, &close_reason_of(reason), later);
            }
            RecoveryEvent::ChannelLost { channel, reason } => {
                recovering.reopening.insert(*channel);
                self.interrupt_channel(*channel, reason, later);
            }
            RecoveryEvent::ChannelRecovered { channel, .. } => {
                recovering.reopening.remove(channel);
                self.resume(later);
            }
            RecoveryEvent::Recovered(_) => {
                recovering.paused = false;
                // Those that were lost before or during the recovery are part of it.
                recovering.reopening.clear();
                self.resume(later);
            }
            // The close on request of a lost connection has ended it, for the reason of the loss.
            RecoveryEvent::GaveUp(_) if self.closed.is_some() => {}
            RecoveryEvent::GaveUp(why) => {
                recovering.closing = true;
                let why = match &recovering.lost {
                    Some(lost) => format!("{why}; the connection was lost: {lost}"),
                    None => why.to_string(),
                };
                self.machine.close(ReplyCode::SUCCESS, &why);
                let reason = CloseReason::from(CloseCause::NotRecovered { why });
                self.on_closed(&reason, later);
            }
            _ => {}
        }
    }

    /// Lets the handles go on.
    fn resume(&mut self, later: &mut Later) {
        let Some(recovering) = &mut self.recovery else {
            return;
        };
        recovering.resumed.wake_all(later);
        self.state_changed.wake_all(later);
        self.numbers.wake_all(later);
        for line in [LineId::Output, LineId::Backlog] {
            self.begin_round(line, later);
        }
        for id in self.channels.ids() {
            let held = self.is_held(Some(id));
            if let Some(channel) = self.channels.get_mut(id) {
                if !held && mem::take(&mut channel.interrupted) {
                    channel.need_extras().resumed_at = Some(self.now);
                }
                channel.wake_watchers(later);
            }
            self.begin_round(LineId::Channel(id), later);
        }
    }

    /// Handles the interruption of a channel: the deliveries that are not taken are stale, because
    /// the server requeues all that are unacknowledged
    /// (<https://www.rabbitmq.com/docs/confirms>).
    fn interrupt_channel(&mut self, id: ChannelId, reason: &CloseReason, later: &mut Later) {
        self.drop_stale(id);
        let topology = self.recovery.as_ref().map(|it| it.recovery.topology());
        let recorded = topology.and_then(|it| it.channel(id.number()));
        let Some(channel) = self.channels.get_mut(id) else {
            return;
        };
        channel.interrupt(reason, later);
        // A prefetch that was in flight is not restored.
        let qos = recorded.and_then(|it| it.qos.as_ref());
        channel.prefetch = qos.map_or(0, |it| it.prefetch_count);
        channel.qos_by_user &=
            recorded.is_some_and(|it| it.qos.is_some() || it.global_qos.is_some());
        for consumer in channel.consumers.values_mut() {
            if consumer.end.is_none() && consumer.cancelling() {
                // Its cancel was sent, and it is not restored.
                consumer.finish(ConsumerEnd::Cancelled, later);
                self.buffer.consumers -= usize::from(consumer.stop_counting());
            }
        }
    }

    /// Requeues a delivery for a consumer that was released while it was being restored.
    #[cold]
    pub(super) fn return_delivery(&mut self, delivery: &client::Delivery, later: &mut Later) {
        if let (Some(tag), Some(mut commands)) =
            (delivery.tag, self.machine.channel(delivery.channel))
        {
            // Fails only on a channel that has ended: the server requeues its deliveries.
            let _closed = commands.nack(Tags::One(tag), Requeue::Yes);
            later.commanded = true;
        }
    }
}

/// The error of a consumer that was not restored.
fn error_of(reason: &FailureReason) -> Error {
    match reason {
        FailureReason::Closed(reason) => Error::ChannelClosed(reason.clone()),
        FailureReason::Request(cause) => cause.clone().into(),
        other => Error::NotRecovered {
            why: other.to_string(),
        },
    }
}

/// The reason for which a channel that was not restored has ended.
fn close_reason_of(reason: &FailureReason) -> CloseReason {
    match reason {
        FailureReason::Closed(reason) => reason.clone(),
        other => CloseReason::from(CloseCause::NotRecovered {
            why: other.to_string(),
        }),
    }
}

impl ChannelState {
    fn interrupt(&mut self, reason: &CloseReason, later: &mut Later) {
        self.paused = false;
        self.interrupted = true;
        self.transaction_lost |= self.transactional;
        for consumer in self.consumers.values_mut() {
            consumer.withheld = Withheld::default();
            if consumer.end.is_none() {
                consumer.interrupt(reason, later);
            }
        }
        self.wake_watchers(later);
    }
}

impl Shared {
    /// Runs a command as soon as its channel, or the connection, is not being recovered.
    pub(crate) async fn command_when_ready<T>(
        &self,
        channel: Option<ChannelId>,
        mut command: impl FnMut(&mut State, &mut Later) -> Result<T, Error>,
    ) -> Result<T, Error> {
        loop {
            let result = self.with(|state, later| {
                if state.is_held(channel) && state.channel_error(channel).is_none() {
                    return None;
                }
                later.commanded = true;
                Some(command(state, later))
            });
            match result {
                Some(result) => return result,
                None => self.recovered(channel).await,
            }
        }
    }

    /// Waits until a channel, or the connection, is not being recovered, or has ended.
    async fn recovered(&self, channel: Option<ChannelId>) {
        let over = |state: &State| {
            let over = !state.is_held(channel) || state.channel_error(channel).is_some();
            over.then_some(())
        };
        super::shared::wait_for(self, resumed, over).await;
    }
}

/// The futures that wait for the end of a pause.
fn resumed(state: &mut State) -> &mut Waiters {
    match &mut state.recovery {
        Some(recovering) => &mut recovering.resumed,
        // Not held, so that none waits.
        None => &mut state.state_changed,
    }
}
