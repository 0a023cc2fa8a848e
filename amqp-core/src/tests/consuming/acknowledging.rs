//! Acknowledgement of deliveries.

use super::{delivered, open};
use crate::{ApiMisuse, Requeue, Tags, protocol::basic, tests::script::*};

#[test]
fn nothing_is_acknowledged_twice() {
    type Deed = fn(&mut crate::client::ChannelMut<'_>) -> Result<(), ApiMisuse>;
    let deeds: [Deed; 4] = [
        |on| on.ack(Tags::One(tag(2))),
        |on| on.nack(Tags::One(tag(2)), Requeue::No),
        |on| on.reject(tag(2), Requeue::Yes),
        |on| on.ack(Tags::UpTo(tag(2))),
    ];
    for first in deeds {
        for second in deeds {
            let (mut client, id) = open();
            client.consumer(id, "t", false);
            for number in 1..=3 {
                client.deliver(id, "t", number);
            }
            client.events();
            let mut on = client.on(id);
            first(&mut on).unwrap();
            let unknown = ApiMisuse::UnknownDeliveryTag(2);
            assert_eq!(second(&mut on), Err(unknown));
            assert_eq!(client.sent().len(), 1);
            assert_eq!(client.events(), []);
            client.on(id).ack(Tags::One(tag(3))).unwrap();
        }
    }
}

#[test]
fn an_acknowledgement_is_for_its_own_channel() {
    let (mut client, id) = open();
    let other = client.channel();
    client.consumer(id, "t", false);
    client.deliver(id, "t", 1);
    client.events();
    let unknown = Err(ApiMisuse::UnknownDeliveryTag(1));
    assert_eq!(client.on(other).ack(Tags::One(tag(1))), unknown);
    assert_eq!(client.on(other).ack(Tags::UpTo(tag(1))), unknown);
    assert_eq!(client.sent(), []);
}

#[test]
fn all_of_nothing_is_nothing() {
    let (mut client, id) = open();
    client.consumer(id, "t", true);
    client.deliver(id, "t", 1);
    assert_eq!(delivered(&mut client).tag, None);
    client.on(id).ack(Tags::All).unwrap();
    client.on(id).nack(Tags::All, Requeue::Yes).unwrap();
    assert_eq!(client.sent(), []);
    let unknown = ApiMisuse::UnknownDeliveryTag(1);
    assert_eq!(client.on(id).ack(Tags::One(tag(1))), Err(unknown));
}

#[test]
fn acknowledgements_on_the_wire() {
    let (mut client, id) = open();
    client.consumer(id, "t", false);
    for number in 1..=6 {
        client.deliver(id, "t", number);
    }
    client.events();
    let mut on = client.on(id);
    on.ack(Tags::One(tag(2))).unwrap();
    on.nack(Tags::UpTo(tag(3)), Requeue::Yes).unwrap();
    on.reject(tag(5), Requeue::No).unwrap();
    on.reject(tag(4), Requeue::Yes).unwrap();
    on.ack(Tags::All).unwrap();
    let nack = basic::Nack {
        delivery_tag: 3,
        multiple: true,
        requeue: true,
    };
    let reject = |delivery_tag, requeue| basic::Reject {
        delivery_tag,
        requeue,
    };
    assert_eq!(
        client.sent(),
        [
            method(1, ack(2, false)),
            method(1, nack),
            method(1, reject(5, false)),
            method(1, reject(4, true)),
            // Not 0, which to the server includes deliveries in flight.
            method(1, ack(6, true)),
        ]
    );
}

#[test]
fn recovery_settles_everything() {
    let (mut client, id) = open();
    client.consumer(id, "t", false);
    for number in 1..=2 {
        client.deliver(id, "t", number);
    }
    client.events();
    let recover = basic::Recover { requeue: true };
    let request = client.on(id).call(&recover).unwrap();
    client.bytes();
    // This one was delivered before the server knew.
    client.deliver(id, "t", 3);
    delivered(&mut client);
    client.send(1, &basic::RecoverOk);
    assert_eq!(client.events(), [replied(id, request, basic::RecoverOk)]);
    for number in 1..=3 {
        assert!(client.on(id).ack(Tags::One(tag(number))).is_err());
    }
    client.deliver(id, "t", 4);
    delivered(&mut client);
    client.on(id).ack(Tags::One(tag(4))).unwrap();
    client.bytes();

    client.deliver(id, "t", 5);
    delivered(&mut client);
    client.on(id).recover_async(true).unwrap();
    let sent = basic::RecoverAsync { requeue: true };
    assert_eq!(client.sent(), [method(1, sent)]);
    assert!(client.on(id).ack(Tags::One(tag(5))).is_err());
}
