//! The broker in this process, without a socket and with one.

#![cfg(feature = "broker")]

use std::time::Duration;

use amqp_tokio::{
    BaseChannel, Config, ConfirmChannel, Connection, ConnectionState, Error, LocalBroker, Options,
    connect,
    core::CloseCause,
    protocol::{ReplyCode, basic, queue},
    serve,
};
use tokio::{net::TcpListener, task, time};

type Outcome = Result<(), Box<dyn std::error::Error>>;

/// The time limit of steps that end at once.
const PATIENCE: Duration = Duration::from_secs(120);

async fn confirming(connection: &Connection) -> Result<ConfirmChannel, Error> {
    connection.open_channel().await?.confirm_select().await
}

async fn declare(channel: &BaseChannel, name: &str) -> Result<(), Error> {
    channel
        .call(queue::Declare::default().queue(name))
        .await
        .map(drop)
}

async fn publish(channel: &ConfirmChannel, key: &str, body: impl Into<Vec<u8>>) -> Outcome {
    let publish = basic::Publish::default().routing_key(key).mandatory(true);
    let properties = basic::Properties::default();
    channel
        .publish(&publish, &properties, body.into())
        .await?
        .await?;
    Ok(())
}

#[tokio::test]
async fn connections_of_one_process_share_a_broker() -> Outcome {
    let broker = LocalBroker::default();
    let publishing = broker.connect(Config::default()).await?;
    let consuming = broker.connect(Config::default()).await?;
    let here = confirming(&publishing).await?;
    declare(&here, "tasks").await?;

    // The consumer sleeps when the message comes.
    let there = consuming.open_channel().await?;
    let mut consumer = there
        .consume(basic::Consume::default().queue("tasks"))
        .await?;
    let taking = task::spawn(async move {
        let delivery = consumer.next().await.transpose()?;
        let body = delivery.map(|it| (it.body.to_vec(), it.ack()));
        Ok::<_, Error>((body, consumer))
    });
    task::yield_now().await;
    publish(&here, "tasks", "the first").await?;
    let (taken, consumer) = time::timeout(PATIENCE, taking).await???;
    let (body, acked) = taken.ok_or("no delivery")?;
    acked?;
    assert_eq!(body, b"the first");

    assert_eq!(broker.inspect().connections.len(), 2);
    drop(consumer);
    consuming.close().await?;
    publishing.close().await?;
    time::timeout(PATIENCE, async {
        while !broker.inspect().connections.is_empty() {
            task::yield_now().await;
        }
    })
    .await?;
    let tasks = &broker.inspect().vhosts[0].queues[0];
    assert_eq!(
        (tasks.name.as_str(), tasks.ready, tasks.unacked),
        ("tasks", 0, 0)
    );
    Ok(())
}

