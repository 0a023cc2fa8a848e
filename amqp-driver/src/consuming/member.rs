//! One consumer of a group, which is restarted for another prefetch.

use std::{
    future::Future,
    mem,
    pin::Pin,
    task::{Context, Poll, ready},
};

use amqp_core::{client::Prefetch, protocol::basic};

use super::source::{begin_cancel, poll_uninterrupted};
use crate::{
    base_channel::BaseChannel,
    consumer::{ConsumeOptions, Consumer, Delivery, ManualAck, is_clean},
    error::Error,
};

/// A consumer of a group.
///
/// RabbitMQ fixes the prefetch of a consumer at its start
/// (<https://www.rabbitmq.com/docs/consumer-prefetch>), so that another one takes another consumer:
///
/// ```text
///  Running ── other prefetch: cancel ──> Running ── all yielded ──> Starting ──> Running
///     └── cancel, end ──> Ended <───────────┴───────────────────────────┘
/// ```
pub(super) struct Member {
    consume: basic::Consume,
    state: State,
}

enum State {
    Running {
        consumer: Consumer<ManualAck>,
        prefetch: u16,
        /// It was cancelled, to be started again.
        restarts: bool,
    },
    Starting {
        start: Start,
        prefetch: u16,
    },
    Ended,
}

type Start = Pin<Box<dyn Future<Output = Result<Consumer<ManualAck>, Error>> + Send>>;

impl Member {
    pub(super) async fn start(
        channel: &BaseChannel,
        consume: basic::Consume,
        prefetch: u16,
    ) -> Result<Self, Error> {
        let consumer = start(channel.clone(), consume.clone(), prefetch).await?;
        let state = State::Running {
            consumer,
            prefetch,
            restarts: false,
        };
        Ok(Self { consume, state })
    }

    /// Cancels the consumer for good: it ends when all is yielded.
    pub(super) fn begin_cancel(&mut self, cx: &mut Context<'_>) {
        match &mut self.state {
            State::Running {
                consumer, restarts, ..
            } => {
                *restarts = false;
                begin_cancel(consumer, cx);
            }
            // Dropping the start cancels the consumer.
            State::Starting { .. } => self.state = State::Ended,
            State::Ended => {}
        }
    }

    /// Adopts another prefetch, once all deliveries of the old one are yielded.
    pub(super) fn adopt(&mut self, wanted: u16, cx: &mut Context<'_>) {
        if let State::Running {
            consumer,
            prefetch,
            restarts,
        } = &mut self.state
            && *prefetch != wanted
            && !mem::replace(restarts, true)
        {
            begin_cancel(consumer, cx);
        }
    }

    /// Ready with the next delivery, with the reason for the end, or with `None` after it; only with
    /// the latter two if there is no credit. A restart uses the prefetch `wanted`.
    pub(super) fn poll_next(
        &mut self,
        channel: &BaseChannel,
        (wanted, credit): (u16, bool),
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Delivery, Error>>> {
        loop {
            match &mut self.state {
                State::Running {
                    consumer, restarts, ..
                } => match ready!(poll_running(consumer, credit, cx)) {
                    Some(Ok(delivery)) => return Poll::Ready(Some(Ok(delivery))),
                    None if *restarts => {
                        if let Some(error) = channel.end() {
                            return self.end(error);
                        }
                        let start = start(channel.clone(), self.consume.clone(), wanted);
                        self.state = State::Starting {
                            start: Box::pin(start),
                            prefetch: wanted,
                        };
                    }
                    end => {
                        self.state = State::Ended;
                        return Poll::Ready(end);
                    }
                },
                State::Starting { start, prefetch } => match ready!(start.as_mut().poll(cx)) {
                    Ok(consumer) => {
                        self.state = State::Running {
                            consumer,
                            prefetch: *prefetch,
                            restarts: false,
                        };
                        self.adopt(wanted, cx);
                    }
                    Err(error) => return self.end(error),
                },
                State::Ended => return Poll::Ready(None),
            }
        }
    }

    fn end<T>(&mut self, error: Error) -> Poll<Option<Result<T, Error>>> {
        self.state = State::Ended;
        Poll::Ready((!is_clean(&error)).then_some(Err(error)))
    }
}

/// Ready with the next delivery or the end; only with the end if there is no credit.
fn poll_running(
    consumer: &mut Consumer<ManualAck>,
    credit: bool,
    cx: &mut Context<'_>,
) -> Poll<Option<Result<Delivery, Error>>> {
    if credit {
        return poll_uninterrupted(consumer, cx);
    }
    consumer.poll_end(cx).map(|end| end.err().map(Err))
}

async fn start(
    channel: BaseChannel,
    consume: basic::Consume,
    prefetch: u16,
) -> Result<Consumer<ManualAck>, Error> {
    let options = ConsumeOptions::default().prefetch(Prefetch::Count(prefetch));
    channel.consume_with(consume, options).await
}
