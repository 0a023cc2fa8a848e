//! Calls that block: how long, and how they end.

#![cfg(feature = "broker")]

use std::{
    error::Error as StdError,
    future::{Future as _, poll_fn},
    net::TcpListener,
    pin::pin,
    task::Poll,
    thread,
    time::{Duration, Instant},
};

use amqp_blocking::{
    BaseChannel, Config, ConfirmError, ConnectError, Connection, Error, LocalBroker, Unconfirmed,
    block_on,
    broker::ConfirmFault,
    connect, connect_with,
    core::TimeoutReason,
    protocol::{ReplyCode, basic, queue},
    serve, within,
};

type Failure = Box<dyn StdError + Send + Sync>;
type Outcome = Result<(), Failure>;

/// A time in which nothing happens.
const SHORT: Duration = Duration::from_millis(30);

/// The time limit of steps that end at once.
const PATIENCE: Duration = Duration::from_secs(60);

fn open() -> Result<(LocalBroker, Connection), Failure> {
    let broker = LocalBroker::default();
    let connection = broker.connect(Config::default())?;
    Ok((broker, connection))
}

fn declare(channel: &BaseChannel, name: &str) -> Result<(), Error> {
    channel
        .call(queue::Declare::default().queue(name))
        .map(drop)
}

fn to(name: &str) -> Result<basic::Publish, Error> {
    Ok(basic::Publish::default().routing_key(name).mandatory(true))
}

/// A listener that lets connections wait in its backlog, and says nothing.
fn silent() -> Result<(TcpListener, String), Failure> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let uri = format!("amqp://{}", listener.local_addr()?);
    Ok((listener, uri))
}

#[test]
fn connecting_ends_with_the_limit() -> Outcome {
    let (_listener, uri) = silent()?;
    let begun = Instant::now();
    let connected = within(SHORT, || connect(&uri));
    // The time limit of the handshake ends with another error.
    assert!(begun.elapsed() >= SHORT && begun.elapsed() < PATIENCE);
    assert!(matches!(connected, Err(ConnectError::TimedOut)));
    Ok(())
}

#[test]
fn connecting_ends_with_the_handshakes_timeout() -> Outcome {
    let (_listener, uri) = silent()?;
    let mut options = amqp_blocking::Options::from_uri(&uri)?;
    options.config.timeouts.handshake = SHORT;
    let connected = connect_with(&options);
    assert!(matches!(
        connected,
        Err(ConnectError::NotOpened {
            error: Error::ConnectionClosed(_),
            ..
        })
    ));
    Ok(())
}

#[test]
fn every_call_ends_with_the_limit_and_can_be_made_again() -> Outcome {
    let (broker, connection) = open()?;
    let channel = connection.open_channel()?;
    declare(&channel, "tasks")?;
    let mut consumer = channel.consume(basic::Consume::default().queue("tasks"))?;
    let pool = connection.channel_pool(1)?;
    let taken = pool.checkout()?;

    // Nothing is delivered, no channel is put back, the connection does not end.
    let timed_out = Err(Error::TimedOut {
        reason: TimeoutReason::Call,
        channel: None,
    });
    let limited = within(SHORT, || consumer.next());
    assert!(matches!(limited, Some(Err(Error::TimedOut { .. }))));
    assert_eq!(within(SHORT, || pool.checkout().map(drop)), timed_out);
    assert_eq!(within(SHORT, || connection.closed().map(drop)), timed_out);
    let scope = || connection.scope(std::future::pending::<()>());
    assert_eq!(within(SHORT, scope), timed_out);

    // The server holds publishing back, once it has noticed.
    let publish = || channel.publish(&to("tasks")?, &basic::Properties::default(), "one");
    broker.with(|broker| broker.faults().memory_alarm(true));
    publish()?;
    let begun = Instant::now();
    while !connection.is_blocked() && begun.elapsed() < PATIENCE {
        thread::sleep(Duration::from_millis(1));
    }
    assert_eq!(within(SHORT, publish), timed_out);
    broker.with(|broker| broker.faults().memory_alarm(false));

    within(PATIENCE, publish)?;
    for delivery in within(PATIENCE, || consumer.by_ref().take(2).collect::<Vec<_>>()) {
        let delivery = delivery?;
        assert_eq!(delivery.body.to_vec(), b"one");
        delivery.ack()?;
    }
    drop(taken);
    within(PATIENCE, || pool.checkout())?;
    Ok(connection.close()?)
}