#[tokio::test]
async fn bytes_that_do_not_fit_into_the_pipe_wait_for_the_reader() -> Outcome {
    let connection = LocalBroker::default().connect(Config::default()).await?;
    let channel = confirming(&connection).await?;
    declare(&channel, "large").await?;
    let body: Vec<u8> = (0..5_000_000_u32).map(|it| it as u8).collect();
    time::timeout(PATIENCE, publish(&channel, "large", body.clone())).await??;
    let get = basic::Get::default().queue("large");
    let got = time::timeout(PATIENCE, channel.get(get)).await??;
    assert!(got.is_some_and(|it| it.body.to_vec() == body));
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn messages_expire_without_a_request() -> Outcome {
    let broker = LocalBroker::default();
    let connection = broker.connect(Config::default()).await?;
    let channel = confirming(&connection).await?;
    declare(&channel, "dead").await?;
    let mut living = queue::Declare::default().queue("living");
    living.arguments = living
        .arguments
        .with("x-dead-letter-exchange", "")
        .with("x-dead-letter-routing-key", "dead")
        .with("x-message-ttl", 60_000);
    channel.call(living).await?;
    let mut consumer = channel
        .consume_no_ack(basic::Consume::default().queue("dead"))
        .await?;

    let begun = time::Instant::now();
    publish(&channel, "living", "mortal").await?;
    let message = consumer.next().await.ok_or("no message")??;
    assert_eq!(message.body.to_vec(), b"mortal");
    let waited = begun.elapsed();
    assert!(waited >= Duration::from_secs(60) && waited < Duration::from_secs(61));
    Ok(())
}

#[tokio::test]
async fn a_refused_connection_is_hung_up_on() -> Outcome {
    let broker = LocalBroker::default();
    broker.with(|broker| broker.faults().refuse_connects(1));
    let refused = broker.connect(Config::default()).await;
    let Err(Error::ConnectionClosed(reason)) = refused else {
        return Err("it was not refused".into());
    };
    assert!(matches!(
        reason.cause(),
        CloseCause::Eof { .. } | CloseCause::Transport { .. }
    ));
    broker.connect(Config::default()).await?;
    Ok(())
}

/// A program that names no runtime, with its clock and its tasks.
#[tokio::test(start_paused = true)]
async fn a_connector_of_a_broker_opens_connections_to_it() -> Outcome {
    let broker = LocalBroker::default();
    let connector = broker.connector(Options::default().recovering());
    let other = connector.clone();
    connector.spawn(async move {
        other.sleep(Duration::from_secs(3600)).await;
        if let Ok(connection) = other.connect().await {
            connection.closed().await;
        }
    });
    let pair = connector.connect_pair().await?;
    let connected = |count| broker.until(move |it| it.inspect().connections.len() == count);
    connected(2).await;
    assert!(
        connector
            .within(Duration::from_secs(3599), connected(3))
            .await
            .is_none()
    );
    connected(3).await;

    // By the options of the connector.
    broker.restart();
    connected(0).await;
    connected(3).await;
    pair.open_publishing_channel().await?;
    pair.open_consuming_channel().await?;
    pair.close().await?;
    connected(1).await;
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn a_request_behind_the_end_of_the_old_connections_waits_for_the_recovery() -> Outcome {
    let broker = LocalBroker::default();
    let options = Options::default().connection_name("shop").recovering();
    let connection = broker.connect_with(&options).await?;
    for _ in 0..10 {
        broker.restart();
        // At once, a request may go to the old life.
        broker.until(|it| it.inspect().connections.is_empty()).await;
        assert!(!connection.is_open());
        assert_eq!(connection.state(), ConnectionState::Recovering);
        connection.open_channel().await?.close().await?;
        assert!(connection.is_open());
    }
    let names: Vec<_> = broker
        .inspect()
        .connections
        .into_iter()
        .map(|it| it.client_properties.get("connection_name").cloned())
        .collect();
    assert_eq!(names, [Some("shop".into())]);
    Ok(())
}

#[tokio::test]
async fn publishers_wait_while_memory_is_short() -> Outcome {
    let broker = LocalBroker::default();
    let connection = broker.connect(Config::default()).await?;
    let channel = confirming(&connection).await?;
    declare(&channel, "tasks").await?;
    broker.with(|broker| broker.faults().memory_alarm(true));
    let publishing =
        task::spawn(async move { publish(&channel, "tasks", "the first").await.is_ok() });
    time::timeout(PATIENCE, async {
        while !connection.is_blocked() {
            task::yield_now().await;
        }
    })
    .await?;
    assert!(!publishing.is_finished());
    broker.with(|broker| broker.faults().memory_alarm(false));
    assert!(time::timeout(PATIENCE, publishing).await??);
    Ok(())
}

#[tokio::test]
async fn a_server_that_is_shut_down_closes_its_connections() -> Outcome {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let server = serve(listener, LocalBroker::default())?;
    let uri = format!("amqp://{}", server.local_addr());
    let connection = connect(&uri).await?;
    let channel = confirming(&connection).await?;
    declare(&channel, "tasks").await?;
    publish(&channel, "tasks", "the first").await?;
    assert_eq!(server.broker().inspect().vhosts[0].queues[0].ready, 1);

    let broker = server.broker().clone();
    time::timeout(PATIENCE, server.shutdown()).await?;
    let reason = connection.closed().await;
    assert_eq!(reason.code(), Some(ReplyCode::CONNECTION_FORCED));
    assert!(connect(&uri).await.is_err());
    // Its contents exist as long as the broker has a handle.
    assert_eq!(broker.inspect().vhosts[0].queues[0].ready, 1);
    Ok(())
}

#[tokio::test]
async fn a_server_that_is_dropped_cuts_its_clients_off() -> Outcome {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let server = serve(listener, LocalBroker::default())?;
    let broker = server.broker().clone();
    let connection = connect(&format!("amqp://{}", server.local_addr())).await?;
    drop(server);
    time::timeout(PATIENCE, connection.closed()).await?;
    assert!(broker.inspect().connections.is_empty());
    Ok(())
}
