//! As `trace.rs`, without the feature `tracing`: nothing is reported.

use std::{fmt::Display, future::Future, time::Duration};

use crate::{
    cause::SendError,
    driver::{ConnectorId, ListenAddress, ListenerId, NotAcceptedError},
    event::{LinkKey, Sender},
    machine::Event,
    message::{Message, MessageId},
    name::PeerName,
    rpc::CallError,
};

/// The subscriber's view of a peer.
#[derive(Clone, Debug)]
pub(crate) struct Trace;

/// Events that were collected under the lock.
#[derive(Debug, Default)]
pub(crate) struct Notes;

/// A call.
#[derive(Debug)]
pub(crate) struct CallTrace;

/// The run of a request.
#[derive(Debug)]
pub(crate) struct RunTrace;

pub(crate) const fn wants_deliveries() -> bool {
    false
}

impl Trace {
    pub(crate) const fn new(_name: &PeerName) -> Self {
        Self
    }

    pub(crate) const fn emit(&self, _notes: Notes) {}

    pub(crate) fn within<F: Future>(&self, future: F) -> F {
        future
    }

    pub(crate) const fn started(&self) {}

    pub(crate) const fn dialing(&self, _connector: ConnectorId, _attempt: u64) {}

    pub(crate) const fn dial_failed(
        &self,
        _connector: ConnectorId,
        _is_first: bool,
        _error: &impl Display,
    ) {
    }

    pub(crate) const fn dial_waits(&self, _connector: ConnectorId, _wait: Duration) {}

    pub(crate) const fn dial_sleeps(&self, _connector: ConnectorId, _peer: &PeerName) {}

    pub(crate) const fn listening(&self, _listener: ListenerId, _address: &ListenAddress) {}

    pub(crate) const fn not_listening(&self, _listener: ListenerId, _error: &impl Display) {}

    pub(crate) const fn client(&self, _link: LinkKey) {}

    pub(crate) const fn settled(&self, _from: &Sender, _id: MessageId, _is_accepted: bool) {}

    pub(crate) const fn signal(
        &self,
        _to: &PeerName,
        _names: (&str, &str),
        _error: Option<&CallError>,
    ) {
    }

    pub(crate) const fn request(&self, _from: &PeerName, _names: (&str, &str), _is_call: bool) {}

    pub(crate) const fn request_refused(&self, _from: &PeerName, _fault: &str) {}

    pub(crate) const fn run(&self, _from: &PeerName, _names: (&str, &str)) -> RunTrace {
        RunTrace
    }

    pub(crate) const fn call(&self, _to: &PeerName, _names: (&str, &str)) -> CallTrace {
        CallTrace
    }
}

impl Notes {
    pub(crate) const fn event(&self, _event: &Event) {}

    pub(crate) fn delivered(&self, _delivered: Vec<(PeerName, MessageId)>) {}

    pub(crate) const fn sending(&self, _message: &Message) -> Option<usize> {
        None
    }

    pub(crate) const fn sent(
        &self,
        _to: &PeerName,
        _bytes: Option<usize>,
        _sent: &Result<MessageId, SendError>,
    ) {
    }

    pub(crate) const fn not_accepted(
        &self,
        _listener: ListenerId,
        _error: &NotAcceptedError,
        _is_first: bool,
    ) {
    }

    pub(crate) const fn store_failed(&self, _error: &str, _is_first: bool) {}

    pub(crate) const fn store_works(&self) {}

    pub(crate) const fn inbox_failed(&self, _error: &amqp_driver::Error) {}

    pub(crate) const fn stopping(&self) {}

    pub(crate) const fn stopped(&self) {}
}

impl CallTrace {
    pub(crate) const fn end(self, _error: Option<&CallError>) {}
}

impl RunTrace {
    pub(crate) const fn end(self, _outcome: &str) {}
}
