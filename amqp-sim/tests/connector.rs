//! One program, on tokio and simulated.

use std::{
    error::Error,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering::SeqCst},
    },
    time::Duration,
};

use amqp_sim::{
    Connector, Sim,
    amqp_driver::{
        arguments::Queue,
        core::Instant,
        protocol::basic::{Consume, Properties, Publish},
    },
};

type Result<T = ()> = std::result::Result<T, Box<dyn Error>>;

/// Publishes ten messages, 50 ms apart, and consumes them by a task of its own.
async fn service(connector: Connector, seen: Arc<AtomicU32>) -> Result<Duration> {
    let start = connector.now();
    let connection = connector.connect().await?;
    let channel = connection.open_channel().await?.confirm_select().await?;
    channel.call(Queue::classic("q").declare()?).await?;
    let mut consumer = channel.consume(Consume::default().queue("q")).await?;
    connector.spawn(async move {
        while let Some(Ok(delivery)) = consumer.next().await {
            seen.fetch_add(1, SeqCst);
            assert!(delivery.ack().is_ok());
        }
    });
    let to_q = Publish::default().routing_key("q");
    for number in 0..10 {
        let body = number.to_string();
        channel
            .publish(&to_q, &Properties::default(), body)
            .await?
            .await?;
        connector.sleep(Duration::from_millis(50)).await;
    }
    let never = std::future::pending::<()>();
    assert_eq!(
        connector.within(Duration::from_millis(10), never).await,
        None
    );
    let at_once = connector.within(Duration::from_secs(5), async { 7 });
    assert_eq!(at_once.await, Some(7));
    connection.close().await?;
    let pair = connector.connect_pair().await?;
    pair.close().await?;
    Ok(connector.now() - start)
}

#[test]
fn a_service_runs_simulated() {
    let sim = Sim::new(1);
    sim.node("rabbit");
    let seen = Arc::<AtomicU32>::default();
    let running = service(sim.connector("amqp://rabbit"), Arc::clone(&seen));
    let took = sim.block_on(async move { running.await.map_err(|error| error.to_string()) });
    let took = took.expect("nothing fails");
    assert_eq!(seen.load(SeqCst), 10);
    assert!((510..700).contains(&took.as_millis()), "{took:?}");
    // Its time is that of the simulation.
    assert!(sim.connector("amqp://rabbit").now() >= Instant::ORIGIN + took);
}

#[tokio::test]
async fn the_same_service_runs_on_tokio() -> Result {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    let server = amqp_tokio::serve(listener, amqp_tokio::LocalBroker::default())?;
    let options = amqp_tokio::Options::from_uri(&format!("amqp://{}", server.local_addr()))?;
    let seen = Arc::<AtomicU32>::default();
    let took = service(amqp_tokio::connector(options), Arc::clone(&seen)).await?;
    assert_eq!(seen.load(SeqCst), 10);
    assert!(took.as_millis() >= 510, "{took:?}");
    Ok(())
}

#[test]
fn a_connector_for_other_options_has_the_same_time() {
    let sim = Sim::new(1);
    sim.advance(Duration::from_secs(3));
    let one = sim.connector("amqp://one");
    let other = one.with_options(amqp_sim::Options::default());
    sim.advance(Duration::from_secs(4));
    assert_eq!(one.now(), other.now());
    assert_ne!(one.options().addresses, other.options().addresses);
}
