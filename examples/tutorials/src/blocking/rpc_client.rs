//! Asks the server for the Fibonacci numbers of the indices on the command line.

use std::{env, error::Error, time::Duration};

use amqp_blocking::{
    protocol::basic,
    publishing::OutgoingMessage,
    rpc::{Client, ClientOptions, RpcError},
};

fn main() -> Result<(), Box<dyn Error>> {
    let url = env::var("AMQP_URL").unwrap_or_else(|_| "amqp://127.0.0.1".into());
    let connection = amqp_blocking::connect(&url)?;
    let channel = connection.open_channel()?;

    let client = Client::direct(channel, ClientOptions::default())?;
    for index in env::args().skip(1) {
        let to_server = basic::Publish::default().routing_key("rpc_queue");
        let request = OutgoingMessage::new(to_server, index.clone());
        match client.call(request, Duration::from_secs(30)) {
            Ok(reply) => println!("fib({index}) = {}", reply.body),
            Err(RpcError::Remote { code, text }) => {
                println!("fib({index}): error {code}, {text}");
            }
            Err(error) => return Err(error.into()),
        }
    }

    connection.close()?;
    Ok(())
}
