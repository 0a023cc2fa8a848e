//! The legality table, enumerated: every method of it, to both roles, on channels in every state, in
//! every stage of a connection. The row of a method implies the expected result.

mod handshake;
mod replies;

use alloc::vec::Vec;

pub(super) use self::handshake::{STEPS, Step, during_handshake};
use crate::{
    MethodDef as _, MethodId, Rule,
    client::{self, Checks, Event as ClientEvent},
    close::{CloseCause, RequestError},
    fault::Fault,
    protocol::{Method, RULES, ReplyCode, basic, channel, confirm, connection},
    server,
    tests::{
        harmless::{self, every_method},
        pair::Pair,
        side::{Event, Machine, Role, Side, body_frame, header_frame, method_frame},
    },
};

/// The expected result of a method.
#[derive(Debug)]
pub(super) enum Expected {
    /// Something happens.
    Accepted,
    /// Nothing happens.
    Ignored,
    /// Nothing happens, but it is answered: the closes of a channel have crossed.
    Answered,
    /// The connection is closed, as the peer wants it.
    Closed,
    /// The connection is closed for a fault with that code.
    Refused(Fault, u16),
}

/// Where a method comes in on an open connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    ChannelZero,
    Open,
    NeverOpened,
    /// A number over the negotiated maximum.
    OverTheMaximum,
    ClosedByThePeer,
    ClosedByThisSide,
    /// This side has closed it, and the peer has not answered yet.
    Closing,
    /// A method with content has come.
    HeaderDue,
    /// Its header has come, too.
    BodyDue,
}

pub(super) const PLACES: [Place; 9] = [
    Place::ChannelZero,
    Place::Open,
    Place::NeverOpened,
    Place::OverTheMaximum,
    Place::ClosedByThePeer,
    Place::ClosedByThisSide,
    Place::Closing,
    Place::HeaderDue,
    Place::BodyDue,
];

const CHANNEL_MAX: u16 = 20;

impl Place {
    fn number(self) -> u16 {
        match self {
            Self::ChannelZero => 0,
            Self::Open | Self::HeaderDue | Self::BodyDue => 1,
            Self::ClosedByThePeer | Self::ClosedByThisSide | Self::Closing => 2,
            Self::NeverOpened => CHANNEL_MAX,
            Self::OverTheMaximum => CHANNEL_MAX + 1,
        }
    }
}

/// Whether the method belongs to the handshake: it has its moment, and at any other it is a fault.
fn of_handshake(id: MethodId) -> bool {
    let due = STEPS.iter().flat_map(|step| step.due());
    due.into_iter().any(|due| due == id)
}

/// The expected result of a method on an open connection without a pending request.
pub(super) fn when_open(role: Role, rule: &Rule, place: Place) -> Expected {
    use Expected::{Accepted, Answered, Closed, Ignored, Refused};
    if !role.hears(rule) {
        return Refused(Fault::WrongSender, 503);
    }
    if rule.connection != (place == Place::ChannelZero) {
        return Refused(Fault::WrongChannel, 503);
    }
    let opens = rule.id == channel::Open::ID;
    match place {
        Place::ChannelZero if rule.id == connection::Close::ID => Closed,
        Place::ChannelZero if of_handshake(rule.id) => Refused(Fault::NotDue, 503),
        Place::ChannelZero | Place::Open if !rule.answers.is_empty() => {
            Refused(Fault::UnexpectedReply, 503)
        }
        Place::Open if opens => Refused(Fault::ChannelAlreadyOpen, 504),
        Place::ChannelZero | Place::Open => Accepted,
        Place::OverTheMaximum => Refused(Fault::ChannelNumber(CHANNEL_MAX), 504),
        Place::NeverOpened | Place::ClosedByThePeer | Place::ClosedByThisSide if opens => Accepted,
        Place::NeverOpened => Refused(Fault::ChannelNotOpen, 504),
        Place::ClosedByThePeer | Place::ClosedByThisSide if role == Role::Server => {
            Refused(Fault::ChannelNotOpen, 504)
        }
        // What a server sends may cross a close.
        Place::ClosedByThePeer | Place::ClosedByThisSide => Ignored,
        Place::Closing if rule.id == channel::Close::ID => Answered,
        // The answer to the close frees the number, without an event at a server.
        Place::Closing if rule.id == channel::CloseOk::ID && role == Role::Client => Accepted,
        Place::Closing => Ignored,
        Place::HeaderDue | Place::BodyDue => Refused(Fault::MethodInContent, 505),
    }
}

