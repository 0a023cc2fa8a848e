//! The functions that the scenarios need from a runtime. They need nothing else of it, so that the
//! same ones run on each.

mod async_std;
mod blocking;
mod smol;
mod tokio;

use std::{fmt, future::Future, pin::Pin, time::Duration};

use amqp_tokio::{ConnectError, Connection, ConnectionPair, Options};

pub use self::{async_std::AsyncStd, blocking::Blocking, smol::Smol, tokio::Tokio};
use crate::harness::{Failure, Outcome};

/// A future that any thread may run.
pub type Boxed<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// A scenario's changes to the options of the URI.
pub type Configure = Box<dyn FnOnce(&mut Options) + Send>;

/// A runtime with the adapter for it.
///
/// It is only a name for the runtime: all methods but [`block_on`](Self::block_on) are called
/// inside of that.
pub trait Runtime: fmt::Debug + Send + Sync {
    /// The adapter's name, such as `tokio`.
    fn name(&self) -> &'static str;

    /// Starts the runtime, and runs a scenario on it until it ends.
    fn block_on(&self, scenario: Pin<Box<dyn Future<Output = Outcome>>>) -> Outcome;

    /// Connects as the adapter's users do. A refusal by the server is an
    /// [`amqp_driver::Error`](amqp_tokio::Error).
    fn connect(&self, uri: String, configure: Configure) -> Boxed<Result<Connection, Failure>>;

    /// Opens a pair of connections as the adapter's users do.
    fn connect_pair(
        &self,
        uri: String,
        configure: Configure,
    ) -> Boxed<Result<ConnectionPair, Failure>>;

    /// Runs a task beside the scenario.
    fn spawn(&self, task: Boxed<()>);

    /// Waits.
    fn sleep(&self, time: Duration) -> Boxed<()>;
}

/// Connects with an adapter's `connect_with` or `connect_pair`.
fn connect<F, T>(
    uri: String,
    configure: Configure,
    connect_with: impl FnOnce(Options) -> F + Send + 'static,
) -> Boxed<Result<T, Failure>>
where
    F: Future<Output = Result<T, ConnectError>> + Send,
{
    Box::pin(async move {
        let mut options = Options::from_uri(&uri)?;
        configure(&mut options);
        connect_with(options).await.map_err(|error| match error {
            ConnectError::NotOpened { error, .. } => error.into(),
            error => error.into(),
        })
    })
}
