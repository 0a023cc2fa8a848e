//! Remote procedure calls on the embedded broker, under virtual time.

#![cfg(feature = "broker")]

use std::{
    cell::{Cell, RefCell},
    error::Error,
    rc::Rc,
    sync::Arc,
    time::Duration,
};

use amqp_tokio::{
    Config, Connection, LocalBroker,
    protocol::{basic, queue},
    publishing::{OutgoingMessage, Window},
    rpc::{Client, ClientOptions, HandlerError, Reply, RpcError, Server},
    wire::ShortStr,
};
use tokio::{
    sync::{Notify, Semaphore},
    task::{LocalSet, spawn_local},
    time::{self, Instant},
};

type Outcome = Result<(), Box<dyn Error>>;

const LONG: Duration = Duration::from_secs(10);

/// A broker with the queue of requests, and two connections to it.
async fn start() -> Result<(LocalBroker, Connection, Connection), Box<dyn Error>> {
    let broker = LocalBroker::default();
    let (caller, server) = (
        broker.connect(Config::default()).await?,
        broker.connect(Config::default()).await?,
    );
    let channel = server.open_channel().await?;
    channel
        .call(queue::Declare::default().queue("requests"))
        .await?;
    Ok((broker, caller, server))
}

async fn serve_on(connection: &Connection, limit: u16) -> Result<Server, Box<dyn Error>> {
    let channel = connection.open_channel().await?;
    let consume = basic::Consume::default().queue("requests");
    Ok(Server::open(channel, consume, limit).await?)
}

async fn direct(connection: &Connection) -> Result<Client, Box<dyn Error>> {
    let channel = connection.open_channel().await?;
    Ok(Client::direct(channel, ClientOptions::default()).await?)
}

fn request(body: &str) -> OutgoingMessage {
    let to = basic::Publish::default().routing_key("requests");
    OutgoingMessage::new(to, body.to_owned())
}

/// Calls come back by direct reply-to and over a queue, each with its own reply.
#[tokio::test(start_paused = true)]
async fn replies_find_their_calls() -> Outcome {
    let (_broker, caller, server) = start().await?;
    let server = serve_on(&server, 4).await?;
    tokio::spawn(server.serve(|request| {
        async move {
            let number: u64 = String::from_utf8(request.body.to_vec())?.parse()?;
            // The first ones take the longest.
            time::sleep(Duration::from_millis(1000 - 100 * number)).await;
            Ok(Reply::new(format!("reply {number}")))
        }
        .map_handler_error()
    }));
    let declare = queue::Declare::default().exclusive(true);
    let channel = caller.open_channel().await?;
    let prefix = ShortStr::try_from("caller-")?;
    let options = ClientOptions::default().prefix(prefix);
    let over_queue = Client::over_queue(channel, declare, options).await?;
    for client in [direct(&caller).await?, over_queue] {
        let calls: Vec<_> = (0..4)
            .map(|number| {
                let client = client.clone();
                tokio::spawn(async move {
                    let request = request(&number.to_string());
                    client.call(request, LONG).await
                })
            })
            .collect();
        for (number, call) in calls.into_iter().enumerate() {
            let reply = call.await??;
            assert_eq!(reply.body, format!("reply {number}").as_str());
        }
        assert_eq!((client.late_replies(), client.in_flight()), (0, 0));
    }
    Ok(())
}

/// A fallible block of a handler.
trait MapError {
    fn map_handler_error(self) -> impl Future<Output = Result<Reply, HandlerError>> + Send;
}

impl<F: Future<Output = Result<Reply, Box<dyn Error + Send + Sync>>> + Send> MapError for F {
    async fn map_handler_error(self) -> Result<Reply, HandlerError> {
        self.await
            .map_err(|error| HandlerError::new(400, error.to_string()))
    }
}

/// Given no queue of that name, then the call fails at once. Given a queue without a server, then it
/// fails after its timeout, and the request has expired.
#[tokio::test(start_paused = true)]
async fn a_call_without_a_server_ends() -> Outcome {
    let (broker, caller, _server) = start().await?;
    let client = direct(&caller).await?;
    let begun = Instant::now();
    let nowhere = basic::Publish::default().routing_key("nowhere");
    let error = client.call(OutgoingMessage::new(nowhere, "x"), LONG).await;
    let error = error.expect_err("there is no server");
    assert!(matches!(error, RpcError::NoServer(_)), "{error}");
    assert!(!error.may_have_run() && begun.elapsed() < Duration::from_secs(1));
    let error = client.call(request("x"), LONG).await;
    assert_eq!(error.expect_err("nothing answers"), RpcError::TimedOut);
    let waited = begun.elapsed();
    assert!(waited >= LONG && waited < 2 * LONG, "{waited:?}");
    time::sleep(Duration::from_secs(1)).await;
    let ready = broker.with(|broker| broker.queue("/", "requests").map(|it| it.ready));
    assert_eq!(ready, Some(0));
    Ok(())
}

