//! `amqp ping`.

use std::time::{Duration, Instant};

use amqp_tokio::{Channel, Connection, core::text::Escaped, protocol::exchange, wire::FieldValue};
use clap::Args;

use crate::{
    connection::{ConnectionArgs, close},
    duration,
    failure::{Code, Failure, Outcome},
    signals::Stop,
    terminal::print,
};

/// Logs in, and measures the time of round trips: ends with 0 if the broker works.
#[derive(Args, Clone, Debug)]
#[command(after_help = EXAMPLES)]
pub(crate) struct PingArgs {
    /// The number of round trips.
    #[arg(short, long, value_name = "N", default_value_t = 1)]
    count: u64,
    /// The time between two of them.
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = duration::parse)]
    interval: Duration,
    /// The time for the login, and for each round trip.
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = duration::parse)]
    timeout: Duration,
    #[command(flatten)]
    connection: ConnectionArgs,
}

const EXAMPLES: &str = "Examples:
  amqp ping
  amqp ping -u amqps://me:secret@broker.example.com -c 5
  until amqp ping --timeout 1s; do sleep 1; done";

impl PingArgs {
    pub(crate) async fn run(self) -> Outcome {
        let began = Instant::now();
        let late = || Failure::new(Code::TimedOut, "no answer came in time");
        let opened = self.connection.open("ping");
        let opened = tokio::time::timeout(self.timeout, opened).await;
        let (connection, channel) = opened.map_err(|_| late())??;
        let login = began.elapsed();
        print(format_args!("{} in {login:.1?}", describe(&connection)))?;
        let mut stop = Stop::install().map_err(Failure::failed)?;
        for number in 1..=self.count {
            if number > 1 {
                tokio::select! {
                    () = tokio::time::sleep(self.interval) => {}
                    () = stop.requested() => break,
                }
            }
            let began = Instant::now();
            let answered = tokio::select! {
                answered = tokio::time::timeout(self.timeout, round_trip(&channel)) => answered,
                () = stop.requested() => break,
            };
            answered.map_err(|_| late())??;
            print(format_args!("round trip {number}: {:.1?}", began.elapsed()))?;
        }
        close(&connection).await
    }
}

/// Asks for an exchange that every virtual host has (section 3.1.3.1 of the specification).
async fn round_trip(channel: &Channel) -> Outcome {
    let passive = exchange::Declare::default()
        .exchange("amq.direct")
        .passive(true);
    channel.call(passive).await?;
    Ok(())
}

/// The name and the version of the broker.
fn describe(connection: &Connection) -> String {
    let properties = connection.server_properties();
    let text = |name: &str| {
        let value = properties.get(name).and_then(FieldValue::as_str);
        Escaped(value.unwrap_or("?")).to_string()
    };
    format!("logged in at {} {}", text("product"), text("version"))
}
