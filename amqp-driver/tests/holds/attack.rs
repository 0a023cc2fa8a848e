//! Rare cases: futures that are kept and not polled, a process that was stopped.

use std::{future::Future, pin::Pin, time::Duration};

use amqp_driver::{Channel, ConfirmChannel, Error, protocol::basic};
use amqp_test_support::{Confirming, Probe, Rig, Setup};
use bytes::Bytes;

use crate::{none, to_queue};

type Kept = Pin<Box<dyn Future<Output = Result<(), Error>>>>;

/// A publish that is polled once and waits.
fn kept(publishing: impl Future<Output = Result<(), Error>> + 'static) -> Kept {
    let mut publishing: Kept = Box::pin(publishing);
    assert!(Probe::new().poll(publishing.as_mut()).is_pending());
    publishing
}

/// A future that is kept and not polled holds up no other, though the window has room for it alone.
#[test]
fn a_window_is_not_kept_by_a_publish_that_is_not_polled() {
    for count in [1, 5] {
        let mut setup = Setup::default();
        setup.client.limits.unconfirmed = 1;
        setup.client.timeouts.publish = None;
        let (mut rig, connection) = Rig::open_with(setup);
        let channel = rig.confirm_channel(&connection);
        rig.peer().confirming = Confirming::ByHand;
        let first = rig.wait(channel.publish(&to_queue(), &none(), "0"));
        drop(first.unwrap());
        rig.run();
        let publish = |channel: &ConfirmChannel| {
            let channel = channel.clone();
            async move { channel.publish(&to_queue(), &none(), "x").await.map(drop) }
        };
        let stuck: Vec<_> = (0..count).map(|_| kept(publish(&channel))).collect();
        let live = rig.spawn(publish(&channel));
        rig.run();
        assert!(!live.is_done());
        rig.peer().ack(1, 1, false);
        rig.run();
        assert_eq!(live.take(), Some(Ok(())), "{count} before it");
        drop((stuck, channel));
        rig.run();
        rig.finish(connection);
    }
}

/// So it is with the room for large messages.
#[test]
fn a_backlog_is_not_kept_by_a_publish_that_is_not_polled() {
    let mut setup = Setup::default();
    setup.client.timeouts.publish = None;
    let (mut rig, connection) = Rig::open_with(setup);
    let channels: Vec<_> = (0..153).map(|_| rig.channel(&connection)).collect();
    rig.world().set_capacity(0);
    let body = Bytes::from(vec![0; 10 << 20]);
    let publish = |channel: &Channel| {
        let (channel, body) = (channel.clone(), body.clone());
        async move { channel.publish(&to_queue(), &none(), body).await }
    };
    for channel in &channels[..2] {
        assert_eq!(rig.ready(publish(channel)), Some(Ok(())));
    }
    let stuck: Vec<_> = channels[2..152]
        .iter()
        .map(|it| kept(publish(it)))
        .collect();
    let live = rig.spawn(publish(&channels[152]));
    rig.run();
    assert!(!live.is_done());
    rig.world().set_capacity(usize::MAX);
    rig.run();
    assert_eq!(live.take(), Some(Ok(())));
    drop((stuck, channels));
    rig.run();
    rig.finish(connection);
}

/// A process that was stopped finds every deadline past: the input that waits is read before the
/// server is judged, whichever other deadlines have passed.
#[test]
fn a_process_that_was_stopped_times_no_peer_out() {
    for (own_deadline, burst) in [(false, 0), (true, 0), (false, 2000)] {
        let mut setup = Setup::default();
        setup.server.heartbeat = 10;
        let (mut rig, connection) = Rig::open_with(setup);
        let channel = rig.channel(&connection);
        // A burst of deliveries leaves a deadline of its own.
        let consumer = (burst > 0).then(|| {
            let consume = basic::Consume::default().queue("q");
            let consumer = rig.wait(channel.consume_no_ack(consume)).unwrap();
            let tag = consumer.tag().to_string();
            for _ in 0..burst {
                assert!(rig.peer().deliver(1, &tag, "x"));
            }
            rig.run();
            consumer
        });
        let now = rig.world().now;
        rig.peer().machine.set_reading(now, false);
        rig.peer().flow(1, false);
        rig.run();
        let waiting = own_deadline.then(|| {
            let channel = channel.clone();
            rig.spawn(async move { channel.publish(&to_queue(), &none(), "x").await })
        });
        rig.run();
        rig.world().set_now(now + Duration::from_secs(600));
        // The poll for input gives nothing at first.
        rig.poll_driver();
        rig.world()
            .set_now(now + Duration::from_secs(600) + Duration::from_millis(1));
        rig.world().step_server();
        rig.poll_driver();
        rig.world()
            .set_now(now + Duration::from_secs(600) + Duration::from_millis(25));
        rig.poll_driver();
        let reason = connection.close_reason();
        assert!(
            reason.is_none(),
            "own deadline: {own_deadline}, {burst} deliveries: {reason:?}"
        );
        rig.peer().flow(1, true);
        rig.run();
        drop((waiting, channel, consumer));
    }
}

/// In a transaction a requeue takes effect with the commit, which may wait for the message.
#[test]
fn a_transaction_withholds_nothing() {
    let mut setup = Setup::default();
    setup.client.limits.undelivered = 64 << 10;
    let (mut rig, connection) = Rig::open_with(setup);
    let channel = rig.tx_channel(&connection);
    let mut consumer = rig
        .wait(channel.consume(basic::Consume::default()))
        .unwrap();
    let tag = consumer.tag().to_string();
    for _ in 0..20 {
        assert!(rig.peer().deliver(1, &tag, vec![0; 10_000]));
        rig.run();
    }
    for _ in 0..20 {
        rig.wait(consumer.next()).unwrap().unwrap().ack().unwrap();
    }
    rig.wait(channel.commit()).unwrap();
    assert!(rig.peer().requeued.is_empty());
    drop((consumer, channel));
    rig.finish(connection);
}

/// Messages that were requeued, and went to another consumer of the queue, do not delay withheld
/// ones.
#[test]
fn deliveries_of_another_consumer_keep_nothing_withheld() {
    let (mut rig, connection, channel, mut consumer) = Rig::with_consumer(64 << 10);
    let tag = consumer.tag().to_string();
    for _ in 0..40 {
        assert!(rig.peer().deliver(1, &tag, vec![0; 10_000]));
        rig.run();
    }
    // Nothing is taken, so that it reads on.
    rig.advance(Duration::from_millis(20));
    // The server does not redeliver here: another consumer gets the requeued messages.
    let task = rig.spawn(async move {
        while let Some(Ok(delivery)) = consumer.next().await {
            delivery.ack().unwrap();
        }
    });
    rig.run();
    rig.advance(Duration::from_secs(60));
    let (acked, requeued, outstanding) = {
        let peer = rig.peer();
        (
            peer.acked.len(),
            peer.requeued.len(),
            peer.outstanding.len(),
        )
    };
    assert_eq!(outstanding, 0, "{acked} acknowledged, {requeued} requeued");
    assert!(requeued > 0);
    rig.cancel(&task);
    drop(channel);
    rig.finish(connection);
}
