//! Threads, with `amqp-blocking`.

use std::{
    future::{Future, poll_fn},
    pin::Pin,
    time::Duration,
};

use amqp_blocking::{
    ConnectError, block_on, connect_pair, connect_with, in_thread,
    io::{Runtime as _, Timer as _},
};
use amqp_tokio::{Connection, ConnectionPair, Options};

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
            Ok(in_a_thread(options, connect_with).await?.into_async())
        })
    }

    fn connect_pair(
        &self,
        uri: String,
        configure: Configure,
    ) -> Boxed<Result<ConnectionPair, Failure>> {
        connect(uri, configure, |options| async move {
            Ok(in_a_thread(options, connect_pair).await?.into_async())
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

/// Connects in a thread: it blocks, which the scenario must not.
async fn in_a_thread<T: Send + 'static>(
    options: Options,
    connect: fn(&Options) -> Result<T, ConnectError>,
) -> Result<T, ConnectError> {
    let connecting = in_thread("connect", move || connect(&options));
    connecting
        .map_err(|error| ConnectError::System(error.into()))?
        .await
}
