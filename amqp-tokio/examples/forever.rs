//! Publishes and consumes for ever, whatever happens to the broker at `AMQP_URL`.

use std::{env, error::Error};

use amqp_tokio::{
    Options, connect_with,
    protocol::{basic, queue},
};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let uri = env::var("AMQP_URL").unwrap_or_else(|_| "amqp://localhost".to_owned());
    let connection = connect_with(&Options::from_uri(&uri)?.recovering()).await?;
    let channel = connection.open_channel().await?.confirm_select().await?;
    channel
        .call(queue::Declare::default().queue("forever"))
        .await?;
    let mut consumer = channel
        .consume(basic::Consume::default().queue("forever"))
        .await?;
    tokio::spawn(async move {
        while let Some(Ok(delivery)) = consumer.next().await {
            println!("{} bytes", delivery.body.len());
            let _comes_again = delivery.ack(); // Fails only for a message of before a loss.
        }
    });
    let publish = basic::Publish::default().routing_key("forever");
    let persistent = basic::Properties::default().delivery_mode(2);
    let work = || channel.publish(&publish, &persistent, "work");
    loop {
        while work().await?.await.is_err() {} // Not confirmed: again.
    }
}
