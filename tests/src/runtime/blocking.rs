//! Threads, with `amqp-blocking`.

use std::{
    future::{Future, poll_fn},
    pin::Pin,
    time::Duration,
};

use amqp_blocking::{
    ConnectError, block_on, connect_with, in_thread,
    io::{Runtime as _, Timer as _},
};
use amqp_tokio::Connection;

use super::{Boxed, Configure, Runtime, connect};
use crate::harness::{Failure, Outcome};

/// A thread for each task.
#[derive(Clone, Copy, Debug)]
pub struct Blocking;

impl Runtime for Blocking {
    fn name(&self) -> &'static str {
        "blocking"
    }

    fn block_on(&self, scenario: Pin<Box<dyn Future<Output = Outcome>>>) -> Outcome {
        block_on(scenario)
    }

    fn connect(&self, uri: String, configure: Configure) -> Boxed<Result<Connection, Failure>> {
        connect(uri, configure, |options| async move {
            // It blocks, which the scenario must not.
            let connecting = in_thread("connect", move || connect_with(&options));
            let connected = connecting
                .map_err(|error| ConnectError::System(error.into()))?
                .await?;
            Ok(connected.into_async())
        })
    }

    fn spawn(&self, task: Boxed<()>) {
        amqp_blocking::Blocking.spawn(task);
    }

    fn sleep(&self, time: Duration) -> Boxed<()> {
        let mut clock = amqp_blocking::Blocking.clock();
        let at = clock.now() + time;
        Box::pin(async move { poll_fn(|cx| clock.poll_deadline(cx, Some(at))).await })
    }
}
