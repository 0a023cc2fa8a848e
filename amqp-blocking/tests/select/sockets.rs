//! The streams of a client, and the wake-ups of a loop.

use std::{
    future::poll_fn,
    net::{TcpListener, TcpStream},
    sync::{Arc, Mutex},
    task::{Poll, Waker},
    thread,
    time::{Duration, Instant},
};

use amqp_blocking::{
    Config, CredentialsProvider, Login, LoginFuture, Options,
    core::dial::Address,
    select::{Answer, Client, connect_with, from_stream},
};

use crate::tools::*;

/// One message there and back, over any socket.
fn there_and_back(client: &mut Client) {
    declare(client, "q");
    put(client, "q", "there");
    let message = get(client, "q").expect("it is there");
    assert_eq!(message.body, "there");
    message.ack().expect("its channel is open");
    let closed = client.close().expect("it is open");
    assert!(matches!(soon(client, closed), Answer::Closed));
}

fn to(addresses: Vec<Address>) -> Options {
    Options::default().addresses(addresses)
}

#[test]
fn the_first_host_that_answers_is_taken() {
    let server = broker();
    let options = to(vec![
        Address::tcp("127.0.0.1", nowhere().port()),
        Address::tcp("localhost", server.local_addr().port()),
    ]);
    let (mut client, connected) = connect_with(&options).expect("there are descriptors");
    assert!(matches!(soon(&mut client, connected), Answer::Connected));
    let connection = client.connection().expect("it is open");
    assert!(connection.has_capability("publisher_confirms"));
    there_and_back(&mut client);
}

/// A stream that was made elsewhere is as good as any, and the end of the server is reported.
#[test]
fn the_end_of_a_stream_is_reported() {
    let server = broker();
    let stream = TcpStream::connect(server.local_addr()).expect("somebody listens");
    let (mut client, connected) =
        from_stream(stream, Config::default()).expect("there are descriptors");
    soon(&mut client, connected);
    let down = thread::spawn(move || server.shutdown());
    let ended = client.run().expect_err("nobody wanted it");
    assert!(!reason(ended).is_clean());
    client.on_writable();
    drop(client);
    down.join().expect("it did not panic");
}

#[cfg(unix)]
#[test]
fn a_unix_socket_is_an_address() {
    use std::{
        io::{self, Read, Write},
        os::unix::net::UnixListener,
    };

    /// Relays bytes until the end of the stream.
    fn relay(mut from: impl Read + Send + 'static, mut to: impl Write + Send + 'static) {
        thread::spawn(move || io::copy(&mut from, &mut to));
    }
    let server = broker();
    let folder = tempfile::tempdir().expect("there is room");
    let path = folder.path().join("broker");
    let listener = UnixListener::bind(&path).expect("there is none");
    let path = Address::unix(path.to_str().expect("it is a plain path"));
    let options = to(vec![path]);
    let (mut client, connected) = connect_with(&options).expect("there are descriptors");
    client.on_writable();
    let (theirs, _) = listener.accept().expect("somebody comes");
    let broker = TcpStream::connect(server.local_addr()).expect("somebody listens");
    relay(
        theirs.try_clone().expect("there is room"),
        broker.try_clone().expect("there is room"),
    );
    relay(broker, theirs);
    assert!(matches!(soon(&mut client, connected), Answer::Connected));
    there_and_back(&mut client);
}

/// Has credentials after a while, from a thread of its own.
struct Elsewhere;

impl CredentialsProvider for Elsewhere {
    fn login(&self) -> LoginFuture<'_> {
        let answer = Arc::new(Mutex::new((false, None::<Waker>)));
        let telling = Arc::clone(&answer);
        thread::spawn(move || {
            thread::sleep(Duration::from_millis(50));
            let mut answer = telling.lock().expect("nobody panics");
            answer.0 = true;
            answer.1.take().into_iter().for_each(Waker::wake);
        });
        Box::pin(poll_fn(move |cx| {
            let mut answer = answer.lock().expect("nobody panics");
            answer.1 = Some(cx.waker().clone());
            if answer.0 {
                Poll::Ready(Ok(Login::new("guest", "guest")))
            } else {
                Poll::Pending
            }
        }))
    }
}

/// A wake-up of the client's poller wakes the loop that watches its descriptor.
#[cfg(unix)]
#[test]
fn another_thread_wakes_the_loop() {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};

    let server = broker();
    let mut options = to(vec![Address::tcp("127.0.0.1", server.local_addr().port())]);
    options.credentials = Some(Arc::new(Elsewhere));
    let (mut client, connected) = connect_with(&options).expect("there are descriptors");
    let begun = Instant::now();
    let mut turns = 0;
    while client.take(connected).is_none() {
        turns += 1;
        client.on_writable();
        let limit = client.next_timeout().map(Timespec::try_from);
        let limit = limit.map(|limit| limit.expect("it is no eternity"));
        let mut watched = [PollFd::new(&client, PollFlags::IN)];
        poll(&mut watched, limit.as_ref()).expect("it is a descriptor");
        client.on_readable();
    }
    assert!(client.connection().is_some());
    assert!(begun.elapsed() < options.config.timeouts.handshake);
    assert!(turns < 100, "{turns}");
}

#[cfg(all(feature = "tls", feature = "ring"))]
#[test]
fn a_server_with_tls_is_trusted_or_not() {
    use amqp_blocking::{
        CertificateFault, Certificates, ConnectError, LocalBroker, TlsError, TlsOptions,
        rustls::{ServerConfig, crypto::ring::default_provider, pki_types::PrivateKeyDer},
        select::Error,
        serve_tls,
    };

    let own = rcgen::generate_simple_self_signed(["localhost".to_owned()]);
    let own = own.expect("there is randomness");
    let key = PrivateKeyDer::try_from(own.signing_key.serialize_der()).expect("it is a key");
    let config = ServerConfig::builder_with_provider(Arc::new(default_provider()))
        .with_safe_default_protocol_versions()
        .expect("there are some")
        .with_no_client_auth()
        .with_single_cert(vec![own.cert.der().clone()], key)
        .expect("it is its key");
    let listener = TcpListener::bind("127.0.0.1:0").expect("there is a port");
    let server = serve_tls(listener, config, LocalBroker::default()).expect("it has an address");

    let mut options = to(vec![Address::tcp("localhost", server.local_addr().port())]);
    options.tls = Some(TlsOptions::default());
    for trusted in [false, true] {
        if trusted && let Some(tls) = &mut options.tls {
            tls.authorities = Some(Certificates::der([own.cert.der().to_vec()]));
        }
        let (mut client, connected) = connect_with(&options).expect("there are descriptors");
        if trusted {
            soon(&mut client, connected);
            let connection = client.connection().expect("it is open");
            assert_eq!(*connection.peer_certificates(), [own.cert.der().to_vec()]);
            there_and_back(&mut client);
            continue;
        }
        let Error::Connect(why) = soon_error(&mut client, connected) else {
            panic!("it was reached");
        };
        let ConnectError::Tls { error, .. } = &*why else {
            panic!("not for TLS: {why}");
        };
        assert!(
            matches!(error, TlsError::Certificate(CertificateFault::SelfSigned)),
            "{error:?}"
        );
    }
}
