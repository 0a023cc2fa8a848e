//! Consumers and their deliveries.

use std::time::Duration;

use amqp_tokio::{
    ConsumeOptions, LocalBroker, Tags,
    broker::{ByteFaults, Impairment},
    core::Limits,
    protocol::basic,
};
use tokio::{
    task::JoinSet,
    time::{sleep, timeout},
};

use crate::{
    Outcome, PATIENCE, SECOND, durable, from, is_lost, is_recovered, keep_busy, options,
    persistent, to, until, with_limits,
};

#[tokio::test(start_paused = true)]
async fn an_interruption_is_reported_once_though_handshakes_fail() -> Outcome {
    let broker = LocalBroker::default();
    let connection = broker.connect_with(&options()).await?;
    let channel = connection.open_channel().await?;
    channel.call(durable("tasks")?).await?;
    let asking = ConsumeOptions::default().report_interruptions(true);
    let mut consumer = channel.consume_with(from("tasks")?, asking).await?;
    let cut = ByteFaults::new().from_client(Impairment::new().cut_after(100));
    broker.with(|broker| broker.faults().bytes_of_next(5, cut));
    broker.close_connections("test");
    let mut interruptions = 0;
    while let Ok(next) = timeout(Duration::from_secs(60), consumer.next()).await {
        let next = next.ok_or("ended")?;
        assert!(matches!(next, Err(amqp_tokio::Error::Interrupted(_))));
        interruptions += 1;
    }
    assert_eq!(interruptions, 1);
    assert!(connection.is_open());
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn a_consumer_dropped_while_others_are_restored_gets_no_message_again_and_again() -> Outcome {
    let broker = LocalBroker::default();
    let connection = broker.connect_with(&options()).await?;
    let channel = connection.open_channel().await?.confirm_select().await?;
    channel.call(durable("tasks")?).await?;
    channel
        .publish(&to("tasks")?, &persistent(), "1")
        .await?
        .await?;
    let consumer = channel.consume(from("tasks")?).await?;
    let _other = keep_busy(&broker, &connection).await?;
    let before = channel.stats().ok_or("no channel")?.delivered;
    drop(consumer);
    sleep(5 * SECOND).await;
    let delivered = channel.stats().ok_or("no channel")?.delivered - before;
    assert!(delivered <= 2, "{delivered} deliveries");
    until(&connection, is_recovered).await?;
    let message = channel.get(basic::Get::default().queue("tasks")).await?;
    message.ok_or("no message")?.ack()?;
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn a_prefetch_that_was_in_flight_is_set_for_the_next_consumer() -> Outcome {
    let broker = LocalBroker::default();
    let connection = broker.connect_with(&options()).await?;
    let channel = connection.open_channel().await?;
    channel.call(durable("tasks")?).await?;
    broker.pause();
    let mut calls = JoinSet::new();
    let declaring = channel.clone();
    calls.spawn(async move { declaring.call(durable("tasks")?).await.map(drop) });
    tokio::task::yield_now().await;
    let consuming = channel.clone();
    calls.spawn(async move { consuming.consume(from("tasks")?).await.map(drop) });
    tokio::task::yield_now().await;
    broker.stop();
    broker.resume();
    while let Some(called) = calls.join_next().await {
        assert!(called?.is_err());
    }
    broker.start();
    let _consumer = timeout(PATIENCE, channel.consume(from("tasks")?)).await??;
    let inspection = broker.inspect();
    let queue = inspection
        .vhosts
        .iter()
        .flat_map(|it| &it.queues)
        .next()
        .ok_or("none")?;
    assert_eq!(queue.consumers.first().ok_or("none")?.prefetch, 1000);
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn the_room_of_messages_that_are_lost_is_free_again() -> Outcome {
    let broker = LocalBroker::default();
    let limits = Limits::default().undelivered(4096);
    let connection = broker.connect_with(&with_limits(limits)).await?;
    let channel = connection.open_channel().await?.confirm_select().await?;
    channel.call(durable("tasks")?).await?;
    for _ in 0..100 {
        let (publish, properties) = (to("tasks")?, persistent());
        channel
            .publish(&publish, &properties, vec![0; 1000])
            .await?
            .await?;
    }
    let (mut one, two) = (
        channel.consume(from("tasks")?).await?,
        channel.consume(from("tasks")?).await?,
    );
    sleep(SECOND).await;
    for _ in 0..5 {
        broker.close_connections("test");
        sleep(10 * SECOND).await;
        let delivery = timeout(SECOND, one.next()).await?.ok_or("ended")??;
        drop(delivery);
        println!("{:?}", connection.stats().untaken);
    }
    drop(two);
    for _ in 0..100 {
        // The unacknowledged ones of before have come again.
        timeout(PATIENCE, one.next())
            .await?
            .ok_or("ended")??
            .ack()?;
        if broker.with(|broker| {
            broker
                .queue("/", "tasks")
                .is_some_and(|it| it.ready == 0 && it.unacked == 0)
        }) {
            break;
        }
    }
    drop(one);
    channel.call(basic::Qos::default()).await?;
    assert_eq!(connection.stats().untaken, 0);
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn deliveries_of_a_restoration_that_goes_on_can_be_acknowledged() -> Outcome {
    let broker = LocalBroker::default();
    let connection = broker.connect_with(&options()).await?;
    let channel = connection.open_channel().await?.confirm_select().await?;
    channel.call(durable("tasks")?).await?;
    for _ in 0..5 {
        let (publish, properties) = (to("tasks")?, persistent());
        channel.publish(&publish, &properties, "x").await?.await?;
    }
    let prefetch = ConsumeOptions::default().prefetch(amqp_tokio::Prefetch::Count(3));
    let mut consumer = channel.consume_with(from("tasks")?, prefetch).await?;
    let mut before = Vec::new();
    for _ in 0..3 {
        before.push(timeout(SECOND, consumer.next()).await?.ok_or("ended")??);
    }
    let _other = keep_busy(&broker, &connection).await?;
    let first = before.remove(0);
    assert_eq!(
        channel.ack(Tags::UpTo(first.acker.tag())),
        Err(amqp_tokio::Error::Stale)
    );
    assert_eq!(
        before.remove(0).acker.ack_up_to(),
        Err(amqp_tokio::Error::Stale)
    );
    for _ in 0..2 {
        let again = timeout(SECOND, consumer.next()).await?.ok_or("ended")??;
        assert!(again.method.redelivered);
        again.ack()?;
    }
    assert_eq!(before.remove(0).ack(), Err(amqp_tokio::Error::Stale));
    for _ in 0..3 {
        let last = timeout(SECOND, consumer.next()).await?.ok_or("ended")??;
        drop(last);
    }
    assert!(
        timeout(SECOND, consumer.next()).await.is_err(),
        "the prefetch is 3"
    );
    channel.ack(Tags::All)?;
    sleep(SECOND).await;
    let left = broker.with(|broker| broker.queue("/", "tasks").map(|it| (it.ready, it.unacked)));
    assert_eq!(left, Some((0, 0)));
    assert!(connection.stats().untaken == 0);
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn a_tag_is_free_for_another_consumer_after_a_cancel_while_lost() -> Outcome {
    for busy in [false, true] {
        let broker = LocalBroker::default();
        let connection = broker.connect_with(&options()).await?;
        let channel = connection.open_channel().await?.confirm_select().await?;
        channel.call(durable("tasks")?).await?;
        let tagged = from("tasks")?.consumer_tag("mine");
        let mut one = channel.consume(tagged.clone()).await?;
        let mut other = None;
        if busy {
            other = Some(keep_busy(&broker, &connection).await?);
        } else {
            broker.close_connections("test");
            until(&connection, is_lost).await?;
        }
        timeout(SECOND, one.cancel()).await??;
        assert!(timeout(SECOND, one.next()).await?.is_none());
        let mut two = timeout(PATIENCE, channel.consume(tagged)).await??;
        let (publish, properties) = (to("tasks")?, persistent());
        channel.publish(&publish, &properties, "x").await?.await?;
        timeout(SECOND, two.next()).await?.ok_or("ended")??.ack()?;
        let consumers =
            broker.with(|broker| broker.queue("/", "tasks").map(|it| it.consumers.len()));
        assert_eq!(consumers, Some(1));
        drop((one, two, other));
    }
    Ok(())
}
