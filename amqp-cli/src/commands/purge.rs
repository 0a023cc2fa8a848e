//! `amqp purge`.

use amqp_tokio::protocol::queue;
use clap::Args;

use crate::{
    connection::{ConnectionArgs, close},
    entity::QueueName,
    failure::Outcome,
    terminal::print,
};

/// Drops the messages of a queue that are not delivered, and prints their number.
#[derive(Args, Clone, Debug)]
#[command(after_help = EXAMPLES)]
pub(crate) struct PurgeArgs {
    #[command(flatten)]
    name: QueueName,
    #[command(flatten)]
    connection: ConnectionArgs,
}

const EXAMPLES: &str = "Examples:
  amqp purge jobs";

impl PurgeArgs {
    pub(crate) async fn run(self) -> Outcome {
        let purge = queue::Purge::default().queue(self.name.name()?);
        let (connection, channel) = self.connection.open("purge").await?;
        let purged = channel.call(purge).await?;
        print(purged.message_count)?;
        close(&connection).await
    }
}
