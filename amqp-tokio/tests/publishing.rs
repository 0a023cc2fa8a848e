//! A publisher on the embedded broker, which is lost and comes back, under virtual time.

#![cfg(feature = "broker")]

use std::{collections::BTreeMap, error::Error, time::Duration};

use amqp_tokio::{
    BaseChannel, Connection, LocalBroker, Options,
    broker::ConfirmFault,
    protocol::{basic, queue},
    publishing::{
        Acknowledgements, Outcome, OutgoingMessage, Publisher, PublisherOptions, Republish, Window,
    },
    recovery::Policy,
    rpc::{Client, ClientOptions, Reply, RpcError, Server},
};
use tokio::time::{Instant, sleep, timeout};

type Outcomes = Result<(), Box<dyn Error>>;

/// Longer than any recovery of these tests.
const PATIENCE: Duration = Duration::from_secs(3600);

async fn connect(broker: &LocalBroker) -> Result<Connection, Box<dyn Error>> {
    let options = Options::default().recovery(Policy::new(1));
    Ok(broker.connect_with(&options).await?)
}

async fn declare(connection: &Connection, queue: &str) -> Result<(), Box<dyn Error>> {
    let channel = connection.open_channel().await?;
    channel.call(queue::Declare::default().queue(queue)).await?;
    Ok(())
}

fn message(body: impl ToString) -> OutgoingMessage {
    let to = basic::Publish::default()
        .routing_key("tasks")
        .mandatory(true);
    let persistent = basic::Properties::default().delivery_mode(2);
    OutgoingMessage::new(to, body.to_string()).properties(persistent)
}

/// The messages in the queue, in order: message ids and bodies.
async fn drain(channel: &BaseChannel) -> Result<Vec<(String, usize)>, Box<dyn Error>> {
    let mut all = Vec::new();
    while let Some(fetched) = channel.get(basic::Get::default().queue("tasks")).await? {
        let id = fetched.properties.decode()?.message_id.ok_or("no id")?;
        let number = String::from_utf8(fetched.body.to_vec())?.parse()?;
        all.push((id.to_string(), number));
        fetched.ack()?;
    }
    Ok(all)
}

/// Given a broker that restarts again and again, then each message is confirmed in the end, and
/// arrives at least once: without the repeats, which its id shows, in order.
#[tokio::test(start_paused = true)]
async fn lost_messages_are_published_again_in_order() -> Outcomes {
    const COUNT: usize = 2000;
    let broker = LocalBroker::default();
    let connection = connect(&broker).await?;
    declare(&connection, "tasks").await?;
    let options = PublisherOptions::default()
        .window(Window {
            messages: 50,
            bytes: 1 << 20,
        })
        .republish(Republish::new("run-1-")?);
    let channel = connection.open_channel().await?;
    let publisher = Publisher::open(channel, Acknowledgements::IfSupported, options).await?;
    assert!(publisher.has_confirms());
    // The confirms that the broker drops are lost with the connection.
    let trouble = broker.clone();
    let trouble = tokio::spawn(async move {
        loop {
            trouble.with(|broker| broker.faults().confirms(ConfirmFault::DropNext(20)));
            sleep(Duration::from_millis(20)).await;
            trouble.with(|broker| broker.faults().confirms(ConfirmFault::None));
            trouble.restart();
            sleep(Duration::from_secs(1)).await;
        }
    });
    let mut outcomes = publisher.publish_many((0..COUNT).map(message));
    let mut acked = 0;
    let publishing = async {
        while let Some(outcome) = outcomes.next().await {
            assert_eq!(outcome, Outcome::Acked, "message {acked}");
            acked += 1;
            if acked % 100 == 0 {
                sleep(Duration::from_secs(2)).await;
            }
        }
    };
    timeout(PATIENCE, publishing).await?;
    trouble.abort();
    assert_eq!((acked, publisher.in_flight()), (COUNT, 0));
    let arrived = drain(publisher.channel()).await?;
    println!("{} messages arrived as {}", COUNT, arrived.len());
    assert!(arrived.len() > COUNT, "none was published again");
    let mut first = Vec::new();
    let mut ids = BTreeMap::new();
    for (id, number) in arrived {
        match ids.insert(id.clone(), number) {
            None => first.push(number),
            Some(same) => assert_eq!(same, number, "{id}"),
        }
    }
    assert_eq!(first, (0..COUNT).collect::<Vec<_>>());
    connection.close().await?;
    Ok(())
}

