//! Publishes messages, and looks at the outcome of each.

use std::{env, error::Error};

use amqp_smol::{
    arguments::Queue,
    protocol::basic,
    publishing::{Outcome, OutgoingMessage, Publisher, PublisherOptions},
};

fn main() -> Result<(), Box<dyn Error>> {
    smol::block_on(async {
        let url = env::var("AMQP_URL").unwrap_or_else(|_| "amqp://127.0.0.1".into());
        let connection = amqp_smol::connect(&url).await?;

        let channel = connection.open_channel().await?.confirm_select().await?;
        let own_queue = channel.queue_declare(Queue::server_named()).await?.queue;
        let to_queue = basic::Publish::default()
            .routing_key(&own_queue)
            .mandatory(true);

        let properties = basic::Properties::default();
        let confirm = channel.publish(&to_queue, &properties, "first").await?;
        confirm.await?; // the broker has it
        println!("one message: confirmed");

        let publisher = Publisher::new(channel, PublisherOptions::default());
        let messages =
            (1..=1000).map(|number| OutgoingMessage::new(to_queue.clone(), format!("{number}")));
        let mut outcomes = publisher.publish_many(messages);
        let mut confirmed = 0;
        while let Some(outcome) = outcomes.next().await {
            match outcome {
                Outcome::Acked => confirmed += 1,
                other => println!("{}", other.acked().unwrap_err()),
            }
        }
        println!("a thousand messages: {confirmed} confirmed");

        let to_nowhere = basic::Publish::default()
            .routing_key("nowhere")
            .mandatory(true);
        let receipt = publisher
            .publish(OutgoingMessage::new(to_nowhere, "lost"))
            .await;
        match receipt.await.acked() {
            Ok(()) => println!("a message to nowhere: confirmed"),
            Err(error) => println!("a message to nowhere: {error}"),
        }

        connection.close().await?;
        Ok(())
    })
}
