//! Handles that block, on a connection that tokio drives.

#![cfg(feature = "broker")]

use amqp_blocking as blocking;
use amqp_tokio::{
    Config, Error, LocalBroker,
    protocol::{basic, queue},
};

type Outcome = Result<(), Box<dyn std::error::Error + Send + Sync>>;

/// The calls of a thread outside of the runtime.
fn blocks(connection: amqp_tokio::Connection) -> Result<Vec<u8>, Error> {
    let connection = blocking::Connection::from(connection);
    let channel = connection.open_channel()?;
    channel.call(queue::Declare::default().queue("tasks"))?;
    let publish = basic::Publish::default().routing_key("tasks");
    channel.publish(&publish, &basic::Properties::default(), "one")?;
    let mut consumer = channel.consume(basic::Consume::default().queue("tasks"))?;
    let delivery = consumer.next().ok_or("no delivery").unwrap()?;
    let body = delivery.body.to_vec();
    delivery.ack()?;
    Ok(body)
}

#[tokio::test]
async fn a_thread_blocks_on_a_connection_of_tasks() -> Outcome {
    let connection = LocalBroker::default().connect(Config::default()).await?;
    let shared = connection.clone();
    let body = tokio::task::spawn_blocking(|| blocks(shared)).await??;
    assert_eq!(body, b"one");
    connection.close().await?;
    Ok(())
}
