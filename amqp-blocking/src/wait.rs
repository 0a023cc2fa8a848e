//! The time limit of blocking calls.

use std::{
    cell::Cell,
    future::Future,
    pin::pin,
    task::Poll,
    time::{Duration, Instant},
};

use amqp_core::TimeoutReason;
use amqp_driver::Error;

use crate::executor::{poll_once, run};

thread_local! {
    /// The deadline of the calls on this thread. `Some` inside [`within`].
    static LIMIT: Cell<Option<Instant>> = const { Cell::new(None) };
}

/// Runs `calls` with a time limit, counted from now. The limit applies to all blocking calls inside
/// on this thread, taken together. Of nested limits the earliest deadline applies.
///
/// A call beyond the limit fails with [`Error::TimedOut`], or as its documentation states. It is
/// cancelled by dropping the future of its asynchronous namesake: that is always safe, and
/// described there under "Cancel safety". The connection is not affected.
///
/// ```no_run
/// use std::time::Duration;
/// use amqp_blocking::{Consumer, Error, ManualAck, within};
///
/// # fn example(mut consumer: Consumer<ManualAck>) -> Result<(), Error> {
/// match within(Duration::from_secs(1), || consumer.next()) {
///     Some(Ok(delivery)) => delivery.ack()?,
///     Some(Err(Error::TimedOut { .. })) => println!("nothing yet"),
///     Some(Err(error)) => return Err(error),
///     None => println!("it was cancelled"),
/// }
/// # Ok(()) }
/// ```
pub fn within<T>(limit: Duration, calls: impl FnOnce() -> T) -> T {
    /// Restores the outer limit on drop, also if a call panics.
    struct LimitGuard(Option<Instant>);
    impl Drop for LimitGuard {
        fn drop(&mut self) {
            LIMIT.set(self.0);
        }
    }
    let outer = LimitGuard(LIMIT.get());
    let ours = Instant::now().checked_add(limit);
    LIMIT.set(ours.into_iter().chain(outer.0).min());
    calls()
}

/// Runs a future on this thread, as every call of this crate does: until it is ready, or beyond the
/// limit of [`within`].
///
/// # Errors
/// [`Error::TimedOut`] beyond that limit. The future is dropped.
pub fn wait<F: Future>(future: F) -> Result<F::Output, Error> {
    run(future, LIMIT.get()).ok_or(Error::TimedOut {
        reason: TimeoutReason::Call,
        channel: None,
    })
}

/// As [`wait`], for a future of the handles that is mostly ready at its first poll: that poll needs no
/// executor.
///
/// Of the futures it suits those that are woken by the driver alone, not by a [`Sleep`](crate::Sleep)
/// or a socket.
pub(crate) fn wait_unless_ready<F: Future>(future: F) -> Result<F::Output, Error> {
    let mut future = pin!(future);
    match poll_once(future.as_mut()) {
        Poll::Ready(output) => Ok(output),
        Poll::Pending => wait(future),
    }
}
