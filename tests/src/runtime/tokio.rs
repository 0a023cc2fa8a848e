//! Tokio, with `amqp-tokio`.

use std::{future::Future, pin::Pin, time::Duration};

use amqp_tokio::{Connection, ConnectionPair, connect_pair, connect_with};
use tokio::{runtime::Builder, time};

use super::{Boxed, Configure, Runtime, connect};
use crate::harness::{Failure, Outcome};

/// One of tokio's schedulers.
#[derive(Clone, Copy, Debug)]
pub enum Tokio {
    /// With several threads.
    MultiThread,
    /// With one, on which everything takes turns.
    CurrentThread,
}

/// The threads for the tasks of a scenario: enough for faults that occur only in parallel.
const THREADS: usize = 2;

impl Runtime for Tokio {
    fn name(&self) -> &'static str {
        match self {
            Self::MultiThread => "tokio",
            Self::CurrentThread => "tokio_current_thread",
        }
    }

    fn block_on(&self, scenario: Pin<Box<dyn Future<Output = Outcome>>>) -> Outcome {
        let mut builder = match self {
            Self::MultiThread => Builder::new_multi_thread(),
            Self::CurrentThread => Builder::new_current_thread(),
        };
        let runtime = builder.worker_threads(THREADS).enable_all().build()?;
        runtime.block_on(scenario)
    }

    fn connect(&self, uri: String, configure: Configure) -> Boxed<Result<Connection, Failure>> {
        connect(uri, configure, |options| async move {
            connect_with(&options).await
        })
    }

    fn connect_pair(
        &self,
        uri: String,
        configure: Configure,
    ) -> Boxed<Result<ConnectionPair, Failure>> {
        connect(uri, configure, |options| async move {
            connect_pair(&options).await
        })
    }

    fn spawn(&self, task: Boxed<()>) {
        tokio::spawn(task);
    }

    fn sleep(&self, time: Duration) -> Boxed<()> {
        Box::pin(async move { time::sleep(time).await })
    }
}
