//! A runtime with one thread, which is blocked.

use amqp_test_support::punctual;
use amqp_tokio::Tokio;

#[tokio::test]
async fn a_blocked_thread_is_no_silent_peer() {
    punctual::block(Tokio).await;
}
