//! Runs one future on the calling thread, which parks while the future is pending.

use std::{
    any::Any,
    cell::{Cell, RefCell},
    collections::BTreeMap,
    future::Future,
    io, mem,
    pin::{Pin, pin},
    sync::{
        Arc, OnceLock,
        atomic::{
            AtomicU8, AtomicUsize,
            Ordering::{AcqRel, Acquire},
        },
    },
    task::{Context, Poll, Wake, Waker},
    thread::{self, Thread},
    time::{Duration, Instant},
};

use amqp_driver::io::LentDriver;

thread_local! {
    /// The executor that runs on this thread. `Some` while one does.
    static CURRENT: RefCell<Option<Executor>> = const { RefCell::new(None) };
    /// The last executor of this thread without sockets of its own, kept for reuse.
    static SPARE: Cell<Option<Executor>> = const { Cell::new(None) };
    static POLLS: Cell<Polls> = const { Cell::new(Polls::Own) };
}

/// A way to park a thread that also waits for sockets.
pub(crate) trait Park: Any {
    /// Waits until the waker that was created with it has been woken since the last call, a socket
    /// is ready, or `limit` has passed. Spurious returns are allowed.
    fn park(&mut self, limit: Option<Duration>);
}

/// Runs a future on this thread until it is ready. The future may use the asynchronous handles,
/// such as that of a library for any runtime. The limit of [`within`](crate::within) does not
/// apply.
pub fn block_on<F: Future>(future: F) -> F::Output {
    match run(future, None) {
        Some(output) => output,
        None => unreachable!("nothing ends it but itself"),
    }
}

/// Runs a future on this thread. Returns `None` if it is not ready at `until`. It is polled at
/// least once.
pub(super) fn run<F: Future>(future: F, until: Option<Instant>) -> Option<F::Output> {
    let entered = EnterGuard::new();
    let mut context = Context::from_waker(&entered.waker);
    let mut future = pin!(future);
    loop {
        // Wake-ups before this point are covered by the poll below.
        entered.parker.state.swap(AWAKE, AcqRel);
        if let Poll::Ready(output) = future.as_mut().poll(&mut context) {
            return Some(output);
        }
        if until.is_some_and(|until| until <= Instant::now()) {
            return None;
        }
        match with_current(|executor| executor.lent.take()).flatten() {
            Some(driver) => entered.drive(driver, until),
            None => wait(until),
        }
    }
}

/// Drops the executor that is kept on this thread, with the file descriptors of its [`Park`].
pub(crate) fn release_spare() {
    drop(SPARE.take());
}

/// Waits until a wake-up, an alarm or `until`.
fn wait(until: Option<Instant>) {
    let due = with_current(|executor| executor.wait(until));
    due.into_iter().flatten().for_each(Waker::wake);
}

/// The maximum number of threads that keep a [`Park`] for lent drivers, which has three file
/// descriptors. Others leave the drivers to their tasks.
const KEPT_PARKS: usize = 32;

/// The number of threads that keep one.
static KEPT: AtomicUsize = AtomicUsize::new(0);

/// The right to keep a [`Park`].
struct Reserved;

impl Reserved {
    fn new() -> Option<Self> {
        let more = |kept| (kept < KEPT_PARKS).then_some(kept + 1);
        let counted = KEPT.fetch_update(AcqRel, Acquire, more);
        counted.ok().map(|_| Self)
    }
}

impl Drop for Reserved {
    fn drop(&mut self) {
        KEPT.fetch_sub(1, AcqRel);
    }
}

/// Reserves a [`Park`] for lent drivers on this thread. Returns `false` if there are enough, or no
/// executor that takes such drivers.
pub(crate) fn reserve_park() -> bool {
    let reserved = with_current(|executor| {
        if executor.takes_lent && executor.reserved.is_none() {
            executor.reserved = Reserved::new();
        }
        executor.takes_lent && executor.reserved.is_some()
    });
    reserved.unwrap_or(false)
}

/// Polls a future once, on behalf of no executor: one on this thread, which does not wait for the
/// future, takes no driver meanwhile.
pub(crate) fn poll_once<F: Future>(future: Pin<&mut F>) -> Poll<F::Output> {
    /// Restores the value on drop, also if the future panics.
    struct TakesGuard(Option<bool>);
    impl Drop for TakesGuard {
        fn drop(&mut self) {
            if let Some(outer) = self.0 {
                with_current(|executor| executor.takes_lent = outer);
            }
        }
    }
    let _outer = TakesGuard(with_current(|executor| {
        mem::replace(&mut executor.takes_lent, false)
    }));
    // A wake-up of this waker is not needed: the future is polled again at once.
    future.poll(&mut Context::from_waker(Waker::noop()))
}

