//! Serena: channels.

use amqp_tokio::{
    Error,
    core::{
        ApiMisuse, MethodId,
        protocol::{ReplyCode, basic},
    },
};

use super::{
    Case, cases,
    tools::{assert_channel_closed, assert_misuse, get, is_own_close, open, own_queue},
};
use crate::{context::Ctx, harness::Outcome};

pub(super) fn cases() -> Vec<Case> {
    cases![
        ser_11_a_channel_ends_and_its_connection_goes_on,
        ser_12_get_from_a_missing_queue_ends_the_channel_alone,
        ser_13_a_closed_channels_number_is_free,
    ]
}

/// Given a connection, when a channel scope is left, then the channel is closed and the connection
/// still usable.
async fn ser_11_a_channel_ends_and_its_connection_goes_on(cx: Ctx) -> Outcome {
    let (connection, channel) = open(&cx).await?;
    assert_eq!(connection.channel_count(), 1);
    channel.close().await?;
    assert!(!channel.is_open());
    let reason = channel.close_reason().ok_or("closed without a reason")?;
    assert!(reason.is_clean(), "{reason}");
    assert_eq!(connection.channel_count(), 0);

    {
        let channel = connection.open_channel().await?;
        own_queue(&channel).await?;
        assert_eq!(connection.channel_count(), 1);
    }
    cx.until("the channel is closed", || connection.channel_count() == 0)
        .await?;

    let channel = connection.open_channel().await?;
    own_queue(&channel).await?;
    connection.close().await?;
    let error = own_queue(&channel).await.expect_err("all is closed");
    assert!(is_own_close(&error), "{error}");
    Ok(())
}

/// Given a missing queue, when `basic_get`, then 404 not_found raised by that call, the channel
/// dead, the connection alive.
async fn ser_12_get_from_a_missing_queue_ends_the_channel_alone(cx: Ctx) -> Outcome {
    const GET: MethodId = MethodId::new(60, 70);
    let (connection, channel) = open(&cx).await?;
    let other = connection.open_channel().await?;
    let error = channel
        .get(get("missing"))
        .await
        .expect_err("it is missing");
    assert_channel_closed(&error, ReplyCode::NOT_FOUND, GET);
    assert!(!channel.is_open());
    assert_eq!(
        channel.close_reason().map(Error::ChannelClosed),
        Some(error.clone())
    );
    let again = channel.get(get("missing")).await.expect_err("it is closed");
    assert_eq!(again, error);

    assert!(other.is_open());
    own_queue(&other).await?;
    let channel = connection.open_channel().await?;
    own_queue(&channel).await?;
    Ok(connection.close().await?)
}

/// Given channel 1 closed and Close-Ok seen, when another channel is opened, then number 1 is used
/// again.
async fn ser_13_a_closed_channels_number_is_free(cx: Ctx) -> Outcome {
    let connection = cx.connect_asking("channel_max=1").await?;
    for _ in 0..3 {
        let channel = connection.open_channel().await?;
        assert_eq!(channel.number(), 1);
        let none_free = ApiMisuse::NoFreeChannel { channel_max: 1 };
        assert_misuse(connection.open_channel().await, &none_free);
        channel.call(basic::Qos::default()).await?;
        channel.close().await?;
    }
    Ok(connection.close().await?)
}
