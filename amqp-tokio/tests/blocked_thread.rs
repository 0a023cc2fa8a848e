//! What happens to a connection whose runtime stands still.

#[path = "../../amqp-client/tests/support/punctual.rs"]
mod punctual;

use std::thread;

use amqp_tokio::protocol::channel;
use punctual::BLOCKED;

/// A program that blocks its only thread for longer than a peer may be silent has not heard the peer,
/// which is not the peer's fault: its heartbeats wait to be read.
#[tokio::test]
async fn a_blocked_thread_is_no_silent_peer() {
    let (address, server) = punctual::start().expect("a port");
    let connection = amqp_tokio::connect(&format!("amqp://{address}"))
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
