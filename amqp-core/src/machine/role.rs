//! What only one side of a connection does, and each does differently.

use alloc::string::ToString as _;
use core::fmt;

use bytes::BytesMut;

use super::{Dropped, Machine};
use crate::{
    body::Content,
    close::{Close, CloseCause, CloseReason, TimeoutReason},
    fault::{Fault, ProtocolError},
    ids::{ChannelId, RequestId},
    method::{MethodId, Rule},
    protocol::{self, Method},
    time::Instant,
    wire::DecodeError,
};

/// What only one side of a connection does.
pub(crate) trait Role: Sized + fmt::Debug {
    type Event: fmt::Debug;
    /// What this side knows of each channel.
    type Channel: fmt::Debug + Default;

    /// By how many bytes an incoming frame may be over the limit.
    const FRAME_SLACK: u32;

    /// Whether the peer is the one to refuse credentials.
    const PEER_AUTHENTICATES: bool;

    /// Whether what is queued still leaves when the peer closes a channel or the connection, or
    /// breaks the protocol: those are answers to what the peer asked before.
    const ANSWERS_FIRST: bool = false;

    /// Whether what the peer says of a channel that has ended is ignored. If not, a channel that
    /// the peer has closed ends when the answer leaves, and after that it is one that was never
    /// open.
    const FORGIVES_ENDED: bool = true;

    /// Whether the type of a frame is looked at last, when the frame is there.
    const TYPE_LAST: bool = false;

    /// Whether the peer refuses credentials by hanging up, in place of a close that says so.
    fn refuses_by_hanging_up(&self) -> bool {
        false
    }

    /// Whether the peer sends content headers that are larger than the frame limit, as RabbitMQ
    /// does: they are taken up to a limit of their own.
    const TAKES_LARGE_HEADERS: bool = false;

    /// Whether content headers may leave that are larger than the frame limit.
    const SENDS_LARGE_HEADERS: bool = false;

    /// Whether properties that do not decode are the peer's fault. If not, they are delivered as
    /// they are.
    const CHECKS_PROPERTIES: bool = true;

    /// Whether the peer may send the method.
    fn is_peers(rule: &Rule) -> bool;

    /// Looks at the first bytes. `Ok(true)` when they were dealt with and frames follow.
    fn greet(machine: &mut Machine<Self>, input: &mut BytesMut) -> Result<bool, CloseCause>;

    /// Looks at a method before anything else does: whether it is to be dealt with at all.
    fn screen(
        _machine: &mut Machine<Self>,
        _number: u16,
        _rule: &Rule,
        _arguments: &[u8],
    ) -> Result<bool, Fault> {
        Ok(true)
    }

    /// A method that the table does not have.
    fn on_unlisted(
        _machine: &mut Machine<Self>,
        _number: u16,
        id: MethodId,
        _arguments: &[u8],
    ) -> Result<(), Fault> {
        Err(unlisted(id))
    }

    /// What the peer is told of its fault; none to hang up on it.
    fn reply(
        _machine: &mut Machine<Self>,
        error: &ProtocolError,
        _frame: &Culprit<'_>,
    ) -> Option<Close> {
        Some(Close {
            code: error.fault.code(),
            text: error.to_string(),
            method: error.method,
        })
    }

    /// A method of the connection other than close, in whatever stage.
    fn on_connection_method(machine: &mut Machine<Self>, method: Method) -> Result<(), Fault>;

    /// The peer opens a channel that is not open.
    fn on_channel_open(machine: &mut Machine<Self>, number: u16) -> Result<(), Fault>;

    /// A method of an open channel other than close, with its content if it has one.
    fn on_channel_method(
        machine: &mut Machine<Self>,
        id: ChannelId,
        method: Method,
        content: Option<Content>,
    ) -> Result<(), Fault>;

    /// A method of an open channel whose content follows. Returns whether the content is of
    /// interest: if not, it is passed over.
    fn on_content_begun(
        _machine: &mut Machine<Self>,
        _id: ChannelId,
        _method: &Method,
    ) -> Result<bool, Fault> {
        Ok(true)
    }

    /// A method of an open channel whose content has come and was not kept.
    fn on_content_dropped(
        _machine: &mut Machine<Self>,
        _id: ChannelId,
        _method: Method,
        _why: Dropped,
    ) -> Result<(), Fault> {
        Ok(())
    }

    /// The peer has answered the close of a channel.
    fn on_channel_closed(machine: &mut Machine<Self>, id: ChannelId, request: Option<RequestId>);

    /// The peer has closed a channel before it has seen the close that this side asked for with the
    /// request: the peer's reason is why the channel ended.
    fn on_close_crossed(
        machine: &mut Machine<Self>,
        id: ChannelId,
        request: RequestId,
        reason: CloseReason,
    ) {
        let _ = (machine, id, request, reason);
    }

    /// A channel ends for a reason; what waits on it gets that reason.
    fn on_channel_end(machine: &mut Machine<Self>, id: ChannelId, reason: &CloseReason);

    /// Publishes up to this number have begun to leave.
    fn on_publish_begun(channel: &mut Self::Channel, number: u64);

    /// Whether a request, of a channel or of the connection itself, still waits for its answer.
    fn is_waiting(machine: &Machine<Self>, channel: Option<ChannelId>, request: RequestId) -> bool;

    /// A request, of a channel or of the connection itself, got no answer in time.
    fn on_request_timeout(
        machine: &mut Machine<Self>,
        channel: Option<ChannelId>,
        request: RequestId,
    );

    /// The time is known: deadlines that wait for it can be set.
    fn on_time(machine: &mut Machine<Self>) {
        let _ = machine;
    }

    /// What this role waits for until when, beside requests.
    fn next_deadline(machine: &Machine<Self>) -> Option<(Instant, TimeoutReason)> {
        let _ = machine;
        None
    }

    /// The time has come for what [`next_deadline`](Self::next_deadline) named, or has not.
    fn on_timeout(machine: &mut Machine<Self>) {
        let _ = machine;
    }

    /// The connection ends: what waits on it as a whole gets the reason.
    fn on_end(machine: &mut Machine<Self>, reason: &CloseReason);

    fn channel_closed(channel: ChannelId, reason: CloseReason) -> Self::Event;
    fn closed(reason: CloseReason) -> Self::Event;
    /// There is room in the ready lane.
    fn writable() -> Self::Event;
    /// There is room in the backlogs.
    fn backlog_writable() -> Self::Event;
    /// There is room in the channel's backlog.
    fn channel_writable(channel: ChannelId) -> Self::Event;

    /// The time has come for a new secret. Only a client has one.
    fn on_secret_due(machine: &mut Machine<Self>) {
        let _ = machine;
    }
}

/// The frame that a fault was found in.
pub(crate) struct Culprit<'a> {
    /// Its type, which may be none that the protocol has.
    pub(crate) kind: u8,
    /// What it holds; nothing when it was not waited for.
    pub(crate) payload: &'a [u8],
}

/// The fault of a method that the table does not have.
pub(crate) fn unlisted(id: MethodId) -> Fault {
    let known = protocol::RULES.iter().any(|rule| rule.id.class == id.class);
    Fault::Decode(if known {
        DecodeError::UnknownMethod(id)
    } else {
        DecodeError::UnknownClass(id.class)
    })
}
