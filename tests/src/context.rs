//! The context of a scenario: a broker, a runtime, and the patience of a test.

use std::{
    fmt::Display,
    future::{Future, poll_fn},
    net::SocketAddr,
    pin::pin,
    sync::Arc,
    task::Poll,
    thread,
    time::{Duration, Instant},
};

use amqp_tokio::{
    Config, Connection, ConnectionPair, Error, Options,
    core::client::Checks,
    protocol::{ReplyCode, queue},
    wire::ShortStr,
};

use crate::{
    certificates::Certificates,
    embedded::Embedded,
    harness::{Broker, Failure, Outcome, message},
    operator::Operator,
    runtime::Runtime,
    task::Task,
};

/// How long something may take that has no time of its own, on a machine that is busy.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// How often a condition is looked at that nothing announces.
pub(crate) const LOOK_EVERY: Duration = Duration::from_millis(10);

/// The context of a scenario: a virtual host of its own, and a runtime.
#[derive(Clone, Debug)]
pub struct Ctx {
    /// Where to connect, with user, password and virtual host. Where the broker speaks TLS, with
    /// the authority to trust.
    pub uri: String,
    /// The virtual host, which this scenario has to itself.
    pub vhost: String,
    /// Where the broker listens.
    pub address: SocketAddr,
    operator: Operator,
    runtime: &'static dyn Runtime,
}

impl Ctx {
    /// The context of a scenario on a RabbitMQ.
    #[must_use]
    pub fn on_rabbitmq(broker: Broker, runtime: &'static dyn Runtime) -> Self {
        let Broker { uri, vhost, node } = broker;
        let plain = Self {
            uri,
            vhost,
            address: node.address(),
            operator: Operator::RabbitMq(Arc::clone(&node)),
            runtime,
        };
        match (node.certificates(), node.tls_address()) {
            (Some(certificates), Some(address)) => Self {
                uri: secured(&plain.uri_at(address), certificates),
                address,
                ..plain
            },
            _ => plain,
        }
    }

    /// The context of a scenario on an embedded broker.
    #[must_use]
    pub fn on_embedded(broker: Embedded, runtime: &'static dyn Runtime) -> Self {
        let uri = broker.uri();
        Self {
            uri: match broker.certificates() {
                Some(certificates) => secured(&uri, certificates),
                None => uri,
            },
            vhost: broker.vhost().into(),
            address: broker.address(),
            operator: Operator::Embedded(Arc::new(broker)),
            runtime,
        }
    }

    /// Connects with the default configuration.
    ///
    /// # Errors
    /// As [`Runtime::connect`].
    pub async fn connect(&self) -> Result<Connection, Failure> {
        self.connect_to(&self.uri, |_| ()).await
    }

    /// Connects with these parameters in the URI, such as `heartbeat=2`.
    ///
    /// # Errors
    /// As [`Runtime::connect`].
    pub async fn connect_asking(&self, query: &str) -> Result<Connection, Failure> {
        self.connect_to(&self.uri_asking(query), |_| ()).await
    }

    /// Connects without the checks for RabbitMQ, so that it is the broker that refuses.
    ///
    /// # Errors
    /// As [`Runtime::connect`].
    pub async fn connect_unchecked(&self) -> Result<Connection, Failure> {
        self.connect_to(&self.uri, |config| config.checks = Checks::Standard)
            .await
    }

    /// Connects to another URI, with another configuration.
    ///
    /// # Errors
    /// As [`Runtime::connect`].
    pub async fn connect_to(
        &self,
        uri: &str,
        configure: impl FnOnce(&mut Config) + Send + 'static,
    ) -> Result<Connection, Failure> {
        self.connect_by(uri, |options| configure(&mut options.config))
            .await
    }

    /// Connects to another URI, with other options.
    ///
    /// # Errors
    /// As [`Runtime::connect`].
    pub async fn connect_by(
        &self,
        uri: &str,
        configure: impl FnOnce(&mut Options) + Send + 'static,
    ) -> Result<Connection, Failure> {
        self.runtime
            .connect(uri.to_owned(), Box::new(configure))
            .await
    }

    /// Opens a pair of connections with the default options.
    ///
    /// # Errors
    /// As [`Runtime::connect_pair`].
    pub async fn connect_pair(&self) -> Result<ConnectionPair, Failure> {
        let uri = self.uri.clone();
        self.runtime.connect_pair(uri, Box::new(|_| ())).await
    }

    /// Why connecting fails.
    ///
    /// # Errors
    /// When it does not fail, or before the server had a say.
    pub async fn refusal(&self, uri: &str) -> Result<Error, Failure> {
        match self.connect_to(uri, |_| ()).await {
            Ok(_) => Err("the connection was opened".into()),
            Err(failure) => Ok(*failure.downcast::<Error>()?),
        }
    }

    /// The same URI, at another address.
    #[must_use]
    pub fn uri_at(&self, address: SocketAddr) -> String {
        self.uri
            .replace(&self.address.to_string(), &address.to_string())
    }

    /// The same URI, with these parameters.
    #[must_use]
    pub fn uri_asking(&self, query: &str) -> String {
        let separator = if self.uri.contains('?') { '&' } else { '?' };
        format!("{}{separator}{query}", self.uri)
    }

