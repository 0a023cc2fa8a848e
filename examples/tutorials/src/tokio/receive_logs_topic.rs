//! Prints the lines of the log with keys that match a pattern of the command line, until Ctrl-C.

use std::{env, error::Error};

use amqp_tokio::{
    arguments::{Exchange, Queue},
    protocol::{basic, queue},
};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let url = env::var("AMQP_URL").unwrap_or_else(|_| "amqp://127.0.0.1".into());
    let connection = amqp_tokio::connect(&url).await?;

    let closing = connection.clone();
    tokio::spawn(async move {
        let _ = tokio::signal::ctrl_c().await;
        closing.close().await // ends the loop below
    });

    let channel = connection.open_channel().await?;
    let topic_logs = Exchange::topic("topic_logs");
    channel.exchange_declare(topic_logs).await?;

    // ANCHOR: bind
    let own_queue = channel.queue_declare(Queue::server_named()).await?.queue;
    for pattern in env::args().skip(1) {
        let from_logs = queue::Bind::default()
            .queue(&own_queue)
            .exchange("topic_logs")
            .routing_key(pattern);
        channel.queue_bind(from_logs).await?;
    }
    // ANCHOR_END: bind

    let consume = basic::Consume::default().queue(&own_queue);
    let mut consumer = channel.consume_no_ack(consume).await?;
    println!("waiting for logs; Ctrl-C ends the program");
    while let Some(message) = consumer.next().await.transpose()? {
        println!("{}: {}", message.routing_key(), message.body);
    }
    connection.close().await?;
    Ok(())
}
