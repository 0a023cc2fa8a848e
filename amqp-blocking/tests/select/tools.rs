//! Steps that many tests share.

use std::{
    io,
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    sync::{Arc, Mutex},
    thread,
    time::{Duration, Instant},
};

use amqp_blocking::{
    CloseReason, Config, ConnectError, Error as CallError, LocalBroker, Options, Server,
    Unconfirmed,
    protocol::{ReplyCode, basic, queue},
    recovery::{Backoff, Policy},
    select::{Answer, Client, Error, Message, Promise, connect_with},
    serve,
};

/// Beyond this nothing is late, but lost.
pub(crate) const PATIENCE: Duration = Duration::from_secs(120);
pub(crate) const SOON: Option<Duration> = Some(PATIENCE);

/// For as long nothing must come.
pub(crate) const SILENCE: Option<Duration> = Some(Duration::from_millis(100));

pub(crate) fn broker() -> Server {
    let listener = TcpListener::bind("127.0.0.1:0").expect("there is a port");
    serve(listener, LocalBroker::default()).expect("it has an address")
}

/// Begins to connect.
pub(crate) fn connecting(server: &Server, config: Config) -> (Client, Promise) {
    let options = Options::from_uri(&format!("amqp://{}", server.local_addr()));
    let mut options = options.expect("it is a URI");
    options.config = config;
    connect_with(&options).expect("there are descriptors")
}

pub(crate) fn connect(server: &Server) -> Client {
    connect_configured(server, Config::default())
}

pub(crate) fn connect_configured(server: &Server, config: Config) -> Client {
    let (mut client, connected) = connecting(server, config);
    assert!(matches!(soon(&mut client, connected), Answer::Connected));
    client
}

/// The next result of a promise, which is no error.
#[track_caller]
pub(crate) fn soon(client: &mut Client, promise: Promise) -> Answer {
    let answer = client.wait(promise, SOON).expect("it is no error");
    answer.expect("it comes in time")
}

/// The error that a promise ends with.
#[track_caller]
pub(crate) fn soon_error(client: &mut Client, promise: Promise) -> Error {
    client.wait(promise, SOON).expect_err("it is an error")
}

#[track_caller]
pub(crate) fn soon_message(client: &mut Client, promise: Promise) -> Message {
    soon(client, promise).message().expect("it is a message")
}

pub(crate) fn declaration(name: &str) -> queue::Declare {
    let declare = queue::Declare::default();
    declare.queue(name)
}

#[track_caller]
pub(crate) fn declare(client: &mut Client, name: &str) -> queue::DeclareOk {
    let declared = client.call(declaration(name)).expect("it is open");
    soon(client, declared)
        .reply()
        .expect("that is what answers it")
}

pub(crate) fn deletion(name: &str) -> queue::Delete {
    queue::Delete::default().queue(name)
}

#[track_caller]
pub(crate) fn delete(client: &mut Client, name: &str) {
    let deleted = client.call(deletion(name)).expect("it is open");
    soon(client, deleted);
}

pub(crate) fn consume(queue: &str) -> basic::Consume {
    let consume = basic::Consume::default();
    consume.queue(queue)
}

/// Fetches a message, if there is one.
#[track_caller]
pub(crate) fn get(client: &mut Client, queue: &str) -> Option<Message> {
    let get = basic::Get::default().queue(queue);
    let got = client.get(get).expect("it is open");
    soon(client, got).message()
}

/// Begins to publish.
#[track_caller]
pub(crate) fn throw(client: &mut Client, exchange: &str, key: &str, body: &'static str) -> Promise {
    let publish = basic::Publish::default().mandatory(true);
    let publish = publish.exchange(exchange);
    let publish = publish.routing_key(key);
    let accepted = client.publish(publish, basic::Properties::default(), body);
    accepted.expect("there is room")
}

#[track_caller]
pub(crate) fn put(client: &mut Client, queue: &str, body: &'static str) {
    let published = throw(client, "", queue, body);
    assert!(matches!(soon(client, published), Answer::Published));
}

