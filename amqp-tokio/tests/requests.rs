//! The requests of a channel by their names.

#![cfg(feature = "broker")]

use amqp_tokio::{
    Config, Error, LocalBroker,
    arguments::{Exchange, Queue},
    core::ApiMisuse,
    protocol::{basic, exchange, queue},
};

type Outcome = Result<(), Box<dyn std::error::Error>>;

#[tokio::test]
async fn requests_have_names_on_every_channel() -> Outcome {
    let broker = LocalBroker::default();
    let connection = broker.connect(Config::default()).await?;
    let channel = connection.open_channel().await?.confirm_select().await?;

    let declared = channel
        .queue_declare(queue::Declare::default().queue("tasks"))
        .await?;
    assert_eq!(declared.queue, "tasks");
    channel.exchange_declare(Exchange::topic("events")).await?;
    let bind = queue::Bind::default()
        .queue("tasks")
        .exchange("events")
        .routing_key("#");
    channel.queue_bind(bind).await?;
    channel
        .basic_qos(basic::Qos::default().prefetch_count(10))
        .await?;
    let to_events = basic::Publish::default().exchange("events").mandatory(true);
    channel
        .publish(&to_events, &basic::Properties::default(), "x")
        .await?
        .await?;
    let purged = channel
        .queue_purge(queue::Purge::default().queue("tasks"))
        .await?;
    assert_eq!(purged.message_count, 1);

    let inspection = broker.inspect();
    assert_eq!(inspection.vhosts[0].queues.len(), 1);
    Ok(())
}

#[tokio::test]
async fn presets_are_requests() -> Outcome {
    let broker = LocalBroker::default();
    let connection = broker.connect(Config::default()).await?;
    let channel = connection.open_channel().await?;
    let orders = Queue::quorum("orders").delivery_limit(5);
    let declared = channel.queue_declare(orders).await?;
    assert_eq!(declared.queue, "orders");
    Ok(())
}

#[tokio::test]
async fn a_request_by_its_name_is_checked_as_a_call_is() -> Outcome {
    let broker = LocalBroker::default();
    let connection = broker.connect(Config::default()).await?;
    let channel = connection.open_channel().await?;
    let untyped = exchange::Declare::default().exchange("events");
    let refused = channel.exchange_declare(untyped).await;
    assert!(matches!(
        refused,
        Err(Error::Misuse(ApiMisuse::ExchangeTypeRequired))
    ));
    assert!(channel.is_open());
    Ok(())
}
