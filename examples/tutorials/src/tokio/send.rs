//! Sends a message to the queue `hello`.

use std::{env, error::Error};

use amqp_tokio::{arguments::Queue, protocol::basic};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let url = env::var("AMQP_URL").unwrap_or_else(|_| "amqp://127.0.0.1".into());
    let connection = amqp_tokio::connect(&url).await?;
    let channel = connection.open_channel().await?;

    channel.queue_declare(Queue::quorum("hello")).await?;

    let to_hello = basic::Publish::default().routing_key("hello");
    let properties = basic::Properties::default();
    channel
        .publish(&to_hello, &properties, "Hello World!")
        .await?;
    println!("sent: Hello World!");

    connection.close().await?; // the message has left
    Ok(())
}
