//! The messages of a publisher in flight, from their acceptance to their outcomes.

use std::{
    future::Future,
    mem,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError, Weak},
    task::{Context, Poll, Wake, Waker, ready},
};

use super::{
    entries::{Entry, Pending, State, Work, not_sent},
    message::OutgoingMessage,
    options::PublisherOptions,
    outcome::{NotPublished, NotPublishedReason, Outcome},
    target::{Boxed, Sent, Target},
};
use crate::{
    error::{Error, TryPublishError},
    session::{budget::Budget, later::Later, waiters::Place},
};

/// Publishes messages, and waits for the answers to them.
///
/// The futures of the answers, and of the messages that are published again, are polled where they
/// are woken, which is without a lock of the session, by its driver: so messages settle, make room
/// and are published again whichever futures of the application are polled. The lock is not held
/// while a future is polled or dropped, or a waker is woken.
pub(super) struct Engine<T: Target> {
    target: T,
    options: PublisherOptions,
    budget: Budget,
    state: Mutex<State<Item<T>, T::Answer>>,
}

/// A message that was accepted, and the waker of its future.
struct Item<T: Target> {
    engine: Weak<Engine<T>>,
    number: u64,
    message: OutgoingMessage,
}

impl<T: Target> Wake for Item<T> {
    fn wake(self: Arc<Self>) {
        if let Some(engine) = self.engine.upgrade() {
            engine.with(|state, _| state.wake(self.number));
            engine.drive();
        }
    }
}

impl<T: Target> Engine<T> {
    pub(super) fn new(target: T, mut options: PublisherOptions) -> Arc<Self> {
        let republish = options.republish.take();
        Arc::new(Self {
            target,
            state: Mutex::new(State::new(options.window, republish)),
            options,
            budget: Budget::default(),
        })
    }

    pub(super) const fn target(&self) -> &T {
        &self.target
    }

    pub(super) const fn options(&self) -> &PublisherOptions {
        &self.options
    }

    /// Publishes a message if there is room for it now.
    pub(super) fn try_publish(
        self: &Arc<Self>,
        mut message: OutgoingMessage,
    ) -> Result<Receipt<T>, NotPublished> {
        let bytes = message.memory();
        let charged = self.with(|state, _| {
            if state.is_gated() {
                return Err(NotPublishedReason::Republishing);
            }
            if !state.room.take(bytes, &mut None) {
                return Err(NotPublishedReason::WindowFull);
            }
            if let Some(republish) = &mut state.republish {
                republish.name(&mut message.properties);
            }
            Ok(())
        });
        let sent = charged.and_then(|()| {
            let sent = self.try_send(&message);
            if sent.is_err() {
                self.with(|state, later| state.room.release(bytes, later));
            }
            sent.map_err(|error| match error {
                TryPublishError::HeldBack { hold, .. } => NotPublishedReason::HeldBack(hold),
                TryPublishError::Failed(error) => NotPublishedReason::Failed(error),
            })
        });
        match sent {
            Ok(sent) => Ok(self.add(message, bytes, sent)),
            Err(reason) => {
                let message = Box::new(message);
                Err(NotPublished { message, reason })
            }
        }
    }

    fn try_send(&self, message: &OutgoingMessage) -> Result<Sent<T::Answer>, TryPublishError> {
        let timeout = message.confirm_timeout.or(self.options.confirm_timeout);
        self.target.try_publish(message, timeout)
    }

    fn send(&self, message: OutgoingMessage) -> Boxed<Result<Sent<T::Answer>, Error>> {
        let timeout = message.confirm_timeout.or(self.options.confirm_timeout);
        self.target.publish(message, timeout)
    }

    /// Adds a message that was accepted.
    fn add(
        self: &Arc<Self>,
        message: OutgoingMessage,
        bytes: usize,
        sent: Sent<T::Answer>,
    ) -> Receipt<T> {
        let item = |number| {
            Arc::new(Item {
                engine: Arc::downgrade(self),
                number,
                message,
            })
        };
        let number = self.with(|state, later| state.add(bytes, sent, item, later));
        self.drive();
        Receipt {
            engine: Arc::clone(self),
            state: ReceiptState::Waiting(number),
        }
    }

    /// Polls the futures that were woken, and publishes messages again.
    fn drive(self: &Arc<Self>) {
        if !self.with(|state, _| state.begin_driving()) {
            return;
        }
        while let Some(work) = self.with(|state, later| state.next_work(later)) {
            match work {
                Work::Poll(numbers) => numbers.into_iter().for_each(|number| self.poll(number)),
                Work::Resend(number) => self.resend(number),
                Work::GiveUp(resend) => drop(resend),
            }
        }
    }

