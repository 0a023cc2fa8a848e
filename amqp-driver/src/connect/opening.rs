//! The last step of connecting: the first life of a connection, or a later one.

use std::{
    future::{Future, poll_fn},
    pin::pin,
    sync::Arc,
    task::Poll,
};

use amqp_core::client::Config;

use super::options::Options;
use crate::{
    connection::Connection,
    error::Error,
    io::{BoxTransport, Driver, Runtime, Timer, Transport},
    recovery::supervisor::Supervisor,
    session::{
        driver_task::DriverTask,
        shared::{ClientEndpoint, Shared},
    },
};

/// Opens a connection over a stream.
pub(crate) trait Opening: Send {
    /// The opened connection, as the caller needs it.
    type Opened: Send;

    /// Opens the connection, and returns it with its state.
    fn open(
        &mut self,
        config: Config,
        stream: impl Transport + Unpin + 'static,
        certificates: Arc<[Vec<u8>]>,
    ) -> impl Future<Output = Result<(Self::Opened, Arc<Shared>), Error>> + Send;
}

/// Opens a new connection, and spawns its driver.
pub(crate) struct First<'a, R> {
    pub(crate) runtime: &'a R,
    pub(crate) options: &'a Options,
}

impl<R: Runtime> Opening for First<'_, R> {
    type Opened = Connection;

    async fn open(
        &mut self,
        config: Config,
        stream: impl Transport + Unpin + 'static,
        certificates: Arc<[Vec<u8>]>,
    ) -> Result<(Connection, Arc<Shared>), Error> {
        let clock = self.runtime.clock();
        let (connection, driver) = Connection::start(config, stream, clock.clone())?;
        let shared = Arc::clone(connection.shared());
        shared.lock().certificates = certificates;
        match &self.options.recovery {
            None => self.runtime.spawn(DriverTask::new(driver, &shared)),
            Some(policy) => {
                let policy = policy.clone();
                shared.with(|state, _| state.recover_by(policy, clock.now()));
                let (runtime, options) = (self.runtime.clone(), self.options.clone());
                let supervisor = Supervisor::new(runtime, options, Arc::clone(&shared), clock);
                self.runtime.spawn(supervisor.run(driver));
            }
        }
        connection.opened().await?;
        Ok((connection, shared))
    }
}

/// Opens the next life of a connection. The caller drives it.
pub(crate) struct Next<C> {
    pub(crate) shared: Arc<Shared>,
    pub(crate) clock: C,
}

impl<C: Timer + Clone + Unpin + 'static> Opening for Next<C> {
    type Opened = Driver<ClientEndpoint, BoxTransport, C>;

    async fn open(
        &mut self,
        config: Config,
        stream: impl Transport + Unpin + 'static,
        certificates: Arc<[Vec<u8>]>,
    ) -> Result<(Self::Opened, Arc<Shared>), Error> {
        let shared = &self.shared;
        let now = self.clock.now();
        let ended = shared.with(|state, _| {
            let ended = state.begin_life(config, now)?;
            state.certificates = certificates;
            Ok::<_, Error>(ended)
        })?;
        // Its destructor runs those of bodies.
        drop(ended);
        let endpoint = ClientEndpoint::new(Arc::clone(shared));
        let mut driver = Driver::new(endpoint, BoxTransport::new(stream), self.clock.clone());
        poll_fn(|cx| {
            let done = pin!(&mut driver).poll(cx).is_ready();
            let state = shared.lock();
            match state.machine.close_reason() {
                // It was opened, and has ended again.
                Some(_) if state.closed.is_none() && !state.is_connecting() => {
                    Poll::Ready(Err(Error::Recovering))
                }
                Some(reason) => Poll::Ready(Err(Error::ConnectionClosed(reason.clone()))),
                None if state.opened => Poll::Ready(Ok(())),
                None if done => Poll::Ready(Err(Error::Internal("the driver ended"))),
                None => Poll::Pending,
            }
        })
        .await?;
        Ok((driver, Arc::clone(shared)))
    }
}
