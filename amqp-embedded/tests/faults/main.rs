//! The broker's faults of bytes: splits, stalls, cuts.

mod rig;

use std::{
    future::Future,
    io,
    pin::pin,
    sync::{Arc, Mutex},
    task::{Context, Poll, Waker},
    time::Duration,
};

use amqp_driver::{
    Connection, Error,
    core::{CloseCause, Instant, TimeoutReason, Transmit},
    io::{Timer, Transport},
    protocol::{basic, queue},
};
use amqp_embedded::broker::{ByteFaults, Impairment};
use bytes::BytesMut;
use rig::{Client, Rig, Seen, read, written};

const SECOND: Duration = Duration::from_secs(1);

/// The heartbeat interval of the rig's broker.
const HEARTBEAT: Duration = Duration::from_secs(10);

fn split(max: usize) -> Impairment {
    Impairment::new().split(max)
}

fn stall() -> Impairment {
    Impairment::new().stall_after(0)
}

/// The bodies of the messages of a session: small ones, an empty one, and one of several frames.
fn bodies() -> Vec<Vec<u8>> {
    let lengths = [1, 0, 100, 3000, 7];
    let body = |(seed, len)| (0..len).map(|at| (at * 7 + seed) as u8).collect();
    (0..).zip(lengths).map(body).collect()
}

/// Every kind of call of a client: declares, publishes, confirms, consumes, acknowledges, closes.
/// Returns the delivered bodies.
async fn session(connection: Connection, bodies: Vec<Vec<u8>>) -> Result<Vec<Vec<u8>>, Error> {
    connection.opened().await?;
    let channel = connection.open_channel().await?.confirm_select().await?;
    let declare = queue::Declare::default().queue("tasks").exclusive(true);
    channel.call(declare).await?;
    let publish = basic::Publish::default().routing_key("tasks");
    let mut confirms = Vec::new();
    for body in &bodies {
        let properties = basic::Properties::default();
        confirms.push(channel.publish(&publish, &properties, body.clone()).await?);
    }
    for confirm in confirms {
        confirm.await.map_err(|_| Error::TimedOut {
            reason: TimeoutReason::Request,
            channel: None,
        })?;
    }
    let consume = basic::Consume::default().queue("tasks");
    let mut consumer = channel.consume(consume).await?;
    let mut delivered = Vec::new();
    while delivered.len() < bodies.len() {
        let Some(delivery) = consumer.next().await.transpose()? else {
            break;
        };
        delivered.push(delivery.body.to_vec());
        delivery.ack()?;
    }
    connection.close().await?;
    Ok(delivered)
}

/// A session over a line with which something goes wrong from the first byte on.
fn faulty_session(rig: &mut Rig, faults: ByteFaults, bodies: &[Vec<u8>]) -> Client {
    rig.faults_of_next(faults);
    let client = rig.begin();
    let delivered = rig.complete(session(client.connection.clone(), bodies.to_vec()));
    assert_eq!(delivered.as_deref(), Ok(bodies));
    rig.wait(&client.ours);
    rig.wait(&client.theirs);
    assert!(rig.broker.inspect().connections.is_empty());
    client
}

#[test]
fn everything_works_when_every_byte_comes_alone() {
    let mut rig = Rig::new(0);
    let client = faulty_session(&mut rig, ByteFaults::both(split(1)), &bodies());
    let (count, most) = read(&client.trace);
    assert!(count > 3000 && most == 1, "{count} bytes, {most} at a time");
}

#[test]
fn everything_works_when_bytes_come_in_random_pieces() {
    for seed in 0..30 {
        for max in [2, 7, 100, 5000] {
            let mut rig = Rig::new(seed);
            let client = faulty_session(&mut rig, ByteFaults::both(split(max)), &bodies());
            assert!(read(&client.trace).1 <= max);
        }
    }
}

