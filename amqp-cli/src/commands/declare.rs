//! `amqp declare`.

use amqp_tokio::protocol::{exchange, queue};
use clap::{Args, Subcommand};

use crate::{
    connection::{ConnectionArgs, close},
    entity::{Argument, QueueName, QueueType, table},
    failure::{Failure, Outcome},
    terminal::print,
};

/// Declares a queue or an exchange, durable unless asked otherwise.
#[derive(Args, Clone, Debug)]
pub(crate) struct DeclareArgs {
    #[command(subcommand)]
    entity: Entity,
}

#[derive(Clone, Debug, Subcommand)]
enum Entity {
    Queue(QueueArgs),
    Exchange(ExchangeArgs),
}

/// Declares a queue, and prints its name.
///
/// A queue that exists stays as it is, and must have the same settings. An empty name lets the broker
/// choose one.
#[derive(Args, Clone, Debug)]
#[command(after_help = QUEUE_EXAMPLES)]
struct QueueArgs {
    #[command(flatten)]
    name: QueueName,
    /// The type. Default: that of the virtual host, usually classic.
    #[arg(long = "type", value_enum, value_name = "TYPE")]
    kind: Option<QueueType>,
    /// Keeps the queue over a restart of the broker: the default.
    #[arg(short, long, overrides_with = "transient")]
    durable: bool,
    /// Drops the queue when the broker restarts. RabbitMQ 4.3 refuses it.
    #[arg(long)]
    transient: bool,
    /// Deletes the queue after its last consumer.
    #[arg(long)]
    auto_delete: bool,
    /// Only checks that the queue exists, and prints its messages and consumers as well.
    #[arg(long, conflicts_with_all = ["kind", "transient", "auto_delete", "argument"])]
    passive: bool,
    /// An argument, such as x-max-length=1000. May be repeated.
    #[arg(short, long, value_name = "NAME=VALUE")]
    argument: Vec<Argument>,
    #[command(flatten)]
    connection: ConnectionArgs,
}

const QUEUE_EXAMPLES: &str = "Examples:
  amqp declare queue jobs
  amqp declare queue orders --type quorum -a x-delivery-limit=5
  amqp declare queue jobs --passive";

/// Declares an exchange.
#[derive(Args, Clone, Debug)]
#[command(after_help = EXCHANGE_EXAMPLES)]
struct ExchangeArgs {
    /// The exchange.
    #[arg(value_name = "EXCHANGE")]
    name: String,
    /// The type: direct, fanout, topic, headers, or one of a plugin.
    #[arg(long = "type", value_name = "TYPE", default_value = "direct")]
    kind: String,
    /// Keeps the exchange over a restart of the broker: the default.
    #[arg(short, long, overrides_with = "transient")]
    durable: bool,
    /// Drops the exchange when the broker restarts.
    #[arg(long)]
    transient: bool,
    /// Deletes the exchange after its last binding.
    #[arg(long)]
    auto_delete: bool,
    /// Refuses publishes: messages come from other exchanges.
    #[arg(long)]
    internal: bool,
    /// Only checks that the exchange exists.
    #[arg(long, conflicts_with_all = ["transient", "auto_delete", "internal", "argument"])]
    passive: bool,
    /// An argument, such as alternate-exchange=unrouted. May be repeated.
    #[arg(short, long, value_name = "NAME=VALUE")]
    argument: Vec<Argument>,
    #[command(flatten)]
    connection: ConnectionArgs,
}

const EXCHANGE_EXAMPLES: &str = "Examples:
  amqp declare exchange events --type topic
  amqp declare exchange events --passive";

impl DeclareArgs {
    pub(crate) async fn run(self) -> Outcome {
        match self.entity {
            Entity::Queue(queue) => queue.run().await,
            Entity::Exchange(exchange) => exchange.run().await,
        }
    }
}

impl QueueArgs {
    async fn run(self) -> Outcome {
        let mut arguments = table(&self.argument);
        if let Some(kind) = self.kind {
            arguments.insert("x-queue-type", kind.name());
        }
        let declare = queue::Declare::default()
            .queue(self.name.name()?)
            .passive(self.passive)
            .durable(!self.transient)
            .auto_delete(self.auto_delete)
            .arguments(arguments);
        let (connection, channel) = self.connection.open("declare").await?;
        let declared = channel.call(declare).await?;
        if self.passive {
            let (messages, consumers) = (declared.message_count, declared.consumer_count);
            print(format_args!(
                "{}\t{messages} messages\t{consumers} consumers",
                declared.queue
            ))?;
        } else {
            print(&declared.queue)?;
        }
        close(&connection).await
    }
}

impl ExchangeArgs {
    async fn run(self) -> Outcome {
        if self.name.is_empty() {
            return Err(Failure::usage("the default exchange exists always"));
        }
        let declare = exchange::Declare::default()
            .exchange(self.name)
            .kind(self.kind)
            .passive(self.passive)
            .durable(!self.transient)
            .auto_delete(self.auto_delete)
            .internal(self.internal)
            .arguments(table(&self.argument));
        let (connection, channel) = self.connection.open("declare").await?;
        channel.call(declare).await?;
        close(&connection).await
    }
}
