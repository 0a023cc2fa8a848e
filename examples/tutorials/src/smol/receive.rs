//! Prints the messages of the queue `hello`, until Ctrl-C.

use std::{env, error::Error};

use amqp_smol::{arguments::Queue, protocol::basic};

fn main() -> Result<(), Box<dyn Error>> {
    smol::block_on(async {
        let url = env::var("AMQP_URL").unwrap_or_else(|_| "amqp://127.0.0.1".into());
        let connection = amqp_smol::connect(&url).await?;
        let channel = connection.open_channel().await?;
        channel.queue_declare(Queue::quorum("hello")).await?;

        let closing = connection.clone();
        ctrlc::set_handler(move || {
            let _ = smol::block_on(closing.close()); // ends the loop below
        })?;

        let from_hello = basic::Consume::default().queue("hello");
        let mut consumer = channel.consume_no_ack(from_hello).await?;
        println!("waiting for messages; Ctrl-C ends the program");
        while let Some(message) = consumer.next().await.transpose()? {
            println!("received: {}", message.body);
        }
        connection.close().await?;
        Ok(())
    })
}