/// Keeps a driver that is lent to this thread, which has [reserved](reserve_park) a park, until its
/// future waits. Returns the driver if there is one already.
pub(crate) fn keep_lent(driver: LentDriver) -> Option<LentDriver> {
    let mut declined = Some(driver);
    with_current(|executor| {
        if executor.lent.is_none() {
            executor.lent = declined.take();
        }
    });
    declined
}

/// The driver that the thread polls.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Polls {
    /// Its own, of which it waits for the sockets.
    Own,
    /// One that is lent to it.
    Lent,
    /// One that was lent to it: its sockets go back to the thread of its task.
    GiveBack,
}

/// The driver that this thread polls.
pub(crate) fn polls() -> Polls {
    POLLS.get()
}

/// Calls `act`, which polls a driver.
pub(crate) fn polling<T>(polls: Polls, act: impl FnOnce() -> T) -> T {
    /// Restores the value on drop, also if `act` panics.
    struct PollsGuard(Polls);
    impl Drop for PollsGuard {
        fn drop(&mut self) {
            POLLS.set(self.0);
        }
    }
    let _outer = PollsGuard(POLLS.replace(polls));
    act()
}

/// Calls `act` with the [`Park`] of the executor on this thread. On first use `make` creates it,
/// along with its waker. Sockets are registered with it. It belongs to this executor: a future that
/// continues on another executor gets another one.
///
/// # Errors
/// Those of `make` and `act`; [`Unsupported`](io::ErrorKind::Unsupported) if no executor runs on
/// the thread, by [`block_on`] or a call of this module, or it has a [`Park`] of another type.
pub(crate) fn with_park<P: Park, T>(
    make: impl FnOnce() -> io::Result<(P, Waker)>,
    act: impl FnOnce(&mut P) -> io::Result<T>,
) -> io::Result<T> {
    let done = with_current(|executor| {
        if executor.park.is_none() {
            let (park, waker) = make()?;
            // Not set yet: it is set together with `park`.
            let _first = executor.parker.waker.set(waker);
            executor.park = Some(Box::new(park));
        }
        let park = executor
            .park
            .as_deref_mut()
            .map(|park| park as &mut dyn Any);
        match park.and_then(|park| park.downcast_mut()) {
            Some(park) => act(park),
            None => Err(io::ErrorKind::Unsupported.into()),
        }
    });
    done.unwrap_or_else(|| Err(io::Error::new(io::ErrorKind::Unsupported, OUTSIDE)))
}

const OUTSIDE: &str = "a socket for blocking calls is used where no block_on runs";

/// Wakes `waker` after the thread has next been parked: its socket may be ready.
pub(crate) fn wake_after_park(waker: &Waker) {
    with_current(|executor| {
        let waiting = &mut executor.waiting;
        // The future that runs on the thread is polled anyway.
        if !executor.waker.will_wake(waker) && !waiting.iter().any(|it| it.will_wake(waker)) {
            waiting.push(waker.clone());
        }
    });
}

/// Wakes `waker` at `at`, provided that the current executor still runs on this thread. Returns
/// `None` if there is none.
pub(super) fn wake_at(at: Instant, waker: &Waker) -> Option<()> {
    with_current(|executor| {
        executor.last_alarm += 1;
        let key = (at, executor.last_alarm);
        executor.alarms.insert(key, waker.clone());
    })
}

fn with_current<T>(act: impl FnOnce(&mut Executor) -> T) -> Option<T> {
    CURRENT.with_borrow_mut(|current| current.as_mut().map(act))
}

/// Installs an executor on this thread, and restores the outer one on drop.
struct EnterGuard {
    parker: Arc<Parker>,
    waker: Waker,
    outer: Option<Executor>,
}

impl EnterGuard {
    fn new() -> Self {
        let executor = SPARE.take().unwrap_or_default();
        Self {
            parker: Arc::clone(&executor.parker),
            waker: executor.waker.clone(),
            outer: CURRENT.replace(Some(executor)),
        }
    }
}

impl EnterGuard {
    /// Waits, as [`wait`] does, with a driver that the future has lent. It is given back before the
    /// future is polled, which may work for long, or block.
    fn drive(&self, mut driver: LentDriver, until: Option<Instant>) {
        let is_woken = || self.parker.state.load(Acquire) == WOKEN;
        let mut context = Context::from_waker(&self.waker);
        let mut poll = || polling(Polls::Lent, || driver.poll(&mut context));
        if poll() && !is_woken() {
            wait(until);
            poll();
        }
        polling(Polls::GiveBack, || drop(driver));
    }
}

impl Drop for EnterGuard {
    fn drop(&mut self) {
        // It was not polled.
        drop(with_current(|executor| executor.lent.take()));
        let ended = CURRENT.replace(self.outer.take());
        SPARE.set(ended.filter(|it| it.park.is_none() || it.reserved.is_some()));
    }
}

