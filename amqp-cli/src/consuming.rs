//! The loop over the messages of a consumer: each is acknowledged once it is printed, or once its
//! command has succeeded.

use std::{
    future::{Future as _, poll_fn},
    pin::pin,
    task::Poll,
    time::Duration,
};

use amqp_tokio::{
    Acker, BaseChannel, ConsumeOptions, Consumer, Error, ManualAck, Message, NoAck, Prefetch,
    Requeue, protocol::basic,
};
use indicatif::ProgressBar;

use crate::{
    connection::CLOSE,
    failure::{Code, Failure, Outcome},
    note,
    signals::Stop,
};

/// The most messages that are printed before they are acknowledged.
const BATCH: usize = 256;

/// A consumer, with or without acknowledgements.
pub(crate) enum Source {
    Acked(Consumer<ManualAck>),
    Plain(Consumer<NoAck>),
}

impl Source {
    /// Starts a consumer. The prefetch is for one with acknowledgements.
    pub(crate) async fn start(
        channel: &BaseChannel,
        consume: basic::Consume,
        prefetch: u16,
    ) -> Result<Self, Error> {
        if consume.no_ack {
            return channel.consume_no_ack(consume).await.map(Self::Plain);
        }
        let options = ConsumeOptions::default().prefetch(Prefetch::Count(prefetch));
        channel
            .consume_with(consume, options)
            .await
            .map(Self::Acked)
    }

    /// The next message, and the right to acknowledge it. Cancel safe.
    pub(crate) async fn next(&mut self) -> Option<Result<(Message, Option<Acker>), Error>> {
        match self {
            Self::Acked(consumer) => {
                let delivery = consumer.next().await?;
                Some(delivery.map(|it| (it.message, Some(it.acker))))
            }
            Self::Plain(consumer) => Some(consumer.next().await?.map(|message| (message, None))),
        }
    }

    /// The next message that is there now.
    async fn next_now(&mut self) -> Option<Result<(Message, Option<Acker>), Error>> {
        let mut next = pin!(self.next());
        poll_fn(|cx| {
            Poll::Ready(match next.as_mut().poll(cx) {
                Poll::Ready(Some(Ok(item))) => Some(Ok(item)),
                // The end is found again by a wait for it, but not an error.
                Poll::Ready(Some(Err(error))) => Some(Err(error)),
                Poll::Ready(None) | Poll::Pending => None,
            })
        })
        .await
    }

    async fn cancel(&mut self) -> Result<(), Error> {
        match self {
            Self::Acked(consumer) => consumer.cancel().await,
            Self::Plain(consumer) => consumer.cancel().await,
        }
    }
}

/// The treatment of a message by its sink.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Handled {
    /// It is acknowledged with those around it, after [`Sink::flush`].
    Accepted,
    /// It is returned to its queue.
    Requeued,
    /// It is rejected: dead-lettered or dropped.
    Rejected,
    /// It is returned to its queue, and the loop ends.
    Stopped,
}

/// Takes the messages of a consumer.
pub(crate) trait Sink {
    /// Takes a message.
    ///
    /// # Errors
    /// Ends the loop, with the message back in its queue.
    async fn take(&mut self, message: Message) -> Outcome<Handled>;

    /// Brings the messages to their place, after which they are acknowledged.
    fn flush(&mut self) -> Outcome;
}

/// The conditions that end the loop, besides signals.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Limits {
    /// The number of messages.
    pub(crate) count: Option<u64>,
    /// The time without a message.
    pub(crate) idle: Option<Duration>,
}

