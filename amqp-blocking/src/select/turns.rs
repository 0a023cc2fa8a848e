//! The face to a loop: the one of the program, or a small one in here.

use std::{
    io, mem,
    net::{SocketAddr, TcpStream, ToSocketAddrs as _},
    time::{Duration, Instant},
};

use amqp_client::{
    Config,
    core::{
        CloseReason,
        client::Connection,
        dial::Address,
        uri::{Scheme, Uri},
    },
};
use mio::Interest;

use super::{
    Answer, Client, ConnectError, Error, Promise, channels::Task, publisher::Publisher,
    results::Results, wire::Wire,
};

impl Client {
    /// Begins to connect to the first address that an AMQP URI names: the promise is fulfilled with
    /// [`Answer::Connected`], or has the reason why not. A name is resolved here and now, **which may
    /// block**, and the first address that it has is taken.
    ///
    /// # Errors
    /// When the URI is wrong, or asks for TLS, or its host cannot be resolved; when the system gives
    /// no socket.
    pub fn connect(uri: &str) -> Result<(Self, Promise), ConnectError> {
        let uri: Uri = uri.parse()?;
        let config = Config::from_uri(&uri)?;
        if uri.scheme == Scheme::Amqps {
            return Err(ConnectError::NoTls);
        }
        let nowhere = || io::Error::other("there is no address");
        let mut addresses = uri.addresses.into_iter();
        let address = addresses.next().ok_or_else(nowhere)?;
        let resolved = match &address {
            Address::Tcp { host, port } => (host.as_str(), *port).to_socket_addrs(),
            _ => Err(io::ErrorKind::Unsupported.into()),
        };
        let resolved = resolved.and_then(|mut found| found.next().ok_or_else(nowhere));
        let resolved = resolved.map_err(|error| ConnectError::Resolve { address, error })?;
        Self::connect_to(resolved, config)
    }

    /// As [`connect`](Self::connect), without a name to resolve: it never blocks.
    ///
    /// # Errors
    /// When the configuration has a setting that no server would accept, or the system gives no
    /// socket.
    pub fn connect_to(
        address: SocketAddr,
        config: Config,
    ) -> Result<(Self, Promise), ConnectError> {
        let socket = mio::net::TcpStream::connect(address)?;
        Self::new(Wire::new(socket, true)?, config)
    }

    /// Opens a connection over a socket that is connected. It becomes non-blocking. The promise is
    /// as that of [`connect`](Self::connect).
    ///
    /// # Errors
    /// When the configuration has a setting that no server would accept, or the system will not have
    /// the socket used like this.
    pub fn from_stream(stream: TcpStream, config: Config) -> Result<(Self, Promise), ConnectError> {
        stream.set_nonblocking(true)?;
        let socket = mio::net::TcpStream::from_std(stream);
        Self::new(Wire::new(socket, false)?, config)
    }

    fn new(wire: Wire, config: Config) -> Result<(Self, Promise), ConnectError> {
        let machine = Connection::new(config, wire.now())?;
        let connect = Promise::next();
        let client = Self {
            wire,
            machine,
            connect,
            tasks: [(connect, Task::Plain)].into(),
            requests: Default::default(),
            waiting: Default::default(),
            slots: Default::default(),
            idle: Default::default(),
            publisher: Publisher::default(),
            results: Results::default(),
            ignored: Default::default(),
            callbacks: Default::default(),
            reading: true,
            stopped: false,
            closed: None,
        };
        Ok((client, connect))
    }

    // What a loop needs to know, and does.

    /// Whether to watch the socket for input. It may change with any call.
    #[must_use]
    pub fn needs_read(&self) -> bool {
        self.closed.is_none() && !self.wire.is_connecting() && !self.results.is_full()
    }

    /// Whether to watch the socket for room to write. It may change with any call.
    #[must_use]
    pub fn needs_write(&self) -> bool {
        self.wire.is_connecting() && self.closed.is_none()
            || !self.wire.output.is_empty()
            || self.machine.has_transmit()
    }

    /// When to call [`on_timeout`](Self::on_timeout) at the latest, from now; none for never. It may
    /// change with any call.
    #[must_use]
    pub fn next_timeout(&self) -> Option<Duration> {
        let (at, _) = self.machine.poll_timeout()?;
        Some(at - self.wire.now())
    }

