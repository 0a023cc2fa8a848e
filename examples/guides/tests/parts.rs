//! What programs do in hours or after faults: their functions on a broker in this process, in virtual
//! time.

#![allow(dead_code, reason = "the programs themselves are run by another test")]

#[path = "../src/bin/oauth2.rs"]
mod oauth2;
#[path = "../src/bin/outcomes.rs"]
mod outcomes;
#[path = "../src/bin/retries.rs"]
mod retries;

use std::{
    error::Error,
    fs,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use amqp_tokio::{
    Config, Connection, CredentialsProvider, LocalBroker, LoginFuture, Options,
    broker::{self, ConfirmFault, Permissions, User},
    protocol::{
        basic::{self, Publish},
        queue,
    },
    publishing::{Acknowledgements, OutgoingMessage, Publisher, PublisherOptions, Republish},
};
use outcomes::{Fate, settle};

type Outcome = Result<(), Box<dyn Error>>;

const HOUR: Duration = Duration::from_secs(3600);

/// The number of ready messages of a queue.
fn ready(broker: &broker::Broker, queue: &str) -> usize {
    broker.queue("/", queue).map_or(0, |it| it.ready)
}

async fn publisher(connection: &Connection) -> Result<Publisher, Box<dyn Error>> {
    let channel = connection.open_channel().await?;
    channel
        .call(queue::Declare::default().queue("lines"))
        .await?;
    let options = PublisherOptions::default().republish(Republish::new("test-")?);
    Ok(Publisher::open(channel, Acknowledgements::On, options).await?)
}

fn line(queue: &str) -> OutgoingMessage {
    let publish = Publish::default().routing_key(queue).mandatory(true);
    OutgoingMessage::new(publish, "a line")
}

#[tokio::test(start_paused = true)]
async fn refused_messages_are_published_again() -> Outcome {
    let broker = LocalBroker::default();
    let publisher = publisher(&broker.connect(Config::default()).await?).await?;
    broker.with(|it| it.faults().confirms(ConfirmFault::NackNext(2)));
    assert_eq!(settle(&publisher, line("lines")).await, Fate::Arrived);
    broker.with(|it| it.faults().confirms(ConfirmFault::NackNext(100)));
    let fate = settle(&publisher, line("lines")).await;
    assert_eq!(fate, Fate::Failed("refused".to_owned()));
    assert_eq!(broker.with(|it| ready(it, "lines")), 1);
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn a_message_without_a_queue_is_unroutable() -> Outcome {
    let broker = LocalBroker::default();
    let publisher = publisher(&broker.connect(Config::default()).await?).await?;
    assert_eq!(settle(&publisher, line("nowhere")).await, Fate::Unroutable);
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn a_lost_confirm_leaves_a_message_in_doubt() -> Outcome {
    let broker = LocalBroker::default();
    let publisher = publisher(&broker.connect(Config::default()).await?).await?;
    broker.with(|it| it.faults().confirms(ConfirmFault::DropNext(1)));
    let message = line("lines").confirm_timeout(Duration::from_secs(5));
    let fate = settle(&publisher, message).await;
    assert!(matches!(fate, Fate::InDoubt(_)), "{fate:?}");
    assert_eq!(broker.with(|it| ready(it, "lines")), 1);
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn a_message_that_is_lost_with_its_connection_is_published_again() -> Outcome {
    let broker = LocalBroker::default();
    let options = Options::default().recovering();
    let connection = broker.connect_with(&options).await?;
    let publisher = publisher(&connection).await?;
    broker.with(|it| it.faults().confirms(ConfirmFault::DropNext(1)));
    let restarting = async {
        broker.until(|it| ready(it, "lines") == 1).await;
        broker.restart();
    };
    let message = line("lines").properties(basic::Properties::default().persistent());
    let (fate, ()) = tokio::join!(settle(&publisher, message), restarting);
    assert_eq!(fate, Fate::Arrived);
    // At least once: a consumer knows the repeat by its message id.
    assert_eq!(broker.with(|it| ready(it, "lines")), 2);
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn a_closed_connection_sends_nothing() -> Outcome {
    let broker = LocalBroker::default();
    let connection = broker.connect(Config::default()).await?;
    let publisher = publisher(&connection).await?;
    connection.close().await?;
    let fate = settle(&publisher, line("lines")).await;
    assert!(matches!(fate, Fate::Failed(_)), "{fate:?}");
    Ok(())
}

/// A job that fails a fourth time is dead, and so is one that no attempt can handle.
#[tokio::test(start_paused = true)]
async fn a_job_is_retried_three_times() -> Outcome {
    let broker = LocalBroker::default();
    let connection = broker.connect(Config::default()).await?;
    let channel = connection.open_channel().await?;
    tokio::select! {
        ended = retries::work(&connection, HOUR) => return ended,
        checked = async {
            broker.until(|it| it.queue("/", "jobs").is_some_and(|it| !it.consumers.is_empty())).await;
            let begun = tokio::time::Instant::now();
            let to_jobs = Publish::default().routing_key("jobs");
            for job in ["4", "5", "five"] {
                channel.publish(&to_jobs, &basic::Properties::default(), job).await?;
            }
            broker.until(|it| ready(it, "jobs.dead") == 2).await;
            let took = begun.elapsed();
            assert!(took >= 3 * HOUR && took < 4 * HOUR, "{took:?}");
            broker.until(|it| it.queue("/", "jobs").is_some_and(|it| it.ready == 0 && it.unacked == 0)).await;
            for expected in ["five", "5"] {
                let dead = channel.get(basic::Get::default().queue("jobs.dead")).await?;
                let dead = dead.ok_or("no dead letter")?;
                assert_eq!(dead.body, expected);
                assert!(dead.header("x-death").is_some());
                dead.ack()?;
            }
            Outcome::Ok(())
        } => checked,
    }
}

/// Counts the calls of a provider.
struct Counting(oauth2::TokenFile, AtomicU32);

impl CredentialsProvider for Counting {
    fn login(&self) -> LoginFuture<'_> {
        self.1.fetch_add(1, Ordering::Relaxed);
        self.0.login()
    }
}

#[tokio::test(start_paused = true)]
async fn a_token_is_renewed_after_four_fifths_of_its_time() -> Outcome {
    let directory = tempfile::tempdir()?;
    let file = directory.path().join("token.json");
    fs::write(
        &file,
        r#"{"access_token":"secret","token_type":"bearer","expires_in":3600}"#,
    )?;
    let users = vec![User::new("", "secret").may("/", Permissions::all())];
    let broker = LocalBroker::new(broker::Config::default().users(users))?;
    let tokens = Arc::new(Counting(oauth2::TokenFile(file.clone()), AtomicU32::new(0)));
    let options = Options::default()
        .config(Config::default().frame_log(32))
        .credentials(tokens.clone());
    let connection = broker.connect_with(&options).await?;
    assert_eq!(tokens.1.load(Ordering::Relaxed), 1);
    // One more each 48 minutes.
    tokio::time::sleep(HOUR * 24 + HOUR / 60).await;
    assert_eq!(tokens.1.load(Ordering::Relaxed), 31);
    let log = connection.frame_log().ok_or("no log")?.to_string();
    assert!(log.contains("connection.update-secret"), "{log}");
    assert!(!log.contains("\"secret\""), "{log}");

    // No token: asked again, more and more often; the connection stays until the server closes it.
    fs::remove_file(&file)?;
    tokio::time::sleep(HOUR).await;
    assert!(connection.is_open());
    assert!(tokens.1.load(Ordering::Relaxed) > 32);
    let refused = broker.connect_with(&options).await;
    let error = refused.err().ok_or("connected without a token")?;
    assert!(error.to_string().contains("no credentials"), "{error}");
    Ok(())
}
