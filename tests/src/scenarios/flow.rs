//! A server that is short of memory, and reads no more.

use std::time::{Duration, Instant};

use amqp_tokio::{
    Body, CloseReason, ConfirmChannel, Connection, ConnectionState, Consumer, Error, ManualAck,
    Unconfirmed,
    core::{CloseCause, TimeoutReason, protocol::basic},
    wire::FieldTable,
};

use super::{
    Case, case,
    tools::{
        becomes_ready, consume, get, is_own_close, open, open_confirming, put, ready, shared_queue,
        to,
    },
};
use crate::{
    context::Ctx,
    harness::{Failure, Outcome},
};

pub(super) fn cases() -> Vec<Case> {
    vec![
        case!(a_blocked_connection_closes_in_time).alone(&[]),
        case!(acknowledgements_of_a_pair_go_on_under_an_alarm).alone(&[]),
        case!(a_blocked_connection_with_a_full_socket)
            .alone(&["heartbeat = 1"])
            .embedded(|config| config.server.heartbeat = 1),
    ]
}

/// How long a close may take, in these scenarios.
const CLOSE_LIMIT: Duration = Duration::from_secs(1);

/// By how much a busy machine may be late. A driver that lingers takes five seconds.
const MARGIN: Duration = Duration::from_secs(4);

async fn connect(cx: &Ctx) -> Result<Connection, Failure> {
    cx.connect_to(&cx.uri, |config| config.timeouts.close = CLOSE_LIMIT)
        .await
}

/// Asserts that it ended because the server did not answer the close.
#[track_caller]
fn assert_close_timed_out(result: Result<(), Error>) -> CloseReason {
    let Err(Error::ConnectionClosed(reason)) = result else {
        panic!("nobody should have answered: {result:?}");
    };
    assert_eq!(reason.cause(), &CloseCause::TimedOut(TimeoutReason::Close));
    reason
}

/// Blocked by a memory alarm, then close() ends within its deadline, and every wait fails. Without
/// a close, publishing goes on when the alarm is over.
async fn a_blocked_connection_closes_in_time(cx: Ctx) -> Outcome {
    let (observer, observing) = open(&cx).await?;
    observing.call(shared_queue("q")).await?;
    let staying = connect(&cx).await?;
    let leaving = connect(&cx).await?;
    cx.set_memory_alarm(true).await?;
    let mut waiting = Vec::new();
    for connection in [&staying, &leaving] {
        let channel = connection.open_channel().await?.confirm_select().await?;
        assert!(!connection.is_blocked(), "not before it publishes");
        let publish = async move |body: &'static str| {
            let properties = basic::Properties::default();
            (
                channel.publish(&to("", "q"), &properties, body).await,
                channel,
            )
        };
        let (first, channel) = publish("first").await;
        cx.until("the server has blocked", || connection.is_blocked())
            .await?;
        // The next one waits for room; it takes the messages that were sent along with it.
        let first = cx.spawn(first?);
        let second = cx.spawn(async move {
            let properties = basic::Properties::default();
            let confirm = channel.publish(&to("", "q"), &properties, "second").await?;
            Ok::<_, Error>((confirm.await, channel))
        });
        waiting.push((first, second));
    }
    // This is not answered either.
    let call = cx.spawn({
        let leaving = leaving.clone();
        async move { leaving.open_channel().await.map(drop) }
    });
    cx.sleep(Duration::from_millis(200)).await;
    assert!(!call.is_finished());
    assert!(
        waiting
            .iter()
            .all(|(first, second)| !first.is_finished() && !second.is_finished())
    );
    let begun = Instant::now();
    let reason = assert_close_timed_out(leaving.close().await);
    let took = begun.elapsed();
    assert!(
        took >= CLOSE_LIMIT && took < CLOSE_LIMIT + MARGIN,
        "{took:?}"
    );
    let (first, second) = waiting.pop().ok_or("there are two")?;
    match cx.soon(first.join()).await?? {
        Err(Unconfirmed::Unknown(doubt)) => {
            assert_eq!(doubt.cause(), &CloseCause::Connection(reason.clone()));
        }
        other => panic!("it is not known whether it has arrived: {other:?}"),
    }
    // A publish that was not accepted before the close is not sent any more.
    let refused = cx.soon(second.join()).await??.map(drop);
    let refused = refused.expect_err("it waited for the server");
    assert!(is_own_close(&refused), "{refused}");
    let unanswered = cx.soon(call.join()).await??;
    assert_eq!(unanswered, Err(Error::ConnectionClosed(reason)));

    cx.set_memory_alarm(false).await?;
    let (first, second) = waiting.pop().ok_or("there are two")?;
    cx.soon(first.join()).await???;
    let (confirmed, _channel) = cx.soon(second.join()).await???;
    confirmed?;
    assert!(!staying.is_blocked());
    staying.close().await?;
    // The first of the one that left may have arrived, as its outcome says; the second was never
    // sent.
    let mut bodies = Vec::new();
    while let Some(message) = observing.get(get("q")).await? {
        bodies.push(super::tools::text(&message.body));
        message.ack()?;
    }
    bodies.sort_unstable();
    assert!(
        matches!(
            bodies.iter().map(String::as_str).collect::<Vec<_>>()[..],
            ["first", "second"] | ["first", "first", "second"]
        ),
        "{bodies:?}"
    );
    Ok(observer.close().await?)
}

