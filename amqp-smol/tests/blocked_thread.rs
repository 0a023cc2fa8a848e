//! Executors of which a thread is blocked.

use std::sync::Arc;

use amqp_smol::Smol;
use amqp_test_support::punctual;
use punctual::block;
use smol::Executor;

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

/// The global executor drives a connection while its owner's thread is blocked.
#[test]
fn a_thread_beside_the_executor_may_block() {
    smol::block_on(block(Smol::default()));
}
