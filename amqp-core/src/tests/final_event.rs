//! The end of a connection for a fault of the peer: the events before it, and none after it.

use super::{
    pair::Pair,
    side::{Event, Role, Side, body_frame, header_frame, method_frame, raw_frame},
};
use crate::{
    Fault, Limits,
    client::{self, Event as ClientEvent},
    protocol::{basic, queue},
    server::{self, Event as ServerEvent},
    wire::ShortStr,
};

/// The final event is the last one, also for a publisher that waits for room.
#[test]
fn nothing_follows_the_final_event() {
    let limits = Limits {
        output_high: 4096,
        output_low: 10,
        ..Limits::default()
    };
    for role in Role::BOTH {
        let client = client::Config {
            limits: limits.clone(),
            ..client::Config::default()
        };
        let server = server::Config {
            limits: limits.clone(),
            ..server::Config::default()
        };
        let mut pair = Pair::open_with(client, server);
        let id = pair.open_channel();
        let properties = basic::Properties::default();
        let mut client = pair.client_channel(id);
        let publish = basic::Publish::default();
        client
            .publish(&publish, &properties, "x".repeat(5000))
            .unwrap();
        assert!(client.publish(&publish, &properties, "").is_err());
        let mut server = pair.server_channel(id);
        let returned = basic::Return::default();
        server
            .send_content(&returned, &properties, "x".repeat(5000))
            .unwrap();
        assert!(server.hold().is_some());
        let mut side = Side::of(pair, role);
        let events = side.feed(&raw_frame(0, 0, &[], 0xCE));
        side.assert_failed(&events, &Fault::FrameType(0), 501, None);
        assert_eq!(side.events(), []);
    }
}

/// A request that was begun is settled before the final event.
#[test]
fn every_wait_ends_before_the_final_event() {
    let mut pair = Pair::open();
    let id = pair.open_channel();
    let mut channel = pair.client_channel(id);
    let request = channel.call(&queue::Declare::default()).unwrap();
    let mut client = Side::of(pair, Role::Client);
    let events = client.feed(&[0]);
    assert!(matches!(
        &events[..],
        [
            Event::Client(ClientEvent::Failed { request: failed, .. }),
            Event::Client(ClientEvent::Closed(_))
        ] if *failed == request
    ));
}

/// Half a message is none.
#[test]
fn a_message_that_was_never_whole_has_no_event() {
    for role in Role::BOTH {
        let mut pair = Pair::open();
        let id = pair.open_channel();
        let tag = ShortStr::from_static("t").unwrap();
        let consume = basic::Consume::default().consumer_tag(tag.clone());
        let consume = consume.no_wait(true);
        pair.client_channel(id).consume(consume).unwrap();
        pair.exchange();
        pair.take_client_events();
        let mut side = Side::of(pair, role);
        let deliver = basic::Deliver::default().delivery_tag(1);
        let begin = match role {
            Role::Client => method_frame(1, &deliver.consumer_tag(tag).into()),
            Role::Server => method_frame(1, &basic::Publish::default().into()),
        };
        assert_eq!(side.feed(&begin), []);
        assert_eq!(side.feed(&header_frame(1, 60, 0, 5000, &[])), []);
        assert_eq!(side.feed(&body_frame(1, &[1; 4999])), []);
        let events = side.feed(&body_frame(1, &[1; 2]));
        assert!(matches!(
            events[..],
            [Event::Client(ClientEvent::Closed(_)) | Event::Server(ServerEvent::Closed(_))]
        ));
    }
}
