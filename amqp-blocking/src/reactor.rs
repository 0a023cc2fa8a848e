//! Where a thread waits for sockets.

use std::{
    io,
    sync::Arc,
    task::{Wake, Waker},
    thread,
    time::Duration,
};

use amqp_client::blocking::{Park, with_park};
use mio::{Events, Interest, Registry, Token, event::Source};

/// What wakes the thread, and what it waits for. Whatever it is, there is only one future to poll.
const WAKE: Token = Token(0);
const SOCKET: Token = Token(1);

/// How many events are taken at a time: a few sockets at most are waited for.
const EVENTS: usize = 8;

/// How long to wait when the system refuses to.
const RETRY: Duration = Duration::from_millis(10);

/// Registers a socket with what runs on this thread, if it is not yet, and remembers `with` what. A
/// future may go to another thread between two polls; its sockets follow.
pub(crate) fn register(
    source: &mut impl Source,
    with: &mut Option<Arc<Registry>>,
) -> io::Result<()> {
    with_park(Reactor::new, |reactor: &mut Reactor| {
        let registry = &reactor.registry;
        if with.as_ref().is_some_and(|it| Arc::ptr_eq(it, registry)) {
            return Ok(());
        }
        if let Some(former) = with.take() {
            source.deregister(&former)?;
        }
        registry.register(source, SOCKET, Interest::READABLE | Interest::WRITABLE)?;
        *with = Some(Arc::clone(registry));
        Ok(())
    })
}

/// What parks the thread.
pub(crate) struct Reactor {
    poll: mio::Poll,
    pub(crate) registry: Arc<Registry>,
    events: Events,
}

impl Reactor {
    /// It, and what wakes the thread.
    pub(crate) fn new() -> io::Result<(Self, Waker)> {
        let poll = mio::Poll::new()?;
        let registry = Arc::new(poll.registry().try_clone()?);
        let notifier = Notifier(mio::Waker::new(&registry, WAKE)?);
        let events = Events::with_capacity(EVENTS);
        let reactor = Self {
            poll,
            registry,
            events,
        };
        Ok((reactor, Arc::new(notifier).into()))
    }
}

impl Park for Reactor {
    fn park(&mut self, limit: Option<Duration>) {
        match self.poll.poll(&mut self.events, limit) {
            Err(error) if error.kind() != io::ErrorKind::Interrupted => thread::sleep(RETRY),
            _ => {}
        }
    }
}

struct Notifier(mio::Waker);

impl Wake for Notifier {
    fn wake(self: Arc<Self>) {
        // It fails only for a thread that does not wait any more.
        let _gone = self.0.wake();
    }
}
