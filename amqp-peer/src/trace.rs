//! Events and spans for `tracing`: the life of a peer, without bodies, headers and secrets.
//!
//! A subscriber is foreign code, which may use a handle of the same peer: under the lock, events are
//! only collected, as [`Notes`]. `untraced.rs` has the same interface without the feature.

use std::{
    fmt::{self, Display},
    future::Future,
    mem,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
    time::Duration,
};

use tracing::{
    Instrument as _, Level, Span, debug, debug_span, info, info_span, instrument::Instrumented,
    level_filters::LevelFilter, trace, warn,
};

use crate::{
    cause::{DownCause, SendError},
    driver::{ConnectorId, ListenAddress, ListenerId, NotAcceptedError},
    event::{Down, LinkKey, Refused, Sender, Up},
    machine::Event,
    message::{Message, MessageId},
    name::PeerName,
    rpc::CallError,
};

/// The span of a peer, the parent of all that happens on it.
///
/// The last owner drops the span, which calls the subscriber: neither may happen under the lock.
#[derive(Clone)]
pub(crate) struct Trace(Arc<Span>);

/// Whether any subscriber is interested in a level. Calls none.
fn is_on(level: Level) -> bool {
    LevelFilter::current() >= level
}

/// Whether the machine is to report each delivery.
pub(crate) fn wants_deliveries() -> bool {
    is_on(Level::TRACE)
}

impl Trace {
    pub(crate) fn new(name: &PeerName) -> Self {
        Self(Arc::new(info_span!("amqp.peer", name = name.as_str())))
    }

    /// Reports the events to the subscriber. A panic in one does not affect the others: the panic
    /// hook has reported it.
    pub(crate) fn emit(&self, notes: Notes) {
        for note in notes.0 {
            let _reported = catch_unwind(AssertUnwindSafe(|| self.0.in_scope(|| note.emit())));
        }
    }

    /// Runs a future within the span.
    pub(crate) fn within<F: Future>(&self, future: F) -> Instrumented<F> {
        future.instrument(Span::clone(&self.0))
    }

    pub(crate) fn started(&self) {
        self.0.in_scope(|| info!("peer started"));
    }

    pub(crate) fn dialing(&self, connector: ConnectorId, attempt: u64) {
        let connector = connector.number();
        self.0.in_scope(|| debug!(connector, attempt, "dialing"));
    }

    /// Reports a failed attempt: the first one after a link, or after the start, as a warning.
    pub(crate) fn dial_failed(&self, connector: ConnectorId, is_first: bool, error: &impl Display) {
        let connector = connector.number();
        self.0.in_scope(|| {
            if is_first {
                warn!(connector, %error, "dial failed");
            } else {
                debug!(connector, %error, "dial failed");
            }
        });
    }

    pub(crate) fn dial_waits(&self, connector: ConnectorId, wait: Duration) {
        let connector = connector.number();
        self.0
            .in_scope(|| debug!(connector, ?wait, "waiting before the next dial"));
    }

    pub(crate) fn dial_sleeps(&self, connector: ConnectorId, peer: &PeerName) {
        let (connector, peer) = (connector.number(), peer.as_str());
        self.0
            .in_scope(|| debug!(connector, peer, "the connector sleeps: a link is up"));
    }

    pub(crate) fn listening(&self, listener: ListenerId, address: &ListenAddress) {
        let listener = listener.number();
        self.0.in_scope(|| info!(listener, %address, "listening"));
    }

    pub(crate) fn not_listening(&self, listener: ListenerId, error: &impl Display) {
        let listener = listener.number();
        self.0.in_scope(|| warn!(listener, %error, "cannot listen"));
    }

    pub(crate) fn client(&self, link: LinkKey) {
        let link = link.number();
        self.0
            .in_scope(|| debug!(link, "client passed to the broker"));
    }

    /// Reports that the application has accepted a message, or has given it back.
    pub(crate) fn settled(&self, from: &Sender, id: MessageId, is_accepted: bool) {
        if !is_on(Level::TRACE) {
            return;
        }
        self.0.in_scope(|| {
            if is_accepted {
                trace!(%from, %id, "message accepted");
            } else {
                trace!(%from, %id, "message given back");
            }
        });
    }

    pub(crate) fn signal(
        &self,
        to: &PeerName,
        (object, method): (&str, &str),
        error: Option<&CallError>,
    ) {
        let peer = to.as_str();
        self.0.in_scope(|| match error {
            None => debug!(peer, object, method, "signal sent"),
            Some(error) => {
                let outcome = outcome_of(error);
                debug!(peer, object, method, outcome, "signal failed");
            }
        });
    }

    pub(crate) fn request(&self, from: &PeerName, (object, method): (&str, &str), is_call: bool) {
        let peer = from.as_str();
        self.0
            .in_scope(|| debug!(peer, object, method, is_call, "request received"));
    }

    pub(crate) fn request_refused(&self, from: &PeerName, fault: &str) {
        let peer = from.as_str();
        self.0.in_scope(|| debug!(peer, fault, "request refused"));
    }

