//! A channel without a connection.

use std::{
    collections::BTreeMap,
    future::Future,
    mem,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard},
    task::{Context, Poll, Waker},
    time::Duration,
};

use amqp_core::{Body, CloseCause, CloseReason, Hold, Stage};

use super::super::{
    message::OutgoingMessage,
    target::{Boxed, Sent, Target},
};
use crate::{
    error::{Error, TryPublishError},
    session::budget::Budget,
    unconfirmed::Unconfirmed,
};

/// A channel that a test answers on, loses and recovers.
#[derive(Clone, Default)]
pub(super) struct Line(Arc<Mutex<Wire>>);

#[derive(Default)]
pub(super) struct Wire {
    /// Publishes wait, as while a connection recovers.
    is_down: bool,
    /// The number of messages that are accepted before others wait. `None` for all.
    room: Option<usize>,
    dead: Option<Error>,
    /// Everything that was accepted, in order, with the number of losses before.
    pub(super) sent: Vec<(usize, OutgoingMessage)>,
    pub(super) losses: usize,
    /// The publishes without an answer that was taken, by their place in `sent`.
    answers: BTreeMap<usize, Answering>,
    waiting: Vec<Waker>,
    /// The number of publishes that find no room in time.
    pub(super) timeouts: usize,
    /// Called when the next message is accepted at once.
    pub(super) hook: Option<Hook>,
}

pub(super) type Hook = Box<dyn FnOnce() + Send>;

#[derive(Default)]
pub(super) struct Answering {
    answer: Option<Result<(), Unconfirmed>>,
    waker: Option<Waker>,
}

pub(super) struct Answer(Line, usize);

impl Line {
    pub(super) fn lock(&self) -> MutexGuard<'_, Wire> {
        self.0.try_lock().expect("no lock is held over a wake-up")
    }

    fn accept(&self, message: &OutgoingMessage) -> Result<Sent<Answer>, TryPublishError> {
        let mut wire = self.lock();
        if let Some(error) = &wire.dead {
            return Err(TryPublishError::Failed(error.clone()));
        }
        if wire.is_down || wire.room == Some(0) {
            return Err(TryPublishError::HeldBack {
                hold: Hold::OutputFull,
                body: message.body.clone(),
            });
        }
        if let Some(room) = &mut wire.room {
            *room -= 1;
        }
        let (losses, at) = (wire.losses, wire.sent.len());
        wire.sent.push((losses, message.clone()));
        wire.answers.insert(at, Answering::default());
        drop(wire);
        Ok(Sent::Confirming(Answer(self.clone(), at)))
    }

    pub(super) fn unanswered(&self) -> Vec<usize> {
        let wire = self.lock();
        let waits = wire.answers.iter().filter(|(_, it)| it.answer.is_none());
        waits.map(|(at, _)| *at).collect()
    }

    pub(super) fn answer(&self, at: usize, answer: Result<(), Unconfirmed>) {
        let waker = {
            let mut wire = self.lock();
            let answering = wire.answers.get_mut(&at).expect("it waits");
            answering.answer = Some(answer);
            answering.waker.take()
        };
        waker.into_iter().for_each(Waker::wake);
    }

    /// Loses the connection. The last `unsent` publishes had not left. Returns the others, which may
    /// have arrived.
    pub(super) fn lose(&self, unsent: usize) -> Vec<usize> {
        {
            let mut wire = self.lock();
            wire.is_down = true;
            wire.losses += 1;
        }
        let unanswered = self.unanswered();
        let left = unanswered.len().saturating_sub(unsent);
        for (index, at) in unanswered.iter().copied().enumerate() {
            let failure = if index < left {
                Unconfirmed::Unknown(lost())
            } else {
                Unconfirmed::NotSent(lost())
            };
            self.answer(at, Err(failure));
        }
        unanswered[..left].to_vec()
    }

    /// Makes room for so many more messages, which the next attempt finds.
    pub(super) fn set_room(&self, room: Option<usize>) {
        self.lock().room = room;
    }

    pub(super) fn recover(&self) {
        self.lock().is_down = false;
        self.wake_waiting();
    }

    pub(super) fn die(&self) -> Vec<usize> {
        let lost_here = self.lose(0);
        self.lock().dead = Some(Error::ConnectionClosed(lost()));
        self.wake_waiting();
        lost_here
    }

    pub(super) fn wake_waiting(&self) {
        let waiting = mem::take(&mut self.lock().waiting);
        waiting.into_iter().for_each(Waker::wake);
    }

    /// The bodies of the messages that were accepted, in order.
    pub(super) fn bodies(&self) -> Vec<String> {
        let wire = self.lock();
        let body = |it: &(usize, OutgoingMessage)| text(&it.1.body);
        wire.sent.iter().map(body).collect()
    }
}

pub(super) fn text(body: &Body) -> String {
    String::from_utf8(body.to_vec()).expect("text")
}

pub(super) fn lost() -> CloseReason {
    let stage = Stage::Open;
    CloseCause::Eof { stage }.into()
}

impl Target for Line {
    type Answer = Answer;

    fn try_publish(
        &self,
        message: &OutgoingMessage,
        _confirm_timeout: Option<Duration>,
    ) -> Result<Sent<Answer>, TryPublishError> {
        let sent = self.accept(message)?;
        let hook = self.lock().hook.take();
        hook.into_iter().for_each(|hook| hook());
        Ok(sent)
    }

    fn publish(
        &self,
        message: OutgoingMessage,
        _confirm_timeout: Option<Duration>,
    ) -> Boxed<Result<Sent<Answer>, Error>> {
        let line = self.clone();
        Box::pin(std::future::poll_fn(move |cx| {
            match line.accept(&message) {
                Ok(sent) => Poll::Ready(Ok(sent)),
                Err(TryPublishError::Failed(error)) => Poll::Ready(Err(error)),
                Err(TryPublishError::HeldBack { .. }) => {
                    let mut wire = line.lock();
                    if let Some(rest) = wire.timeouts.checked_sub(1) {
                        wire.timeouts = rest;
                        return Poll::Ready(Err(Error::publish_timed_out(1)));
                    }
                    wire.waiting.push(cx.waker().clone());
                    Poll::Pending
                }
            }
        }))
    }

    fn poll_proceed(&self, _: &Budget, _: &Context<'_>) -> Poll<()> {
        Poll::Ready(())
    }

    fn life(&self) -> u32 {
        u32::try_from(self.lock().losses).expect("few")
    }

    fn patience(&self) -> Boxed<()> {
        Box::pin(std::future::pending())
    }

    fn number(&self) -> u16 {
        1
    }

    fn error(&self) -> Option<Error> {
        self.lock().dead.clone()
    }
}

impl Future for Answer {
    type Output = Result<(), Unconfirmed>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut wire = self.0.lock();
        let answering = wire.answers.get_mut(&self.1).expect("it waits");
        match answering.answer.take() {
            Some(answer) => {
                wire.answers.remove(&self.1);
                Poll::Ready(answer)
            }
            None => {
                let replaced = answering.waker.replace(cx.waker().clone());
                drop(wire);
                drop(replaced);
                Poll::Pending
            }
        }
    }
}
