//! Channels: their life, their numbers, and handles that share one.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use amqp_tokio::{
    CloseReason, Config, Connection, Error, Requeue, Tags, Unconfirmed,
    core::{
        ApiMisuse, MethodDef as _, MethodId, Origin,
        protocol::{ReplyCode, basic, channel, queue},
    },
};

use super::{
    Case,
    bystanders::Bystanders,
    case, cases,
    tools::{
        assert_channel_closed, assert_connection_closed, assert_misuse, consume, fetch, get,
        is_own_close, look, open, open_confirming, own_queue, put, ready, shared_queue, text, to,
    },
};
use crate::{
    context::{Ctx, join},
    harness::{Failure, Outcome},
    relay::Relay,
};

pub(super) fn cases() -> Vec<Case> {
    let mut cases = cases![
        a_channel_ends_and_its_connection_goes_on,
        get_from_a_missing_queue_ends_the_channel_alone,
        a_closed_channels_number_is_free,
        a_channel_is_open_until_its_scope_is_left,
        get_from_a_missing_queue_closes_the_channel,
        a_closed_channel_refuses_everything,
        an_error_is_printed_with_the_frames_before_it,
        two_channels_have_two_numbers,
        flow_can_be_resumed,
        pausing_is_refused_here,
        pausing_closes_the_connection,
        many_tasks_publish_on_one_channel,
        one_channel_and_a_soft_error,
        all_channels_and_soft_errors,
        commit_with_queued_publishes,
        handles_are_dropped_in_any_order,
    ];
    cases.extend([case!(flow_is_paused_and_resumed)
        .embedded(|config| config.rules.flow = true)
        .not_on_rabbitmq("RabbitMQ does not implement it")]);
    cases
}