#[test]
fn a_delay_keeps_the_order_and_loses_nothing() {
    let delay = Duration::from_millis(100);
    let mut rig = Rig::new(0);
    rig.faults_of_next(ByteFaults::both(Impairment::new().delay(delay)));
    let client = rig.connect();
    let begun = rig.now();
    let connection = client.connection.clone();
    let channel = rig.complete(async move { connection.open_channel().await });
    channel.unwrap();
    assert_eq!(rig.now() - begun, 2 * delay, "there and back");

    // More than fits in flight at a time, and the rest behind it.
    let mut many: Vec<Vec<u8>> = (0..500_u32).map(|it| it.to_be_bytes().to_vec()).collect();
    many.insert(100, vec![7; 3_000_000]);
    let slow = Impairment::new().delay(delay);
    let mut rig = Rig::new(0);
    faulty_session(&mut rig, ByteFaults::new().to_client(slow), &many);
    faulty_session(&mut rig, ByteFaults::new().from_client(slow), &many);
    faulty_session(&mut rig, ByteFaults::both(slow.split(20_000)), &many);
}

#[test]
fn bytes_on_their_way_do_not_hold_each_other_up() {
    let mut rig = Rig::new(0);
    let client = rig.connect();
    rig.faults(
        client.key,
        ByteFaults::both(Impairment::new().delay(SECOND)),
    );
    let begun = rig.now();
    let mut openings = Vec::new();
    for _ in 0..5 {
        let connection = client.connection.clone();
        openings.push(rig.spawn(async move { connection.open_channel().await }));
        rig.pass(SECOND / 10);
    }
    for opening in openings {
        rig.wait(&opening).unwrap();
    }
    assert_eq!(rig.now() - begun, 2 * SECOND + 4 * SECOND / 10);
}

#[test]
fn bytes_in_flight_come_first_when_the_delay_is_over() {
    let mut rig = Rig::new(0);
    let client = rig.connect();
    let slow = ByteFaults::both(Impairment::new().delay(SECOND));
    rig.faults(client.key, slow);
    let connection = client.connection.clone();
    let task = rig.spawn(session(connection, bodies()));
    rig.pass(SECOND / 2);
    rig.faults(client.key, ByteFaults::new());
    rig.pass(SECOND / 4);
    assert!(!task.is_done());
    let delivered = rig.wait(&task);
    assert_eq!(delivered, Ok(bodies()));
}

#[test]
fn a_cut_behind_any_byte_ends_every_wait() {
    let small = vec![b"1".to_vec(), vec![], b"333".to_vec()];
    let mut rig = Rig::new(0);
    let whole = faulty_session(&mut rig, ByteFaults::new(), &small).trace;
    let (read_whole, written_whole) = (read(&whole).0, written(&whole));
    assert!(read_whole > 500 && written_whole > 500);

    for at in 0..read_whole {
        let cut = Impairment::new().cut_after(at as u64);
        let faults = ByteFaults::new().to_client(cut);
        let client = cut_session(faults, &small);
        assert_eq!(read(&client.trace).0, at);
    }
    for at in 0..written_whole {
        let cut = Impairment::new().cut_after(at as u64);
        let faults = ByteFaults::new().from_client(cut);
        let client = cut_session(faults, &small);
        assert!(written(&client.trace) >= at);
    }
}

/// A session over a line that is cut within it, maybe while it closes: the close is not answered,
/// so that it is no success.
fn cut_session(faults: ByteFaults, bodies: &[Vec<u8>]) -> Client {
    let mut rig = Rig::new(0);
    rig.faults_of_next(faults);
    let client = rig.begin();
    let begun = rig.now();
    let connection = client.connection.clone();
    let closed = rig.spawn(async move { connection.closed().await });
    let task = rig.spawn(session(client.connection.clone(), bodies.to_vec()));
    let result = rig.wait(&task);
    let reason = rig.wait(&closed);
    assert!(
        matches!(
            reason.cause(),
            CloseCause::Eof { .. } | CloseCause::Transport { .. }
        ),
        "{reason}, {faults:?}"
    );
    assert!(result.is_err(), "{faults:?}");
    rig.wait(&client.ours);
    rig.wait(&client.theirs);
    assert_eq!(rig.now(), begun, "nobody waited for a timeout");
    assert!(rig.broker.inspect().connections.is_empty());
    client
}

