//! Publishing: at once if there is room, otherwise in line.

use std::{
    future::poll_fn,
    task::{Poll, Waker, ready},
    time::Duration,
};

use amqp_core::{
    ApiMisuse, Body, ChannelId, Hold, PropertyList, PublishError, PublishSeq,
    client::{ChannelMut, PreparedPublish},
    protocol::basic,
};

use super::{
    budget::Budget,
    later::Later,
    lines::{Line, LineId, Standing, Ticket},
    shared::{Alarm, Shared},
    state::State,
};
use crate::{
    error::{Error, TryPublishError},
    unconfirmed::Unconfirmed,
};

/// The largest body for which a publish is written inline, in bytes. A body that is not copied is
/// dropped when it is written: its destructor mostly runs in the task of the driver.
const INLINE_BODY: usize = 2048;

/// The frames around a body, in bytes, as counted against the room for publishes.
const PUBLISH_OVERHEAD: usize = 64;

/// The reason for which a publish was not done.
#[derive(Debug)]
pub(crate) enum Refused {
    /// The publish is held back, and waits in this line.
    Held { line: LineId, hold: Hold },
    /// Boxed, so that the result of every publish stays small: it passes through several frames.
    Failed(Box<Error>),
}

/// The channel that publishes.
#[derive(Clone, Copy)]
pub(crate) struct Publisher<'a> {
    pub(crate) shared: &'a Shared,
    pub(crate) channel: ChannelId,
    pub(crate) budget: &'a Budget,
}

/// A message without its body.
pub(crate) trait Outgoing {
    /// Publishes it on a channel of the machine. The body is taken unless it is copied.
    fn publish_from(
        &self,
        channel: &mut ChannelMut<'_>,
        body: &mut Body,
    ) -> Result<Option<PublishSeq>, PublishError>;
}

/// A method and properties that are encoded for each publish.
impl<P: PropertyList> Outgoing for (&basic::Publish, &P) {
    #[inline]
    fn publish_from(
        &self,
        channel: &mut ChannelMut<'_>,
        body: &mut Body,
    ) -> Result<Option<PublishSeq>, PublishError> {
        channel.publish_from(self.0, self.1, body)
    }
}

impl Outgoing for &PreparedPublish {
    #[inline]
    fn publish_from(
        &self,
        channel: &mut ChannelMut<'_>,
        body: &mut Body,
    ) -> Result<Option<PublishSeq>, PublishError> {
        channel.publish_prepared_from(self, body)
    }
}

/// The place of a publish in a line. Dropping it passes its room on.
struct Place<'a> {
    publisher: Publisher<'a>,
    ticket: Option<Ticket>,
}

impl Publisher<'_> {
    /// Publishes as soon as there is room. A future awaits the confirm if the publish is `tracked`.
    pub(crate) async fn publish(
        self,
        outgoing: impl Outgoing,
        mut body: Body,
        tracked: bool,
    ) -> Result<Option<PublishSeq>, Error> {
        let message = Message { outgoing, tracked };
        // The fast path: mostly there is room at once.
        match attempt(self, &message, &mut body, &mut None, None) {
            Attempt::Published(seq) => Ok(seq),
            first => self.publish_in_line(message, body, first).await,
        }
    }

    /// Publishes after a first attempt.
    async fn publish_in_line(
        self,
        message: Message<impl Outgoing>,
        mut body: Body,
        first: Attempt,
    ) -> Result<Option<PublishSeq>, Error> {
        let mut first = Some(first);
        let mut place = Place {
            publisher: self,
            ticket: None,
        };
        let shared = self.shared;
        let mut limit = Alarm::new(shared, shared.timeouts().publish);
        poll_fn(|cx| {
            let mut attempt = |waker| attempt(self, &message, &mut body, &mut place.ticket, waker);
            let first = first.take();
            let mut attempted = first.unwrap_or_else(|| attempt(None));
            if let Attempt::Waits = attempted {
                // Cloned without the lock: a waker's clone is foreign code.
                attempted = attempt(Some(cx.waker().clone()));
            }
            match attempted {
                Attempt::Published(seq) => Poll::Ready(Ok(seq)),
                Attempt::Failed(error) => Poll::Ready(Err(*error)),
                Attempt::Yields => {
                    cx.waker().wake_by_ref();
                    Poll::Pending
                }
                Attempt::Waits => {
                    self.budget.renew();
                    ready!(limit.poll(cx));
                    if let Some(rest) = left_after_recovery(shared, self.channel)? {
                        limit = Alarm::new(shared, Some(rest));
                        ready!(limit.poll(cx));
                    }
                    let channel = self.channel.number();
                    Poll::Ready(Err(Error::publish_timed_out(channel)))
                }
            }
        })
        .await
    }

    /// Publishes if there is room now, and no other publisher waits for it.
    pub(crate) fn try_publish(
        self,
        outgoing: impl Outgoing,
        mut body: Body,
        tracked: bool,
    ) -> Result<Option<PublishSeq>, TryPublishError> {
        let message = Message { outgoing, tracked };
        let published = self.shared.with(|state, later| {
            let mut ticket = None;
            state.publish(self.channel, &message, &mut body, &mut ticket, later)
        });
        published.map_err(|refused| match refused {
            Refused::Held { hold, .. } => TryPublishError::HeldBack { hold, body },
            Refused::Failed(error) => TryPublishError::Failed(*error),
        })
    }
}