/// Without re-publishing, a message that was lost says so, and the publisher goes on.
#[tokio::test(start_paused = true)]
async fn lost_messages_are_reported_without_republishing() -> Outcomes {
    let broker = LocalBroker::default();
    let connection = connect(&broker).await?;
    declare(&connection, "tasks").await?;
    let channel = connection.open_channel().await?.confirm_select().await?;
    let publisher = Publisher::new(channel, PublisherOptions::default());
    let mut receipts = Vec::new();
    for number in 0..10 {
        receipts.push(publisher.publish(message(number)).await);
    }
    broker.restart();
    let lost = timeout(PATIENCE, publisher.wait_all(receipts)).await?;
    for (number, outcome) in lost.into_iter().enumerate() {
        match outcome {
            Outcome::Acked | Outcome::Unknown(_) => {}
            Outcome::NotSent { message: back, .. } => assert_eq!(*back, message(number)),
            other => panic!("{other:?}"),
        }
    }
    let receipt = timeout(PATIENCE, publisher.publish(message(10))).await?;
    assert_eq!(timeout(PATIENCE, receipt).await?, Outcome::Acked);
    connection.close().await?;
    Ok(())
}

/// Given a message for an exchange that does not exist, then it is not published again for ever.
#[tokio::test(start_paused = true)]
async fn a_refused_message_is_not_published_again() -> Outcomes {
    let broker = LocalBroker::default();
    let connection = connect(&broker).await?;
    let channel = connection.open_channel().await?.confirm_select().await?;
    let options = PublisherOptions::default().republish(Republish::new("p")?);
    let publisher = Publisher::new(channel, options);
    let nowhere = basic::Publish::default().exchange("missing");
    let receipt = publisher.publish(OutgoingMessage::new(nowhere, "x")).await;
    let outcome = timeout(PATIENCE, receipt).await?;
    assert!(matches!(outcome, Outcome::Unknown(_)), "{outcome:?}");
    connection.close().await?;
    Ok(())
}

/// Given a client and a server, when the broker restarts, then a call in flight ends, and the same
/// handles go on, by direct reply-to and with a reply queue that has a new name afterwards.
#[tokio::test(start_paused = true)]
async fn calls_go_on_after_a_recovery() -> Outcomes {
    const LONG: Duration = Duration::from_secs(600);
    let broker = LocalBroker::default();
    let connection = connect(&broker).await?;
    declare(&connection, "tasks").await?;
    let consume = basic::Consume::default().queue("tasks");
    let server = Server::open(connection.open_channel().await?, consume, 8).await?;
    tokio::spawn(server.serve(async |request| {
        sleep(Duration::from_secs(5)).await;
        Ok(Reply::new(request.body.clone()))
    }));
    let caller = connect(&broker).await?;
    let options = ClientOptions::default;
    let direct = Client::direct(caller.open_channel().await?, options()).await?;
    let own = queue::Declare::default().exclusive(true);
    let over_queue = Client::over_queue(caller.open_channel().await?, own, options()).await?;
    for client in [direct, over_queue] {
        for round in 0..3 {
            let reply = client.call(message(round), LONG).await?;
            assert_eq!(reply.body, round.to_string().as_str());
            let calling = client.clone();
            let call = tokio::spawn(async move { calling.call(message("lost"), LONG).await });
            sleep(Duration::from_secs(1)).await;
            broker.restart();
            let error = timeout(Duration::from_secs(60), call).await??;
            let error = error.expect_err("its reply is lost");
            assert!(matches!(error, RpcError::Lost(_)), "{error}");
            assert!(error.may_have_run());
        }
        assert_eq!(client.call(message("end"), LONG).await?.body, "end");
    }
    caller.close().await?;
    connection.close().await?;
    Ok(())
}

/// Given a recovery that takes longer than twice the timeout of a publish, then a message waits for
/// its end.
#[tokio::test(start_paused = true)]
async fn a_message_waits_for_a_long_recovery() -> Outcomes {
    let broker = LocalBroker::default();
    let mut options = Options::default().recovery(Policy::new(1));
    let brief = Duration::from_millis(10);
    options.config.timeouts = options.config.timeouts.publish(brief);
    let connection = broker.connect_with(&options).await?;
    declare(&connection, "tasks").await?;
    let channel = connection.open_channel().await?.confirm_select().await?;
    let publisher = Publisher::new(channel, PublisherOptions::default());
    broker.restart();
    sleep(Duration::from_millis(1)).await;
    let begun = Instant::now();
    let receipt = timeout(PATIENCE, publisher.publish(message(1))).await?;
    assert!(begun.elapsed() > 2 * brief, "{:?}", begun.elapsed());
    assert_eq!(timeout(PATIENCE, receipt).await?, Outcome::Acked);
    connection.close().await?;
    Ok(())
}
