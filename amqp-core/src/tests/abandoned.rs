//! Consumers without a handle.

use super::{
    pair::Pair,
    side::{Event, Role, Side, method_frame},
};
use crate::{
    ChannelId, ConsumerId, RequestId,
    client::Event as ClientEvent,
    protocol::{ClientMethod, Method, ReplyCode, basic},
    server::Event as ServerEvent,
    wire::ShortStr,
};

const TAG: ShortStr = ShortStr::from_static("tag").unwrap();

fn consume(pair: &mut Pair, id: ChannelId) -> (ConsumerId, RequestId) {
    let consume = basic::Consume::default().consumer_tag(&TAG);
    let (consumer, tag, request) = pair.client_channel(id).consume(consume).unwrap();
    assert_eq!(tag, TAG);
    (consumer, request)
}

fn cancel() -> basic::Cancel {
    basic::Cancel::default().consumer_tag(&TAG)
}

/// A tag that was cancelled without waiting can be used again at once. The new consumer is given up
/// and cancelled when it is confirmed.
#[test]
fn a_consumer_is_given_up_before_it_is_confirmed() {
    let mut pair = Pair::open();
    let id = pair.open_channel();
    let (_, first) = consume(&mut pair, id);
    pair.client_channel(id).send(&cancel()).unwrap();
    let (second, _) = consume(&mut pair, id);
    pair.client_channel(id).abandon_consumer(&TAG, second);
    pair.exchange();
    assert_eq!(pair.take_server_events().len(), 3);

    let ok = basic::ConsumeOk { consumer_tag: TAG };
    pair.server_channel(id).send(&ok).unwrap();
    pair.exchange();
    assert_eq!(pair.only_reply(first), Method::from(ok.clone()));
    assert_eq!(pair.take_server_events(), []);
    pair.server_channel(id).send(&ok).unwrap();
    pair.exchange();
    assert_eq!(pair.take_client_events(), []);
    let cancelled = ServerEvent::Request {
        channel: id,
        method: ClientMethod::BasicCancel(cancel()),
    };
    assert_eq!(pair.take_server_events(), [cancelled]);
}

/// No event follows, not even when the connection is closing.
#[test]
fn a_consumer_is_given_up_while_the_connection_closes() {
    let mut pair = Pair::open();
    let id = pair.open_channel();
    let (consumer, _) = consume(&mut pair, id);
    pair.client.close(ReplyCode::SUCCESS, "bye");
    pair.client_channel(id).abandon_consumer(&TAG, consumer);
    pair.exchange();
    assert!(matches!(
        pair.take_client_events()[..],
        [ClientEvent::Closed(_)]
    ));
}

/// A message that is against the protocol settles the request that it was to answer, too.
#[test]
fn a_message_without_a_number_does_not_lose_its_request() {
    let mut pair = Pair::open();
    let id = pair.open_channel();
    let get = basic::Get::default();
    let request = pair.client_channel(id).get(&get).unwrap();
    let mut client = Side::of(pair, Role::Client);
    let got = basic::GetOk::default().delivery_tag(0);
    let events = client.feed(&method_frame(1, &got.into()));
    assert!(matches!(
        &events[..],
        [
            Event::Client(ClientEvent::Failed { request: failed, .. }),
            Event::Client(ClientEvent::Closed(_))
        ] if *failed == request
    ));
}
