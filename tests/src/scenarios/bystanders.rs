//! Handles that have done nothing wrong when a connection is closed, and fail with the reason.

use amqp_tokio::{CloseReason, Connection, Error, core::protocol::ReplyCode};

use super::tools::{by_peer, consume, own_queue};
use crate::{
    context::Ctx,
    harness::{Failure, Outcome},
    task::Task,
};

/// One waiter of each kind on a connection.
#[derive(Debug)]
pub(super) struct Bystanders {
    cx: Ctx,
    connection: Connection,
    waiters: Vec<(&'static str, Task<Result<CloseReason, Failure>>)>,
}

impl Bystanders {
    /// Lets them wait.
    pub(super) async fn of(cx: &Ctx, connection: &Connection) -> Result<Self, Failure> {
        let idle = connection.open_channel().await?;
        let channel = connection.open_channel().await?;
        let queue = own_queue(&channel).await?;
        let mut consumer = channel.consume(consume(&queue)).await?;
        let mut silent = channel.consume_no_ack(consume(&queue)).await?;
        let mut returns = channel.returns();

        let closed = connection.clone();
        let scope = connection.clone();
        let waiters = vec![
            (
                "a consumer",
                cx.spawn(async move {
                    let reason = reason_of(consumer.next().await.map(|it| it.map(drop)));
                    assert!(consumer.next().await.is_none(), "reported once");
                    reason
                }),
            ),
            (
                "a consumer without acknowledgements",
                cx.spawn(async move { reason_of(silent.next().await.map(|it| it.map(drop))) }),
            ),
            (
                "a listener to returns",
                cx.spawn(async move {
                    assert_eq!(returns.next().await, None);
                    reason_of(returns.error().map(Err::<(), _>))
                }),
            ),
            (
                "who waits for the end",
                cx.spawn(async move { Ok(closed.closed().await) }),
            ),
            (
                "a scope",
                cx.spawn(async move {
                    let body = std::future::pending::<()>();
                    reason_of(Some(scope.scope(body).await))
                }),
            ),
            (
                "an idle channel",
                cx.spawn({
                    let cx = cx.clone();
                    async move {
                        cx.until("the channel is closed", || !idle.is_open())
                            .await?;
                        reason_of(Some(idle.call(amqp_tokio::protocol::tx::Select).await))
                    }
                }),
            ),
        ];
        Ok(Self {
            cx: cx.clone(),
            connection: connection.clone(),
            waiters,
        })
    }

    /// Checks that each of them fails with the same reason: a close by the server with that code.
    pub(super) async fn all_closed_with(self, code: ReplyCode) -> Outcome {
        let reported = self.common_reason().await?;
        assert_eq!(by_peer(&reported).code, code, "{reported}");
        Ok(())
    }

    /// Checks that each of them fails with the same reason, and returns it.
    pub(super) async fn common_reason(self) -> Result<CloseReason, Failure> {
        let reported = self.cx.soon(self.connection.closed()).await?;
        assert!(!self.connection.is_open());
        assert_eq!(self.connection.close_reason().as_ref(), Some(&reported));
        for (who, waiter) in self.waiters {
            let reason = self
                .cx
                .soon(waiter.join())
                .await
                .map_err(|late| format!("{who}: {late}"))???;
            assert_eq!(reason, reported, "{who}");
        }
        let error = self
            .connection
            .open_channel()
            .await
            .expect_err("the connection is closed");
        assert_eq!(error, Error::ConnectionClosed(reported.clone()));
        Ok(reported)
    }
}

/// The reason in the error of a wait that the end of the connection ended.
pub(super) fn reason_of<T: std::fmt::Debug>(
    end: Option<Result<T, Error>>,
) -> Result<CloseReason, Failure> {
    match end {
        Some(Err(Error::ConnectionClosed(reason))) => Ok(reason),
        other => Err(format!("reported something else than the end: {other:?}").into()),
    }
}
