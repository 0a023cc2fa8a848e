//! The thread of a connection: both directions at once, heartbeats, many connections.

#![cfg(feature = "broker")]

use std::{
    error::Error as StdError,
    net::{TcpListener, TcpStream},
    thread,
    time::{Duration, Instant},
};

use amqp_blocking::{
    Blocking, BlockingSocket, Config, Connection, Error, LocalBroker, connect,
    core::{CloseCause, TimeoutReason},
    from_stream,
    io::Runtime as _,
    protocol::{basic, queue},
    serve, within,
};

type Failure = Box<dyn StdError + Send + Sync>;
type Outcome = Result<(), Failure>;

/// The time limit of a step: a hang ends, and a busy machine has the time that it needs.
const PATIENCE: Duration = Duration::from_secs(600);

fn declare(connection: &Connection, name: &str) -> Outcome {
    let channel = connection.open_channel()?;
    channel.call(queue::Declare::default().queue(name))?;
    Ok(())
}

/// Fills a queue with so many messages of a mebibyte.
fn fill(connection: &Connection, name: &str, count: usize) -> Outcome {
    let channel = connection.open_channel()?.confirm_select()?;
    let publish = basic::Publish::default().routing_key(name);
    let body = vec![7; 1 << 20];
    let mut last = None;
    for _ in 0..count {
        last = Some(channel.publish(&publish, &basic::Properties::default(), body.clone())?);
    }
    last.ok_or("nothing was published")?.wait()?;
    Ok(())
}

/// A connection over TCP, with room for so little in the kernel each way. With less than one segment of
/// the loopback interface, TCP itself would wait.
fn over_small_buffers(broker: &LocalBroker) -> Result<Connection, Failure> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let ours = TcpStream::connect(listener.local_addr()?)?;
    let (theirs, _) = listener.accept()?;
    for stream in [&ours, &theirs] {
        let socket = socket2::SockRef::from(stream);
        socket.set_send_buffer_size(64 << 10)?;
        socket.set_recv_buffer_size(64 << 10)?;
    }
    Blocking.spawn(broker.accept(BlockingSocket::from(theirs).into_stream())?);
    Ok(from_stream(ours, Config::default())?)
}

/// Each side has 64 MiB to write, and neither waits for the other one to read.
#[test]
fn two_sides_that_both_write_do_not_deadlock() -> Outcome {
    const COUNT: usize = 64;
    let broker = LocalBroker::default();
    let connection = within(PATIENCE, || over_small_buffers(&broker))?;
    declare(&connection, "down")?;
    declare(&connection, "up")?;
    fill(&broker.connect(Config::default())?, "down", COUNT)?;

    let publisher = connection.clone();
    let publishing = thread::spawn(move || within(PATIENCE, || fill(&publisher, "up", COUNT)));
    let channel = connection.open_channel()?;
    let consume = basic::Consume::default().queue("down");
    let mut consumer = channel.consume_no_ack(consume)?;
    let taken = within(PATIENCE, || {
        consumer.by_ref().take(COUNT).try_fold(0, |sum, message| {
            message.map(|message| sum + message.body.len())
        })
    });
    assert_eq!(taken, Ok(COUNT << 20));
    publishing
        .join()
        .map_err(|_| "the publisher has failed")??;
    assert_eq!(broker.inspect().vhosts[0].queues.len(), 2);
    Ok(())
}

#[test]
fn a_callback_that_sleeps_keeps_its_connection() -> Outcome {
    let server = serve(TcpListener::bind("127.0.0.1:0")?, LocalBroker::default())?;
    let uri = format!("amqp://{}?heartbeat=1", server.local_addr());
    let connection = connect(&uri)?;
    assert_eq!(connection.tuning().heartbeat, 1);
    declare(&connection, "tasks")?;
    let channel = connection.open_channel()?;
    let publish = basic::Publish::default().routing_key("tasks");
    channel.publish(&publish, &basic::Properties::default(), "slow")?;

    let mut consumer = channel.consume(basic::Consume::default().queue("tasks"))?;
    let delivery = consumer.next().ok_or("no delivery")??;
    thread::sleep(Duration::from_millis(3500));
    delivery.ack()?;
    channel.call(basic::Qos::default())?;
    assert_eq!(server.broker().inspect().vhosts[0].queues[0].unacked, 0);
    connection.close()?;
    Ok(())
}

/// A peer is noticed after two intervals, and the delay of a thread on a busy machine. A delay of
/// more than two further intervals is not the rule.
#[test]
fn a_peer_that_falls_silent_is_noticed_in_two_intervals() -> Outcome {
    let mut took = Vec::new();
    while took.len() < 10 {
        let last = time_of_silence()?;
        if last < Duration::from_secs(4) {
            return Ok(());
        }
        took.push(last);
    }
    Err(format!("{took:?}").into())
}

