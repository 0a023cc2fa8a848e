//! Starts a throw-away RabbitMQ for as long as standard input stays open.
//!
//! ```text
//! cargo run -p amqp-tests --example node -- 'frame_max = 4096' 'heartbeat = 1'
//! ```
//!
//! The arguments are lines for its `rabbitmq.conf`. It prints, a variable per line, the environment
//! with which `rabbitmqctl` finds the node, and `AMQP_URI`, where clients do; then an empty line.

use std::env;
use std::error::Error;
use std::io;

use amqp_tests::rabbitmq::Node;

fn main() -> Result<(), Box<dyn Error>> {
    let config: Vec<String> = env::args().skip(1).collect();
    let config: Vec<&str> = config.iter().map(String::as_str).collect();
    let node = Node::start_with(&config)?;
    for (name, value) in node.environment() {
        println!("{name}={value}");
    }
    println!("AMQP_URI={}\n", node.uri());
    io::copy(&mut io::stdin(), &mut io::sink())?;
    Ok(())
}
