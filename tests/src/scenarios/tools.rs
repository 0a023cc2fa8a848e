//! Steps that many scenarios share.

use std::panic::resume_unwind;

use amqp_tokio::{
    BaseChannel, Channel, CloseReason, ConfirmChannel, Connection, Error, Fetched, Unconfirmed,
    core::{
        ApiMisuse, Body, Close, CloseCause, MethodId,
        protocol::{ReplyCode, basic, exchange, queue},
    },
    wire::ShortStr,
};

use crate::{
    context::{Ctx, LOOK_EVERY},
    harness::{Failure, Outcome},
};

/// A new connection, and a channel on it.
pub(super) async fn open(cx: &Ctx) -> Result<(Connection, Channel), Failure> {
    let connection = cx.connect().await?;
    let channel = connection.open_channel().await?;
    Ok((connection, channel))
}

/// A new connection, and a channel on it that confirms publishes.
pub(super) async fn open_confirming(cx: &Ctx) -> Result<(Connection, ConfirmChannel), Failure> {
    let (connection, channel) = open(cx).await?;
    Ok((connection, channel.confirm_select().await?))
}

/// A declaration of a queue that others may use, too.
pub(super) fn shared_queue(name: &str) -> queue::Declare {
    queue::Declare::default().queue(name)
}

/// Declares a queue with a name from the server, for this connection alone.
pub(super) async fn own_queue(channel: &BaseChannel) -> Result<ShortStr, Error> {
    let declare = queue::Declare::default().exclusive(true);
    Ok(channel.call(declare).await?.queue)
}

/// The broker's counts of a queue.
pub(super) async fn look(channel: &BaseChannel, name: &str) -> Result<queue::DeclareOk, Error> {
    channel
        .call(queue::Declare::default().queue(name).passive(true))
        .await
}

/// How many messages are ready in a queue.
pub(super) async fn ready(channel: &BaseChannel, queue: &str) -> Result<u32, Error> {
    Ok(look(channel, queue).await?.message_count)
}

/// Waits until so many messages are ready in a queue. RabbitMQ reports the number before it has
/// handled earlier methods without an answer, such as a rejection.
pub(super) async fn becomes_ready(
    cx: &Ctx,
    channel: &BaseChannel,
    queue: &str,
    count: u32,
) -> Outcome {
    cx.soon(async {
        while ready(channel, queue).await? != count {
            cx.sleep(LOOK_EVERY).await;
        }
        Ok(())
    })
    .await
    .map_err(|late| format!("{count} messages should be in {queue}: {late}"))?
}

/// Declares an exchange of that type.
pub(super) async fn declare_exchange(
    channel: &BaseChannel,
    name: &str,
    kind: &str,
) -> Result<(), Error> {
    let declare = exchange::Declare::default().exchange(name).kind(kind);
    channel.call(declare).await?;
    Ok(())
}

/// Binds a queue to an exchange.
pub(super) async fn bind(
    channel: &BaseChannel,
    queue: &str,
    exchange: &str,
    key: &str,
) -> Result<(), Error> {
    let bind = queue::Bind::default()
        .queue(queue)
        .exchange(exchange)
        .routing_key(key);
    channel.call(bind).await?;
    Ok(())
}

/// A mandatory message for that exchange and key.
pub(super) fn to(exchange: &str, key: &str) -> basic::Publish {
    basic::Publish::default()
        .exchange(exchange)
        .routing_key(key)
        .mandatory(true)
}

/// Publishes a message, and sees it into a queue.
pub(super) async fn put(
    channel: &ConfirmChannel,
    exchange: &str,
    key: &str,
    body: impl Into<Body>,
) -> Result<(), Failure> {
    let confirm = channel
        .publish(&to(exchange, key), &basic::Properties::default(), body)
        .await?;
    Ok(confirm.await?)
}

/// A consumer of that queue.
pub(super) fn consume(queue: &str) -> basic::Consume {
    basic::Consume::default().queue(queue)
}

/// A fetch from that queue.
pub(super) fn get(queue: &str) -> basic::Get {
    basic::Get::default().queue(queue)
}

/// Fetches a message, to be acknowledged.
///
/// # Errors
/// If the queue is empty, or the fetch fails.
pub(super) async fn fetch(channel: &BaseChannel, queue: &str) -> Result<Fetched, Failure> {
    let message = channel.get(get(queue)).await?;
    message.ok_or_else(|| format!("{queue} is empty").into())
}

/// A copy of a body as text.
pub(super) fn text(body: &Body) -> String {
    String::from_utf8(body.to_vec()).expect("text")
}

/// Panics as `panic!` does, without a report on the standard error.
pub(super) fn panic_unreported(message: &'static str) -> ! {
    resume_unwind(Box::new(message))
}

/// Asserts that the server closed a channel, and no more, because of that method.
#[track_caller]
pub(super) fn assert_channel_closed(error: &Error, code: ReplyCode, method: MethodId) {
    let Error::ChannelClosed(reason) = error else {
        panic!("the channel should be closed with {code}, but: {error}");
    };
    let close = by_peer(reason);
    assert_eq!((close.code, close.method), (code, Some(method)), "{reason}");
}

/// Asserts that the server closed the whole connection.
#[track_caller]
pub(super) fn assert_connection_closed(error: &Error, code: ReplyCode) {
    let Error::ConnectionClosed(reason) = error else {
        panic!("the connection should be closed with {code}, but: {error}");
    };
    assert_eq!(by_peer(reason).code, code, "{reason}");
}

/// Asserts that this side refused, and with which error.
#[track_caller]
pub(super) fn assert_misuse<T: std::fmt::Debug>(result: Result<T, Error>, misuse: &ApiMisuse) {
    match result {
        Err(Error::Misuse(refused)) => assert_eq!(refused, *misuse),
        other => panic!("it should be refused because {misuse}, but: {other:?}"),
    }
}

/// The code and text of the server's close.
#[track_caller]
pub(super) fn by_peer(reason: &CloseReason) -> &Close {
    match reason.by_peer() {
        Some(close) => close,
        None => panic!("the server should have closed, but: {reason}"),
    }
}

/// Whether a handle of this side closed.
pub(super) fn is_own_close(error: &Error) -> bool {
    match error {
        Error::ChannelClosed(reason) | Error::ConnectionClosed(reason) => {
            matches!(reason.cause(), CloseCause::Requested(_)) && reason.is_clean()
        }
        _ => false,
    }
}

/// Why it is not known whether the server has a message.
#[track_caller]
pub(super) fn in_doubt(outcome: Result<(), Unconfirmed>) -> CloseReason {
    match outcome {
        Err(Unconfirmed::Unknown(reason)) => reason,
        other => panic!("the publish should be in doubt, but: {other:?}"),
    }
}
