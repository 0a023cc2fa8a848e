//! Every method during the handshake.

use alloc::{vec, vec::Vec};

use super::{Expected, check, configs};
use crate::{
    MethodDef as _, MethodId, Rule, Stage,
    close::CloseCause,
    fault::Fault,
    frame::PROTOCOL_HEADER,
    protocol::connection,
    tests::{
        harmless::every_method,
        side::{Role, Side, body_frame, header_frame, method_frame},
    },
};

/// A moment before the connection is open, or while it is closing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::tests) enum Step {
    /// To the client: nothing has come yet.
    Start,
    /// To the client: it has answered `start`.
    SecureOrTune,
    /// To the client: it wants to open the virtual host.
    OpenOk,
    /// To the server: it has answered the protocol header.
    StartOk,
    /// To the server: it has not decided on the credentials yet.
    CredentialsUndecided,
    /// To the server: it has sent a challenge.
    SecureOk,
    /// To the server: it has suggested limits.
    TuneOk,
    /// To the server: the limits are agreed on.
    Open,
    /// To the server: it has not decided on the virtual host yet.
    HostUndecided,
}

/// All of them, the client's first.
pub(in crate::tests) const STEPS: [Step; 9] = [
    Step::Start,
    Step::SecureOrTune,
    Step::OpenOk,
    Step::StartOk,
    Step::CredentialsUndecided,
    Step::SecureOk,
    Step::TuneOk,
    Step::Open,
    Step::HostUndecided,
];

impl Step {
    /// The methods that may come, beside a close.
    pub(super) fn due(self) -> Vec<MethodId> {
        match self {
            Self::Start => vec![connection::Start::ID],
            Self::SecureOrTune => vec![connection::Secure::ID, connection::Tune::ID],
            Self::OpenOk => vec![connection::OpenOk::ID],
            Self::StartOk => vec![connection::StartOk::ID],
            Self::SecureOk => vec![connection::SecureOk::ID],
            Self::TuneOk => vec![connection::TuneOk::ID],
            Self::Open => vec![connection::Open::ID],
            Self::CredentialsUndecided | Self::HostUndecided => vec![],
        }
    }

    pub(in crate::tests) fn role(self) -> Role {
        match self {
            Self::Start | Self::SecureOrTune | Self::OpenOk => Role::Client,
            Self::StartOk
            | Self::CredentialsUndecided
            | Self::SecureOk
            | Self::TuneOk
            | Self::Open
            | Self::HostUndecided => Role::Server,
        }
    }

    /// A side at this moment, brought there by the methods that were due before.
    fn side(self) -> Side {
        let (client, server) = configs();
        let mut side = match self.role() {
            Role::Client => Side::client(client),
            Role::Server => Side::server(server),
        };
        let feed = |side: &mut Side, id: MethodId| {
            let samples = every_method();
            let method = samples.iter().find(|method| method.id() == id).unwrap();
            side.feed(&method_frame(0, method));
            assert_eq!(side.close_reason(), None, "{}", method.name());
        };
        let before: &[MethodId] = match self {
            Self::Start | Self::StartOk => &[],
            Self::SecureOrTune => &[connection::Start::ID],
            Self::OpenOk => &[connection::Start::ID, connection::Tune::ID],
            Self::CredentialsUndecided | Self::SecureOk | Self::TuneOk => {
                &[connection::StartOk::ID]
            }
            Self::Open => &[connection::StartOk::ID, connection::TuneOk::ID],
            Self::HostUndecided => &[
                connection::StartOk::ID,
                connection::TuneOk::ID,
                connection::Open::ID,
            ],
        };
        if self.role() == Role::Server {
            assert_eq!(side.feed(&PROTOCOL_HEADER), []);
        }
        for &id in before {
            feed(&mut side, id);
            if id == connection::StartOk::ID && self != Self::CredentialsUndecided {
                let server = side.as_server();
                if self == Self::SecureOk {
                    server.challenge("more?").unwrap();
                } else {
                    server.accept().unwrap();
                }
            }
        }
        let sent = side.sent();
        assert!(!sent.is_empty());
        side
    }
}

/// The expected result of a method during the handshake.
pub(in crate::tests) fn during_handshake(step: Step, rule: &Rule, number: u16) -> Expected {
    use Expected::{Accepted, Closed, Refused};
    if !step.role().hears(rule) {
        Refused(Fault::WrongSender, 503)
    } else if rule.connection != (number == 0) {
        Refused(Fault::WrongChannel, 503)
    } else if rule.id == connection::Close::ID {
        Closed
    } else if rule.id == connection::CloseOk::ID {
        Refused(Fault::UnexpectedReply, 503)
    } else if step.due().contains(&rule.id) {
        Accepted
    } else {
        Refused(Fault::NotDue, 503)
    }
}

#[test]
fn the_legality_table_during_the_handshake() {
    for step in STEPS {
        for number in [0, 1] {
            for method in every_method() {
                let rule = method.rule();
                let expected = during_handshake(step, rule, number);
                std::println!("{} on {number} at {step:?} is {expected:?}", rule.name);
                let mut side = step.side();
                if let Expected::Accepted = expected {
                    let events = side.feed(&method_frame(number, &method));
                    let reported = !events.is_empty() || !side.sent().is_empty();
                    // `PLAIN` knows no answer to a challenge, and the server waits for `open`
                    // when it has agreed to the limits.
                    assert!(reported || rule.id == connection::TuneOk::ID);
                    match side.close_reason().map(|reason| reason.cause().clone()) {
                        None | Some(CloseCause::AuthenticationFailed { .. }) => {}
                        Some(cause) => panic!("{cause:?}"),
                    }
                } else {
                    check(side, number, &method, expected);
                }
            }
        }
    }
}

/// Content comes on open channels only, and none is open.
#[test]
fn content_during_the_handshake() {
    for step in STEPS {
        let frames = [header_frame(1, 60, 0, 1, &[]), body_frame(1, b"x")];
        if step == Step::Start {
            // A client waits for the first octet of a method frame.
            let mut side = step.side();
            let events = side.feed(&frames[0]);
            assert_eq!(events.len(), 1);
            assert!(side.is_finished());
            continue;
        }
        for frame in frames {
            let mut side = step.side();
            let events = side.feed(&frame);
            side.assert_failed(&events, &Fault::ChannelNotOpen, 504, None);
        }
    }
}

/// The stage follows the steps, on both sides.
#[test]
fn every_step_has_its_stage() {
    for step in STEPS {
        let mut side = step.side();
        let stage = match step.role() {
            Role::Client => side.as_client().stage(),
            Role::Server => side.as_server().stage(),
        };
        let expected = match step {
            Step::Start => Stage::Greeting,
            Step::SecureOrTune | Step::StartOk | Step::CredentialsUndecided | Step::SecureOk => {
                Stage::Authenticating
            }
            Step::TuneOk => Stage::Tuning,
            Step::OpenOk | Step::Open | Step::HostUndecided => Stage::Opening,
        };
        assert_eq!(stage, expected, "{step:?}");
    }
}
