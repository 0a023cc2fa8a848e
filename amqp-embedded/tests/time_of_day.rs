//! The time of day of hosted brokers.

use std::{
    error::Error,
    time::{SystemTime, UNIX_EPOCH},
};

use amqp_embedded::broker::{Broker, Change, Config};
use amqp_tokio::{
    LocalBroker,
    protocol::{basic, queue},
    wire::FieldTable,
};

type Outcome<T = ()> = Result<T, Box<dyn Error>>;

/// Returns the time of day of a broker, in seconds since the Unix epoch: that of a message in a
/// stream.
async fn time_of(broker: LocalBroker) -> Outcome<u64> {
    let connection = broker.connect(amqp_tokio::Config::default()).await?;
    let channel = connection.open_channel().await?.confirm_select().await?;
    let arguments = FieldTable::new().with("x-queue-type", "stream");
    let declare = queue::Declare::default().queue("log").arguments(arguments);
    channel.call(declare).await?;
    let publish = basic::Publish::default().routing_key("log");
    let properties = basic::Properties::default();
    channel.publish(&publish, &properties, "m").await?.await?;
    let changes = broker.with(|broker| broker.snapshot());
    let time = changes.iter().find_map(|change| match change {
        Change::Appended(message) => Some(message.timestamp / 1000),
        _ => None,
    });
    Ok(time.ok_or("no message")?)
}

#[tokio::test]
async fn every_host_takes_the_time_of_day_from_the_system() -> Outcome {
    let directory = tempfile::tempdir()?;
    let path = |name: &str| directory.path().join(name);
    let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs();
    for broker in [
        LocalBroker::default(),
        LocalBroker::new(Config::default())?,
        LocalBroker::open(path("system"), Config::default())?,
    ] {
        let time = time_of(broker).await?;
        assert!((now - 2..now + 60).contains(&time), "{time} at {now}");
    }
    Ok(())
}

#[tokio::test]
async fn the_configuration_sets_the_time_of_day() -> Outcome {
    let directory = tempfile::tempdir()?;
    for start in [0, 1_000_000] {
        let config = || Config::default().epoch(start);
        let path = directory.path().join(start.to_string());
        for broker in [
            LocalBroker::new(config())?,
            LocalBroker::open(path, config())?,
            Broker::new(config())?.into(),
        ] {
            let time = time_of(broker).await?;
            assert!((start..start + 60).contains(&time), "{time} at {start}");
        }
    }
    Ok(())
}

#[tokio::test]
async fn a_broker_of_its_own_begins_at_the_unix_epoch() -> Outcome {
    let broker = Broker::new(Config::default())?;
    let time = time_of(broker.into()).await?;
    assert!(time < 60, "{time}");
    Ok(())
}
