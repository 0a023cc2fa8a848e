//! Prefetch, the drop of a delivery, and stale messages.

use amqp_driver::{
    BaseChannel, ConsumeOptions, OnDrop, Prefetch,
    protocol::{basic, tx},
};

use amqp_test_support::{Rig, Setup};

/// The prefetches that were sent to the server, in order.
fn prefetches(rig: &Rig) -> Vec<u16> {
    let peer = rig.peer();
    let said = peer.saw.iter().filter_map(|saw| match saw {
        amqp_test_support::Saw::Request(_, method) => Some(method),
        _ => None,
    });
    said.filter_map(|method| match method {
        amqp_driver::protocol::ClientMethod::BasicQos(qos) => Some(qos.prefetch_count),
        _ => None,
    })
    .collect()
}

fn consume(rig: &mut Rig, channel: &BaseChannel, options: ConsumeOptions) {
    let consume = basic::Consume::default();
    drop(rig.wait(channel.consume_with(consume, options)).unwrap());
    rig.run();
}

#[test]
fn a_consumer_gets_a_third_of_the_buffer_as_its_prefetch() {
    for (prefetch, expected) in [
        (Prefetch::default(), vec![1000]),
        (Prefetch::OfBuffer(48), vec![16]),
        (Prefetch::OfBuffer(50), vec![16]),
        (Prefetch::OfBuffer(1), vec![1]),
        (Prefetch::OfBuffer(u32::MAX), vec![u16::MAX]),
        (Prefetch::Count(7), vec![7]),
        (Prefetch::Unlimited, vec![]),
    ] {
        let mut setup = Setup::default();
        setup.client.prefetch = prefetch;
        let (mut rig, connection) = Rig::open_with(setup);
        let channel = rig.channel(&connection);
        consume(&mut rig, &channel, ConsumeOptions::default());
        // It holds for those that follow.
        consume(&mut rig, &channel, ConsumeOptions::default());
        assert_eq!(prefetches(&rig), expected, "{prefetch:?}");
        drop(channel);
        rig.finish(connection);
    }
}

#[test]
fn a_prefetch_of_the_application_is_not_overridden() {
    let (mut rig, connection, channel) = Rig::with_channel();
    rig.wait(channel.call(basic::Qos::default().prefetch_count(3)))
        .unwrap();
    consume(&mut rig, &channel, ConsumeOptions::default());
    assert_eq!(prefetches(&rig), [3]);
    // Unless the application says so, for one consumer.
    let own = ConsumeOptions::default().prefetch(Prefetch::Count(5));
    consume(&mut rig, &channel, own);
    let none = ConsumeOptions::default().prefetch(Prefetch::Unlimited);
    consume(&mut rig, &channel, none);
    assert_eq!(prefetches(&rig), [3, 5, 0]);
    drop(channel);
    rig.finish(connection);
}

#[test]
fn no_prefetch_is_set_where_it_means_nothing() {
    let (mut rig, connection, channel) = Rig::with_channel();
    drop(rig.wait(channel.consume_no_ack(basic::Consume::default())));
    rig.run();
    assert_eq!(prefetches(&rig), [0; 0]);
    drop(channel);
    rig.finish(connection);
}

/// The server waits for a consumer that takes its deliveries, and gets nothing back: without a
/// prefetch, and with more in flight than the buffer takes. A consumer that takes nothing pauses
/// reading for a moment only.
#[test]
fn messages_that_are_being_taken_are_not_requeued() {
    for takes in [true, false] {
        let (mut rig, connection, channel, mut consumer) = Rig::with_consumer(2 << 20);
        let tag = consumer.tag().to_string();
        for _ in 0..5000 {
            assert!(rig.peer().deliver(1, &tag, vec![0; 1000]));
        }
        let task = rig.spawn(async move {
            for _ in 0..if takes { 5000 } else { 1 } {
                consumer.next().await.unwrap().unwrap().ack().unwrap();
            }
            std::future::pending::<()>().await;
        });
        rig.run();
        if takes {
            assert_eq!(rig.peer().acked.len(), 5000);
            assert!(rig.peer().requeued.is_empty());
        } else {
            rig.peer()
                .close(amqp_driver::protocol::ReplyCode::CONNECTION_FORCED, "gone");
            rig.run();
            assert!(connection.is_open(), "it is not read yet");
            rig.advance(std::time::Duration::from_millis(20));
            assert!(!connection.is_open());
        }
        rig.cancel(&task);
        drop(channel);
        connection.abort();
        rig.run();
    }
}