/// Given a connection, when a channel scope is left, then the channel is closed and the connection
/// still usable.
async fn a_channel_ends_and_its_connection_goes_on(cx: Ctx) -> Outcome {
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
async fn get_from_a_missing_queue_ends_the_channel_alone(cx: Ctx) -> Outcome {
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
async fn a_closed_channels_number_is_free(cx: Ctx) -> Outcome {
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

/// Given a channel scope, then the number is not 0 and it is open; after it, not open; the count of
/// numbers is back to the start.
async fn a_channel_is_open_until_its_scope_is_left(cx: Ctx) -> Outcome {
    let connection = cx.connect().await?;
    let start = connection.channel_count();
    let channel = connection.open_channel().await?;
    assert_ne!(channel.number(), 0);
    assert!(channel.is_open());
    assert_eq!(connection.channel_count(), start + 1);
    channel.close().await?;
    assert!(!channel.is_open());
    assert_eq!(connection.channel_count(), start);
    Ok(connection.close().await?)
}

/// Given get on a missing queue, then the channel is closed with 404 and not open.
async fn get_from_a_missing_queue_closes_the_channel(cx: Ctx) -> Outcome {
    let (connection, channel) = open(&cx).await?;
    let error = channel
        .get(get("missing"))
        .await
        .expect_err("it is missing");
    assert_channel_closed(&error, ReplyCode::NOT_FOUND, MethodId::new(60, 70));
    assert!(!channel.is_open());
    assert!(connection.is_open());
    Ok(connection.close().await?)
}

/// Given a closed channel, when closed again, or used to publish, declare or consume, then it is an
/// error each time, and nothing on the wire.
async fn a_closed_channel_refuses_everything(cx: Ctx) -> Outcome {
    let relay = Relay::start(cx.address)?;
    let connection = cx.connect_to(&cx.uri_at(relay.address()), |_| ()).await?;
    let own = connection.open_channel().await?;
    own.close().await?;
    let by_server = connection.open_channel().await?;
    let cause = by_server
        .get(get("missing"))
        .await
        .expect_err("it is missing");
    // Its close-ok has passed when something after it was answered.
    let other = connection.open_channel().await?;
    other.call(basic::Qos::default()).await?;

    let sent = relay.to_broker();
    for channel in [&own, &by_server] {
        let publish = to("", "nowhere");
        let errors = [
            channel.close().await.err(),
            channel
                .publish(&publish, &basic::Properties::default(), "")
                .await
                .err(),
            own_queue(channel).await.err(),
            channel.consume(consume("queue")).await.err(),
            channel.consume_no_ack(consume("queue")).await.err(),
            channel.get(get("queue")).await.err(),
            channel.call(basic::Qos::default()).await.err(),
            channel.ack(Tags::All).err(),
            channel.nack(Tags::All, Requeue::Yes).err(),
            channel.recover_async(true).err(),
        ];
        for error in errors {
            let error = error.ok_or("a closed channel did something")?;
            if channel.number() == own.number() {
                assert!(is_own_close(&error), "{error}");
            } else {
                assert_eq!(error, cause);
            }
        }
        let none = channel.returns().next().await;
        assert_eq!(none, None);
    }
    cx.sleep(Duration::from_millis(100)).await;
    assert_eq!(relay.to_broker(), sent);
    drop((own, by_server));
    assert!(other.is_open());
    Ok(connection.close().await?)
}

/// Given a connection with a log of frames, when a queue is missing, then the printed error has the
/// reply code and text, the method, the side, the channel and the frames, and no secret.
async fn an_error_is_printed_with_the_frames_before_it(cx: Ctx) -> Outcome {
    let logged = |config: &mut Config| config.frame_log = 4;
    let connection = cx.connect_to(&cx.uri_asking("heartbeat=0"), logged).await?;
    let channel = connection.open_channel().await?;
    let missing = queue::Declare::default().queue("missing").passive(true);
    let error = channel.call(missing).await.expect_err("it is missing");
    assert!(error.is_not_found() && !error.is_timed_out(), "{error}");
    assert_eq!(
        (error.channel(), error.code()),
        (Some(1), Some(ReplyCode::NOT_FOUND))
    );
    assert_eq!(error.request(), Some(queue::Declare::ID));
    assert_eq!(
        error.reason().map(CloseReason::origin),
        Some(Origin::Remote)
    );

    let report = error.report().to_string();
    let frame = |line: &str| line.split_once(" s  ").map(|(_, frame)| frame.to_owned());
    let frames: Vec<String> = report.lines().filter_map(frame).collect();
    let text = report.lines().next().ok_or("it is empty")?;
    assert!(
        text.starts_with("the channel is closed: closed by the peer: 404 (not-found): "),
        "{report}"
    );
    assert!(
        text.ends_with(" (after queue.declare), on channel 1"),
        "{report}"
    );
    let [opening, opened, declare, close] = &frames[..] else {
        panic!("{report}");
    };
    assert_eq!(opening, "sent      channel 1: channel.open");
    assert_eq!(opened, "received  channel 1: channel.open-ok");
    assert!(
        declare.starts_with("sent      channel 1: queue.declare queue=\"missing\" passive"),
        "{report}"
    );
    assert!(
        close.starts_with("received  channel 1: channel.close reply-code=404 (not-found) "),
        "{report}"
    );
    Ok(connection.close().await?)
}

/// Given two channels, then different numbers.
async fn two_channels_have_two_numbers(cx: Ctx) -> Outcome {
    let connection = cx.connect().await?;
    let one = connection.open_channel().await?;
    let two = connection.open_channel().await?;
    assert_ne!(one.number(), two.number());
    assert_ne!(one.id(), two.id());
    Ok(connection.close().await?)
}

/// Given flow(active=true), once and twice, then Flow-Ok active=true.
async fn flow_can_be_resumed(cx: Ctx) -> Outcome {
    let (connection, channel) = open(&cx).await?;
    for _ in 0..2 {
        let flow = channel.call(channel::Flow { active: true }).await?;
        assert!(flow.active);
    }
    Ok(connection.close().await?)
}

/// RabbitMQ would close the connection, so that this side refuses the one call.
async fn pausing_is_refused_here(cx: Ctx) -> Outcome {
    let (connection, channel) = open(&cx).await?;
    let feature = "channel.flow active=false";
    assert_misuse(
        channel.call(channel::Flow { active: false }).await,
        &ApiMisuse::NotImplementedByRabbitMq { feature },
    );
    assert!(channel.call(channel::Flow { active: true }).await?.active);
    Ok(connection.close().await?)
}

/// Given RabbitMQ, when the client pauses it, then 540.
async fn pausing_closes_the_connection(cx: Ctx) -> Outcome {
    let connection = cx.connect_unchecked().await?;
    let bystanders = Bystanders::of(&cx, &connection).await?;
    let channel = connection.open_channel().await?;
    let error = channel
        .call(channel::Flow { active: false })
        .await
        .expect_err("RabbitMQ does not implement it");
    assert_connection_closed(&error, ReplyCode::NOT_IMPLEMENTED);
    bystanders.all_closed_with(ReplyCode::NOT_IMPLEMENTED).await
}

/// Given flow(active=false), then flow(active=true), then flow-ok answers the same each time, and
/// messages that were kept back meanwhile are delivered.
async fn flow_is_paused_and_resumed(cx: Ctx) -> Outcome {
    let connection = cx.connect_unchecked().await?;
    let channel = connection.open_channel().await?;
    let queue = own_queue(&channel).await?;
    let mut consumer = channel.consume_no_ack(consume(&queue)).await?;
    for _ in 0..2 {
        let flow = channel.call(channel::Flow { active: false }).await?;
        assert!(!flow.active);
    }
    let publisher = connection.open_channel().await?.confirm_select().await?;
    put(&publisher, "", &queue, "kept back").await?;
    assert_eq!(ready(&channel, &queue).await?, 1);
    for _ in 0..2 {
        let flow = channel.call(channel::Flow { active: true }).await?;
        assert!(flow.active);
    }
    let message = cx
        .soon(consumer.next())
        .await?
        .ok_or("the consumer ended")??;
    assert_eq!(text(&message.body), "kept back");
    Ok(connection.close().await?)
}

/// Publish from many tasks with confirms on one channel: every confirm is that of its own message.
async fn many_tasks_publish_on_one_channel(cx: Ctx) -> Outcome {
    const TASKS: usize = 16;
    const MESSAGES: usize = 100;
    let (connection, channel) = open_confirming(&cx).await?;
    channel.call(shared_queue("q")).await?;
    let channel = Arc::new(channel);
    let tasks: Vec<_> = (0..TASKS)
        .map(|task| {
            let channel = Arc::clone(&channel);
            cx.spawn(async move {
                let mut confirms = Vec::new();
                for number in 0..MESSAGES {
                    let body = format!("{task}:{number}");
                    // Every third one comes back; some are too large for one frame.
                    let key = if number % 3 == 0 { "nowhere" } else { "q" };
                    let padding = if number % 25 == 1 { 150_000 } else { 0 };
                    let properties = basic::Properties::default().message_id(&body);
                    let confirm = channel
                        .publish(&to("", key), &properties, "x".repeat(padding) + &body)
                        .await?;
                    let seq = confirm.seq().ok_or("it was not reported yet")?;
                    confirms.push((seq, body, key, confirm));
                }
                let mut routed = Vec::new();
                for (seq, body, key, confirm) in confirms {
                    match (key, confirm.await) {
                        ("q", Ok(())) => routed.push((seq.get(), body)),
                        ("nowhere", Err(Unconfirmed::Returned(message))) => {
                            let id = message.encoded_properties.decode()?.message_id;
                            assert_eq!(id.as_deref(), Some(&*body));
                        }
                        (_, outcome) => panic!("{body} to {key}: {outcome:?}"),
                    }
                }
                Ok::<_, Failure>(routed)
            })
        })
        .collect();
    let mut routed = BTreeMap::new();
    for task in tasks {
        routed.extend(cx.soon(task.join()).await???);
    }
    // The lower number is before in the queue, so that the numbers are the messages' own.
    let mut consumer = channel.consume_no_ack(consume("q")).await?;
    for (seq, body) in routed {
        let message = cx.soon(consumer.next()).await?.ok_or("no message")??;
        let id = message.properties()?.message_id;
        assert_eq!(id.as_deref(), Some(&*body), "number {seq}");
        assert_eq!(text(&message.body).trim_start_matches('x'), body);
    }
    assert_eq!(ready(&channel, "q").await?, 0);
    Ok(connection.close().await?)
}

/// channel_max 1: exhaustion, and the number can be used again after a soft error.
async fn one_channel_and_a_soft_error(cx: Ctx) -> Outcome {
    let connection = cx.connect_asking("channel_max=1").await?;
    for round in 0..5 {
        let channel = connection.open_channel().await?;
        assert_eq!(channel.number(), 1, "round {round}");
        let none_free = ApiMisuse::NoFreeChannel { channel_max: 1 };
        assert_misuse(connection.open_channel().await, &none_free);
        let error = channel
            .get(get("missing"))
            .await
            .expect_err("it is missing");
        assert_eq!(error.code(), Some(ReplyCode::NOT_FOUND));
        // The number is free, also while the handle of the one that ended is still there.
        let next = connection.open_channel().await?;
        assert_eq!(next.number(), 1);
        assert_ne!(next.id(), channel.id());
        next.call(basic::Qos::default()).await?;
        let again = channel.call(basic::Qos::default()).await;
        assert_eq!(again.map(drop), Err(error));
        drop(channel);
        assert!(next.is_open());
        next.close().await?;
    }
    Ok(connection.close().await?)
}

/// The same with several, in use at once.
async fn all_channels_and_soft_errors(cx: Ctx) -> Outcome {
    const CHANNELS: u16 = 5;
    let connection = cx
        .connect_asking(&format!("channel_max={CHANNELS}"))
        .await?;
    let mut channels = Vec::new();
    for _ in 0..CHANNELS {
        channels.push(connection.open_channel().await?);
    }
    for round in 0..20 {
        let at = round * 3 % channels.len();
        let channel = channels.swap_remove(at);
        let number = channel.number();
        if round % 2 == 0 {
            channel
                .get(get("missing"))
                .await
                .expect_err("it is missing");
        } else {
            channel.close().await?;
        }
        let next = connection.open_channel().await?;
        assert_eq!(next.number(), number, "the only one that is free");
        let none_free = ApiMisuse::NoFreeChannel {
            channel_max: CHANNELS,
        };
        assert_misuse(connection.open_channel().await, &none_free);
        channels.push(next);
        for channel in &channels {
            channel.call(basic::Qos::default()).await?;
        }
    }
    Ok(connection.close().await?)
}

/// tx.commit with publishes, acknowledgements and calls right behind it: RabbitMQ would close the
/// connection with 504, so that they are held back until it is done.
async fn commit_with_queued_publishes(cx: Ctx) -> Outcome {
    const ROUNDS: usize = 50;
    let (connection, channel) = open(&cx).await?;
    channel.call(shared_queue("q")).await?;
    let channel = channel.tx_select().await?;
    let observer = connection.open_channel().await?;
    let properties = basic::Properties::default();
    let publish = async |body: String| channel.publish(&to("", "q"), &properties, body).await;

    publish("rolled back".into()).await?;
    channel.rollback().await?;
    for round in 0..ROUNDS {
        publish(format!("{round} before")).await?;
        let large = if round % 10 == 0 { 300_000 } else { 0 };
        let (commit, behind) = join(channel.commit(), async {
            publish("x".repeat(large) + &format!("{round} behind")).await?;
            // Also acknowledgements and calls wait their turn.
            let call = look(&channel, "q").await?;
            Ok::<_, Failure>(call)
        })
        .await;
        commit?;
        behind?;
        // The second commit waits for the first, too.
        let (first, second) = join(channel.commit(), channel.commit()).await;
        first.and(second)?;
        let expected = 2 * (round as u32 + 1);
        assert_eq!(ready(&observer, "q").await?, expected, "round {round}");
    }

    // Acknowledgements behind a commit take effect with the next one.
    for number in 0..2 * ROUNDS {
        let message = fetch(&channel, "q").await?;
        let body = text(&message.body);
        let when = if number % 2 == 0 { "before" } else { "behind" };
        assert_eq!(
            body.trim_start_matches('x'),
            format!("{} {when}", number / 2)
        );
        let (commit, acked) = join(channel.commit(), async { message.ack() }).await;
        commit?;
        acked?;
    }
    channel.commit().await?;
    channel.close().await?;
    assert_eq!(ready(&observer, "q").await?, 0);
    Ok(connection.close().await?)
}

/// The handles of one connection, each to be dropped on its own.
#[derive(Debug)]
enum Handle {
    Connection(#[expect(dead_code, reason = "held until it is dropped")] Connection),
    Channel(#[expect(dead_code, reason = "held until it is dropped")] amqp_tokio::ConfirmChannel),
    Consumer(
        #[expect(dead_code, reason = "held until it is dropped")]
        amqp_tokio::Consumer<amqp_tokio::ManualAck>,
    ),
    Delivery(#[expect(dead_code, reason = "held until it is dropped")] amqp_tokio::Delivery),
    Confirm(#[expect(dead_code, reason = "held until it is dropped")] amqp_tokio::Confirm),
}

/// All orders of so many things.
fn orders(count: usize) -> Vec<Vec<usize>> {
    if count == 0 {
        return vec![Vec::new()];
    }
    let mut all = Vec::new();
    for order in orders(count - 1) {
        for at in 0..count {
            let mut order = order.clone();
            order.insert(at, count - 1);
            all.push(order);
        }
    }
    all
}

/// Connection, channel, consumer, delivery and confirm are dropped in every order: nothing panics
/// or hangs, the connection is gone after the last one, and unacknowledged messages are back in the
/// queue.
async fn handles_are_dropped_in_any_order(cx: Ctx) -> Outcome {
    const QUEUED: u32 = 3;
    let (connection, channel) = open_confirming(&cx).await?;
    channel.call(shared_queue("q")).await?;
    for _ in 0..QUEUED {
        put(&channel, "", "q", "test").await?;
    }
    let all = orders(5);
    assert_eq!(all.len(), 120);
    let mut marks = Vec::new();
    for order in all {
        let (dropped, used) = open_confirming(&cx).await?;
        marks.push(cx.mark(&dropped).await?);
        let mut consumer = used.consume(consume("q")).await?;
        let delivery = cx.soon(consumer.next()).await?.ok_or("no delivery")??;
        let confirm = used
            .publish(&to("", "nowhere"), &basic::Properties::default(), "")
            .await?;
        let mut handles = [
            Some(Handle::Connection(dropped)),
            Some(Handle::Channel(used)),
            Some(Handle::Consumer(consumer)),
            Some(Handle::Delivery(delivery)),
            Some(Handle::Confirm(confirm)),
        ];
        for at in order {
            drop(handles[at].take());
        }
        // Before the next one takes its turn.
        cx.soon(async {
            while look(&channel, "q").await?.consumer_count > 0 {}
            Outcome::Ok(())
        })
        .await??;
    }
    for mark in &marks {
        cx.gone(mark).await?;
    }
    let state = look(&channel, "q").await?;
    assert_eq!((state.message_count, state.consumer_count), (QUEUED, 0));
    Ok(connection.close().await?)
}
