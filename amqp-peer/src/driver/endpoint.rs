//! The driver's end of a link, and of a client of the broker.

use std::{
    fmt,
    future::Future,
    mem,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll, Waker},
};

use amqp_core::{Endpoint, Instant, TimeoutReason, Transmit};
use amqp_driver::io::{DrivenEndpoint, Driver, Timer, Transport, poll_locked};
use amqp_embedded::BrokerEndpoint;
use bytes::{Bytes, BytesMut};

use super::{listener::ListenerId, runner::Run, shared::Shared, state::State};
use crate::{event::LinkKey, machine::Client};

/// The number of bytes that a driver moves before it yields to other links.
const BYTES_PER_POLL: usize = 256 << 10;

/// The certificates of a peer, from the end of the TLS handshake until the first input.
pub(super) type Certificates = Arc<Mutex<Option<Vec<Bytes>>>>;

/// The driver's end of a transport: a link of the machine, or a client of the broker.
pub(super) struct PeerEndpoint {
    shared: Arc<Shared>,
    runner: Arc<dyn Run>,
    link: LinkKey,
    /// `Some` for an accepted transport.
    listener: Option<ListenerId>,
    /// `Some` until they were passed on, for an accepted transport with TLS.
    certificates: Option<Certificates>,
    side: Side,
}

enum Side {
    Link,
    Client(Box<BrokerEndpoint>),
    /// The broker has refused the client.
    Refused,
}

impl PeerEndpoint {
    /// The end of a link for which [`State::add_link`] was called.
    pub(super) fn new(
        shared: &Arc<Shared>,
        runner: Arc<dyn Run>,
        link: LinkKey,
        listener: Option<ListenerId>,
        certificates: Option<Certificates>,
    ) -> Self {
        Self {
            shared: Arc::clone(shared),
            runner,
            link,
            listener,
            certificates,
            side: Side::Link,
        }
    }

    /// Hands a plain client to the broker.
    fn adopt(&self, client: Client) -> Side {
        match self.runner.adopt(client) {
            Ok(adopted) => {
                self.shared.trace.client(self.link);
                Side::Client(Box::new(adopted))
            }
            Err(error) => {
                self.shared.with(|state| {
                    if let Some(listener) = self.listener {
                        state.report_not_accepted(listener, error.into());
                    }
                });
                Side::Refused
            }
        }
    }

    /// Runs `act` with the machine, after the decisions on received messages were passed on.
    fn with<T>(&self, now: Instant, act: impl FnOnce(&mut State) -> T) -> T {
        self.shared.with(|state| {
            state.advance(now);
            act(state)
        })
    }

    fn take_certificates(&mut self) -> Option<Vec<Bytes>> {
        let certificates = self.certificates.take()?;
        let mut shown = certificates.lock().unwrap_or_else(PoisonError::into_inner);
        shown.take()
    }

    /// Removes the link or the client, when its transport is closed.
    fn remove(&self) {
        match &self.side {
            Side::Link => self.shared.with(|state| state.remove_link(self.link)),
            Side::Client(client) => client.remove(),
            Side::Refused => {}
        }
    }
}

impl Endpoint for PeerEndpoint {
    fn handle_input(&mut self, now: Instant, input: &mut BytesMut) {
        if let Side::Link = self.side {
            let certificates = self.take_certificates();
            let link = self.link;
            let client = self.with(now, |state| {
                if let Some(certificates) = certificates {
                    state.machine.handle_certificates(link, certificates);
                }
                state.machine.handle_input(link, state.now, input);
                let client = state.machine.take_client(link)?;
                let slot = state.links.remove(&link);
                state.after.wakes.extend(slot.and_then(|slot| slot.driver));
                Some(client)
            });
            let Some(client) = client else {
                return;
            };
            self.side = self.adopt(client);
        }
        match &mut self.side {
            Side::Client(client) if !input.is_empty() => client.handle_input(now, input),
            Side::Refused => input.clear(),
            _ => {}
        }
    }

    fn handle_eof(&mut self, now: Instant) {
        match &mut self.side {
            Side::Link => self.with(now, |state| state.machine.handle_eof(self.link, state.now)),
            Side::Client(client) => client.handle_eof(now),
            Side::Refused => {}
        }
    }

    fn handle_reset(&mut self, now: Instant, message: &str) {
        match &mut self.side {
            Side::Link => self.with(now, |state| {
                state.machine.handle_reset(self.link, state.now, message);
            }),
            Side::Client(client) => client.handle_reset(now, message),
            Side::Refused => {}
        }
    }

    fn handle_transport_error(&mut self, now: Instant, message: &str) {
        match &mut self.side {
            Side::Link => self.with(now, |state| {
                let (link, now) = (self.link, state.now);
                state.machine.handle_transport_error(link, now, message);
            }),
            Side::Client(client) => client.handle_transport_error(now, message),
            Side::Refused => {}
        }
    }

    fn handle_timeout(&mut self, now: Instant) {
        match &mut self.side {
            Side::Link => self.with(now, |state| {
                state.machine.handle_link_timeout(self.link, state.now);
            }),
            Side::Client(client) => client.handle_timeout(now),
            Side::Refused => {}
        }
    }

    fn handle_written(&mut self, now: Instant) {
        match &mut self.side {
            Side::Link => self.with(now, |state| {
                state.machine.handle_written(self.link, state.now);
            }),
            Side::Client(client) => client.handle_written(now),
            Side::Refused => {}
        }
    }