/// A consumer that gets one message at a time, from a queue with that name.
async fn consume_singly(
    connection: &Connection,
    queue: &str,
) -> Result<Consumer<ManualAck>, Failure> {
    let channel = connection.open_channel().await?;
    channel
        .call(basic::Qos::default().prefetch_count(1))
        .await?;
    Ok(channel.consume(consume(queue)).await?)
}

/// Given a pair of connections, when the server is short of memory and has blocked the one that
/// publishes, then the consumer of the other one is served, acknowledgement by acknowledgement;
/// that of a connection that does both is not, until the alarm is over.
async fn acknowledgements_of_a_pair_go_on_under_an_alarm(cx: Ctx) -> Outcome {
    const MESSAGES: usize = 5;
    let (observer, observing) = open_confirming(&cx).await?;
    for queue in ["q", "paired", "single"] {
        observing.call(shared_queue(queue)).await?;
    }
    for queue in ["paired", "single"] {
        for _ in 0..MESSAGES {
            put(&observing, "", queue, "work").await?;
        }
        becomes_ready(&cx, &observing, queue, MESSAGES as u32).await?;
    }
    let pair = cx.connect_pair().await?;
    let single = cx.connect().await?;
    let mut states = pair.states();
    let state = cx.soon(states.next()).await?.ok_or("it has ended")?;
    assert_eq!(state.publishing, ConnectionState::Open);
    assert_eq!(state.consuming, ConnectionState::Open);
    let mut paired = consume_singly(pair.consuming(), "paired").await?;
    let mut alone = consume_singly(&single, "single").await?;
    let first = cx.soon(alone.next()).await?.ok_or("no delivery")??;

    cx.set_memory_alarm(true).await?;
    let mut confirms = Vec::new();
    for connection in [pair.publishing(), &single] {
        let channel: ConfirmChannel = connection.open_channel().await?.confirm_select().await?;
        let properties = basic::Properties::default();
        let confirm = channel.publish(&to("", "q"), &properties, "held").await?;
        confirms.push((cx.spawn(confirm), channel));
        cx.until("the server has blocked", || connection.is_blocked())
            .await?;
    }
    let state = cx.soon(states.next()).await?.ok_or("it has ended")?;
    assert!(matches!(state.publishing, ConnectionState::Blocked { .. }));
    assert_eq!(state.consuming, ConnectionState::Open);
    first.ack()?;
    for _ in 0..MESSAGES {
        let delivery = cx.soon(paired.next()).await?.ok_or("no delivery")??;
        delivery.ack()?;
    }
    let second = cx.within(Duration::from_millis(300), alone.next()).await;
    assert!(second.is_err(), "its acknowledgement was read");
    assert!(confirms.iter().all(|(confirm, _)| !confirm.is_finished()));

    cx.set_memory_alarm(false).await?;
    let second = cx.soon(alone.next()).await?.ok_or("no delivery")??;
    second.ack()?;
    for (confirm, _channel) in confirms {
        cx.soon(confirm.join()).await???;
    }
    cx.soon(pair.close()).await??;
    let mut last = None;
    while let Some(state) = cx.soon(states.next()).await? {
        last = Some(state);
    }
    let last = last.ok_or("it has changed")?;
    for state in [last.publishing, last.consuming] {
        assert!(matches!(state, ConnectionState::Closed(_)), "{state:?}");
    }
    single.close().await?;
    Ok(observer.close().await?)
}

