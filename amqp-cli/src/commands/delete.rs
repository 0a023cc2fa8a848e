//! `amqp delete`.

use amqp_tokio::{
    core::text::Quoted,
    protocol::{exchange, queue},
};
use clap::{Args, Subcommand};

use crate::{
    connection::{ConnectionArgs, close},
    entity::{QueueName, exists},
    failure::{Code, Failure, Outcome},
    terminal::print,
};

/// Deletes a queue or an exchange.
#[derive(Args, Clone, Debug)]
pub(crate) struct DeleteArgs {
    #[command(subcommand)]
    entity: Entity,
}

#[derive(Clone, Debug, Subcommand)]
enum Entity {
    Queue(QueueArgs),
    Exchange(ExchangeArgs),
}

/// Deletes a queue, and prints the number of its messages.
#[derive(Args, Clone, Debug)]
#[command(after_help = QUEUE_EXAMPLES)]
struct QueueArgs {
    #[command(flatten)]
    name: QueueName,
    /// Does not delete a queue that has consumers.
    // The URL has no short form here: see `cli`.
    #[arg(short = 'u', long)]
    if_unused: bool,
    /// Does not delete a queue that has messages.
    #[arg(short = 'e', long)]
    if_empty: bool,
    /// Succeeds if there is no such queue.
    #[arg(long)]
    missing_ok: bool,
    #[command(flatten)]
    connection: ConnectionArgs,
}

const QUEUE_EXAMPLES: &str = "Examples:
  amqp delete queue jobs
  amqp delete queue jobs --if-empty --if-unused";

/// Deletes an exchange.
#[derive(Args, Clone, Debug)]
#[command(after_help = EXCHANGE_EXAMPLES)]
struct ExchangeArgs {
    /// The exchange.
    #[arg(value_name = "EXCHANGE")]
    name: String,
    /// Does not delete an exchange that has bindings.
    #[arg(long)]
    if_unused: bool,
    /// Succeeds if there is no such exchange.
    #[arg(long)]
    missing_ok: bool,
    #[command(flatten)]
    connection: ConnectionArgs,
}

const EXCHANGE_EXAMPLES: &str = "Examples:
  amqp delete exchange events
  amqp delete exchange events --if-unused";

impl DeleteArgs {
    pub(crate) async fn run(self) -> Outcome {
        match self.entity {
            Entity::Queue(queue) => queue.run().await,
            Entity::Exchange(exchange) => exchange.run().await,
        }
    }
}

impl QueueArgs {
    async fn run(self) -> Outcome {
        let name = self.name.name()?;
        let delete = queue::Delete::default()
            .queue(&name)
            .if_unused(self.if_unused)
            .if_empty(self.if_empty);
        let (connection, channel) = self.connection.open("delete").await?;
        // RabbitMQ deletes a queue that does not exist with success
        // (<https://www.rabbitmq.com/docs/specification>).
        if exists(&connection, &name).await? {
            let deleted = channel.call(delete).await?;
            print(deleted.message_count)?;
        } else if !self.missing_ok {
            let text = format_args!("there is no queue {}", Quoted(&name)).to_string();
            return Err(Failure::new(Code::Nothing, text));
        }
        close(&connection).await
    }
}

impl ExchangeArgs {
    async fn run(self) -> Outcome {
        let (connection, channel) = self.connection.open("delete").await?;
        let probe = connection.open_channel().await?;
        let passive = exchange::Declare::default()
            .exchange(self.name.as_str())
            .passive(true);
        match probe.call(passive).await {
            Err(error) if error.is_not_found() && self.missing_ok => {}
            Err(error) => return Err(error.into()),
            Ok(_) => {
                let delete = exchange::Delete::default()
                    .exchange(self.name)
                    .if_unused(self.if_unused);
                channel.call(delete).await?;
            }
        }
        close(&connection).await
    }
}