/// Given a handler that takes longer than the caller waits, then the reply is dropped and counted,
/// and the next call has its own.
#[tokio::test(start_paused = true)]
async fn a_late_reply_disturbs_no_other_call() -> Outcome {
    let (_broker, caller, server) = start().await?;
    let server = serve_on(&server, 4).await?;
    tokio::spawn(server.serve(async |request| {
        if request.body == "slow" {
            time::sleep(Duration::from_secs(3)).await;
        }
        Ok(Reply::new(request.body.clone()))
    }));
    let client = direct(&caller).await?;
    let slow = client.call(request("slow"), Duration::from_secs(2)).await;
    let error = slow.expect_err("it is late");
    assert!(error == RpcError::TimedOut && error.may_have_run());
    assert_eq!(client.late_replies(), 0);
    let patient = client.call(request("slow"), LONG);
    let reply = patient.await?;
    assert_eq!(reply.body, "slow");
    assert_eq!(client.late_replies(), 1);
    // A call that is dropped.
    let dropped = time::timeout(Duration::from_secs(1), client.call(request("slow"), LONG));
    assert!(dropped.await.is_err());
    assert_eq!(client.in_flight(), 0);
    time::sleep(LONG).await;
    assert_eq!(client.late_replies(), 2);
    Ok(())
}

/// No more handlers run at a time than the limit, and all requests are answered.
#[tokio::test(start_paused = true)]
async fn a_server_keeps_to_its_limit() -> Outcome {
    let (_broker, caller, server) = start().await?;
    let server = serve_on(&server, 3).await?;
    let (now, most) = (Rc::new(Cell::new(0)), Rc::new(Cell::new(0)));
    let (counting, highest) = (Rc::clone(&now), Rc::clone(&most));
    let local = LocalSet::new();
    local.spawn_local(server.serve(move |_request| {
        let (now, most) = (Rc::clone(&counting), Rc::clone(&highest));
        async move {
            now.set(now.get() + 1);
            most.set(most.get().max(now.get()));
            time::sleep(Duration::from_secs(1)).await;
            now.set(now.get() - 1);
            Ok(Reply::new("done"))
        }
    }));
    let calling = async {
        let client = direct(&caller).await?;
        let calls: Vec<_> = (0..10)
            .map(|_| {
                let client = client.clone();
                spawn_local(async move { client.call(request("x"), LONG).await })
            })
            .collect();
        let begun = Instant::now();
        for call in calls {
            call.await??;
        }
        assert!(
            begun.elapsed() >= Duration::from_secs(4),
            "{:?}",
            begun.elapsed()
        );
        Ok::<_, Box<dyn Error>>(())
    };
    local.run_until(calling).await?;
    assert_eq!((now.get(), most.get()), (0, 3));
    Ok(())
}

/// Errors of a handler, and its panics, reach their callers, and the server goes on.
#[tokio::test(start_paused = true)]
async fn errors_of_handlers_reach_their_callers() -> Outcome {
    let (_broker, caller, server) = start().await?;
    let server = serve_on(&server, 2).await?;
    tokio::spawn(server.serve(|request| {
        assert_ne!(request.body, "panic at once", "the test asks for it");
        async move {
            assert_ne!(request.body, "panic", "the test asks for it");
            if request.body == "too long" {
                return Err(HandlerError::new(-7, "ä".repeat(HandlerError::TEXT_MAX)));
            }
            if request.body == "unsendable" {
                let expiration = ShortStr::try_from("soon").ok();
                let properties = basic::Properties {
                    expiration,
                    ..basic::Properties::default()
                };
                return Ok(Reply::new(vec![0; 100 << 20]).properties(properties));
            }
            if request.body == "fail" {
                return Err(HandlerError::new(42, "out of ink"));
            }
            Ok(Reply::new("done"))
        }
    }));
    let client = direct(&caller).await?;
    let call = async |body: &str| client.call(request(body), LONG).await;
    let remote = |code, text: &str| RpcError::Remote {
        code,
        text: text.to_owned(),
    };
    assert_eq!(
        call("fail").await.expect_err("it fails"),
        remote(42, "out of ink")
    );
    let panicked = remote(HandlerError::INTERNAL, "the handler panicked");
    assert_eq!(call("panic").await.expect_err("it panics"), panicked);
    assert_eq!(
        call("panic at once").await.expect_err("it panics"),
        panicked
    );
    let long = "ä".repeat(HandlerError::TEXT_MAX / 2);
    assert_eq!(
        call("too long").await.expect_err("it fails"),
        remote(-7, &long)
    );
    let error = call("unsendable")
        .await
        .expect_err("the reply is too large");
    assert!(
        matches!(
            error,
            RpcError::Remote {
                code: HandlerError::INTERNAL,
                ..
            }
        ),
        "{error}"
    );
    assert_eq!(call("else").await?.body, "done");
    Ok(())
}

