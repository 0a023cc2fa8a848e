//! Publishes the lines of the standard input to the queue `lines` of the broker at `AMQP_URL`, and
//! says what became of each.

use std::{
    env,
    error::Error,
    io,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use amqp_tokio::{
    Options,
    arguments::Queue,
    connect_with,
    protocol::basic,
    publishing::{
        Acknowledgements, Outcome, OutgoingMessage, Publisher, PublisherOptions, Republish,
    },
};

/// The pause before a message that was not sent or was refused is published again.
const PAUSE: Duration = Duration::from_secs(1);

/// The most times that a message is published.
const ATTEMPTS: usize = 5;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let uri = env::var("AMQP_URL").unwrap_or_else(|_| "amqp://localhost".to_owned());
    let connection = connect_with(&Options::from_uri(&uri)?.recovering()).await?;
    let channel = connection.open_channel().await?;
    channel.queue_declare(Queue::quorum("lines")).await?;

    // Different in each run of the program.
    let started = SystemTime::now().duration_since(UNIX_EPOCH)?.as_nanos();
    let prefix = format!("lines-{started}-");
    let options = PublisherOptions::default().republish(Republish::new(&prefix)?);
    let publisher = Publisher::open(channel, Acknowledgements::On, options).await?;
    let mut missing = 0;
    for (number, line) in io::stdin().lines().enumerate() {
        let line = line?;
        let to_lines = basic::Publish::default()
            .routing_key("lines")
            .mandatory(true);
        // The same id in each attempt: by it a consumer drops repeats.
        let properties = basic::Properties::default()
            .persistent()
            .message_id(format!("{prefix}{number}"));
        let message = OutgoingMessage::new(to_lines, line.clone()).properties(properties);
        let fate = settle(&publisher, message).await;
        println!("{line}: {fate:?}");
        missing += u64::from(fate != Fate::Arrived);
    }
    connection.close().await?;
    match missing {
        0 => Ok(()),
        missing => Err(format!("{missing} lines have not arrived, or may not have").into()),
    }
}

/// What became of a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    /// A queue has it.
    Arrived,
    /// No queue takes it: the routing is wrong, or its queue was deleted.
    Unroutable,
    /// The broker refused it, or it was not sent, in every attempt. Contains the cause of the last
    /// failure.
    Failed(String),
    /// A queue may have it. Contains the cause of the doubt.
    InDoubt(String),
}

/// Publishes a message, and again after a pause if it was not sent or was refused.
pub(crate) async fn settle(publisher: &Publisher, message: OutgoingMessage) -> Fate {
    let mut cause = String::new();
    for attempt in 0..ATTEMPTS {
        if attempt > 0 {
            tokio::time::sleep(PAUSE).await;
        }
        match publisher.publish(message.clone()).await.await {
            Outcome::Acked => return Fate::Arrived,
            Outcome::Returned(_) => return Fate::Unroutable,
            // Refused by the broker: a queue is full, or its node is failing.
            Outcome::Nacked => cause = "refused".to_owned(),
            // Nothing has left this program.
            Outcome::NotSent { cause: error, .. } => cause = error.to_string(),
            Outcome::Unknown(reason) => return Fate::InDoubt(reason.to_string()),
            // A return that may be that of an equal message, or no confirms.
            other => return Fate::InDoubt(format!("{other:?}")),
        }
    }
    Fate::Failed(cause)
}