    /// The certificates of the broker and its clients.
    ///
    /// # Errors
    /// When it does not speak TLS.
    pub fn certificates(&self) -> Result<&Certificates, Failure> {
        let certificates = match &self.operator {
            Operator::RabbitMq(node) => node.certificates(),
            Operator::Embedded(embedded) => embedded.certificates(),
        };
        certificates.ok_or_else(|| "this broker has no certificates".into())
    }

    /// The view and the commands of the broker's operators.
    #[must_use]
    pub fn operator(&self) -> &Operator {
        &self.operator
    }

    /// The runtime.
    #[must_use]
    pub fn runtime(&self) -> &'static dyn Runtime {
        self.runtime
    }

    /// Runs a task beside the scenario.
    pub fn spawn<T: Send + 'static>(
        &self,
        future: impl Future<Output = T> + Send + 'static,
    ) -> Task<T> {
        let (task, work) = Task::new(Box::pin(future));
        self.runtime.spawn(work);
        task
    }

    /// Runs a blocking function in a thread of its own, and waits until it is done. Dropping this
    /// leaves the thread to itself.
    ///
    /// # Errors
    /// When it panics, or there is no thread.
    pub async fn in_thread<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Failure> {
        let running = thread::Builder::new().spawn(work)?;
        while !running.is_finished() {
            self.sleep(LOOK_EVERY).await;
        }
        running
            .join()
            .map_err(|panic| format!("a thread panicked: {}", message(panic.as_ref())).into())
    }

    /// Waits.
    pub async fn sleep(&self, time: Duration) {
        self.runtime.sleep(time).await;
    }

    /// Waits for a future, up to a limit.
    ///
    /// # Errors
    /// When it does not.
    pub async fn within<T>(
        &self,
        limit: Duration,
        future: impl Future<Output = T>,
    ) -> Result<T, Failure> {
        let mut future = pin!(future);
        let mut over = self.runtime.sleep(limit);
        poll_fn(|cx| {
            if let Poll::Ready(value) = future.as_mut().poll(cx) {
                return Poll::Ready(Ok(value));
            }
            over.as_mut()
                .poll(cx)
                .map(|()| Err(format!("not done after {limit:?}").into()))
        })
        .await
    }

    /// Waits for a future that should end soon.
    ///
    /// # Errors
    /// When it does.
    pub async fn soon<T>(&self, future: impl Future<Output = T>) -> Result<T, Failure> {
        self.within(PATIENCE, future).await
    }

    /// Waits for a condition that should not take long to hold.
    ///
    /// # Errors
    /// When it does.
    pub async fn until(&self, what: impl Display, mut holds: impl FnMut() -> bool) -> Outcome {
        let deadline = Instant::now() + PATIENCE;
        while !holds() {
            if Instant::now() > deadline {
                return Err(format!("after {PATIENCE:?} it is not true that {what}").into());
            }
            self.sleep(LOOK_EVERY).await;
        }
        Ok(())
    }

    /// Marks a connection, to see later whether the broker still has it.
    ///
    /// # Errors
    /// When the connection is or gets closed.
    pub async fn mark(&self, connection: &Connection) -> Result<Mark, Failure> {
        let channel = connection.open_channel().await?;
        let declared = channel
            .call(queue::Declare::default().exclusive(true))
            .await?;
        channel.close().await?;
        Ok(Mark(declared.queue))
    }

    /// Waits until the broker knows that a connection is gone.
    ///
    /// # Errors
    /// When that takes too long.
    pub async fn gone(&self, mark: &Mark) -> Outcome {
        let witness = self.connect().await?;
        let deadline = Instant::now() + PATIENCE;
        loop {
            let channel = witness.open_channel().await?;
            let look = queue::Declare::default().queue(&mark.0).passive(true);
            match channel.call(look).await {
                Err(error) if error.code() == Some(ReplyCode::NOT_FOUND) => break,
                Err(error) if error.code() == Some(ReplyCode::RESOURCE_LOCKED) => {}
                Err(error) => return Err(error.into()),
                Ok(_) => return Err("an exclusive queue can be seen from outside".into()),
            }
            if Instant::now() > deadline {
                return Err("the broker still has the connection".into());
            }
            self.sleep(LOOK_EVERY).await;
        }
        Ok(witness.close().await?)
    }
}

/// The URI of a broker that speaks TLS, where a plain one would have that URI.
fn secured(uri: &str, certificates: &Certificates) -> String {
    let uri = uri.replacen("amqp://", "amqps://", 1);
    format!("{uri}?cacertfile={}", certificates.path("ca.pem"))
}

/// A connection that was [marked](Ctx::mark): with a queue that lives as long as the broker has it,
/// and that is locked for others meanwhile.
#[derive(Clone, Debug)]
pub struct Mark(ShortStr);

/// Runs two futures at once, until both have ended.
pub(crate) async fn join<A, B>(a: impl Future<Output = A>, b: impl Future<Output = B>) -> (A, B) {
    let (mut a, mut b) = (pin!(a), pin!(b));
    let (mut of_a, mut of_b) = (None, None);
    poll_fn(|cx| {
        if of_a.is_none()
            && let Poll::Ready(value) = a.as_mut().poll(cx)
        {
            of_a = Some(value);
        }
        if of_b.is_none()
            && let Poll::Ready(value) = b.as_mut().poll(cx)
        {
            of_b = Some(value);
        }
        match (of_a.take(), of_b.take()) {
            (Some(a), Some(b)) => Poll::Ready((a, b)),
            (a, b) => {
                (of_a, of_b) = (a, b);
                Poll::Pending
            }
        }
    })
    .await
}
