//! Waiting for sockets.

use std::{
    io,
    sync::Arc,
    task::{Context, Poll, Wake, Waker},
    thread,
    time::Duration,
};

use mio::{Events, Interest, Registry, Token, event::Source};

use crate::executor::{Park, wake_after_park, with_park};

/// The tokens of the waker and of all sockets. They are not distinguished further: after any event
/// the same future is polled.
const WAKE: Token = Token(0);
const SOCKET: Token = Token(1);

/// A socket that wakes the thread that polls it.
pub(crate) struct Evented<S> {
    pub(crate) socket: S,
    /// The registry that the socket is registered with. `Some` after the first poll.
    registry: Option<Arc<Registry>>,
}

impl<S: Source> Evented<S> {
    pub(crate) const fn new(socket: S) -> Self {
        let registry = None;
        Self { socket, registry }
    }

    /// Calls `act`, a non-blocking operation on the socket. If it would block, registers the waker
    /// and returns [`Poll::Pending`].
    ///
    /// The waker that wakes nothing is not registered, nor is the socket: such a poll may be on any
    /// thread, and leaves the socket to the thread that waits for it.
    pub(crate) fn poll_io<T>(
        &mut self,
        cx: &Context<'_>,
        mut act: impl FnMut(&mut S) -> io::Result<T>,
    ) -> Poll<io::Result<T>> {
        let waits = !cx.waker().will_wake(Waker::noop());
        if waits {
            self.register()?;
        }
        loop {
            match act(&mut self.socket) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    if waits {
                        wake_after_park(cx.waker());
                    }
                    return Poll::Pending;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                done => return Poll::Ready(done),
            }
        }
    }

    /// Registers the socket with the executor on this thread, unless it already is. A future may
    /// move to another thread between two polls; its sockets follow.
    fn register(&mut self) -> io::Result<()> {
        with_park(Reactor::new, |Reactor { registry, .. }| {
            match &self.registry {
                Some(same) if Arc::ptr_eq(same, registry) => return Ok(()),
                Some(former) => self.socket.deregister(former)?,
                None => {}
            }
            let interests = Interest::READABLE | Interest::WRITABLE;
            registry.register(&mut self.socket, SOCKET, interests)?;
            self.registry = Some(Arc::clone(registry));
            Ok(())
        })
    }
}

/// Parks the thread until a socket is ready or the waker is woken.
pub(crate) struct Reactor {
    poll: mio::Poll,
    pub(crate) registry: Arc<Registry>,
    events: Events,
}

impl Reactor {
    /// Creates a reactor and the waker that unparks its thread.
    pub(crate) fn new() -> io::Result<(Self, Waker)> {
        let poll = mio::Poll::new()?;
        let registry = Arc::new(poll.registry().try_clone()?);
        let notifier = Arc::new(Notifier(mio::Waker::new(&registry, WAKE)?));
        let reactor = Self {
            poll,
            registry,
            events: Events::with_capacity(8), // a few sockets at most
        };
        Ok((reactor, notifier.into()))
    }
}

impl Park for Reactor {
    fn park(&mut self, limit: Option<Duration>) {
        let polled = self.poll.poll(&mut self.events, limit);
        if polled.is_err_and(|error| error.kind() != io::ErrorKind::Interrupted) {
            thread::sleep(Duration::from_millis(10)); // polling failed: avoid a busy loop
        }
    }
}

struct Notifier(mio::Waker);

impl Wake for Notifier {
    fn wake(self: Arc<Self>) {
        // Fails only after the thread has stopped waiting.
        let _gone = self.0.wake();
    }
}
