//! Publishes and consumes for ever, whatever happens to the broker at `AMQP_URL`.

use std::{env, error::Error, thread, time::Duration};

use amqp_blocking::{
    ConfirmChannel, Options, connect_with,
    protocol::{basic, queue},
};

fn main() -> Result<(), Box<dyn Error>> {
    let uri = env::var("AMQP_URL").unwrap_or_else(|_| "amqp://localhost".to_owned());
    let connection = connect_with(&Options::from_uri(&uri)?.recovering())?;
    let channel = connection.open_channel()?.confirm_select()?;
    channel.call(queue::Declare::default().queue("forever"))?;
    let mut consumer = channel.consume(basic::Consume::default().queue("forever"))?;
    thread::spawn(move || {
        loop {
            if let Err(error) = publish(&channel) {
                eprintln!("again: {error}");
                thread::sleep(Duration::from_millis(200));
            }
        }
    });
    // Ends with an error, as when the queue was deleted, and with it the program.
    while let Some(delivery) = consumer.next().transpose()? {
        println!("{} bytes", delivery.body.len());
        let _comes_again = delivery.ack(); // Fails only for a message of before a loss.
    }
    Ok(())
}

/// Publishes a message, and returns when the queue has it.
fn publish(channel: &ConfirmChannel) -> Result<(), Box<dyn Error>> {
    let to_queue = basic::Publish::default()
        .routing_key("forever")
        .mandatory(true);
    let persistent = basic::Properties::default().persistent();
    let confirm = channel.publish(&to_queue, &persistent, "work")?;
    Ok(confirm.wait()?)
}
