//! The loop over deliveries, as a future.

use std::{
    fmt,
    future::{Future, poll_fn},
    panic::{AssertUnwindSafe, catch_unwind},
    pin::{Pin, pin},
    sync::Arc,
    task::{Context, Poll},
};

use amqp_core::{Requeue, protocol::channel};

use super::{
    batch_acker::BatchAcker,
    claim::Claim,
    confirmed::{confirmed, unconfirmed},
    end::{Counts, EndReason, Ended, Failure, Panicked},
    lanes::Lanes,
    options::{ForEachOptions, OnFailure, Policy},
    retry::NoRetry,
    running::Running,
    source::{Arrival, Source},
    stopper::{Drained, Signal, Stopper},
    work::{BodyEnd, Job, Outcome, Stop, Work},
};
use crate::{
    base_channel::BaseChannel,
    consumer::{Consumer, ManualAck, Message},
    unless::unless,
};

/// A loop over deliveries, which runs while it is polled and ends with an [`Ended`].
///
/// Made by [`Consumer::for_each_concurrent`] and
/// [`ConsumerGroup::for_each_concurrent`](crate::ConsumerGroup::for_each_concurrent).
///
/// # Cancel safety
/// Dropping it interrupts the bodies that run, requeues their messages, and cancels the consumer.
#[must_use = "the loop runs only while it is polled"]
pub struct ForEach<L> {
    stopper: Stopper,
    run: Pin<Box<L>>,
}

impl<L> ForEach<L> {
    /// Returns a handle that drains the loop from outside, as a program does that is asked to
    /// terminate.
    ///
    /// ```no_run
    /// use amqp_driver::{Consumer, ForEachOptions, ManualAck, OnFailure};
    /// use std::{convert::Infallible, time::Duration};
    ///
    /// # async fn example(consumer: Consumer<ManualAck>, spawn: fn(std::pin::Pin<Box<dyn Future<Output = ()>>>)) {
    /// let options = ForEachOptions::new(OnFailure::Requeue);
    /// let work = consumer.for_each_concurrent(8, options, |message| async move {
    ///     println!("{:?}", message.body);
    ///     Ok::<_, Infallible>(())
    /// });
    /// let stopper = work.stopper();
    /// spawn(Box::pin(async move {
    ///     // After the signal to terminate.
    ///     println!("{:?}", stopper.drain(Duration::from_secs(20)).await);
    /// }));
    /// println!("{:?}", work.await.reason);
    /// # }
    /// ```
    #[must_use]
    pub fn stopper(&self) -> Stopper {
        self.stopper.clone()
    }
}

impl<L: Future> Future for ForEach<L> {
    type Output = L::Output;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<L::Output> {
        self.run.as_mut().poll(cx)
    }
}

impl<L> fmt::Debug for ForEach<L> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ForEach").finish_non_exhaustive()
    }
}

impl Consumer<ManualAck> {
    /// Calls `body` for each delivery, with at most `limit` futures of it at a time, at least 1, all
    /// of them in the task that polls the loop. A message is acknowledged when its body has returned
    /// `Ok`, exactly once, and otherwise treated as the options say.
    ///
    /// A failure of a body is the end of its message, and never of the channel: an error, and also a
    /// panic, if the program is built to unwind. The body is considered unwind safe: state that it
    /// shares and that a panic leaves half changed is seen by later calls, as with a thread. The
    /// loop itself ends as [`EndReason`] says, for a reason of the consumer, by
    /// [`OnFailure::End`], or by [`Stopper::drain`].
    ///
    /// When a channel ends, the server requeues its deliveries. One with a body that runs is counted as
    /// [`stale`](Counts::stale): the body will run again. Bodies that run when the
    /// consumer ends are waited for.
    ///
    /// ```no_run
    /// use amqp_driver::{ForEachOptions, OnFailure, protocol::basic};
    /// use std::str::Utf8Error;
    ///
    /// # async fn example(channel: amqp_driver::Channel) -> Result<(), amqp_driver::Error> {
    /// let consumer = channel.consume(basic::Consume::default().queue("jobs")).await?;
    /// let options = ForEachOptions::new(OnFailure::Reject);
    /// let ended = consumer
    ///     .for_each_concurrent(8, options, |message| async move {
    ///         println!("{}", str::from_utf8(&message.body.to_vec())?);
    ///         Ok::<_, Utf8Error>(())
    ///     })
    ///     .await;
    /// println!("{:?} after {} messages", ended.reason, ended.counts.handled());
    /// # Ok(()) }
    /// ```
    pub fn for_each_concurrent<B, F, E>(
        self,
        limit: usize,
        options: ForEachOptions<E>,
        body: B,
    ) -> ForEach<impl Future<Output = Ended<E>>>
    where
        B: FnMut(Message) -> F,
        F: Future<Output = Result<(), E>>,
    {
        for_each(self, limit, options, body)
    }
}

pub(super) fn for_each<S, B, F, E>(
    source: S,
    limit: usize,
    options: ForEachOptions<E>,
    body: B,
) -> ForEach<impl Future<Output = Ended<E>>>
where
    S: Source,
    B: FnMut(Message) -> F,
    F: Future<Output = Result<(), E>>,
{
    let stopper = Stopper::new();
    // The guard exists before the first poll, so that no drain waits for a loop that is dropped.
    let end = EndGuard(stopper.signal());
    let run = Box::pin(run(source, limit.max(1), options, body, end));
    ForEach { stopper, run }
}

