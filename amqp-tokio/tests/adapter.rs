//! The adapter's sockets, clock and tasks.

#![cfg(feature = "broker")]

use amqp_test_support::adapter::{self, Outcome};
use amqp_tokio::{LocalBroker, Server, Tokio, TokioClock, TokioStream, serve};
use tokio::{net::TcpListener, runtime::Runtime};

/// Runs a test.
fn run(test: impl Future<Output = Outcome>) -> Outcome {
    Runtime::new()?.block_on(test)
}

#[test]
fn a_served_broker_is_reached_by_name() -> Outcome {
    run(async {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let server = serve(listener, LocalBroker::default())?;
        adapter::over_tcp(Tokio, server).await
    })
}

#[test]
fn a_served_broker_is_reached_by_its_service() -> Outcome {
    run(async {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let server = serve(listener, LocalBroker::default())?;
        adapter::by_service(Tokio, server).await
    })
}

#[cfg(unix)]
#[test]
fn a_unix_socket_is_an_address() -> Outcome {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("broker");
    run(async {
        let listener = tokio::net::UnixListener::bind(&path)?;
        let accept = async move { Ok(TokioStream::new(listener.accept().await?.0)) };
        adapter::over_unix::<Tokio, _>(&path, accept).await
    })
}

#[test]
fn a_name_is_resolved_and_a_wrong_one_fails_with_the_systems_error() -> Outcome {
    run(adapter::resolving::<Tokio>())
}

#[test]
fn a_peer_that_says_nothing_is_noticed() -> Outcome {
    run(adapter::silent_peer::<Tokio>())
}

/// The bounds for moving them between tasks.
#[test]
fn everything_can_be_shared_between_threads() {
    fn shared<T: Send + Sync>() {}
    shared::<Tokio>();
    shared::<TokioClock>();
    shared::<LocalBroker>();
    shared::<Server>();
}

#[cfg(all(feature = "tls", feature = "ring"))]
mod tls {
    use std::io;

    use amqp_tokio::{ServerTls, serve_tls};

    use super::*;

    async fn serving(tls: ServerTls) -> io::Result<Server> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        serve_tls(listener, tls, LocalBroker::default())
    }

    async fn plain() -> io::Result<Server> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        serve(listener, LocalBroker::default())
    }

    amqp_test_support::secured::tests!(run, plain, serving);
}
