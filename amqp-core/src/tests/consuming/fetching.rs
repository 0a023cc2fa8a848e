//! Messages that are fetched.

use alloc::vec::Vec;

use super::{Client, delivered, fault, open};
use crate::{
    ApiMisuse, Fault, Tags,
    client::Event,
    frame::FrameKind,
    protocol::{basic, queue},
    tests::script::*,
};

fn got(client: &mut Client) -> Option<(Option<u64>, Vec<u8>)> {
    let Event::Got { message, .. } = client.only_event() else {
        panic!("nothing was fetched");
    };
    message.map(|message| {
        let tag = message.tag.map(|tag| tag.get());
        (tag, message.content.body.to_vec())
    })
}

#[test]
fn a_message_is_fetched_in_frames() {
    let (mut client, id) = open();
    let properties = basic::Properties::default().delivery_mode(2);
    let get = basic::Get::default().queue("q");
    let request = client.on(id).get(&get).unwrap();
    assert_eq!(client.sent(), [method(1, get.clone())]);
    let ok = basic::GetOk {
        delivery_tag: 1,
        redelivered: true,
        exchange: name("ex"),
        routing_key: name("key"),
        message_count: 7,
    };
    client.send(1, &ok);
    client.feed(&header_frame(1, &properties, 10));
    client.feed(&frame(FrameKind::Body, 1, b"hello "));
    assert_eq!(client.events(), []);
    client.feed(&frame(FrameKind::Body, 1, b"you!"));
    let Event::Got {
        channel,
        request: answered,
        message,
    } = client.only_event()
    else {
        panic!("nothing was fetched");
    };
    assert_eq!((channel, answered), (id, request));
    let message = message.unwrap();
    assert_eq!(message.tag, Some(tag(1)));
    assert_eq!(message.method, ok);
    assert_eq!(message.content.body, b"hello you!");
    assert_eq!(message.content.properties.decode().unwrap(), properties);
    client.on(id).ack(Tags::One(tag(1))).unwrap();

    let request = client.on(id).get(&get).unwrap();
    client.send(1, &basic::GetEmpty);
    let message = None;
    assert_eq!(
        client.events(),
        [Event::Got {
            channel: id,
            request,
            message
        }]
    );
}

#[test]
fn each_get_has_its_own_answer() {
    let (mut client, id) = open();
    client.consumer(id, "t", true);
    let properties = basic::Properties::default();
    let keep = basic::Get::default();
    let no_ack = basic::Get::default().no_ack(true);
    let large = [7; 50_000];
    let get_ok = |number| basic::GetOk::default().delivery_tag(number);
    let requests: Vec<_> = [&keep, &keep, &no_ack, &keep]
        .into_iter()
        .map(|get| client.on(id).get(get).unwrap())
        .collect();
    client.bytes();
    client.send_content(1, &get_ok(1), &properties, &large);
    client.send(1, &basic::GetEmpty);
    client.deliver(id, "t", 2);
    client.send_content(1, &get_ok(3), &properties, &large);
    client.send_content(1, &get_ok(4), &properties, b"");
    let mut answers = Vec::new();
    for event in client.events() {
        if let Event::Got {
            request, message, ..
        } = event
        {
            let message = message.map(|message| (message.tag, message.content.body.len()));
            answers.push((request, message));
        } else {
            assert!(matches!(event, Event::Delivered(_)));
        }
    }
    assert_eq!(
        answers,
        [
            (requests[0], Some((Some(tag(1)), 50_000))),
            (requests[1], None),
            (requests[2], Some((None, 50_000))),
            (requests[3], Some((Some(tag(4)), 0))),
        ]
    );
    // A message fetched with `no_ack` is not outstanding.
    let unknown = ApiMisuse::UnknownDeliveryTag(3);
    assert_eq!(client.on(id).ack(Tags::One(tag(3))), Err(unknown));
    client.on(id).ack(Tags::UpTo(tag(4))).unwrap();
    // Another reply is unexpected.
    client.send(1, &basic::GetEmpty);
    assert_eq!(fault(&mut client), Fault::UnexpectedReply);
}

#[test]
fn a_message_without_a_get_is_a_fault() {
    let (mut client, id) = open();
    client.on(id).call(&queue::Declare::default()).unwrap();
    let properties = basic::Properties::default();
    let ok = basic::GetOk::default().delivery_tag(1);
    client.send_content(1, &ok, &properties, b"x");
    assert_eq!(fault(&mut client), Fault::UnexpectedReply);
}

#[test]
fn a_fetched_message_and_a_delivery_share_their_numbers() {
    let (mut client, id) = open();
    client.consumer(id, "t", false);
    client.deliver(id, "t", 1);
    delivered(&mut client);
    client.on(id).get(&basic::Get::default()).unwrap();
    client.bytes();
    let ok = basic::GetOk::default().delivery_tag(2);
    client.send_content(1, &ok, &basic::Properties::default(), b"x");
    assert_eq!(got(&mut client), Some((Some(2), b"x".to_vec())));
    client.on(id).ack(Tags::UpTo(tag(2))).unwrap();
    assert_eq!(client.sent(), [method(1, ack(2, true))]);
    assert!(client.on(id).ack(Tags::One(tag(1))).is_err());
}
