//! The causes of ends on the wire: the reply code and the text of each, so that both ends know.

use amqp_core::{CloseCause, CloseReason, TimeoutReason, protocol::ReplyCode};

use crate::cause::DownCause;

/// The causes that one side tells the other, with their texts.
const TOLD: [(DownCause, ReplyCode, &str); 10] = [
    (
        DownCause::Requested,
        ReplyCode::CONNECTION_FORCED,
        "the peer has ended the link",
    ),
    (
        DownCause::Duplicate,
        ReplyCode::NOT_ALLOWED,
        "duplicate link",
    ),
    (DownCause::NameInUse, ReplyCode::NOT_ALLOWED, "name in use"),
    (DownCause::OwnName, ReplyCode::NOT_ALLOWED, "own name"),
    (
        DownCause::Replaced,
        ReplyCode::NOT_ALLOWED,
        "replaced by a newer link",
    ),
    (
        DownCause::Version,
        ReplyCode::NOT_ALLOWED,
        "the version of the peers' protocol is 1",
    ),
    (DownCause::Secret, ReplyCode::ACCESS_REFUSED, "wrong secret"),
    (
        DownCause::Certificate,
        ReplyCode::NOT_ALLOWED,
        "the certificate does not allow the name",
    ),
    (DownCause::NotAPeer, ReplyCode::NOT_ALLOWED, "not a peer"),
    (
        DownCause::TooManyLinks,
        ReplyCode::NOT_ALLOWED,
        "too many links",
    ),
];

/// The text of the refusal of a plain client.
pub(super) const NO_CLIENTS: &str = "peers only";

/// The reply code and the text that tell a cause.
pub(super) fn told(cause: &DownCause) -> (ReplyCode, &'static str) {
    let told = TOLD.iter().find(|(told, ..)| told == cause);
    match (told, cause) {
        (Some((_, code, text)), _) => (*code, text),
        (None, DownCause::Protocol { code }) => (*code, "the peers' protocol was broken"),
        (None, _) => (ReplyCode::NOT_ALLOWED, ""),
    }
}

/// The cause of the end of a connection, as AMQP tells it.
pub(super) fn of(reason: &CloseReason) -> DownCause {
    if let Some(close) = reason.by_peer() {
        let told = TOLD
            .iter()
            .find(|(_, code, text)| *code == close.code && *text == close.text);
        return match told {
            // Whatever the peer has requested is by the peer.
            Some((DownCause::Requested, ..)) => DownCause::ByPeer,
            Some((cause, ..)) => cause.clone(),
            None if close.code == ReplyCode::CONNECTION_FORCED => DownCause::ByPeer,
            None if close.code == ReplyCode::SUCCESS => DownCause::ByPeer,
            None if close.text == NO_CLIENTS => DownCause::NotAPeer,
            None => DownCause::Protocol { code: close.code },
        };
    }
    match reason.cause() {
        CloseCause::NotAmqp(_)
        | CloseCause::NoCommonMechanism { .. }
        | CloseCause::NoCommonLocale { .. }
        | CloseCause::StartOkTooLarge { .. } => DownCause::NotAPeer,
        CloseCause::AuthenticationFailed { .. } => DownCause::Secret,
        CloseCause::ProtocolError(error) | CloseCause::LimitExceeded(error) => {
            let code = error.code.unwrap_or(ReplyCode::COMMAND_INVALID);
            DownCause::Protocol { code }
        }
        CloseCause::TimedOut(TimeoutReason::Handshake) => DownCause::Handshake,
        CloseCause::TimedOut(_) => DownCause::Silent,
        CloseCause::Requested(_) => DownCause::Requested,
        CloseCause::Connection(reason) => of(reason),
        CloseCause::Eof { .. } | CloseCause::Transport { .. } | CloseCause::ByPeer(_) => {
            DownCause::Transport
        }
        _ => DownCause::Transport,
    }
}
