//! The interface between the state machine and the client or server role.

use alloc::string::ToString as _;
use core::{fmt, time::Duration};

use bytes::BytesMut;

use super::{Dropped, Machine};
use crate::{
    body::Content,
    close::{Close, CloseCause, CloseReason, Stage, TimeoutReason},
    fault::{Fault, ProtocolError},
    ids::{ChannelId, RequestId},
    method::Rule,
    method_id::MethodId,
    protocol::{self, Method},
    time::Instant,
    wire::DecodeError,
};

/// The behaviour of one side of a connection.
pub(crate) trait Role: Sized + fmt::Debug {
    type Event: fmt::Debug;
    /// The state that the role adds to each channel.
    type Channel: fmt::Debug + Default;

    /// Whether the peer is the one that checks the credentials.
    const PEER_AUTHENTICATES: bool;

    /// Whether the messages of this side are publishes.
    const PUBLISHES: bool = false;

    /// Whether queued output is still sent when the peer closes a channel or the connection, or
    /// breaks the protocol: it answers earlier requests of the peer.
    const ANSWERS_FIRST: bool = false;

    /// Whether input for an ended channel is ignored. If not, a channel that the peer has closed
    /// ends when close-ok is handed out, and later input is treated as if the channel was never
    /// open.
    const FORGIVES_ENDED: bool = true;

    /// The size of the blocks that small pieces of content are copied into, in bytes: the maximum
    /// memory that a small piece keeps alive.
    const ARENA_BLOCK: usize = 8192;

    /// The maximum number of used blocks that are kept to be used again: some reads' worth of
    /// messages, of which an application that keeps up holds the last ones.
    const ARENA_USED: usize = 64;

    /// The number of bytes by which an incoming frame may exceed the frame limit.
    fn frame_slack(&self) -> u32 {
        0
    }

    /// Whether an unknown frame type is reported only when the frame is complete.
    fn reads_unknown_frames(&self) -> bool {
        false
    }

    /// Whether the negotiated limit of channels is one of their count, not of their numbers.
    fn counts_channels(&self) -> bool {
        false
    }

    /// Whether this side may send content headers that exceed the frame limit.
    fn sends_large_headers(&self) -> bool {
        false
    }

    /// Whether the peer refuses credentials by hanging up instead of sending a close
    /// (<https://www.rabbitmq.com/docs/auth-notification>).
    fn refuses_by_hanging_up(&self) -> bool {
        false
    }

    /// Whether the peer sends content headers that exceed the frame limit, as RabbitMQ does. They
    /// are accepted up to [`Limits::header`](crate::Limits::header).
    const TAKES_LARGE_HEADERS: bool = false;

    /// Whether properties that do not decode are a fault of the peer. If not, they are delivered as
    /// received.
    const CHECKS_PROPERTIES: bool = true;

    /// Whether the peer may send the method.
    fn is_peers(rule: &Rule) -> bool;

    /// Checks the first bytes. Returns `Ok(true)` when they were consumed and frames follow.
    fn parse_header(machine: &mut Machine<Self>, input: &mut BytesMut) -> Result<bool, CloseCause>;

    /// Checks a method before all other rules. Returns whether it is to be processed.
    fn precheck(
        _machine: &mut Machine<Self>,
        _number: u16,
        _rule: &Rule,
        _arguments: &[u8],
    ) -> Result<bool, Fault> {
        Ok(true)
    }

    /// Handles a method that is not in [`RULES`](protocol::RULES).
    fn on_unknown(
        _machine: &mut Machine<Self>,
        _number: u16,
        id: MethodId,
        _arguments: &[u8],
    ) -> Result<(), Fault> {
        Err(unlisted(id))
    }

    /// Returns the time from a hang-up to the end of the transport. Default zero.
    fn hang_up_delay(_machine: &Machine<Self>) -> Duration {
        Duration::ZERO
    }

    /// Returns the close to send for a fault. `None` to hang up instead.
    fn reply(
        machine: &mut Machine<Self>,
        error: &ProtocolError,
        _frame: &OffendingFrame<'_>,
    ) -> Option<Close> {
        // A client in the last stage has sent `connection.open`.
        let is_opened = matches!(
            machine.stage(),
            Stage::Opening | Stage::Open | Stage::Closing
        );
        standard_close(error, is_opened)
    }

    /// Handles a method of the connection other than close, in any stage.
    fn on_connection_method(machine: &mut Machine<Self>, method: Method) -> Result<(), Fault>;

    /// Handles `channel.open` for a channel that is not live.
    fn on_channel_open(machine: &mut Machine<Self>, number: u16) -> Result<(), Fault>;

    /// Handles a method of a channel other than open and close, with its content if it has one.
    fn on_channel_method(
        machine: &mut Machine<Self>,
        id: ChannelId,
        method: Method,
        content: Option<Content>,
    ) -> Result<(), Fault>;

