//! async-std, with `amqp-async-std`.

use std::{future::Future, pin::Pin, time::Duration};

use amqp_async_std::{Connection, ConnectionPair, connect_pair, connect_with};
use async_std::task;

use super::{Boxed, Configure, Runtime, connect};
use crate::harness::{Failure, Outcome};

/// async-std, of which there is one per process.
#[derive(Clone, Copy, Debug)]
pub struct AsyncStd;

impl Runtime for AsyncStd {
    fn name(&self) -> &'static str {
        "async_std"
    }

    fn block_on(&self, scenario: Pin<Box<dyn Future<Output = Outcome>>>) -> Outcome {
        task::block_on(scenario)
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
        task::spawn(task);
    }

    fn sleep(&self, time: Duration) -> Boxed<()> {
        Box::pin(task::sleep(time))
    }
}
