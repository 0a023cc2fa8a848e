//! The memory of a connection that is lost two thousand times, and the work of one that is lost for
//! an hour, under a paused clock.

#![cfg(feature = "broker")]

use std::{error::Error, time::Duration};

use amqp_test_support::meter::{Counting, held};
use amqp_tokio::{
    ConsumeOptions, LocalBroker, Options,
    protocol::{ReplyCode, basic, queue},
    recovery::{Backoff, Policy, RecoveryEvent},
};
use tokio::time::{sleep, timeout};

#[global_allocator]
static COUNTING: Counting = Counting;

type Outcome = Result<(), Box<dyn Error>>;

const MS: Duration = Duration::from_millis(1);

/// Longer than any recovery of these tests.
const PATIENCE: Duration = Duration::from_secs(3600);

#[tokio::test(start_paused = true)]
async fn two_thousand_losses_do_not_add_up() -> Outcome {
    let broker = LocalBroker::default();
    let backoff = Backoff::default().first(MS).max(MS).jitter(0);
    let options = Options::default().recovery(Policy::new(1).backoff(backoff));
    let connection = broker.connect_with(&options).await?;
    let channel = connection.open_channel().await?.confirm_select().await?;
    let tasks = queue::Declare::default().queue("tasks");
    channel.call(tasks).await?;
    let named = queue::Declare::default().exclusive(true);
    let named = channel.call(named).await?.queue;
    let asking = ConsumeOptions::default().report_interruptions(true);
    let consume = basic::Consume::default().queue(named);
    let _idle = channel.consume_with(consume, asking).await?;
    let publish = basic::Publish::default().routing_key("tasks");
    let properties = basic::Properties::default();
    let none = queue::Declare::default().queue("none").passive(true);
    let mut bytes = Vec::new();
    for _ in 0..10 {
        for loss in 0..200 {
            if loss % 10 == 0
                && let Ok(other) = connection.open_channel().await
            {
                let _missing = other.call(none.clone()).await;
            }
            if loss % 7 == 0 {
                // The channel is lost just before the connection.
                let connections = broker.inspect().connections;
                let key = connections.first().ok_or("not connected")?.key;
                let (code, text) = (ReplyCode::NOT_FOUND, "NOT_FOUND - test");
                broker.with(|broker| broker.faults().close_channel(key, 1, code, text));
            }
            broker.close_connections("test");
            let calling = channel.call(basic::Qos::default().prefetch_count(3));
            let _in_flight = timeout(PATIENCE, calling).await?;
            let publishing = channel.publish(&publish, &properties, "x");
            let confirm = timeout(PATIENCE, publishing).await??;
            let _outcome = timeout(PATIENCE, confirm).await?;
            let _dropped = timeout(MS, connection.flush()).await;
        }
        let purge = queue::Purge::default().queue("tasks");
        while channel.call(purge.clone()).await.is_err() {}
        // The closed transports are drained.
        sleep(2000 * MS).await;
        bytes.push(held());
    }
    let (first, last) = (bytes[4], bytes[9]);
    assert!(last < first + 20_000, "{first} bytes, then {last}");
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn channels_dropped_while_they_are_reopened_do_not_add_up() -> Outcome {
    let broker = LocalBroker::default();
    let options = Options::default().recovery(Policy::new(1));
    let connection = broker.connect_with(&options).await?;
    let none = queue::Declare::default().queue("none").passive(true);
    let mut bytes = Vec::new();
    for _ in 0..10 {
        for _ in 0..1000 {
            let channel = connection.open_channel().await?;
            let _missing = channel.call(none.clone()).await;
            drop(channel);
        }
        sleep(2000 * MS).await;
        bytes.push(held());
    }
    let (first, last) = (bytes[4], bytes[9]);
    assert!(last < first + 20_000, "{first} bytes, then {last}");
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn an_hour_without_a_broker_is_a_few_hundred_attempts() -> Outcome {
    let broker = LocalBroker::default();
    let options = Options::default().recovery(Policy::new(1));
    let connection = broker.connect_with(&options).await?;
    broker.stop();
    sleep(PATIENCE).await;
    let mut events = connection.recovery_events();
    let mut attempts = 0;
    while let Some(change) = events.try_next() {
        attempts += u32::from(matches!(change.event, RecoveryEvent::Reconnecting { .. }));
    }
    assert!((120..400).contains(&attempts), "{attempts}");
    Ok(())
}
