//! The face to a loop: the one of the program, or a small one in here.

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

use amqp_driver::{Config, Connection, Options, connect, from_transport};
use mio::Registry;

use super::{
    Answer, Error, Promise,
    consuming::Consuming,
    link::Link,
    local_runtime::LocalRuntime,
    results::{Outbox, Results, is_final},
    tasks::{Spawner, Tasks},
};
use crate::{
    executor::{Park, StepExecutor},
    stream::BlockingStream,
};

/// A connection for an event loop of one's own. See the [module](super).
///
/// It stays on the thread that it was made on. Dropping it cuts the connection: what has not been
/// written is lost, and unacknowledged messages go back to their queues. [`close`](Self::close) and
/// wait to end in good order.
pub struct Client {
    descriptor: Descriptor,
    executor: StepExecutor,
    tasks: Tasks,
    pub(super) link: Rc<Link>,
    pub(super) results: Rc<RefCell<Results>>,
    /// None while it runs.
    pub(super) callbacks: BTreeMap<Promise, Option<Callback>>,
    stopped: bool,
    /// The last result that had come when the loop was last to look for some.
    seen: u64,
}

type Callback = Box<dyn FnMut(&mut Client, Result<Answer, Error>)>;

impl Client {
    /// Begins to connect as the options say. The promise is that of the connection:
    /// [`Answer::Connected`], or the reason why not. Adapters call this in their `connect`.
    ///
    /// Of the runtime it takes the sockets and the clock: tasks run in the turns of the client, and
    /// names are resolved there by the system, **which may block**.
    ///
    /// The sockets wake what the client sleeps with, which is the [`Park`], and so does the waker. The
    /// descriptor is what a loop watches in place of that.
    pub(super) fn connect(
        options: Options,
        sleep: (Descriptor, impl Park, Waker),
    ) -> (Self, Promise) {
        let link = Link::new(&options.config);
        Self::new(sleep, link, |spawner| async move {
            Ok(connect(&LocalRuntime::new(spawner), &options).await?)
        })
    }

    /// Begins to open a connection over a transport that was made elsewhere; otherwise as
    /// [`connect`](Self::connect).
    pub(super) fn from_transport(
        stream: BlockingStream,
        config: Config,
        sleep: (Descriptor, impl Park, Waker),
    ) -> (Self, Promise) {
        let link = Link::new(&config);
        Self::new(sleep, link, |spawner| async move {
            Ok(from_transport(&LocalRuntime::new(spawner), stream, config).await?)
        })
    }

