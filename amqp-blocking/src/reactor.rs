//! Waiting for sockets.

use std::{
    io,
    sync::{Arc, Weak},
    task::{Context, Poll, Wake, Waker},
    thread,
    time::Duration,
};

use amqp_driver::io::{LentDriver, no_wakeup};
use mio::{Events, Interest, Registry, Token, event::Source};

use crate::executor::{Park, Polls, keep_lent, polls, reserve_park, wake_after_park, with_park};

/// The tokens of the waker and of all sockets. They are not distinguished further: after any event
/// the same future is polled.
const WAKE: Token = Token(0);
const SOCKET: Token = Token(1);

/// Takes a driver that is lent to this thread, to wait for its sockets until the future that runs on
/// the thread is woken.
pub(crate) fn take_lent(driver: LentDriver) {
    if reserve_park() && with_park(Reactor::new, |_: &mut Reactor| Ok(())).is_ok() {
        drop(keep_lent(driver));
    }
}

/// A socket that wakes the thread that polls it.
pub(crate) struct Evented<S> {
    pub(crate) socket: S,
    /// Where the socket is registered. `Some` after the first poll.
    registration: Option<Registration>,
    /// The registry of the task's thread. `Some` while the socket is lent with its driver.
    home: Option<Weak<Registry>>,
}

struct Registration {
    registry: Arc<Registry>,
    /// Writability is reported once a write was blocked: a socket is writable at nearly all times, and
    /// says so to each new registry.
    interests: Interest,
}

impl<S: Source> Evented<S> {
    pub(crate) const fn new(socket: S) -> Self {
        Self {
            socket,
            registration: None,
            home: None,
        }
    }

    /// Calls `act`, a non-blocking operation on the socket. If it would block, registers the waker
    /// and returns [`Poll::Pending`].
    ///
    /// A poll with [`no_wakeup`] registers nothing: it may be on any thread, and leaves the socket to
    /// the thread that waits for it.
    pub(crate) fn poll_io<T>(
        &mut self,
        cx: &Context<'_>,
        interest: Interest,
        mut act: impl FnMut(&mut S) -> io::Result<T>,
    ) -> Poll<io::Result<T>> {
        let waits = !cx.waker().will_wake(no_wakeup());
        if waits {
            self.register()?;
        }
        loop {
            match act(&mut self.socket) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    if waits {
                        self.add_interest(interest)?;
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
            let here = |it: &Registration| Arc::ptr_eq(&it.registry, registry);
            let is_here = self.registration.as_ref().is_some_and(here);
            match polls() {
                Polls::Own => self.home = None,
                Polls::Lent if !is_here && self.home.is_none() => {
                    let task = self.registration.as_ref();
                    self.home = task.map(|it| Arc::downgrade(&it.registry));
                }
                Polls::Lent => {}
                Polls::GiveBack => {
                    if let Some(home) = self.home.take() {
                        // Without it, the task's next poll takes the socket.
                        let home = home.upgrade().ok_or(io::ErrorKind::NotConnected)?;
                        return self.move_to(&home);
                    }
                    if self.registration.is_some() {
                        return Ok(()); // it has not moved
                    }
                }
            }
            if is_here {
                Ok(())
            } else {
                self.move_to(registry)
            }
        })
    }

    fn move_to(&mut self, registry: &Arc<Registry>) -> io::Result<()> {
        if let Some(Registration { registry, .. }) = self.registration.take() {
            registry.deregister(&mut self.socket)?;
        }
        let interests = Interest::READABLE;
        registry.register(&mut self.socket, SOCKET, interests)?;
        self.registration = Some(Registration {
            registry: Arc::clone(registry),
            interests,
        });
        Ok(())
    }

    /// Reports readiness for `interest` as well. If the socket is ready by now, it is reported at once.
    fn add_interest(&mut self, interest: Interest) -> io::Result<()> {
        let Some(registration) = &mut self.registration else {
            return Ok(());
        };
        let all = registration.interests | interest;
        if all != registration.interests {
            registration.interests = all;
            let registry = &registration.registry;
            registry.reregister(&mut self.socket, SOCKET, all)?;
        }
        Ok(())
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

#[cfg(test)]
mod tests {
    use std::{
        future::poll_fn,
        io::{Read as _, Result, Write as _},
        net::{TcpListener, TcpStream as StdStream},
        sync::Mutex,
    };

    use mio::net::TcpStream;

    use super::*;
    use crate::executor::{block_on, polling};

    #[test]
    fn a_write_of_another_thread_leaves_the_socket_to_the_one_that_waits() -> Result<()> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let stream = StdStream::connect(listener.local_addr()?)?;
        stream.set_nonblocking(true)?;
        let socket = Mutex::new(Evented::new(TcpStream::from_std(stream)));
        let (mut peer, _) = listener.accept()?;
        let poll = |cx: &Context<'_>, act: &mut dyn FnMut(&mut TcpStream) -> Result<usize>| {
            let mut socket = socket.lock().expect("nothing panics");
            socket.poll_io(cx, Interest::READABLE, act)
        };
        let mut byte = [0];
        thread::scope(|scope| {
            let reading = scope.spawn(|| {
                let mut read = [0];
                block_on(poll_fn(|cx| poll(cx, &mut |socket| socket.read(&mut read))))
            });
            let registered = || {
                socket
                    .lock()
                    .expect("nothing panics")
                    .registration
                    .is_some()
            };
            while !registered() && !reading.is_finished() {
                thread::sleep(Duration::from_millis(1));
            }
            // One thread has no executor, the other has one of its own.
            let write = || {
                let cx = Context::from_waker(no_wakeup());
                poll(&cx, &mut |socket| socket.write(b"x"))
            };
            assert!(matches!(write(), Poll::Ready(Ok(1))));
            let written = block_on(poll_fn(|_| Poll::Ready(write().is_ready())));
            assert!(written);
            peer.read_exact(&mut byte)?;
            peer.write_all(b"y")?;
            assert_eq!(reading.join().expect("it reads")?, 1);
            Ok(())
        })
    }

    #[test]
    fn a_socket_that_is_given_back_wakes_the_thread_that_had_it() -> Result<()> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let stream = StdStream::connect(listener.local_addr()?)?;
        stream.set_nonblocking(true)?;
        let socket = Mutex::new(Evented::new(TcpStream::from_std(stream)));
        let (mut peer, _) = listener.accept()?;
        let poll = |cx: &Context<'_>| {
            let mut socket = socket.lock().expect("nothing panics");
            socket.poll_io(cx, Interest::READABLE, |socket| socket.read(&mut [0]))
        };
        let registry = || {
            let socket = socket.lock().expect("nothing panics");
            let registration = socket.registration.as_ref();
            registration.map(|it| Arc::as_ptr(&it.registry).addr())
        };
        thread::scope(|scope| {
            let reading = scope.spawn(|| block_on(poll_fn(|cx| poll(cx))));
            while registry().is_none() && !reading.is_finished() {
                thread::sleep(Duration::from_millis(1));
            }
            let before = registry();
            let lent = block_on(poll_fn(|cx| {
                polling(Polls::Lent, || assert!(poll(cx).is_pending()));
                let lent = registry();
                polling(Polls::GiveBack, || assert!(poll(cx).is_pending()));
                Poll::Ready(lent)
            }));
            assert_ne!(lent, before);
            assert_eq!(registry(), before);
            peer.write_all(b"x")?;
            assert_eq!(reading.join().expect("it reads")?, 1);
            Ok(())
        })
    }
}
