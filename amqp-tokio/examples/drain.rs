//! Handles messages until it is asked to terminate, and leaves nothing behind.
//!
//! Connects to the server that the environment variable `AMQP_URL` names, and handles its queue
//! `jobs` until SIGTERM, or Ctrl-C where there are no signals. Without the variable, it brings a broker
//! of its own, in this process, with some jobs.

use std::{convert::Infallible, env, error::Error, time::Duration};

use amqp_tokio::{
    Config, Connection, EndReason, ForEachOptions, LocalBroker, Message, OnFailure,
    protocol::{basic, queue},
};

#[tokio::main(flavor = "current_thread")]
pub(crate) async fn main() -> Result<(), Box<dyn Error>> {
    let connection = match env::var("AMQP_URL") {
        Ok(url) => amqp_tokio::connect(&url).await?,
        Err(_) => own_broker().await?,
    };
    let channel = connection.open_channel().await?;
    channel
        .call(queue::Declare::default().queue("jobs"))
        .await?;
    let consume = basic::Consume::default().queue("jobs");
    let consumer = channel.consume(consume).await?;

    let options = ForEachOptions::new(OnFailure::Requeue).batch_acks(64, Duration::from_millis(50));
    let work = consumer.for_each_concurrent(8, options, handle);

    // From the signal to the exit.
    let (stopper, terminated) = (work.stopper(), terminated()?);
    tokio::spawn(async move {
        terminated.await;
        stopper.drain(Duration::from_secs(20)).await
    });
    let ended = work.await;

    println!("{}\n{:?}", ended.reason, ended.counts);
    connection.close().await?;
    match ended.reason {
        EndReason::Drained(_) => Ok(()),
        // A supervisor starts the program again.
        reason => Err(format!("no more jobs: {reason}").into()),
    }
}

async fn handle(message: Message) -> Result<(), Infallible> {
    tokio::time::sleep(Duration::from_millis(20)).await;
    println!("handled {}", message.body);
    Ok(())
}

/// Waits for the request to terminate.
fn terminated() -> Result<impl Future<Output = ()>, std::io::Error> {
    #[cfg(unix)]
    let mut signals = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
    Ok(async move {
        #[cfg(unix)]
        signals.recv().await;
        #[cfg(not(unix))]
        let _no_signals = tokio::signal::ctrl_c().await;
    })
}

/// A connection to a broker with jobs.
async fn own_broker() -> Result<Connection, Box<dyn Error>> {
    println!("AMQP_URL is not set: using the embedded broker");
    let connection = LocalBroker::default().connect(Config::default()).await?;
    let channel = connection.open_channel().await?.confirm_select().await?;
    channel
        .call(queue::Declare::default().queue("jobs"))
        .await?;
    let publish = basic::Publish::default().routing_key("jobs");
    let properties = basic::Properties::default();
    for number in 1..=1000 {
        let job = format!("job {number}");
        let confirm = channel.publish(&publish, &properties, job).await?;
        confirm.await?;
    }
    Ok(connection)
}