/// Runs the loop. Returns the number of messages that were accepted.
pub(crate) async fn run(
    source: &mut Source,
    sink: &mut impl Sink,
    limits: Limits,
    stop: &mut Stop,
    bar: &ProgressBar,
) -> Outcome<u64> {
    let mut run = Run {
        printed: None,
        pending: 0,
        accepted: 0,
        taken: 0,
    };
    let ended = run.all(source, sink, limits, stop, bar).await;
    bar.finish_and_clear();
    match ended {
        Ok(()) => {
            run.settle(sink)?;
            match tokio::time::timeout(CLOSE, source.cancel()).await {
                // It had ended before.
                Ok(Ok(()) | Err(Error::ChannelClosed(_) | Error::ConnectionClosed(_))) => {}
                Ok(Err(error)) => return Err(error.into()),
                Err(_) => {
                    let text = match run.accepted {
                        0 => "no answer came in time",
                        _ => "no answer came in time: messages that were printed may come again",
                    };
                    return Err(Failure::new(Code::TimedOut, text));
                }
            }
            Ok(run.accepted)
        }
        // Messages that were printed before the failure need not come again.
        Err(error) if error.is_closed_pipe() => Err(error),
        Err(error) => run.settle(sink).and(Err(error)),
    }
}

struct Run {
    /// The last message that is to be acknowledged: all before it are too.
    printed: Option<Acker>,
    /// The number of messages since the last acknowledgement.
    pending: usize,
    accepted: u64,
    taken: u64,
}

impl Run {
    async fn all(
        &mut self,
        source: &mut Source,
        sink: &mut impl Sink,
        limits: Limits,
        stop: &mut Stop,
        bar: &ProgressBar,
    ) -> Outcome {
        while limits.count.is_none_or(|count| self.taken < count) && !stop.is_requested() {
            let next = match source.next_now().await {
                Some(next) => next,
                None => {
                    self.settle(sink)?;
                    tokio::select! {
                        biased;
                        () = stop.requested() => return Ok(()),
                        next = source.next() => match next {
                            Some(next) => next,
                            None => return Ok(()),
                        },
                        () = idle(limits.idle) => {
                            if self.taken == 0 {
                                return Err(Failure::silent(Code::Nothing));
                            }
                            return Ok(());
                        }
                    }
                }
            };
            let (message, acker) = match next {
                Ok(next) => next,
                Err(Error::Interrupted(_)) => continue,
                Err(error) => return Err(error.into()),
            };
            self.taken += 1;
            match sink.take(message).await? {
                Handled::Accepted => {
                    self.printed = acker;
                    self.pending += 1;
                    self.accepted += 1;
                    bar.inc(1);
                }
                Handled::Requeued => self.refuse(sink, acker, Requeue::Yes)?,
                Handled::Rejected => self.refuse(sink, acker, Requeue::No)?,
                Handled::Stopped => {
                    self.refuse(sink, acker, Requeue::Yes)?;
                    return Err(Failure::silent(Code::Failed));
                }
            }
            if self.pending >= BATCH {
                self.settle(sink)?;
            }
        }
        Ok(())
    }

    fn refuse(&mut self, sink: &mut impl Sink, acker: Option<Acker>, requeue: Requeue) -> Outcome {
        self.settle(sink)?;
        match acker {
            Some(acker) => tolerate(acker.nack(requeue)),
            None => Ok(()),
        }
    }

    /// Flushes the output, then acknowledges.
    fn settle(&mut self, sink: &mut impl Sink) -> Outcome {
        if self.pending == 0 {
            return Ok(());
        }
        sink.flush()?;
        self.pending = 0;
        match self.printed.take() {
            Some(acker) => tolerate(acker.ack_up_to()),
            None => Ok(()),
        }
    }
}

/// Tolerates that a message comes again because its connection was lost.
fn tolerate(settled: Result<(), Error>) -> Outcome {
    match settled {
        Err(Error::Stale | Error::Recovering) => {
            note!("the connection was lost before the acknowledgement: messages come again");
            Ok(())
        }
        other => Ok(other?),
    }
}

/// Waits for that long, or for ever.
async fn idle(limit: Option<Duration>) {
    match limit {
        Some(limit) => tokio::time::sleep(limit).await,
        None => std::future::pending().await,
    }
}
