//! Three services with a planted bug, which the seeds find.
//!
//! A shop places orders. A service takes the payment of each, and tells a third one, which books it.
//! No order may be lost, whatever fails: but the payment service acknowledges the order before it
//! has published the payment. `cargo run -p amqp-sim --example orders` finds a seed that loses an
//! order, reduces its faults, prints what happened in frames, and then checks the mended service.
//!
//! The services know neither that they are simulated nor by which runtime they run.

use std::{
    collections::BTreeSet,
    error::Error,
    process::ExitCode,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use amqp_sim::{
    Check, Connector, FaultKind, Faults, Sim,
    amqp_driver::{
        Body, ConfirmChannel,
        arguments::Queue,
        protocol::basic::{Consume, Properties, Publish},
    },
};

type Result<T = ()> = std::result::Result<T, Box<dyn Error>>;

/// The orders of a day.
const ORDERS: u32 = 10;

/// The state of the shop and of the books: in production, two databases.
#[derive(Clone, Default)]
struct Stored(Arc<Mutex<BTreeSet<u32>>>);

impl Stored {
    fn insert(&self, order: u32) {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(order);
    }

    fn all(&self) -> BTreeSet<u32> {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}

/// Opens a channel with confirms and the two queues.
async fn open(connector: &Connector) -> Result<ConfirmChannel> {
    let connection = connector.connect().await?;
    let channel = connection.open_channel().await?;
    channel.call(Queue::classic("orders").declare()?).await?;
    channel.call(Queue::classic("payments").declare()?).await?;
    Ok(channel.confirm_select().await?)
}

/// Publishes a message, and waits until the broker has it.
async fn publish(channel: &ConfirmChannel, queue: &str, body: impl Into<Body>) -> Result {
    let publish = Publish::default().routing_key(queue);
    let persistent = Properties::default().persistent();
    channel.publish(&publish, &persistent, body).await?.await?;
    Ok(())
}

/// Places the orders that are not placed yet.
async fn shop(connector: &Connector, placed: &Stored) -> Result {
    let channel = open(connector).await?;
    for order in 1..=ORDERS {
        if !placed.all().contains(&order) {
            publish(&channel, "orders", order.to_string()).await?;
            placed.insert(order);
            connector.sleep(Duration::from_secs(1)).await;
        }
    }
    Ok(())
}

/// Takes the payment of each order, and tells the books.
async fn payments(connector: Connector, is_mended: bool) -> Result {
    let channel = open(&connector).await?;
    let mut orders = channel.consume(Consume::default().queue("orders")).await?;
    while let Some(order) = orders.next().await.transpose()? {
        let payment = order.body.clone();
        connector.sleep(Duration::from_millis(300)).await; // the bank
        if is_mended {
            publish(&channel, "payments", payment).await?;
            order.ack()?;
        } else {
            order.ack()?; // too early
            publish(&channel, "payments", payment).await?;
        }
    }
    Ok(())
}

/// Books each payment. One that comes twice is booked once.
async fn books(connector: Connector, booked: Stored) -> Result {
    let channel = open(&connector).await?;
    let mut payments = channel
        .consume(Consume::default().queue("payments"))
        .await?;
    while let Some(payment) = payments.next().await.transpose()? {
        let order = String::from_utf8(payment.body.to_vec())?.parse()?;
        booked.insert(order);
        payment.ack()?;
    }
    Ok(())
}

/// One day of the three services, with faults in the morning.
fn day(sim: &Sim, is_mended: bool) {
    sim.node("rabbit");
    let connector = sim.connector("amqp://rabbit");
    let (placed, booked) = (Stored::default(), Stored::default());

    let (shops, placing) = (connector.clone(), placed.clone());
    sim.spawn("shop", async move {
        while shop(&shops, &placing).await.is_err() {
            shops.sleep(Duration::from_secs(1)).await;
        }
    });
    let pays = connector.clone();
    sim.service("payments", move || payments(pays.clone(), is_mended));
    let booking = booked.clone();
    sim.service("books", move || books(connector.clone(), booking.clone()));

    let faults = Faults::all()
        .every(Duration::from_secs(4))
        .until(Duration::from_secs(40));
    // A confirm that is lost, and one that is refused, are tried in other worlds.
    sim.faults(faults.weight(FaultKind::LoseConfirms, 0));
    sim.run(); // until the shop has closed
    sim.advance(Duration::from_secs(300));
    let lost: Vec<u32> = placed.all().difference(&booked.all()).copied().collect();
    assert!(
        lost.is_empty(),
        "orders that were placed and never booked: {lost:?}"
    );
}

fn main() -> ExitCode {
    println!("the payment service as it was written:\n");
    match Check::new().seeds(1000).try_run(|sim| day(sim, false)) {
        Err(failure) => println!("{failure}"),
        Ok(summary) => {
            println!("{summary}: no seed has found the bug");
            return ExitCode::FAILURE;
        }
    }
    println!("\nthe mended one:\n");
    match Check::new()
        .seeds(100)
        .isolated()
        .try_run(|sim| day(sim, true))
    {
        Ok(summary) => {
            println!("{summary}: no order is lost");
            ExitCode::SUCCESS
        }
        Err(failure) => {
            println!("{failure}");
            ExitCode::FAILURE
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_planted_bug_is_found_and_reduced() {
        let found = Check::new()
            .seeds(1000)
            .isolated()
            .try_run(|sim| day(sim, false));
        let failure = found.expect_err("the bug is there");
        assert!(failure.message.contains("never booked"), "{failure}");
        assert!(failure.steps.len() <= 2, "{failure}");
    }

    #[test]
    fn the_mended_service_loses_nothing() {
        Check::new().seeds(50).isolated().run(|sim| day(sim, true));
    }
}
