//! The legality table, enumerated: every method of it, to both roles, on channels in every state, in
//! every stage of a connection. What is to become of each follows from its row.

use alloc::{collections::BTreeSet, vec, vec::Vec};

use super::{
    pair::Pair,
    sampler::Harmless,
    samples::every_method,
    side::{Event, Machine, Role, Side, body_frame, header_frame, method_frame},
};
use crate::{
    ChannelId, MethodDef as _, MethodId, RequestId, Rule, Stage,
    client::{self, ChannelMut, Checks, Event as ClientEvent},
    close::{CloseCause, RequestError},
    fault::Fault,
    frame::PROTOCOL_HEADER,
    protocol::{
        Method, RULES, ReplyCode, basic, channel, confirm, connection, exchange, queue, tx,
    },
    server,
};

/// What is to become of a method.
#[derive(Debug)]
enum Expected {
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
enum Place {
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

const PLACES: [Place; 9] = [
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
    let due = Step::ALL.iter().flat_map(|step| step.due());
    due.into_iter().any(|due| due == id)
}

/// What is to become of a method on an open connection, on which nothing was asked.
fn expected_when_open(role: Role, rule: &Rule, place: Place) -> Expected {
    use Expected::{Accepted, Answered, Closed, Ignored, Refused};
    if role == Role::Server
        && let Some(expected) = expected_of_server_first(rule, place)
    {
        return expected;
    }
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
        // Nobody but the peer of a close knows when it has taken effect.
        Place::ClosedByThePeer | Place::ClosedByThisSide => Ignored,
        Place::Closing if rule.id == channel::Close::ID => Answered,
        // The answer to the close frees the number, which a server has nobody to tell of.
        Place::Closing if rule.id == channel::CloseOk::ID && role == Role::Client => Accepted,
        Place::Closing => Ignored,
        Place::HeaderDue | Place::BodyDue => Refused(Fault::MethodInContent, 505),
    }
}

/// What a server looks at before it looks at who may say the method where.
fn expected_of_server_first(rule: &Rule, place: Place) -> Option<Expected> {
    use Expected::{Ignored, Refused};
    let opens = rule.id == channel::Open::ID;
    let closes = [channel::Close::ID, channel::CloseOk::ID].contains(&rule.id);
    match place {
        Place::HeaderDue | Place::BodyDue => Some(Refused(Fault::MethodInContent, 505)),
        Place::NeverOpened
        | Place::OverTheMaximum
        | Place::ClosedByThePeer
        | Place::ClosedByThisSide
            if !opens =>
        {
            Some(Refused(Fault::ChannelNotOpen, 504))
        }
        Place::Closing if opens => Some(Refused(Fault::ChannelAlreadyOpen, 504)),
        Place::Closing if !closes => Some(Ignored),
        _ => None,
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
/// publish, so that what a server may say of these makes sense.
fn side_with(role: Role, place: Place) -> Side {
    let (client, server) = configs();
    let mut pair = Pair::open_with(client, server);
    let id = pair.open_channel();
    let mut channel = pair.client_channel(id);
    channel.send(&confirm::Select::default()).unwrap();
    let name = Harmless::NAME;
    let consume = basic::Consume::default().queue(name).unwrap();
    let consume = consume.consumer_tag(name).unwrap().no_wait(true);
    channel.consume(consume).unwrap();
    let publish = basic::Publish::default();
    let properties = basic::Properties::default();
    let seq = channel.publish(&publish, &properties, "").unwrap();
    assert_eq!(seq.unwrap().get(), Harmless::TAG);
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
    every_method(&mut Harmless::default())
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
            for method in every_method(&mut Harmless::default()) {
                let rule = method.rule();
                let expected = expected_when_open(role, rule, place);
                std::println!("{role:?}: {} on {place:?} is {expected:?}", rule.name);
                check(side_with(role, place), place.number(), &method, expected);
                checked += 1;
            }
        }
    }
    assert_eq!(checked, 2 * PLACES.len() * RULES.len());
}

/// A closed channel whose close was not answered yet ends with the answer, and its number is free.
#[test]
fn what_is_ignored_on_a_closing_channel_leaves_it_closing() {
    for role in Role::BOTH {
        let mut side = side_with(role, Place::Closing);
        let number = Place::Closing.number();
        for method in every_method(&mut Harmless::default()) {
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

/// A moment before the connection is open, or while it is closing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
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

impl Step {
    const ALL: [Self; 9] = [
        Self::Start,
        Self::SecureOrTune,
        Self::OpenOk,
        Self::StartOk,
        Self::CredentialsUndecided,
        Self::SecureOk,
        Self::TuneOk,
        Self::Open,
        Self::HostUndecided,
    ];

    /// The methods that may come, beside a close.
    fn due(self) -> Vec<MethodId> {
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

    fn role(self) -> Role {
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
            let samples = every_method(&mut Harmless::default());
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

/// What is to become of a method during the handshake.
fn expected_during_handshake(step: Step, rule: &Rule, number: u16) -> Expected {
    use Expected::{Accepted, Closed, Refused};
    let of_server = step.role() == Role::Server;
    if of_server && number != 0 {
        Refused(Fault::NotDue, 503)
    } else if of_server && rule.id == connection::Close::ID {
        // Who is not in yet cannot leave.
        Refused(Fault::NotDue, 503)
    } else if !step.role().hears(rule) {
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
    for step in Step::ALL {
        for number in [0, 1] {
            for method in every_method(&mut Harmless::default()) {
                let rule = method.rule();
                let expected = expected_during_handshake(step, rule, number);
                std::println!("{} on {number} at {step:?} is {expected:?}", rule.name);
                let mut side = step.side();
                if let Expected::Accepted = expected {
                    let events = side.feed(&method_frame(number, &method));
                    let told = !events.is_empty() || !side.sent().is_empty();
                    // `PLAIN` knows no answer to a challenge, and the server waits for `open`
                    // when it has agreed to the limits.
                    assert!(told || rule.id == connection::TuneOk::ID);
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
    for step in Step::ALL {
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

#[test]
fn while_the_connection_closes_only_the_close_and_its_answer_matter() {
    for role in Role::BOTH {
        for method in every_method(&mut Harmless::default()) {
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

/// Asks for something on a channel.
type Ask = fn(&mut ChannelMut<'_>) -> RequestId;

macro_rules! calls {
    ($($request:ty),* $(,)?) => {
        [$((<$request>::ID, |channel| {
            channel.call(&<$request>::sample(&mut Harmless::default())).unwrap()
        })),*]
    };
}

/// All requests of a client on a channel that are answered. Their types cannot be had from the
/// table; that none is missing can.
const CALLS: [(MethodId, Ask); 17] = calls![
    channel::Flow,
    exchange::Declare,
    exchange::Delete,
    exchange::Bind,
    exchange::Unbind,
    queue::Declare,
    queue::Bind,
    queue::Unbind,
    queue::Purge,
    queue::Delete,
    basic::Qos,
    basic::Cancel,
    basic::Recover,
    confirm::Select,
    tx::Select,
    tx::Commit,
    tx::Rollback,
];

fn requests() -> Vec<(MethodId, Ask)> {
    let mut requests = CALLS.to_vec();
    requests.push((basic::Consume::ID, |channel| {
        let consume = basic::Consume::sample(&mut Harmless::default());
        channel.consume(consume).unwrap().2
    }));
    requests.push((basic::Get::ID, |channel| {
        let get = basic::Get::sample(&mut Harmless::default());
        channel.get(&get).unwrap()
    }));
    requests.push((channel::Close::ID, |channel| {
        channel.close(ReplyCode::SUCCESS, "bye").unwrap()
    }));
    requests
}

#[test]
fn every_request_of_the_table_is_among_those_asked() {
    let asked: BTreeSet<_> = requests().into_iter().map(|(id, _)| id).collect();
    let of_table = RULES.iter().filter(|rule| {
        rule.client_sends
            && !rule.connection
            && !rule.responses.is_empty()
            && rule.id != channel::Open::ID
    });
    assert_eq!(asked, of_table.map(|rule| rule.id).collect());
}

/// Every answer settles a request that asked for it, once; and no request of another kind.
#[test]
fn an_answer_is_accepted_when_it_was_asked_for() {
    for (request, ask) in requests() {
        for answer in every_method(&mut Harmless::default()) {
            let rule = answer.rule();
            if !rule.server_sends || rule.connection || rule.answers.is_empty() {
                continue;
            }
            let (client, server) = configs();
            let mut pair = Pair::open_with(client, server);
            let id = pair.open_channel();
            let mut side = Side::of(pair, Role::Client);
            if request.class == tx::Commit::ID.class && request != tx::Select::ID {
                ask_on(&mut side, id, tx::Select::ID);
                let ok = tx::SelectOk;
                assert_eq!(side.feed(&method_frame(1, &ok.into())).len(), 1);
            }
            let asked = ask(&mut side.as_client().channel(id).unwrap());
            side.sent();

            let mut message = method_frame(1, &answer);
            if rule.content {
                message.extend(header_frame(1, rule.id.class, 0, 0, &[]));
            }
            let events = side.feed(&message);
            let closing = request == channel::Close::ID;
            if rule.answers.contains(&request) {
                let [event] = &events[..] else {
                    panic!("{} gives {events:?}", rule.name);
                };
                assert_eq!(answered(event), Some(asked), "{}", rule.name);
                assert_eq!(side.close_reason(), None);
                // What comes after the answer to a close is ignored.
                let events = side.feed(&message);
                if closing {
                    assert_eq!(events, []);
                } else {
                    side.assert_failed(&events, &Fault::UnexpectedReply, 503, Some(rule.id));
                }
            } else if closing {
                assert_eq!(events, []);
            } else {
                side.assert_failed(&events, &Fault::UnexpectedReply, 503, Some(rule.id));
            }
        }
    }
}

fn ask_on(side: &mut Side, id: ChannelId, request: MethodId) {
    let requests = requests();
    let (_, ask) = requests.iter().find(|(id, _)| *id == request).unwrap();
    ask(&mut side.as_client().channel(id).unwrap());
}

/// The request that an event is the answer of.
fn answered(event: &Event) -> Option<RequestId> {
    match event {
        Event::Client(ClientEvent::Reply { request, .. } | ClientEvent::Got { request, .. }) => {
            Some(*request)
        }
        Event::Client(_) | Event::Server(_) => None,
    }
}

/// What a server asks a client is answered once, and what it has not asked is not answered.
#[test]
fn a_client_answers_a_server_only_when_it_was_asked() {
    let cancel = |no_wait| {
        let cancel = basic::Cancel::default().consumer_tag("t").unwrap();
        cancel.no_wait(no_wait)
    };
    let cancel_ok = basic::CancelOk::default().consumer_tag("t").unwrap();
    let answer = method_frame(1, &cancel_ok.into());
    for asked in [1, 2] {
        let mut pair = Pair::open();
        let id = pair.open_channel();
        let mut channel = pair.server_channel(id);
        channel.send(&cancel(true)).unwrap();
        for _ in 0..asked {
            channel.send(&cancel(false)).unwrap();
        }
        let mut side = Side::of(pair, Role::Server);
        for _ in 0..asked {
            assert!(matches!(
                side.feed(&answer)[..],
                [Event::Server(server::Event::Request { .. })]
            ));
        }
        let id = Some(basic::CancelOk::ID);
        let events = side.feed(&answer);
        side.assert_failed(&events, &Fault::UnexpectedReply, 503, id);
    }
}

/// The stage is told as it was passed, whoever asks.
#[test]
fn every_step_has_its_stage() {
    for step in Step::ALL {
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
