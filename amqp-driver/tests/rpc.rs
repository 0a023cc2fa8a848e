//! A client on a scripted server: the end of each call.

use std::time::Duration;

use amqp_driver::{
    Connection,
    protocol::basic,
    publishing::{OutgoingMessage, Window},
    rpc::{Client, ClientOptions, RpcError},
};
use amqp_test_support::{Confirming, Probe, Rig};

const LONG: Duration = Duration::from_secs(10);

/// A client with a window for one call, and the tag of its consumer.
fn client() -> (Rig, Connection, Client, String) {
    let (mut rig, connection, channel) = Rig::with_channel();
    rig.peer().confirming = Confirming::ByHand;
    let window = Window {
        messages: 1,
        bytes: usize::MAX,
    };
    let options = ClientOptions::default().window(window);
    let client = rig.wait(Client::direct(channel, options)).unwrap();
    let tag = rig.peer().consumers.keys().next().unwrap().1.clone();
    (rig, connection, client, tag)
}

fn request() -> OutgoingMessage {
    OutgoingMessage::new(basic::Publish::default(), "request")
}

/// The request was handled, whatever the server says of it.
#[test]
fn a_reply_counts_more_than_a_failed_confirm() {
    let (mut rig, connection, client, tag) = client();
    let calling = client.clone();
    let call = rig.spawn(async move { calling.call(request(), LONG).await });
    rig.run();
    assert_eq!(rig.peer().messages().len(), 1);
    let reply = basic::Properties::default().correlation_id("1");
    rig.peer().deliver_with(1, &tag, &reply, "reply");
    rig.peer().nack(1, 1, false);
    rig.run();
    let ended = call.take().unwrap();
    assert_eq!(ended.unwrap().body, "reply");
    drop(client);
    rig.finish(connection);
}

/// Given calls in line for room, when the consumer of replies ends, then they end, though the call
/// with the room is not polled.
#[test]
fn the_end_of_the_consumer_ends_the_calls_in_line() {
    let (mut rig, connection, client, tag) = client();
    let mut first = Box::pin(client.call(request(), LONG));
    assert!(Probe::new().poll(first.as_mut()).is_pending());
    assert_eq!(client.in_flight(), 1);
    let calling = client.clone();
    let second = rig.spawn(async move { calling.call(request(), LONG).await });
    rig.run();
    assert!(!second.is_done());
    rig.peer().cancel(1, &tag);
    rig.run();
    let ended = second.take().unwrap();
    assert!(matches!(ended, Err(RpcError::NotSent(_))), "{ended:?}");
    drop(first);
    drop(client);
    rig.finish(connection);
}
