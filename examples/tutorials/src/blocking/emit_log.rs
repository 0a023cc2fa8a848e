//! Sends a line of a log to every receiver: the words of the command line.

use std::{env, error::Error};

use amqp_blocking::{arguments::Exchange, protocol::basic};

fn main() -> Result<(), Box<dyn Error>> {
    let line = env::args().skip(1).collect::<Vec<_>>().join(" ");

    let url = env::var("AMQP_URL").unwrap_or_else(|_| "amqp://127.0.0.1".into());
    let connection = amqp_blocking::connect(&url)?;
    let channel = connection.open_channel()?;

    channel.exchange_declare(Exchange::fanout("logs"))?;

    let to_logs = basic::Publish::default().exchange("logs");
    let properties = basic::Properties::default();
    channel.publish(&to_logs, &properties, line.clone())?;
    println!("sent: {line}");

    connection.close()?;
    Ok(())
}
