//! Recovery over several hosts, of which some fail in ways that a broker does not.

use std::{
    future::{Future, pending, poll_fn},
    io,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    task::{Poll, ready},
    time::Duration,
};

use amqp_tokio::{
    LocalBroker, Options, TokioClock,
    amqp_driver::connect,
    core::{Instant, Transmit, dial::Address, server},
    io::{Pipe, Runtime, Transport as _, pipe},
    recovery::{GiveUp, Reconnect, RecoveryEvent},
};
use bytes::BytesMut;
use tokio::time::timeout;

use crate::{Outcome, PATIENCE, policy, until};

/// The address of the broker, and the others.
const BROKER: &str = "10.0.0.1";
const SILENT: &str = "10.0.0.2";

/// How the host of the broker is while that is stopped.
#[derive(Clone, Copy, Debug)]
enum Stopped {
    /// It takes connections, and closes each.
    Closes,
    /// It opens each connection, and closes it with the same write.
    OpensAndCloses,
}

/// A network of two hosts: one of the broker, and one that takes connections and says nothing.
#[derive(Clone, Debug)]
struct Hosts {
    broker: LocalBroker,
    stopped: Stopped,
    /// The number of connections that a host has taken while the broker was stopped.
    taken: Arc<AtomicUsize>,
}

impl Runtime for Hosts {
    type Clock = TokioClock;
    type Stream = Pipe;

    fn clock(&self) -> TokioClock {
        TokioClock::new()
    }

    fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        tokio::spawn(task);
    }

    async fn resolve(&self, _host: &str, _port: u16) -> io::Result<Vec<SocketAddr>> {
        Err(io::ErrorKind::NotFound.into())
    }

    async fn connect_tcp(&self, to: SocketAddr, _keepalive: Option<Duration>) -> io::Result<Pipe> {
        let (ours, theirs) = pipe();
        if to.ip().to_string() == SILENT {
            tokio::spawn(async move {
                let _held = theirs;
                pending::<()>().await;
            });
            return Ok(ours);
        }
        match self.broker.accept(theirs) {
            Ok(driver) => drop(tokio::spawn(driver)),
            Err(_stopped) => {
                let (ours, theirs) = pipe();
                self.taken.fetch_add(1, Relaxed);
                match self.stopped {
                    Stopped::Closes => drop(theirs),
                    Stopped::OpensAndCloses => drop(tokio::spawn(open_and_close(theirs))),
                }
                return Ok(ours);
            }
        }
        Ok(ours)
    }
}

/// A server that opens the connection, and closes the transport with the same write.
async fn open_and_close(mut transport: Pipe) {
    let now = Instant::ORIGIN;
    let mut machine = server::Connection::new(server::Config::default(), now).expect("defaults");
    let (mut input, mut output) = (BytesMut::new(), Transmit::new());
    poll_fn(|cx| {
        loop {
            machine.handle_input(now, &mut input);
            let mut opened = false;
            while let Some(event) = machine.poll_event() {
                match event {
                    server::Event::Authenticate(_) => machine.accept().expect("it asks"),
                    server::Event::Open { .. } => {
                        machine.open().expect("it asks");
                        opened = true;
                    }
                    _ => {}
                }
            }
            machine.poll_transmit(now, &mut output);
            while !output.is_empty() {
                ready!(transport.poll_write(cx, &mut output)).expect("the client listens");
            }
            if opened {
                return Poll::Ready(());
            }
            input.reserve(1000);
            let read = ready!(transport.poll_read(cx, &mut input));
            if read.is_ok_and(|count| count == 0) {
                return Poll::Ready(());
            }
        }
    })
    .await;
}

fn hosts(stopped: Stopped) -> Hosts {
    Hosts {
        broker: LocalBroker::default(),
        stopped,
        taken: Arc::default(),
    }
}

fn to(hosts: &[&str]) -> Options {
    Options::default().addresses(hosts.iter().map(|host| Address::tcp(*host, 5672)))
}

#[tokio::test(start_paused = true)]
async fn a_life_that_ends_at_once_is_followed_by_a_delay_and_not_by_another_host() -> Outcome {
    let network = hosts(Stopped::OpensAndCloses);
    let options = to(&[BROKER, SILENT]).recovery(policy());
    let connection = connect(&network, &options).await?;
    network.broker.stop();
    while network.taken.load(Relaxed) < 5 {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    network.broker.start();
    let opening = timeout(PATIENCE, connection.open_channel()).await?;
    opening?.close().await?;
    let lost = |it: &amqp_tokio::recovery::TimedEvent| matches!(it.event, RecoveryEvent::Lost(_));
    let mut events = connection.recovery_events();
    let mut losses = 0;
    while let Some(event) = events.try_next() {
        losses += usize::from(lost(&event));
    }
    assert_eq!(losses, 1 + network.taken.load(Relaxed));
    connection.close().await?;
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn a_host_that_hangs_up_is_not_reached() -> Outcome {
    let network = hosts(Stopped::Closes);
    let mut policy = policy();
    policy.connect.other = Reconnect::GiveUp;
    let connection = connect(&network, &to(&[BROKER]).recovery(policy.clone())).await?;
    network.broker.stop();
    while network.taken.load(Relaxed) < 5 {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    network.broker.start();
    timeout(PATIENCE, connection.open_channel()).await??;

    policy.connect.unreachable = Reconnect::GiveUp;
    let connection = connect(&network, &to(&[BROKER]).recovery(policy)).await?;
    network.broker.stop();
    until(&connection, |event| {
        matches!(event, RecoveryEvent::GaveUp(GiveUp::Connect { .. }))
    })
    .await
}
