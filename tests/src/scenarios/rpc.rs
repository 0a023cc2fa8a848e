//! Remote procedure calls.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::{Duration, Instant},
};

use amqp_tokio::{
    Connection,
    core::protocol::{basic, queue},
    publishing::OutgoingMessage,
    rpc::{Client, ClientOptions, HandlerError, Reply, RpcError, Server},
};

use super::{
    Case, cases,
    tools::{by_peer, consume, ready, shared_queue, text},
};
use crate::{
    context::{Ctx, PATIENCE},
    harness::{Failure, Outcome},
    task::Task,
};

pub(super) fn cases() -> Vec<Case> {
    cases![
        calls_are_answered_directly_and_over_a_queue,
        a_call_without_a_server_fails_at_once,
        a_call_that_nothing_answers_ends_at_its_timeout,
        a_late_reply_is_dropped,
        no_more_handlers_run_than_the_limit,
        the_error_of_a_handler_reaches_its_caller,
        calls_end_with_the_connection,
    ]
}

type Serving = Task<Result<(), amqp_tokio::Error>>;

/// Serves the queue `requests`. The body of a request says how it is handled: `wait` and a number
/// of milliseconds, `fail`, `panic`, or anything else, which is the reply.
async fn serve(
    cx: &Ctx,
    connection: &Connection,
    limit: u16,
    running: Arc<Gauge>,
) -> Result<Serving, Failure> {
    let channel = connection.open_channel().await?;
    channel.call(shared_queue("requests")).await?;
    let server = Server::open(channel, consume("requests"), limit).await?;
    let runtime = cx.runtime();
    Ok(cx.spawn(server.serve(move |request| {
        let running = Arc::clone(&running);
        async move {
            let _running = running.enter();
            let body = text(&request.body);
            match body.split_once(' ') {
                Some(("wait", millis)) => {
                    let millis = millis
                        .parse()
                        .map_err(|_| HandlerError::new(400, "no number"))?;
                    runtime.sleep(Duration::from_millis(millis)).await;
                }
                _ if body == "fail" => return Err(HandlerError::new(42, "out of ink")),
                _ => {}
            }
            Ok(Reply::new(body))
        }
    })))
}

/// The number of handlers that run, and the most so far.
#[derive(Default)]
struct Gauge {
    now: AtomicUsize,
    most: AtomicUsize,
}

struct Entered<'a>(&'a Gauge);

impl Gauge {
    fn enter(&self) -> Entered<'_> {
        let now = self.now.fetch_add(1, SeqCst) + 1;
        self.most.fetch_max(now, SeqCst);
        Entered(self)
    }
}

impl Drop for Entered<'_> {
    fn drop(&mut self) {
        self.0.now.fetch_sub(1, SeqCst);
    }
}

async fn direct(connection: &Connection) -> Result<Client, Failure> {
    let channel = connection.open_channel().await?;
    Ok(Client::direct(channel, ClientOptions::default()).await?)
}

fn request(body: impl ToString) -> OutgoingMessage {
    let publish = basic::Publish::default().routing_key("requests");
    OutgoingMessage::new(publish, body.to_string())
}

/// Given calls at once, by direct reply-to and over a queue, then each has its own reply.
async fn calls_are_answered_directly_and_over_a_queue(cx: Ctx) -> Outcome {
    let (connection, caller) = (cx.connect().await?, cx.connect().await?);
    let _serving = serve(&cx, &connection, 8, Arc::default()).await?;
    let channel = caller.open_channel().await?;
    let own = queue::Declare::default().exclusive(true);
    let over_queue = Client::over_queue(channel, own, ClientOptions::default()).await?;
    for client in [direct(&caller).await?, over_queue] {
        let calls: Vec<_> = (0..20)
            .map(|number| {
                let client = client.clone();
                cx.spawn(async move { client.call(request(number), PATIENCE).await })
            })
            .collect();
        for (number, call) in calls.into_iter().enumerate() {
            let reply = cx.soon(call.join()).await???;
            assert_eq!(text(&reply.body), number.to_string());
        }
        assert_eq!((client.in_flight(), client.late_replies()), (0, 0));
    }
    caller.close().await?;
    Ok(connection.close().await?)
}

/// Given no queue for a request, then it comes back, and was not handled.
async fn a_call_without_a_server_fails_at_once(cx: Ctx) -> Outcome {
    let connection = cx.connect().await?;
    let client = direct(&connection).await?;
    let begun = Instant::now();
    let error = client.call(request("x"), 6 * PATIENCE).await;
    let error = error.expect_err("there is no server");
    let RpcError::NoServer(returned) = &error else {
        return Err(error.into());
    };
    assert_eq!(text(&returned.body), "x");
    assert!(!error.may_have_run() && begun.elapsed() < PATIENCE);
    Ok(connection.close().await?)
}

