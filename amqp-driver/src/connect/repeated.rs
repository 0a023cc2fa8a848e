//! A first connect that awaits the broker.

use std::{
    future::{Future as _, poll_fn},
    pin::pin,
    task::Poll,
};

use amqp_core::recovery::{Policy, Recovery, Step};

use super::{connect_as, error::ConnectError, opening::First, options::Options};
use crate::{
    connection::Connection,
    io::{Runtime, Timer as _},
};

/// Connects as often as the policy says.
pub(super) async fn connect_until<R: Runtime>(
    runtime: &R,
    options: &Options,
    policy: &Policy,
    first: &mut First<'_, R>,
) -> Result<Connection, ConnectError> {
    let mut clock = runtime.clock();
    let mut recovery = Recovery::new(policy.clone(), clock.now());
    let mut last = ConnectError::TimedOut;
    loop {
        match recovery.poll_step(clock.now()) {
            Step::Connect { .. } => match attempt(runtime, options, &recovery, first).await {
                None => {} // the deadline has passed
                Some(Ok(connection)) => return Ok(connection),
                Some(Err(error)) => {
                    let (failure, text) = (error.kind(), error.to_string());
                    recovery.handle_connect_failed(clock.now(), failure, &text);
                    last = error;
                }
            },
            Step::Wait(until) => poll_fn(|cx| clock.poll_deadline(cx, Some(until))).await,
            _ => return Err(last),
        }
    }
}

/// Connects once. `None` if the time of the recovery comes first.
async fn attempt<R: Runtime>(
    runtime: &R,
    options: &Options,
    recovery: &Recovery,
    first: &mut First<'_, R>,
) -> Option<Result<Connection, ConnectError>> {
    let (mut clock, until) = (runtime.clock(), recovery.poll_timeout());
    let mut connecting = pin!(connect_as(runtime, options, first));
    poll_fn(|cx| match connecting.as_mut().poll(cx) {
        Poll::Ready(connected) => Poll::Ready(Some(connected)),
        Poll::Pending => clock.poll_deadline(cx, until).map(|()| None),
    })
    .await
}
