//! What happens to a connection whose executor stands still: a program that blocks its only thread
//! for longer than a peer may be silent has not heard the peer, which is not the peer's fault.

#[path = "../../amqp-client/tests/support/punctual.rs"]
mod punctual;

use std::{sync::Arc, thread};

use amqp_smol::{Options, Smol, amqp_client, protocol::channel};
use punctual::BLOCKED;
use smol::Executor;

/// Connects, and blocks the thread that it is on, which is to be the one that drives the connection.
async fn block(runtime: Smol) {
    let (address, server) = punctual::start().expect("a port");
    let options = Options::from_uri(&format!("amqp://{address}")).expect("a URI");
    let connection = amqp_client::connect(&runtime, &options)
        .await
        .expect("the server lets everybody in");
    assert_eq!(connection.tuning().heartbeat, 1);
    let channel = connection.open_channel().await.expect("a channel");
    for _ in 0..2 {
        thread::sleep(BLOCKED);
        channel
            .call(channel::Flow { active: true })
            .await
            .expect("the connection is alive");
    }
    connection.close().await.expect("a clean end");
    server.join().expect("no panic").expect("no error");
}

#[test]
fn a_blocked_thread_of_an_executor_is_no_silent_peer() {
    let executor = Arc::new(Executor::new());
    let tasks = Arc::downgrade(&executor);
    let here = Smol::spawning(move |task| {
        if let Some(executor) = tasks.upgrade() {
            executor.spawn(task).detach();
        }
    });
    smol::block_on(executor.run(block(here)));
}

/// The global executor has one thread, unless the environment says otherwise.
#[test]
fn a_blocked_global_executor_is_no_silent_peer() {
    smol::block_on(smol::spawn(block(Smol::default())));
}

/// The global executor drives a connection whatever its owner's thread does.
#[test]
fn a_thread_beside_the_executor_may_block() {
    smol::block_on(block(Smol::default()));
}
