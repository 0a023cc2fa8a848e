//! Guarantees of every wait: it ends, publishers are served in turn, loops yield, no code of the
//! application runs under the lock, and the application sees the states that hold it back.

mod attack;
mod deadlines;
mod deliveries;
mod fairness;
mod foreign_code;
mod room;
mod states;
mod yielding;

use amqp_driver::protocol::basic;

fn to_queue() -> basic::Publish {
    basic::Publish::default().routing_key("q")
}

fn none() -> basic::Properties {
    basic::Properties::default()
}
