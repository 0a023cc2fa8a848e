//! Connections: opening, negotiating, refusing and closing.

use std::{
    future::pending,
    io::ErrorKind,
    net::TcpListener,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    time::Duration,
};

use amqp_tokio::{
    Config, Error,
    broker::Rules,
    core::{
        ApiMisuse, CloseCause,
        protocol::{ReplyCode, basic, queue},
    },
    wire::{FieldTable, FieldValue},
};

use super::{
    Case,
    bystanders::Bystanders,
    case, cases,
    tools::{
        assert_connection_closed, assert_misuse, by_peer, in_doubt, open, open_confirming,
        own_queue, put, to,
    },
};
use crate::{
    context::{Ctx, join},
    harness::Outcome,
    operator::Operator,
    relay::{Relay, Traffic},
};

pub(super) fn cases() -> Vec<Case> {
    let mut cases = cases![
        a_connection_is_open_until_its_scope_is_left,
        heartbeats_keep_an_idle_connection_alive,
        an_unknown_vhost_is_not_allowed,
        a_wrong_password_is_refused_in_words,
        immediate_is_refused_here,
        immediate_closes_the_whole_connection,
        a_cancelled_task_takes_its_connection_along,
        a_cancelled_wait_for_a_pooled_channel_ends,
        a_cancelled_connect_hangs_up,
        defaults_connect,
        the_lesser_limits_hold,
        client_properties_reach_the_server,
        an_unknown_vhost_is_refused,
        a_wrong_login_is_refused,
        closing_twice_is_closing_once,
        a_server_that_just_hangs_up_has_refused_the_password,
    ];
    cases.extend([
        case!(an_internal_error_reaches_every_caller)
            .not_on_embedded("it breaks a process of RabbitMQ's"),
        case!(a_transient_shared_queue_closes_the_connection)
            .not_on_rabbitmq("RabbitMQ refuses such queues since 4.3")
            .embedded(|config| config.rules = Rules::rabbitmq_4()),
        case!(limits_that_are_asked_for_hold)
            .alone(&["heartbeat = 120"])
            .embedded(|config| config.server.heartbeat = 120),
    ]);
    cases
}

