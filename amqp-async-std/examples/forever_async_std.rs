//! Publishes and consumes for ever, whatever happens to the broker at `AMQP_URL`.

use std::{env, error::Error, time::Duration};

use amqp_async_std::{
    ConfirmChannel, Options, connect_with,
    protocol::{basic, queue},
};

fn main() -> Result<(), Box<dyn Error>> {
    async_std::task::block_on(forever())
}

async fn forever() -> Result<(), Box<dyn Error>> {
    let uri = env::var("AMQP_URL").unwrap_or_else(|_| "amqp://localhost".to_owned());
    let connection = connect_with(&Options::from_uri(&uri)?.recovering()).await?;
    let channel = connection.open_channel().await?.confirm_select().await?;
    channel
        .call(queue::Declare::default().queue("forever"))
        .await?;
    let mut consumer = channel
        .consume(basic::Consume::default().queue("forever"))
        .await?;
    async_std::task::spawn(async move {
        loop {
            if let Err(error) = publish(&channel).await {
                eprintln!("again: {error}");
                async_std::task::sleep(Duration::from_millis(200)).await;
            }
        }
    });
    // Ends with an error, as when the queue was deleted, and with it the program.
    while let Some(delivery) = consumer.next().await.transpose()? {
        println!("{} bytes", delivery.body.len());
        let _comes_again = delivery.ack(); // Fails only for a message of before a loss.
    }
    Ok(())
}

/// Publishes a message, and returns when the queue has it.
async fn publish(channel: &ConfirmChannel) -> Result<(), Box<dyn Error + Send + Sync>> {
    let to_queue = basic::Publish::default()
        .routing_key("forever")
        .mandatory(true);
    let persistent = basic::Properties::default().persistent();
    let confirm = channel.publish(&to_queue, &persistent, "work").await?;
    Ok(confirm.await?)
}
