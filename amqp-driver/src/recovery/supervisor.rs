//! The task of a connection that recovers: it drives each life, and dials for the next.

use std::{
    future::{Future, pending, poll_fn},
    pin::{Pin, pin},
    sync::Arc,
    task::Poll,
};

use amqp_core::{Instant, recovery::Step};

use crate::{
    connect::{connect_as, error::ConnectError, opening::Next, options::Options},
    io::{BoxTransport, Driver, Runtime, Timer as _, Transport},
    session::{
        driver_task::DriverTask,
        shared::{ClientEndpoint, Shared},
    },
};

/// Drives the lives of a connection, one after the other.
///
/// Between two lives it keeps the time of the handles' deadlines, as a driver does.
pub(crate) struct Supervisor<R: Runtime> {
    runtime: R,
    options: Options,
    shared: Arc<Shared>,
    /// The clock of all lives.
    clock: R::Clock,
}

impl<R: Runtime> Supervisor<R> {
    pub(crate) const fn new(
        runtime: R,
        options: Options,
        shared: Arc<Shared>,
        clock: R::Clock,
    ) -> Self {
        Self {
            runtime,
            options,
            shared,
            clock,
        }
    }

    /// Drives the connection to its final end.
    pub(crate) async fn run<T: Transport + Unpin + 'static>(
        mut self,
        first: Driver<ClientEndpoint, T, R::Clock>,
    ) {
        let _end = End(Arc::clone(&self.shared));
        drive(&self.runtime, DriverTask::new(first, &self.shared)).await;
        while let Some(next) = self.reconnect().await {
            drive(&self.runtime, DriverTask::new(next, &self.shared)).await;
        }
    }

    /// Dials until the next life is open. `None` if the connection has ended instead.
    async fn reconnect(&mut self) -> Option<Driver<ClientEndpoint, BoxTransport, R::Clock>> {
        loop {
            let now = self.clock.now();
            match self
                .shared
                .with(|state, later| state.recovery_step(now, later))
            {
                None | Some(Step::GiveUp) => return None,
                Some(Step::Wait(until)) => {
                    self.idle(Some(until), pin!(pending::<()>())).await?;
                }
                Some(Step::Connect { .. }) => {
                    let (runtime, options) = (self.runtime.clone(), self.options.clone());
                    let mut next = Next {
                        shared: Arc::clone(&self.shared),
                        clock: self.clock.clone(),
                    };
                    let dialing = connect_as(&runtime, &options, &mut next);
                    match self.idle(None, pin!(dialing)).await? {
                        Some(Ok(driver)) => return Some(driver),
                        Some(Err(error)) => self.failed(&error),
                        None => {}
                    }
                }
                // The end of the life is being processed.
                Some(_) => self.idle(None, pin!(pending::<()>())).await.map(drop)?,
            }
        }
    }

    fn failed(&self, error: &ConnectError) {
        let now = self.clock.now();
        let (failure, text) = (error.kind(), error.to_string());
        self.shared
            .with(|state, later| state.connect_failed(now, failure, &text, later));
    }

    /// Runs `future`, and expires the deadlines of the handles meanwhile. Returns its output, `None`
    /// within at the time `until`, and `None` if the connection has ended.
    async fn idle<T>(
        &mut self,
        until: Option<Instant>,
        mut future: Pin<&mut impl Future<Output = T>>,
    ) -> Option<Option<T>> {
        poll_fn(|cx| {
            loop {
                if let Poll::Ready(output) = future.as_mut().poll(cx) {
                    return Poll::Ready(Some(Some(output)));
                }
                let now = self.clock.now();
                if self.shared.with(|state, later| state.pass_time(now, later)) {
                    return Poll::Ready(None);
                }
                if until.is_some_and(|until| until <= now) {
                    return Poll::Ready(Some(None));
                }
                let next = self.shared.await_command(cx.waker());
                let at = until.into_iter().chain(next).min();
                if self.clock.poll_deadline(cx, at).is_pending() {
                    return Poll::Pending;
                }
            }
        })
        .await
    }
}

/// Drives one life. The wait for the peer's end of the transport goes on in a task of its own.
async fn drive<R: Runtime, T: Transport + Unpin + 'static>(
    runtime: &R,
    driver: DriverTask<T, R::Clock>,
) {
    let mut driver = Some(driver);
    poll_fn(|cx| {
        let Some(driving) = &mut driver else {
            return Poll::Ready(());
        };
        if pin!(&mut *driving).poll(cx).is_ready() {
            driver = None;
            return Poll::Ready(());
        }
        if driving.is_closed() {
            Poll::Ready(())
        } else {
            Poll::Pending
        }
    })
    .await;
    if let Some(closed) = driver {
        runtime.spawn(closed);
    }
}

/// Ends a lost connection if its supervisor is dropped, as by a runtime that shuts down.
struct End(Arc<Shared>);

impl Drop for End {
    fn drop(&mut self) {
        self.0.with(|state, later| state.stop_recovery(later));
    }
}
