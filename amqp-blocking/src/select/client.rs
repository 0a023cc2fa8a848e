//! The interface to an event loop: the program's own, or the small one in this module.

use std::{
    cell::RefCell,
    collections::BTreeMap,
    fmt,
    future::Future,
    mem,
    pin::pin,
    rc::Rc,
    sync::Arc,
    task::{Context, Waker},
    time::{Duration, Instant},
};

use amqp_driver::{Config, Connection, ConnectionState, Options, connect, from_transport};
use mio::Registry;

use super::{
    Answer, Error, Promise,
    consumer_group::ConsumerGroup,
    local_runtime::LocalRuntime,
    results::{ResultSender, Results, is_final},
    shared::Shared,
    tasks::{Spawner, Tasks},
};
use crate::{
    executor::{Park, StepExecutor},
    stream::BlockingStream,
};

/// A connection for the program's own event loop. See the [module](super).
///
/// It stays on the thread that created it. Dropping it ends the connection without a close
/// handshake: unwritten output is lost, and the server requeues unacknowledged messages. For a
/// graceful end, [`close`](Self::close) and wait for the result.
pub struct Client {
    descriptor: Descriptor,
    executor: StepExecutor,
    tasks: Tasks,
    pub(super) shared: Rc<Shared>,
    pub(super) results: Rc<RefCell<Results>>,
    /// By promise. `Some` except while the callback runs.
    pub(super) callbacks: BTreeMap<Promise, Option<Callback>>,
    stopped: bool,
    /// The number of the last result before the last [`on_readable`](Client::on_readable) returned.
    seen: u64,
}

type Callback = Box<dyn FnMut(&mut Client, Result<Answer, Error>)>;

impl Client {
    /// Begins to connect according to the options. The promise ends with [`Answer::Connected`] or
    /// the error.
    ///
    /// Tasks run in the turns of the client, and names are resolved there by the system, **which
    /// may block**.
    ///
    /// The client sleeps with the [`Park`], which the sockets and the waker wake. The event loop
    /// watches the descriptor instead.
    pub(super) fn connect(
        options: Options,
        sleep: (Descriptor, impl Park, Waker),
    ) -> (Self, Promise) {
        let shared = Shared::new(&options.config);
        Self::new(sleep, shared, |spawner| async move {
            Ok(connect(&LocalRuntime::new(spawner), &options).await?)
        })
    }

    /// Begins to open a connection over an existing transport; otherwise as
    /// [`connect`](Self::connect).
    pub(super) fn from_transport(
        stream: BlockingStream,
        config: Config,
        sleep: (Descriptor, impl Park, Waker),
    ) -> (Self, Promise) {
        let shared = Shared::new(&config);
        Self::new(sleep, shared, |spawner| async move {
            Ok(from_transport(&LocalRuntime::new(spawner), stream, config).await?)
        })
    }

    fn new<C>(
        (descriptor, park, waker): (Descriptor, impl Park, Waker),
        shared: Shared,
        connect: impl FnOnce(Spawner) -> C,
    ) -> (Self, Promise)
    where
        C: Future<Output = Result<Connection, Error>> + 'static,
    {
        let tasks = Tasks::new(waker);
        let connecting = connect(tasks.spawner());
        let mut client = Self {
            descriptor,
            executor: StepExecutor::new(park),
            tasks,
            shared: Rc::new(shared),
            results: Rc::default(),
            callbacks: BTreeMap::new(),
            stopped: false,
            seen: 0,
        };
        let connected = client.begin(|shared| async move {
            shared.connection.set(shared.connect(connecting).await);
            shared.connection.get().await?;
            Ok(Answer::Connected)
        });
        (client, connected)
    }

    // Promises.

    pub(super) fn begin<F>(&mut self, work: impl FnOnce(Rc<Shared>) -> F) -> Promise
    where
        F: Future<Output = Result<Answer, Error>> + 'static,
    {
        let promise = Promise::next();
        self.begin_as(promise, None, work);
        promise
    }