fn configs() -> (client::Config, server::Config) {
    let client = client::Config {
        channel_max: CHANNEL_MAX,
        checks: Checks::Standard,
        ..client::Config::default()
    };
    (client, server::Config::default())
}

/// A side of an open connection with that place on it. Channel 1 has a consumer and an unconfirmed
/// publish, so that deliveries and confirms make sense.
fn side_with(role: Role, place: Place) -> Side {
    let (client, server) = configs();
    let mut pair = Pair::open_with(client, server);
    let id = pair.open_channel();
    let mut channel = pair.client_channel(id);
    channel.send(&confirm::Select::default()).unwrap();
    let name = harmless::NAME;
    let consume = basic::Consume::default().queue(name);
    let consume = consume.consumer_tag(name).no_wait(true);
    channel.consume(consume).unwrap();
    let publish = basic::Publish::default();
    let properties = basic::Properties::default();
    let seq = channel.publish(&publish, &properties, "").unwrap();
    assert_eq!(seq.unwrap().get(), harmless::TAG);
    pair.exchange();
    pair.take_client_events();
    pair.take_server_events();

    let id = pair.open_channel();
    let by_client = match (place, role) {
        (Place::ClosedByThePeer, Role::Server)
        | (Place::ClosedByThisSide | Place::Closing, Role::Client) => Some(true),
        (Place::ClosedByThePeer, Role::Client)
        | (Place::ClosedByThisSide | Place::Closing, Role::Server) => Some(false),
        _ => None,
    };
    match by_client {
        None => {}
        Some(true) => {
            let mut channel = pair.client_channel(id);
            channel.close(ReplyCode::SUCCESS, "bye").unwrap();
        }
        Some(false) => {
            let mut channel = pair.server_channel(id);
            channel
                .close(ReplyCode::NOT_FOUND, "no queue", None)
                .unwrap();
        }
    }
    if place == Place::Closing {
        pair.collect_output();
    } else {
        pair.exchange();
    }
    let mut side = Side::of(pair, role);
    if matches!(place, Place::HeaderDue | Place::BodyDue) {
        let method = content_method(role);
        assert_eq!(side.feed(&method_frame(1, &method)), []);
        if place == Place::BodyDue {
            let header = header_frame(1, method.id().class, 0, 1, &[]);
            assert_eq!(side.feed(&header), []);
        }
    }
    side
}

/// A method that a message for that role begins with.
fn content_method(role: Role) -> Method {
    every_method()
        .into_iter()
        .find(|method| method.rule().content && role.hears(method.rule()))
        .unwrap()
}

fn check(mut side: Side, number: u16, method: &Method, expected: Expected) {
    let id = method.id();
    let mut events = side.feed(&method_frame(number, method));
    match expected {
        Expected::Accepted => {
            if method.rule().content {
                assert_eq!(events, []);
                events = side.feed(&header_frame(number, id.class, 0, 0, &[]));
            }
            assert!(!events.is_empty());
            assert_eq!(side.close_reason(), None);
        }
        Expected::Ignored => {
            assert_eq!(events, []);
            assert_eq!(side.close_reason(), None);
            assert_eq!(side.sent_frames(), []);
        }
        Expected::Answered => {
            assert_crossed(&side, &events);
            assert_eq!(side.close_reason(), None);
            let [answer] = &side.sent_frames()[..] else {
                panic!("one answer");
            };
            assert_eq!(answer.channel, number);
            assert_eq!(answer.method().id(), channel::CloseOk::ID);
        }
        Expected::Closed => {
            let [reason] = &events.iter().filter_map(Event::closed).collect::<Vec<_>>()[..] else {
                panic!("{events:?}");
            };
            let CloseCause::ByPeer(close) = reason.cause() else {
                panic!("{reason:?}");
            };
            assert_eq!(close.code, ReplyCode::SUCCESS);
            let [answer] = &side.sent_frames()[..] else {
                panic!("one answer");
            };
            assert_eq!(answer.method(), Method::from(connection::CloseOk));
            assert!(side.is_finished());
        }
        Expected::Refused(fault, code) => {
            side.assert_failed(&events, &fault, code, Some(id));
        }
    }
}