    /// Why the connection has ended, once everybody has been told. Then nothing comes in any more, and
    /// what [`needs_write`](Self::needs_write) is a courtesy to the server.
    #[must_use]
    pub const fn closed(&self) -> Option<&CloseReason> {
        self.closed.as_ref()
    }

    /// Reads what is there, and takes it in. For no reason it does nothing.
    pub fn on_readable(&mut self) {
        self.connected();
        while self.needs_read() {
            let read = self.wire.read();
            let now = self.wire.now();
            match read {
                Ok(None) => break,
                Ok(Some(0)) => self.machine.handle_eof(now),
                Ok(Some(_)) => self.machine.handle_input(now, &mut self.wire.input),
                Err(error) => self.machine.handle_transport_error(now, &error.to_string()),
            }
            self.settle();
        }
    }

    /// Writes what the socket takes. For no reason it does nothing.
    pub fn on_writable(&mut self) {
        while self.connected()
            && (!self.wire.output.is_empty()
                || self
                    .machine
                    .poll_transmit(self.wire.now(), &mut self.wire.output))
        {
            match self.wire.write() {
                Ok(true) => {}
                Ok(false) => break,
                Err(error) => {
                    // The server may have said why.
                    self.on_readable();
                    self.fail(&error);
                }
            }
        }
        self.settle();
    }

    /// Does what is due. For no reason it does nothing.
    pub fn on_timeout(&mut self) {
        // Who comes late must not take that for the server's silence.
        self.on_readable();
        self.machine.handle_timeout(self.wire.now());
        self.settle();
    }

    /// Whether the TCP connection stands.
    fn connected(&mut self) -> bool {
        let connected = self.wire.is_connected();
        connected.unwrap_or_else(|error| {
            self.fail(&error);
            false
        })
    }

    fn fail(&mut self, error: &io::Error) {
        let now = self.wire.now();
        self.machine.handle_transport_error(now, &error.to_string());
        self.wire.output.clear();
        self.settle();
    }

    /// Tells the machine whether the server's silence means anything.
    pub(super) fn update_reading(&mut self) {
        let reading = !self.results.is_full();
        if self.reading != reading {
            self.reading = reading;
            self.machine.set_reading(self.wire.now(), reading);
        }
    }

    // Results.

    /// The next result that has come, of whatever promise.
    pub fn poll(&mut self) -> Option<(Promise, Result<Answer, Error>)> {
        let taken = self.results.pop();
        self.taken(taken)
    }

    /// The next result of a promise that has come.
    pub fn take(&mut self, promise: Promise) -> Option<Result<Answer, Error>> {
        let taken = self.results.take(promise);
        self.taken(taken)
    }

    fn taken<T>(&mut self, taken: Option<T>) -> Option<T> {
        if taken.is_some() {
            self.update_reading();
        }
        taken
    }

