//! Sends a message to the queue `hello`.

use std::{env, error::Error};

use amqp_blocking::{arguments::Queue, protocol::basic};

fn main() -> Result<(), Box<dyn Error>> {
    let url = env::var("AMQP_URL").unwrap_or_else(|_| "amqp://127.0.0.1".into());
    let connection = amqp_blocking::connect(&url)?;
    let channel = connection.open_channel()?;

    channel.queue_declare(Queue::quorum("hello"))?;

    let to_hello = basic::Publish::default().routing_key("hello");
    let properties = basic::Properties::default();
    channel.publish(&to_hello, &properties, "Hello World!")?;
    println!("sent: Hello World!");

    connection.close()?; // the message has left
    Ok(())
}