/// The rest of the timeout of a publish that has passed. `Some` if a recovery of the channel is
/// in progress, which ends by its own policy, or has ended within the timeout: its time does not
/// count.
pub(crate) fn left_after_recovery(
    shared: &Shared,
    channel: ChannelId,
) -> Result<Option<Duration>, Error> {
    let Some(limit) = shared.timeouts().publish else {
        return Ok(None);
    };
    let now = shared.now();
    let state = shared.lock();
    if let Some(error) = state.channel_error(channel) {
        return Err(error);
    }
    if state.is_held(Some(channel)) {
        return Ok(Some(limit));
    }
    let channel = state.channels.get(channel);
    let resumed_at = channel.and_then(|channel| channel.extras()?.resumed_at);
    let end = resumed_at.map(|at| at + limit).filter(|&end| end > now);
    Ok(end.map(|end| end.saturating_duration_since(now)))
}

/// A message without its body, and the interest in it.
struct Message<O> {
    outgoing: O,
    /// Whether a future awaits the confirm.
    tracked: bool,
}

/// The outcome of an attempt to publish.
enum Attempt {
    Published(Option<PublishSeq>),
    Failed(Box<Error>),
    Waits,
    /// The task must yield.
    Yields,
}

/// Publishes. Without room, joins the line if there is a waker.
#[inline]
fn attempt(
    publisher: Publisher<'_>,
    message: &Message<impl Outgoing>,
    body: &mut Body,
    ticket: &mut Option<Ticket>,
    waker: Option<Waker>,
) -> Attempt {
    let shared = publisher.shared;
    // A publish in line has waited already.
    if ticket.is_none() && !publisher.budget.take(shared) {
        return Attempt::Yields;
    }
    shared.with(|state, later| {
        let cost = body.len() + PUBLISH_OVERHEAD;
        match state.publish(publisher.channel, message, body, ticket, later) {
            Ok(seq) => Attempt::Published(seq),
            Err(Refused::Failed(error)) => Attempt::Failed(error),
            Err(Refused::Held { line, .. }) => {
                if let Some(waker) = waker {
                    state.join_line(line, publisher.channel, ticket, cost, waker, later);
                }
                Attempt::Waits
            }
        }
    })
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        if let Some(ticket) = self.ticket.take() {
            self.publisher.shared.with(|state, later| {
                state.leave_line(ticket, self.publisher.channel, later);
            });
        }
    }
}