#[test]
fn an_idle_connection_is_cut_at_once() {
    for faults in [
        ByteFaults::new().to_client(Impairment::new().cut_after(0)),
        ByteFaults::new().from_client(Impairment::new().cut_after(0)),
        ByteFaults::both(stall()).from_client(Impairment::new().cut_after(0)),
    ] {
        let mut rig = Rig::new(0);
        let client = rig.connect();
        rig.settle();
        rig.faults(client.key, faults);
        rig.settle();
        let reason = client.connection.close_reason();
        let reason = reason.expect("it is over");
        assert!(matches!(reason.cause(), CloseCause::Eof { .. }), "{reason}");
        assert!(client.theirs.is_done());
    }
}

#[test]
fn a_connection_that_is_not_read_from_is_cut_at_once() {
    let mut rig = Rig::new(0);
    let client = rig.connect();
    rig.broker.with(|broker| broker.faults().memory_alarm(true));
    let connection = client.connection.clone();
    rig.complete(async move {
        let channel = connection.open_channel().await?;
        let publish = basic::Publish::default().routing_key("nowhere");
        let properties = basic::Properties::default();
        channel.publish(&publish, &properties, "1").await
    })
    .unwrap();
    rig.settle();
    assert!(client.connection.is_blocked());
    let cut = Impairment::new().cut_after(0);
    rig.faults(client.key, ByteFaults::both(cut));
    rig.settle();
    assert!(client.connection.close_reason().is_some() && client.theirs.is_done());
}

#[test]
fn heartbeats_notice_a_stall_in_two_intervals() {
    for faults in [
        ByteFaults::both(stall()),
        ByteFaults::new().to_client(stall()),
        // The stall begins within a frame.
        ByteFaults::new().to_client(Impairment::new().stall_after(3)),
    ] {
        let mut rig = Rig::new(0);
        let client = rig.connect();
        rig.pass(12 * SECOND);
        let begun = rig.now();
        rig.faults(client.key, faults);
        rig.pass(HEARTBEAT);
        assert_eq!(client.connection.close_reason(), None);
        let connection = client.connection.clone();
        let waiting = rig.spawn(async move { connection.open_channel().await.map(drop) });
        rig.settle();
        let connection = client.connection.clone();
        let reason = rig.complete(async move { connection.closed().await });
        assert!(
            matches!(
                reason.cause(),
                CloseCause::TimedOut(TimeoutReason::PeerSilent)
            ),
            "{reason}"
        );
        assert_eq!(rig.wait(&waiting), Err(Error::ConnectionClosed(reason)));
        assert!(rig.now() - begun <= 2 * HEARTBEAT + HEARTBEAT / 2);
    }
}

#[test]
fn the_end_of_a_connection_is_not_heard_over_a_stalled_line() {
    let mut rig = Rig::new(0);
    let client = rig.connect();
    rig.faults(client.key, ByteFaults::new().to_client(stall()));
    let now = rig.now();
    let key = client.key;
    rig.broker
        .with(|broker| broker.faults().drop_connection(key, now));
    // The broker is through with it in five seconds.
    rig.pass(6 * SECOND);
    assert!(rig.broker.inspect().connections.is_empty());
    assert!(!client.theirs.is_done() && client.connection.is_open());
    // One stall in place of another does not let it through.
    rig.faults(client.key, ByteFaults::both(stall()));
    rig.settle();
    assert!(client.connection.is_open());
    rig.faults(client.key, ByteFaults::new());
    rig.settle();
    let reason = client.connection.close_reason();
    let reason = reason.expect("it is over");
    assert!(matches!(reason.cause(), CloseCause::Eof { .. }), "{reason}");
    assert!(client.theirs.is_done());
}

