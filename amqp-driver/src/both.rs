//! Two futures side by side.

use std::{
    convert::Infallible,
    future::{Future, poll_fn},
    pin::pin,
    task::Poll,
};

/// Returns the outputs of both futures.
pub(crate) async fn both<A, B>(
    one: impl Future<Output = A>,
    other: impl Future<Output = B>,
) -> (A, B) {
    let one = async { Ok::<_, Infallible>(one.await) };
    let Ok(outputs) = try_both(one, async { Ok(other.await) }).await;
    outputs
}

/// Returns the outputs of both futures, or the first error, without a wait for the other future.
pub(crate) async fn try_both<A, B, E>(
    one: impl Future<Output = Result<A, E>>,
    other: impl Future<Output = Result<B, E>>,
) -> Result<(A, B), E> {
    let (mut one, mut other) = (pin!(one), pin!(other));
    let (mut of_one, mut of_other) = (None, None);
    poll_fn(|cx| {
        if of_one.is_none()
            && let Poll::Ready(output) = one.as_mut().poll(cx)?
        {
            of_one = Some(output);
        }
        if of_other.is_none()
            && let Poll::Ready(output) = other.as_mut().poll(cx)?
        {
            of_other = Some(output);
        }
        match (of_one.take(), of_other.take()) {
            (Some(one), Some(other)) => Poll::Ready(Ok((one, other))),
            unfinished => {
                (of_one, of_other) = unfinished;
                Poll::Pending
            }
        }
    })
    .await
}

#[cfg(test)]
mod tests {
    use std::{
        future::{pending, ready},
        pin::pin,
        task::{Context, Waker},
    };

    use super::*;

    #[test]
    fn an_error_does_not_wait_for_the_other() {
        let cx = &mut Context::from_waker(Waker::noop());
        let failed = || ready(Err::<(), _>("failed"));
        let never = || pending::<Result<(), &str>>();
        assert_eq!(
            pin!(try_both(failed(), never())).poll(cx),
            Poll::Ready(Err("failed"))
        );
        assert_eq!(
            pin!(try_both(never(), failed())).poll(cx),
            Poll::Ready(Err("failed"))
        );
        assert!(pin!(both(ready(1), pending::<u8>())).poll(cx).is_pending());
        assert_eq!(pin!(both(ready(1), ready(2))).poll(cx), Poll::Ready((1, 2)));
    }
}
