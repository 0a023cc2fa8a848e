//! Futures that are dropped when their connection ends.

use std::{
    future::{Future, poll_fn},
    pin::pin,
    task::Poll,
};

use crate::{connection::Connection, error::Error};

pub(crate) async fn scope<T>(
    connection: &Connection,
    body: impl Future<Output = T>,
) -> Result<T, Error> {
    let mut body = pin!(body);
    let mut closed = pin!(connection.closed());
    poll_fn(|cx| {
        if let Poll::Ready(output) = body.as_mut().poll(cx) {
            return Poll::Ready(Ok(output));
        }
        closed
            .as_mut()
            .poll(cx)
            .map(|reason| Err(Error::ConnectionClosed(reason)))
    })
    .await
}