/// Given a broker, when a connection scope is entered and left, then it is open inside and closed
/// after.
async fn a_connection_is_open_until_its_scope_is_left(cx: Ctx) -> Outcome {
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
async fn heartbeats_keep_an_idle_connection_alive(cx: Ctx) -> Outcome {
    let relay = Relay::start(cx.address)?;
    let uri = cx.uri_at(relay.address()) + "?heartbeat=2";
    let connection = cx.connect_to(&uri, |_| ()).await?;
    assert_eq!(connection.tuning().heartbeat, 2);
    let before = [relay.to_broker(), relay.to_client()];
    cx.sleep(Duration::from_secs(4)).await;
    // A busy machine may be late with one.
    let count = |before: &Traffic, after: Traffic| after.heartbeats - before.heartbeats;
    cx.until("both have sent more than two heartbeats", || {
        let sent = [relay.to_broker(), relay.to_client()];
        before
            .iter()
            .zip(sent)
            .all(|(before, after)| count(before, after) > 2)
    })
    .await?;
    for (before, after) in before.iter().zip([relay.to_broker(), relay.to_client()]) {
        let heartbeats = count(before, after);
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
async fn an_unknown_vhost_is_not_allowed(cx: Ctx) -> Outcome {
    let error = cx.refusal(&format!("{}-not", cx.uri)).await?;
    assert_connection_closed(&error, ReplyCode::NOT_ALLOWED);
    Ok(())
}

/// Given a wrong password, and the capability `authentication_failure_close`, when connecting, then
/// 403 access_refused, and not a bare end of the stream.
async fn a_wrong_password_is_refused_in_words(cx: Ctx) -> Outcome {
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
async fn immediate_is_refused_here(cx: Ctx) -> Outcome {
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
async fn immediate_closes_the_whole_connection(cx: Ctx) -> Outcome {
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
    bystanders.all_closed_with(ReplyCode::NOT_IMPLEMENTED).await
}

/// Given a task that holds a connection, a pool and a channel of it, when the outer scope is
/// cancelled, then it ends without hanging.
async fn a_cancelled_task_takes_its_connection_along(cx: Ctx) -> Outcome {
    let connection = cx.connect().await?;
    let mark = cx.mark(&connection).await?;
    let holds_all = Arc::new(AtomicBool::new(false));
    let reported = Arc::clone(&holds_all);
    let task = cx.spawn(async move {
        let pool = connection.channel_pool(2).await?;
        let _channel = pool.checkout().await?;
        reported.store(true, SeqCst);
        pending::<Result<(), Error>>().await
    });
    cx.until("the task holds all", || holds_all.load(SeqCst))
        .await?;
    assert!(!task.is_finished());
    cx.soon(task.cancel()).await?;
    cx.gone(&mark).await
}

/// The same while the task waits for a channel that another one has out.
async fn a_cancelled_wait_for_a_pooled_channel_ends(cx: Ctx) -> Outcome {
    let connection = cx.connect().await?;
    let mark = cx.mark(&connection).await?;
    let pool = connection.channel_pool(1).await?;
    let channel = pool.checkout().await?;
    let waits = Arc::new(AtomicBool::new(false));
    let reported = Arc::clone(&waits);
    let waiting = cx.spawn({
        let pool = pool.clone();
        async move {
            reported.store(true, SeqCst);
            pool.checkout().await.map(drop)
        }
    });
    cx.until("the task waits", || waits.load(SeqCst)).await?;
    cx.sleep(Duration::from_millis(50)).await;
    assert!(!waiting.is_finished());
    cx.soon(waiting.cancel()).await?;
    // No waiter remains in the queue of the pool.
    drop(channel);
    let channel = cx.soon(pool.checkout()).await??;
    drop((connection, pool, channel));
    cx.gone(&mark).await
}

/// The same in the middle of the handshake.
async fn a_cancelled_connect_hangs_up(cx: Ctx) -> Outcome {
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
async fn an_internal_error_reaches_every_caller(cx: Ctx) -> Outcome {
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
    bystanders.all_closed_with(ReplyCode::INTERNAL_ERROR).await
}

/// Given RabbitMQ 4.3, when a queue is declared that is neither durable nor exclusive, then 541, and
/// its text reaches every pending caller.
async fn a_transient_shared_queue_closes_the_connection(cx: Ctx) -> Outcome {
    let connection = cx.connect().await?;
    let bystanders = Bystanders::of(&cx, &connection).await?;
    let channel = connection.open_channel().await?;
    let declare = queue::Declare::default().queue("transient").durable(false);
    let error = channel.call(declare).await.expect_err("it is refused");
    assert_connection_closed(&error, ReplyCode::INTERNAL_ERROR);
    let text = &by_peer(&connection.closed().await).text.clone();
    assert!(text.contains("transient"), "{text}");
    bystanders.all_closed_with(ReplyCode::INTERNAL_ERROR).await
}

/// Given defaults, when connected, then the state is open and server_properties are present.
async fn defaults_connect(cx: Ctx) -> Outcome {
    let connection = cx.connect().await?;
    assert!(connection.is_open());
    let properties = connection.server_properties();
    let product = properties.get("product").and_then(FieldValue::as_str);
    assert_eq!(product, Some("RabbitMQ"));
    for capability in [
        "publisher_confirms",
        "basic.nack",
        "consumer_cancel_notify",
        "connection.blocked",
        "exchange_exchange_bindings",
        "authentication_failure_close",
    ] {
        assert!(connection.has_capability(capability), "{capability}");
    }
    assert!(!connection.has_capability("telepathy"));
    Ok(connection.close().await?)
}

/// Given channel_max=10, frame_max=131072, heartbeat=100, when connected, then exactly those are
/// negotiated; after the scope the state is closed.
async fn limits_that_are_asked_for_hold(cx: Ctx) -> Outcome {
    let connection = cx
        .connect_asking("channel_max=10&frame_max=131072&heartbeat=100")
        .await?;
    let tuning = connection.tuning();
    assert_eq!(
        (tuning.channel_max, tuning.frame_max, tuning.heartbeat),
        (10, 131_072, 100)
    );
    connection.close().await?;
    assert!(!connection.is_open());
    Ok(())
}

/// The server's limits hold where they are lower: RabbitMQ offers 2047 channels and frames of 131,072
/// bytes. The heartbeat of 60 s that it suggests holds if none is asked for.
async fn the_lesser_limits_hold(cx: Ctx) -> Outcome {
    for (asked, negotiated) in [
        ("channel_max=10&frame_max=8192&heartbeat=20", (10, 8192, 20)),
        (
            "channel_max=65535&frame_max=1000000&heartbeat=100",
            (2047, 131_072, 100),
        ),
        ("channel_max=0&frame_max=0&heartbeat=0", (2047, 131_072, 0)),
        ("", (2047, 131_072, 60)),
    ] {
        let connection = cx.connect_asking(asked).await?;
        let tuning = connection.tuning();
        assert_eq!(
            (tuning.channel_max, tuning.frame_max, tuning.heartbeat),
            negotiated,
            "{asked}"
        );
        let channel = connection.open_channel().await?;
        own_queue(&channel).await?;
        connection.close().await?;
    }
    Ok(())
}

/// Given client_properties {program, version}, when connected, then they reach the server.
async fn client_properties_reach_the_server(cx: Ctx) -> Outcome {
    let connection = cx
        .connect_to(&cx.uri, |config| {
            config.properties.insert("program", "tri_04");
            config.properties.insert("version", "1.2.3");
        })
        .await?;
    let reported = cx.client_properties().await?;
    for (name, value) in [
        ("program", "tri_04"),
        ("version", "1.2.3"),
        ("product", "amqp-core"),
        ("platform", "Rust"),
        ("consumer_cancel_notify", "true"),
        ("connection.blocked", "true"),
    ] {
        assert_eq!(
            reported.get(name).map(String::as_str),
            Some(value),
            "{name}"
        );
    }
    Ok(connection.close().await?)
}

/// Given an unknown virtual host, then the connection is closed at connect.
async fn an_unknown_vhost_is_refused(cx: Ctx) -> Outcome {
    let error = cx.refusal(&format!("{}-not", cx.uri)).await?;
    assert_connection_closed(&error, ReplyCode::NOT_ALLOWED);
    assert!(error.to_string().contains(&cx.vhost), "{error}");
    Ok(())
}

/// Given a wrong login or password, then the connection is closed at connect.
async fn a_wrong_login_is_refused(cx: Ctx) -> Outcome {
    for login in ["guest:Tr0ub4dor", "Tr0ub4dor:guest", "guest:", ":"] {
        for mechanism in ["PLAIN", "AMQPLAIN"] {
            let uri = cx.uri.replace("guest:guest", login);
            let error = cx
                .refusal(&format!("{uri}?auth_mechanism={mechanism}"))
                .await?;
            assert_connection_closed(&error, ReplyCode::ACCESS_REFUSED);
            // The error does not contain the password.
            assert!(!format!("{error:?} {error}").contains("Tr0ub4dor"));
        }
    }
    // And the right ones are not.
    for mechanism in ["PLAIN", "AMQPLAIN"] {
        let connection = cx
            .connect_asking(&format!("auth_mechanism={mechanism}"))
            .await?;
        connection.close().await?;
    }
    Ok(())
}

/// Given an open connection, when closed twice, then the second is a no-op; its driver has ended
/// and the socket is closed.
async fn closing_twice_is_closing_once(cx: Ctx) -> Outcome {
    let relay = Relay::start(cx.address)?;
    let connection = cx.connect_to(&cx.uri_at(relay.address()), |_| ()).await?;
    let mark = cx.mark(&connection).await?;
    connection.close().await?;
    let sent = relay.to_broker();
    connection.close().await?;
    connection.clone().close().await?;
    cx.until("the client has hung up", || relay.hung_up() == 1)
        .await?;
    assert_eq!(relay.to_broker(), sent);
    let reason = connection.close_reason().ok_or("closed without a reason")?;
    let error = connection.open_channel().await.expect_err("it is closed");
    assert_eq!(error, Error::ConnectionClosed(reason));
    cx.gone(&mark).await?;

    // The same at once, by two handles.
    let (connection, _channel) = open(&cx).await?;
    let other = connection.clone();
    let (first, second) = join(connection.close(), other.close()).await;
    Ok(first.and(second)?)
}

/// Leaves out the capability `authentication_failure_close`.
fn expect_no_reason(config: &mut Config) {
    config.properties.insert("capabilities", FieldTable::new());
}

/// Given a wrong password, and no capability `authentication_failure_close`, then the server hangs
/// up without a word (RabbitMQ after 3 s, with a reset); that is an authentication failure, and the
/// next host is not asked.
async fn a_server_that_just_hangs_up_has_refused_the_password(cx: Ctx) -> Outcome {
    let next = TcpListener::bind("127.0.0.1:0")?;
    next.set_nonblocking(true)?;
    let hosts = format!("{},{}", cx.address, next.local_addr()?);
    let uri = cx.uri.replace(&cx.address.to_string(), &hosts);
    for mechanism in ["PLAIN", "AMQPLAIN"] {
        let uri = uri.replace("guest:guest", "guest:Tr0ub4dor");
        let uri = format!("{uri}?auth_mechanism={mechanism}");
        let refused = cx.connect_to(&uri, expect_no_reason).await;
        let error = *refused.expect_err("it is refused").downcast::<Error>()?;
        let Error::ConnectionClosed(reason) = &error else {
            panic!("{error:?}");
        };
        match reason.cause() {
            CloseCause::AuthenticationFailed { why, close: None } => {
                assert!(why.contains("hung up"), "{why}");
            }
            other => panic!("{other:?}"),
        }
        assert!(!format!("{error:?} {error}").contains("Tr0ub4dor"));
    }
    let asked = next.accept().expect_err("nobody asked");
    assert_eq!(asked.kind(), ErrorKind::WouldBlock);
    // With the right one there is no refusal.
    Ok(cx
        .connect_to(&cx.uri, expect_no_reason)
        .await?
        .close()
        .await?)
}
