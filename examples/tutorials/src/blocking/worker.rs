//! Does the tasks of the queue `task_queue`, one at a time, until Ctrl-C.

use std::{env, error::Error, str::Utf8Error, thread, time::Duration};

use amqp_blocking::{
    EndReason, ForEachOptions, Message, OnFailure, arguments::Queue, protocol::basic,
};

fn main() -> Result<(), Box<dyn Error>> {
    let url = env::var("AMQP_URL").unwrap_or_else(|_| "amqp://127.0.0.1".into());
    let connection = amqp_blocking::connect(&url)?;
    let channel = connection.open_channel()?;
    channel.queue_declare(Queue::quorum("task_queue"))?;

    let one_at_a_time = basic::Qos::default().prefetch_count(1);
    channel.basic_qos(one_at_a_time)?;
    let from_tasks = basic::Consume::default().queue("task_queue");
    let consumer = channel.consume(from_tasks)?;
    let work = consumer.for_each(ForEachOptions::new(OnFailure::Reject), perform);

    let stopper = work.stopper();
    ctrlc::set_handler(move || {
        let _ = stopper.drain(Duration::from_secs(30)); // the task at hand is done first
    })?;
    println!("waiting for tasks; Ctrl-C ends the worker");
    let ended = work.run()?;

    connection.close()?;
    match ended.reason {
        EndReason::Drained(_) => Ok(()),
        reason => Err(format!("the work ended early: {reason:?}").into()),
    }
}

/// Performs a task. It is acknowledged when this returns `Ok`.
fn perform(task: Message) -> Result<(), Utf8Error> {
    let text = task.body.text()?;
    println!("received: {text}");
    for _dot in text.matches('.') {
        thread::sleep(Duration::from_secs(1));
    }
    println!("done: {text}");
    Ok(())
}