/// An executor that runs in steps, and sleeps only when its owner calls [`sleep`](Self::sleep).
pub(crate) struct StepExecutor(Option<Executor>);

impl StepExecutor {
    /// Creates an executor that sleeps with `park`, and is woken by the waker of that.
    pub(crate) fn new(park: impl Park) -> Self {
        Self(Some(Executor {
            park: Some(Box::new(park)),
            takes_lent: false,
            ..Executor::default()
        }))
    }

    /// Calls `act` with this as the executor on this thread.
    pub(crate) fn enter<T>(&mut self, act: impl FnOnce() -> T) -> T {
        /// Swaps the executors back on drop, also if `act` panics.
        struct SwapGuard<'a>(&'a mut Option<Executor>);
        impl SwapGuard<'_> {
            fn swap(&mut self) {
                CURRENT.with_borrow_mut(|current| mem::swap(current, self.0));
            }
        }
        impl Drop for SwapGuard<'_> {
            fn drop(&mut self) {
                self.swap();
            }
        }
        let mut guard = SwapGuard(&mut self.0);
        guard.swap();
        act()
    }

    /// Sleeps until `until`, an alarm, a ready socket or a wake-up. Then wakes the wakers of
    /// sockets and of due alarms.
    pub(crate) fn sleep(&mut self, until: Option<Instant>) {
        let Some(executor) = &mut self.0 else { return };
        executor.parker.state.swap(AWAKE, AcqRel);
        executor.wait(until).into_iter().for_each(Waker::wake);
    }

    /// The time of the next alarm.
    pub(crate) fn next_alarm(&self) -> Option<Instant> {
        let ((at, _), _) = self.0.as_ref()?.alarms.first_key_value()?;
        Some(*at)
    }
}

struct Executor {
    parker: Arc<Parker>,
    /// The parker as a waker, for the context of the future.
    waker: Waker,
    /// `Some` once sockets are waited for; otherwise the thread parks by [`thread::park`].
    park: Option<Box<dyn Park>>,
    /// Other wakers to wake after parking.
    waiting: Vec<Waker>,
    alarms: BTreeMap<(Instant, u64), Waker>,
    last_alarm: u64,
    /// Whether it may have a lent driver: it waits on its own.
    takes_lent: bool,
    /// The driver that is lent to this thread, while its future runs.
    lent: Option<LentDriver>,
    /// `Some` if the park is kept for reuse, for lent drivers.
    reserved: Option<Reserved>,
}

impl Default for Executor {
    fn default() -> Self {
        let parker = Arc::new(Parker {
            state: AtomicU8::new(AWAKE),
            thread: thread::current(),
            waker: OnceLock::new(),
        });
        Self {
            waker: Waker::from(Arc::clone(&parker)),
            parker,
            park: None,
            waiting: Vec::new(),
            alarms: BTreeMap::new(),
            last_alarm: 0,
            takes_lent: true,
            lent: None,
            reserved: None,
        }
    }
}

impl Executor {
    /// Waits until a wake-up, an alarm or `until`. Returns the wakers to wake: the other wakers,
    /// and those of due alarms.
    fn wait(&mut self, until: Option<Instant>) -> Vec<Waker> {
        let alarm = self.alarms.first_key_value().map(|((at, _), _)| *at);
        let next = [until, alarm].into_iter().flatten().min();
        let left = next.map(|at| at.saturating_duration_since(Instant::now()));
        let asleep = self.parker.fall_asleep();
        match &mut self.park {
            Some(park) if asleep => park.park(left),
            // Sockets are polled even without parking, or their wakers would starve.
            Some(park) if !self.waiting.is_empty() => park.park(Some(Duration::ZERO)),
            None if asleep => left.map_or_else(thread::park, thread::park_timeout),
            _ => {}
        }
        self.parker.stay_awake();
        let mut due = mem::take(&mut self.waiting);
        while let Some(first) = self.alarms.first_entry()
            && first.key().0 <= Instant::now()
        {
            due.push(first.remove());
        }
        due
    }
}

struct Parker {
    /// [`AWAKE`], [`WOKEN`] or [`ASLEEP`].
    state: AtomicU8,
    thread: Thread,
    /// Wakes the thread if its executor has a [`Park`].
    waker: OnceLock<Waker>,
}

/// The future is being polled, or about to be.
const AWAKE: u8 = 0;
/// A wake-up has come: the future must be polled once more.
const WOKEN: u8 = 1;
/// The thread is parked, or about to park.
const ASLEEP: u8 = 2;