    pub(super) fn begin_as<F>(
        &mut self,
        promise: Promise,
        group: Option<Rc<ConsumerGroup>>,
        work: impl FnOnce(Rc<Shared>) -> F,
    ) where
        F: Future<Output = Result<Answer, Error>> + 'static,
    {
        self.results.borrow_mut().register(promise, group);
        let sender = self.sender(promise);
        let work = work(Rc::clone(&self.shared));
        let task = async move { sender.send(work.await) };
        self.tasks.insert(promise.0, task);
    }

    pub(super) fn sender(&self, promise: Promise) -> ResultSender {
        let results = Rc::clone(&self.results);
        ResultSender { promise, results }
    }

    pub(super) fn run_tasks(&mut self) {
        let tasks = &mut self.tasks;
        self.executor.enter(|| tasks.run());
    }

    pub(super) fn check_open(&self) -> Result<(), Error> {
        if let Some(connected) = self.shared.connection.peek() {
            connected?.check_open()?;
        }
        match self.shared.closing.peek() {
            Some(()) => Err(Error::Closing),
            None => Ok(()),
        }
    }

    // The event loop.

    /// Whether work is ready: commands to execute and output to write. If `true`, call
    /// [`on_writable`](Self::on_writable) before the loop sleeps.
    #[must_use]
    pub fn needs_write(&self) -> bool {
        self.tasks.is_ready()
    }

    /// The time until [`on_readable`](Self::on_readable) must be called. `Some` if a deadline is
    /// set or work is ready. It may change with any call. It is zero also if untaken results have
    /// arrived after the last `on_readable`, for instance those of a command that fails without the
    /// server. After the close it is `Some` for a second at most, until the end of the server's
    /// stream.
    #[must_use]
    pub fn next_timeout(&self) -> Option<Duration> {
        if self.needs_write() || self.results.borrow().has_untaken_after(self.seen) {
            return Some(Duration::ZERO);
        }
        let alarm = self.executor.next_alarm();
        let alarm = alarm.filter(|_| !self.tasks.is_empty());
        Some(alarm?.saturating_duration_since(Instant::now()))
    }

    /// Executes commands and writes output, as far as the socket accepts it. Does nothing if no
    /// work is ready.
    pub fn on_writable(&mut self) {
        self.run_tasks();
    }

    /// Reads and processes input, writes output that the socket did not accept before, and handles
    /// due deadlines. Does nothing if there is none of these.
    pub fn on_readable(&mut self) {
        self.turn(Some(Instant::now()));
        self.seen = self.results.borrow().last();
    }

    /// Sleeps until work is ready or `until`, then runs the ready tasks. `None` sleeps without a
    /// limit.
    fn turn(&mut self, until: Option<Instant>) {
        let now = self.needs_write().then(Instant::now);
        self.executor.sleep(now.or(until));
        self.run_tasks();
    }

    /// The connection, for the negotiated parameters, the server's properties and certificates.
    /// `Some` once it has been opened. It makes progress only in the turns of the client.
    #[must_use]
    pub fn connection(&self) -> Option<Connection> {
        self.shared.connection.peek()?.ok()
    }

    /// The reason. `Some` once the connection has ended or could not be opened.
    #[must_use]
    pub fn closed(&self) -> Option<Error> {
        match self.shared.connection.peek()? {
            Ok(connection) => {
                let reason = connection.close_reason()?;
                Some(amqp_driver::Error::ConnectionClosed(reason).into())
            }
            Err(error) => Some(error),
        }
    }

    // Results.

    /// Takes the oldest result of all promises. `Some` if one has arrived.
    pub fn poll(&mut self) -> Option<(Promise, Result<Answer, Error>)> {
        let popped = self.results.borrow_mut().pop();
        if let Some((promise, result)) = &popped {
            self.drop_callback_if_final(*promise, result);
        }
        popped
    }