#[test]
fn a_confirm_that_is_late_can_be_waited_for_once_more() -> Outcome {
    use amqp_blocking::broker::{ByteFaults, Impairment};

    let (broker, connection) = open()?;
    let channel = connection.open_channel()?.confirm_select()?;
    declare(&channel, "tasks")?;
    let key = broker.inspect().connections[0].key;
    let stall = ByteFaults::new().to_client(Impairment::new().stall_after(0));
    broker.with(|broker| broker.faults().bytes(key, stall));
    let confirm = channel.publish(&to("tasks")?, &basic::Properties::default(), "one")?;
    let Err(ConfirmError::TimedOut(confirm)) = within(SHORT, || confirm.wait()) else {
        return Err("the line was not stalled".into());
    };
    broker.with(|broker| broker.faults().bytes(key, ByteFaults::new()));
    within(PATIENCE, || confirm.wait())?;

    let lost = channel.publish(&to("nowhere")?, &basic::Properties::default(), "two")?;
    let reported = within(PATIENCE, || lost.wait());
    assert!(matches!(
        reported,
        Err(ConfirmError::Unconfirmed(Unconfirmed::Returned(_)))
    ));
    Ok(())
}

#[test]
fn the_limit_that_ends_first_counts_and_ends_with_its_calls() -> Outcome {
    let (_broker, connection) = open()?;
    let begun = Instant::now();
    within(SHORT, || {
        // All calls together, not each of them.
        for _ in 0..3 {
            let closed = within(PATIENCE, || connection.closed().map(drop));
            assert_eq!(
                closed,
                Err(Error::TimedOut {
                    reason: TimeoutReason::Call,
                    channel: None
                })
            );
        }
    });
    assert!(begun.elapsed() >= SHORT && begun.elapsed() < PATIENCE);
    let panicked = std::panic::catch_unwind(|| within(Duration::ZERO, || panic!("within a limit")));
    assert!(panicked.is_err());

    // A limit of no time is a look. Another thread has none, and this one has none left.
    let looked = within(Duration::ZERO, || connection.closed().map(drop));
    assert_eq!(
        looked,
        Err(Error::TimedOut {
            reason: TimeoutReason::Call,
            channel: None
        })
    );
    let waiting = connection.clone();
    let waiting = within(SHORT, || thread::spawn(move || waiting.closed()));
    thread::sleep(2 * SHORT);
    connection.close()?;
    let reason = waiting.join().map_err(|_| "it has failed")??;
    assert!(reason.is_clean());
    assert_eq!(connection.closed(), Ok(reason));
    Ok(())
}

#[test]
fn iterators_end_with_the_reason() -> Outcome {
    let (broker, connection) = open()?;
    let channel = connection.open_channel()?;
    for name in ["cancelled", "deleted", "cut"] {
        declare(&channel, name)?;
    }
    let consume = |name| channel.consume(basic::Consume::default().queue(name));
    for number in 0..3_u8 {
        channel.publish(
            &to("cancelled")?,
            &basic::Properties::default(),
            vec![number],
        )?;
    }

    // Cancelled by this side: the delivered messages are yielded, and no error.
    let mut cancelled = consume("cancelled")?;
    let first = cancelled.next().ok_or("no delivery")??;
    assert_eq!(first.body.to_vec(), [0]);
    cancelled.cancel()?;
    let rest: Result<Vec<_>, Error> = within(PATIENCE, || cancelled.collect());
    assert_eq!(rest?.len(), 2);

    // Cancelled by the server.
    let mut deleted = consume("deleted")?;
    channel.call(queue::Delete::default().queue("deleted"))?;
    let reason = within(PATIENCE, || deleted.next());
    assert!(matches!(
        reason,
        Some(Err(Error::ConsumerCancelled { tag, .. })) if tag == *deleted.tag()
    ));
    assert!(deleted.next().is_none());

    // Cut off while a thread waits.
    let mut cut = channel.consume_no_ack(basic::Consume::default().queue("cut"))?;
    let mut returns = channel.returns();
    let waiting = thread::spawn(move || (cut.next().map(|it| it.map(drop)), cut.next().is_none()));
    let listening = thread::spawn(move || (returns.next().is_none(), returns.error()));
    thread::sleep(SHORT);
    broker.close_connections("maintenance");
    let (reason, ended) = waiting.join().map_err(|_| "it has failed")?;
    let Some(Err(reason)) = reason else {
        return Err("it has ended without a reason".into());
    };
    assert_eq!(reason.code(), Some(ReplyCode::CONNECTION_FORCED));
    assert!(ended);
    let of_returns = listening.join().map_err(|_| "it has failed")?;
    assert_eq!(of_returns, (true, Some(reason)));
    Ok(())
}

#[test]
fn returned_messages_are_iterated_over() -> Outcome {
    let (_broker, connection) = open()?;
    let channel = connection.open_channel()?;
    let mut returns = channel.returns();
    assert!(within(SHORT, || returns.next()).is_none());
    assert!(returns.error().is_none());
    channel.publish(&to("nowhere")?, &basic::Properties::default(), "lost")?;
    let lost = within(PATIENCE, || returns.next()).ok_or("nothing came back")?;
    assert_eq!(lost.code, ReplyCode::NO_ROUTE);
    Ok(())
}

