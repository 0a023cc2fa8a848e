//! Sends a line of a log to every receiver: the words of the command line.

use std::{env, error::Error};

use amqp_smol::{arguments::Exchange, protocol::basic};

fn main() -> Result<(), Box<dyn Error>> {
    smol::block_on(async {
        let line = env::args().skip(1).collect::<Vec<_>>().join(" ");

        let url = env::var("AMQP_URL").unwrap_or_else(|_| "amqp://127.0.0.1".into());
        let connection = amqp_smol::connect(&url).await?;
        let channel = connection.open_channel().await?;

        channel.exchange_declare(Exchange::fanout("logs")).await?;

        let to_logs = basic::Publish::default().exchange("logs");
        let properties = basic::Properties::default();
        channel.publish(&to_logs, &properties, line.clone()).await?;
        println!("sent: {line}");

        connection.close().await?;
        Ok(())
    })
}
