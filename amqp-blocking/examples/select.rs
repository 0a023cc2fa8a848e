//! A `poll(2)` loop of one's own: two clients in one thread, of which one publishes three messages,
//! and the other consumes and acknowledges them.
//!
//! Connects to the server that the environment variable `AMQP_URL` names. Without it, it brings a
//! broker of its own, in this process.

#[cfg(unix)]
fn main() -> Result<(), Box<dyn std::error::Error>> {
    in_a_loop::main()
}

#[cfg(not(unix))]
fn main() {
    println!("this example is one for Unix");
}

#[cfg(unix)]
mod in_a_loop {
    use std::{env, error::Error, net::TcpListener};

    use amqp_blocking::{
        LocalBroker,
        protocol::{basic, queue},
        select::{self, Answer, Client},
        serve,
    };
    use rustix::event::{PollFd, PollFlags, Timespec, poll};

    const QUEUE: &str = "amqp-blocking.select";

    pub(super) fn main() -> Result<(), Box<dyn Error>> {
        let embedded = serve(TcpListener::bind("127.0.0.1:0")?, LocalBroker::default())?;
        let embedded = format!("amqp://{}", embedded.local_addr());
        let url = env::var("AMQP_URL").unwrap_or(embedded);
        let (mut publisher, _) = select::connect(&url)?;
        let (mut consumer, _) = select::connect(&url)?;
        let queue = queue::Declare::default().queue(QUEUE);
        let declared = publisher.call(queue)?;
        let (mut published, mut received) = (0, 0);
        loop {
            while let Some((promise, result)) = publisher.poll() {
                let answer = result?;
                if promise == declared {
                    for message in ["Hello", "World", "!"] {
                        let publish = basic::Publish::default().routing_key(QUEUE);
                        publisher.publish(publish, basic::Properties::default(), message)?;
                    }
                    consumer.consume(basic::Consume::default().queue(QUEUE), 1)?;
                } else if let Answer::Published = answer {
                    published += 1;
                }
            }
            while let Some((_, result)) = consumer.poll() {
                if let Answer::Delivered(message) = result? {
                    println!("consumed: {:?}", message.body);
                    message.ack()?;
                    received += 1;
                }
            }
            if (published, received) == (3, 3) {
                break;
            }
            turn([&mut publisher, &mut consumer])?;
        }
        // A wait brings a loop of its own.
        let delete = publisher.call(queue::Delete::default().queue(QUEUE))?;
        publisher.wait(delete, None)?;
        for mut client in [publisher, consumer] {
            let closed = client.close()?;
            client.wait(closed, None)?;
        }
        Ok(())
    }

    /// Waits until something can be done, and does it.
    fn turn(clients: [&mut Client; 2]) -> Result<(), Box<dyn Error>> {
        // None does anything, or blocks, where there is nothing to do.
        let [publisher, consumer] = clients;
        publisher.on_writable();
        consumer.on_writable();
        let limits = [publisher.next_timeout(), consumer.next_timeout()];
        let limit = limits.into_iter().flatten().min();
        let limit = limit.map(Timespec::try_from).transpose()?;
        let watched = [&*publisher, &*consumer];
        poll(
            &mut watched.map(|client| PollFd::new(client, PollFlags::IN)),
            limit.as_ref(),
        )?;
        publisher.on_readable();
        consumer.on_readable();
        Ok(())
    }
}
