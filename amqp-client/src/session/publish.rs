//! Publishing: at once if there is room, otherwise in line.

use std::{
    future::poll_fn,
    task::{Poll, Waker, ready},
};

use amqp_core::{
    ApiMisuse, Body, ChannelId, Hold, PropertyList, PublishError, PublishSeq, TimeoutReason,
    protocol::basic,
};

use super::{
    later::Later,
    lines::{Line, LineId, Standing, Ticket},
    shared::Alarm,
    state::{ChannelState, State},
};
use crate::{base_channel::Inner, channel::TryPublishError, confirm::Unconfirmed, error::Error};

/// The frames around a body, in bytes, as far as the room for publishes is concerned.
const PUBLISH_OVERHEAD: usize = 64;

/// Why a publish is not done.
#[derive(Debug)]
pub(crate) enum Refused {
    /// It is held back, and stands in that line.
    Held {
        line: LineId,
        hold: Hold,
    },
    Failed(Error),
}

/// A publish on its way into the output: the message, and its place in line.
///
/// Dropped before it was accepted, it passes its room on.
struct Publishing<'a> {
    inner: &'a Inner,
    body: Body,
    ticket: Option<Ticket>,
}

/// Publishes as soon as there is room. A future asks for the confirm if the publish is `tracked`.
pub(crate) async fn publish_on<P: PropertyList>(
    inner: &Inner,
    publish: &basic::Publish,
    properties: &P,
    body: Body,
    tracked: bool,
) -> Result<Option<PublishSeq>, Error> {
    let message = Message {
        publish,
        properties,
        tracked,
    };
    let mut publishing = Publishing {
        inner,
        body,
        ticket: None,
    };
    let shared = inner.shared();
    let mut limit = Alarm::new(shared, shared.timeouts().publish);
    poll_fn(|cx| {
        let Publishing { body, ticket, .. } = &mut publishing;
        let mut attempt = |waker: Option<Waker>| {
            shared.with(|state, later| {
                if ticket.is_none() && state.is_uncontended() && !inner.publish_budget.take() {
                    return Attempt::Yields;
                }
                let cost = body.len() + PUBLISH_OVERHEAD;
                match state.publish(inner.id, &message, body, ticket, later) {
                    Ok(seq) => Attempt::Done(Ok(seq)),
                    Err(Refused::Failed(error)) => Attempt::Done(Err(error)),
                    Err(Refused::Held { line, .. }) => {
                        if let Some(waker) = waker {
                            state.join_line(line, inner.id, ticket, cost, waker, later);
                        }
                        Attempt::Waits
                    }
                }
            })
        };
        let mut attempted = attempt(None);
        if let Attempt::Waits = attempted {
            // A waker is cloned without the lock: it is code of the executor's.
            attempted = attempt(Some(cx.waker().clone()));
        }
        match attempted {
            Attempt::Done(published) => Poll::Ready(published),
            Attempt::Yields => {
                cx.waker().wake_by_ref();
                Poll::Pending
            }
            Attempt::Waits => {
                inner.publish_budget.renew();
                ready!(limit.poll(cx));
                Poll::Ready(Err(Error::TimedOut(TimeoutReason::Publish)))
            }
        }
    })
    .await
}

/// A message without its body.
struct Message<'a, P> {
    publish: &'a basic::Publish,
    properties: &'a P,
    /// Whether a future asks for the confirm.
    tracked: bool,
}

/// The outcome of an attempt to publish.
enum Attempt {
    Done(Result<Option<PublishSeq>, Error>),
    Waits,
    /// Other tasks run first.
    Yields,
}

/// Publishes if there is room now, and no publisher waits for it.
pub(crate) fn try_publish_on<P: PropertyList>(
    inner: &Inner,
    publish: &basic::Publish,
    properties: &P,
    mut body: Body,
    tracked: bool,
) -> Result<Option<PublishSeq>, TryPublishError> {
    let message = Message {
        publish,
        properties,
        tracked,
    };
    let published = inner.shared().with(|state, later| {
        let mut ticket = None;
        state.publish(inner.id, &message, &mut body, &mut ticket, later)
    });
    published.map_err(|refused| match refused {
        Refused::Held { hold, .. } => TryPublishError::HeldBack { hold, body },
        Refused::Failed(error) => TryPublishError::Failed(error),
    })
}

