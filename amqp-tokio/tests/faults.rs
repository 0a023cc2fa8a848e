//! Faults of bytes under tokio: in memory, over sockets, and while another thread sets them.

#![cfg(feature = "broker")]

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    thread,
    time::Duration,
};

use amqp_tokio::{
    Config, Connection, LocalBroker,
    broker::{ByteFaults, ConnectionKey, Impairment},
    connect,
    core::{CloseCause, TimeoutReason},
    protocol::{basic, queue},
    serve,
};
use tokio::{net::TcpListener, time};

type Outcome = Result<(), Box<dyn std::error::Error>>;

/// The time limit of steps that end at once.
const PATIENCE: Duration = Duration::from_secs(300);

fn disturb_next(broker: &LocalBroker, faults: ByteFaults) {
    broker.with(|broker| broker.faults().bytes_of_next(1, faults));
}

/// The connection that was made last.
fn last_key(broker: &LocalBroker) -> Result<ConnectionKey, &'static str> {
    let connections = broker.inspect().connections;
    let keys = connections.iter().map(|connection| connection.key);
    keys.max().ok_or("there is no connection")
}

/// Publishes so many messages, gets them back in order, and closes.
async fn session(connection: &Connection, count: u32) -> Outcome {
    let channel = connection.open_channel().await?.confirm_select().await?;
    let declare = queue::Declare::default().queue("tasks").exclusive(true);
    channel.call(declare).await?;
    let consume = basic::Consume::default().queue("tasks");
    let mut consumer = channel.consume(consume).await?;
    let publish = basic::Publish::default().routing_key("tasks");
    for number in 0..count {
        let properties = basic::Properties::default();
        let body = number.to_be_bytes().repeat(1 + number as usize % 50);
        let confirm = channel.publish(&publish, &properties, body.clone());
        confirm.await?.await?;
        let delivery = consumer.next().await.ok_or("no delivery")??;
        assert_eq!(delivery.body.to_vec(), body);
        delivery.ack()?;
    }
    Ok(connection.close().await?)
}

#[tokio::test]
async fn everything_works_when_every_byte_comes_alone() -> Outcome {
    let broker = LocalBroker::default();
    disturb_next(&broker, ByteFaults::both(Impairment::new().split(1)));
    let connection = broker.connect(Config::default()).await?;
    time::timeout(PATIENCE, session(&connection, 20)).await?
}

#[tokio::test(start_paused = true)]
async fn a_delay_is_that_of_tokios_clock() -> Outcome {
    let broker = LocalBroker::default();
    let connection = broker.connect(Config::default()).await?;
    let slow = Impairment::new().delay(Duration::from_secs(1));
    let key = last_key(&broker)?;
    broker.with(|broker| broker.faults().bytes(key, ByteFaults::both(slow)));
    let begun = time::Instant::now();
    connection.open_channel().await?;
    let waited = begun.elapsed();
    assert!(waited >= Duration::from_secs(2) && waited < Duration::from_millis(2010));
    session(&connection, 20).await
}

