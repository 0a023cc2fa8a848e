//! A future that another one ends.

use std::{
    future::{Future, poll_fn},
    pin::pin,
    task::Poll,
};

/// Returns the output of `future`, or that of `other` if it is ready first.
pub(crate) async fn unless<O, T>(
    other: impl Future<Output = O>,
    future: impl Future<Output = T>,
) -> Result<T, O> {
    let (mut other, mut future) = (pin!(other), pin!(future));
    poll_fn(|cx| match future.as_mut().poll(cx) {
        Poll::Ready(value) => Poll::Ready(Ok(value)),
        Poll::Pending => other.as_mut().poll(cx).map(Err),
    })
    .await
}