    fn poll(self: &Arc<Self>, number: u64) {
        let Some((item, pending)) = self.with(|state, _| state.take(number)) else {
            return;
        };
        let waker = Waker::from(item);
        let cx = &mut Context::from_waker(&waker);
        match pending {
            Pending::Answer(mut answer) => match Pin::new(&mut answer).poll(cx) {
                Poll::Pending => {
                    self.with(|state, _| state.put_back(number, Pending::Answer(answer)));
                }
                Poll::Ready(result) => {
                    let message = |item: &Item<T>| item.message.clone();
                    drop(self.with(|state, later| state.answered(number, result, message, later)));
                }
            },
            Pending::Resend(mut resend) => match resend.as_mut().poll(cx) {
                Poll::Pending => {
                    self.with(|state, _| state.put_back(number, Pending::Resend(resend)));
                }
                Poll::Ready(result) => self.resent(number, result),
            },
        }
    }

    fn resend(self: &Arc<Self>, number: u64) {
        let Some(item) = self.with(|state, _| state.begin_resend(number)) else {
            return;
        };
        match self.try_send(&item.message) {
            Ok(sent) => self.resent(number, Ok(sent)),
            Err(TryPublishError::HeldBack { .. }) => {
                let resend = self.send(item.message.clone());
                self.with(|state, _| state.await_resend(number, resend));
            }
            Err(TryPublishError::Failed(error)) => self.resent(number, Err(error)),
        }
    }

    fn resent(&self, number: u64, result: Result<Sent<T::Answer>, Error>) {
        let message = |item: &Item<T>| item.message.clone();
        drop(self.with(|state, later| state.resent(number, result, message, later)));
    }

    /// Ready once no message waits for its outcome.
    pub(super) fn poll_settled(&self, place: &mut Place, cx: &Context<'_>) -> Poll<()> {
        let waker = cx.waker().clone();
        self.with(|state, later| {
            if state.unsettled() > 0 {
                state.idle.wait(place, waker, later);
                return Poll::Pending;
            }
            later.drop_waker(Some(waker));
            state.idle.leave(place, later);
            Poll::Ready(())
        })
    }

    pub(super) fn leave_settled(&self, place: &mut Place) {
        self.with(|state, later| state.idle.leave(place, later));
    }

    /// The messages and bytes in flight.
    pub(super) fn in_flight(&self) -> (usize, usize) {
        self.with(|state, _| state.room.used())
    }

    /// Runs `act` under the lock, and the effects that it defers after it.
    fn with<R>(&self, act: impl FnOnce(&mut State<Item<T>, T::Answer>, &mut Later) -> R) -> R {
        let mut later = Later::default();
        let result = {
            // No critical section panics. If one did, the state would still be usable.
            let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
            act(&mut state, &mut later)
        };
        later.run();
        result
    }
}

/// A message that waits to be accepted. Dropped before it is ready, it publishes nothing.
pub(super) struct Publishing<T: Target> {
    engine: Arc<Engine<T>>,
    /// `Some` until it is ready.
    message: Option<OutgoingMessage>,
    /// The charge in the window, in bytes.
    bytes: usize,
    is_charged: bool,
    /// The place in line for the window.
    line: Place,
    /// The place among those that wait for earlier messages to be published again.
    gate: Place,
    /// The publish that waits for the channel.
    sending: Option<Boxed<Result<Sent<T::Answer>, Error>>>,
    /// The end of waiting. `Some` once the message has to wait.
    patience: Option<Boxed<()>>,
}

impl<T: Target> Publishing<T> {
    pub(super) fn new(engine: &Arc<Engine<T>>, message: OutgoingMessage) -> Self {
        Self {
            engine: Arc::clone(engine),
            bytes: message.memory(),
            message: Some(message),
            is_charged: false,
            line: None,
            gate: None,
            sending: None,
            patience: None,
        }
    }

    /// Ready once the message has room in the window, and no earlier one is published again.
    fn poll_turn(&mut self, cx: &Context<'_>) -> Poll<()> {
        let waker = cx.waker().clone();
        let Self {
            engine,
            message,
            bytes,
            is_charged,
            line,
            gate,
            ..
        } = self;
        engine.with(|state, later| {
            if !*is_charged {
                if !state.room.take(*bytes, line) {
                    state.room.wait(*bytes, line, waker, later);
                    return Poll::Pending;
                }
                *is_charged = true;
                if let (Some(republish), Some(message)) = (&mut state.republish, message) {
                    republish.name(&mut message.properties);
                }
            }
            if state.is_gated() {
                state.gate.wait(gate, waker, later);
                return Poll::Pending;
            }
            state.gate.leave(gate, later);
            later.drop_waker(Some(waker));
            Poll::Ready(())
        })
    }