/// Given calls beyond the window, then they wait, and one that times out meanwhile was not sent.
#[tokio::test(start_paused = true)]
async fn calls_in_flight_are_bounded() -> Outcome {
    let (_broker, caller, server) = start().await?;
    let gate = Arc::new(Semaphore::new(0));
    let waiting = Arc::clone(&gate);
    let server = serve_on(&server, 10).await?;
    tokio::spawn(server.serve(move |_request| {
        let gate = Arc::clone(&waiting);
        async move {
            gate.acquire().await.expect("it is not closed").forget();
            Ok(Reply::new("done"))
        }
    }));
    let window = Window {
        messages: 2,
        bytes: usize::MAX,
    };
    let channel = caller.open_channel().await?;
    let client = Client::direct(channel, ClientOptions::default().window(window)).await?;
    let calls: Vec<_> = [LONG, LONG, LONG, LONG / 2]
        .map(|limit| {
            let client = client.clone();
            tokio::spawn(async move { client.call(request("x"), limit).await })
        })
        .into_iter()
        .collect();
    time::sleep(Duration::from_secs(1)).await;
    assert_eq!(client.in_flight(), 2);
    gate.add_permits(1);
    time::sleep(Duration::from_secs(1)).await;
    let mut results = Vec::new();
    for call in calls {
        results.push(call.await?);
    }
    let errors: Vec<_> = results.iter().filter_map(|it| it.as_ref().err()).collect();
    assert_eq!(errors.iter().filter(|it| it.may_have_run()).count(), 2);
    assert!(
        matches!(errors[..], [_, _, RpcError::NotSent(_)]),
        "{errors:?}"
    );
    Ok(())
}

/// Given calls in flight, when the broker ends the connection, then each says whether its request
/// may have been handled, and so does every later call.
#[tokio::test(start_paused = true)]
async fn calls_end_with_the_connection() -> Outcome {
    let (broker, caller, server) = start().await?;
    let server = serve_on(&server, 2).await?;
    let serving = tokio::spawn(server.serve(async |_request| {
        time::sleep(LONG).await;
        Ok(Reply::new("too late"))
    }));
    let client = direct(&caller).await?;
    let calling = client.clone();
    let call = tokio::spawn(async move { calling.call(request("x"), LONG).await });
    time::sleep(Duration::from_secs(1)).await;
    broker.restart();
    let error = call.await?.expect_err("the reply is lost");
    assert!(
        matches!(error, RpcError::Lost(_)) && error.may_have_run(),
        "{error}"
    );
    let error = client.call(request("x"), LONG).await;
    let error = error.expect_err("the connection is closed");
    assert!(
        matches!(error, RpcError::NotSent(_)) && !error.may_have_run(),
        "{error}"
    );
    let ended = serving.await?;
    assert!(
        matches!(ended, Err(amqp_tokio::Error::ConnectionClosed(_))),
        "{ended:?}"
    );
    Ok(())
}

