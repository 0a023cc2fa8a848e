//! `amqp get`.

use std::io::Write as _;

use amqp_tokio::{Requeue, protocol::basic};
use clap::Args;

use crate::{
    connection::{ConnectionArgs, close},
    entity::QueueName,
    failure::{Code, Failure, Outcome},
    message::{Format, output::write_fetched},
    terminal::Output,
};

/// Takes messages off a queue, without waiting for one, and prints their bodies.
///
/// A message is acknowledged once it is printed. Without one the exit code is 3.
#[derive(Args, Clone, Debug)]
#[command(after_help = EXAMPLES)]
pub(crate) struct GetArgs {
    #[command(flatten)]
    name: QueueName,
    /// The most messages to take.
    #[arg(short, long, value_name = "N", default_value_t = 1)]
    count: u64,
    /// Returns the messages to the queue after printing. They are then marked as redelivered, and a quorum
    /// queue counts a delivery.
    #[arg(long)]
    requeue: bool,
    /// The form of the output.
    #[arg(long, value_enum, default_value = "raw")]
    format: Format,
    #[command(flatten)]
    connection: ConnectionArgs,
}

const EXAMPLES: &str = "Examples:
  amqp get jobs
  amqp get jobs --count 10 --requeue --format json";

impl GetArgs {
    pub(crate) async fn run(self) -> Outcome {
        let get = basic::Get::default().queue(self.name.name()?);
        let (connection, channel) = self.connection.open("get").await?;
        let mut out = Output::new();
        // Until all are printed, so that none is seen twice.
        let mut to_requeue = Vec::new();
        let mut taken = 0;
        while taken < self.count {
            let Some(fetched) = channel.get(get.clone()).await? else {
                break;
            };
            write_fetched(&mut out, self.format, &fetched)?;
            taken += 1;
            if self.requeue {
                to_requeue.extend(fetched.acker);
            } else {
                out.flush()?;
                fetched.ack()?;
            }
        }
        out.flush()?;
        for acker in to_requeue {
            acker.nack(Requeue::Yes)?;
        }
        close(&connection).await?;
        if taken == 0 && self.count > 0 {
            return Err(Failure::silent(Code::Nothing));
        }
        Ok(())
    }
}
