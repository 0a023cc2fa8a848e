//! Prints all lines of the log, from now on until Ctrl-C.

use std::{env, error::Error};

use amqp_blocking::{
    arguments::{Exchange, Queue},
    protocol::{basic, queue},
};

fn main() -> Result<(), Box<dyn Error>> {
    let url = env::var("AMQP_URL").unwrap_or_else(|_| "amqp://127.0.0.1".into());
    let connection = amqp_blocking::connect(&url)?;
    let channel = connection.open_channel()?;
    channel.exchange_declare(Exchange::fanout("logs"))?;

    let own_queue = channel.queue_declare(Queue::server_named())?.queue;
    let from_logs = queue::Bind::default().queue(&own_queue).exchange("logs");
    channel.queue_bind(from_logs)?;

    let closing = connection.clone();
    ctrlc::set_handler(move || {
        let _ = closing.close(); // ends the loop below
    })?;

    let consume = basic::Consume::default().queue(&own_queue);
    let consumer = channel.consume_no_ack(consume)?;
    println!("waiting for logs; Ctrl-C ends the program");
    for message in consumer {
        let message = message?;
        println!("{}", message.body);
    }
    connection.close()?;
    Ok(())
}
