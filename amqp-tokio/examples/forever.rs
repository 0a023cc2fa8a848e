//! Publishes and consumes for ever, whatever happens to the broker.

use amqp_tokio::{Options, connect_with, protocol::basic, protocol::queue};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let uri = std::env::args().nth(1);
    let uri = uri.unwrap_or_else(|| "amqp://localhost".to_owned());
    let connection = connect_with(&Options::from_uri(&uri)?.recovering()).await?;
    let channel = connection.open_channel().await?.confirm_select().await?;
    let declare = queue::Declare::default().queue("forever")?.durable(true);
    channel.call(declare).await?;
    let consume = basic::Consume::default().queue("forever")?;
    let mut consumer = channel.consume(consume).await?;
    tokio::spawn(async move {
        while let Some(Ok(delivery)) = consumer.next().await {
            println!("{} bytes", delivery.body.len());
            let _requeued = delivery.ack(); // An error only for a message that comes again.
        }
    });
    let publish = basic::Publish::default().routing_key("forever")?;
    let persistent = basic::Properties::default().delivery_mode(2);
    loop {
        while channel
            .publish(&publish, &persistent, "work")
            .await?
            .await
            .is_err()
        {}
    }
}
