//! The changes of one recovery, as a log has them.

use std::time::Duration;

use amqp_tests::rabbitmq::Node;
use amqp_tokio::{
    BaseChannel, Connection, Options as Connecting, connect_with,
    protocol::{basic, exchange, queue},
    recovery::{Policy, RecoveryEvent},
    wire::FieldTable,
};
use tokio::{runtime::Runtime, time};

use crate::{Result, options::Options};

/// The longest time of the recovery.
const PATIENCE: Duration = Duration::from_secs(120);

/// Kills a broker, starts it again, and prints all changes. Meanwhile the declaration of a queue has
/// become another. Returns whether everything else was recovered.
pub(crate) fn run(options: &Options) -> Result<bool> {
    eprintln!("starting a RabbitMQ");
    let node = Node::start()?;
    let connecting = Connecting::from_uri(&node.uri())?.recovery(Policy::new(options.seed));
    let runtime = Runtime::new()?;
    let connection = runtime.block_on(async {
        let connection = connect_with(&connecting).await?;
        let channel = connection.open_channel().await?;
        declare(&channel).await?;
        let consume = basic::Consume::default().queue("orders");
        let mut consumer = channel.consume(consume).await?;
        tokio::spawn(async move { while let Some(Ok(_)) = consumer.next().await {} });
        redeclare(&amqp_tokio::connect(&node.uri()).await?).await?;
        Ok::<_, Box<dyn std::error::Error + Send + Sync>>((connection, channel))
    })?;
    let (connection, _channel) = connection;
    let printing = runtime.spawn(print(connection.clone()));
    eprintln!("kill -9 of the broker, and a start");
    node.kill()?;
    node.restart()?;
    let printed = runtime.block_on(async { time::timeout(PATIENCE, printing).await });
    let failures = printed.map_err(|_| "the connection does not recover")??;
    runtime.block_on(connection.close())?;
    Ok(failures == Some(1))
}

/// Declares the topology of a small service.
async fn declare(channel: &BaseChannel) -> Result {
    let events = exchange::Declare::default().exchange("events");
    channel.call(events.kind("topic").durable(true)).await?;
    for name in ["orders", "prices"] {
        let declare = queue::Declare::default().queue(name);
        channel.call(declare.durable(true)).await?;
        let bind = queue::Bind::default().queue(name).exchange("events");
        channel.call(bind.routing_key(format!("{name}.#"))).await?;
    }
    let replies = queue::Declare::default().exclusive(true);
    let replies = channel.call(replies).await?.queue;
    let bind = queue::Bind::default().queue(replies).exchange("events");
    channel.call(bind.routing_key("replies")).await?;
    Ok(())
}

/// Declares a queue again with another argument, as an operator.
async fn redeclare(connection: &Connection) -> Result {
    let channel = connection.open_channel().await?;
    let delete = queue::Delete::default().queue("prices");
    channel.call(delete).await?;
    let lazy = FieldTable::default().with("x-message-ttl", 60_000);
    let declare = queue::Declare::default().queue("prices").durable(true);
    channel.call(declare.arguments(lazy)).await?;
    connection.close().await?;
    Ok(())
}

/// Prints the changes until the connection is recovered. Returns the number of steps that failed.
async fn print(connection: Connection) -> Option<usize> {
    let mut events = connection.recovery_events();
    let mut is_lost = false;
    while let Some(change) = events.next().await {
        is_lost |= matches!(change.event, RecoveryEvent::Lost(_));
        if is_lost {
            println!("{change}");
        }
        if let RecoveryEvent::Recovered(report) = change.event
            && is_lost
        {
            return Some(report.failures.len());
        }
    }
    None
}