/// Begins to consume, and waits until that is so.
#[track_caller]
pub(crate) fn consume_multi(client: &mut Client, queues: &[&str], prefetch: u16) -> Promise {
    let consumes = queues.iter().map(|name| consume(name)).collect();
    let consumer = client.consume_multi(consumes, prefetch);
    let consumer = consumer.expect("it is open");
    assert!(matches!(soon(client, consumer), Answer::Consuming));
    consumer
}

/// Repeats until it is so.
#[track_caller]
pub(crate) fn until(mut is_so: impl FnMut() -> bool) {
    let start = Instant::now();
    while !is_so() {
        assert!(start.elapsed() < PATIENCE, "it is not so");
    }
}

pub(crate) fn code(error: &Error) -> Option<ReplyCode> {
    match error {
        Error::Call(error) => error.code(),
        Error::Unconfirmed(Unconfirmed::NotSent(reason) | Unconfirmed::Unknown(reason)) => {
            reason.code()
        }
        _ => None,
    }
}

/// Why the connection is closed, or was not opened.
#[track_caller]
pub(crate) fn reason(error: Error) -> CloseReason {
    let closed = match &error {
        Error::Call(error) => error,
        Error::Connect(refused) => match &**refused {
            ConnectError::NotOpened { error, .. } => error,
            other => panic!("nobody was reached: {other}"),
        },
        other => panic!("the connection is not closed: {other}"),
    };
    match closed {
        CallError::ConnectionClosed(reason) => reason.clone(),
        other => panic!("the connection is not closed: {other}"),
    }
}

/// Nothing comes of a promise, though more is to come.
#[track_caller]
pub(crate) fn assert_silent(client: &mut Client, promise: Promise) {
    let nothing = client.wait(promise, SILENCE).expect("it is no error");
    assert!(nothing.is_none(), "{nothing:?}");
}

#[track_caller]
pub(crate) fn assert_over(client: &mut Client, promise: Promise) {
    let over = client.wait(promise, SOON);
    assert!(matches!(over, Err(Error::NoSuchPromise(it)) if it == promise));
}

/// An address that nothing listens at.
pub(crate) fn nowhere() -> SocketAddr {
    let port = amqp_test_support::ports::free_port().expect("there is a port");
    SocketAddr::from(([127, 0, 0, 1], port))
}

/// A relay with connections that can be cut, as by a network.
pub(crate) struct Relay {
    pub(crate) address: SocketAddr,
    sockets: Arc<Mutex<Vec<TcpStream>>>,
}

impl Relay {
    /// A relay to that address. Its threads end with the program.
    pub(crate) fn start(to: SocketAddr) -> io::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let address = listener.local_addr()?;
        let sockets = Arc::new(Mutex::new(Vec::new()));
        let accepted = Arc::clone(&sockets);
        thread::spawn(move || -> io::Result<()> {
            loop {
                let (client, _) = listener.accept()?;
                let server = TcpStream::connect(to)?;
                // Before the first byte passes: a cut has all connections that work.
                let both = [client.try_clone()?, server.try_clone()?];
                accepted.lock().expect("nobody panics").extend(both);
                for (mut from, mut to) in [
                    (client.try_clone()?, server.try_clone()?),
                    (server.try_clone()?, client.try_clone()?),
                ] {
                    thread::spawn(move || {
                        let copied = io::copy(&mut from, &mut to);
                        let _closed = to.shutdown(Shutdown::Write);
                        copied
                    });
                }
            }
        });
        Ok(Self { address, sockets })
    }

    /// Cuts all connections.
    pub(crate) fn cut(&self) {
        for socket in self.sockets.lock().expect("nobody panics").drain(..) {
            // It may have ended.
            let _ended = socket.shutdown(Shutdown::Both);
        }
    }
}

/// Connects with options that recover at once.
pub(crate) fn connect_recovering(address: SocketAddr) -> Client {
    let (mut client, connected) =
        connect_with(&recovering(address)).expect("there are descriptors");
    assert!(matches!(soon(&mut client, connected), Answer::Connected));
    client
}

pub(crate) fn recovering(address: SocketAddr) -> Options {
    let options = Options::from_uri(&format!("amqp://{address}")).expect("it is a URI");
    let backoff = Backoff::default().first(Duration::from_millis(5));
    options.recovery(Policy::new(1).backoff(backoff.max(Duration::from_millis(20))))
}
