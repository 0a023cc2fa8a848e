//! Asks the server for the Fibonacci numbers of the indices on the command line.

use std::{env, error::Error, time::Duration};

use amqp_smol::{
    protocol::basic,
    publishing::OutgoingMessage,
    rpc::{Client, ClientOptions, RpcError},
};

fn main() -> Result<(), Box<dyn Error>> {
    smol::block_on(async {
        let url = env::var("AMQP_URL").unwrap_or_else(|_| "amqp://127.0.0.1".into());
        let connection = amqp_smol::connect(&url).await?;
        let channel = connection.open_channel().await?;

        let client = Client::direct(channel, ClientOptions::default()).await?;
        for index in env::args().skip(1) {
            let to_server = basic::Publish::default().routing_key("rpc_queue");
            let request = OutgoingMessage::new(to_server, index.clone());
            match client.call(request, Duration::from_secs(30)).await {
                Ok(reply) => println!("fib({index}) = {}", reply.body),
                Err(RpcError::Remote { code, text }) => {
                    println!("fib({index}): error {code}, {text}");
                }
                Err(error) => return Err(error.into()),
            }
        }

        connection.close().await?;
        Ok(())
    })
}
