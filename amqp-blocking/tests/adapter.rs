//! The adapter's sockets, clock and threads.

#![cfg(feature = "broker")]

use std::{future::poll_fn, net::TcpListener, time::Duration};

use amqp_blocking::{
    Blocking, BlockingClock, Channel, Confirm, Connection, LocalBroker, Server, block_on,
    core::Instant,
    io::{Runtime as _, Timer as _},
    serve,
};
use amqp_test_support::adapter::{self, Outcome};

#[test]
fn a_served_broker_is_reached_by_name() -> Outcome {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let server = serve(listener, LocalBroker::default())?;
    block_on(adapter::over_tcp(Blocking, server.into_async()))
}

#[test]
fn a_served_broker_is_reached_by_its_service() -> Outcome {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let server = serve(listener, LocalBroker::default())?;
    block_on(adapter::by_service(Blocking, server.into_async()))
}

#[cfg(unix)]
#[test]
fn a_unix_socket_is_an_address() -> Outcome {
    use amqp_blocking::BlockingSocket;

    let folder = tempfile::tempdir()?;
    let path = folder.path().join("broker");
    let listener = std::os::unix::net::UnixListener::bind(&path)?;
    let accept = async move {
        let (stream, _) = listener.accept()?;
        Ok(BlockingSocket::from(stream).into_stream())
    };
    block_on(adapter::over_unix::<Blocking, _>(&path, accept))
}

#[test]
fn a_name_is_resolved_and_a_wrong_one_fails_with_the_systems_error() -> Outcome {
    block_on(adapter::resolving::<Blocking>())
}

#[test]
fn a_peer_that_says_nothing_is_noticed() -> Outcome {
    block_on(adapter::silent_peer::<Blocking>())
}

/// The alarm rings in time, however often it was moved and on whichever thread its future runs.
#[test]
fn the_clock_rings_in_time() {
    let mut clock = Blocking.clock();
    let at = |millis| Some(Instant::ORIGIN + Duration::from_millis(millis));
    for (moves, last) in [
        (vec![], at(30)),
        (vec![at(900)], at(60)),
        (vec![at(90)], at(120)),
        (vec![at(140), None], at(150)),
    ] {
        let mut moves = moves.into_iter();
        block_on(poll_fn(|cx| {
            for at in moves.by_ref() {
                let polled = clock.poll_deadline(cx, at);
                // A busy machine may be there later than the deadline.
                assert!(polled.is_pending() || at.is_some_and(|at| clock.now() >= at));
            }
            clock.poll_deadline(cx, last)
        }));
        assert!(Some(clock.now()) >= last);
    }
}

/// The bounds for moving them between threads.
#[test]
fn everything_can_be_shared_between_threads() {
    fn shared<T: Send + Sync>() {}
    shared::<Blocking>();
    shared::<BlockingClock>();
    shared::<Connection>();
    shared::<Channel>();
    shared::<Confirm>();
    shared::<LocalBroker>();
    shared::<Server>();
}

#[cfg(all(feature = "tls", feature = "ring"))]
mod tls {
    use std::{
        future::{Ready, ready},
        io,
    };

    use amqp_blocking::{ServerTls, amqp_embedded, serve_tls};

    use super::*;

    type AsyncServer = amqp_embedded::Server<Blocking>;

    async fn serving(tls: ServerTls) -> io::Result<AsyncServer> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        Ok(serve_tls(listener, tls, LocalBroker::default())?.into_async())
    }

    fn plain() -> Ready<io::Result<AsyncServer>> {
        let listener = TcpListener::bind("127.0.0.1:0");
        let server = listener.and_then(|listener| serve(listener, LocalBroker::default()));
        ready(server.map(Server::into_async))
    }

    amqp_test_support::secured::tests!(block_on, plain, serving);
}
