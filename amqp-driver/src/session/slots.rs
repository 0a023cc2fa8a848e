//! The slots of requests in flight.

use std::{collections::BTreeMap, task::Waker};

use amqp_core::{
    ChannelId, ConsumerId, RequestError, RequestId, client::GetMessage, protocol::Method,
};

/// The requests in flight.
#[derive(Debug, Default)]
pub(crate) struct Requests(pub(super) BTreeMap<RequestId, Slot>);

/// A request's answer, until its future takes it.
#[derive(Debug, Default)]
pub(super) struct Slot {
    pub(super) waker: Option<Waker>,
    pub(super) answer: Option<Answer>,
    /// `Some` if the request cancels a consumer, which ends with the answer.
    pub(super) cancels: Option<(ChannelId, ConsumerId)>,
    /// The future was dropped; only the consumer waits for the answer.
    pub(super) abandoned: bool,
}

/// The outcome of a request.
#[derive(Debug)]
pub(crate) enum Answer {
    Reply(Method),
    Got(Option<GetMessage>),
    Failed(RequestError),
}

impl Requests {
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}
