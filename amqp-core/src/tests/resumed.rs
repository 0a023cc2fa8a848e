//! A connection that takes the place of an ended one: its numbers go on, and those of before name
//! nothing else.

use super::script::*;
use crate::{
    ApiMisuse, ChannelId, ConsumerId, Requeue, Tags,
    client::{Config, Connection, Event, Outcome},
    protocol::{Method, ReplyCode, basic, channel, confirm},
};

type Client = Script<Connection>;

/// The first consumer of a channel.
const FIRST: ConsumerId = ConsumerId(0);

fn config() -> Config {
    Config::default().resumable(true)
}

/// A client with a channel and a consumer, to which `deliveries` messages were delivered.
fn consuming(deliveries: u64) -> (Client, ChannelId) {
    let mut client = Client::open_with(config());
    let id = client.channel();
    client.consumer(id, "t", false);
    for number in 1..=deliveries {
        client.deliver(id, "t", number);
    }
    client.events();
    (client, id)
}

fn lose(mut client: Client) -> Client {
    client.conn.handle_eof(client.now);
    let events = client.events();
    assert!(
        matches!(events.last(), Some(Event::Closed(_))),
        "{events:?}"
    );
    client.resumed(config())
}

/// Starts the consumer of [`consuming`] again.
fn resume(client: &mut Client, id: ChannelId) {
    let request = client
        .on(id)
        .resume_consumer(FIRST, consume("queue", "t"))
        .unwrap();
    assert_eq!(client.sent(), [method(id.number(), consume("queue", "t"))]);
    let ok = basic::ConsumeOk::default().consumer_tag("t");
    client.send(id.number(), &ok);
    assert_eq!(client.events(), [replied(id, request, ok)]);
}

