//! The adapter's sockets, clock and tasks.

#![cfg(feature = "broker")]

use amqp_smol::{LocalBroker, Server, Smol, SmolClock, io::FuturesStream, serve};
use amqp_test_support::adapter::{self, Outcome};
use smol::{block_on, net::TcpListener};

#[test]
fn a_served_broker_is_reached_by_name() -> Outcome {
    block_on(async {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let server = serve(listener, LocalBroker::default())?;
        adapter::over_tcp(Smol::default(), server).await
    })
}

#[test]
fn a_served_broker_is_reached_by_its_service() -> Outcome {
    block_on(async {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let server = serve(listener, LocalBroker::default())?;
        adapter::by_service(Smol::default(), server).await
    })
}

#[cfg(unix)]
#[test]
fn a_unix_socket_is_an_address() -> Outcome {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("broker");
    block_on(async {
        let listener = smol::net::unix::UnixListener::bind(&path)?;
        let accept = async move { Ok(FuturesStream::new(listener.accept().await?.0)) };
        adapter::over_unix::<Smol, _>(&path, accept).await
    })
}

#[test]
fn a_name_is_resolved_and_a_wrong_one_fails_with_the_systems_error() -> Outcome {
    block_on(adapter::resolving::<Smol>())
}

#[test]
fn a_peer_that_says_nothing_is_noticed() -> Outcome {
    block_on(adapter::silent_peer::<Smol>())
}

/// The bounds for moving them between tasks.
#[test]
fn everything_can_be_shared_between_threads() {
    fn shared<T: Send + Sync>() {}
    shared::<Smol>();
    shared::<SmolClock>();
    shared::<LocalBroker>();
    shared::<Server>();
}

#[cfg(all(feature = "tls", feature = "ring"))]
mod tls {
    use std::io;

    use amqp_smol::{ServerTls, serve_tls};

    use super::*;

    async fn serving(tls: ServerTls) -> io::Result<Server> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        serve_tls(listener, tls, LocalBroker::default())
    }

    async fn plain() -> io::Result<Server> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        serve(listener, LocalBroker::default())
    }

    amqp_test_support::secured::tests!(block_on, plain, serving);
}
