//! The main path, from the protocol header to the last close.

use alloc::vec;

use super::pair::Pair;
use crate::{
    Requeue, Tags,
    client::{Event, Outcome},
    protocol::{ClientMethod, Method, ReplyCode, basic, confirm, queue},
    server,
    wire::ShortStr,
};

#[test]
fn a_message_is_published_confirmed_delivered_and_acknowledged() {
    for chunk in [None, Some(1), Some(7)] {
        let mut pair = Pair::open();
        pair.chunk = chunk;
        let id = pair.open_channel();

        let declare = queue::Declare::default().queue("hello");
        let request = pair.client_channel(id).call(&declare).unwrap();
        pair.exchange();
        let events = pair.take_server_events();
        assert_eq!(
            events,
            [server::Event::Request {
                channel: id,
                method: ClientMethod::QueueDeclare(declare)
            }]
        );
        let declared = queue::DeclareOk::default().queue("hello");
        pair.server_channel(id).send(&declared).unwrap();
        pair.exchange();
        assert_eq!(pair.only_reply(request), declared.into());

        let request = pair
            .client_channel(id)
            .call(&confirm::Select::default())
            .unwrap();
        pair.exchange();
        pair.server_channel(id).send(&confirm::SelectOk).unwrap();
        pair.exchange();
        assert!(matches!(
            pair.only_reply(request),
            Method::ConfirmSelectOk(_)
        ));
        pair.take_server_events();

        let bodies = [0, 1, 100, 131_064, 131_065, 1 << 20];
        let publish = basic::Publish::default().routing_key("hello");
        let properties = basic::Properties::default().delivery_mode(2);
        for len in bodies {
            let mut channel = pair.client_channel(id);
            let seq = channel.publish(&publish, &properties, vec![7; len]);
            assert!(seq.unwrap().is_some());
            pair.exchange();
            let Some(server::Event::Published(published)) = pair.take_server_events().pop() else {
                panic!("nothing was published");
            };
            assert_eq!(published.content.body.len(), len);
            assert_eq!(published.content.properties.decode().unwrap(), properties);
            let seq = published.seq.unwrap();
            pair.server_channel(id).confirm(seq, false).unwrap();
            pair.exchange();
            assert_eq!(
                pair.take_client_events(),
                [Event::Settled {
                    channel: id,
                    first: seq,
                    last: seq,
                    outcome: Outcome::Acked
                }]
            );
        }

        let consume = basic::Consume::default().queue("hello");
        let (consumer, _, request) = pair.client_channel(id).consume(consume).unwrap();
        pair.exchange();
        let Some(server::Event::Request {
            method: ClientMethod::BasicConsume(consume),
            ..
        }) = pair.take_server_events().pop()
        else {
            panic!("nobody consumes");
        };
        let tag: ShortStr = consume.consumer_tag;
        let ok = basic::ConsumeOk::default().consumer_tag(&tag);
        pair.server_channel(id).send(&ok).unwrap();
        for (number, len) in (1..).zip(bodies) {
            let deliver = basic::Deliver::default()
                .consumer_tag(&tag)
                .delivery_tag(number);
            let mut channel = pair.server_channel(id);
            channel
                .send_content(&deliver, &properties, vec![7; len])
                .unwrap();
        }
        pair.exchange();
        let mut events = pair.take_client_events();
        let delivered = events.split_off(1);
        assert!(matches!(&events[0], Event::Reply { request: r, .. } if *r == request));
        assert_eq!(delivered.len(), bodies.len());
        for (event, len) in delivered.into_iter().zip(bodies) {
            let Event::Delivered(delivery) = event else {
                panic!("{event:?}");
            };
            assert_eq!(
                (delivery.consumer, delivery.content.body.len()),
                (consumer, len)
            );
            let tag = delivery.tag.unwrap();
            let mut channel = pair.client_channel(id);
            if len % 2 == 0 {
                channel.ack(Tags::One(tag)).unwrap();
            } else {
                channel.nack(Tags::One(tag), Requeue::No).unwrap();
            }
            assert!(channel.ack(Tags::One(tag)).is_err());
        }
        pair.exchange();
        assert_eq!(pair.take_server_events().len(), bodies.len());

        pair.client.close(ReplyCode::SUCCESS, "bye");
        pair.exchange();
        assert!(matches!(
            &pair.take_client_events()[..],
            [Event::Closed(reason)] if reason.is_clean()
        ));
        assert!(matches!(
            &pair.take_server_events()[..],
            [server::Event::Closed(_)]
        ));
        assert!(pair.client.is_finished() && pair.server.is_finished());
    }
}