    /// Takes the oldest result of one promise. `Some` if one has arrived.
    pub fn take(&mut self, promise: Promise) -> Option<Result<Answer, Error>> {
        let taken = self.results.borrow_mut().take(promise);
        if let Some(result) = &taken {
            self.drop_callback_if_final(promise, result);
        }
        taken
    }

    fn drop_callback_if_final(&mut self, promise: Promise, result: &Result<Answer, Error>) {
        if is_final(result) {
            self.callbacks.remove(&promise);
        }
    }

    /// **Blocks** until the next result of a promise arrives. Returns `None` after the timeout.
    /// Earlier commands have been written when it returns, as far as the socket accepts them. No
    /// callback runs.
    ///
    /// # Errors
    /// The error that ends the promise; [`Error::NoSuchPromise`] if the promise has ended.
    pub fn wait(
        &mut self,
        promise: Promise,
        timeout: Option<Duration>,
    ) -> Result<Option<Answer>, Error> {
        let result = self.wait_any(&[promise], timeout)?;
        result.map(|(_, result)| result).transpose()
    }

    /// **Blocks** until the next result of one of several promises arrives, as [`wait`](Self::wait)
    /// does. Promises that have ended are skipped. Without any promise it drives the connection
    /// until the timeout or the end of the connection, and returns at once if there is no timeout.
    ///
    /// # Errors
    /// [`Error::NoSuchPromise`] if all have ended.
    #[expect(
        clippy::type_complexity,
        reason = "it is what `poll` gives, or cannot be had"
    )]
    pub fn wait_any(
        &mut self,
        promises: &[Promise],
        timeout: Option<Duration>,
    ) -> Result<Option<(Promise, Result<Answer, Error>)>, Error> {
        let until = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
        self.run_tasks();
        let mut late = false;
        loop {
            let taken = |&promise| Some((promise, self.take(promise)?));
            let found = promises.iter().find_map(taken);
            if found.is_some() || late {
                return Ok(found);
            }
            let results = self.results.borrow();
            let ended = !promises.iter().any(|it| results.is_outstanding(*it));
            drop(results);
            match promises.first() {
                Some(first) if ended => return Err(Error::NoSuchPromise(*first)),
                None if until.is_none() || self.closed().is_some() => return Ok(None),
                _ => {}
            }
            // A turn is made even after the deadline: input that has already arrived counts.
            late = until.is_some_and(|until| Instant::now() >= until);
            self.turn(until);
        }
    }

    /// Writes all queued output. Stops at the time `until`, and if the server has blocked the
    /// connection, or it is lost.
    fn flush(&mut self, until: Option<Instant>) {
        let Some(connection) = self.connection() else {
            return;
        };
        let mut flushing = pin!(connection.flush());
        // The turns below make the progress, so no waker is needed. A server under a memory alarm
        // does not read (https://www.rabbitmq.com/docs/alarms).
        let mut cx = Context::from_waker(Waker::noop());
        let stops = |state| {
            use ConnectionState::{Blocked, Recovering};
            matches!(state, Blocked { .. } | Recovering)
        };
        while flushing.as_mut().poll(&mut cx).is_pending()
            && !stops(connection.state())
            && until.is_none_or(|until| Instant::now() < until)
        {
            self.turn(until);
        }
    }

    // Callbacks.

    /// Registers a callback for each result of a promise, called within
    /// [`run_callbacks`](Self::run_callbacks) or [`run`](Self::run). The callback may use the
    /// client freely. It replaces an earlier one, and is dropped after the final result, also if
    /// that is taken otherwise. A callback that panics is not called again.
    ///
    /// # Errors
    /// [`Error::NoSuchPromise`] if no more results follow.
    pub fn on(
        &mut self,
        promise: Promise,
        callback: impl FnMut(&mut Self, Result<Answer, Error>) + 'static,
    ) -> Result<(), Error> {
        if !self.results.borrow_mut().set_callback(promise) {
            return Err(Error::NoSuchPromise(promise));
        }
        self.callbacks.insert(promise, Some(Box::new(callback)));
        Ok(())
    }

    /// Calls the callbacks of the results that have arrived so far, in order. Returns `false` if
    /// there were none. A running callback that calls this is not called recursively.
    pub fn run_callbacks(&mut self) -> bool {
        let (mut from, to) = (0, self.results.borrow().last());
        let mut any = false;
        loop {
            let due = self.results.borrow().next_due(from, to);
            let Some((number, promise)) = due else {
                if any && self.results.borrow().is_due() {
                    self.seen = 0;
                }
                return any;
            };
            from = number + 1;
            let Some(mut callback) = self.callbacks.get_mut(&promise).and_then(Option::take) else {
                continue;
            };
            // A result that arrived earlier, under the same promise, may come first.
            let taken = self.results.borrow_mut().take(promise);
            let Some(result) = taken else { continue };
            any = true;
            callback(self, result);
            let more = self.results.borrow().is_outstanding(promise);
            match self.callbacks.get_mut(&promise) {
                Some(slot @ None) if more => *slot = Some(callback),
                Some(None) => drop(self.callbacks.remove(&promise)),
                // It was replaced, or its promise is ignored or has ended.
                Some(Some(_)) | None => {}
            }
        }
    }

    /// **Blocks**, and calls callbacks, until one of them calls [`stop`](Self::stop) or the
    /// connection has ended. All queued output has been written when it returns, unless the server
    /// has [blocked the connection](https://www.rabbitmq.com/docs/alarms) and does not
    /// read, or the connection is lost. A nested `run`, in a callback, has a stop of its own.
    ///
    /// # Errors
    /// The reason, if the connection could not be opened, or has ended otherwise than by
    /// [`close`](Self::close).
    pub fn run(&mut self) -> Result<(), Error> {
        self.run_until(None)
    }

    /// As [`run`](Self::run), and returns after `limit` at the latest. Results that have arrived by
    /// then have been passed to their callbacks; output may be left to write.
    ///
    /// # Errors
    /// As [`run`](Self::run).
    pub fn run_for(&mut self, limit: Duration) -> Result<(), Error> {
        self.run_until(Instant::now().checked_add(limit))
    }

    fn run_until(&mut self, until: Option<Instant>) -> Result<(), Error> {
        let outer = mem::take(&mut self.stopped);
        let ended = self.run_until_stopped(until);
        self.stopped = outer;
        ended
    }

    fn run_until_stopped(&mut self, until: Option<Instant>) -> Result<(), Error> {
        let mut late = false;
        loop {
            self.run_tasks();
            let called = self.run_callbacks();
            if mem::take(&mut self.stopped) {
                self.run_tasks();
                self.flush(until);
                return Ok(());
            }
            if late {
                return Ok(());
            }
            // A turn is made even after the deadline: input that has already arrived counts.
            late = until.is_some_and(|until| Instant::now() >= until);
            match self.closed() {
                _ if called => {}
                None => self.turn(until),
                Some(_) if self.needs_write() => {}
                Some(error) if error.is_clean() => return Ok(()),
                Some(error) => return Err(error),
            }
        }
    }

    /// Ends the [`run`](Self::run) or [`run_for`](Self::run_for) that calls this callback, after the other callbacks of the same
    /// turn.
    pub const fn stop(&mut self) {
        self.stopped = true;
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client")
            .field("promises", &self.results.borrow().len())
            .field("closed", &self.closed())
            .finish_non_exhaustive()
    }
}

/// The descriptor that an event loop watches for input, in place of the sockets of a [`Client`].
#[derive(Debug)]
pub(super) struct Descriptor(Arc<Registry>);

impl Descriptor {
    pub(super) const fn new(registry: Arc<Registry>) -> Self {
        Self(registry)
    }
}

#[cfg(unix)]
mod unix {
    use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};

    use super::Client;

    impl AsFd for Client {
        fn as_fd(&self) -> BorrowedFd<'_> {
            self.descriptor.0.as_fd()
        }
    }

    impl AsRawFd for Client {
        fn as_raw_fd(&self) -> RawFd {
            self.as_fd().as_raw_fd()
        }
    }
}
