//! Every reply to every request.

use alloc::{collections::BTreeSet, vec::Vec};

use super::configs;
use crate::{
    ChannelId, MethodDef as _, MethodId, RequestId,
    client::{ChannelMut, Event as ClientEvent},
    fault::Fault,
    protocol::{RULES, ReplyCode, basic, channel, confirm, exchange, queue, tx},
    server,
    tests::{
        harmless::{every_method, harmless},
        pair::Pair,
        side::{Event, Role, Side, header_frame, method_frame},
    },
};

/// Asks for something on a channel.
type Ask = fn(&mut ChannelMut<'_>) -> RequestId;

macro_rules! calls {
    ($($request:ty),* $(,)?) => {
        [$((<$request>::ID, |channel| {
            channel.call(&harmless::<$request>()).unwrap()
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
        let consume = harmless::<basic::Consume>();
        channel.consume(consume).unwrap().2
    }));
    requests.push((basic::Get::ID, |channel| {
        let get = harmless::<basic::Get>();
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
        for answer in every_method() {
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
                // Methods after the close-ok are ignored.
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

/// A request of a server has one answer, and an answer without a request is a fault.
#[test]
fn a_client_answers_a_server_only_when_it_was_asked() {
    let cancel = |no_wait| {
        let cancel = basic::Cancel::default().consumer_tag("t");
        cancel.no_wait(no_wait)
    };
    let cancel_ok = basic::CancelOk::default().consumer_tag("t");
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