#[test]
fn everything_goes_on_when_a_stall_is_lifted() {
    let mut rig = Rig::new(0);
    let whole = faulty_session(&mut rig, ByteFaults::new(), &bodies()).trace;
    let (read_whole, written_whole) = (read(&whole).0, written(&whole));
    for number in 0..100 {
        let at = |whole: usize| Impairment::new().stall_after((whole * number / 100) as u64);
        for faults in [
            ByteFaults::new().to_client(at(read_whole)),
            ByteFaults::new().from_client(at(written_whole)),
            ByteFaults::new().from_client(at(written_whole).split(3)),
            ByteFaults::new().to_client(at(read_whole).delay(SECOND / 10)),
        ] {
            let mut rig = Rig::new(number as u64);
            rig.faults_of_next(faults);
            let client = rig.begin();
            let task = rig.spawn(session(client.connection.clone(), bodies()));
            rig.pass(5 * SECOND);
            assert!(!task.is_done(), "{faults:?}");
            rig.faults(client.key, ByteFaults::new());
            let begun = rig.now();
            let delivered = rig.wait(&task);
            assert_eq!(delivered, Ok(bodies()), "{faults:?}");
            assert_eq!(rig.now(), begun);
        }
    }
}

/// How many bytes a pipe holds.
const PIPE: usize = 256 << 10;

#[test]
fn bytes_sent_into_a_stall_are_bounded_and_not_lost() {
    let body: Vec<u8> = (0..5_000_000_u32).map(|it| it as u8).collect();
    for seed in 0..4 {
        let mut rig = Rig::new(seed);
        let client = rig.connect();
        if seed > 0 {
            rig.faults(client.key, ByteFaults::both(split(100_000)));
        }
        let connection = client.connection.clone();
        let published = body.clone();
        let channel = rig.complete(async move {
            let channel = connection.open_channel().await?.confirm_select().await?;
            let declare = queue::Declare::default().queue("large");
            channel.call(declare).await?;
            let publish = basic::Publish::default().routing_key("large");
            let properties = basic::Properties::default();
            let confirm = channel.publish(&publish, &properties, published).await?;
            confirm.await.map_err(|_| Error::TimedOut {
                reason: TimeoutReason::Request,
                channel: None,
            })?;
            Ok::<_, Error>(channel)
        });
        let channel = channel.unwrap();

        // The pipe is full when the stall begins, most likely within a piece.
        let before = read(&client.trace).0;
        client.deaf.set(true);
        let get = rig.spawn(async move {
            let get = basic::Get::default().queue("large");
            Ok::<_, Error>(channel.get(get).await?.map(|it| it.body.to_vec()))
        });
        rig.settle();
        rig.faults(client.key, ByteFaults::new().to_client(stall()));
        client.deaf.set(false);
        rig.settle();
        let come = read(&client.trace).0 - before;
        assert!((PIPE..PIPE + 40_000).contains(&come), "{come}");
        assert!(!get.is_done());
        rig.faults(client.key, ByteFaults::new());
        assert_eq!(rig.wait(&get), Ok(Some(body.clone())));
    }
}

#[test]
fn a_stall_that_is_lifted_while_it_begins_is_lifted() {
    let mut rig = Rig::new(0);
    let stall = Impairment::new().stall_after(100);
    rig.faults_of_next(ByteFaults::new().to_client(stall));
    // The first write is that of the last bytes before the stall.
    let client = rig.begin_with(Some(Box::new(|broker, key| {
        broker.with(|broker| broker.faults().bytes(key, ByteFaults::new()));
    })));
    let task = rig.spawn(session(client.connection, bodies()));
    rig.settle();
    assert_eq!(task.take(), Some(Ok(bodies())));
}