    pub(crate) fn run(&self, from: &PeerName, (object, method): (&str, &str)) -> RunTrace {
        let peer = from.as_str();
        let span = debug_span!(parent: &*self.0, "amqp.request", peer, object, method);
        RunTrace(Some(span))
    }

    pub(crate) fn call(&self, to: &PeerName, (object, method): (&str, &str)) -> CallTrace {
        if !is_on(Level::DEBUG) {
            return CallTrace(None);
        }
        let peer = to.as_str();
        let span = debug_span!(parent: &*self.0, "amqp.call", peer, object, method);
        span.in_scope(|| debug!("call begun"));
        CallTrace(Some(span))
    }
}

impl fmt::Debug for Trace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Trace")
    }
}

/// Events that were collected under the lock.
#[derive(Debug, Default)]
pub(crate) struct Notes(Vec<Note>);

#[derive(Debug)]
enum Note {
    Up(Box<Up>),
    Down(Box<Down>),
    Refused(Box<Refused>),
    Queued(PeerName, MessageId, usize),
    NotSent(PeerName, SendError),
    Received(Sender, MessageId, usize, bool),
    Written(PeerName, MessageId),
    Delivered(PeerName, MessageId),
    Dropped(PeerName, MessageId, crate::cause::DropReason, bool),
    NotAccepted(ListenerId, NotAcceptedError, bool),
    StoreFailed(String, bool),
    StoreWorks,
    InboxFailed(String),
    Stopping,
    Stopped,
}

impl Notes {
    fn add(&mut self, level: Level, note: impl FnOnce() -> Note) {
        if is_on(level) {
            self.0.push(note());
        }
    }

    /// Notes an event of the machine. Deliveries are noted [apart](Self::delivered).
    pub(crate) fn event(&mut self, event: &Event) {
        match event {
            Event::Up(up) => self.add(Level::INFO, || Note::Up(Box::new(up.clone()))),
            Event::Down(down) => self.add(Level::WARN, || Note::Down(Box::new(down.clone()))),
            Event::Refused(refused) => {
                self.add(Level::WARN, || Note::Refused(Box::new(refused.clone())));
            }
            Event::Received(received) => self.add(Level::TRACE, || {
                let len = received.message.body.len();
                Note::Received(
                    received.from.clone(),
                    received.id,
                    len,
                    received.is_repeated,
                )
            }),
            Event::Written { to, id } => {
                self.add(Level::TRACE, || Note::Written(to.clone(), *id));
            }
            Event::Dropped(dropped) => self.add(Level::DEBUG, || {
                let (to, id) = (dropped.to.clone(), dropped.id);
                Note::Dropped(to, id, dropped.reason, dropped.was_sent)
            }),
            Event::Delivered { .. } => {}
        }
    }

    pub(crate) fn delivered(&mut self, delivered: Vec<(PeerName, MessageId)>) {
        let notes = delivered.into_iter();
        self.0.extend(notes.map(|(to, id)| Note::Delivered(to, id)));
    }

    /// The length of the body of a message that is sent next. `Some` if that is of interest.
    pub(crate) fn sending(&self, message: &Message) -> Option<usize> {
        is_on(Level::DEBUG).then(|| message.body.len())
    }

    pub(crate) fn sent(
        &mut self,
        to: &PeerName,
        bytes: Option<usize>,
        sent: &Result<MessageId, SendError>,
    ) {
        match (sent, bytes) {
            (Ok(id), Some(bytes)) => {
                self.add(Level::TRACE, || Note::Queued(to.clone(), *id, bytes));
            }
            (Err(error), Some(_)) => {
                self.add(Level::DEBUG, || Note::NotSent(to.clone(), error.clone()));
            }
            (_, None) => {}
        }
    }

    /// Notes a connection that was not accepted: the first one since the application was told, as a
    /// warning.
    pub(crate) fn not_accepted(
        &mut self,
        listener: ListenerId,
        error: &NotAcceptedError,
        is_first: bool,
    ) {
        let level = if is_first { Level::WARN } else { Level::DEBUG };
        self.add(level, || {
            Note::NotAccepted(listener, error.clone(), is_first)
        });
    }

    pub(crate) fn store_failed(&mut self, error: &str, is_first: bool) {
        let level = if is_first { Level::WARN } else { Level::DEBUG };
        self.add(level, || Note::StoreFailed(error.to_owned(), is_first));
    }

    pub(crate) fn store_works(&mut self) {
        self.add(Level::INFO, || Note::StoreWorks);
    }

    pub(crate) fn inbox_failed(&mut self, error: &amqp_driver::Error) {
        self.add(Level::WARN, || Note::InboxFailed(error.to_string()));
    }

    pub(crate) fn stopping(&mut self) {
        self.add(Level::INFO, || Note::Stopping);
    }

    pub(crate) fn stopped(&mut self) {
        self.add(Level::INFO, || Note::Stopped);
    }
}

