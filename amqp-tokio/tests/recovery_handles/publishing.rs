//! Publishers, and calls that wait.

use std::{error::Error, future::pending};

use amqp_tokio::{
    Config, LocalBroker, Options,
    broker::{ByteFaults, ConfirmFault, Impairment},
    core::{Limits, Timeouts},
    protocol::basic,
    recovery::RecoveryEvent,
};
use tokio::{
    task::JoinSet,
    time::{Instant, sleep, timeout},
};

use crate::{
    Outcome, PATIENCE, SECOND, durable, fail, is_lost, is_recovered, options, persistent, policy,
    to, until, with_limits,
};

#[tokio::test(start_paused = true)]
async fn the_timeout_of_a_publish_begins_with_the_end_of_the_recovery() -> Outcome {
    let broker = LocalBroker::default();
    let timeouts = Timeouts::default().publish(30 * SECOND);
    let config = Config::default()
        .limits(Limits::default().unconfirmed(1))
        .timeouts(timeouts)
        .heartbeat(0);
    let connection = broker.connect_with(&options().config(config)).await?;
    let channel = connection.open_channel().await?.confirm_select().await?;
    channel.call(durable("tasks")?).await?;
    broker.stop();
    until(&connection, is_lost).await?;
    let mut publishers = JoinSet::new();
    let begun = Instant::now();
    for _ in 0..10 {
        let channel = channel.clone();
        publishers.spawn(async move {
            let (publish, properties) = (to("tasks")?, persistent());
            let published = channel.publish(&publish, &properties, "1").await;
            if published.is_ok() {
                pending::<()>().await;
            }
            published.map(drop)
        });
    }
    sleep(25 * SECOND).await;
    broker.with(|broker| broker.faults().memory_alarm(true));
    broker.start();
    until(&connection, is_recovered).await?;
    let timed_out = timeout(60 * SECOND, publishers.join_next())
        .await?
        .ok_or("none")??;
    assert!(
        matches!(timed_out, Err(amqp_tokio::Error::TimedOut { .. })),
        "{timed_out:?}"
    );
    assert_eq!(begun.elapsed().as_secs(), 25 + 30);
    Ok(())
}

