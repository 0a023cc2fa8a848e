//! The state of a connection that its handles share: the machine, and the tasks that wait for it.

use std::{
    collections::BTreeSet,
    mem,
    sync::{Arc, atomic::AtomicU32},
    task::Waker,
    time::Duration,
};

use amqp_core::{
    ChannelId, CloseReason, ConsumerId, Instant,
    client::{self, Event},
};

use super::{
    alarms::Alarms,
    buffer::Buffer,
    channel_table::ChannelTable,
    confirms::{Confirms, Totals},
    consumers::Consumers,
    inline::InlineDriver,
    later::Later,
    lines::{Line, LineId},
    recovering::Recovering,
    slots::{Answer, Requests},
    untaken::{ConsumerEnd, ConsumerState, ReturnsState},
    waiters::Waiters,
};
use crate::error::Error;

/// The output beyond the bound of publishes, in bytes, at which reading stops; it resumes at half
/// of it. Bounds the memory for replies to a server that sends requests without end and does not
/// read.
const ANSWERS_MAX: usize = 16 << 20;

/// The time that a requeued message may take to be redelivered before it counts as delivered to
/// another consumer: a redelivery takes a round trip.
const RECALL: Duration = Duration::from_secs(1);

/// The time that reading pauses for a consumer that takes nothing, if its messages can be requeued.
const PATIENCE: Duration = Duration::from_millis(20);

/// The state behind the one lock of a connection.
#[derive(Debug)]
pub(crate) struct State {
    pub(crate) machine: client::Connection,
    /// The driver's waker, while it sleeps.
    pub(crate) driver: Option<Waker>,
    /// The driver, for commands on their threads. `Some` if its transport is
    /// [inline](crate::io::Transport::is_inline): not that of an embedded broker.
    pub(crate) inline: Option<Arc<dyn InlineDriver>>,
    /// The present command is awaited, and no other, so that it is written inline.
    pub(crate) alone: bool,
    /// A command was written inline since the last input. Another one before that is one of several
    /// in flight, which leave together.
    pub(crate) written_inline: bool,
    /// The waker of the future of a command, the only one that an input has woken, if the driver may be
    /// lent. It is woken once the driver is parked, so that its next command finds the driver free, or
    /// at the next input.
    pub(crate) answered: Option<Waker>,
    pub(crate) requests: Requests,
    pub(crate) channels: ChannelTable<ChannelState>,
    /// The machine's number of channels at the last check.
    channel_count: usize,
    /// Futures that wait for the connection to open, to change its state or to end.
    pub(crate) state_changed: Waiters,
    /// Futures that wait for a channel number, or the end.
    pub(crate) numbers: Waiters,
    pub(crate) opened: bool,
    /// `Some` once the connection has ended.
    pub(crate) closed: Option<CloseReason>,
    /// The server's reason, while it blocks publishes; see
    /// <https://www.rabbitmq.com/docs/connection-blocked>.
    pub(crate) blocked: Option<amqp_core::wire::ShortStr>,
    /// The application must provide a new secret.
    pub(crate) secret_due: bool,
    /// The server's certificates.
    pub(crate) certificates: Arc<[Vec<u8>]>,
    /// Output was handed out, and the transport may not have taken it yet.
    pub(crate) in_transit: bool,
    /// Futures that wait for a flush.
    pub(crate) flushers: Waiters,
    pub(crate) output_line: Line,
    pub(crate) backlog_line: Line,
    /// The number of tickets held by publishers.
    pub(crate) tickets: usize,
    pub(crate) last_ticket: u64,
    /// The channels on which publishers may wait while the room is granted to others.
    pub(crate) crowded: BTreeSet<ChannelId>,
    /// Publishers with a grant have had their chance to run: the next round is due on a channel
    /// where none has used it.
    pub(crate) round_due: bool,
    pub(crate) buffer: Buffer,
    pub(crate) totals: Totals,
    /// Reading is paused: the buffer is full, or too much output is unsent.
    pub(crate) reading_paused: bool,
    /// The deadline for the pause of reading: consumers that take nothing are ended, or reading
    /// resumes.
    pub(crate) stalled_at: Option<Instant>,
    /// Reading is paused for messages that the server does not take back.
    pub(crate) overfull: bool,
    /// A delivery was taken since reading was paused.
    pub(crate) taken: bool,
    /// No delivery was taken for so long that reading resumed: deliveries without room are
    /// withheld.
    pub(crate) untaken: bool,
    /// The next check of requeued messages for redelivery. [`Instant::ORIGIN`] until the driver
    /// sets it.
    pub(crate) recalled_at: Option<Instant>,
    pub(crate) alarms: Alarms,
    /// The number of the connection's life. 0 until it is lost for the first time.
    pub(crate) life: u32,
    /// Whether any life was opened.
    pub(super) opened_once: bool,
    /// `Some` on a connection that recovers.
    pub(crate) recovery: Option<Box<Recovering>>,
    /// The time of the driver's last call.
    pub(super) now: Instant,
    /// The span of the connection.
    #[cfg(feature = "tracing")]
    pub(crate) trace: crate::trace::Trace,
}

