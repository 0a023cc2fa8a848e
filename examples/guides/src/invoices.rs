//! A service that writes an invoice for each order.

use std::error::Error;

use amqp_tokio::{Connection, arguments::Queue, protocol::basic};

/// Takes orders, and publishes an invoice for each, until the consumer ends. An order is
/// acknowledged when the broker has its invoice.
///
/// # Errors
/// The first one of the connection, or the reason for which an invoice was not confirmed.
pub async fn run(connection: &Connection) -> Result<(), Box<dyn Error + Send + Sync>> {
    let channel = connection.open_channel().await?.confirm_select().await?;
    channel.queue_declare(Queue::quorum("orders")).await?;
    channel.queue_declare(Queue::quorum("invoices")).await?;
    let consume = basic::Consume::default().queue("orders");
    let mut orders = channel.consume(consume).await?;
    let to_invoices = basic::Publish::default()
        .routing_key("invoices")
        .mandatory(true);
    let persistent = basic::Properties::default().persistent();
    while let Some(order) = orders.next().await.transpose()? {
        let invoice = format!("invoice of {}", order.body);
        let confirm = channel.publish(&to_invoices, &persistent, invoice);
        confirm.await?.await?;
        order.ack()?;
    }
    Ok(())
}