impl Drop for Publishing<'_> {
    fn drop(&mut self) {
        if let Some(ticket) = self.ticket.take() {
            self.inner.shared().with(|state, later| {
                state.leave_line(ticket, self.inner.id, later);
            });
        }
    }
}

impl State {
    /// Whether no publisher waits, and no room is reserved for one.
    #[inline]
    fn is_uncontended(&self) -> bool {
        self.tickets == 0 && self.output_line.reserved() == 0
    }

    /// Publishes a message, unless it is held back or has to wait for its turn. The body is taken
    /// only if the message is accepted.
    #[inline]
    fn publish<P: PropertyList>(
        &mut self,
        id: ChannelId,
        message: &Message<'_, P>,
        body: &mut Body,
        ticket: &mut Option<Ticket>,
        later: &mut Later,
    ) -> Result<Option<PublishSeq>, Refused> {
        let cost = body.len() + PUBLISH_OVERHEAD;
        let mut granted = None;
        if let Some(ticket) = ticket {
            match self.line(ticket.line).map(|line| line.claim(ticket.number)) {
                Some(Standing::Waiting) => {
                    let (line, hold) = (ticket.line, Hold::OutputFull);
                    return Err(Refused::Held { line, hold });
                }
                Some(Standing::Granted(room)) => granted = Some((ticket.line, room)),
                Some(Standing::Stale) | None => {}
            }
        } else if self.tickets > 0
            && let Some((line, hold)) = self.must_wait(id, cost, body.len())
        {
            return Err(Refused::Held { line, hold });
        }
        let published = match self.machine.channel(id) {
            Some(mut channel) => channel.publish_from(message.publish, message.properties, body),
            None => Err(ApiMisuse::ChannelNotOpen.into()),
        };
        match published {
            Ok(seq) => {
                later.commanded = true;
                if let Some(channel) = self.channels.get_mut(id)
                    && seq.is_some()
                {
                    channel.confirms.expect(message.tracked);
                }
                if self.tickets > 0 {
                    self.settle_turn(id, cost, granted, ticket, later);
                }
                Ok(seq)
            }
            Err(PublishError::HeldBack { hold, .. }) => Err(Refused::Held {
                line: line_of(hold, id),
                hold,
            }),
            // A channel that is gone has a reason, which says more.
            Err(PublishError::Misuse(misuse)) => Err(Refused::Failed(
                self.commands(id).err().unwrap_or(Error::Misuse(misuse)),
            )),
            Err(_) => Err(Refused::Failed(Error::Internal("an unknown refusal"))),
        }
    }

    fn line(&mut self, id: LineId) -> Option<&mut Line> {
        match id {
            LineId::Output => Some(&mut self.output_line),
            LineId::Backlog => Some(&mut self.backlog_line),
            LineId::Channel(id) => self.channels.get_mut(id).map(|channel| &mut channel.line),
        }
    }

    /// The line behind which a publish without a ticket has to wait, so that it passes no other.
    #[cold]
    fn must_wait(&mut self, id: ChannelId, cost: usize, len: usize) -> Option<(LineId, Hold)> {
        let channel = self.channels.get(id)?;
        let credit = channel.credit;
        let commands = self.machine.channel(id)?;
        if !channel.line.is_idle() {
            let room = commands.unconfirmed_room();
            let in_flight = self.unconfirmed_max.saturating_sub(room);
            // With nothing in flight no confirm would begin the next round of grants.
            if channel.line.has_waiting() || (room <= channel.line.granted() && in_flight > 0) {
                return Some((LineId::Channel(id), Hold::TooManyUnconfirmed));
            }
        }
        if commands.is_backlogged(len) {
            return self
                .backlog_line
                .has_waiting()
                .then_some((LineId::Backlog, Hold::BacklogFull));
        }
        let line = &self.output_line;
        let passes = line.is_idle()
            || credit >= cost
            || (!line.has_waiting() && self.machine.output_room() > line.reserved());
        (!passes).then_some((LineId::Output, Hold::OutputFull))
    }

