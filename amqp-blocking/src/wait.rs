//! How long the calls of a thread may block.

use std::{
    cell::Cell,
    future::Future,
    time::{Duration, Instant},
};

use amqp_core::TimeoutReason;
use amqp_driver::Error;

use crate::executor::run;

thread_local! {
    /// Until when the calls of this thread may block.
    static LIMIT: Cell<Option<Instant>> = const { Cell::new(None) };
}

/// Makes calls, and lets none of them block beyond that time from now. It holds for every blocking
/// call that is made inside, on this thread, and for all of them together; inside of another limit
/// the one that ends first counts.
///
/// A call whose time is over fails with [`Error::TimedOut`], or as its documentation says. It is
/// given up as its asynchronous namesake is when its future is dropped: that is safe everywhere, and
/// said under "cancel safety" there. The connection and everything else goes on.
///
/// ```no_run
/// use std::time::Duration;
/// use amqp_blocking::{Consumer, Error, ManualAck, within};
///
/// # fn example(mut consumer: Consumer<ManualAck>) -> Result<(), Error> {
/// match within(Duration::from_secs(1), || consumer.next()) {
///     Some(Ok(delivery)) => delivery.ack()?,
///     Some(Err(Error::TimedOut(_))) => println!("nothing yet"),
///     Some(Err(error)) => return Err(error),
///     None => println!("it was cancelled"),
/// }
/// # Ok(()) }
/// ```
pub fn within<T>(limit: Duration, calls: impl FnOnce() -> T) -> T {
    /// Restores the limit that was there before, also when a call panics.
    struct Outer(Option<Instant>);
    impl Drop for Outer {
        fn drop(&mut self) {
            LIMIT.set(self.0);
        }
    }
    let outer = Outer(LIMIT.get());
    let ours = Instant::now().checked_add(limit);
    LIMIT.set(ours.into_iter().chain(outer.0).min());
    calls()
}

/// Runs a future on this thread as every call of this crate does: until it is ready, or given up
/// because of [`within`].
///
/// # Errors
/// [`Error::TimedOut`] when it is given up.
pub fn wait<F: Future>(future: F) -> Result<F::Output, Error> {
    run(future, LIMIT.get()).ok_or(Error::TimedOut(TimeoutReason::Call))
}
