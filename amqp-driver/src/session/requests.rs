//! Requests in flight: their answers, and the end of their wait.

use std::{
    sync::Arc,
    task::{Poll, Waker},
};

use amqp_core::{ChannelId, ConsumerId, RequestError, RequestId, Requeue};

use super::{
    inline::InlineDriver,
    later::{Later, register},
    slots::{Answer, Slot},
    state::State,
    untaken::ConsumerEnd,
};
use crate::error::Error;

impl State {
    /// Registers a request that a future awaits.
    pub(crate) fn expect(&mut self, request: RequestId) {
        self.alone = self.is_quiet();
        self.requests.0.insert(request, Slot::default());
    }

    /// Whether no other command is known to be in flight, and no turn of the driver is due.
    pub(crate) fn is_quiet(&self) -> bool {
        self.requests.is_empty()
            && self.totals.awaited == 0
            && !self.written_inline
            && !self.round_due
    }

    /// The parked driver, for a thread that begins to wait for the outcome of a command: the last one
    /// was written inline, and no input has come since.
    pub(crate) fn lendable(&self) -> Option<Arc<dyn InlineDriver>> {
        let lends = self.written_inline && self.driver.is_some() && self.is_lending();
        self.inline.clone().filter(|_| lends)
    }

    /// Whether threads that wait may use the driver.
    pub(crate) fn is_lending(&self) -> bool {
        self.inline.as_ref().is_some_and(|it| it.is_lending())
    }

    /// Registers a `basic.cancel`. The consumer ends with the answer even if the future is dropped.
    pub(crate) fn expect_cancel(
        &mut self,
        request: RequestId,
        channel: ChannelId,
        consumer: ConsumerId,
    ) {
        let slot = self.requests.0.entry(request).or_default();
        slot.cancels = Some((channel, consumer));
        self.consumer_cancelling(channel, consumer);
    }

    /// Takes the answer, if it has arrived.
    pub(crate) fn take_answer(&mut self, request: RequestId) -> Poll<Result<Answer, Error>> {
        let Some(slot) = self.requests.0.get_mut(&request) else {
            return Poll::Ready(Err(Error::Internal("the request has no slot")));
        };
        let Some(answer) = slot.answer.take() else {
            return Poll::Pending;
        };
        self.requests.0.remove(&request);
        Poll::Ready(match answer {
            Answer::Failed(cause) => Err(cause.into()),
            answer @ (Answer::Reply(_) | Answer::Got(_)) => Ok(answer),
        })
    }

    /// Stores the waker of the future that awaits the answer.
    pub(crate) fn await_answer(&mut self, request: RequestId, waker: Waker, later: &mut Later) {
        match self.requests.0.get_mut(&request) {
            Some(slot) => register(&mut slot.waker, waker, later),
            None => later.drop_waker(Some(waker)),
        }
    }

    /// Abandons a request. A late answer is undone: a consumer is cancelled, a message requeued, a
    /// channel closed. The answer to a `basic.cancel` still ends its consumer.
    pub(crate) fn abandon(
        &mut self,
        channel: Option<ChannelId>,
        request: RequestId,
        later: &mut Later,
    ) {
        let Some(mut slot) = self.requests.0.remove(&request) else {
            return;
        };
        later.drop_waker(slot.waker.take());
        if slot.cancels.is_some() && slot.answer.is_none() {
            slot.abandoned = true;
            self.requests.0.insert(request, slot);
            return;
        }
        self.record_abandoned(request);
        let Some(channel) = channel else { return };
        later.commanded = true;
        match slot.answer {
            None => self.machine.abandon(channel, request),
            Some(Answer::Got(Some(message))) => {
                if let (Some(tag), Some(mut channel)) = (message.tag, self.machine.channel(channel))
                {
                    // Fails only on a channel that is not open, and the server requeues its
                    // deliveries.
                    let _closed = channel.reject(tag, Requeue::Yes);
                }
            }
            Some(Answer::Reply(_) | Answer::Got(None) | Answer::Failed(_)) => {}
        }
    }

    pub(crate) fn answer(&mut self, request: RequestId, answer: Answer, later: &mut Later) {
        let Some(slot) = self.requests.0.get_mut(&request) else {
            return;
        };
        let cancelled = slot.cancels.zip(match &answer {
            Answer::Reply(_) => Some(ConsumerEnd::Cancelled),
            Answer::Failed(RequestError::TimedOut { .. }) => Some(ConsumerEnd::CancelTimedOut),
            // The consumer ends with its channel.
            Answer::Failed(_) | Answer::Got(_) => None,
        });
        if slot.abandoned {
            self.requests.0.remove(&request);
        } else {
            slot.answer = Some(answer);
            later.wake_answered(slot.waker.take());
        }
        if let Some(((channel, consumer), end)) = cancelled {
            self.end_consumer(channel, consumer, end, later);
        }
    }
}
