//! No code of the application runs under the locks of an embedded broker: wakers and bodies may use
//! it and its server.

use std::{
    fmt,
    future::Future,
    io,
    net::SocketAddr,
    pin::Pin,
    sync::{Arc, Mutex, atomic::Ordering::SeqCst},
    task::{Context, Poll, Wake, Waker},
    time::Duration,
};

use amqp_driver::{
    Config, Connection,
    core::{Instant, Transmit, protocol::basic},
    io::{Clock, Pipe, Runtime, Timer, Transport, pipe},
};
use amqp_embedded::{
    Listener, LocalBroker, SharedBroker,
    broker::{self, Broker, ByteFaults, ConnectionKey, Impairment},
    serve,
};
use amqp_test_support::foreign::{Calls, ends, foreign_waker};
use bytes::{Bytes, BytesMut};

/// A clock that stands.
#[derive(Clone, Debug)]
struct Stopped;

impl Timer for Stopped {
    fn now(&self) -> Instant {
        Instant::ORIGIN
    }

    fn clock(&self) -> Clock {
        Arc::new(|| Instant::ORIGIN)
    }

    fn poll_deadline(&mut self, _cx: &mut Context<'_>, _at: Option<Instant>) -> Poll<()> {
        Poll::Pending
    }
}

fn shared() -> SharedBroker {
    SharedBroker::new(Broker::new(broker::Config::default()).unwrap())
}

/// A waker that uses a broker.
fn uses(broker: &SharedBroker, calls: &Arc<Calls>) -> Waker {
    let broker = broker.clone();
    foreign_waker(calls, move || drop(broker.inspect()))
}

fn poll<F: Future + Unpin>(future: &mut F, waker: &Waker) -> Poll<F::Output> {
    Pin::new(future).poll(&mut Context::from_waker(waker))
}

#[test]
fn wakers_of_drivers_use_the_broker() {
    ends(|| {
        let (_client, server) = pipe();
        let broker = shared();
        let mut driver = broker.accept(server, Stopped).unwrap();
        let calls = Arc::<Calls>::default();
        let waker = || uses(&broker, &calls);
        for _ in 0..2 {
            assert!(poll(&mut driver, &waker()).is_pending());
        }
        // Each driver's task waits for the broker and for the pipe.
        assert_eq!(calls.clones.load(SeqCst), 4);
        let key = driver.endpoint().key();
        broker.with(|broker| broker.faults().drop_connection(key, Instant::ORIGIN));
        assert_eq!(calls.wakes.load(SeqCst), 1);
        drop(driver);
    });
}

/// A waker that panics when it is woken.
struct Panics;

impl Wake for Panics {
    fn wake(self: Arc<Self>) {
        panic!("a waker of a test");
    }
}

#[test]
fn a_waker_that_panics_keeps_no_other_from_being_woken() {
    ends(|| {
        let broker = shared();
        let calls = Arc::<Calls>::default();
        let wakers = [Arc::new(Panics).into(), uses(&broker, &calls)];
        let mut waits = wakers.each_ref().map(|waker| {
            let mut wait = Box::pin(broker.until(Broker::is_stopped));
            assert!(poll(&mut wait, waker).is_pending());
            wait
        });
        broker.with(|broker| broker.stop(Instant::ORIGIN));
        assert_eq!(calls.wakes.load(SeqCst), 1);
        for wait in &mut waits {
            assert!(poll(wait, Waker::noop()).is_ready());
        }
    });
}

#[test]
fn wakers_of_waits_and_of_paused_drivers_use_the_broker() {
    ends(|| {
        let broker = shared();
        let calls = Arc::<Calls>::default();
        let waker = || uses(&broker, &calls);
        let mut wait = Box::pin(broker.until(Broker::is_stopped));
        for _ in 0..2 {
            assert!(poll(&mut wait, &waker()).is_pending());
        }
        broker.with(|broker| broker.stop(Instant::ORIGIN));
        assert_eq!(calls.wakes.load(SeqCst), 1);
        assert!(poll(&mut wait, &waker()).is_ready());
        let mut dropped = Box::pin(broker.until(|_| false));
        assert!(poll(&mut dropped, &waker()).is_pending());
        drop(dropped);
        broker.with(|broker| broker.start(Instant::ORIGIN));
        assert_eq!(calls.wakes.load(SeqCst), 1);

        let (_client, server) = pipe();
        let mut driver = broker.accept(server, Stopped).unwrap();
        broker.pause();
        for _ in 0..2 {
            assert!(poll(&mut driver, &waker()).is_pending());
        }
        broker.resume();
        assert_eq!(calls.wakes.load(SeqCst), 2);
        broker.pause();
        assert!(poll(&mut driver, &waker()).is_pending());
        drop(driver);
    });
}

