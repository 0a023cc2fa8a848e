//! Smol, with `amqp-smol`.

use std::{future::Future, pin::Pin, time::Duration};

use amqp_smol::{Connection, ConnectionPair, connect_pair, connect_with};

use super::{Boxed, Configure, Runtime, connect};
use crate::harness::{Failure, Outcome};

/// Smol, with its global executor for tasks and a scenario on a thread of its own.
#[derive(Clone, Copy, Debug)]
pub struct Smol;

impl Runtime for Smol {
    fn name(&self) -> &'static str {
        "smol"
    }

    fn block_on(&self, scenario: Pin<Box<dyn Future<Output = Outcome>>>) -> Outcome {
        smol::block_on(scenario)
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
        smol::spawn(task).detach();
    }

    fn sleep(&self, time: Duration) -> Boxed<()> {
        Box::pin(async move {
            smol::Timer::after(time).await;
        })
    }
}