    fn poll_sent(&mut self, cx: &mut Context<'_>) -> Poll<Result<Sent<T::Answer>, Error>> {
        if self.poll_turn(cx).is_pending() {
            // An earlier message goes first.
            self.sending = None;
            return Poll::Pending;
        }
        let Some(message) = &self.message else {
            return Poll::Pending;
        };
        if self.sending.is_none() {
            match self.engine.try_send(message) {
                Ok(sent) => return Poll::Ready(Ok(sent)),
                Err(TryPublishError::Failed(error)) => return Poll::Ready(Err(error)),
                Err(TryPublishError::HeldBack { .. }) => {}
            }
        }
        let sending = self
            .sending
            .get_or_insert_with(|| self.engine.send(message.clone()));
        sending.as_mut().poll(cx)
    }

    fn poll_patience(&mut self, cx: &mut Context<'_>) -> Poll<Error> {
        let patience = self
            .patience
            .get_or_insert_with(|| self.engine.target.patience());
        ready!(patience.as_mut().poll(cx));
        let error = self.engine.target.error();
        let channel = self.engine.target.number();
        Poll::Ready(error.unwrap_or_else(|| Error::publish_timed_out(channel)))
    }

    /// Gives up the room and the places.
    fn leave(&mut self) {
        let Self {
            engine,
            bytes,
            is_charged,
            line,
            gate,
            ..
        } = self;
        engine.with(|state, later| {
            state.room.leave(*bytes, line, later);
            state.gate.leave(gate, later);
            if mem::take(is_charged) {
                state.room.release(*bytes, later);
            }
        });
    }
}

impl<T: Target> Future for Publishing<T> {
    type Output = Receipt<T>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Receipt<T>> {
        let this = &mut *self;
        let engine = Arc::clone(&this.engine);
        ready!(engine.target.poll_proceed(&engine.budget, cx));
        let mut sent = this.poll_sent(cx);
        if sent.is_pending() {
            engine.budget.renew();
            sent = this.poll_patience(cx).map(Err);
        }
        let sent = ready!(sent);
        this.sending = None;
        let Some(message) = this.message.take() else {
            return Poll::Pending;
        };
        Poll::Ready(match sent {
            Ok(sent) => {
                this.is_charged = false; // The entry has the charge.
                engine.add(message, this.bytes, sent)
            }
            Err(cause) => {
                this.leave();
                let outcome = not_sent(message, cause);
                Receipt {
                    engine,
                    state: ReceiptState::Known(outcome),
                }
            }
        })
    }
}

impl<T: Target> Drop for Publishing<T> {
    fn drop(&mut self) {
        if self.message.is_some() {
            self.sending = None;
            self.leave();
        }
    }
}

/// The wait for the outcome of a message.
pub(super) struct Receipt<T: Target> {
    engine: Arc<Engine<T>>,
    state: ReceiptState,
}

enum ReceiptState {
    /// The outcome of the message with this number is awaited.
    Waiting(u64),
    Known(Outcome),
    Taken,
}

impl<T: Target> Future for Receipt<T> {
    type Output = Outcome;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Outcome> {
        let engine = Arc::clone(&self.engine);
        ready!(engine.target.poll_proceed(&engine.budget, cx));
        let outcome = match mem::replace(&mut self.state, ReceiptState::Taken) {
            ReceiptState::Known(outcome) => return Poll::Ready(outcome),
            ReceiptState::Taken => return Poll::Pending,
            ReceiptState::Waiting(number) => {
                let mut polled = engine.with(|it, later| it.poll_outcome(number, None, later));
                if polled.is_pending() {
                    let waker = Some(cx.waker().clone());
                    polled = engine.with(|it, later| it.poll_outcome(number, waker, later));
                }
                match polled {
                    Poll::Pending => {
                        self.state = ReceiptState::Waiting(number);
                        None
                    }
                    Poll::Ready(entry) => entry.and_then(Entry::into_outcome),
                }
            }
        };
        match outcome {
            Some(outcome) => Poll::Ready(outcome),
            None => {
                engine.budget.renew();
                Poll::Pending
            }
        }
    }
}

impl<T: Target> Drop for Receipt<T> {
    fn drop(&mut self) {
        if let ReceiptState::Waiting(number) = self.state {
            drop(self.engine.with(|state, later| state.leave(number, later)));
        }
    }
}

/// The wait for the outcomes of all messages.
pub(super) struct Settled<'a, T: Target> {
    pub(super) engine: &'a Engine<T>,
    pub(super) place: Place,
}

impl<T: Target> Future for Settled<'_, T> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let Self { engine, place } = &mut *self;
        engine.poll_settled(place, cx)
    }
}

impl<T: Target> Drop for Settled<'_, T> {
    fn drop(&mut self) {
        self.engine.leave_settled(&mut self.place);
    }
}
