//! Sends a line of a log with a key of several words, such as `kern.critical`: the first word of the
//! command line, and the others.

use std::{env, error::Error};

use amqp_smol::{arguments::Exchange, protocol::basic};

fn main() -> Result<(), Box<dyn Error>> {
    smol::block_on(async {
        let mut arguments = env::args().skip(1);
        let key = arguments.next().ok_or("which key?")?;
        let line = arguments.collect::<Vec<_>>().join(" ");

        let url = env::var("AMQP_URL").unwrap_or_else(|_| "amqp://127.0.0.1".into());
        let connection = amqp_smol::connect(&url).await?;
        let channel = connection.open_channel().await?;

        let topic_logs = Exchange::topic("topic_logs");
        channel.exchange_declare(topic_logs).await?;

        let to_logs = basic::Publish::default()
            .exchange("topic_logs")
            .routing_key(&key);
        let properties = basic::Properties::default();
        channel.publish(&to_logs, &properties, line.clone()).await?;
        println!("sent as {key}: {line}");

        connection.close().await?;
        Ok(())
    })
}
