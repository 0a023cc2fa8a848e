//! Publishes three confirmed messages to a queue, consumes and acknowledges them.
//!
//! Connects to the server that the environment variable `AMQP_URL` names, without TLS. Without it, it
//! brings a broker of its own, in this process.

use std::{env, error::Error, process::ExitCode};

use amqp_tokio::{
    Config, LocalBroker,
    protocol::{basic, queue},
};

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    match hello().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("hello: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn hello() -> Result<(), Box<dyn Error>> {
    let connection = match env::var("AMQP_URL") {
        Ok(url) => amqp_tokio::connect(&url).await?,
        Err(_) => {
            println!("AMQP_URL is not set: using the embedded broker");
            LocalBroker::default().connect(Config::default()).await?
        }
    };
    let channel = connection.open_channel().await?.confirm_select().await?;

    // A queue of our own, which goes when the connection does.
    let declared = channel
        .call(queue::Declare::default().exclusive(true))
        .await?;
    let queue = declared.queue;
    println!("declared the queue {queue}");

    let publish = basic::Publish::default()
        .routing_key(&queue)
        .mandatory(true);
    let properties = basic::Properties::default().content_type("text/plain");
    for number in 1..=3 {
        let message = format!("Hello World! ({number})");
        let confirm = channel
            .publish(&publish, &properties, message.clone())
            .await?;
        confirm.await?;
        println!("published and confirmed: {message}");
    }

    channel
        .call(basic::Qos::default().prefetch_count(10))
        .await?;
    let mut consumer = channel
        .consume(basic::Consume::default().queue(&queue))
        .await?;
    for _ in 1..=3 {
        let Some(delivery) = consumer.next().await.transpose()? else {
            return Err("the consumer ended early".into());
        };
        let message = delivery.body.to_string();
        delivery.ack()?;
        println!("consumed and acknowledged: {message}");
    }

    connection.close().await?;
    println!("closed the connection");
    Ok(())
}