/// The recovery of one channel is none of the time that a publish on another one waits.
#[tokio::test(start_paused = true)]
async fn the_timeout_of_a_publish_is_not_put_off_by_another_channel() -> Outcome {
    let broker = LocalBroker::default();
    let config = Config::default()
        .limits(Limits::default().unconfirmed(1))
        .timeouts(Timeouts::default().publish(30 * SECOND).confirm(None))
        .heartbeat(0);
    let recovery = policy().reopen_channels(true);
    let options = Options::default().recovery(recovery).config(config);
    let connection = broker.connect_with(&options).await?;
    let channel = connection.open_channel().await?.confirm_select().await?;
    let other = connection.open_channel().await?;
    channel.call(durable("tasks")?).await?;
    let (publish, properties) = (to("tasks")?, persistent());
    // It is not confirmed, and takes the whole window.
    broker.with(|broker| broker.faults().confirms(ConfirmFault::DropNext(1)));
    let _first = channel.publish(&publish, &properties, "1").await?;
    let begun = Instant::now();
    let waiting = tokio::spawn(async move {
        let published = channel.publish(&publish, &properties, "2").await;
        published.map(drop)
    });
    sleep(25 * SECOND).await;
    fail(&other).await?;
    let recovered = |event: &RecoveryEvent| matches!(event, RecoveryEvent::ChannelRecovered { .. });
    until(&connection, recovered).await?;
    let timed_out = timeout(PATIENCE, waiting).await??;
    assert!(
        matches!(timed_out, Err(amqp_tokio::Error::TimedOut { .. })),
        "{timed_out:?}"
    );
    assert_eq!(begun.elapsed().as_secs(), 30);
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn publishers_in_line_go_on_in_order() -> Outcome {
    let broker = LocalBroker::default();
    let connection = broker
        .connect_with(&with_limits(Limits::default().unconfirmed(1)))
        .await?;
    let channel = connection.open_channel().await?.confirm_select().await?;
    channel.call(durable("tasks")?).await?;
    broker.pause();
    let first = channel
        .publish(&to("tasks")?, &persistent(), "lost")
        .await?;
    let mut publishers = JoinSet::new();
    let mut publish = |number: u8| {
        let channel = channel.clone();
        publishers.spawn(async move {
            let (publish, properties) = (to("tasks")?, persistent());
            let confirm = channel.publish(&publish, &properties, vec![number]).await?;
            assert!(confirm.await.is_ok());
            Ok::<_, amqp_tokio::Error>(())
        });
    };
    for number in 0..5 {
        publish(number);
        tokio::task::yield_now().await;
    }
    broker.stop();
    broker.resume();
    until(&connection, is_lost).await?;
    assert!(first.await.is_err());
    for number in 5..10 {
        publish(number);
        tokio::task::yield_now().await;
    }
    broker.start();
    while let Some(published) = timeout(PATIENCE, publishers.join_next()).await? {
        published??;
    }
    let mut numbers = Vec::new();
    while let Some(message) = channel.get(basic::Get::default().queue("tasks")).await? {
        numbers.extend(message.body.to_vec());
        message.ack()?;
    }
    assert_eq!(numbers, (0..10).collect::<Vec<u8>>());
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn the_time_of_a_loss_is_its_own_after_an_idle_hour() -> Outcome {
    let broker = LocalBroker::default();
    let options = Options::default()
        .recovery(policy().deadline(60 * SECOND))
        .config(Config::default().heartbeat(0));
    let connection = broker.connect_with(&options).await?;
    sleep(PATIENCE).await;
    let lost = Instant::now();
    broker.close_connections("test");
    until(&connection, is_recovered).await?;
    assert_eq!(
        lost.elapsed().as_secs(),
        1,
        "the delay of the first attempt"
    );
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn a_loss_right_behind_the_last_reply_of_a_recovery_is_waited_for() -> Outcome {
    let broker = LocalBroker::default();
    let config = Config::default().heartbeat(0);
    let connection = broker.connect_with(&options().config(config)).await?;
    let channel = connection.open_channel().await?;
    let other = broker.connect_with(&options()).await?;
    other.open_channel().await?.call(durable("tasks")?).await?;
    other.close().await?;
    // It is not part of the topology: the only step is to reopen the channel.
    let tasks = durable("tasks")?.passive(true);
    let mut events = connection.recovery_events();
    let mut lost = async || {
        while let Some(change) = timeout(PATIENCE, events.next()).await? {
            if is_lost(&change.event) {
                return Ok(());
            }
        }
        Err::<(), Box<dyn Error>>("the connection has ended".into())
    };
    for bytes in (0..800).step_by(5) {
        let stall = ByteFaults::new().to_client(Impairment::new().stall_after(bytes));
        broker.with(|broker| broker.faults().bytes_of_next(1, stall));
        broker.close_connections("test");
        lost().await?;
        sleep(2 * SECOND).await;
        // Both arrive together.
        broker.close_connections("test");
        let connections = broker.inspect().connections;
        for it in connections {
            broker.with(|broker| broker.faults().bytes(it.key, ByteFaults::default()));
        }
        sleep(SECOND / 2).await;
        timeout(PATIENCE, channel.call(tasks.clone())).await??;
    }
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn the_channels_of_a_pool_stay_the_same_over_a_loss() -> Outcome {
    let broker = LocalBroker::default();
    let connection = broker.connect_with(&options()).await?;
    let pool = connection.channel_pool(3).await?;
    let first = pool.checkout().await?.id();
    broker.stop();
    until(&connection, is_lost).await?;
    assert_eq!(pool.idle(), 3);
    let mut taken = Vec::new();
    for _ in 0..3 {
        taken.push(timeout(SECOND, pool.checkout()).await??);
    }
    broker.start();
    for channel in &taken {
        timeout(PATIENCE, channel.publish(&to("tasks")?, &persistent(), "x"))
            .await??
            .await?;
    }
    assert!(taken.iter().any(|it| it.id() == first));
    assert_eq!(connection.channel_count(), 3);
    Ok(())
}