/// Blocked in the middle of a message, with a socket that takes no more: heartbeats keep the
/// connection alive, input is still read, close() ends within its deadline, and the message arrives
/// whole when the alarm is over.
async fn a_blocked_connection_with_a_full_socket(cx: Ctx) -> Outcome {
    const LARGE: usize = 32 << 20;
    let body: Vec<u8> = (0..LARGE as u32 / 4).flat_map(u32::to_be_bytes).collect();
    let body = Body::from(body).into_bytes(); // to be shared
    let (observer, observing) = open(&cx).await?;
    observing.call(shared_queue("q")).await?;
    let staying = connect(&cx).await?;
    let leaving = connect(&cx).await?;
    // A message that moves from one queue to another without a publish.
    let arguments = FieldTable::new()
        .with("x-message-ttl", 4000)
        .with("x-dead-letter-exchange", "")
        .with("x-dead-letter-routing-key", "late");
    observing.call(shared_queue("late")).await?;
    observing
        .call(shared_queue("early").arguments(arguments))
        .await?;
    let early = basic::Publish::default().routing_key("early");
    let properties = basic::Properties::default();
    observing.publish(&early, &properties, "late").await?;
    becomes_ready(&cx, &observing, "early", 1).await?;
    let consuming = staying.open_channel().await?;
    let mut late = consuming.consume(consume("late")).await?;

    let mut confirms = Vec::new();
    cx.set_memory_alarm(true).await?;
    for connection in [&staying, &leaving] {
        let channel = connection.open_channel().await?.confirm_select().await?;
        let confirm = channel
            .publish(&to("", "q"), &basic::Properties::default(), body.clone())
            .await?;
        confirms.push((cx.spawn(confirm), channel));
        cx.until("the server has blocked", || connection.is_blocked())
            .await?;
    }
    // Three times as long as a peer may be silent.
    cx.sleep(Duration::from_secs(6)).await;
    let delivery = cx.soon(late.next()).await?.ok_or("no delivery")??;
    assert_eq!(delivery.body, "late");
    delivery.ack()?;
    for connection in [&staying, &leaving] {
        assert_eq!(connection.tuning().heartbeat, 1);
        assert!(connection.is_open() && connection.is_blocked());
        assert!(
            connection.buffered() > LARGE / 2,
            "{}",
            connection.buffered()
        );
    }
    assert_eq!(ready(&observing, "q").await?, 0);

    let begun = Instant::now();
    assert_close_timed_out(leaving.close().await);
    let took = begun.elapsed();
    assert!(
        took >= CLOSE_LIMIT && took < CLOSE_LIMIT + MARGIN,
        "{took:?}"
    );
    let (confirm, _channel) = confirms.pop().ok_or("there are two")?;
    match cx.soon(confirm.join()).await?? {
        Err(Unconfirmed::Unknown(_)) => {}
        other => panic!("it is not known whether it has arrived: {other:?}"),
    }

    cx.set_memory_alarm(false).await?;
    let (confirm, channel) = confirms.pop().ok_or("there are two")?;
    cx.soon(confirm.join()).await???;
    assert!(channel.is_open() && !staying.is_blocked());
    let message = observing.get(get("q")).await?.ok_or("it was confirmed")?;
    assert!(message.body.clone().into_bytes() == body);
    message.ack()?;
    assert_eq!(ready(&observing, "q").await?, 0);
    staying.close().await?;
    Ok(observer.close().await?)
}
