//! A first connect that awaits the broker.

use std::future::poll_fn;

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
            Step::Connect { .. } => match connect_as(runtime, options, first).await {
                Ok(connection) => return Ok(connection),
                Err(error) => {
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
