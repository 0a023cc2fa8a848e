//! Handles the jobs at `AMQP_URL`: tries those that fail again after a delay, and keeps those that
//! cannot be handled in a queue of dead letters.

use std::{env, error::Error, time::Duration};

use amqp_tokio::{
    Connection, Failure, ForEachOptions, Message, OnFailure, Options, Retry,
    arguments::{DeadLetter, Queue},
    connect_with,
    protocol::basic,
};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let uri = env::var("AMQP_URL").unwrap_or_else(|_| "amqp://localhost".to_owned());
    let connection = connect_with(&Options::from_uri(&uri)?.recovering()).await?;
    work(&connection, Duration::from_secs(5)).await
}

/// The failure of a job.
#[derive(thiserror::Error, Debug)]
pub(crate) enum JobError {
    /// It will fail each time.
    #[error("no number: {0}")]
    Invalid(#[from] std::num::ParseIntError),
    /// A later attempt may succeed.
    #[error("the database is locked")]
    Locked,
}

/// Handles jobs until the consumer ends. A job that fails comes again after `delay`.
pub(crate) async fn work(connection: &Connection, delay: Duration) -> Result<(), Box<dyn Error>> {
    let channel = connection.open_channel().await?;
    channel.queue_declare(Queue::quorum("jobs.dead")).await?;
    let jobs = Queue::quorum("jobs")
        .dead_letter_at_least_once(DeadLetter::to_queue("jobs.dead"))
        .max_length(100_000);
    channel.queue_declare(jobs).await?;

    // The queue `jobs.retry.5000`, from which a job returns to `jobs` after 5000 ms, three times.
    let publishing = connection.open_channel().await?.confirm_select().await?;
    let retry = Retry::declare(&publishing, "jobs", delay, 3).await?;
    let options = ForEachOptions::choosing(move |failure| {
        eprintln!("failed: {failure}");
        match failure {
            Failure::Error(JobError::Locked) => OnFailure::Retry(retry.clone()),
            Failure::Error(JobError::Invalid(_)) | Failure::Panicked(_) => OnFailure::Reject,
        }
    });
    let consume = basic::Consume::default().queue("jobs");
    let consumer = channel.consume(consume).await?;
    let ended = consumer.for_each_concurrent(8, options, handle).await;
    Err(format!("no more jobs: {}", ended.reason).into())
}

/// Handles a job: a number, which is the number of attempts that it takes.
async fn handle(job: Message) -> Result<(), JobError> {
    let attempts: u32 = job.body.to_string().parse()?;
    if Retry::count(&job) + 1 < attempts {
        return Err(JobError::Locked);
    }
    println!("done at attempt {attempts}");
    Ok(())
}
