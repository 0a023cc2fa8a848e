//! Handles the orders of a topic exchange, whatever happens to the broker at `AMQP_URL`.

use std::{convert::Infallible, env, error::Error};

use amqp_tokio::{
    ForEachOptions, Message, OnFailure, Options,
    arguments::{Exchange, Queue},
    connect_with,
    protocol::{basic, queue},
    recovery::{Policy, random_seed},
};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let uri = env::var("AMQP_URL").unwrap_or_else(|_| "amqp://localhost".to_owned());
    // The broker may come up after this program.
    let policy = Policy::new(random_seed()).first_connect(true);
    let connection = connect_with(&Options::from_uri(&uri)?.recovery(policy)).await?;

    // For the log: what is lost, tried and restored.
    let mut events = connection.recovery_events();
    tokio::spawn(async move {
        while let Some(event) = events.next().await {
            eprintln!("{event}");
        }
    });

    // Declared once here, and again by each recovery.
    let channel = connection.open_channel().await?;
    channel.exchange_declare(Exchange::topic("events")).await?;
    channel.queue_declare(Queue::quorum("orders")).await?;
    let orders = queue::Bind::default()
        .queue("orders")
        .exchange("events")
        .routing_key("order.#");
    channel.queue_bind(orders).await?;
    let consume = basic::Consume::default().queue("orders");
    let consumer = channel.consume(consume).await?;

    // Up to eight orders at a time, each acknowledged when it is handled.
    let options = ForEachOptions::new(OnFailure::Requeue);
    let ended = consumer.for_each_concurrent(8, options, handle).await;
    Err(format!("no more orders: {}", ended.reason).into())
}

async fn handle(order: Message) -> Result<(), Infallible> {
    let again = if order.is_redelivered() {
        ", perhaps again"
    } else {
        ""
    };
    println!("{}: {}{again}", order.routing_key(), order.body);
    Ok(())
}
