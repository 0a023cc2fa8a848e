//! `amqp broker`.

use std::path::PathBuf;

use amqp_tokio::{
    LocalBroker,
    broker::{Config, Permissions, User},
    serve,
};
use clap::Args;
use tokio::net::TcpListener;

use crate::{
    failure::{Failure, Outcome},
    note,
    signals::Stop,
    terminal::print,
};

/// The file in the folder of --data, as that of the program amqp-broker.
const FILE: &str = "broker.redb";

/// Serves a broker that behaves as RabbitMQ does, for development and tests.
///
/// It lives in memory, until SIGINT or SIGTERM. The program amqp-broker serves the same broker with TLS,
/// permissions, definitions and a page.
#[derive(Args, Clone, Debug)]
#[command(after_help = EXAMPLES)]
pub(crate) struct BrokerArgs {
    /// The address to listen on; port 0 takes a free one. May be repeated.
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:5672")]
    listen: Vec<String>,
    /// Users, in place of guest with the password guest, each with all permissions.
    #[arg(long, value_name = "NAME:PASSWORD")]
    user: Vec<String>,
    /// Virtual hosts, beside "/".
    #[arg(long, value_name = "NAME")]
    vhost: Vec<String>,
    /// The folder for durable queues and persistent messages, there again at the next start.
    #[arg(long, value_name = "FOLDER")]
    data: Option<PathBuf>,
}

const EXAMPLES: &str = "Examples:
  amqp broker
  amqp broker --listen 127.0.0.1:0 --user me:secret --vhost staging
  amqp broker --data ~/.local/share/amqp";

impl BrokerArgs {
    pub(crate) async fn run(self) -> Outcome {
        let mut stop = Stop::install().map_err(Failure::failed)?;
        let config = self.config()?;
        let broker = match &self.data {
            None => LocalBroker::new(config).map_err(Failure::usage)?,
            Some(folder) => {
                std::fs::create_dir_all(folder).map_err(|error| {
                    let folder = folder.display();
                    Failure::failed(format_args!("cannot create {folder}: {error}"))
                })?;
                LocalBroker::open(folder.join(FILE), config).map_err(Failure::failed)?
            }
        };
        let mut servers = Vec::new();
        for at in &self.listen {
            let failed = |error| Failure::failed(format_args!("cannot listen on {at}: {error}"));
            let listener = TcpListener::bind(at).await.map_err(failed)?;
            servers.push(serve(listener, broker.clone()).map_err(failed)?);
        }
        for server in &servers {
            print(format_args!("listening on amqp://{}", server.local_addr()))?;
        }
        let failure = tokio::select! {
            () = stop.requested() => None,
            () = broker.until(|broker| broker.is_stopped()), if self.data.is_some() => {
                broker.stored().await.err()
            }
        };
        if failure.is_none() {
            note!("closing the connections");
        }
        for server in servers {
            server.shutdown().await;
        }
        match failure {
            Some(error) => Err(Failure::failed(error)),
            None => broker.stored().await.map_err(Failure::failed),
        }
    }

    fn config(&self) -> Outcome<Config> {
        let mut config = Config::default();
        config.vhosts.extend(self.vhost.iter().cloned());
        let mut users: Vec<(&str, &str)> = Vec::new();
        for user in &self.user {
            users.push(
                user.split_once(':').ok_or_else(|| {
                    Failure::usage(format_args!("--user {user}: not NAME:PASSWORD"))
                })?,
            );
        }
        if users.is_empty() {
            users.push(("guest", "guest"));
        }
        config.users = users
            .into_iter()
            .map(|(name, password)| {
                let user = User::new(name, password);
                let vhosts = config.vhosts.iter();
                vhosts.fold(user, |user, vhost| {
                    user.may(vhost.as_str(), Permissions::all())
                })
            })
            .collect();
        Ok(config)
    }
}
