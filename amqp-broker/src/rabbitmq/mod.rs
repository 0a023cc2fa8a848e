//! RabbitMQ's treatment of a client that deviates from the protocol: the order of its checks, its
//! codes and its texts.
//!
//! The order decides which of several faults is reported. All of it is shown by
//! `amqp-broker/tests/violations`.

mod access;
mod close;
mod erlang;

use core::time::Duration;

use amqp_core::{
    Close, Fault, MethodDef as _, Stage,
    protocol::{self, Method, channel, connection},
    server::{ChannelState, Policy, ReceivedMethod, Tolerance, Verdict, Violation},
    wire::DecodeError,
};

use self::access::AccessMethod;

/// The policy of RabbitMQ 3.10, for [`server::Config::policy`](amqp_core::server::Config::policy).
///
/// A client that violates the protocol is answered with the codes and texts of RabbitMQ. During the
/// handshake, and for input that RabbitMQ cannot decode, the transport is closed without a close
/// method, [3 seconds](Policy::hang_up_delay) later in the handshake.
///
/// ```
/// use amqp_broker::RabbitMq;
/// use amqp_core::server;
///
/// let config = server::Config::default().policy(&RabbitMq);
/// # let _ = config;
/// ```
#[derive(Clone, Copy, Debug, Default)]
pub struct RabbitMq;

/// The payload of `channel.close-ok`: class and method.
const CLOSE_OK: [u8; 4] = [0, 20, 0, 41];

impl Policy for RabbitMq {
    /// Frames may exceed the limit by the 8 octets of framing (section 4.2.3 of the specification):
    /// several clients do not count these. The headers of AMQP 0-9 and 0-8 are sent by some
    /// clients. Channels are counted, whatever their numbers. The headers of a message grow with
    /// each queue that dead-letters it (<https://www.rabbitmq.com/docs/dlx>).
    fn tolerance(&self) -> Tolerance {
        Tolerance::default()
            .frame_slack(8)
            .whole_unknown_frames(true)
            .large_headers(true)
            .header_0_9(true)
            .header_0_8(true)
            .any_channel_number(true)
    }

    fn check(&self, method: &ReceivedMethod<'_>) -> Result<Verdict, Fault> {
        match AccessMethod::of(method.id) {
            Some(access) => check_access(method, access),
            // The machine refuses it.
            None if protocol::rule(method.id).is_none() => Ok(Verdict::Process),
            None if method.channel == 0 => check_connection(method),
            None => check_channel(method),
        }
    }

    fn close(&self, violation: &Violation<'_>) -> Option<Close> {
        close::close(violation)
    }

    /// Measured: RabbitMQ 3.10.8 resets the transport after 3.00 s, whatever the fault.
    fn hang_up_delay(&self) -> Duration {
        Duration::from_secs(3)
    }
}

fn check_connection(method: &ReceivedMethod<'_>) -> Result<Verdict, Fault> {
    decode(method)?;
    // `connection.close` is not legal before the connection is open.
    if method.id == connection::Close::ID && is_handshake(method.stage) {
        return Err(Fault::NotDue);
    }
    Ok(Verdict::Process)
}

fn check_channel(method: &ReceivedMethod<'_>) -> Result<Verdict, Fault> {
    let opens = method.id == channel::Open::ID;
    check_channel_state(method, opens, || decode(method))?;
    Ok(match method.state {
        ChannelState::Closing | ChannelState::Closed if opens => {
            return Err(Fault::ChannelAlreadyOpen);
        }
        ChannelState::Closing
            if ![channel::Close::ID, channel::CloseOk::ID].contains(&method.id) =>
        {
            Verdict::Ignore
        }
        // Each further close of a closed channel is answered.
        ChannelState::Closed if method.id == channel::Close::ID => Verdict::Answer(&CLOSE_OK),
        ChannelState::Closed => Verdict::Ignore,
        _ => Verdict::Process,
    })
}

/// Access tickets: the request for one is answered on an open channel, and the class is ignored on
/// a closing one.
fn check_access(method: &ReceivedMethod<'_>, access: AccessMethod) -> Result<Verdict, Fault> {
    if method.channel == 0 {
        access.decode(method.arguments)?;
        return Err(Fault::NotDue);
    }
    check_channel_state(method, false, || access.decode(method.arguments))?;
    match (method.state, access) {
        (ChannelState::Open, AccessMethod::Request) => Ok(Verdict::Answer(&access::REQUEST_OK)),
        (ChannelState::Open, AccessMethod::RequestOk) => Err(Fault::WrongSender),
        _ => Ok(Verdict::Ignore),
    }
}

/// Makes the checks common to all methods of a channel. The channel may be missing for
/// `channel.open` only.
fn check_channel_state(
    method: &ReceivedMethod<'_>,
    opens: bool,
    decode: impl FnOnce() -> Result<(), DecodeError>,
) -> Result<(), Fault> {
    if is_handshake(method.stage) {
        return Err(Fault::NotDue);
    }
    if method.state == ChannelState::InContent {
        return Err(Fault::MethodInContent);
    }
    decode()?;
    if method.state == ChannelState::Absent && !opens {
        return Err(Fault::ChannelNotOpen);
    }
    Ok(())
}

const fn is_handshake(stage: Stage) -> bool {
    !matches!(stage, Stage::Open | Stage::Closing)
}

/// Checks that the arguments can be decoded.
fn decode(method: &ReceivedMethod<'_>) -> Result<(), DecodeError> {
    Method::decode(method.id, method.arguments)?;
    // A server refuses a reply text that is not UTF-8; a client accepts it.
    let closes = [channel::Close::ID, connection::Close::ID].contains(&method.id);
    if closes && let Some([len, text @ ..]) = method.arguments.get(2..) {
        let text = text.get(..usize::from(*len)).unwrap_or_default();
        core::str::from_utf8(text).map_err(|_| DecodeError::InvalidUtf8)?;
    }
    Ok(())
}