/// A completed flush means that the transport has all of it.
#[tokio::test(start_paused = true)]
async fn a_flush_waits_for_the_transport() -> Outcome {
    let broker = LocalBroker::default();
    let connection = broker.connect(Config::default()).await?;
    let channel = connection.open_channel().await?;
    connection.flush().await?;

    let key = last_key(&broker)?;
    let stall = ByteFaults::new().from_client(Impairment::new().stall_after(0));
    broker.with(|broker| broker.faults().bytes(key, stall));
    let publish = basic::Publish::default().routing_key("tasks");
    let large = vec![0; 4 << 20]; // more than is under way in a pipe
    channel
        .publish(&publish, &basic::Properties::default(), large)
        .await?;
    let stuck = time::timeout(Duration::from_secs(5), connection.flush()).await;
    assert!(stuck.is_err());

    let waiting = tokio::spawn({
        let connection = connection.clone();
        async move { connection.flush().await }
    });
    broker.with(|broker| broker.faults().bytes(key, ByteFaults::default()));
    time::timeout(PATIENCE, waiting).await???;
    assert_eq!(connection.buffered(), 0);

    let cut = ByteFaults::new().from_client(Impairment::new().stall_after(0));
    broker.with(|broker| broker.faults().bytes(key, cut));
    let large = vec![0; 4 << 20];
    channel
        .publish(&publish, &basic::Properties::default(), large)
        .await?;
    let waiting = tokio::spawn({
        let connection = connection.clone();
        async move { connection.flush().await }
    });
    tokio::task::yield_now().await;
    connection.abort();
    let ended = time::timeout(PATIENCE, waiting).await??;
    assert!(matches!(ended, Err(amqp_tokio::Error::ConnectionClosed(_))));
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn heartbeats_notice_a_stall() -> Outcome {
    let broker = LocalBroker::default();
    let config = Config::default().heartbeat(10);
    let connection = broker.connect(config).await?;
    let key = last_key(&broker)?;
    let stall = Impairment::new().stall_after(0);
    broker.with(|broker| broker.faults().bytes(key, ByteFaults::both(stall)));
    let begun = time::Instant::now();
    let reason = connection.closed().await;
    assert!(begun.elapsed() <= Duration::from_secs(21));
    let cause = reason.cause();
    assert!(
        matches!(cause, CloseCause::TimedOut(TimeoutReason::PeerSilent)),
        "{reason}"
    );
    Ok(())
}

#[tokio::test]
async fn connections_over_sockets_are_disturbed_too() -> Outcome {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let server = serve(listener, LocalBroker::default())?;
    let uri = format!("amqp://{}", server.local_addr());
    disturb_next(
        server.broker(),
        ByteFaults::both(Impairment::new().split(3)),
    );
    let connection = time::timeout(PATIENCE, connect(&uri)).await??;
    time::timeout(PATIENCE, session(&connection, 20)).await??;

    // Within the handshake.
    let cut = ByteFaults::new().to_client(Impairment::new().cut_after(300));
    disturb_next(server.broker(), cut);
    assert!(time::timeout(PATIENCE, connect(&uri)).await?.is_err());

    let connection = time::timeout(PATIENCE, connect(&uri)).await??;
    let cut = ByteFaults::both(Impairment::new().cut_after(2000));
    let key = last_key(server.broker())?;
    let broker = server.broker();
    broker.with(|broker| broker.faults().bytes(key, cut));
    let ended = time::timeout(PATIENCE, session(&connection, 100)).await?;
    assert!(ended.is_err());
    let reason = time::timeout(PATIENCE, connection.closed()).await?;
    assert!(matches!(
        reason.cause(),
        CloseCause::Eof { .. } | CloseCause::Transport { .. }
    ));
    Ok(())
}

#[tokio::test]
async fn the_switch_is_thrown_from_another_thread_at_any_time() -> Outcome {
    let broker = LocalBroker::default();
    let connection = broker.connect(Config::default()).await?;
    let key = last_key(&broker)?;
    let way = Impairment::new();
    let plans = [
        ByteFaults::both(way.stall_after(0)),
        ByteFaults::new(),
        ByteFaults::both(way.split(5)),
        ByteFaults::new().to_client(way.stall_after(7)),
        ByteFaults::both(way.delay(Duration::from_millis(1))),
        ByteFaults::new().from_client(way.stall_after(50).split(9)),
        ByteFaults::both(way.split(1)),
    ];
    let done = Arc::new(AtomicBool::new(false));
    let thrower = {
        let (broker, done) = (broker.clone(), Arc::clone(&done));
        thread::spawn(move || {
            for plan in plans.iter().cycle() {
                broker.with(|broker| broker.faults().bytes(key, *plan));
                if done.load(SeqCst) {
                    break;
                }
                thread::yield_now();
            }
        })
    };
    let ended = time::timeout(PATIENCE, session(&connection, 500)).await;
    done.store(true, SeqCst);
    thrower.join().map_err(|_| "the other thread has failed")?;
    ended?
}
