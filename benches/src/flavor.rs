//! The runtimes, as their documentation shows them.

use std::future::Future;
use std::pin::Pin;

use amqp_tokio::Connection;
use tokio::runtime::{Builder, Runtime};

use crate::Result;
use crate::clock::Sample;

/// Work of a task, or its end. Boxed, for each runtime to be compiled once.
type Work = Pin<Box<dyn Future<Output = Result<()>> + Send>>;

/// A runtime.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Flavor {
    /// Tokio with as many threads as there are cores, as in `#[tokio::main]`.
    Tokio,
    /// Tokio with one thread.
    TokioThread,
    AsyncStd,
    Smol,
}

impl Flavor {
    /// Runs a future to its end.
    pub(crate) fn block_on(self, run: impl Future<Output = Result<Sample>>) -> Result<Sample> {
        let run: Pin<Box<dyn Future<Output = Result<Sample>> + '_>> = Box::pin(run);
        match self {
            Self::Tokio => threads()?.block_on(run),
            Self::TokioThread => Builder::new_current_thread()
                .enable_all()
                .build()?
                .block_on(run),
            Self::AsyncStd => async_std::task::block_on(run),
            Self::Smol => smol::block_on(run),
        }
    }

    /// Connects with the adapter of this runtime.
    pub(crate) async fn connect(self, uri: &str) -> Result<Connection> {
        Ok(match self {
            Self::Tokio | Self::TokioThread => amqp_tokio::connect(uri).await?,
            Self::AsyncStd => amqp_async_std::connect(uri).await?,
            Self::Smol => amqp_smol::connect(uri).await?,
        })
    }

    /// Shares the items out to that many tasks, and waits for their end. A single task is the main
    /// one.
    pub(crate) async fn spread<T, F>(
        self,
        tasks: u16,
        mut items: Vec<T>,
        work: impl Fn(Vec<T>) -> F,
    ) -> Result<()>
    where
        F: Future<Output = Result<()>> + Send + 'static,
    {
        if tasks == 1 {
            return work(items).await;
        }
        let share = items.len().div_ceil(tasks.into());
        let mut running = Vec::new();
        while !items.is_empty() {
            let rest = items.split_off(share.min(items.len()));
            running.push(self.spawn(Box::pin(work(items))));
            items = rest;
        }
        for task in running {
            task.await?;
        }
        Ok(())
    }

    fn spawn(self, work: Work) -> Work {
        match self {
            Self::Tokio | Self::TokioThread => {
                let task = tokio::spawn(work);
                Box::pin(async { task.await? })
            }
            Self::AsyncStd => Box::pin(async_std::task::spawn(work)),
            Self::Smol => Box::pin(smol::spawn(work)),
        }
    }
}

/// The runtime of `#[tokio::main]`.
pub(crate) fn threads() -> Result<Runtime> {
    Ok(Builder::new_multi_thread().enable_all().build()?)
}
