//! The treatment of a client that deviates from the protocol.

use core::{fmt, time::Duration};

use crate::{
    close::{Close, Stage},
    fault::{Fault, ProtocolError},
    machine::{self, unlisted},
    method_id::MethodId,
    protocol,
};

/// How a server treats a client that deviates from the protocol: the deviations that it tolerates,
/// the order of its checks, and the codes and texts of its closes.
///
/// The default of each method is the standard's. The methods are pure: the result depends on the
/// arguments alone.
pub trait Policy: fmt::Debug + Send + Sync {
    /// The tolerated deviations.
    fn tolerance(&self) -> Tolerance {
        Tolerance::default()
    }

    /// Checks a method before the machine does, which decides which of several faults is reported.
    /// Not called for a method that is legal on its open channel.
    ///
    /// # Errors
    /// The fault of the client.
    fn check(&self, method: &ReceivedMethod<'_>) -> Result<Verdict, Fault> {
        match protocol::rule(method.id) {
            Some(_) => Ok(Verdict::Process),
            None => Err(unlisted(method.id)),
        }
    }

    /// Returns the close method to send for a violation. `None` to close the transport without one.
    fn close(&self, violation: &Violation<'_>) -> Option<Close> {
        // Before `connection.open` the transport is closed without a method (section 2.2.4 of the
        // specification).
        let is_opened = matches!(violation.stage, Stage::Open | Stage::Closing);
        machine::standard_close(violation.error, is_opened)
    }

    /// Returns the time for which the transport is kept after a handshake that failed without a
    /// close. A delay limits the rate at which one client can try passwords. Default zero.
    fn hang_up_delay(&self) -> Duration {
        Duration::ZERO
    }
}

/// The policy of the standard.
///
/// A frame that exceeds the limit by one octet is a violation, methods that are not in the
/// specification are refused, and the text of a close is that of the [`ProtocolError`].
#[derive(Clone, Copy, Debug, Default)]
pub struct Standard;

impl Policy for Standard {}

/// The deviations from the standard that a server tolerates or makes. Default none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Tolerance {
    /// The number of bytes by which a client's frame may exceed the negotiated limit.
    pub frame_slack: u32,
    /// Whether a frame of unknown type is received whole before it is reported.
    pub whole_unknown_frames: bool,
    /// Whether a content header of this server may exceed the negotiated frame limit.
    pub large_headers: bool,
    /// Whether the protocol header of AMQP 0-9 is accepted as that of 0-9-1.
    pub header_0_9: bool,
    /// Whether the protocol headers of AMQP 0-8 are answered with `connection.start` of version
    /// 8-0. All methods are those of 0-9-1 even then: few methods of 0-8 have other arguments.
    pub header_0_8: bool,
    /// Whether `channel_max` limits the number of open channels. If not, it limits the channel
    /// numbers as well (section 1.4.2.5 of the protocol reference).
    pub any_channel_number: bool,
}

impl Tolerance {
    /// Sets `frame_slack`.
    #[must_use]
    pub const fn frame_slack(mut self, bytes: u32) -> Self {
        self.frame_slack = bytes;
        self
    }

    /// Sets `whole_unknown_frames`.
    #[must_use]
    pub const fn whole_unknown_frames(mut self, whole: bool) -> Self {
        self.whole_unknown_frames = whole;
        self
    }

    /// Sets `large_headers`.
    #[must_use]
    pub const fn large_headers(mut self, large: bool) -> Self {
        self.large_headers = large;
        self
    }

    /// Sets `header_0_9`.
    #[must_use]
    pub const fn header_0_9(mut self, accepted: bool) -> Self {
        self.header_0_9 = accepted;
        self
    }

    /// Sets `header_0_8`.
    #[must_use]
    pub const fn header_0_8(mut self, accepted: bool) -> Self {
        self.header_0_8 = accepted;
        self
    }

    /// Sets `any_channel_number`.
    #[must_use]
    pub const fn any_channel_number(mut self, accepted: bool) -> Self {
        self.any_channel_number = accepted;
        self
    }
}

/// A method as received, before its arguments are decoded.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct ReceivedMethod<'a> {
    /// The ids of its class and itself. It need not be in the specification.
    pub id: MethodId,
    /// The encoded arguments.
    pub arguments: &'a [u8],
    /// The channel number; 0 is the connection itself.
    pub channel: u16,
    /// The state of that channel. [`Absent`](ChannelState::Absent) for channel 0.
    pub state: ChannelState,
    /// The stage of the connection.
    pub stage: Stage,
}

/// The state of a channel when a method arrives on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ChannelState {
    /// It is not open.
    Absent,
    /// It is open.
    Open,
    /// It is open, and the content of a message is incomplete.
    InContent,
    /// The server has closed it, and the client has not replied.
    Closing,
    /// The client has closed it, and the reply waits to be sent.
    Closed,
}

/// The result of a [check](Policy::check).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Verdict {
    /// The machine goes on with its own checks. A method that is not in the specification is then a
    /// fault.
    Process,
    /// The method is ignored.
    Ignore,
    /// The method is answered on its channel, if that is open, with the payload of a method frame:
    /// class, method, arguments.
    Answer(&'static [u8]),
}

/// A violation of the protocol, and the state in which it was found.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Violation<'a> {
    /// The fault and its place.
    pub error: &'a ProtocolError,
    /// The stage of the connection.
    pub stage: Stage,
    /// The type of the frame, possibly an unknown one.
    pub frame_type: u8,
    /// The payload of the frame; empty if it was not received.
    pub payload: &'a [u8],
    /// The incomplete content on the channel of the frame. `Some` if there is one.
    pub content: Option<IncompleteContent>,
    /// The number of channels in use.
    pub channels: usize,
}

/// A message whose content is incomplete.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct IncompleteContent {
    /// The method that carries it.
    pub method: MethodId,
    /// Whether the content header is expected next, otherwise a body frame.
    pub awaits_header: bool,
}