/// The handles of each kind, as the common handle.
#[test]
fn special_channels_have_the_calls_of_every_channel() -> Outcome {
    let (_broker, connection) = open()?;
    let channel = connection.open_channel()?.tx_select()?;
    declare(&channel, "tasks")?;
    let get = || basic::Get::default().queue("tasks");
    channel.publish(&to("tasks")?, &basic::Properties::default(), "taken back")?;
    channel.rollback()?;
    assert!(channel.get(get())?.is_none());
    channel.publish(&to("tasks")?, &basic::Properties::default(), "kept")?;
    channel.commit()?;
    let fetched = channel.get(get())?.ok_or("nothing was committed")?;
    assert_eq!(fetched.body.to_vec(), b"kept");
    fetched.acker.ok_or("it needs no acknowledgement")?.ack()?;
    channel.commit()?;
    assert_eq!(channel.connection().channel_count(), 1);
    let stats = channel.stats().ok_or("the channel has ended")?;
    assert_eq!((stats.published, stats.unacked), (2, 0));
    assert_eq!(channel.connection().stats().fetched, 1);
    channel.close()?;
    assert!(!channel.is_open());

    let pool = connection.channel_pool(2)?;
    let pooled = pool.checkout()?;
    assert_eq!((pool.size(), pool.idle()), (2, 1));
    let confirm = pooled.publish(&to("tasks")?, &basic::Properties::default(), "confirmed")?;
    assert_eq!(confirm.seq().map(|seq| seq.get()), Some(1));
    confirm.wait()?;
    declare(&pooled, "more")?;

    // The same handles, for calls that exist on the asynchronous ones.
    let tuned = connection.as_async().tuning();
    let again = Connection::from(connection.into_async());
    assert_eq!(again.tuning(), tuned);
    assert_eq!(again.scope(async { 42 })?, 42);
    again.opened()?;
    Ok(again.close()?)
}

/// When the last handle of a connection is gone, the server has all that was published on it.
#[test]
fn dropping_the_last_handle_waits_for_the_close() -> Outcome {
    let server = serve(TcpListener::bind("127.0.0.1:0")?, LocalBroker::default())?;
    for (round, len) in (1..).zip([10, 1 << 20]) {
        let connection = connect(&format!("amqp://{}", server.local_addr()))?;
        let channel = connection.open_channel()?;
        declare(&channel, "tasks")?;
        for _ in 0..20 {
            channel.publish(&to("tasks")?, &basic::Properties::default(), vec![7; len])?;
        }
        drop(connection);
        drop(channel);
        let ready = server.broker().inspect().vhosts[0].queues[0].ready;
        assert_eq!(ready, 20 * round);
    }
    Ok(())
}

#[test]
fn requests_have_names() -> Outcome {
    let (_broker, connection) = open()?;
    let channel = connection.open_channel()?;
    let declared = channel.queue_declare(queue::Declare::default().queue("tasks"))?;
    assert_eq!(declared.queue, "tasks");
    channel.basic_qos(basic::Qos::default().prefetch_count(10))?;
    let deleted = channel.queue_delete(queue::Delete::default().queue("tasks"))?;
    assert_eq!(deleted.message_count, 0);
    Ok(())
}

/// A future that blocks while another one waits does not keep the connection from being driven.
#[test]
fn a_blocking_call_in_a_future_beside_one_that_waits_is_answered() -> Outcome {
    let server = serve(TcpListener::bind("127.0.0.1:0")?, LocalBroker::default())?;
    let uri = format!("amqp://{}", server.local_addr());
    let connection = connect(&uri)?;
    let channel = connection.open_channel()?;
    declare(&channel, "tasks")?;
    let _consumer = channel.consume(basic::Consume::default().queue("tasks"))?;
    let confirmed = connection.open_channel()?.confirm_select()?;
    let other = connect(&uri)?.open_channel()?;

    let lost = ConfirmFault::DropNext(1);
    server
        .broker()
        .with(|broker| broker.faults().confirms(lost));
    let none = basic::Properties::default();
    let nowhere = basic::Publish::default().routing_key("nowhere");
    let confirm = confirmed.publish(&nowhere, &none, "without a confirm")?;
    let mut confirm = pin!(confirm.into_async());
    let mut polls = 0;
    let answered = block_on(poll_fn(|cx| {
        polls += 1;
        assert!(confirm.as_mut().poll(cx).is_pending());
        if polls == 1 {
            // Wakes the thread, which waits with the driver, and no future.
            let published = other.publish(&to("tasks").expect("it is short"), &none, "delivered");
            published.expect("there is room");
            return Poll::Pending;
        }
        Poll::Ready(within(PATIENCE / 6, || declare(&channel, "tasks")))
    }));
    Ok(answered?)
}
