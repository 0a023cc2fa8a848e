//! Answers requests for Fibonacci numbers, until Ctrl-C.

use std::{env, error::Error};

use amqp_tokio::{
    Message,
    arguments::Queue,
    protocol::basic,
    rpc::{HandlerError, Reply, Server},
};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let url = env::var("AMQP_URL").unwrap_or_else(|_| "amqp://127.0.0.1".into());
    let connection = amqp_tokio::connect(&url).await?;
    let ctrl_c = tokio::spawn(tokio::signal::ctrl_c());
    let channel = connection.open_channel().await?;
    channel.queue_declare(Queue::classic("rpc_queue")).await?;

    let stop = async {
        let _ = ctrl_c.await;
    };
    let requests = basic::Consume::default().queue("rpc_queue");
    let server = Server::open(channel, requests, 1).await?;
    println!("waiting for requests; Ctrl-C ends the server");
    server.serve_until(stop, answer).await?;

    connection.close().await?;
    Ok(())
}

async fn answer(request: Message) -> Result<Reply, HandlerError> {
    println!("request: fib({})", request.body);
    let text = request.body.text().unwrap_or_default();
    let number = text
        .parse()
        .map_err(|_| HandlerError::new(400, format!("{text:?} is no number")))?;
    let result = fib(number).ok_or_else(|| HandlerError::new(400, "the result is too large"))?;
    Ok(Reply::new(result.to_string()))
}

/// The Fibonacci number of that index. `None` if it has more than 64 bits.
fn fib(index: u64) -> Option<u64> {
    let (mut this, mut next) = (0_u64, Some(1_u64));
    for _ in 0..index {
        let following = next?;
        next = this.checked_add(following);
        this = following;
    }
    Some(this)
}