/// A transport that gives the client's greeting and takes nothing.
struct Stuck(&'static [u8]);

impl Transport for Stuck {
    fn poll_read(&mut self, _: &mut Context<'_>, buf: &mut BytesMut) -> Poll<io::Result<usize>> {
        let greeting = std::mem::take(&mut self.0);
        if greeting.is_empty() {
            return Poll::Pending;
        }
        buf.extend_from_slice(greeting);
        Poll::Ready(Ok(greeting.len()))
    }

    fn poll_write(&mut self, _: &mut Context<'_>, _: &mut Transmit) -> Poll<io::Result<usize>> {
        Poll::Pending
    }

    fn poll_flush(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Pending
    }

    fn poll_close(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Pending
    }
}

/// A clock that stands still, and an action of another thread while a driver sets its alarm: the
/// last step before it sleeps.
#[derive(Clone)]
struct Busy(Arc<Mutex<Option<Act>>>);

type Act = Box<dyn FnOnce() + Send>;

impl Timer for Busy {
    fn now(&self) -> Instant {
        Instant::ORIGIN
    }

    fn clock(&self) -> amqp_driver::io::Clock {
        Arc::new(|| Instant::ORIGIN)
    }

    fn poll_deadline(&mut self, _: &mut Context<'_>, _: Option<Instant>) -> Poll<()> {
        let act = self.0.lock().unwrap().take();
        if let Some(act) = act {
            act();
        }
        Poll::Pending
    }
}

#[test]
fn a_connection_that_is_cut_while_its_driver_falls_asleep_has_ended() {
    let rig = Rig::new(0);
    let broker = rig.broker.clone();
    let act = Busy(Arc::default());
    let stuck = Stuck(b"AMQP\0\0\x09\x01");
    let mut driver = pin!(broker.accept(stuck, act.clone()).unwrap());
    let key = driver.endpoint().key();
    let mut poll = || {
        driver
            .as_mut()
            .poll(&mut Context::from_waker(Waker::noop()))
    };
    // It waits for room to write, and for something to read.
    assert!(poll().is_pending());
    let cut = ByteFaults::both(Impairment::new().cut_after(0));
    *act.0.lock().unwrap() = Some(Box::new(move || {
        broker.with(|broker| broker.faults().bytes(key, cut));
    }));
    assert!(poll().is_ready());
}

#[test]
fn the_same_seed_gives_the_same_trace() {
    let trace = |seed, others: usize| {
        let mut rig = Rig::new(seed);
        let line = split(40).delay(Duration::from_millis(3));
        rig.faults_of_next(ByteFaults::both(line));
        let client = rig.begin();
        let begun = rig.now();
        // Others do not change the course of this one.
        for _ in 0..others {
            rig.faults_of_next(ByteFaults::both(split(3)));
            rig.connect();
        }
        rig.complete(session(client.connection.clone(), bodies()))
            .unwrap();
        let trace = client.trace.lock().unwrap();
        trace
            .iter()
            .map(|(at, seen)| (*at - begun, *seen))
            .collect::<Vec<(Duration, Seen)>>()
    };
    let first = trace(1, 0);
    assert!(first.len() > 100);
    assert_eq!(trace(1, 0), first);
    assert_ne!(trace(2, 0), first);
    let pieces = |trace: &[(Duration, Seen)]| {
        let reads = trace.iter().filter_map(|(_, seen)| match seen {
            Seen::Read(count) => Some(*count),
            Seen::Wrote(_) => None,
        });
        reads.collect::<Vec<usize>>()
    };
    let among_others = trace(1, 3);
    assert_eq!(pieces(&among_others), pieces(&first));
}

#[test]
fn only_so_many_of_the_next_connections_are_disturbed() {
    let mut rig = Rig::new(0);
    let before = rig.connect();
    let crumbs = ByteFaults::both(split(1));
    rig.broker.with(|broker| {
        broker.faults().refuse_connects(1);
        broker.faults().bytes_of_next(2, crumbs);
    });
    let (_, theirs) = amqp_driver::io::pipe();
    let clock = rig.clock();
    assert!(rig.broker.accept(theirs, clock).is_err());
    let most = |client: &Client| read(&client.trace).1;
    let disturbed = [rig.connect(), rig.connect()];
    let after = rig.connect();
    assert!(most(&before) > 1 && most(&after) > 1);
    assert!(disturbed.iter().all(|client| most(client) == 1));
}

#[test]
fn a_connection_is_disturbed_while_it_works() {
    let mut rig = Rig::new(0);
    let client = rig.connect();
    let task = rig.spawn(session(client.connection.clone(), bodies()));
    rig.faults(client.key, ByteFaults::both(split(1).delay(SECOND)));
    rig.pass(SECOND);
    rig.faults(client.key, ByteFaults::both(split(5)));
    assert_eq!(rig.wait(&task), Ok(bodies()));
}
