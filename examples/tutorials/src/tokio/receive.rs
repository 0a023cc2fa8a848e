//! Prints the messages of the queue `hello`, until Ctrl-C.

use std::{env, error::Error};

use amqp_tokio::{arguments::Queue, protocol::basic};

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
    channel.queue_declare(Queue::quorum("hello")).await?;

    let from_hello = basic::Consume::default().queue("hello");
    let mut consumer = channel.consume_no_ack(from_hello).await?;
    println!("waiting for messages; Ctrl-C ends the program");
    while let Some(message) = consumer.next().await.transpose()? {
        println!("received: {}", message.body);
    }
    connection.close().await?;
    Ok(())
}
