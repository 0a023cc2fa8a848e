//! What happens to a connection whose executor stands still: a program that blocks its only thread
//! for longer than a peer may be silent has not heard the peer, which is not the peer's fault.

#[path = "../../amqp-client/tests/support/punctual.rs"]
mod punctual;

use std::thread;

use amqp_async_std::{connect, protocol::channel};
use async_global_executor::{GlobalExecutorConfig, init_with_config};
use async_std::task;
use punctual::BLOCKED;

#[test]
fn a_blocked_thread_is_no_silent_peer() {
    // The only thread of all tasks.
    let one = GlobalExecutorConfig::default();
    init_with_config(one.with_min_threads(1).with_max_threads(1));
    task::block_on(task::spawn(async {
        let (address, server) = punctual::start().expect("a port");
        let connection = connect(&format!("amqp://{address}"))
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
    }));
}
