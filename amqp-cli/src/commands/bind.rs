//! `amqp bind` and `amqp unbind`.

use amqp_tokio::{
    Channel,
    protocol::{exchange, queue},
    wire::{FieldTable, ShortStr},
};
use clap::Args;

use crate::{
    connection::{ConnectionArgs, close},
    entity::{Argument, table},
    failure::Outcome,
};

/// Binds a queue, or an exchange, to an exchange.
#[derive(Args, Clone, Debug)]
#[command(after_help = BIND_EXAMPLES)]
pub(crate) struct BindArgs {
    #[command(flatten)]
    binding: Binding,
    #[command(flatten)]
    connection: ConnectionArgs,
}

/// Removes a binding of a queue, or an exchange, to an exchange.
#[derive(Args, Clone, Debug)]
#[command(after_help = UNBIND_EXAMPLES)]
pub(crate) struct UnbindArgs {
    #[command(flatten)]
    binding: Binding,
    #[command(flatten)]
    connection: ConnectionArgs,
}

#[derive(Args, Clone, Debug)]
struct Binding {
    /// The exchange that messages come from.
    #[arg(short, long)]
    exchange: String,
    /// The queue that they go to.
    #[arg(short, long, required_unless_present = "destination")]
    queue: Option<String>,
    /// The exchange that they go to, in place of a queue.
    #[arg(long, value_name = "EXCHANGE", conflicts_with = "queue")]
    destination: Option<String>,
    /// The binding key. May be repeated, for a binding each. Default: empty.
    #[arg(short, long, value_name = "KEY")]
    routing_key: Vec<String>,
    /// An argument, such as x-match=any, or a header to match. May be repeated.
    #[arg(short, long, value_name = "NAME=VALUE")]
    argument: Vec<Argument>,
}

const BIND_EXAMPLES: &str = "Examples:
  amqp bind -e events -q orders -r 'order.*' -r 'refund.#'
  amqp bind -e amq.headers -q pdfs -a x-match=all -a format=pdf
  amqp bind -e events --destination archive -r '#'";

const UNBIND_EXAMPLES: &str = "Examples:
  amqp unbind -e events -q orders -r 'refund.#'";

/// Whether bindings are made or removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Change {
    Bind,
    Unbind,
}

impl BindArgs {
    pub(crate) async fn run(self) -> Outcome {
        let (connection, channel) = self.connection.open("bind").await?;
        self.binding.apply(&channel, Change::Bind).await?;
        close(&connection).await
    }
}

impl UnbindArgs {
    pub(crate) async fn run(self) -> Outcome {
        let (connection, channel) = self.connection.open("unbind").await?;
        self.binding.apply(&channel, Change::Unbind).await?;
        close(&connection).await
    }
}

impl Binding {
    async fn apply(&self, channel: &Channel, change: Change) -> Outcome {
        let arguments = table(&self.argument);
        let keys = match self.routing_key.as_slice() {
            [] => &[String::new()],
            keys => keys,
        };
        for key in keys {
            self.apply_one(channel, change, key.as_str().try_into()?, arguments.clone())
                .await?;
        }
        Ok(())
    }

    async fn apply_one(
        &self,
        channel: &Channel,
        change: Change,
        key: ShortStr,
        arguments: FieldTable,
    ) -> Outcome {
        let (from, queue) = (self.exchange.as_str(), self.queue.as_deref());
        let queue = queue.unwrap_or_default();
        match (&self.destination, change) {
            (None, Change::Bind) => {
                let bind = queue::Bind::default().queue(queue).exchange(from);
                let bind = bind.routing_key(key).arguments(arguments);
                channel.call(bind).await?;
            }
            (None, Change::Unbind) => {
                let unbind = queue::Unbind::default().queue(queue).exchange(from);
                let unbind = unbind.routing_key(key).arguments(arguments);
                channel.call(unbind).await?;
            }
            (Some(to), Change::Bind) => {
                let bind = exchange::Bind::default().destination(to.as_str());
                let bind = bind.source(from).routing_key(key).arguments(arguments);
                channel.call(bind).await?;
            }
            (Some(to), Change::Unbind) => {
                let unbind = exchange::Unbind::default().destination(to.as_str());
                let unbind = unbind.source(from).routing_key(key).arguments(arguments);
                channel.call(unbind).await?;
            }
        }
        Ok(())
    }
}