/// Given a queue that nothing consumes, then the call ends at its timeout, and the request expires.
async fn a_call_that_nothing_answers_ends_at_its_timeout(cx: Ctx) -> Outcome {
    let connection = cx.connect().await?;
    let channel = connection.open_channel().await?;
    channel.call(shared_queue("requests")).await?;
    let client = direct(&connection).await?;
    let limit = Duration::from_millis(300);
    let begun = Instant::now();
    let error = cx.soon(client.call(request("x"), limit)).await?;
    assert_eq!(error.expect_err("nothing answers"), RpcError::TimedOut);
    assert!(begun.elapsed() >= limit);
    cx.soon(async {
        while ready(&channel, "requests").await? > 0 {
            cx.sleep(Duration::from_millis(50)).await;
        }
        Ok::<_, Failure>(())
    })
    .await??;
    Ok(connection.close().await?)
}

/// Given a reply that comes after the timeout of its call, then it is counted, and disturbs no other.
async fn a_late_reply_is_dropped(cx: Ctx) -> Outcome {
    let (connection, caller) = (cx.connect().await?, cx.connect().await?);
    let _serving = serve(&cx, &connection, 8, Arc::default()).await?;
    let client = direct(&caller).await?;
    let late = client.call(request("wait 600"), Duration::from_millis(200));
    let error = cx.soon(late).await?.expect_err("it is late");
    assert!(error == RpcError::TimedOut && error.may_have_run());
    let reply = cx
        .soon(client.call(request("wait 900"), PATIENCE))
        .await??;
    assert_eq!(text(&reply.body), "wait 900");
    assert_eq!((client.late_replies(), client.in_flight()), (1, 0));
    caller.close().await?;
    Ok(connection.close().await?)
}

/// Given a limit of three, then no more handlers run at a time, and every call is answered.
async fn no_more_handlers_run_than_the_limit(cx: Ctx) -> Outcome {
    let (connection, caller) = (cx.connect().await?, cx.connect().await?);
    let running = Arc::new(Gauge::default());
    let _serving = serve(&cx, &connection, 3, Arc::clone(&running)).await?;
    let client = direct(&caller).await?;
    let calls: Vec<_> = (0..12)
        .map(|_| {
            let client = client.clone();
            cx.spawn(async move { client.call(request("wait 50"), PATIENCE).await })
        })
        .collect();
    for call in calls {
        cx.soon(call.join()).await???;
    }
    assert_eq!(running.most.load(SeqCst), 3);
    caller.close().await?;
    Ok(connection.close().await?)
}

/// The error of a handler has its code and text at the caller, and the server goes on.
async fn the_error_of_a_handler_reaches_its_caller(cx: Ctx) -> Outcome {
    let (connection, caller) = (cx.connect().await?, cx.connect().await?);
    let _serving = serve(&cx, &connection, 1, Arc::default()).await?;
    let client = direct(&caller).await?;
    let error = cx.soon(client.call(request("fail"), PATIENCE)).await?;
    let remote = RpcError::Remote {
        code: 42,
        text: "out of ink".into(),
    };
    assert_eq!(error.expect_err("it fails"), remote);
    let reply = cx.soon(client.call(request("else"), PATIENCE)).await??;
    assert_eq!(text(&reply.body), "else");
    caller.close().await?;
    Ok(connection.close().await?)
}

/// Given calls in flight, when an operator closes the connections, then each says that it may have
/// been handled, and the server ends with the reason.
async fn calls_end_with_the_connection(cx: Ctx) -> Outcome {
    let (connection, caller) = (cx.connect().await?, cx.connect().await?);
    let serving = serve(&cx, &connection, 8, Arc::default()).await?;
    let client = direct(&caller).await?;
    let calling = client.clone();
    let call = cx.spawn(async move { calling.call(request("wait 60000"), 6 * PATIENCE).await });
    cx.sleep(Duration::from_millis(300)).await;
    cx.close_connections("maintenance").await?;
    let error = cx.soon(call.join()).await??;
    let error = error.expect_err("its reply is lost");
    let RpcError::Lost(amqp_tokio::Error::ConnectionClosed(reason)) = &error else {
        return Err(error.into());
    };
    assert!(error.may_have_run());
    assert!(by_peer(reason).text.contains("maintenance"), "{reason}");
    let error = client.call(request("x"), PATIENCE).await;
    assert!(!error.expect_err("it is closed").may_have_run());
    assert!(cx.soon(serving.join()).await??.is_err());
    Ok(())
}
