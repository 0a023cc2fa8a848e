//! Serena: connections.

use std::{
    future::pending,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    time::Duration,
};

use amqp_tokio::{
    Error,
    broker::Rules,
    core::{
        ApiMisuse,
        protocol::{ReplyCode, basic, queue},
    },
};

use super::{
    Case,
    bystanders::Bystanders,
    case, cases,
    tools::{
        assert_connection_closed, assert_misuse, by_peer, in_doubt, open_confirming, own_queue,
        put, to,
    },
};
use crate::{
    context::{Ctx, join},
    harness::Outcome,
    operator::Operator,
    relay::Relay,
};

pub(super) fn cases() -> Vec<Case> {
    let mut cases = cases![
        ser_01_a_connection_is_open_until_its_scope_is_left,
        ser_02_heartbeats_keep_an_idle_connection_alive,
        ser_03_an_unknown_vhost_is_not_allowed,
        ser_04_a_wrong_password_is_refused_in_words,
        ser_05_immediate_is_refused_here,
        ser_05_immediate_closes_the_connection_for_everybody,
        ser_17_a_cancelled_task_takes_its_connection_along,
        ser_17_a_cancelled_wait_for_a_pooled_channel_ends,
        ser_17_a_cancelled_connect_hangs_up,
    ];
    cases.extend([
        case!(ser_37_an_internal_error_reaches_every_caller)
            .not_on_embedded("it breaks a process of RabbitMQ's"),
        case!(ser_37_a_transient_shared_queue_closes_the_connection)
            .not_on_rabbitmq("RabbitMQ refuses such queues since 4.3")
            .embedded(|config| config.rules = Rules::rabbitmq_4()),
    ]);
    cases
}

/// Given a broker, when a connection scope is entered and left, then it is open inside and closed
/// after.
async fn ser_01_a_connection_is_open_until_its_scope_is_left(cx: Ctx) -> Outcome {
    let connection = cx.connect().await?;
    let mark = cx.mark(&connection).await?;
    let inside = connection.scope(async { connection.is_open() }).await?;
    assert!(inside);
    assert_eq!(connection.close_reason(), None);
    connection.close().await?;
    assert!(!connection.is_open());
    let reason = connection.close_reason().ok_or("closed without a reason")?;
    assert!(reason.is_clean(), "{reason}");
    let late = connection.scope(pending::<()>()).await;
    assert_eq!(late, Err(Error::ConnectionClosed(reason)));
    cx.gone(&mark).await?;

    // A scope of the language is one, too.
    let mark = {
        let connection = cx.connect().await?;
        cx.mark(&connection).await?
    };
    cx.gone(&mark).await
}

/// Given heartbeat 2 s, when idle for 4 s, then the connection survives and more than 2 heartbeats
/// were counted.
async fn ser_02_heartbeats_keep_an_idle_connection_alive(cx: Ctx) -> Outcome {
    let relay = Relay::start(cx.address)?;
    let uri = cx.uri_at(relay.address()) + "?heartbeat=2";
    let connection = cx.connect_to(&uri, |_| ()).await?;
    assert_eq!(connection.tuning().heartbeat, 2);
    let before = [relay.to_broker(), relay.to_client()];
    cx.sleep(Duration::from_secs(4)).await;
    for (before, after) in before.iter().zip([relay.to_broker(), relay.to_client()]) {
        let heartbeats = after.heartbeats - before.heartbeats;
        assert!(heartbeats > 2, "{heartbeats} heartbeats");
        assert_eq!(
            after.bytes - before.bytes,
            heartbeats * 8,
            "and nothing else"
        );
    }
    connection.open_channel().await?;
    Ok(connection.close().await?)
}

/// Given a virtual host that does not exist, when connecting, then 530 not_allowed.
async fn ser_03_an_unknown_vhost_is_not_allowed(cx: Ctx) -> Outcome {
    let error = cx.refusal(&format!("{}-not", cx.uri)).await?;
    assert_connection_closed(&error, ReplyCode::NOT_ALLOWED);
    Ok(())
}

/// Given a wrong password, and the capability `authentication_failure_close`, when connecting, then
/// 403 access_refused, and not a bare end of the stream.
async fn ser_04_a_wrong_password_is_refused_in_words(cx: Ctx) -> Outcome {
    let error = cx
        .refusal(&cx.uri.replace("guest:guest", "guest:wrong"))
        .await?;
    assert_connection_closed(&error, ReplyCode::ACCESS_REFUSED);
    Ok(())
}

fn immediate() -> basic::Publish {
    to("", "nowhere").immediate(true)
}

/// The server would close the connection, so that this side refuses the one call.
async fn ser_05_immediate_is_refused_here(cx: Ctx) -> Outcome {
    let (connection, channel) = open_confirming(&cx).await?;
    let refused = channel
        .publish(&immediate(), &basic::Properties::default(), "now!")
        .await;
    let feature = "basic.publish immediate";
    assert_misuse(refused, &ApiMisuse::NotImplementedByRabbitMq { feature });
    let queue = own_queue(&channel).await?;
    put(&channel, "", &queue, "later").await?; // the first of the channel's confirms
    Ok(connection.close().await?)
}

