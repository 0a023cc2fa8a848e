//! Sends a task to the queue `task_queue`: the words of the command line. Each dot is a second of
//! work.

use std::{env, error::Error};

use amqp_tokio::{arguments::Queue, protocol::basic};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let task = env::args().skip(1).collect::<Vec<_>>().join(" ");

    let url = env::var("AMQP_URL").unwrap_or_else(|_| "amqp://127.0.0.1".into());
    let connection = amqp_tokio::connect(&url).await?;
    let channel = connection.open_channel().await?;
    channel.queue_declare(Queue::quorum("task_queue")).await?;

    let to_workers = basic::Publish::default().routing_key("task_queue");
    let persistent = basic::Properties::default().persistent();
    channel
        .publish(&to_workers, &persistent, task.clone())
        .await?;
    println!("sent: {task}");

    connection.close().await?;
    Ok(())
}