    fn poll_transmit(&mut self, now: Instant, out: &mut Transmit) -> bool {
        match &mut self.side {
            Side::Link => {
                let settled = self.shared.take_settled(None);
                self.with(now, |state| {
                    state.apply(settled);
                    state.sent_in_turn = 0;
                    if let Some(slot) = state.links.get_mut(&self.link) {
                        slot.is_dirty = false;
                    }
                    state.machine.poll_transmit(self.link, state.now, out)
                })
            }
            Side::Client(client) => client.poll_transmit(now, out),
            Side::Refused => false,
        }
    }

    fn poll_timeout(&self) -> Option<(Instant, TimeoutReason)> {
        match &self.side {
            Side::Link => self.shared.lock().machine.poll_link_timeout(self.link),
            Side::Client(client) => client.poll_timeout(),
            Side::Refused => None,
        }
    }

    fn read_hint(&self) -> usize {
        match &self.side {
            Side::Link => self.shared.lock().machine.read_hint(self.link),
            Side::Client(client) => client.read_hint(),
            Side::Refused => 0,
        }
    }

    fn frame_hint(&self) -> usize {
        match &self.side {
            Side::Link => self.shared.lock().machine.frame_hint(self.link),
            Side::Client(client) => client.frame_hint(),
            Side::Refused => 0,
        }
    }

    fn is_finished(&self) -> bool {
        match &self.side {
            Side::Link => self.shared.lock().machine.is_finished(self.link),
            Side::Client(client) => client.is_finished(),
            Side::Refused => true,
        }
    }
}

impl DrivenEndpoint for PeerEndpoint {
    const BYTES_PER_POLL: usize = BYTES_PER_POLL;

    fn wants_input(&mut self, now: Instant) -> bool {
        match &mut self.side {
            Side::Link => {
                let mut state = self.shared.lock();
                let wants = state.machine.wants_input(self.link, now);
                if let Some(slot) = state.links.get_mut(&self.link) {
                    slot.is_reading = wants;
                }
                wants
            }
            Side::Client(client) => client.wants_input(now),
            Side::Refused => false,
        }
    }

    fn read_limit(&mut self, now: Instant) -> usize {
        match &self.side {
            Side::Link => self.shared.lock().machine.read_budget(self.link, now),
            Side::Client(_) | Side::Refused => usize::MAX,
        }
    }

    fn register_waker(&mut self, waker: &Waker, output: bool, alarm: Option<Instant>) -> bool {
        match &mut self.side {
            Side::Link => {
                let waker = waker.clone();
                let mut state = self.shared.lock();
                let now = state.now;
                let due = state.machine.poll_link_timeout(self.link);
                let wants = state.machine.wants_input(self.link, now);
                let is_finished = state.machine.is_finished(self.link);
                let Some(slot) = state.links.get_mut(&self.link) else {
                    return false;
                };
                let is_readable = wants && !slot.is_reading;
                let is_writable = output && slot.is_dirty;
                let is_earlier = due.is_some_and(|(due, _)| alarm.is_none_or(|alarm| due < alarm));
                if is_readable || is_writable || is_earlier || is_finished {
                    return false;
                }
                let replaced = slot.driver.replace(waker);
                drop(state);
                drop(replaced);
                true
            }
            Side::Client(client) => client.register_waker(waker, output, alarm),
            Side::Refused => false,
        }
    }

    fn flush_on_close(&self) -> bool {
        match &self.side {
            Side::Link => self.shared.lock().machine.flush_on_close(self.link),
            Side::Client(client) => client.flush_on_close(),
            Side::Refused => false,
        }
    }

    fn abandon(&mut self) {
        match mem::replace(&mut self.side, Side::Refused) {
            Side::Link => self.shared.with(|state| state.remove_link(self.link)),
            Side::Client(mut client) => client.abandon(),
            Side::Refused => {}
        }
    }
}

impl fmt::Debug for PeerEndpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PeerEndpoint")
            .field("link", &self.link)
            .finish_non_exhaustive()
    }
}

/// Moves the bytes of a link, or of a client of the broker, until it ends or is aborted.
pub(super) struct LinkDriver<T: Transport, C: Timer> {
    shared: Arc<Shared>,
    link: LinkKey,
    /// `None` after an abort.
    driver: Option<Driver<PeerEndpoint, T, C>>,
    is_removed: bool,
}

impl<T: Transport, C: Timer> LinkDriver<T, C> {
    pub(super) fn new(endpoint: PeerEndpoint, transport: T, clock: C) -> Self {
        Self {
            shared: Arc::clone(&endpoint.shared),
            link: endpoint.link,
            driver: Some(Driver::new(endpoint, transport, clock)),
            is_removed: false,
        }
    }
}

impl<T: Transport + Unpin, C: Timer + Unpin> Future for LinkDriver<T, C> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = &mut *self;
        let link = this.link;
        let aborted = poll_locked(
            this.shared.mutex(),
            cx.waker(),
            |state| match state.tasks.get(&link) {
                Some(task) => task.is_aborted.then_some(()),
                None => Some(()),
            },
            |state| &mut state.tasks.entry(link).or_default().waker,
        );
        if aborted.is_ready() {
            this.driver = None;
        }
        let Some(driver) = &mut this.driver else {
            return Poll::Ready(());
        };
        let ended = Pin::new(&mut *driver).poll(cx);
        if !this.is_removed && (ended.is_ready() || driver.is_closed()) {
            this.is_removed = true;
            driver.endpoint().remove();
        }
        ended
    }
}

impl<T: Transport, C: Timer> Drop for LinkDriver<T, C> {
    fn drop(&mut self) {
        self.driver = None;
        let task = self.shared.with(|state| {
            state.end_task();
            state.tasks.remove(&self.link)
        });
        drop(task);
    }
}
