//! The example `drain`, as a process that gets SIGTERM.

#![cfg(all(unix, feature = "broker"))]

#[allow(dead_code, reason = "its own main runs in another process")]
#[path = "../examples/drain.rs"]
mod drain;

use std::{env, error::Error, process::Stdio, time::Duration};

use amqp_tokio::{
    Config, LocalBroker,
    protocol::{basic, queue},
    serve,
};
use tokio::{net::TcpListener, process::Command, time};

type Outcome = Result<(), Box<dyn Error>>;

const JOBS: usize = 20_000;

/// The other process.
#[test]
#[ignore = "it runs until SIGTERM, as a process of the other test"]
fn run_the_example() -> Outcome {
    drain::main()
}

#[tokio::test]
async fn a_program_that_is_asked_to_terminate_leaves_nothing_behind() -> Outcome {
    let broker = LocalBroker::default();
    let server = serve(TcpListener::bind("127.0.0.1:0").await?, broker.clone())?;
    let address = server.local_addr();
    let connection = broker.connect(Config::default()).await?;
    let channel = connection.open_channel().await?;
    channel
        .call(queue::Declare::default().queue("jobs"))
        .await?;
    let publish = basic::Publish::default().routing_key("jobs");
    for number in 0..JOBS {
        let job = number.to_string();
        channel
            .publish(&publish, &basic::Properties::default(), job)
            .await?;
    }
    connection.close().await?;

    let process = Command::new(env::current_exe()?)
        .args(["run_the_example", "--exact", "--ignored", "--nocapture"])
        .env("AMQP_URL", format!("amqp://{address}"))
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()?;
    let jobs = || {
        let queue = broker.with(|broker| broker.queue("/", "jobs"));
        queue.map(|it| (it.ready, it.unacked))
    };
    let patience = Duration::from_secs(120);
    time::timeout(patience, async {
        while jobs().is_none_or(|(ready, unacked)| ready + unacked as usize > JOBS - 50) {
            time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await?;
    let pid = process.id().ok_or("it has ended")?;
    assert!(
        Command::new("kill")
            .arg(pid.to_string())
            .status()
            .await?
            .success()
    );
    let output = time::timeout(patience, process.wait_with_output()).await??;
    let said = String::from_utf8(output.stdout)?;
    assert!(output.status.success(), "{said}");
    assert!(
        said.contains("drained: ") && said.contains(", 0 unfinished, "),
        "{said}"
    );

    // Each job was handled and acknowledged, or is in the queue, at once.
    let (ready, unacked) = jobs().ok_or("no queue")?;
    let handled = said
        .lines()
        .filter(|line| line.starts_with("handled "))
        .count();
    assert_eq!((ready + handled, unacked), (JOBS, 0), "{said}");
    assert!(ready > 0, "it ended before the signal");
    Ok(())
}
