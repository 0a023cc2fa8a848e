//! Prints the messages of the queue `hello`, until Ctrl-C.

use std::{env, error::Error};

use amqp_blocking::{arguments::Queue, protocol::basic};

fn main() -> Result<(), Box<dyn Error>> {
    let url = env::var("AMQP_URL").unwrap_or_else(|_| "amqp://127.0.0.1".into());
    let connection = amqp_blocking::connect(&url)?;
    let channel = connection.open_channel()?;
    channel.queue_declare(Queue::quorum("hello"))?;

    let closing = connection.clone();
    ctrlc::set_handler(move || {
        let _ = closing.close(); // ends the loop below
    })?;

    let from_hello = basic::Consume::default().queue("hello");
    let consumer = channel.consume_no_ack(from_hello)?;
    println!("waiting for messages; Ctrl-C ends the program");
    for message in consumer {
        let message = message?;
        println!("received: {}", message.body);
    }
    connection.close()?;
    Ok(())
}