    fn new<C>(
        (descriptor, park, waker): (Descriptor, impl Park, Waker),
        link: Link,
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
            link: Rc::new(link),
            results: Rc::default(),
            callbacks: BTreeMap::new(),
            stopped: false,
            seen: 0,
        };
        let connected = client.begin(|link| async move {
            link.connection.set(connecting.await);
            link.connection.get().await?;
            Ok(Answer::Connected)
        });
        (client, connected)
    }

    // What was begun.

    pub(super) fn begin<F>(&mut self, work: impl FnOnce(Rc<Link>) -> F) -> Promise
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
        consuming: Option<Rc<Consuming>>,
        work: impl FnOnce(Rc<Link>) -> F,
    ) where
        F: Future<Output = Result<Answer, Error>> + 'static,
    {
        self.results.borrow_mut().expect(promise, consuming);
        let outbox = self.outbox(promise);
        let work = work(Rc::clone(&self.link));
        let task = async move { outbox.tell(work.await) };
        self.tasks.insert(promise.0, task);
    }

    pub(super) fn outbox(&self, promise: Promise) -> Outbox {
        let results = Rc::clone(&self.results);
        Outbox { promise, results }
    }

    pub(super) fn run_tasks(&mut self) {
        let tasks = &mut self.tasks;
        self.executor.enter(|| tasks.run());
    }

    pub(super) fn check_open(&self) -> Result<(), Error> {
        if let Some(connected) = self.link.connection.peek() {
            connected?.check_open()?;
        }
        match self.link.closing.peek() {
            Some(()) => Err(Error::Closing),
            None => Ok(()),
        }
    }

    // What a loop needs to know, and does.

    /// Whether something was begun that is not on its way yet. Call [`on_writable`](Self::on_writable)
    /// then, before the loop sleeps.
    #[must_use]
    pub fn needs_write(&self) -> bool {
        self.tasks.is_ready()
    }

    /// When to call [`on_readable`](Self::on_readable) at the latest, from now; none for never. It may
    /// change with any call. It is zero also when results have come since the loop was last to look
    /// for some: such as those that a command has without the server.
    #[must_use]
    pub fn next_timeout(&self) -> Option<Duration> {
        if self.needs_write() || self.results.borrow().came_after(self.seen) {
            return Some(Duration::ZERO);
        }
        let alarm = self.executor.next_alarm();
        let alarm = alarm.filter(|_| !self.tasks.is_empty());
        Some(alarm?.saturating_duration_since(Instant::now()))
    }

    /// Writes what was begun, as far as the socket takes it. For no reason it does nothing.
    pub fn on_writable(&mut self) {
        self.run_tasks();
    }

    /// Reads what is there and takes it in, writes what could not be written before, and does what is
    /// due. For no reason it does nothing.
    pub fn on_readable(&mut self) {
        self.turn(Some(Instant::now()));
        self.seen = self.results.borrow().last();
    }

    /// Sleeps until something can be done, or until then, and does it.
    fn turn(&mut self, until: Option<Instant>) {
        let now = self.needs_write().then(Instant::now);
        self.executor.sleep(now.or(until));
        self.run_tasks();
    }

    /// The connection, when it is open: what was negotiated, the server's properties and
    /// certificates. It does nothing but in the turns of the client.
    #[must_use]
    pub fn connection(&self) -> Option<Connection> {
        self.link.connection.peek()?.ok()
    }

    /// Why the connection has ended, or could not be made; none while it has not.
    #[must_use]
    pub fn closed(&self) -> Option<Error> {
        match self.link.connection.peek()? {
            Ok(connection) => {
                let reason = connection.close_reason()?;
                Some(amqp_driver::Error::ConnectionClosed(reason).into())
            }
            Err(error) => Some(error),
        }
    }

    // Results.

    /// The next result that has come, of whatever promise.
    pub fn poll(&mut self) -> Option<(Promise, Result<Answer, Error>)> {
        let popped = self.results.borrow_mut().pop();
        if let Some((promise, result)) = &popped {
            self.forget_if_over(*promise, result);
        }
        popped
    }

    /// The next result of a promise that has come.
    pub fn take(&mut self, promise: Promise) -> Option<Result<Answer, Error>> {
        let taken = self.results.borrow_mut().take(promise);
        if let Some(result) = &taken {
            self.forget_if_over(promise, result);
        }
        taken
    }

    fn forget_if_over(&mut self, promise: Promise, result: &Result<Answer, Error>) {
        if is_final(result) {
            self.callbacks.remove(&promise);
        }
    }

    /// **Blocks** until the next result of a promise comes; none when it has not come in time. What was
    /// to be sent before is on its way when it returns, as far as the socket takes it. No callback
    /// runs.
    ///
    /// # Errors
    /// What the promise ends with; [`Error::NoSuchPromise`].
    pub fn wait(
        &mut self,
        promise: Promise,
        timeout: Option<Duration>,
    ) -> Result<Option<Answer>, Error> {
        let result = self.wait_any(&[promise], timeout)?;
        result.map(|(_, result)| result).transpose()
    }

    /// **Blocks** until the next result of one of several promises comes, as [`wait`](Self::wait)
    /// does; those that are over do not count. Of none at all it waits for the time that is given,
    /// during which the connection is served.
    ///
    /// # Errors
    /// [`Error::NoSuchPromise`] when all are over.
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
            let over = !promises.iter().any(|it| results.expects(*it));
            drop(results);
            match promises.first() {
                Some(first) if over => return Err(Error::NoSuchPromise(*first)),
                None if until.is_none() || self.closed().is_some() => return Ok(None),
                _ => {}
            }
            // What is there already counts, however little time there is.
            late = until.is_some_and(|until| Instant::now() >= until);
            self.turn(until);
        }
    }

    /// Writes all that is to be sent.
    fn flush(&mut self) {
        let Some(connection) = self.connection() else {
            return;
        };
        let mut flushing = pin!(connection.flush());
        // What it waits for is done in these turns. A server that is short of memory does not read.
        let mut cx = Context::from_waker(Waker::noop());
        while flushing.as_mut().poll(&mut cx).is_pending() && !connection.is_blocked() {
            self.turn(None);
        }
    }

    // Callbacks.

    /// Calls that with each result of a promise, when the program says so with
    /// [`run_callbacks`](Self::run_callbacks) or [`run`](Self::run). It may use the client as it
    /// likes. It replaces the one that was there, and is dropped after the last result, however
    /// that is taken. One that panics is not called again.
    ///
    /// # Errors
    /// [`Error::NoSuchPromise`] when nothing more is to come.
    pub fn on(
        &mut self,
        promise: Promise,
        callback: impl FnMut(&mut Self, Result<Answer, Error>) + 'static,
    ) -> Result<(), Error> {
        if !self.results.borrow_mut().set_called(promise) {
            return Err(Error::NoSuchPromise(promise));
        }
        self.callbacks.insert(promise, Some(Box::new(callback)));
        Ok(())
    }

    /// Calls the callbacks of the results that have come so far, in order; false if there were none.
    /// A callback that is running, and calls this, is not called again.
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
            // One that was there before its callback may come first.
            let taken = self.results.borrow_mut().take(promise);
            let Some(result) = taken else { continue };
            any = true;
            callback(self, result);
            let more = self.results.borrow().expects(promise);
            match self.callbacks.get_mut(&promise) {
                Some(place @ None) if more => *place = Some(callback),
                Some(None) => drop(self.callbacks.remove(&promise)),
                // It was replaced, or is not to be called again.
                Some(Some(_)) | None => {}
            }
        }
    }

    /// **Blocks**, and calls callbacks, until one of them calls [`stop`](Self::stop) or the
    /// connection has ended. All that was to be sent has left when it returns, unless the server has
    /// blocked the connection and does not read. One that is within another, in a callback, has a
    /// stop of its own.
    ///
    /// # Errors
    /// The reason when the connection could not be made, or has ended otherwise than by
    /// [`close`](Self::close).
    pub fn run(&mut self) -> Result<(), Error> {
        let outer = mem::take(&mut self.stopped);
        let ended = self.run_until_stopped();
        self.stopped = outer;
        ended
    }

    fn run_until_stopped(&mut self) -> Result<(), Error> {
        loop {
            self.run_tasks();
            let called = self.run_callbacks();
            if mem::take(&mut self.stopped) {
                self.run_tasks();
                self.flush();
                return Ok(());
            }
            match self.closed() {
                _ if called => {}
                None => self.turn(None),
                Some(_) if self.needs_write() => {}
                Some(error) if error.is_clean() => return Ok(()),
                Some(error) => return Err(error),
            }
        }
    }

    /// Ends the [`run`](Self::run) that calls this callback, when all of its turn have been called.
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

/// The descriptor that a loop watches for input, in place of the sockets of a [`Client`].
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
