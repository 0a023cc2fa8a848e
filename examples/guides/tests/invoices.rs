//! The service of invoices on a broker in the process of the test: no port, no RabbitMQ, no waiting.

use std::{error::Error, time::Duration};

use amqp_guides::invoices;
use amqp_tokio::{
    Config, Connection, LocalBroker, Options,
    arguments::Queue,
    broker::{Broker, ConfirmFault},
    protocol::{basic, queue},
};

type Outcome = Result<(), Box<dyn Error + Send + Sync>>;

/// Publishes orders, and returns when the broker has them.
async fn order(connection: &Connection, orders: &[&'static str]) -> Outcome {
    let channel = connection.open_channel().await?.confirm_select().await?;
    channel.queue_declare(Queue::quorum("orders")).await?;
    let to_orders = basic::Publish::default().routing_key("orders");
    for &order in orders {
        let persistent = basic::Properties::default().persistent();
        channel
            .publish(&to_orders, &persistent, order)
            .await?
            .await?;
    }
    channel.close().await?;
    Ok(())
}

/// The numbers of ready and unacknowledged messages of a queue.
fn depth(broker: &Broker, queue: &str) -> (usize, u64) {
    let found = broker.queue("/", queue);
    found.map_or((0, 0), |it| (it.ready, it.unacked))
}

/// Waits until the broker meets a condition, which is checked whenever something changes in it.
async fn reaches(broker: &LocalBroker, condition: impl FnMut(&Broker) -> bool) {
    let limit = Duration::from_secs(60);
    assert!(
        broker.until_within(limit, condition).await,
        "{:#?}",
        broker.inspect()
    );
}

#[tokio::test]
async fn each_order_has_its_invoice() -> Outcome {
    let broker = LocalBroker::default();
    let connection = broker.connect(Config::default()).await?;
    order(&connection, &["apples", "pears"]).await?;
    let service = connection.clone();
    tokio::spawn(async move { invoices::run(&service).await.expect("it goes on") });

    reaches(&broker, |it| {
        depth(it, "invoices") == (2, 0) && depth(it, "orders") == (0, 0)
    })
    .await;
    let channel = connection.open_channel().await?;
    let invoice = channel.get(basic::Get::default().queue("invoices")).await?;
    assert_eq!(invoice.ok_or("no invoice")?.body, "invoice of apples");
    Ok(())
}

#[tokio::test]
async fn an_order_whose_invoice_is_refused_is_kept() -> Outcome {
    let broker = LocalBroker::default();
    let connection = broker.connect(Config::default()).await?;
    order(&connection, &["apples"]).await?;
    broker.with(|it| it.faults().confirms(ConfirmFault::NackNext(1)));

    let refused = invoices::run(&connection).await;
    assert!(refused.is_err_and(|error| error.to_string().contains("basic.nack")));
    reaches(&broker, |it| depth(it, "orders") == (1, 0)).await;
    Ok(())
}

#[tokio::test]
async fn orders_wait_for_a_broker_that_restarts() -> Outcome {
    let broker = LocalBroker::default();
    let options = Options::default().recovering();
    let connection = broker.connect_with(&options).await?;
    let service = connection.clone();
    tokio::spawn(async move { invoices::run(&service).await.expect("it goes on") });
    reaches(&broker, |it| {
        let orders = it.queue("/", "orders");
        orders.is_some_and(|it| !it.consumers.is_empty())
    })
    .await;

    broker.restart();
    let shop = broker.connect(Config::default()).await?;
    order(&shop, &["apples"]).await?;
    reaches(&broker, |it| depth(it, "invoices") == (1, 0)).await;
    Ok(())
}

/// The clock of tokio stands still, and jumps to the next deadline when all tasks wait.
#[tokio::test(start_paused = true)]
async fn an_hour_passes_at_once() -> Outcome {
    let broker = LocalBroker::default();
    let connection = broker.connect(Config::default()).await?;
    let channel = connection.open_channel().await?;
    let drafts = Queue::classic("drafts").message_ttl(Duration::from_secs(3600));
    channel.queue_declare(drafts).await?;
    let to_drafts = basic::Publish::default().routing_key("drafts");
    let properties = basic::Properties::default();
    channel.publish(&to_drafts, &properties, "apples").await?;

    tokio::time::sleep(Duration::from_secs(3601)).await;
    let looked = queue::Declare::default().queue("drafts").passive(true);
    assert_eq!(channel.call(looked).await?.message_count, 0);
    Ok(())
}