impl State {
    /// Publishes a message, unless it is held back or must wait for its turn. The body is taken
    /// only if the message is accepted.
    #[inline]
    fn publish(
        &mut self,
        id: ChannelId,
        message: &Message<impl Outgoing>,
        body: &mut Body,
        ticket: &mut Option<Ticket>,
        later: &mut Later,
    ) -> Result<Option<PublishSeq>, Refused> {
        if self.recovery.is_some() && self.is_held(Some(id)) && self.channel_error(id).is_none() {
            // In the line of the channel none overtakes those that wait for its window.
            let line = ticket.as_ref().map(|ticket| ticket.line);
            return Err(Refused::Held {
                line: line.unwrap_or(LineId::Channel(id)),
                hold: Hold::Recovering,
            });
        }
        let cost = body.len() + PUBLISH_OVERHEAD;
        let is_contended = self.is_contended(id);
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
        } else if is_contended && let Some((line, hold)) = self.must_wait(id, cost, body.len()) {
            return Err(Refused::Held { line, hold });
        }
        let small = body.len() <= INLINE_BODY;
        let published = match self.machine.channel(id) {
            Some(mut channel) => message.outgoing.publish_from(&mut channel, body),
            None => Err(ApiMisuse::ChannelNotOpen.into()),
        };
        match published {
            Ok(seq) => {
                later.commanded = true;
                let mut alone = false;
                if let Some(channel) = self.channels.get_mut(id)
                    && seq.is_some()
                {
                    let confirms = channel.confirms.get_or_insert_default();
                    alone = message.tracked && small && confirms.is_alone();
                    confirms.expect(message.tracked);
                }
                self.alone = alone && self.is_quiet();
                if is_contended || granted.is_some() {
                    self.settle_turn(id, cost, granted, ticket, later);
                }
                Ok(seq)
            }
            Err(PublishError::HeldBack { hold, .. }) => Err(Refused::Held {
                line: line_of(hold, id),
                hold,
            }),
            // The reason for which the channel ended says more.
            Err(PublishError::Misuse(misuse)) => {
                let error = self.commands(id).err().unwrap_or(Error::Misuse(misuse));
                Err(Refused::Failed(Box::new(error)))
            }
            Err(_) => Err(Refused::Failed(Box::new(Error::Internal(
                "an unknown refusal",
            )))),
        }
    }

    /// Whether publishers wait, or have room reserved.
    #[inline]
    fn is_contended(&self, id: ChannelId) -> bool {
        let line = || self.channels.get(id)?.extras()?.line.as_ref();
        let window = || line().is_some_and(Line::is_shared);
        self.tickets > 0
            || self.output_line.is_shared()
            || self.backlog_line.is_shared()
            || window()
    }

    /// The line. `None` for a channel's where no publisher has waited yet.
    fn line(&mut self, id: LineId) -> Option<&mut Line> {
        match id {
            LineId::Output => Some(&mut self.output_line),
            LineId::Backlog => Some(&mut self.backlog_line),
            LineId::Channel(id) => self.channels.get_mut(id)?.extras_mut()?.line.as_mut(),
        }
    }

    /// The line in which a publish without a ticket must wait, so that it overtakes no other.
    #[cold]
    fn must_wait(&mut self, id: ChannelId, cost: usize, len: usize) -> Option<(LineId, Hold)> {
        let window = LineId::Channel(id);
        let shared = if self.machine.channel(id)?.is_backlogged(len) {
            (LineId::Backlog, Hold::BacklogFull)
        } else {
            (LineId::Output, Hold::OutputFull)
        };
        [(window, Hold::TooManyUnconfirmed), shared]
            .into_iter()
            .find(|(line, _)| {
                let room = self.room(*line);
                let is_open = |it: &mut Line| it.is_open_to(id, line.cost(cost), room);
                !self.line(*line).is_none_or(is_open)
            })
    }

    /// Accounts for a publish that was made under contention, and passes the unused room on.
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
        let window = LineId::Channel(id);
        for it in [LineId::Output, LineId::Backlog, window] {
            let granted = granted.and_then(|(line, room)| (line == it).then_some(room));
            if let Some(line) = self.line(it) {
                line.settle(id, it.cost(cost), granted);
            }
        }
        self.grant(window, later);
    }

    /// Joins a line, or moves a refused ticket to another line.
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
        if let LineId::Channel(id) = line
            && let Some(channel) = self.channels.get_mut(id)
        {
            channel.need_extras().line.get_or_insert_default();
        }
        match self.line(line) {
            Some(it) => it.join(number, channel, line.cost(cost), waker, later),
            None => later.wake(Some(waker)),
        }
        self.want(line);
        later.commanded = true;
    }

    /// Removes a ticket, and passes its room on.
    fn leave_line(&mut self, ticket: Ticket, channel: ChannelId, later: &mut Later) {
        self.tickets -= 1;
        if let Some(line) = self.line(ticket.line) {
            line.leave(ticket.number, later);
        }
        for line in [LineId::Output, LineId::Backlog, LineId::Channel(channel)] {
            self.grant(line, later);
        }
    }

    /// The room that a line shares out. 0 while its publishes are held back for another reason.
    fn room(&mut self, line: LineId) -> usize {
        match line {
            LineId::Output | LineId::Backlog if self.machine.is_blocked() || self.is_held(None) => {
                0
            }
            LineId::Channel(id) if self.is_held(Some(id)) => 0,
            LineId::Output => self.machine.output_room(),
            LineId::Backlog => self.machine.backlog_room(),
            LineId::Channel(id) => match self.machine.channel(id) {
                Some(channel) if channel.hold(0).map(|hold| line_of(hold, id)) != Some(line) => {
                    channel.unconfirmed_room()
                }
                _ => 0,
            },
        }
    }

    /// Requests the event that begins the next round of grants in a line.
    fn want(&mut self, line: LineId) {
        match line {
            LineId::Output => self.machine.want_writable(),
            LineId::Backlog => self.machine.want_backlog_writable(),
            // A confirm and `channel.flow` are events without a request.
            LineId::Channel(id) => {
                self.crowded.insert(id);
                if let Some(mut channel) = self.machine.channel(id)
                    && channel.hold(0) == Some(Hold::ChannelBacklogFull)
                {
                    channel.want_writable();
                }
            }
        }
    }

    /// Shares the unreserved room among the waiting publishers.
    pub(crate) fn grant(&mut self, id: LineId, later: &mut Later) {
        let has_waiting = |line: &mut Line| line.has_waiting();
        if !self.line(id).is_some_and(has_waiting) {
            return;
        }
        let room = self.room(id);
        if let Some(line) = self.line(id) {
            line.grant(room, later);
            if line.has_waiting() {
                self.want(id);
            }
        }
    }

    /// Begins the next round in a line: unused grants are shared anew.
    pub(crate) fn begin_round(&mut self, id: LineId, later: &mut Later) {
        if let Some(line) = self.line(id) {
            line.begin_round();
            self.grant(id, later);
        }
    }

    /// Whether publishers wait although there is room, which is granted to others. The driver then
    /// runs again after those have had their chance.
    pub(crate) fn is_round_due(&mut self) -> bool {
        let mut crowded = std::mem::take(&mut self.crowded);
        crowded.retain(|id| {
            let line = LineId::Channel(*id);
            self.line(line).is_some_and(|it| it.has_waiting()) && self.room(line) > 0
        });
        self.crowded = crowded;
        if !self.crowded.is_empty() {
            return true;
        }
        if self.machine.is_blocked() || self.is_held(None) {
            return false;
        }
        let limits = self.machine.limits();
        let output = limits.output_high.saturating_sub(limits.output_low);
        let backlog = limits.output_backlog - limits.output_backlog / 2;
        (self.output_line.has_waiting() && self.machine.output_room() >= output)
            || (self.backlog_line.has_waiting() && self.machine.backlog_room() >= backlog)
    }

    /// Begins the next round on the channels where no grant was used since the driver last checked.
    /// Rounds of the output and the backlog begin with an event of the machine.
    pub(crate) fn begin_due_rounds(&mut self, later: &mut Later) {
        if std::mem::take(&mut self.round_due) {
            for id in self.crowded.clone() {
                let line = LineId::Channel(id);
                if self.line(line).is_some_and(|it| !it.take_used()) {
                    self.begin_round(line, later);
                }
            }
        }
    }

    /// Wakes every waiting publisher: the connection is closing or has ended.
    pub(crate) fn dismiss_publishers(&mut self, later: &mut Later) {
        self.output_line.dismiss(None, later);
        self.backlog_line.dismiss(None, later);
        for channel in self.channels.values_mut() {
            if let Some(line) = channel.extras_mut().and_then(|it| it.line.as_mut()) {
                line.dismiss(None, later);
            }
        }
    }

    /// Wakes the waiting publishers of a channel that has ended.
    pub(crate) fn dismiss_publishers_of(&mut self, id: ChannelId, later: &mut Later) {
        self.output_line.dismiss(Some(id), later);
        self.backlog_line.dismiss(Some(id), later);
        if let Some(line) = self.line(LineId::Channel(id)) {
            line.dismiss(None, later);
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
        let channel = self.channels.get_mut(channel);
        match channel.and_then(|it| it.confirms.as_deref_mut()) {
            Some(confirms) => confirms.take(seq.get(), &mut self.totals),
            None => Poll::Pending,
        }
    }

    /// Stores the waker of the future that awaits the outcome.
    pub(crate) fn await_outcome(
        &mut self,
        channel: ChannelId,
        seq: PublishSeq,
        waker: Waker,
        later: &mut Later,
    ) {
        let channel = self.channels.get_mut(channel);
        match channel.and_then(|it| it.confirms.as_deref_mut()) {
            Some(confirms) => confirms.wait(seq.get(), &mut self.totals, waker, later),
            None => later.drop_waker(Some(waker)),
        }
    }

    /// Abandons the future's interest in the outcome.
    pub(crate) fn abandon_outcome(
        &mut self,
        channel: ChannelId,
        seq: PublishSeq,
        later: &mut Later,
    ) {
        let channel = self.channels.get_mut(channel);
        if let Some(confirms) = channel.and_then(|it| it.confirms.as_deref_mut()) {
            confirms.abandon(seq.get(), &mut self.totals, later);
        }
    }
}

/// The line for a hold.
const fn line_of(hold: Hold, channel: ChannelId) -> LineId {
    match hold {
        Hold::TooManyUnconfirmed | Hold::ChannelFlow | Hold::ChannelBacklogFull => {
            LineId::Channel(channel)
        }
        Hold::BacklogFull => LineId::Backlog,
        _ => LineId::Output,
    }
}
