//! Does the tasks of the queue `task_queue`, one at a time, until Ctrl-C.

use std::{env, error::Error, str::Utf8Error, time::Duration};

use amqp_tokio::{
    EndReason, ForEachOptions, Message, OnFailure, arguments::Queue, protocol::basic,
};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let url = env::var("AMQP_URL").unwrap_or_else(|_| "amqp://127.0.0.1".into());
    let connection = amqp_tokio::connect(&url).await?;
    let ctrl_c = tokio::spawn(tokio::signal::ctrl_c());
    let channel = connection.open_channel().await?;
    channel.queue_declare(Queue::quorum("task_queue")).await?;

    let one_at_a_time = basic::Qos::default().prefetch_count(1);
    channel.basic_qos(one_at_a_time).await?;
    let from_tasks = basic::Consume::default().queue("task_queue");
    let consumer = channel.consume(from_tasks).await?;
    let work = consumer.for_each_concurrent(1, ForEachOptions::new(OnFailure::Reject), perform);

    let stopper = work.stopper();
    tokio::spawn(async move {
        let _ = ctrl_c.await;
        stopper.drain(Duration::from_secs(30)).await // the task at hand is done first
    });
    println!("waiting for tasks; Ctrl-C ends the worker");
    let ended = work.await;

    connection.close().await?;
    match ended.reason {
        EndReason::Drained(_) => Ok(()),
        reason => Err(format!("the work ended early: {reason:?}").into()),
    }
}

/// Performs a task. It is acknowledged when this returns `Ok`.
async fn perform(task: Message) -> Result<(), Utf8Error> {
    let text = task.body.text()?;
    println!("received: {text}");
    for _dot in text.matches('.') {
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    println!("done: {text}");
    Ok(())
}