fn delivered(client: &mut Client) -> u64 {
    match client.only_event() {
        Event::Delivered(delivery) => {
            let tag = delivery.tag.unwrap().get();
            assert_eq!(delivery.method.delivery_tag, tag);
            assert_eq!(delivery.consumer.index(), 0);
            tag
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn delivery_tags_go_on_and_are_translated_on_the_wire() {
    let (client, id) = consuming(5);
    let mut client = lose(client);
    client.reopen(id);
    resume(&mut client, id);
    client.deliver(id, "t", 1);
    assert_eq!(delivered(&mut client), 6);
    client.deliver(id, "t", 2);
    assert_eq!(delivered(&mut client), 7);
    client.deliver(id, "t", 3);
    assert_eq!(delivered(&mut client), 8);
    client.on(id).ack(Tags::One(tag(7))).unwrap();
    client
        .on(id)
        .nack(Tags::UpTo(tag(8)), Requeue::Yes)
        .unwrap();
    let nack = basic::Nack {
        requeue: true,
        ..nack(3, true)
    };
    assert_eq!(
        client.sent(),
        [
            method(id.number(), ack(2, false)),
            method(id.number(), nack)
        ]
    );
}

#[test]
fn a_delivery_of_before_is_stale_however_it_is_settled() {
    let (client, id) = consuming(5);
    let mut client = lose(client);
    client.reopen(id);
    resume(&mut client, id);
    client.deliver(id, "t", 5);
    assert_eq!(delivered(&mut client), 10);
    let stale = Err(ApiMisuse::StaleDeliveryTag(5));
    assert_eq!(client.on(id).ack(Tags::One(tag(5))), stale);
    assert_eq!(client.on(id).ack(Tags::UpTo(tag(5))), stale);
    assert_eq!(client.on(id).nack(Tags::One(tag(5)), Requeue::No), stale);
    assert_eq!(client.on(id).reject(tag(5), Requeue::Yes), stale);
    assert_eq!(client.on(id).withhold(tag(5)), stale);
    assert_eq!(client.on(id).requeue_withheld(tag(5)), stale);
    assert_eq!(
        client.on(id).ack(Tags::One(tag(6))),
        Err(ApiMisuse::UnknownDeliveryTag(6))
    );
    assert_eq!(client.sent(), []);
}

#[test]
fn fetched_messages_and_withheld_ones_are_translated_too() {
    let (client, id) = consuming(3);
    let mut client = lose(client);
    client.reopen(id);
    resume(&mut client, id);
    let get = basic::Get::default().queue("queue");
    client.on(id).get(&get).unwrap();
    client.bytes();
    let ok = basic::GetOk {
        delivery_tag: 1,
        ..basic::GetOk::default()
    };
    client.send_content(id.number(), &ok, &basic::Properties::default(), b"x");
    let Event::Got {
        message: Some(message),
        ..
    } = client.only_event()
    else {
        panic!("no message");
    };
    assert_eq!(message.tag, Some(tag(4)));
    client.on(id).reject(tag(4), Requeue::No).unwrap();
    client.deliver(id, "t", 2);
    assert_eq!(delivered(&mut client), 5);
    client.on(id).withhold(tag(5)).unwrap();
    client.on(id).requeue_withheld(tag(5)).unwrap();
    let reject = basic::Reject {
        delivery_tag: 1,
        requeue: false,
    };
    let requeued = basic::Nack {
        delivery_tag: 2,
        multiple: false,
        requeue: true,
    };
    assert_eq!(
        client.sent(),
        [method(id.number(), reject), method(id.number(), requeued)]
    );
}

#[test]
fn a_delivery_that_no_consumer_receives_is_requeued_under_its_number_on_the_wire() {
    let (client, id) = consuming(3);
    let mut client = lose(client);
    client.reopen(id);
    resume(&mut client, id);
    client.on(id).abandon_consumer(&name("t"), FIRST);
    client.bytes();
    client.deliver(id, "t", 1);
    let requeued = basic::Nack {
        delivery_tag: 1,
        multiple: false,
        requeue: true,
    };
    assert_eq!(client.sent(), [method(id.number(), requeued)]);
}

#[test]
fn publish_numbers_go_on_and_confirms_are_translated() {
    let mut client = Client::open_with(config());
    let id = client.confirm_channel();
    for number in 1..=4 {
        assert_eq!(client.publish(id, b"x"), Some(seq(number)));
    }
    client.bytes();
    client.send(id.number(), &ack(1, false));
    assert_eq!(client.events(), [settled(id, 1, 1, Outcome::Acked)]);
    let mut client = lose(client);
    client.reopen(id);
    client.call(id, &confirm::Select::default(), &confirm::SelectOk);
    assert_eq!(client.publish(id, b"x"), Some(seq(5)));
    assert_eq!(client.publish(id, b"x"), Some(seq(6)));
    assert_eq!(client.publish(id, b"x"), Some(seq(7)));
    client.bytes();
    client.send(id.number(), &nack(2, false));
    assert_eq!(client.events(), [settled(id, 6, 6, Outcome::Nacked)]);
    client.send(id.number(), &ack(0, true));
    assert_eq!(
        client.events(),
        [
            settled(id, 5, 5, Outcome::Acked),
            settled(id, 7, 7, Outcome::Acked)
        ]
    );
}

#[test]
fn numbers_go_on_over_a_life_without_confirm_mode() {
    let mut client = Client::open_with(config());
    let id = client.confirm_channel();
    assert_eq!(client.publish(id, b"x"), Some(seq(1)));
    let mut client = lose(client);
    client.reopen(id);
    let mut client = lose(client);
    client.reopen(id);
    client.call(id, &confirm::Select::default(), &confirm::SelectOk);
    assert_eq!(client.publish(id, b"x"), Some(seq(2)));
}

#[test]
fn a_channel_that_the_server_closed_is_reopened_on_the_same_connection() {
    let (mut client, id) = consuming(2);
    let close = channel::Close {
        reply_code: ReplyCode::NOT_FOUND,
        ..channel::Close::default()
    };
    client.send(id.number(), &close);
    assert_eq!(client.sent(), [method(id.number(), channel::CloseOk)]);
    client.events();
    client.reopen(id);
    resume(&mut client, id);
    client.deliver(id, "t", 1);
    assert_eq!(delivered(&mut client), 3);
}

#[test]
fn identifiers_of_before_are_never_used_for_another_channel() {
    let mut client = Client::open_with(config());
    let (first, second) = (client.channel(), client.channel());
    let mut client = lose(client);
    client.reopen(second);
    // The next free number is that of the first channel, which is not reopened.
    let request = client.conn.open_channel_at(first.number()).unwrap();
    assert_ne!(request.0, first);
    client.send(first.number(), &channel::OpenOk);
    client.events();
    assert!(matches!(
        client.conn.reopen_channel(first),
        Err(ApiMisuse::ChannelNumber { .. })
    ));
    assert!(client.conn.channel(first).is_none());
    assert!(client.conn.channel(second).is_some());
    // Nor once the later one has ended.
    let close = channel::Close {
        reply_code: ReplyCode::NOT_FOUND,
        ..channel::Close::default()
    };
    client.send(first.number(), &close);
    client.bytes();
    assert!(client.conn.channel(request.0).is_none());
    assert!(matches!(
        client.conn.reopen_channel(first),
        Err(ApiMisuse::ChannelNumber { .. })
    ));
}

#[test]
fn requests_and_statistics_go_on() {
    let (mut client, id) = consuming(3);
    let qos = basic::Qos::default().prefetch_count(1);
    let last = client.on(id).call(&qos).unwrap();
    let mut client = lose(client);
    assert_eq!(client.conn.stats().delivered, 3);
    client.reopen(id);
    let next = client.on(id).call(&qos).unwrap();
    assert!(next > last);
    client.bytes();
    client.send(id.number(), &basic::QosOk);
    let reply = Method::from(basic::QosOk);
    assert_eq!(client.events(), [replied(id, next, reply)]);
}

#[test]
fn a_new_consumer_gets_a_number_of_its_own() {
    let (client, id) = consuming(1);
    let mut client = lose(client);
    client.reopen(id);
    assert_eq!(client.consumer(id, "other", false).index(), 1);
    resume(&mut client, id);
    assert_eq!(client.consumer(id, "third", false).index(), 2);
}

#[test]
fn a_server_that_counts_without_end_does_no_harm() {
    let (client, id) = consuming(3);
    let mut client = lose(client);
    client.reopen(id);
    resume(&mut client, id);
    client.deliver(id, "t", u64::MAX);
    assert_eq!(delivered(&mut client), u64::MAX);
    let mut client = lose(client);
    client.reopen(id);
    resume(&mut client, id);
    client.deliver(id, "t", 1);
    assert_eq!(delivered(&mut client), u64::MAX);
}