    /// Accounts for a publish that was made while others wait, and passes on what it leaves.
    #[cold]
    fn settle_turn(
        &mut self,
        id: ChannelId,
        cost: usize,
        granted: Option<(LineId, usize)>,
        ticket: &mut Option<Ticket>,
        later: &mut Later,
    ) {
        if ticket.take().is_some() {
            self.tickets -= 1;
        }
        if let Some(channel) = self.channels.get_mut(id) {
            match granted {
                Some((LineId::Output, room)) => {
                    // The rest of the grant is for the next messages of the same publisher.
                    let rest = room.saturating_sub(cost);
                    channel.credit += rest;
                    self.output_line.reserve(rest);
                    self.credited.push(id);
                }
                Some((LineId::Backlog | LineId::Channel(_), _)) => {}
                None => {
                    let used = channel.credit.min(cost);
                    channel.credit -= used;
                    self.output_line.release(used);
                }
            }
            if channel.line.has_waiting() {
                self.grant_channel(id, false, later);
            }
        }
    }

    /// Takes a ticket, or moves one that was refused.
    fn join_line(
        &mut self,
        line: LineId,
        channel: ChannelId,
        ticket: &mut Option<Ticket>,
        cost: usize,
        waker: Waker,
        later: &mut Later,
    ) {
        let ticket = ticket.get_or_insert_with(|| {
            self.tickets += 1;
            self.last_ticket += 1;
            let number = self.last_ticket;
            Ticket { number, line }
        });
        ticket.line = line;
        let number = ticket.number;
        match self.line(line) {
            Some(line) => line.join(number, channel, cost, waker, later),
            None => later.wake(Some(waker)),
        }
        // The event that begins the next round of grants.
        match line {
            LineId::Output => self.machine.want_writable(),
            LineId::Backlog => self.machine.want_backlog_writable(),
            LineId::Channel(id) => {
                if let Some(mut channel) = self.machine.channel(id) {
                    channel.want_writable();
                }
            }
        }
        later.commanded = true;
    }

    /// Gives up a ticket, and passes its room on.
    fn leave_line(&mut self, ticket: Ticket, channel: ChannelId, later: &mut Later) {
        self.tickets -= 1;
        if let Some(line) = self.line(ticket.line) {
            line.leave(ticket.number, later);
        }
        let room = self.machine.output_room();
        let line = &mut self.output_line;
        if line.has_waiting() && room > line.reserved() && !self.machine.is_blocked() {
            line.grant(0, later);
        }
        if self.backlog_line.has_waiting() {
            self.grant_backlog(later);
        }
        self.grant_channel(channel, false, later);
    }

    /// There is room in the output: shares it among those that wait for it.
    pub(crate) fn grant_output(&mut self, later: &mut Later) {
        for id in std::mem::take(&mut self.credited) {
            if let Some(channel) = self.channels.get_mut(id) {
                channel.credit = 0;
            }
        }
        let line = &mut self.output_line;
        line.begin_round();
        if self.machine.is_blocked() || !line.has_waiting() {
            return;
        }
        let mut room = self.machine.output_room();
        let share = room / line.len();
        while room > 0
            && let Some(taken) = line.grant(share, later)
        {
            room = room.saturating_sub(taken);
        }
        if line.has_waiting() {
            self.machine.want_writable();
        }
    }

    /// Whether publishers wait though there is room, which is granted to others that do not use it.
    pub(crate) fn is_round_due(&mut self) -> bool {
        let granting = std::mem::take(&mut self.granting);
        let is_due = |id: &ChannelId| self.window_room(*id) > 0;
        self.granting = granting.into_iter().filter(is_due).collect();
        if !self.granting.is_empty() {
            return true;
        }
        if self.machine.is_blocked() {
            return false;
        }
        let limits = self.machine.limits();
        let output = limits.output_high.saturating_sub(limits.output_low);
        let backlog = limits.output_backlog - limits.output_backlog / 2;
        (self.output_line.has_waiting() && self.machine.output_room() >= output)
            || (self.backlog_line.has_waiting() && self.machine.backlog_room() >= backlog)
    }

    /// Begins the next round on the channels whose room is granted to publishers that do not use it.
    /// Events begin those of the whole output.
    pub(crate) fn begin_due_rounds(&mut self, later: &mut Later) {
        if std::mem::take(&mut self.round_due) {
            for id in std::mem::take(&mut self.granting) {
                self.grant_channel(id, true, later);
            }
        }
    }