/// The state of a channel with a live handle.
#[derive(Debug, Default)]
pub(crate) struct ChannelState {
    /// `Some` once the channel has ended.
    pub(crate) closed: Option<CloseReason>,
    /// The server has paused publishing with `channel.flow`.
    pub(crate) paused: bool,
    /// Counts the times at which the deliveries of before became stale. Shared with the handles.
    pub(crate) stale: Arc<AtomicU32>,
    pub(crate) transactional: bool,
    /// A recovery is interrupting the channel.
    pub(super) interrupted: bool,
    /// A recovery has interrupted the channel since its transaction began.
    pub(crate) transaction_lost: bool,
    /// The application has set its own prefetch with `basic.qos`.
    pub(crate) qos_by_user: bool,
    /// The prefetch of the last `basic.qos`, which applies to consumers that begin after it; see
    /// <https://www.rabbitmq.com/docs/consumer-prefetch>.
    pub(crate) prefetch: u16,
    pub(crate) consumers: Consumers,
    /// `Some` once a publish expects a confirm.
    pub(crate) confirms: Option<Box<Confirms>>,
    /// `Some` once a part of it is needed.
    extras: Option<Box<Extras>>,
}

/// The state that few channels have.
#[derive(Debug, Default)]
pub(crate) struct Extras {
    /// The time at which the last recovery of the channel ended.
    pub(super) resumed_at: Option<Instant>,
    pub(crate) returns: Option<ReturnsState>,
    /// Publishers that wait for room that only this channel lacks. `Some` once one has.
    pub(crate) line: Option<Line>,
    /// Futures that wait for a change of the channel's state.
    pub(crate) watchers: Waiters,
    /// Futures that wait until no publish is unconfirmed.
    pub(crate) confirmed: Waiters,
}

impl ChannelState {
    #[inline]
    pub(crate) fn extras(&self) -> Option<&Extras> {
        self.extras.as_deref()
    }

    #[inline]
    pub(crate) fn extras_mut(&mut self) -> Option<&mut Extras> {
        self.extras.as_deref_mut()
    }

    /// The extras, which are made if there are none.
    pub(crate) fn need_extras(&mut self) -> &mut Extras {
        self.extras.get_or_insert_default()
    }

    pub(crate) fn returns_mut(&mut self) -> Option<&mut ReturnsState> {
        self.extras_mut()?.returns.as_mut()
    }

    /// Wakes the futures that wait for a change of the channel's state.
    pub(super) fn wake_watchers(&mut self, later: &mut Later) {
        if let Some(extras) = self.extras_mut() {
            extras.watchers.wake_all(later);
        }
    }

    /// Wakes the futures that wait until no publish is unconfirmed.
    #[inline]
    pub(super) fn wake_confirmed(&mut self, later: &mut Later) {
        if let Some(extras) = self.extras_mut() {
            extras.confirmed.wake_all(later);
        }
    }
}

impl ChannelTable<ChannelState> {
    #[inline]
    pub(crate) fn consumer_mut(
        &mut self,
        channel: ChannelId,
        consumer: ConsumerId,
    ) -> Option<&mut ConsumerState> {
        self.get_mut(channel)?.consumers.get_mut(consumer)
    }
}

impl State {
    pub(crate) fn new(
        machine: client::Connection,
        #[cfg(feature = "tracing")] trace: crate::trace::Trace,
    ) -> Self {
        let limits = machine.limits();
        Self {
            buffer: Buffer::new(limits.undelivered),
            machine,
            driver: None,
            inline: None,
            alone: false,
            written_inline: false,
            answered: None,
            requests: Requests::default(),
            channels: ChannelTable::new(),
            channel_count: 0,
            state_changed: Waiters::default(),
            numbers: Waiters::default(),
            opened: false,
            closed: None,
            blocked: None,
            secret_due: false,
            certificates: Arc::default(),
            in_transit: false,
            flushers: Waiters::default(),
            output_line: Line::default(),
            backlog_line: Line::default(),
            tickets: 0,
            last_ticket: 0,
            crowded: BTreeSet::new(),
            round_due: false,
            totals: Totals::default(),
            reading_paused: false,
            stalled_at: None,
            overfull: false,
            taken: false,
            untaken: false,
            recalled_at: None,
            alarms: Alarms::default(),
            life: 0,
            opened_once: false,
            recovery: None,
            now: Instant::ORIGIN,
            #[cfg(feature = "tracing")]
            trace,
        }
    }

