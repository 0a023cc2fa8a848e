//! Channels that are closed, dropped, lost or opened.

use amqp_tokio::{
    Config, LocalBroker, Options,
    protocol::{ReplyCode, basic},
    recovery::{Mode, RecoveryEvent},
};
use tokio::time::{sleep, timeout};

use crate::{
    Outcome, PATIENCE, SECOND, durable, fail, from, is_recovered, keep_busy, options, policy, until,
};

#[tokio::test(start_paused = true)]
async fn channels_dropped_or_closed_while_others_are_restored_are_gone() -> Outcome {
    let broker = LocalBroker::default();
    let connection = broker.connect_with(&options()).await?;
    let mut channels = Vec::new();
    for _ in 0..20 {
        channels.push(connection.open_channel().await?);
    }
    let _other = keep_busy(&broker, &connection).await?;
    for (at, channel) in channels.into_iter().enumerate() {
        if at % 2 == 0 {
            timeout(SECOND, channel.close()).await??;
        }
    }
    until(&connection, is_recovered).await?;
    sleep(SECOND).await;
    let connections = broker.inspect().connections;
    let open: usize = connections.iter().map(|it| it.channels.len()).sum();
    // That of the other connection.
    assert_eq!(open, 1);
    timeout(SECOND, connection.open_channel()).await??;
    assert!(connection.topology().ok_or("none")?.channels().count() <= 2);
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn a_new_channel_takes_no_number_of_one_that_is_being_reopened() -> Outcome {
    let broker = LocalBroker::default();
    let config = Config::default().channel_max(2);
    let connection = broker.connect_with(&options().config(config)).await?;
    let (one, two) = (
        connection.open_channel().await?,
        connection.open_channel().await?,
    );
    fail(&one).await?;
    fail(&one).await?;
    // It is reopened after a delay.
    two.close().await?;
    let three = connection.open_channel().await?;
    assert_ne!(three.id().number(), one.id().number());
    assert!(!connection.channel_released().await);
    let waiting = one.call(basic::Qos::default().prefetch_count(1));
    timeout(PATIENCE, waiting).await??;
    assert!(connection.open_channel().await.is_err());
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn a_consumer_that_the_mode_excludes_ends_with_its_channel() -> Outcome {
    let broker = LocalBroker::default();
    let options = Options::default().recovery(policy().mode(Mode::ConnectionOnly));
    let connection = broker.connect_with(&options).await?;
    let channel = connection.open_channel().await?;
    channel.call(durable("tasks")?).await?;
    let mut consumer = channel.consume(from("tasks")?).await?;
    fail(&channel).await?;
    let end = timeout(PATIENCE, consumer.next()).await?;
    assert!(matches!(end, Some(Err(_))), "{end:?}");
    // The channel goes on.
    timeout(PATIENCE, channel.call(durable("tasks")?)).await??;
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn a_channel_that_is_lost_with_its_connection_goes_on() -> Outcome {
    let broker = LocalBroker::default();
    let connection = broker.connect_with(&options()).await?;
    let channel = connection.open_channel().await?;
    let connections = broker.inspect().connections;
    let key = connections.first().ok_or("none")?.key;
    broker.with(|broker| {
        let (code, text) = (ReplyCode::NOT_FOUND, "NOT_FOUND - test");
        let number = channel.number();
        broker.faults().close_channel(key, number, code, text);
    });
    broker.close_connections("test");
    until(&connection, is_recovered).await?;
    timeout(PATIENCE, channel.call(durable("tasks")?)).await??;
    assert!(channel.is_open());
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn a_channel_that_is_lost_while_others_are_restored_goes_on() -> Outcome {
    let broker = LocalBroker::default();
    let connection = broker.connect_with(&options()).await?;
    let channel = connection.open_channel().await?;
    let connections = broker.inspect().connections;
    let before = connections.first().ok_or("none")?.key;
    let other = keep_busy(&broker, &connection).await?;
    sleep(SECOND).await;
    let connections = broker.inspect().connections;
    for connection in connections.iter().filter(|it| it.key != before) {
        for open in connection.channels.iter().filter(|it| it.consumers == 0) {
            broker.with(|broker| {
                let (code, text) = (ReplyCode::NOT_FOUND, "NOT_FOUND - test");
                broker
                    .faults()
                    .close_channel(connection.key, open.number, code, text);
            });
        }
    }
    until(&connection, |event| {
        matches!(event, RecoveryEvent::ChannelLost { .. })
    })
    .await?;
    until(&connection, is_recovered).await?;
    timeout(PATIENCE, channel.call(durable("tasks")?)).await??;
    other.close().await?;
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn two_hundred_channels_that_are_lost_at_once_go_on() -> Outcome {
    let broker = LocalBroker::default();
    let connection = broker.connect_with(&options()).await?;
    let (mut plain, mut transactional) = (Vec::new(), Vec::new());
    for _ in 0..100 {
        plain.push(connection.open_channel().await?);
        transactional.push(connection.open_channel().await?.tx_select().await?);
    }
    plain[0].call(durable("tasks")?).await?;
    for channel in &transactional {
        let publish = basic::Publish::default().routing_key("tasks");
        let properties = basic::Properties::default();
        channel.publish(&publish, &properties, "x").await?;
    }
    connection.flush().await?;
    let connections = broker.inspect().connections;
    let key = connections.first().ok_or("none")?.key;
    let numbers: Vec<_> = plain.iter().map(|it| it.number()).collect();
    let numbers = numbers
        .into_iter()
        .chain(transactional.iter().map(|it| it.number()));
    broker.with(|broker| {
        for number in numbers {
            let (code, text) = (ReplyCode::NOT_FOUND, "NOT_FOUND - test");
            broker.faults().close_channel(key, number, code, text);
        }
    });
    broker.pause();
    sleep(SECOND).await;
    broker.resume();
    sleep(SECOND).await;
    for channel in &plain {
        let calling = channel.call(basic::Qos::default().prefetch_count(1));
        timeout(PATIENCE, calling).await??;
    }
    for channel in &transactional {
        let lost = timeout(PATIENCE, channel.commit()).await?;
        assert!(lost.is_err(), "channel {}", channel.number());
    }
    Ok(())
}
