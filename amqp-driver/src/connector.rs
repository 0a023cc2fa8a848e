//! A runtime and the options of a connection, without the runtime's type.

use std::{
    fmt,
    future::{Future, poll_fn},
    pin::Pin,
    sync::Arc,
    time::Duration,
};

use amqp_core::Instant;

use crate::{
    connect::{connect, error::ConnectError, options::Options},
    connection::Connection,
    io::{Clock, Runtime, Timer as _},
    pair::{ConnectionPair, connect_pair},
    unless::unless,
};

/// Opens connections by its options on its runtime, and is the clock and the spawner of that
/// runtime, without naming it in a type.
///
/// A program that takes its connections, its time and its tasks from a connector runs unchanged on
/// every runtime, and under `amqp-sim`, which simulates it with its broker and its network from a
/// seed. The adapters make one with `connector`; on a runtime of one's own, [`new`](Self::new) does.
///
/// ```
/// use amqp_driver::{Connector, protocol::basic};
/// use std::{error::Error, time::Duration};
///
/// /// Publishes a message a second.
/// async fn ticker(connector: Connector) -> Result<(), Box<dyn Error>> {
///     let connection = connector.connect().await?;
///     let channel = connection.open_channel().await?.confirm_select().await?;
///     let to_ticks = basic::Publish::default().routing_key("ticks");
///     for number in 0.. {
///         let tick = format!("tick {number}");
///         let confirm = channel.publish(&to_ticks, &basic::Properties::default(), tick).await?;
///         confirm.await?;
///         connector.sleep(Duration::from_secs(1)).await;
///     }
///     Ok(())
/// }
/// ```
///
/// Clones share the runtime and the options.
#[derive(Clone)]
pub struct Connector {
    runtime: Arc<dyn AnyRuntime>,
    clock: Clock,
    options: Arc<Options>,
}

impl Connector {
    /// Creates a connector on a runtime.
    pub fn new<R: Runtime>(runtime: R, options: Options) -> Self {
        let clock = runtime.clock().clock();
        Self {
            runtime: Arc::new(runtime),
            clock,
            options: Arc::new(options),
        }
    }

    /// The options of its connections.
    #[must_use]
    pub fn options(&self) -> &Options {
        &self.options
    }

    /// A connector on the same runtime and with the same time, for other options.
    #[must_use]
    pub fn with_options(&self, options: Options) -> Self {
        Self {
            options: Arc::new(options),
            ..self.clone()
        }
    }

    /// Opens a connection; see [`connect`](crate::connect()).
    ///
    /// # Cancel safety
    /// Dropping it closes the streams opened so far.
    ///
    /// # Errors
    /// When no address could be reached, or none opened a connection.
    pub async fn connect(&self) -> Result<Connection, ConnectError> {
        self.runtime.connect(&self.options).await
    }

    /// Opens a connection to publish and one to consume; see [`connect_pair`](crate::connect_pair).
    ///
    /// # Cancel safety
    /// Dropping it closes the streams opened so far.
    ///
    /// # Errors
    /// As [`connect`](Self::connect), for either.
    pub async fn connect_pair(&self) -> Result<ConnectionPair, ConnectError> {
        self.runtime.connect_pair(&self.options).await
    }

    /// The time, since an origin of the runtime's: only differences matter. It does not go
    /// backwards.
    #[must_use]
    pub fn now(&self) -> Instant {
        (self.clock)()
    }

    /// Waits for a time. It is measured from the call, not from the first poll.
    ///
    /// # Cancel safety
    /// Dropping it ends the wait.
    pub fn sleep(&self, time: Duration) -> impl Future<Output = ()> + Send + use<> {
        self.runtime.sleep(time)
    }

    /// Returns the output of a future. `Some` if it is ready within `limit`, which is measured from
    /// the first poll; otherwise the future is dropped.
    ///
    /// # Cancel safety
    /// Dropping it drops the future.
    pub async fn within<T>(&self, limit: Duration, future: impl Future<Output = T>) -> Option<T> {
        unless(self.sleep(limit), future).await.ok()
    }

    /// Runs a task beside the caller. It ends by itself, or with the runtime.
    pub fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.runtime.spawn(Box::pin(task));
    }
}

impl fmt::Debug for Connector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connector")
            .field("runtime", &self.runtime)
            .field("options", &self.options)
            .finish_non_exhaustive()
    }
}

type Boxed<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// A [`Runtime`] of any type.
trait AnyRuntime: fmt::Debug + Send + Sync {
    fn connect<'a>(&'a self, options: &'a Options) -> Boxed<'a, Result<Connection, ConnectError>>;

    fn connect_pair<'a>(
        &'a self,
        options: &'a Options,
    ) -> Boxed<'a, Result<ConnectionPair, ConnectError>>;

    fn sleep(&self, time: Duration) -> Boxed<'static, ()>;

    fn spawn(&self, task: Boxed<'static, ()>);
}

impl<R: Runtime> AnyRuntime for R {
    fn connect<'a>(&'a self, options: &'a Options) -> Boxed<'a, Result<Connection, ConnectError>> {
        Box::pin(connect(self, options))
    }

    fn connect_pair<'a>(
        &'a self,
        options: &'a Options,
    ) -> Boxed<'a, Result<ConnectionPair, ConnectError>> {
        Box::pin(connect_pair(self, options))
    }

    fn sleep(&self, time: Duration) -> Boxed<'static, ()> {
        let mut clock = self.clock();
        let at = clock.now() + time;
        Box::pin(async move { poll_fn(|cx| clock.poll_deadline(cx, Some(at))).await })
    }

    fn spawn(&self, task: Boxed<'static, ()>) {
        Runtime::spawn(self, task);
    }
}