/// A client's request for the close of a channel fails with the reason of the one that crossed it.
fn assert_crossed(side: &Side, events: &[Event]) {
    match (&side.machine, events) {
        (Machine::Server(_), []) => {}
        (
            Machine::Client(_),
            [
                Event::Client(ClientEvent::Failed { cause, .. }),
                Event::Client(ClientEvent::ChannelClosed { reason, .. }),
            ],
        ) => assert_eq!(*cause, RequestError::ChannelClosed(reason.clone())),
        (_, events) => panic!("{events:?}"),
    }
}

#[test]
fn the_legality_table_on_an_open_connection() {
    let mut checked = 0;
    for role in Role::BOTH {
        for place in PLACES {
            for method in every_method() {
                let rule = method.rule();
                let expected = when_open(role, rule, place);
                std::println!("{role:?}: {} on {place:?} is {expected:?}", rule.name);
                check(side_with(role, place), place.number(), &method, expected);
                checked += 1;
            }
        }
    }
    assert_eq!(checked, 2 * PLACES.len() * RULES.len());
}

/// A channel that is being closed ends with the close-ok, and its number is free.
#[test]
fn methods_ignored_on_a_closing_channel_leave_it_closing() {
    for role in Role::BOTH {
        let mut side = side_with(role, Place::Closing);
        let number = Place::Closing.number();
        for method in every_method() {
            let rule = method.rule();
            let heard = role.hears(rule) && !rule.connection;
            let opens = role == Role::Server && rule.id == channel::Open::ID;
            if heard && !opens && rule.id != channel::CloseOk::ID {
                let events = side.feed(&method_frame(number, &method));
                if rule.id == channel::Close::ID {
                    assert_crossed(&side, &events);
                } else {
                    assert_eq!(events, []);
                }
            }
        }
        assert_eq!(side.feed(&header_frame(number, 60, 0, 3, &[])), []);
        assert_eq!(side.feed(&body_frame(number, b"abc")), []);
        let sent = side.sent_frames();
        assert_eq!(
            sent.len(),
            1,
            "a crossing close is answered, and nothing else"
        );
        let close_ok = method_frame(number, &channel::CloseOk.into());
        let events = side.feed(&close_ok);
        let opening = match role {
            // The client's request has failed with the crossing close.
            Role::Client => {
                assert_eq!(events, []);
                side.as_client().open_channel_at(number).is_ok()
            }
            Role::Server => {
                assert_eq!(events, []);
                let open = method_frame(number, &channel::Open.into());
                matches!(
                    side.feed(&open)[..],
                    [Event::Server(server::Event::ChannelOpened { .. })]
                )
            }
        };
        assert!(opening && side.close_reason().is_none());
    }
}

#[test]
fn while_the_connection_closes_only_the_close_and_its_answer_matter() {
    for role in Role::BOTH {
        for method in every_method() {
            for number in [0, 1, 2, CHANNEL_MAX, CHANNEL_MAX + 1] {
                let mut side = side_with(role, Place::Open);
                side.close(ReplyCode::SUCCESS, "bye");
                assert!(!side.sent().is_empty());
                let events = side.feed(&method_frame(number, &method));
                let answer = (number, method.id()) == (0, connection::CloseOk::ID);
                let crossing = (number, method.id()) == (0, connection::Close::ID);
                let closed: Vec<_> = events.iter().filter_map(Event::closed).collect();
                if answer || crossing {
                    assert_eq!(closed.len(), 1);
                    assert_eq!(closed[0].is_clean(), answer);
                    assert_eq!(closed[0].by_peer().is_some(), crossing);
                } else {
                    assert_eq!(events, []);
                }
                assert_eq!(side.sent_frames().len(), usize::from(crossing));
                assert_eq!(side.is_finished(), answer || crossing);
            }
        }
    }
}
