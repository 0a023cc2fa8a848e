//! Futures that are dropped before their end.

use std::{
    future::{Future, poll_fn},
    pin::pin,
    sync::{Arc, Mutex, PoisonError},
    task::Poll,
    time::Duration,
};

use amqp_driver::io::{Runtime as _, Timer as _};

use crate::{random::Random, runtime::SimRuntime, sim::Sim};

/// The longest time after which a future is dropped, in microseconds.
const LONGEST: u64 = 10_000_000;

/// Drops futures at points that the seed draws, as a program with tasks that are cancelled does.
/// [`Sim::cancellation`] makes one; clones share its generator.
///
/// ```
/// use amqp_sim::Sim;
/// use std::{future::pending, time::Duration};
///
/// let sim = Sim::new(1);
/// let cancellation = sim.cancellation(100);
/// assert_eq!(sim.block_on(async move { cancellation.run(pending::<()>()).await }), None);
/// assert!(sim.now() <= Duration::from_secs(10));
/// ```
#[derive(Clone, Debug)]
pub struct Cancellation {
    random: Arc<Mutex<Random>>,
    runtime: SimRuntime,
    percent: u64,
}

/// The end of a future that is to be dropped.
#[derive(Clone, Copy, Debug)]
enum End {
    Never,
    BeforeItsFirstPoll,
    AfterItsFirstPoll,
    After(Duration),
}

impl Cancellation {
    fn draw(&self) -> End {
        let mut random = self.random.lock().unwrap_or_else(PoisonError::into_inner);
        if !random.percent(self.percent) {
            return End::Never;
        }
        match random.below(8) {
            0 => End::BeforeItsFirstPoll,
            1 => End::AfterItsFirstPoll,
            // As often within a round trip as within the seconds of a fault.
            _ => {
                let bits = random.below(u64::from(LONGEST.ilog2()) + 1);
                End::After(Duration::from_micros(random.below(2 << bits).min(LONGEST)))
            }
        }
    }

    /// Runs a future to its end, and returns its output; or drops it, before its first poll, after
    /// it or some seconds later, and returns `None`.
    ///
    /// # Cancel safety
    /// Dropping this drops the future.
    pub async fn run<T>(&self, future: impl Future<Output = T>) -> Option<T> {
        let end = self.draw();
        let mut clock = self.runtime.clock();
        let at = match end {
            End::Never => None,
            End::BeforeItsFirstPoll => return None,
            End::AfterItsFirstPoll => Some(clock.now()),
            End::After(time) => Some(clock.now() + time),
        };
        let mut future = pin!(future);
        poll_fn(|cx| match future.as_mut().poll(cx) {
            Poll::Ready(output) => Poll::Ready(Some(output)),
            Poll::Pending => clock.poll_deadline(cx, at).map(|()| None),
        })
        .await
    }
}

impl Sim {
    /// Returns a means to drop futures before their end, that many of a hundred. Another one at
    /// each call.
    #[must_use]
    pub fn cancellation(&self, percent: u64) -> Cancellation {
        Cancellation {
            random: Arc::new(Mutex::new(self.random())),
            runtime: self.runtime(),
            percent,
        }
    }
}
