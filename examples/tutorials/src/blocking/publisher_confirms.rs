//! Publishes messages, and looks at the outcome of each.

use std::{env, error::Error};

use amqp_blocking::{
    arguments::Queue,
    protocol::basic,
    publishing::{Outcome, OutgoingMessage, Publisher, PublisherOptions},
};

fn main() -> Result<(), Box<dyn Error>> {
    let url = env::var("AMQP_URL").unwrap_or_else(|_| "amqp://127.0.0.1".into());
    let connection = amqp_blocking::connect(&url)?;

    let channel = connection.open_channel()?.confirm_select()?;
    let own_queue = channel.queue_declare(Queue::server_named())?.queue;
    let to_queue = basic::Publish::default()
        .routing_key(&own_queue)
        .mandatory(true);

    let properties = basic::Properties::default();
    let confirm = channel.publish(&to_queue, &properties, "first")?;
    confirm.wait()?; // the broker has it
    println!("one message: confirmed");

    let publisher = Publisher::new(channel, PublisherOptions::default());
    let messages =
        (1..=1000).map(|number| OutgoingMessage::new(to_queue.clone(), format!("{number}")));
    let mut confirmed = 0;
    for outcome in publisher.publish_many(messages) {
        match outcome {
            Outcome::Acked => confirmed += 1,
            other => println!("{}", other.acked().unwrap_err()),
        }
    }
    println!("a thousand messages: {confirmed} confirmed");

    let to_nowhere = basic::Publish::default()
        .routing_key("nowhere")
        .mandatory(true);
    let receipt = publisher.publish(OutgoingMessage::new(to_nowhere, "lost"))?;
    match receipt.wait()?.acked() {
        Ok(()) => println!("a message to nowhere: confirmed"),
        Err(error) => println!("a message to nowhere: {error}"),
    }

    connection.close()?;
    Ok(())
}