/// Within a transaction, a requeue takes effect with a commit: deliveries that are withheld when it
/// begins are requeued before, and later messages pause reading.
#[test]
fn withheld_deliveries_are_requeued_before_a_transaction_begins() {
    let (mut rig, connection, channel, mut consumer) = Rig::with_consumer(64 << 10);
    let base: &BaseChannel = &channel;
    let tag = consumer.tag().to_string();
    for _ in 0..20 {
        assert!(rig.peer().deliver(1, &tag, vec![0; 10_000]));
        rig.advance(std::time::Duration::from_millis(20));
    }
    assert!(rig.peer().requeued.is_empty());
    rig.wait(base.call(tx::Select)).unwrap();
    let requeued = rig.peer().requeued.len();
    assert!((13..=15).contains(&requeued), "{requeued}");
    let read = rig.world().read;
    for _ in 0..20 {
        assert!(rig.peer().deliver(1, &tag, vec![0; 10_000]));
    }
    rig.advance(std::time::Duration::from_secs(1));
    assert!(rig.world().read - read < 64 << 10);
    for _ in 0..40 - requeued {
        let delivery = rig.wait(consumer.next()).unwrap().unwrap();
        delivery.ack().unwrap();
        rig.run();
    }
    assert_eq!(rig.peer().requeued.len(), requeued);
    drop((consumer, channel));
    rig.finish(connection);
}

/// A delivery that an error path drops is dealt with as the consumer says.
#[test]
fn a_dropped_delivery_follows_its_policy() {
    for policy in [OnDrop::Leave, OnDrop::Requeue, OnDrop::Reject] {
        let (mut rig, connection, channel) = Rig::with_channel();
        let options = ConsumeOptions::default().on_drop(policy);
        let consume = basic::Consume::default();
        let mut consumer = rig.wait(channel.consume_with(consume, options)).unwrap();
        let tag = consumer.tag().to_string();
        for body in ["acked", "dropped", "left"] {
            assert!(rig.peer().deliver(1, &tag, body));
        }
        let mut next = |rig: &mut Rig| rig.wait(consumer.next()).unwrap().unwrap();
        next(&mut rig).ack().unwrap();
        drop(next(&mut rig));
        let left = next(&mut rig).acker;
        let by_tag = left.tag();
        left.leave();
        rig.run();
        let (requeued, rejected, outstanding) = {
            let peer = rig.peer();
            (
                peer.requeued.len(),
                peer.rejected.len(),
                peer.outstanding.len(),
            )
        };
        let expected = match policy {
            OnDrop::Requeue => (1, 0, 1),
            OnDrop::Reject => (0, 1, 1),
            _ => (0, 0, 2),
        };
        assert_eq!((requeued, rejected, outstanding), expected, "{policy:?}");
        channel.ack(amqp_driver::Tags::One(by_tag)).unwrap();
        drop((consumer, channel));
        rig.finish(connection);
    }
}

/// Deliveries before `basic.recover` are stale: the server takes them back and delivers them again.
#[test]
fn a_recover_leaves_nothing_stale() {
    for in_batch in [false, true] {
        let (mut rig, connection, channel) = Rig::with_channel();
        let mut consumer = rig
            .wait(channel.consume(basic::Consume::default()))
            .unwrap();
        let tag = consumer.tag().to_string();
        for _ in 0..6 {
            assert!(rig.peer().deliver(1, &tag, "stale"));
        }
        rig.run();
        if in_batch {
            rig.wait(consumer.next()).unwrap().unwrap().ack().unwrap();
        }
        rig.wait(channel.call(basic::Recover::default().requeue(true)))
            .unwrap();
        assert!(rig.peer().deliver(1, &tag, "again"));
        let delivery = rig.wait(consumer.next()).unwrap().unwrap();
        assert_eq!(delivery.body, "again");
        delivery.ack().unwrap();
        drop((consumer, channel));
        rig.finish(connection);
    }
}

/// While deliveries are taken, reading pauses at three quarters of the bound and goes on at a half.
#[test]
fn reading_pauses_at_three_quarters_of_the_bound_and_goes_on_at_a_half() {
    const BODY: usize = 2000;
    const BOUND: usize = 1000 * BODY;
    let mut setup = Setup::default();
    setup.client.limits.undelivered = BOUND;
    let (mut rig, connection) = Rig::open_with(setup);
    let channel = rig.channel(&connection);
    let mut consumer = rig
        .wait(channel.consume(basic::Consume::default()))
        .unwrap();
    let tag = consumer.tag().to_string();
    rig.world().read_max = BODY;
    for _ in 0..2000 {
        assert!(rig.peer().deliver(1, &tag, vec![0; BODY]));
    }
    rig.run();
    let paused_at = rig.world().read;
    let kept = usize::try_from(paused_at).unwrap() / BODY;
    // A message takes some more than its body.
    assert!((600..=750).contains(&kept), "{kept}");
    let mut taken = 0;
    while rig.world().read == paused_at {
        rig.wait(consumer.next()).unwrap().unwrap().ack().unwrap();
        taken += 1;
        rig.run();
    }
    // From three quarters to two; taken deliveries are counted in small batches.
    assert!(
        (kept / 3 - 20..kept / 3 + 40).contains(&taken),
        "{taken} of {kept}"
    );
    assert!(rig.peer().requeued.is_empty());
    drop((consumer, channel));
    rig.finish(connection);
}