    /// **Blocks** until the next result of a promise comes; none when it has not come in time. All
    /// that was to be sent has left when it returns, if time allows. No callback runs.
    ///
    /// # Errors
    /// What the promise ends with; [`Error::NoSuchPromise`], and [`Error::Untaken`].
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
    /// [`Error::NoSuchPromise`] when all are over, and [`Error::Untaken`].
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
        let mut late = false;
        loop {
            let taken = |&promise| Some((promise, self.take(promise)?));
            if let Some(found) = promises.iter().find_map(taken) {
                self.flush(until);
                return Ok(Some(found));
            }
            match promises.first() {
                Some(first) if !promises.iter().any(|it| self.tasks.contains_key(it)) => {
                    return Err(Error::NoSuchPromise(*first));
                }
                None if until.is_none() || self.closed.is_some() => return Ok(None),
                _ => {}
            }
            if late {
                return Ok(None);
            }
            if self.results.is_full() {
                self.on_writable();
                return Err(Error::Untaken);
            }
            late = until.is_some_and(|until| Instant::now() >= until);
            self.turn(until);
        }
    }

    /// One turn: writes, waits, reads, does what is due.
    fn turn(&mut self, until: Option<Instant>) {
        self.on_writable();
        if self.closed.is_some() {
            return;
        }
        let limit = until.map(|until| until.saturating_duration_since(Instant::now()));
        let limit = limit.into_iter().chain(self.next_timeout()).min();
        let interest = match (self.needs_read(), self.needs_write()) {
            (true, true) => Interest::READABLE | Interest::WRITABLE,
            (true, false) => Interest::READABLE,
            (false, _) => Interest::WRITABLE,
        };
        if let Err(error) = self.wire.wait(interest, limit) {
            self.fail(&error);
        }
        self.on_timeout();
        self.on_writable();
    }

    /// Writes all that is to be sent, or what can be until then.
    fn flush(&mut self, until: Option<Instant>) {
        self.on_writable();
        while self.needs_read() && self.needs_write() {
            if until.is_some_and(|until| Instant::now() >= until) {
                return;
            }
            self.turn(until);
        }
    }

    // Callbacks.

    /// Calls that with each result of a promise, when the program says so with
    /// [`run_callbacks`](Self::run_callbacks) or [`run`](Self::run). It may use the client as it
    /// likes. It replaces the one that was there, and is dropped after the last result.
    ///
    /// # Errors
    /// [`Error::NoSuchPromise`] when nothing more is to come.
    pub fn on(
        &mut self,
        promise: Promise,
        callback: impl FnMut(&mut Self, Result<Answer, Error>) + 'static,
    ) -> Result<(), Error> {
        if !self.tasks.contains_key(&promise) && !self.results.has(promise) {
            return Err(Error::NoSuchPromise(promise));
        }
        self.callbacks.insert(promise, Some(Box::new(callback)));
        self.results.set_due(promise);
        Ok(())
    }

    /// Calls the callbacks of the results that have come so far, in order; false if there were none.
    /// A callback that is running, and calls this, is not called again.
    pub fn run_callbacks(&mut self) -> bool {
        let (mut from, before) = (0, self.results.next());
        let mut any = false;
        while let Some((number, promise)) = self.results.next_due(from, before) {
            from = number + 1;
            let Some(mut callback) = self.callbacks.get_mut(&promise).and_then(Option::take) else {
                continue;
            };
            let taken = self.results.remove(number);
            let Some((_, result)) = self.taken(taken) else {
                continue;
            };
            any = true;
            let is_final = !matches!(&result, Ok(answer) if !answer.is_final());
            callback(self, result);
            match self.callbacks.get_mut(&promise) {
                Some(place @ None) if !is_final => *place = Some(callback),
                Some(None) => drop(self.callbacks.remove(&promise)),
                // It was replaced, or is not to be called again.
                Some(Some(_)) | None => {}
            }
        }
        any
    }

    /// **Blocks**, and calls callbacks, until one of them calls [`stop`](Self::stop) or the
    /// connection has ended. All that was to be sent has left when it returns.
    ///
    /// # Errors
    /// [`Error::Call`] with the reason when the connection has ended otherwise than by
    /// [`close`](Self::close), and [`Error::Untaken`] when deliveries wait that have no callback.
    pub fn run(&mut self) -> Result<(), Error> {
        self.stopped = false;
        loop {
            let called = self.run_callbacks();
            if mem::take(&mut self.stopped) {
                self.flush(None);
                return Ok(());
            }
            if called {
                continue;
            }
            match &self.closed {
                Some(reason) if reason.is_clean() => return Ok(()),
                Some(_) => return self.check_open(),
                None if self.results.is_full() => {
                    self.on_writable();
                    return Err(Error::Untaken);
                }
                None => self.turn(None),
            }
        }
    }

    /// Ends the [`run`](Self::run) that calls this callback, when all of its turn have been called.
    pub const fn stop(&mut self) {
        self.stopped = true;
    }
}

#[cfg(unix)]
mod unix {
    use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};

    use super::Client;

    impl AsFd for Client {
        fn as_fd(&self) -> BorrowedFd<'_> {
            self.wire.socket.as_fd()
        }
    }

    impl AsRawFd for Client {
        fn as_raw_fd(&self) -> RawFd {
            self.wire.socket.as_raw_fd()
        }
    }
}

#[cfg(windows)]
mod windows {
    use std::os::windows::io::{AsRawSocket, AsSocket, BorrowedSocket, RawSocket};

    use super::Client;

    impl AsSocket for Client {
        fn as_socket(&self) -> BorrowedSocket<'_> {
            self.wire.socket.as_socket()
        }
    }

    impl AsRawSocket for Client {
        fn as_raw_socket(&self) -> RawSocket {
            self.wire.socket.as_raw_socket()
        }
    }
}