/// The time from the last byte of a peer until its silence is noticed.
fn time_of_silence() -> Result<Duration, Failure> {
    use amqp_blocking::broker::{ByteFaults, Impairment};

    let server = serve(TcpListener::bind("127.0.0.1:0")?, LocalBroker::default())?;
    let connection = connect(&format!("amqp://{}?heartbeat=1", server.local_addr()))?;
    let key = server.broker().inspect().connections[0].key;
    let stall = ByteFaults::both(Impairment::new().stall_after(0));
    let begun = Instant::now();
    server
        .broker()
        .with(|broker| broker.faults().bytes(key, stall));
    let reason = within(PATIENCE, || connection.closed())?;
    let silent = CloseCause::TimedOut(TimeoutReason::PeerSilent);
    assert_eq!(*reason.cause(), silent);
    Ok(begun.elapsed())
}

/// One of many users: publishes a thousand messages with confirms, and consumes them.
fn session(connection: &Connection) -> Result<usize, Failure> {
    const COUNT: usize = 1000;
    let channel = connection.open_channel()?.confirm_select()?;
    let declared = channel.call(queue::Declare::default().exclusive(true))?;
    let consume = basic::Consume::default().queue(&declared.queue);
    let mut consumer = channel.consume(consume)?;
    let publish = basic::Publish::default().routing_key(&declared.queue);
    let mut confirms = Vec::with_capacity(COUNT);
    for number in 0..COUNT {
        let body = number.to_be_bytes().to_vec();
        confirms.push(channel.publish(&publish, &basic::Properties::default(), body)?);
    }
    for confirm in confirms {
        confirm.wait()?;
    }
    let mut taken = 0_usize;
    for delivery in consumer.by_ref().take(COUNT) {
        let delivery = delivery?;
        if delivery.body.to_vec() != taken.to_be_bytes() {
            return Err("messages have changed places".into());
        }
        delivery.ack()?;
        taken += 1;
    }
    connection.close()?;
    Ok(taken)
}

#[test]
fn two_hundred_connections_of_a_thousand_messages() -> Outcome {
    let broker = LocalBroker::default();
    let mut users = Vec::new();
    for _ in 0..200 {
        let connection = broker.connect(Config::default())?;
        users.push(thread::spawn(move || {
            within(PATIENCE, || session(&connection))
        }));
    }
    let mut messages = 0;
    for user in users {
        messages += user.join().map_err(|_| "a user has failed")??;
    }
    assert_eq!(messages, 200_000);
    Ok(())
}

#[cfg(unix)]
#[test]
fn a_unix_socket_is_a_stream_too() -> Outcome {
    let (ours, theirs) = std::os::unix::net::UnixStream::pair()?;
    let broker = LocalBroker::default();
    Blocking.spawn(broker.accept(BlockingSocket::from(theirs).into_stream())?);
    let connection = from_stream(ours, Config::default())?;
    declare(&connection, "tasks")?;
    fill(&connection, "tasks", 3)?;
    assert_eq!(broker.inspect().vhosts[0].queues[0].ready, 3);
    Ok(connection.close()?)
}

/// The driver of a connection is polled here first, and goes on in another thread.
#[test]
fn a_stream_follows_its_driver_to_another_thread() -> Outcome {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let ours = TcpStream::connect(listener.local_addr()?)?;
    let (theirs, _) = listener.accept()?;
    let mut driver = LocalBroker::default().accept(BlockingSocket::from(theirs).into_stream())?;
    amqp_blocking::block_on(async {
        let mut turns = 0;
        std::future::poll_fn(|cx| {
            turns += 1;
            assert!(std::pin::Pin::new(&mut driver).poll(cx).is_pending());
            if turns < 2 {
                cx.waker().wake_by_ref();
                return std::task::Poll::Pending;
            }
            std::task::Poll::Ready(())
        })
        .await;
    });
    Blocking.spawn(driver);
    let connection = within(PATIENCE, || from_stream(ours, Config::default()))?;
    declare(&connection, "tasks")?;
    Ok(connection.close()?)
}

#[test]
fn a_stream_that_is_not_connected_is_an_error_that_says_so() -> Outcome {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None)?;
    let failed = within(PATIENCE, || {
        from_stream(TcpStream::from(socket), Config::default())
    });
    let Err(Error::ConnectionClosed(reason)) = failed else {
        return Err("there is nobody at the other end".into());
    };
    assert!(
        matches!(reason.cause(), CloseCause::Transport { .. }),
        "{reason}"
    );
    Ok(())
}
