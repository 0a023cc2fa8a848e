//! Calls a procedure over the broker, by direct reply-to.
//!
//! Connects to the server that the environment variable `AMQP_URL` names. Without it, it brings a
//! broker of its own, in this process.

use std::{env, error::Error, time::Duration};

use amqp_tokio::{
    LocalBroker, Options,
    protocol::{basic, queue},
    publishing::OutgoingMessage,
    rpc::{Client, ClientOptions, HandlerError, Reply, RpcError, Server},
};

/// The code of a request that is no number.
const NO_NUMBER: i32 = 400;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let connection = match env::var("AMQP_URL") {
        Ok(url) => amqp_tokio::connect_with(&Options::from_uri(&url)?.recovering()).await?,
        Err(_) => {
            println!("AMQP_URL is not set: using the embedded broker");
            LocalBroker::default()
                .connect_with(&Options::default())
                .await?
        }
    };
    let channel = connection.open_channel().await?;
    let own = queue::Declare::default().exclusive(true);
    let squares = channel.call(own).await?.queue;

    // Up to eight requests at a time.
    let server = Server::open(channel, basic::Consume::default().queue(&squares), 8).await?;
    tokio::spawn(server.serve(async |request| {
        let text = request.body.to_string();
        let number: i64 = text
            .parse()
            .map_err(|_| HandlerError::new(NO_NUMBER, format!("{text:?} is no number")))?;
        Ok(Reply::new((number * number).to_string()))
    }));

    let client = Client::direct(connection.open_channel().await?, ClientOptions::default()).await?;
    let square = async |text: &str| {
        let to_squares = basic::Publish::default().routing_key(&squares);
        let request = OutgoingMessage::new(to_squares, text.to_owned());
        client.call(request, Duration::from_secs(30)).await
    };
    for text in ["3", "12", "a dozen"] {
        match square(text).await {
            Ok(reply) => println!("{text}: {}", reply.body),
            Err(RpcError::Remote { code, text }) => println!("error {code}: {text}"),
            Err(error) => return Err(error.into()),
        }
    }
    connection.close().await?;
    Ok(())
}
