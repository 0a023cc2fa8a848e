//! Two connections behind one handle.

#![cfg(feature = "broker")]

use std::{error::Error, time::Duration};

use amqp_tokio::{
    ConnectError, ConnectionPair, ConnectionState, LocalBroker, Options, connect_pair,
    protocol::{ReplyCode, basic, queue},
    recovery::{Backoff, Policy},
    serve,
    wire::{FieldTable, FieldValue},
};
use tokio::net::TcpListener;

type Outcome = Result<(), Box<dyn Error>>;

#[tokio::test]
async fn each_connection_of_a_pair_shows_its_purpose() -> Outcome {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let server = serve(listener, LocalBroker::default())?;
    let mut options = Options::from_uri(&format!("amqp://{}", server.local_addr()))?;
    options.config.properties = FieldTable::new().with("connection_name", "billing");
    let pair = connect_pair(&options).await?;
    let connections = server.broker().inspect().connections;
    let mut names: Vec<_> = connections
        .iter()
        .filter_map(|it| match it.client_properties.get("connection_name") {
            Some(FieldValue::LongStr(name)) => Some(name.as_bytes().to_vec()),
            _ => None,
        })
        .collect();
    names.sort();
    assert_eq!(
        names,
        [&b"billing (consuming)"[..], b"billing (publishing)"]
    );
    pair.close().await?;

    server.broker().stop();
    let refused = connect_pair(&options).await;
    assert!(!matches!(refused, Ok(_) | Err(ConnectError::Misuse(_))));
    Ok(())
}

/// Both sides recover, and the states say so; afterwards one ends without the other.
#[tokio::test]
async fn the_states_of_a_pair_are_those_of_both() -> Outcome {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let server = serve(listener, LocalBroker::default())?;
    let backoff = Backoff::default().first(Duration::from_millis(5));
    let options = Options::from_uri(&format!("amqp://{}", server.local_addr()))?
        .recovery(Policy::new(1).backoff(backoff.max(Duration::from_millis(20))));
    let pair = connect_pair(&options).await?;
    let publishing = pair
        .open_publishing_channel()
        .await?
        .confirm_select()
        .await?;
    let consuming = pair.open_consuming_channel().await?;
    consuming
        .call(queue::Declare::default().queue("tasks"))
        .await?;
    let consume = basic::Consume::default().queue("tasks");
    let mut consumer = consuming.consume(consume).await?;
    let mut states = pair.states();
    let first = states.next().await.ok_or("they are open")?;
    assert_eq!(first.publishing, ConnectionState::Open);
    assert_eq!(first.consuming, ConnectionState::Open);

    server.broker().restart();
    let mut lost = [false; 2];
    while lost != [true; 2] {
        let state = states.next().await.ok_or("they come back")?;
        lost[0] |= state.publishing == ConnectionState::Recovering;
        lost[1] |= state.consuming == ConnectionState::Recovering;
    }
    let to_tasks = basic::Publish::default().routing_key("tasks");
    let persistent = basic::Properties::default().persistent();
    while publishing
        .publish(&to_tasks, &persistent, "work")
        .await?
        .await
        .is_err()
    {}
    let delivery = consumer.next().await.ok_or("it has ended")??;
    delivery.ack()?;

    pair.publishing().close().await?;
    let is_half_closed = |pair: &ConnectionPair| {
        matches!(pair.publishing().state(), ConnectionState::Closed(_))
            && pair.consuming().state() == ConnectionState::Open
    };
    assert!(is_half_closed(&pair));
    pair.abort();
    let mut last = None;
    while let Some(state) = states.next().await {
        last = Some(state);
    }
    let last = last.ok_or("they have ended")?;
    let ConnectionState::Closed(reason) = &last.publishing else {
        panic!("it was closed: {last:?}");
    };
    assert!(reason.is_clean());
    assert!(matches!(last.consuming, ConnectionState::Closed(_)));
    Ok(())
}

/// A close waits for both, and says which has failed.
#[tokio::test(start_paused = true)]
async fn a_close_of_a_pair_is_that_of_both() -> Outcome {
    let broker = LocalBroker::default();
    let (first, second) = (
        broker.connect_with(&Options::default()).await?,
        broker.connect_with(&Options::default()).await?,
    );
    let pair = ConnectionPair::new(first, second);
    let key = broker.inspect().connections[1].key;
    broker.with(|broker| broker.admin().close_connection(key, "by the operator"))?;
    let failed = pair.close().await.err().ok_or("one was closed")?;
    assert_eq!(failed.code(), Some(ReplyCode::CONNECTION_FORCED));
    let publishing = pair.publishing().closed().await;
    assert!(publishing.is_clean(), "{publishing}");
    Ok(())
}