#[test]
fn a_driver_that_is_dropped_drops_its_waker_without_the_lock() {
    ends(|| {
        let (_client, server) = pipe();
        let broker = shared();
        let mut driver = broker.accept(server, Stopped).unwrap();
        let calls = Arc::<Calls>::default();
        let waker = uses(&broker, &calls);
        assert!(poll(&mut driver, &waker).is_pending());
        drop(waker);
        drop(driver);
        assert_eq!(
            calls.clones.load(SeqCst) + 1,
            calls.drops.load(SeqCst) + calls.wakes.load(SeqCst)
        );
        assert!(broker.inspect().connections.is_empty());
    });
}

#[test]
fn wakers_of_the_timekeeper_use_the_broker() {
    ends(|| {
        let broker = shared();
        let calls = Arc::<Calls>::default();
        let waker = || uses(&broker, &calls);
        let mut timekeeper = broker.keep_time(Stopped).unwrap();
        for _ in 0..2 {
            assert!(poll(&mut timekeeper, &waker()).is_pending());
        }
        assert_eq!(calls.clones.load(SeqCst), 2);
        drop(timekeeper);
        assert_eq!(calls.drops.load(SeqCst), 4);
        assert!(broker.keep_time(Stopped).is_some());
    });
}

#[test]
fn wakers_that_wait_for_the_end_of_a_stall_set_faults() {
    fn stall(broker: &SharedBroker, key: ConnectionKey) {
        let stalled = ByteFaults::both(Impairment::new().stall_after(0));
        broker.with(|broker| broker.faults().bytes(key, stalled));
    }
    ends(|| {
        let (client, server) = pipe();
        let broker = shared();
        let mut driver = broker.accept(server, Stopped).unwrap();
        let key = driver.endpoint().key();
        stall(&broker, key);
        let calls = Arc::<Calls>::default();
        let waker = || {
            let broker = broker.clone();
            foreign_waker(&calls, move || stall(&broker, key))
        };
        for _ in 0..3 {
            assert!(poll(&mut driver, &waker()).is_pending());
        }
        broker.with(|broker| broker.faults().drop_connection(key, Instant::ORIGIN));
        for _ in 0..3 {
            assert!(poll(&mut driver, &waker()).is_pending());
        }
        broker.with(|broker| broker.faults().bytes(key, ByteFaults::new()));
        assert!(calls.wakes.load(SeqCst) > 0);
        drop(client);
        assert!(poll(&mut driver, Waker::noop()).is_ready());
    });
}

/// A server's end that a body uses, too.
struct SharedEnd(Arc<Mutex<Pipe>>);

impl Transport for SharedEnd {
    fn poll_read(&mut self, cx: &mut Context<'_>, buf: &mut BytesMut) -> Poll<io::Result<usize>> {
        self.0.lock().unwrap().poll_read(cx, buf)
    }

    fn poll_write(&mut self, cx: &mut Context<'_>, out: &mut Transmit) -> Poll<io::Result<usize>> {
        self.0.lock().unwrap().poll_write(cx, out)
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.0.lock().unwrap().poll_flush(cx)
    }

    fn poll_close(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.0.lock().unwrap().poll_close(cx)
    }
}

/// The owner of a body, which reads from the pipe when it is dropped.
struct ReadsPipe {
    bytes: Vec<u8>,
    end: Arc<Mutex<Pipe>>,
}

