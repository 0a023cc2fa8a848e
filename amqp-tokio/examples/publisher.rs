//! Publishes a thousand messages within a window, and counts their outcomes.
//!
//! Connects to the server that the environment variable `AMQP_URL` names, and publishes again if
//! that is lost meanwhile. Without it, it brings a broker of its own, in this process.

use std::{
    env,
    error::Error,
    time::{SystemTime, UNIX_EPOCH},
};

use amqp_tokio::{
    LocalBroker, Options,
    protocol::{basic, queue},
    publishing::{
        Acknowledgements, Outcome, OutgoingMessage, Publisher, PublisherOptions, Republish,
    },
};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let connection = match env::var("AMQP_URL") {
        Ok(url) => amqp_tokio::connect_with(&Options::from_uri(&url)?.recovering()).await?,
        Err(_) => {
            println!("AMQP_URL is not set: using the embedded broker");
            LocalBroker::default()
                .connect_with(&Options::default())
                .await?
        }
    };
    let channel = connection.open_channel().await?;
    // A queue of our own, which goes when the connection does.
    let own = queue::Declare::default().exclusive(true);
    let queue = channel.call(own).await?.queue;

    // The prefix of the message ids: different in each run of the program.
    let started = SystemTime::now().duration_since(UNIX_EPOCH)?.as_nanos();
    let republish = Republish::new(&format!("example-{started}-"))?;
    let options = PublisherOptions::default().republish(republish);
    let publisher = Publisher::open(channel, Acknowledgements::On, options).await?;
    let to_queue = basic::Publish::default()
        .routing_key(&queue)
        .mandatory(true);
    let messages =
        (1..=1000).map(|number| OutgoingMessage::new(to_queue.clone(), format!("job {number}")));
    let mut outcomes = publisher.publish_many(messages);
    let mut acked = 0;
    while let Some(outcome) = outcomes.next().await {
        match outcome {
            Outcome::Acked => acked += 1,
            Outcome::NotSent { message, cause } => println!("{:?} is here: {cause}", message.body),
            other => println!("{}", other.acked().unwrap_err()),
        }
    }
    println!("{acked} messages are in the queue {queue}");

    let nowhere = basic::Publish::default()
        .routing_key("nowhere")
        .mandatory(true);
    let receipt = publisher
        .publish(OutgoingMessage::new(nowhere, "lost"))
        .await;
    if let Err(error) = receipt.await.acked() {
        println!("as expected, {error}");
    }
    connection.close().await?;
    Ok(())
}