impl Parker {
    /// Marks the thread as asleep. Returns `false` if a wake-up has come since the last poll began.
    fn fall_asleep(&self) -> bool {
        let asleep = self.state.compare_exchange(AWAKE, ASLEEP, AcqRel, Acquire);
        asleep.is_ok()
    }

    /// Marks the thread as awake, unless a wake-up has come.
    fn stay_awake(&self) {
        let _woken = self.state.compare_exchange(ASLEEP, AWAKE, AcqRel, Acquire);
    }
}

impl Wake for Parker {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if self.state.swap(WOKEN, AcqRel) == ASLEEP {
            match self.waker.get() {
                Some(waker) => waker.wake_by_ref(),
                None => self.thread.unpark(),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{
        future::{pending, poll_fn},
        sync::{Mutex, atomic::AtomicUsize, atomic::Ordering::SeqCst},
    };

    use super::*;
    use crate::sleep::Sleep;

    const SHORT: Duration = Duration::from_millis(20);

    /// A future that another thread completes after [`SHORT`], waking the latest waker.
    fn told_by_a_thread() -> impl Future<Output = ()> {
        let state = Arc::new(Mutex::new((false, None::<Waker>)));
        let telling = Arc::clone(&state);
        thread::spawn(move || {
            thread::sleep(SHORT);
            let mut state = telling.lock().expect("nobody panics");
            state.0 = true;
            state.1.take().into_iter().for_each(Waker::wake);
        });
        poll_fn(move |cx| {
            let mut state = state.lock().expect("nobody panics");
            state.1 = Some(cx.waker().clone());
            if state.0 {
                Poll::Ready(())
            } else {
                Poll::Pending
            }
        })
    }

    /// Counts the parks.
    struct Counting(Arc<AtomicUsize>);

    impl Park for Counting {
        fn park(&mut self, limit: Option<Duration>) {
            self.0.fetch_add(1, SeqCst);
            thread::park_timeout(limit.unwrap_or(SHORT));
        }
    }

    #[test]
    fn a_thread_sleeps_until_another_one_wakes_it() {
        let mut polls = 0;
        let mut told = pin!(told_by_a_thread());
        block_on(poll_fn(|cx| {
            polls += 1;
            told.as_mut().poll(cx)
        }));
        assert!(polls <= 3, "{polls}");
    }

    #[test]
    fn what_wakes_the_outer_future_while_an_inner_one_runs_is_not_lost() {
        let mut outer = pin!(told_by_a_thread());
        let mut first = true;
        block_on(poll_fn(|cx| {
            let polled = outer.as_mut().poll(cx);
            if mem::take(&mut first) {
                block_on(Sleep::new(3 * SHORT));
            }
            polled
        }));
    }

    #[test]
    fn a_limit_ends_what_never_would() {
        let begun = Instant::now();
        assert_eq!(run(pending::<()>(), Some(begun + SHORT)), None);
        assert!(begun.elapsed() >= SHORT);
        assert_eq!(run(async { 42 }, Some(begun)), Some(42));
    }

    /// A set of futures has such wakers: it polls only the futures that were woken.
    #[test]
    fn wakers_of_ones_own_are_woken_too() {
        struct Flag(AtomicU8, Waker);
        impl Wake for Flag {
            fn wake(self: Arc<Self>) {
                self.0.swap(1, SeqCst);
                self.1.wake_by_ref();
            }
        }
        let mut sleep = Sleep::new(SHORT);
        let mut flag = None;
        block_on(poll_fn(|cx| {
            let flag = flag.get_or_insert_with(|| {
                let flag = AtomicU8::new(1);
                Arc::new(Flag(flag, cx.waker().clone()))
            });
            if flag.0.swap(0, SeqCst) == 0 {
                return Poll::Pending;
            }
            let waker = Waker::from(Arc::clone(flag));
            pin!(&mut sleep).poll(&mut Context::from_waker(&waker))
        }));
    }

    #[test]
    fn who_waits_for_sockets_is_parked_by_the_adapter() {
        let parks = Arc::new(AtomicUsize::new(0));
        let make = || Ok((Counting(Arc::clone(&parks)), Waker::noop().clone()));
        let outside = with_park(make, |_: &mut Counting| Ok(()));
        assert_eq!(
            outside.map_err(|error| error.kind()),
            Err(io::ErrorKind::Unsupported)
        );
        block_on(async {
            for _ in 0..2 {
                let same = with_park(make, |it: &mut Counting| Ok(Arc::as_ptr(&it.0)));
                assert_eq!(same.ok(), Some(Arc::as_ptr(&parks)));
            }
            Sleep::new(SHORT).await;
        });
        assert!(parks.load(SeqCst) > 0);
        assert_eq!(Arc::strong_count(&parks), 1, "it is gone with the future");
    }
}