impl AsRef<[u8]> for ReadsPipe {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for ReadsPipe {
    fn drop(&mut self) {
        // There are bytes, but no room for them.
        let mut cx = Context::from_waker(Waker::noop());
        let mut end = self.end.lock().unwrap();
        assert!(end.poll_read(&mut cx, &mut BytesMut::new()).is_ready());
    }
}

#[test]
fn a_body_that_is_written_to_a_pipe_is_dropped_without_its_lock() {
    ends(|| {
        let (client, server) = pipe();
        let end = Arc::new(Mutex::new(server));
        let broker = shared();
        let mut served = broker.accept(SharedEnd(Arc::clone(&end)), Stopped).unwrap();
        let (connection, mut driver) =
            Connection::start(Config::default(), client, Stopped).unwrap();
        let mut run = |future: Pin<&mut dyn Future<Output = ()>>| {
            let mut future = future;
            let mut cx = Context::from_waker(Waker::noop());
            while future.as_mut().poll(&mut cx).is_pending() {
                let _running = Pin::new(&mut driver).poll(&mut cx);
                let _running = Pin::new(&mut served).poll(&mut cx);
            }
        };
        run(std::pin::pin!(async {
            connection.opened().await.unwrap();
            let channel = connection.open_channel().await.unwrap();
            let body = Bytes::from_owner(ReadsPipe {
                bytes: vec![7; 50_000],
                end: Arc::clone(&end),
            });
            let publish = basic::Publish::default();
            let none = basic::Properties::default();
            channel.publish(&publish, &none, body).await.unwrap();
            connection.flush().await.unwrap();
        }));
        assert_eq!(Arc::strong_count(&end), 2, "the body is dropped");
    });
}

type Spawned = Pin<Box<dyn Future<Output = ()> + Send>>;

/// A runtime with tasks that the test polls.
#[derive(Clone, Default)]
struct Tasks(Arc<Mutex<Vec<Spawned>>>);

impl Tasks {
    /// Removes the oldest task.
    fn take(&self) -> Spawned {
        self.0.lock().unwrap().remove(0)
    }
}

impl fmt::Debug for Tasks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Tasks")
    }
}

impl Runtime for Tasks {
    type Clock = Stopped;
    type Stream = Pipe;

    fn clock(&self) -> Stopped {
        Stopped
    }

    fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.0.lock().unwrap().push(Box::pin(task));
    }

    async fn resolve(&self, _host: &str, _port: u16) -> io::Result<Vec<SocketAddr>> {
        Err(io::ErrorKind::Unsupported.into())
    }

    async fn connect_tcp(&self, _to: SocketAddr, _keepalive: Option<Duration>) -> io::Result<Pipe> {
        Err(io::ErrorKind::Unsupported.into())
    }
}

/// Accepts the connections that it has, and then none.
struct Ready(Vec<Pipe>);

impl Listener for Ready {
    type Stream = Pipe;

    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(([127, 0, 0, 1], 5672).into())
    }

    async fn accept(&mut self) -> io::Result<Pipe> {
        match self.0.pop() {
            Some(stream) => Ok(stream),
            None => std::future::pending().await,
        }
    }
}

#[test]
fn wakers_of_a_servers_tasks_use_the_server() {
    ends(|| {
        let (_client, stream) = pipe();
        let runtime = Tasks::default();
        let broker = LocalBroker::on(runtime.clone(), broker::Config::default()).unwrap();
        let server = Arc::new(serve(Ready(vec![stream]), broker).unwrap());
        let calls = Arc::<Calls>::default();
        let waker = || {
            let server = Arc::clone(&server);
            // Both locks are taken for it.
            foreign_waker(&calls, move || drop(format!("{server:?}")))
        };
        let mut accepting = runtime.take();
        for _ in 0..2 {
            assert!(poll(&mut accepting, &waker()).is_pending());
        }
        let (_timekeeper, mut connection) = (runtime.take(), runtime.take());
        for _ in 0..2 {
            assert!(poll(&mut connection, &waker()).is_pending());
        }
        drop(connection);
        drop(accepting);
        assert!(calls.wakes.load(SeqCst) > 0);
        assert!(format!("{server:?}").contains("open: 0"));
    });
}

#[test]
fn the_waker_of_a_shutdown_is_cloned_and_dropped_without_the_lock() {
    ends(|| {
        let runtime = Tasks::default();
        let broker = LocalBroker::on(runtime.clone(), broker::Config::default()).unwrap();
        let server = serve(Ready(vec![]), broker).unwrap();
        let accepting = Arc::new(Mutex::new(Some(runtime.take())));
        let calls = Arc::<Calls>::default();
        let waker = || {
            let accepting = Arc::clone(&accepting);
            // The end of the accept loop takes the lock.
            foreign_waker(&calls, move || drop(accepting.lock().unwrap().take()))
        };
        let mut shutdown = Box::pin(server.shutdown());
        let first = waker();
        while poll(&mut shutdown, &first).is_pending() {}
        assert!(calls.clones.load(SeqCst) > 0);
        assert!(accepting.lock().unwrap().is_none());
    });
}
