//! An HTTP service that publishes an order per request, and handles orders in the background.
//!
//! `POST /orders` publishes the body to the queue `orders` of the broker at `AMQP_URL`, and answers
//! 202 when the broker has it. `GET /orders` returns the number of orders that were handled.
//! `HTTP_ADDRESS` is the address to listen on.

use std::{
    convert::Infallible,
    env,
    error::Error,
    future::IntoFuture as _,
    io,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use amqp_tokio::{
    ConnectionState, EndReason, ForEachOptions, OnFailure, Options,
    arguments::Queue,
    connect_pair,
    protocol::basic,
    publishing::{Acknowledgements, Outcome, OutgoingMessage, Publisher, PublisherOptions},
};
use axum::{
    Router,
    body::Bytes,
    extract::State,
    http::StatusCode,
    routing::{get, post},
};
use tokio::{net::TcpListener, sync::watch, time::timeout};

/// The time for a message to be accepted, and then for its confirm.
const LIMIT: Duration = Duration::from_secs(5);

/// The time for the requests that run at the end: twice the limit of one.
const LAST_REQUESTS: Duration = Duration::from_secs(10);

/// The state of the service: clones share it.
#[derive(Clone)]
struct App {
    publisher: Publisher,
    handled: Arc<AtomicU64>,
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let uri = env::var("AMQP_URL").unwrap_or_else(|_| "amqp://localhost".to_owned());
    // A broker that is short of memory blocks connections that publish: the consumer has its own.
    let pair = connect_pair(&Options::from_uri(&uri)?.recovering()).await?;
    let consuming = pair.open_consuming_channel().await?;
    consuming.queue_declare(Queue::quorum("orders")).await?;
    let consume = basic::Consume::default().queue("orders");
    let consumer = consuming.consume(consume).await?;

    // One channel for all requests.
    let channel = pair.open_publishing_channel().await?;
    let options = PublisherOptions::default().confirm_timeout(LIMIT);
    let app = App {
        publisher: Publisher::open(channel, Acknowledgements::On, options).await?,
        handled: Arc::default(),
    };

    // The orders in the background.
    let handled = Arc::clone(&app.handled);
    let options = ForEachOptions::new(OnFailure::Requeue);
    let work = consumer.for_each_concurrent(8, options, move |order| {
        handled.fetch_add(1, Ordering::Relaxed);
        println!("order: {}", order.body);
        async { Ok::<_, Infallible>(()) }
    });
    let stopper = work.stopper();
    let (end, mut ended) = watch::channel(false);
    let background = tokio::spawn(async move {
        let over = work.await;
        let _no_receiver = end.send(true);
        over
    });

    // Requests, until SIGTERM, or until the consumer has ended and a supervisor should know.
    let terminated = terminated()?;
    let address = env::var("HTTP_ADDRESS").unwrap_or_else(|_| "127.0.0.1:8080".to_owned());
    let listener = TcpListener::bind(address).await?;
    println!("listening on {}", listener.local_addr()?);
    let (stop, mut stopping) = watch::channel(false);
    let stopped = async move {
        tokio::select! {
            () = terminated => {}
            _ = ended.wait_for(|it| *it) => {}
        }
        stop.send_replace(true);
    };
    let serving = axum::serve(listener, routes(app.clone())).with_graceful_shutdown(stopped);
    // A client that never ends its request does not hold the service.
    let last = async {
        let _stopped = stopping.wait_for(|it| *it).await;
        tokio::time::sleep(LAST_REQUESTS).await;
    };
    tokio::select! {
        served = serving.into_future() => served?,
        () = last => eprintln!("some requests have not ended"),
    }

    // The orders that were begun, then the confirms, then the close.
    stopper.drain(Duration::from_secs(10)).await;
    let over = background.await?;
    println!("{}", over.reason);
    app.publisher.settled().await;
    pair.close().await?;
    match over.reason {
        EndReason::Drained(_) => Ok(()),
        reason => Err(format!("no more orders: {reason}").into()),
    }
}

fn routes(app: App) -> Router {
    let orders = post(place).get(count);
    Router::new()
        .route("/orders", orders)
        .route("/health", get(health))
        .with_state(app)
}

/// Publishes an order.
async fn place(State(app): State<App>, order: Bytes) -> (StatusCode, String) {
    let to_orders = basic::Publish::default()
        .routing_key("orders")
        .mandatory(true);
    let persistent = basic::Properties::default().persistent();
    let message = OutgoingMessage::new(to_orders, order).properties(persistent);
    // While the connection is lost, this waits. Dropped, the message is not published.
    let Ok(receipt) = timeout(LIMIT, app.publisher.publish(message)).await else {
        return again("the broker cannot be reached");
    };
    match receipt.await {
        Outcome::Acked => (StatusCode::ACCEPTED, String::new()),
        Outcome::NotSent { cause, .. } => again(&cause.to_string()),
        Outcome::Nacked => again("the broker refused the order"),
        // A client that repeats the request may place a second order.
        outcome => match outcome.acked() {
            Ok(()) => (StatusCode::ACCEPTED, String::new()),
            Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()),
        },
    }
}

/// The answer for an order that was not placed.
fn again(cause: &str) -> (StatusCode, String) {
    (StatusCode::SERVICE_UNAVAILABLE, cause.to_owned())
}

/// The number of orders that were handled.
async fn count(State(app): State<App>) -> String {
    app.handled.load(Ordering::Relaxed).to_string()
}

/// Whether the broker accepts orders now.
async fn health(State(app): State<App>) -> StatusCode {
    match app.publisher.channel().connection().state() {
        ConnectionState::Open => StatusCode::OK,
        _ => StatusCode::SERVICE_UNAVAILABLE,
    }
}

/// Waits for the request to terminate.
fn terminated() -> Result<impl Future<Output = ()>, io::Error> {
    #[cfg(unix)]
    let mut signals = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
    Ok(async move {
        #[cfg(unix)]
        signals.recv().await;
        #[cfg(not(unix))]
        let _no_signals = tokio::signal::ctrl_c().await;
    })
}