/// Given requests without an address, then they are handled and acknowledged, and rejected where the
/// handler fails.
#[tokio::test(start_paused = true)]
async fn requests_without_an_address_get_no_reply() -> Outcome {
    let (_broker, caller, server) = start().await?;
    let channel = caller.open_channel().await?;
    let dead = channel
        .call(queue::Declare::default().exclusive(true))
        .await?
        .queue;
    let arguments = amqp_tokio::wire::FieldTable::new()
        .with("x-dead-letter-exchange", "")
        .with("x-dead-letter-routing-key", dead.as_str());
    let declare = queue::Declare::default().queue("one way");
    channel.call(declare.arguments(arguments)).await?;
    let consume = basic::Consume::default().queue("one way");
    let server = Server::open(server.open_channel().await?, consume, 1).await?;
    let stop = Arc::new(Notify::new());
    let stopped = Arc::clone(&stop);
    let handled = Rc::new(RefCell::new(Vec::new()));
    let noting = Rc::clone(&handled);
    let local = LocalSet::new();
    let serving = local.spawn_local(server.serve_until(
        async move { stopped.notified().await },
        move |request| {
            noting.borrow_mut().push(request.body.to_vec());
            async move {
                match request.body == "bad" {
                    true => Err(HandlerError::new(1, "bad")),
                    false => Ok(Reply::default()),
                }
            }
        },
    ));
    let publish = basic::Publish::default().routing_key("one way");
    let publishing = async {
        for body in ["good", "bad"] {
            channel
                .publish(&publish, &basic::Properties::default(), body)
                .await?;
        }
        time::sleep(Duration::from_secs(1)).await;
        stop.notify_one();
        serving.await??;
        Ok::<_, Box<dyn Error>>(())
    };
    local.run_until(publishing).await?;
    assert_eq!(*handled.borrow(), [b"good".to_vec(), b"bad".to_vec()]);
    let get = basic::Get::default().queue(&dead);
    let rejected = channel.get(get).await?.ok_or("it was dead-lettered")?;
    assert_eq!(rejected.body, "bad");
    rejected.ack()?;
    Ok(())
}

/// Given a server that is stopped while handlers run, then their callers get replies, and further
/// requests stay in the queue.
#[tokio::test(start_paused = true)]
async fn a_server_stops_in_good_order() -> Outcome {
    let (broker, caller, server) = start().await?;
    let server = serve_on(&server, 2).await?;
    let stop = Arc::new(Notify::new());
    let stopped = Arc::clone(&stop);
    let serving = tokio::spawn(server.serve_until(
        async move { stopped.notified().await },
        async |_request| {
            time::sleep(Duration::from_secs(2)).await;
            Ok(Reply::new("done"))
        },
    ));
    let client = direct(&caller).await?;
    let calls: Vec<_> = (0..3)
        .map(|_| {
            let client = client.clone();
            tokio::spawn(async move { client.call(request("x"), LONG).await })
        })
        .collect();
    time::sleep(Duration::from_secs(1)).await;
    stop.notify_one();
    serving.await??;
    let ready = broker.with(|broker| broker.queue("/", "requests").map(|it| it.ready));
    assert_eq!(ready, Some(1));
    let mut done = 0;
    for call in calls {
        done += usize::from(call.await?.is_ok());
    }
    assert_eq!(done, 2);
    Ok(())
}

/// Given a handler that runs, when the queue of requests is deleted, then its call still gets the
/// reply, and the server ends afterwards.
#[tokio::test(start_paused = true)]
async fn the_end_of_the_consumer_cuts_no_handler_short() -> Outcome {
    let (_broker, caller, server) = start().await?;
    let deleting = server.open_channel().await?;
    let server = serve_on(&server, 2).await?;
    let serving = tokio::spawn(server.serve(async |_request| {
        time::sleep(Duration::from_secs(1)).await;
        Ok(Reply::new("done"))
    }));
    let client = direct(&caller).await?;
    let call = tokio::spawn(async move { client.call(request("x"), LONG).await });
    time::sleep(Duration::from_millis(100)).await;
    let delete = queue::Delete::default().queue("requests");
    deleting.call(delete).await?;
    assert_eq!(call.await??.body, "done");
    let ended = serving.await?;
    assert!(
        matches!(ended, Err(amqp_tokio::Error::ConsumerCancelled { .. })),
        "{ended:?}"
    );
    Ok(())
}

/// Given a server that is dropped while a handler runs, then its request is in the queue again, though
/// the channel is open.
#[tokio::test(start_paused = true)]
async fn a_dropped_server_requeues_its_requests() -> Outcome {
    let (_broker, caller, server) = start().await?;
    let channel = server.open_channel().await?;
    let consume = basic::Consume::default().queue("requests");
    let server = Server::open(channel.clone(), consume, 2).await?;
    let serving = tokio::spawn(server.serve(async |_request| {
        time::sleep(LONG).await;
        Ok(Reply::new("too late"))
    }));
    let client = direct(&caller).await?;
    let call = tokio::spawn(async move { client.call(request("x"), LONG).await });
    time::sleep(Duration::from_secs(1)).await;
    serving.abort();
    assert!(serving.await.is_err());
    let get = basic::Get::default().queue("requests");
    let fetched = channel.get(get).await?.ok_or("it was requeued")?;
    assert_eq!(fetched.body, "x");
    fetched.ack()?;
    call.abort();
    Ok(())
}