    /// The number of publishes that a channel may make now while others wait in its line.
    fn window_room(&mut self, id: ChannelId) -> usize {
        let waits = |channel: &mut ChannelState| channel.line.has_waiting();
        if !self.channels.get_mut(id).is_some_and(waits) {
            return 0;
        }
        match self.machine.channel(id) {
            Some(commands) => match commands.hold(0) {
                Some(Hold::ChannelFlow | Hold::TooManyUnconfirmed | Hold::ChannelBacklogFull) => 0,
                _ => commands.unconfirmed_room(),
            },
            None => 0,
        }
    }

    /// There is room for large messages.
    pub(crate) fn grant_backlog(&mut self, later: &mut Later) {
        let line = &mut self.backlog_line;
        line.begin_round();
        if self.machine.is_blocked() {
            return;
        }
        let mut room = self.machine.backlog_room();
        while room > 0
            && let Some(taken) = line.grant(0, later)
        {
            room = room.saturating_sub(taken);
        }
        if line.has_waiting() {
            self.machine.want_backlog_writable();
        }
    }

    /// There may be room on a channel: in its window, its backlog, or because the server lets it go
    /// on. A new round takes back what was granted and not used.
    pub(crate) fn grant_channel(&mut self, id: ChannelId, new_round: bool, later: &mut Later) {
        let Some(channel) = self.channels.get_mut(id) else {
            return;
        };
        if !channel.line.has_waiting() {
            return;
        }
        let Some(mut commands) = self.machine.channel(id) else {
            channel.line.dismiss(None, later);
            return;
        };
        if new_round {
            channel.line.begin_round();
        }
        match commands.hold(0) {
            Some(Hold::ChannelFlow | Hold::TooManyUnconfirmed) => return,
            Some(Hold::ChannelBacklogFull) => {
                commands.want_writable();
                return;
            }
            _ => {}
        }
        let room = commands.unconfirmed_room();
        while channel.line.granted() < room && channel.line.grant(0, later).is_some() {}
        if channel.line.has_waiting() {
            self.granting.insert(id);
        }
    }

    /// Lets every publisher look again: the connection is closing or has ended.
    pub(crate) fn dismiss_publishers(&mut self, later: &mut Later) {
        self.output_line.dismiss(None, later);
        self.backlog_line.dismiss(None, later);
        for channel in self.channels.values_mut() {
            channel.line.dismiss(None, later);
        }
    }

    /// Lets the publishers of a channel look again: it has ended.
    pub(crate) fn dismiss_publishers_of(&mut self, id: ChannelId, later: &mut Later) {
        self.output_line.dismiss(Some(id), later);
        self.backlog_line.dismiss(Some(id), later);
        if let Some(channel) = self.channels.get_mut(id) {
            channel.line.dismiss(None, later);
        }
    }
}

impl State {
    /// Takes the outcome of a publish, if it is known.
    pub(crate) fn take_outcome(
        &mut self,
        channel: ChannelId,
        seq: PublishSeq,
    ) -> Poll<Result<(), Unconfirmed>> {
        let Some(channel) = self.channels.get_mut(channel) else {
            return Poll::Pending;
        };
        channel.confirms.take(seq.get(), &mut self.totals)
    }

    /// Stores the waker of the future that waits for the outcome.
    pub(crate) fn await_outcome(
        &mut self,
        channel: ChannelId,
        seq: PublishSeq,
        waker: Waker,
        later: &mut Later,
    ) {
        match self.channels.get_mut(channel) {
            Some(channel) => channel
                .confirms
                .wait(seq.get(), &mut self.totals, waker, later),
            None => later.drop_waker(Some(waker)),
        }
    }

    /// Gives up the future's interest in the outcome.
    pub(crate) fn abandon_outcome(
        &mut self,
        channel: ChannelId,
        seq: PublishSeq,
        later: &mut Later,
    ) {
        if let Some(channel) = self.channels.get_mut(channel) {
            channel.confirms.abandon(seq.get(), &mut self.totals, later);
        }
    }
}

/// The line for what holds a publish back.
const fn line_of(hold: Hold, channel: ChannelId) -> LineId {
    match hold {
        Hold::TooManyUnconfirmed | Hold::ChannelFlow | Hold::ChannelBacklogFull => {
            LineId::Channel(channel)
        }
        Hold::BacklogFull => LineId::Backlog,
        _ => LineId::Output,
    }
}