impl Note {
    /// Reports the event to the subscriber.
    fn emit(self) {
        match self {
            Self::Up(up) => {
                let (peer, link) = (up.name.as_str(), up.link.number());
                let Up {
                    is_listener,
                    certificates,
                    ..
                } = &*up;
                let certificates = certificates.len();
                info!(peer, link, is_listener, certificates, "link up");
            }
            Self::Down(down) => {
                let (peer, link) = (down.name.as_str(), down.link.number());
                let (cause, reason) = (&down.cause, &down.reason);
                if is_orderly(cause) {
                    info!(peer, link, %cause, %reason, "link down");
                } else {
                    warn!(peer, link, %cause, %reason, "link down");
                }
            }
            Self::Refused(refused) => {
                let (peer, link) = (refused.name.as_ref(), refused.link.number());
                let peer = peer.map(PeerName::as_str);
                let (cause, reason) = (&refused.cause, &refused.reason);
                let is_listener = refused.is_listener;
                // A stranger that looks whether the port is open.
                let is_scan = is_listener && peer.is_none() && *cause == DownCause::Transport;
                if is_orderly(cause) || is_scan {
                    debug!(peer, link, is_listener, %cause, %reason, "link refused");
                } else {
                    warn!(peer, link, is_listener, %cause, %reason, "link refused");
                }
            }
            Self::Queued(peer, id, bytes) => {
                trace!(peer = peer.as_str(), %id, bytes, "message queued");
            }
            Self::NotSent(peer, error) => debug!(peer = peer.as_str(), %error, "message not sent"),
            Self::Received(from, id, bytes, is_repeated) => {
                trace!(%from, %id, bytes, is_repeated, "message received");
            }
            Self::Written(peer, id) => trace!(peer = peer.as_str(), %id, "message written"),
            Self::Delivered(peer, id) => trace!(peer = peer.as_str(), %id, "message delivered"),
            Self::Dropped(peer, id, reason, was_sent) => {
                debug!(peer = peer.as_str(), %id, %reason, was_sent, "message dropped");
            }
            Self::NotAccepted(listener, error, is_first) => {
                let listener = listener.number();
                if is_first {
                    warn!(listener, %error, "connection not accepted");
                } else {
                    debug!(listener, %error, "connection not accepted");
                }
            }
            Self::StoreFailed(error, true) => warn!(error, "storage failed"),
            Self::StoreFailed(error, false) => debug!(error, "storage failed"),
            Self::StoreWorks => info!("storage works again"),
            Self::InboxFailed(error) => warn!(error, "inbox failed"),
            Self::Stopping => info!("peer stopping"),
            Self::Stopped => info!("peer stopped"),
        }
    }
}

/// Whether an end is one that a side has asked for.
const fn is_orderly(cause: &DownCause) -> bool {
    matches!(
        cause,
        DownCause::Requested | DownCause::ByPeer | DownCause::Duplicate | DownCause::Replaced
    )
}

/// The span of a call, from its begin to its end.
#[derive(Debug)]
pub(crate) struct CallTrace(Option<Span>);

impl CallTrace {
    /// Reports the end.
    pub(crate) fn end(mut self, error: Option<&CallError>) {
        let Some(span) = self.0.take() else {
            return;
        };
        span.in_scope(|| match error {
            None => debug!("call answered"),
            Some(error) => debug!(outcome = outcome_of(error), "call failed"),
        });
    }
}

/// Reports that the future was dropped before the end.
impl Drop for CallTrace {
    fn drop(&mut self) {
        if let Some(span) = mem::take(&mut self.0) {
            span.in_scope(|| debug!("call abandoned"));
        }
    }
}

/// The span of the run of a request.
#[derive(Debug)]
pub(crate) struct RunTrace(Option<Span>);

impl RunTrace {
    /// Reports the end: `ok`, or the name of a fault.
    pub(crate) fn end(mut self, outcome: &str) {
        if let Some(span) = self.0.take() {
            span.in_scope(|| debug!(outcome, "request handled"));
        }
    }
}

/// Reports that the run was dropped before the end.
impl Drop for RunTrace {
    fn drop(&mut self) {
        if let Some(span) = self.0.take() {
            span.in_scope(|| debug!("request abandoned"));
        }
    }
}

/// The name of an error of a call. Its text may have values of the application.
const fn outcome_of(error: &CallError) -> &'static str {
    match error {
        CallError::NotConnected { .. } => "not-connected",
        CallError::PartialCall { .. } => "partial-call",
        CallError::NoObject { .. } => "no-object",
        CallError::NoMethod { .. } => "no-method",
        CallError::Remote(_) => "remote",
        CallError::Opaque => "opaque",
        CallError::WrongKind { .. } => "wrong-kind",
        CallError::Codec { .. } => "codec",
        CallError::Removed { .. } => "removed",
        CallError::Stopped => "stopped",
        CallError::TooMany => "too-many",
        CallError::Busy { .. } => "busy",
        CallError::TooLarge { .. } => "too-large",
        CallError::Send(_) => "not-sent",
    }
}
