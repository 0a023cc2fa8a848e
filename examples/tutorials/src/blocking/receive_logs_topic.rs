//! Prints the lines of the log with keys that match a pattern of the command line, until Ctrl-C.

use std::{env, error::Error};

use amqp_blocking::{
    arguments::{Exchange, Queue},
    protocol::{basic, queue},
};

fn main() -> Result<(), Box<dyn Error>> {
    let url = env::var("AMQP_URL").unwrap_or_else(|_| "amqp://127.0.0.1".into());
    let connection = amqp_blocking::connect(&url)?;
    let channel = connection.open_channel()?;
    let topic_logs = Exchange::topic("topic_logs");
    channel.exchange_declare(topic_logs)?;

    let own_queue = channel.queue_declare(Queue::server_named())?.queue;
    for pattern in env::args().skip(1) {
        let from_logs = queue::Bind::default()
            .queue(&own_queue)
            .exchange("topic_logs")
            .routing_key(pattern);
        channel.queue_bind(from_logs)?;
    }

    let closing = connection.clone();
    ctrlc::set_handler(move || {
        let _ = closing.close(); // ends the loop below
    })?;

    let consume = basic::Consume::default().queue(&own_queue);
    let consumer = channel.consume_no_ack(consume)?;
    println!("waiting for logs; Ctrl-C ends the program");
    for message in consumer {
        let message = message?;
        println!("{}: {}", message.routing_key(), message.body);
    }
    connection.close()?;
    Ok(())
}
