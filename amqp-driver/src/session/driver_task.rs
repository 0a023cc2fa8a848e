//! The task of a driver, which a command may use on its own thread: for a write, and until its answer
//! is read.
//!
//! ```text
//!           a poll of the task, a command, or a thread that has it lent
//!   free ───────────────────────────────────> in use ── a panic of a command ──> (ended)
//!     ^                                         │
//!     └── it is parked, or the task is woken ───┘
//! ```
//!
//! While the driver is lent, it is parked with the waker of the thread that waits. A poll of the task
//! ends the loan.

use std::{
    fmt,
    future::Future,
    mem,
    panic::{AssertUnwindSafe, catch_unwind},
    pin::Pin,
    sync::{Arc, PoisonError},
    task::{Context, Poll, Waker, ready},
};

use super::{
    inline::InlineDriver,
    shared::{ClientEndpoint, Shared},
};
use crate::{
    io::{Driver, Lend, LentDriver, Timer, Transport, poll_locked, wake_all},
    sync::{Mutex, MutexGuard},
};

/// The task of the driver of one life. Commands may use the driver if its transport is
/// [inline](Transport::is_inline).
pub(crate) struct DriverTask<T: Transport, C: Timer>(Arc<Slot<T, C>>);

impl<T, C> DriverTask<T, C>
where
    T: Transport + Unpin + 'static,
    C: Timer + Unpin + 'static,
{
    /// Creates the task of the driver of the present life.
    pub(crate) fn new(driver: Driver<ClientEndpoint, T, C>, shared: &Shared) -> Self {
        let is_inline = driver.is_inline();
        let lender = driver.lender();
        let content = Mutex::new(Content {
            driver: Some(Box::new(driver)),
            waiting: None,
            task: None,
            loan: None,
            loans: 0,
            dropped: false,
            ended: false,
        });
        let slot = Arc::new(Slot { content, lender });
        let inline = is_inline.then(|| Arc::clone(&slot) as Arc<dyn InlineDriver>);
        let mut state = shared.lock();
        let before = mem::replace(&mut state.inline, inline);
        drop(state);
        drop(before);
        Self(slot)
    }

    /// Whether the transport is closed, so that only the peer's end is awaited. `false` while a
    /// command uses the driver, which wakes the task.
    pub(crate) fn is_closed(&self) -> bool {
        let content = self.0.lock();
        content.driver.as_ref().is_some_and(|it| it.is_closed())
    }
}

impl<T, C> Future for DriverTask<T, C>
where
    T: Transport + Unpin,
    C: Timer + Unpin,
{
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let slot = &self.0;
        let free = |content: &mut Content<T, C>| {
            content.loan = None;
            let driver = content.driver.take();
            (driver.is_some() || content.ended).then_some(driver)
        };
        let taken = poll_locked(&slot.content, cx.waker(), free, |content| {
            &mut content.waiting
        });
        let Some(mut driver) = ready!(taken) else {
            return Poll::Ready(());
        };
        let polled = Pin::new(&mut *driver).poll(cx);
        if polled.is_pending() {
            let answered = slot.take_answered(&driver);
            let task = slot.lender.map(|_| cx.waker().clone());
            let mut content = slot.lock();
            content.driver = Some(driver);
            let before = mem::replace(&mut content.task, task);
            drop(content);
            drop(before);
            wake_all(answered);
        }
        polled
    }
}

impl<T: Transport, C: Timer> Drop for DriverTask<T, C> {
    fn drop(&mut self) {
        let mut content = self.0.lock();
        content.dropped = true;
        let driver = content.driver.take();
        let wakers = (content.waiting.take(), content.task.take());
        drop(content);
        drop((driver, wakers));
    }
}

/// The driver, shared by its task and the commands.
struct Slot<T: Transport, C: Timer> {
    content: Mutex<Content<T, C>>,
    /// The [lender](Transport::lender) of the transport.
    lender: Option<fn(LentDriver)>,
}

type OwnDriver<T, C> = Driver<ClientEndpoint, T, C>;
type Taken<T, C> = Option<Box<OwnDriver<T, C>>>;

struct Content<T: Transport, C: Timer> {
    /// `Some` while it is free.
    driver: Taken<T, C>,
    /// The waker of the task, which was polled while a command used the driver.
    waiting: Option<Waker>,
    /// Whether the task was dropped. A command that uses the driver meanwhile drops it.
    dropped: bool,
    /// The waker of the last poll of the task, if it lends.
    task: Option<Waker>,
    /// The number of the loan. `Some` while the driver is lent to a thread that waits.
    loan: Option<u64>,
    /// The number of loans.
    loans: u64,
    /// Whether a write of a command has panicked, which has ended the life.
    ended: bool,
}

