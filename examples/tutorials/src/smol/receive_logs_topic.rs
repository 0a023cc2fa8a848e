//! Prints the lines of the log with keys that match a pattern of the command line, until Ctrl-C.

use std::{env, error::Error};

use amqp_smol::{
    arguments::{Exchange, Queue},
    protocol::{basic, queue},
};

fn main() -> Result<(), Box<dyn Error>> {
    smol::block_on(async {
        let url = env::var("AMQP_URL").unwrap_or_else(|_| "amqp://127.0.0.1".into());
        let connection = amqp_smol::connect(&url).await?;
        let channel = connection.open_channel().await?;
        let topic_logs = Exchange::topic("topic_logs");
        channel.exchange_declare(topic_logs).await?;

        let own_queue = channel.queue_declare(Queue::server_named()).await?.queue;
        for pattern in env::args().skip(1) {
            let from_logs = queue::Bind::default()
                .queue(&own_queue)
                .exchange("topic_logs")
                .routing_key(pattern);
            channel.queue_bind(from_logs).await?;
        }

        let closing = connection.clone();
        ctrlc::set_handler(move || {
            let _ = smol::block_on(closing.close()); // ends the loop below
        })?;

        let consume = basic::Consume::default().queue(&own_queue);
        let mut consumer = channel.consume_no_ack(consume).await?;
        println!("waiting for logs; Ctrl-C ends the program");
        while let Some(message) = consumer.next().await.transpose()? {
            println!("{}: {}", message.routing_key(), message.body);
        }
        connection.close().await?;
        Ok(())
    })
}
