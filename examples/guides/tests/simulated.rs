//! The service of invoices on simulated days with faults, in virtual time: no invoice is missing.

use std::{cell::RefCell, collections::BTreeSet, error::Error, rc::Rc, time::Duration};

use amqp_guides::invoices;
use amqp_sim::{
    Connector, FaultKind, Faults, Sim,
    amqp_driver::{arguments::Queue, protocol::basic},
};

type Outcome = Result<(), Box<dyn Error + Send + Sync>>;

/// The orders of a day.
const ORDERS: u64 = 10;

/// Places the orders from `placed` on, and counts those that the broker has.
async fn shop(connector: &Connector, placed: &mut u64) -> Outcome {
    let connection = connector.connect().await?;
    let channel = connection.open_channel().await?.confirm_select().await?;
    channel.queue_declare(Queue::quorum("orders")).await?;
    let to_orders = basic::Publish::default().routing_key("orders");
    while *placed < ORDERS {
        let persistent = basic::Properties::default().persistent();
        let order = format!("{placed}");
        channel
            .publish(&to_orders, &persistent, order)
            .await?
            .await?;
        *placed += 1;
        connector.sleep(Duration::from_secs(1)).await;
    }
    connection.close().await?;
    Ok(())
}

/// Takes invoices, and keeps what they say.
async fn archive(connector: &Connector, kept: &RefCell<BTreeSet<String>>) -> Outcome {
    let channel = connector.connect().await?.open_channel().await?;
    channel.queue_declare(Queue::quorum("invoices")).await?;
    let consume = basic::Consume::default().queue("invoices");
    let mut invoices = channel.consume(consume).await?;
    while let Some(invoice) = invoices.next().await.transpose()? {
        kept.borrow_mut().insert(invoice.body.to_string());
        invoice.ack()?;
    }
    Ok(())
}

/// One day: the service is started again whenever it ends, as by a supervisor.
fn day(sim: &Sim) {
    let rabbit = sim.node("rabbit");
    let connector = sim.connector("amqp://rabbit");
    let service = connector.clone();
    sim.service("invoices", move || {
        let connector = service.clone();
        async move { invoices::run(&connector.connect().await?).await }
    });
    let kept = Rc::<RefCell<BTreeSet<String>>>::default();
    let (archived, archiver) = (Rc::clone(&kept), connector.clone());
    sim.service("archive", move || {
        let (kept, connector) = (Rc::clone(&archived), archiver.clone());
        async move { archive(&connector, &kept).await }
    });
    sim.spawn("shop", async move {
        let mut placed = 0;
        while shop(&connector, &mut placed).await.is_err() && placed < ORDERS {
            connector.sleep(Duration::from_secs(1)).await;
        }
    });

    // A queue that is deleted takes its messages along.
    let faults = Faults::all().weight(FaultKind::DeleteQueue, 0);
    sim.faults(faults.until(Duration::from_secs(40)));
    sim.run();
    // An invoice may come twice, if the service ended before it had acknowledged the order: the
    // archive has it once.
    sim.wait_until(Duration::from_secs(600), || {
        kept.borrow().len() as u64 == ORDERS && rabbit.messages("orders") == 0
    });
}

#[test]
fn each_order_of_a_day_with_faults_has_its_invoice() {
    amqp_sim::check(50, day);
}