impl<T: Transport, C: Timer> Content<T, C> {
    /// Ends the loan of that number. Returns whether it had not ended.
    fn end_loan(&mut self, loan: u64) -> bool {
        let ends = self.loan == Some(loan);
        if ends {
            self.loan = None;
        }
        ends
    }
}

impl<T: Transport, C: Timer> Slot<T, C> {
    /// Takes the waker to wake once the driver is back.
    fn take_answered(&self, driver: &OwnDriver<T, C>) -> Option<Waker> {
        self.lender.and_then(|_| driver.endpoint().take_answered())
    }

    fn lock(&self) -> MutexGuard<'_, Content<T, C>> {
        self.content.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T: Transport + Unpin, C: Timer + Unpin> Slot<T, C> {
    /// Calls `act` with the driver, which was taken from the slot, and puts it back. Returns `None`
    /// without a driver, and after a panic.
    fn with<R>(
        &self,
        driver: Taken<T, C>,
        act: impl FnOnce(&mut OwnDriver<T, C>) -> R,
    ) -> Option<R> {
        let mut driver = driver?;
        // The panic of a transport or of the destructor of a body, which the panic hook has reported,
        // is not the caller's. It ends the life; a connection with recovery begins another one.
        let result = catch_unwind(AssertUnwindSafe(|| act(&mut driver)));
        let answered = self.take_answered(&driver);
        let mut content = self.lock();
        let waiting = content.waiting.take();
        content.ended = result.is_err();
        let dropped = if content.dropped || content.ended {
            Some(driver)
        } else {
            content.driver = Some(driver);
            None
        };
        drop(content);
        // Ends the life, if it has not ended.
        let _reported = catch_unwind(AssertUnwindSafe(|| drop(dropped)));
        wake_all(waiting.into_iter().chain(answered));
        result.ok()
    }
}

impl<T, C> InlineDriver for Slot<T, C>
where
    T: Transport + Unpin + 'static,
    C: Timer + Unpin + 'static,
{
    fn write(&self, task: Waker) {
        let driver = self.lock().driver.take();
        let parked = self.with(driver, |driver| {
            // If it was parked again since, `task` may be an old waker, which must not be registered.
            !driver.endpoint().is_parked() && driver.write_inline(&task)
        });
        // Unless the task is about to park it, another command uses it, or there is more to do.
        if parked != Some(true) {
            wake_all([task]);
        }
    }

    fn is_lending(&self) -> bool {
        self.lender.is_some()
    }

    fn lend(self: Arc<Self>) {
        let Some(lender) = self.lender else { return };
        let mut content = self.lock();
        if content.loan.is_some() || content.task.is_none() || content.driver.is_none() {
            return;
        }
        content.loans += 1;
        let loan = content.loans;
        content.loan = Some(loan);
        drop(content);
        lender(LentDriver::new(self, loan));
    }
}

impl<T: Transport + Unpin, C: Timer + Unpin> Lend for Slot<T, C> {
    fn poll_lent(&self, loan: u64, cx: &mut Context<'_>) -> bool {
        let mut content = self.lock();
        if content.loan != Some(loan) {
            return false;
        }
        let driver = content.driver.take();
        drop(content);
        let parked = self.with(driver, |driver| driver.poll_lent(cx)) == Some(true);
        if !parked {
            let mut content = self.lock();
            let task = content.end_loan(loan).then(|| content.task.take());
            drop(content);
            wake_all(task.flatten());
        }
        parked
    }

    fn take_back(&self, loan: u64, polled: bool) {
        let mut content = self.lock();
        if !content.end_loan(loan) || !polled {
            return;
        }
        let (driver, task) = (content.driver.take(), content.task.take());
        drop(content);
        let Some(task) = task else { return };
        if self.with(driver, |driver| driver.take_back(&task)) != Some(true) {
            return wake_all([task]);
        }
        let mut content = self.lock();
        // A poll of the task since has a later waker.
        let unused = match content.task {
            None => content.task.replace(task),
            Some(_) => Some(task),
        };
        drop(content);
        drop(unused);
    }
}

impl<T: Transport, C: Timer> fmt::Debug for Slot<T, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Slot").finish_non_exhaustive()
    }
}