    /// Receives the messages at the front of `input` whose frames are all there, until one of them
    /// takes more than the usual steps. Those are left in `input`, and handled frame by frame. The
    /// default leaves all.
    fn receive_whole(machine: &mut Machine<Self>, input: &mut BytesMut) {
        let _ = (machine, input);
    }

    /// Handles a method with content, before the content is received. Returns whether the content
    /// is needed; if not, it is discarded.
    fn on_content_begun(
        _machine: &mut Machine<Self>,
        _id: ChannelId,
        _method: &Method,
    ) -> Result<bool, Fault> {
        Ok(true)
    }

    /// Handles a method after its content was received and discarded.
    fn on_content_dropped(
        _machine: &mut Machine<Self>,
        _id: ChannelId,
        _method: Method,
        _why: Dropped,
    ) -> Result<(), Fault> {
        Ok(())
    }

    /// Handles close-ok of a channel.
    fn on_channel_closed(machine: &mut Machine<Self>, id: ChannelId, request: Option<RequestId>);

    /// Handles a close of the peer that crossed the close of this side for `request`. The peer's
    /// reason is why the channel ended.
    fn on_close_crossed(
        machine: &mut Machine<Self>,
        id: ChannelId,
        request: RequestId,
        reason: CloseReason,
    ) {
        let _ = (machine, id, request, reason);
    }

    /// Ends everything pending on a channel with the reason.
    fn on_channel_end(machine: &mut Machine<Self>, id: ChannelId, reason: &CloseReason);

    /// Records that publishes up to `number` have begun to be sent.
    fn on_publish_begun(channel: &mut Self::Channel, number: u64);

    /// Whether a request, of a channel or of the connection itself, is still unanswered.
    fn is_waiting(machine: &Machine<Self>, channel: Option<ChannelId>, request: RequestId) -> bool;

    /// Handles the timeout of a request, of a channel or of the connection itself.
    fn on_request_timeout(
        machine: &mut Machine<Self>,
        channel: Option<ChannelId>,
        request: RequestId,
    );

    /// Arms the role's deadlines set by commands: the current time is known.
    fn on_time(machine: &mut Machine<Self>) {
        let _ = machine;
    }

    /// The role's next deadline, besides those of requests.
    fn next_deadline(machine: &Machine<Self>) -> Option<(Instant, TimeoutReason)> {
        let _ = machine;
        None
    }

    /// Checks the deadlines of [`next_deadline`](Self::next_deadline). May be called before any of
    /// them is reached.
    fn on_timeout(machine: &mut Machine<Self>) {
        let _ = machine;
    }

    /// Ends everything pending on the connection itself with the reason.
    fn on_end(machine: &mut Machine<Self>, reason: &CloseReason);

    fn channel_closed(channel: ChannelId, reason: CloseReason) -> Self::Event;
    fn closed(reason: CloseReason) -> Self::Event;
    /// The event for room in the ready lane.
    fn writable() -> Self::Event;
    /// The event for room in the backlogs.
    fn backlog_writable() -> Self::Event;
    /// The event for room in the channel's backlog.
    fn channel_writable(channel: ChannelId) -> Self::Event;

    /// The numbers of unconfirmed publishes and of unacknowledged deliveries of a channel, for the
    /// statistics. A server leaves them to its broker.
    fn outstanding(_channel: &Self::Channel) -> (u64, u64) {
        (0, 0)
    }

    /// Handles the deadline for a new secret. Only a client has one.
    fn on_secret_due(machine: &mut Machine<Self>) {
        let _ = machine;
    }
}

/// The frame in which a fault was found.
pub(crate) struct OffendingFrame<'a> {
    /// Its type, possibly an unknown one.
    pub(crate) kind: u8,
    /// Its payload; empty if it was not received.
    pub(crate) payload: &'a [u8],
}

/// Returns the close of the standard for a fault. `None` to hang up instead: before
/// `connection.open` is sent or received (section 2.2.4 of the specification), and where the
/// boundaries of frames are lost (section 4.2.3).
pub(crate) fn standard_close(error: &ProtocolError, is_opened: bool) -> Option<Close> {
    let is_framed = !matches!(error.fault, Fault::FrameEnd(_) | Fault::FrameType(_));
    (is_opened && is_framed).then(|| Close {
        code: error.fault.code(),
        text: error.to_string(),
        method: error.method,
    })
}

/// Returns the fault of a method that is not in [`RULES`](protocol::RULES).
pub(crate) fn unlisted(id: MethodId) -> Fault {
    let known = protocol::RULES.iter().any(|rule| rule.id.class == id.class);
    Fault::Decode(if known {
        DecodeError::UnknownMethod(id)
    } else {
        DecodeError::UnknownClass(id.class)
    })
}