    // Channels.

    pub(crate) fn remove_channel(&mut self, id: ChannelId, later: &mut Later) {
        if let Some(mut channel) = self.channels.remove(id) {
            channel.wake_watchers(later);
            self.forget_channel(&channel);
        }
    }

    /// Whether the machine has channels without a handle.
    pub(crate) fn has_closing_channels(&self) -> bool {
        self.machine.channel_count() > self.channels.len()
    }

    /// The reason for which the channel takes no commands. `Some` once it or the connection has
    /// ended.
    pub(crate) fn channel_error(&self, id: impl Into<Option<ChannelId>>) -> Option<Error> {
        if let Some(reason) = &self.closed {
            return Some(Error::ConnectionClosed(reason.clone()));
        }
        let channel = self.channels.get(id.into()?)?;
        channel.closed.clone().map(Error::ChannelClosed)
    }

    /// The commands of a channel.
    ///
    /// # Errors
    /// The reason for which the channel takes no commands.
    pub(crate) fn commands(&mut self, id: ChannelId) -> Result<client::ChannelMut<'_>, Error> {
        if let Some(error) = self.channel_error(id) {
            return Err(error);
        }
        if self.is_held(Some(id)) {
            return Err(Error::Recovering);
        }
        if let Some(reason) = self.machine.close_reason() {
            return Err(Error::ConnectionClosed(reason.clone()));
        }
        self.machine
            .channel(id)
            .ok_or(Error::Misuse(amqp_core::ApiMisuse::ChannelNotOpen))
    }

    // Reading.

    /// Whether there is room for input.
    pub(crate) fn wants_input(&self) -> bool {
        if self.machine.close_reason().is_some() && !self.machine.has_transmit() {
            // Only the peer's reply to the close counts, see section 1.4.2.9 of the protocol
            // reference.
            return true;
        }
        let part = if self.reading_paused { 2 } else { 1 };
        let paused = self.reading_paused;
        let crowded = !self.untaken && self.buffer.is_crowded(paused);
        (self.is_awaited() || !(crowded || self.is_overfull()))
            && self.unpublished() < ANSWERS_MAX / part
    }

    /// Sets the deadline for the pause of reading.
    pub(crate) fn begin_stall(&mut self, now: Instant, unread: Duration) {
        self.overfull = self.is_overfull();
        let crowded = !self.overfull && self.buffer.is_crowded(true);
        self.stalled_at = Some(now + if crowded { PATIENCE } else { unread });
        self.taken = false;
    }

    fn is_overfull(&self) -> bool {
        self.buffer.is_full(self.reading_paused && self.overfull)
    }

    /// Whether a reply of the server is outstanding, which may be queued behind deliveries.
    fn is_awaited(&self) -> bool {
        self.totals.awaited > 0
            || !self.requests.is_empty()
            || self.tickets > 0
            || self.is_restoring()
    }

    /// A lower bound of the output that is not publishes, in bytes. Beyond each of the two bounds
    /// for publishes, at most one message is accepted, and one of the two fits into a frame.
    fn unpublished(&self) -> usize {
        let limits = self.machine.limits();
        let body = usize::try_from(limits.body).unwrap_or(usize::MAX);
        let frame = usize::try_from(self.machine.tuning().frame_max).unwrap_or(usize::MAX);
        let published = [
            limits.output_high,
            frame.min(body),
            limits.output_backlog,
            body,
        ]
        .into_iter()
        .fold(0, usize::saturating_add);
        self.machine.buffered().saturating_sub(published)
    }

    /// Sets the time for the events that are processed next.
    pub(crate) fn note_time(&mut self, now: Instant) {
        self.now = self.now.max(now);
    }

    /// Advances the clock of the session's own deadlines.
    pub(crate) fn advance(&mut self, now: Instant, later: &mut Later) {
        self.note_time(now);
        self.alarms.advance(now);
        self.alarms.expire(now, later);
        self.advance_recovery(now, later);
        match self.recalled_at {
            Some(Instant::ORIGIN) => self.recalled_at = Some(now + RECALL),
            Some(at) if at <= now => {
                let looks_again = self.look_for_recalled(later);
                self.recalled_at = looks_again.then_some(now + RECALL);
            }
            _ => {}
        }
        if self.stalled_at.is_some_and(|at| at <= now) {
            self.stalled_at = None;
            if self.is_overfull() {
                self.overflow_stalled(later);
            } else if self.buffer.is_crowded(self.reading_paused) {
                self.untaken = !self.taken;
            }
        }
    }

    /// The next deadline of the session itself.
    pub(crate) fn next_deadline(&self) -> Option<Instant> {
        let stalled = self.stalled_at.filter(|_| self.reading_paused);
        let recovery = self.recovery_deadline();
        [self.alarms.next(), stalled, self.recalled_at, recovery]
            .into_iter()
            .flatten()
            .min()
    }

    /// Bytes of messages that the handles have not taken.
    pub(crate) const fn untaken(&self) -> u64 {
        self.buffer.kept() as u64
    }

    // Events.

    /// Processes the machine's events.
    pub(crate) fn process_events(&mut self, later: &mut Later) {
        while let Some(event) = self.machine.poll_event() {
            #[cfg(feature = "tracing")]
            self.trace(&event, later);
            match event {
                Event::Delivered(delivery) => self.on_delivered(delivery, later),
                Event::Settled {
                    channel,
                    first,
                    last,
                    outcome,
                } => {
                    if let Some(state) = self.channels.get_mut(channel) {
                        let run = first.get()..=last.get();
                        let outcome = (channel.number(), &outcome);
                        if let Some(confirms) = &mut state.confirms {
                            confirms.settle(run, outcome, &mut self.totals, later);
                        }
                        state.wake_confirmed(later);
                        self.grant(LineId::Channel(channel), later);
                    }
                }
                // At once, so that the recovery keeps few events.
                event if self.recover_on(&event) => self.process_recovery(later),
                Event::Reply { request, reply, .. } => {
                    self.answer(request, Answer::Reply(reply), later);
                }
                Event::Got {
                    request, message, ..
                } => self.answer(request, Answer::Got(message), later),
                Event::Failed { request, cause } => {
                    self.answer(request, Answer::Failed(cause), later);
                }
                Event::Returned(returned) => self.on_returned(returned, later),
                Event::Unreadable {
                    channel,
                    consumer: Some(consumer),
                    ..
                } => {
                    if let Some(consumer) = self.channels.consumer_mut(channel, consumer) {
                        consumer.unreadable += 1;
                    }
                }
                Event::ConsumerCancelled {
                    channel,
                    consumer,
                    tag,
                } => {
                    let end = ConsumerEnd::Error(Error::ConsumerCancelled {
                        tag,
                        channel: channel.number(),
                    });
                    self.end_consumer(channel, consumer, end, later);
                }
                Event::ChannelClosed { channel, reason } => {
                    self.on_channel_closed(channel, &reason, later);
                }
                Event::Opened => {
                    (self.opened, self.opened_once) = (true, true);
                    self.state_changed.wake_all(later);
                }
                Event::SecretDue => {
                    self.secret_due = true;
                    self.state_changed.wake_all(later);
                }
                Event::Closed(reason) => self.on_end(&reason, later),
                Event::Writable => self.begin_round(LineId::Output, later),
                Event::BacklogWritable => self.begin_round(LineId::Backlog, later),
                Event::ChannelWritable { channel } => self.grant(LineId::Channel(channel), later),
                Event::Blocked { reason } => {
                    self.blocked = Some(reason);
                    self.state_changed.wake_all(later);
                }
                Event::Unblocked => {
                    self.blocked = None;
                    self.state_changed.wake_all(later);
                    self.begin_round(LineId::Output, later);
                    self.begin_round(LineId::Backlog, later);
                }
                Event::Flow { channel, active } => {
                    if let Some(channel) = self.channels.get_mut(channel) {
                        channel.paused = !active;
                        channel.wake_watchers(later);
                    }
                    if active {
                        self.grant(LineId::Channel(channel), later);
                    }
                }
                _ => {}
            }
        }
        self.process_recovery(later);
        later.drop_bodies(self.machine.take_discarded());
        let channel_count = self.machine.channel_count();
        if channel_count < mem::replace(&mut self.channel_count, channel_count) {
            self.numbers.wake_all(later);
        }
    }

    /// Processes the end of a channel, by either side.
    pub(crate) fn on_channel_closed(
        &mut self,
        id: ChannelId,
        reason: &CloseReason,
        later: &mut Later,
    ) {
        if let Some(channel) = self.channels.get_mut(id) {
            channel.closed = Some(reason.clone());
            channel.wake_watchers(later);
            self.finish_channel(id, &Error::ChannelClosed(reason.clone()), later);
        }
        self.dismiss_publishers_of(id, later);
        self.numbers.wake_all(later);
    }

    /// Processes the end of the connection. The first one counts.
    pub(super) fn on_closed(&mut self, reason: &CloseReason, later: &mut Later) {
        if self.closed.is_some() {
            return;
        }
        self.closed = Some(reason.clone());
        let error = Error::ConnectionClosed(reason.clone());
        for id in self.channels.ids() {
            self.finish_channel(id, &error, later);
        }
        self.dismiss_publishers(later);
        self.flushers.wake_all(later);
        self.state_changed.wake_all(later);
        self.numbers.wake_all(later);
        self.alarms.expire_all(later);
        self.wake_recovering(later);
    }
}