/// Reports the end of a loop that is dropped.
struct EndGuard(Arc<Signal>);

impl Drop for EndGuard {
    fn drop(&mut self) {
        self.0.end(Drained::default());
    }
}

async fn run<S, B, F, E>(
    source: S,
    limit: usize,
    options: ForEachOptions<E>,
    mut body: B,
    end: EndGuard,
) -> Ended<E>
where
    S: Source,
    B: FnMut(Message) -> F,
    F: Future<Output = Result<(), E>>,
{
    let channel = source.channel();
    let batch = options
        .batch
        .map(|(count, delay)| BatchAcker::new(&channel, count, delay));
    let (policy, acks) = (&options.policy, batch.as_ref());
    let start = |job: Job| {
        let Arrival { message, claim } = job.arrival;
        let copy = policy.may_retry().then(|| message.clone());
        // Unwind safe: documented at `for_each_concurrent`.
        let started = catch_unwind(AssertUnwindSafe(|| body(message)));
        handle(started, copy, claim, job.lane, policy, acks)
    };
    let mut work = Work {
        source,
        limit,
        key: options.key.as_ref(),
        buffered: options.buffered,
        start,
        running: Running::new(),
        lanes: Lanes::new(),
        counts: Counts::default(),
        stop: Stop::new(&channel, &end.0),
        failure: None,
        source_end: None,
    };
    let mut drained = Drained::default();
    if !poll_fn(|cx| work.poll(cx)).await {
        drained.unfinished = poll_fn(|cx| Poll::Ready(work.interrupt(cx))).await;
    }
    if let Some(batch) = &batch {
        batch.flush();
    }
    let publishers = publishers(&options, channel.clone());
    if let Some(before) = work.stop.drained {
        drained.handled = work.counts.handled() - before;
        let settled = async {
            // RabbitMQ processes the methods of a channel in order, and answers this one without
            // any other effect.
            let processed = channel.call(channel::Flow { active: true }).await.is_ok();
            drained.acks_processed = processed;
            for publisher in &publishers {
                confirmed(publisher).await;
            }
        };
        let late = poll_fn(|cx| work.stop.poll(cx, 0));
        let _in_time = unless(late, settled).await;
        drained.unconfirmed = publishers.iter().map(unconfirmed).sum();
    }
    drained.requeued = work.stop.requeued;
    let mut counts = work.counts;
    if let Some(batch) = &batch {
        let (acked, stale) = batch.totals();
        counts.acked += acked;
        counts.stale += stale;
    }
    let reason = match (work.failure, work.stop.drained) {
        (Some(failure), _) => EndReason::Failed(failure),
        (None, Some(_)) => EndReason::Drained(drained),
        (None, None) => EndReason::of(work.source_end.flatten(), channel.end()),
    };
    end.0.end(drained);
    Ended { reason, counts }
}

/// The channels with the confirms that a drain waits for.
fn publishers<E>(options: &ForEachOptions<E>, own: BaseChannel) -> Vec<BaseChannel> {
    let other = options
        .publisher
        .as_ref()
        .map(|channel| (**channel).clone());
    let other = other.filter(|it| !Arc::ptr_eq(it.inner(), own.inner()));
    [own].into_iter().chain(other).collect()
}

/// Runs a body to its end, and settles its message.
async fn handle<F, E>(
    started: Result<F, Box<dyn std::any::Any + Send>>,
    copy: Option<Message>,
    claim: Claim,
    lane: Option<u64>,
    policy: &Policy<E>,
    acks: Option<&BatchAcker>,
) -> Outcome<E>
where
    F: Future<Output = Result<(), E>>,
{
    let result = match started {
        Ok(future) => caught(future).await,
        Err(panic) => Err(panic),
    };
    let failure = match result {
        Ok(Ok(())) => {
            return Outcome {
                lane,
                body: BodyEnd::Succeeded,
                settled: claim.ack(acks),
                ends: None,
            };
        }
        Ok(Err(error)) => Failure::Error(error),
        Err(panic) => Failure::Panicked(Panicked::new(panic)),
    };
    let body = match &failure {
        Failure::Error(_) => BodyEnd::Failed,
        Failure::Panicked(_) => BodyEnd::Panicked,
    };
    let (settled, ends) = match (policy.choose(&failure), copy) {
        (OnFailure::Requeue, _) => (claim.requeue(), None),
        (OnFailure::Retry(retry), Some(message)) => match retry.publish(message).await {
            Ok(()) => (claim.ack_copied(), None),
            Err(NoRetry::Spent) => (claim.reject(), None),
            Err(NoRetry::Unpublished) => (claim.requeue(), None),
        },
        (OnFailure::Reject | OnFailure::Retry(_), _) => (claim.reject(), None),
        (OnFailure::End(Requeue::Yes), _) => (claim.requeue(), Some(failure)),
        (OnFailure::End(Requeue::No), _) => (claim.reject(), Some(failure)),
    };
    Outcome {
        lane,
        body,
        settled,
        ends,
    }
}

/// The output of a future, or the payload of its panic.
async fn caught<F: Future>(future: F) -> Result<F::Output, Box<dyn std::any::Any + Send>> {
    let mut future = pin!(future);
    poll_fn(|cx| {
        // Unwind safe: a future that has panicked is not polled again.
        match catch_unwind(AssertUnwindSafe(|| future.as_mut().poll(cx))) {
            Ok(polled) => polled.map(Ok),
            Err(panic) => Poll::Ready(Err(panic)),
        }
    })
    .await
}
