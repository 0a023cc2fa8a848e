//! The embedded broker as a program of its own: listens until Ctrl-C, and logs a line for each
//! connection.
//!
//! ```text
//! cargo run --release -p amqp-tokio --example amqp-broker -- --port 5672
//! ```

use std::{env, error::Error, process::ExitCode, str::FromStr, time::Duration};

use amqp_tokio::{
    LocalBroker, TokioStream,
    broker::{Config, Permissions, User},
};
use tokio::{net::TcpListener, signal, task::JoinSet, time};

const HELP: &str = "\
An in-memory AMQP 0-9-1 broker that behaves as RabbitMQ does. Nothing outlives it.

  --listen ADDRESS        the address to listen on (127.0.0.1)
  --port PORT             the port to listen on, 0 for any that is free (5672)
  --vhost NAME            a virtual host beside /, as often as wanted
  --user NAME:PASSWORD    a user beside guest:guest, as often as wanted; everyone may do everything
  --rules 3|4             whose rules: RabbitMQ 3.10's, or those of 4 (3)
  --memory BYTES          above how much publishers are blocked (1073741824)
  --help                  print this
";

/// How long connections may take to close in good order.
const CLOSING: Duration = Duration::from_secs(5);

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    match run().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("amqp-broker: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn run() -> Result<(), Box<dyn Error>> {
    let Some(Options { listen, config }) = options(env::args().skip(1))? else {
        print!("{HELP}");
        return Ok(());
    };
    let broker = LocalBroker::new(config)?;
    let listener = TcpListener::bind((listen.0.as_str(), listen.1))
        .await
        .map_err(|error| format!("cannot listen on {}:{}: {error}", listen.0, listen.1))?;
    println!("listening on amqp://{}", listener.local_addr()?);

    let mut connections = JoinSet::new();
    loop {
        while connections.try_join_next().is_some() {}
        let (stream, peer) = tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    eprintln!("cannot accept: {error}");
                    time::sleep(Duration::from_millis(50)).await;
                    continue;
                }
            },
            interrupted = signal::ctrl_c() => {
                interrupted?;
                break;
            }
        };
        stream.set_nodelay(true)?;
        match broker.accept(TokioStream::new(stream)) {
            Ok(driver) => {
                let number = driver.endpoint().key().number();
                println!("connection {number} from {peer}");
                connections.spawn(async move {
                    driver.await;
                    println!("connection {number} has ended");
                });
            }
            Err(refused) => println!("connection from {peer} refused: {refused}"),
        }
    }

    drop(listener);
    broker.close_connections("shutdown");
    let all = async { while connections.join_next().await.is_some() {} };
    if time::timeout(CLOSING, all).await.is_err() {
        println!("{} connections did not close in time", connections.len());
    }
    println!("stopped");
    Ok(())
}

/// What the command line says.
struct Options {
    listen: (String, u16),
    config: Config,
}

/// None when help is asked for.
fn options(mut arguments: impl Iterator<Item = String>) -> Result<Option<Options>, Box<dyn Error>> {
    let mut listen = ("127.0.0.1".to_owned(), 5672);
    let (mut vhosts, mut users) = (Vec::new(), Vec::new());
    let mut config = Config::default();
    while let Some(argument) = arguments.next() {
        if argument == "--help" {
            return Ok(None);
        }
        let mut value = || {
            let value = arguments.next();
            value.ok_or_else(|| format!("{argument} needs a value; see --help"))
        };
        match argument.as_str() {
            "--listen" => listen.0 = value()?,
            "--port" => listen.1 = number("--port", &value()?)?,
            "--vhost" => vhosts.push(value()?),
            "--user" => users.push(value()?),
            "--memory" => config.limits.memory = number("--memory", &value()?)?,
            "--rules" => match value()?.as_str() {
                "3" => {}
                "4" => {
                    let Config { server, rules, .. } = Config::rabbitmq_4();
                    (config.server, config.rules) = (server, rules);
                }
                other => return Err(format!("there are no rules {other}; see --help").into()),
            },
            other => return Err(format!("what is {other}? See --help").into()),
        }
    }
    config.vhosts.extend(vhosts);
    users.insert(0, "guest:guest".to_owned());
    config.users.clear();
    for user in users {
        let (name, password) = user
            .split_once(':')
            .ok_or_else(|| format!("{user} has no password: --user NAME:PASSWORD"))?;
        let mut user = User::new(name, password);
        for vhost in &config.vhosts {
            user = user.may(vhost, Permissions::all());
        }
        config.users.push(user);
    }
    Ok(Some(Options { listen, config }))
}

fn number<T: FromStr>(option: &str, value: &str) -> Result<T, String> {
    let number = value.parse();
    number.map_err(|_| format!("{option} {value}: not a number, or one too large"))
}
