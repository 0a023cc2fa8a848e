//! Calls the procedure `squares` of the broker at `AMQP_URL`, and tells the errors of a call apart.

use std::{env, error::Error, time::Duration};

use amqp_tokio::{
    Options, connect_with,
    protocol::basic,
    publishing::OutgoingMessage,
    rpc::{Client, ClientOptions, RpcError},
};

/// The time that a call may take.
const LIMIT: Duration = Duration::from_secs(10);

/// The most times that a request is sent that cannot have run.
const ATTEMPTS: u32 = 3;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let uri = env::var("AMQP_URL").unwrap_or_else(|_| "amqp://localhost".to_owned());
    let connection = connect_with(&Options::from_uri(&uri)?.recovering()).await?;
    let client = Client::direct(connection.open_channel().await?, ClientOptions::default()).await?;
    let mut failed = 0;
    for number in env::args().skip(1) {
        match square(&client, &number).await {
            Ok(reply) => {
                println!("{number}: {reply}");
                continue;
            }
            // The server has handled the request, and says why there is no result.
            Err(RpcError::Remote { code, text }) => println!("{number}: error {code}, {text}"),
            Err(error) if error.may_have_run() => println!("{number}: in doubt, {error}"),
            Err(error) => println!("{number}: not run, {error}"),
        }
        failed += 1;
    }
    connection.close().await?;
    match failed {
        0 => Ok(()),
        failed => Err(format!("{failed} calls without a result").into()),
    }
}

/// Calls, and again after a pause as long as the request cannot have run.
pub(crate) async fn square(client: &Client, number: &str) -> Result<String, RpcError> {
    let mut attempt = 1;
    loop {
        let to_squares = basic::Publish::default().routing_key("squares");
        let request = OutgoingMessage::new(to_squares, number.to_owned());
        match client.call(request, LIMIT).await {
            Ok(reply) => return Ok(reply.body.to_string()),
            Err(error) if error.may_have_run() || attempt == ATTEMPTS => return Err(error),
            Err(_) => tokio::time::sleep(Duration::from_millis(200) * attempt).await,
        }
        attempt += 1;
    }
}
