//! A runtime whose only thread is blocked.

#[path = "../../amqp-driver/tests/support/punctual.rs"]
mod punctual;

use amqp_tokio::Tokio;

#[tokio::test]
async fn a_blocked_thread_is_no_silent_peer() {
    punctual::block(Tokio).await;
}
