//! A runtime with one thread, which is blocked.

use amqp_async_std::AsyncStd;
use amqp_test_support::punctual;
use async_global_executor::{GlobalExecutorConfig, init_with_config};
use async_std::task;

#[test]
fn a_blocked_thread_is_no_silent_peer() {
    // The only thread of all tasks.
    let one = GlobalExecutorConfig::default();
    init_with_config(one.with_min_threads(1).with_max_threads(1));
    task::block_on(task::spawn(punctual::block(AsyncStd)));
}