/// Given an open channel, when publishing with immediate=true, then the server closes the
/// connection with 540, and the error leaves the connection scope.
async fn ser_05_immediate_closes_the_connection_for_everybody(cx: Ctx) -> Outcome {
    let connection = cx.connect_unchecked().await?;
    let bystanders = Bystanders::of(&cx, &connection).await?;
    let channel = connection.open_channel().await?.confirm_select().await?;
    let confirm = channel
        .publish(&immediate(), &basic::Properties::default(), "now!")
        .await?;
    let (confirm, call) = join(confirm, own_queue(&channel)).await;
    assert_eq!(by_peer(&in_doubt(confirm)).code, ReplyCode::NOT_IMPLEMENTED);
    let error = call.expect_err("the server ignores what follows");
    assert_connection_closed(&error, ReplyCode::NOT_IMPLEMENTED);
    bystanders.all_told(ReplyCode::NOT_IMPLEMENTED).await
}

/// Given a task that holds a connection, a pool and a channel of it, when the outer scope is
/// cancelled, then it ends without hanging.
async fn ser_17_a_cancelled_task_takes_its_connection_along(cx: Ctx) -> Outcome {
    let connection = cx.connect().await?;
    let mark = cx.mark(&connection).await?;
    let holds_all = Arc::new(AtomicBool::new(false));
    let told = Arc::clone(&holds_all);
    let task = cx.spawn(async move {
        let pool = connection.channel_pool(2).await?;
        let _channel = pool.checkout().await?;
        told.store(true, SeqCst);
        pending::<Result<(), Error>>().await
    });
    cx.until("the task holds all", || holds_all.load(SeqCst))
        .await?;
    assert!(!task.is_finished());
    cx.soon(task.cancel()).await?;
    cx.gone(&mark).await
}

/// The same while the task waits for a channel that another one has out.
async fn ser_17_a_cancelled_wait_for_a_pooled_channel_ends(cx: Ctx) -> Outcome {
    let connection = cx.connect().await?;
    let mark = cx.mark(&connection).await?;
    let pool = connection.channel_pool(1).await?;
    let channel = pool.checkout().await?;
    let waits = Arc::new(AtomicBool::new(false));
    let told = Arc::clone(&waits);
    let waiting = cx.spawn({
        let pool = pool.clone();
        async move {
            told.store(true, SeqCst);
            pool.checkout().await.map(drop)
        }
    });
    cx.until("the task waits", || waits.load(SeqCst)).await?;
    cx.sleep(Duration::from_millis(50)).await;
    assert!(!waiting.is_finished());
    cx.soon(waiting.cancel()).await?;
    // Nobody stands in line any more.
    drop(channel);
    let channel = cx.soon(pool.checkout()).await??;
    drop((connection, pool, channel));
    cx.gone(&mark).await
}

/// The same in the middle of the handshake.
async fn ser_17_a_cancelled_connect_hangs_up(cx: Ctx) -> Outcome {
    let relay = Relay::start(cx.address)?;
    relay.pause();
    let uri = cx.uri_at(relay.address());
    let connecting = cx.spawn({
        let cx = cx.clone();
        async move { cx.connect_to(&uri, |_| ()).await.map(drop) }
    });
    cx.sleep(Duration::from_millis(100)).await;
    assert!(!connecting.is_finished());
    cx.soon(connecting.cancel()).await?;
    relay.resume();
    cx.until("the client has hung up", || relay.hung_up() == 1)
        .await
}

/// Given a server that closes the connection with 541, then its text reaches every pending caller.
/// RabbitMQ before 4.3 does so only when something of its own breaks.
async fn ser_37_an_internal_error_reaches_every_caller(cx: Ctx) -> Outcome {
    let connection = cx.connect().await?;
    let channel = connection.open_channel().await?.confirm_select().await?;
    // The broker's side of the channel stands still, and later breaks.
    let Operator::RabbitMq(node) = cx.operator() else {
        return Err("it is not RabbitMQ".into());
    };
    let key = format!("{{amqp_tests, <<\"{}\">>}}", cx.vhost);
    let suspend = format!(
        "[Channel] = [P || {{P, Infos}} <- ets:tab2list(channel_created),
             lists:member({{vhost, <<\"{}\">>}}, Infos)],
         persistent_term:put({key}, Channel),
         sys:suspend(Channel).",
        cx.vhost
    );
    cx.ctl(node, &["eval", &suspend]).await?;
    let bystanders = Bystanders::of(&cx, &connection).await?;
    let confirm = channel
        .publish(&to("", "nowhere"), &basic::Properties::default(), "")
        .await?;
    let callers = cx.spawn(async move { join(confirm, own_queue(&channel)).await });
    let kill = format!("exit(persistent_term:get({key}), kill).");
    cx.ctl(node, &["eval", &kill]).await?;
    let (confirm, call) = cx.soon(callers.join()).await??;
    let reason = in_doubt(confirm);
    assert_eq!(by_peer(&reason).code, ReplyCode::INTERNAL_ERROR);
    assert!(!by_peer(&reason).text.is_empty());
    let error = call.expect_err("nobody is there to answer");
    assert_connection_closed(&error, ReplyCode::INTERNAL_ERROR);
    bystanders.all_told(ReplyCode::INTERNAL_ERROR).await
}

/// Given RabbitMQ 4.3, when a queue is declared that is neither durable nor exclusive, then 541, and
/// its text reaches every pending caller.
async fn ser_37_a_transient_shared_queue_closes_the_connection(cx: Ctx) -> Outcome {
    let connection = cx.connect().await?;
    let bystanders = Bystanders::of(&cx, &connection).await?;
    let channel = connection.open_channel().await?;
    let declare = queue::Declare::default().queue("transient")?.durable(false);
    let error = channel.call(declare).await.expect_err("it is refused");
    assert_connection_closed(&error, ReplyCode::INTERNAL_ERROR);
    let text = &by_peer(&connection.closed().await).text.clone();
    assert!(text.contains("transient"), "{text}");
    bystanders.all_told(ReplyCode::INTERNAL_ERROR).await
}
