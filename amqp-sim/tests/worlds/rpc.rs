//! Calls over a broker.

use std::{cell::Cell, rc::Rc, time::Duration};

use amqp_sim::{
    Check, Connector, Sim,
    amqp_driver::{
        Message,
        arguments::Queue,
        protocol::basic::{Consume, Publish},
        publishing::OutgoingMessage,
        rpc::{Client, ClientOptions, HandlerError, Reply, RpcError, Server},
    },
};

use super::{PATIENCE, node, programs::Result, recovering, secs, some_faults};

/// The time that a caller waits.
const LIMIT: Duration = Duration::from_secs(20);

async fn serve(connector: Connector) -> Result {
    let connection = connector.connect().await?;
    let channel = connection.open_channel().await?;
    channel.call(Queue::classic("upper").declare()?).await?;
    let server = Server::open(channel, Consume::default().queue("upper"), 8).await?;
    let handler = async |request: Message| match String::from_utf8(request.body.to_vec()) {
        Ok(text) => Ok(Reply::new(text.to_uppercase())),
        Err(error) => Err(HandlerError::new(400, error.to_string())),
    };
    Ok(server.serve(handler).await?)
}

/// Calls until so many calls have succeeded. Each call ends in its time.
async fn call(connector: Connector, count: usize, done: Rc<Cell<usize>>) -> Result {
    let connection = connector.connect().await?;
    while done.get() < count {
        let client = match connection.open_channel().await {
            Ok(channel) => Client::direct(channel, ClientOptions::default()).await,
            Err(error) => Err(error),
        };
        let Ok(client) = client else {
            connector.sleep(Duration::from_millis(200)).await;
            continue;
        };
        while done.get() < count && client.channel().close_reason().is_none() {
            let text = format!("call {}", done.get());
            let request =
                OutgoingMessage::new(Publish::default().routing_key("upper"), text.clone());
            let before = connector.now();
            let reply = client.call(request, LIMIT).await;
            let took = connector.now() - before;
            match reply {
                Ok(reply) if reply.body == text.to_uppercase().as_str() => {
                    done.set(done.get() + 1);
                }
                Ok(reply) => return Err(format!("{text:?} has {:?}", reply.body).into()),
                Err(RpcError::Remote { code, .. }) => return Err(format!("code {code}").into()),
                Err(_) => connector.sleep(Duration::from_millis(500)).await,
            }
            // The jumps of the time, and suspensions, count as well.
            let bound = LIMIT + secs(200);
            if took > bound {
                return Err(format!("a call took {took:?}").into());
            }
        }
    }
    let _closed = connection.close().await;
    Ok(())
}

fn world(sim: &Sim) {
    node(sim, "rabbit");
    let connector = recovering(sim, "amqp://rabbit");
    sim.service("server", move || serve(connector.clone()));
    let done = Rc::default();
    for number in 0..2 {
        let connector = recovering(sim, "amqp://rabbit");
        sim.spawn(
            &format!("caller{number}"),
            call(connector, 5 * (number + 1), Rc::clone(&done)),
        );
    }
    sim.faults(some_faults(sim));
    sim.run();
    assert!(sim.now() < secs(60) + PATIENCE, "{:?}", sim.now());
}

#[test]
fn each_call_has_its_own_reply_or_ends_in_time() {
    Check::new().seeds(1500).run(world);
}
