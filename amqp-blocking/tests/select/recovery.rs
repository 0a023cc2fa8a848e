//! Clients that lose their connection and get it back, in the same loop.

use std::{cell::RefCell, rc::Rc, time::Duration};

use amqp_blocking::{
    ConnectionState, Error as CallError, Unconfirmed,
    core::CloseCause,
    protocol::{ReplyCode, basic},
    recovery::{Backoff, Policy, RecoveryEvent},
    select::{Answer, Client, Error, Promise, connect_with},
};

use crate::tools::*;

fn persistent() -> basic::Properties {
    basic::Properties::default().persistent()
}

fn publish(client: &mut Client, queue: &str, body: &'static str) -> Promise {
    let publish = basic::Publish::default().routing_key(queue);
    let published = client.publish(publish, persistent(), body);
    published.expect("there is room")
}

/// Publishes until a confirm has come.
fn publish_surely(client: &mut Client, queue: &str, body: &'static str) {
    loop {
        let published = publish(client, queue, body);
        match client.wait(published, SOON) {
            Ok(Some(Answer::Published)) => return,
            Err(Error::Unconfirmed(_)) => {}
            other => panic!("{other:?}"),
        }
    }
}

/// Takes deliveries until that one comes, and acknowledges all.
fn receive(client: &mut Client, consumer: Promise, body: &str) {
    loop {
        let message = soon_message(client, consumer);
        let found = message.body == body;
        match message.ack() {
            Ok(()) if found => return,
            Ok(()) | Err(Error::Call(CallError::Stale)) => {}
            Err(error) => panic!("{error}"),
        }
    }
}

fn state(client: &Client) -> ConnectionState {
    client.connection().expect("it was opened").state()
}

/// Makes turns until the connection is as it should be.
fn turn_until(client: &mut Client, holds: impl Fn(&Client) -> bool) {
    until(|| {
        let nothing = client.wait_any(&[], Some(Duration::from_millis(5)));
        assert!(matches!(nothing, Ok(None)));
        holds(client)
    });
}

fn turn_until_lost(client: &mut Client) {
    turn_until(client, |client| {
        state(client) == ConnectionState::Recovering
    });
}

/// The number of recoveries so far.
fn recoveries(client: &Client) -> usize {
    let mut events = client
        .connection()
        .expect("it was opened")
        .recovery_events();
    let events = std::iter::from_fn(|| events.try_next());
    events
        .filter(|event| matches!(event.event, RecoveryEvent::Recovered(_)))
        .count()
}

#[test]
fn consumers_and_publishes_go_on_over_restarts_and_cuts() {
    let server = broker();
    let relay = Relay::start(server.local_addr()).expect("there is a port");
    let mut client = connect_recovering(relay.address);
    declare(&mut client, "q");
    let consumer = client.consume(consume("q"), 10).expect("it is open");
    assert!(matches!(soon(&mut client, consumer), Answer::Consuming));
    for round in 0..6 {
        for body in ["one", "two"] {
            publish_surely(&mut client, "q", body);
        }
        receive(&mut client, consumer, "two");
        if round % 2 == 0 {
            relay.cut();
        } else {
            server.broker().restart();
        }
        turn_until(&mut client, |client| recoveries(client) == round + 1);
        assert!(client.closed().is_none());
    }
    publish_surely(&mut client, "q", "last");
    receive(&mut client, consumer, "last");
    let closed = client.close().expect("it is open");
    assert!(matches!(soon(&mut client, closed), Answer::Closed));
    assert!(client.closed().is_some_and(|end| end.is_clean()));
}

/// The loop of the program watches one descriptor, and sleeps in between.
#[cfg(unix)]
#[test]
fn the_descriptor_wakes_the_loop_over_a_loss() {
    use std::{os::fd::AsRawFd as _, time::Instant};

    use rustix::event::{PollFd, PollFlags, Timespec, poll};

    let server = broker();
    let relay = Relay::start(server.local_addr()).expect("there is a port");
    let mut client = connect_recovering(relay.address);
    declare(&mut client, "q");
    let consumer = client.consume(consume("q"), 10).expect("it is open");
    assert!(matches!(soon(&mut client, consumer), Answer::Consuming));
    let descriptor = client.as_raw_fd();
    let other = &mut connect(&server);
    for round in 1..4 {
        relay.cut();
        let (mut turns, begun) = (0, Instant::now());
        let mut published = false;
        loop {
            assert!(begun.elapsed() < PATIENCE, "it has not come back");
            turns += 1;
            client.on_writable();
            let limit = client.next_timeout().map(Timespec::try_from);
            let limit = limit.map(|limit| limit.expect("it is no eternity"));
            let mut watched = [PollFd::new(&client, PollFlags::IN)];
            poll(&mut watched, limit.as_ref()).expect("it is a descriptor");
            client.on_readable();
            if recoveries(&client) == round && !published {
                put(other, "q", "wake up");
                published = true;
            }
            if let Some(result) = client.take(consumer) {
                let message = result.expect("it goes on").message().expect("delivered");
                message.ack().expect("its channel is open");
                break;
            }
        }
        assert_eq!(client.as_raw_fd(), descriptor);
        assert!(turns < 200, "{turns}");
    }
}

#[test]
fn commands_during_the_outage_wait_and_publishes_keep_their_order() {
    let server = broker();
    let mut client = connect_recovering(server.local_addr());
    declare(&mut client, "q");
    publish_surely(&mut client, "q", "before");
    server.broker().stop();
    turn_until_lost(&mut client);
    let declared = client.call(declaration("later")).expect("it may be back");
    let bodies = ["0", "1", "2", "3", "4"];
    let published = bodies.map(|body| publish(&mut client, "q", body));
    let got = client.get(basic::Get::default().queue("q"));
    let got = got.expect("it may be back");
    let consumer = client.consume(consume("later"), 1).expect("it may be back");
    for promise in [declared, published[0], got, consumer] {
        assert_silent(&mut client, promise);
    }
    assert!(client.closed().is_none());
    server.broker().start();
    assert!(matches!(soon(&mut client, declared), Answer::Reply(_)));
    for promise in published {
        assert!(matches!(soon(&mut client, promise), Answer::Published));
    }
    let message = soon_message(&mut client, got);
    assert_eq!(message.body, "before");
    message.ack().expect("its channel is open");
    for body in bodies {
        let message = get(&mut client, "q").expect("it was confirmed");
        assert_eq!(message.body, body);
        message.ack().expect("its channel is open");
    }
    client.ignore(consumer);
}

#[test]
fn messages_of_before_are_stale_and_come_again() {
    let server = broker();
    let relay = Relay::start(server.local_addr()).expect("there is a port");
    let mut client = connect_recovering(relay.address);
    declare(&mut client, "q");
    for body in ["1", "2"] {
        publish_surely(&mut client, "q", body);
    }
    let fetched = get(&mut client, "q").expect("it is there");
    let consumer = client.consume(consume("q"), 1).expect("it is open");
    assert!(matches!(soon(&mut client, consumer), Answer::Consuming));
    let delivered = soon_message(&mut client, consumer);
    let channels = client.connection().map(|it| it.channel_count());
    relay.cut();
    turn_until(&mut client, |client| recoveries(client) == 1);
    for message in [fetched, delivered] {
        let stale = message.ack();
        assert!(
            matches!(stale, Err(Error::Call(CallError::Stale))),
            "{stale:?}"
        );
    }
    // The prefetch is restored, too.
    let mut bodies = Vec::new();
    for _ in 0..2 {
        let message = soon_message(&mut client, consumer);
        assert!(message.redelivered);
        assert_silent(&mut client, consumer);
        bodies.push(message.body.to_vec());
        message.ack().expect("its channel is open");
    }
    bodies.sort();
    assert_eq!(bodies, [b"1", b"2"]);
    // The channel of the fetched message is used again.
    declare(&mut client, "q");
    assert_eq!(client.connection().map(|it| it.channel_count()), channels);
}

#[test]
fn consumers_of_several_queues_go_on_with_their_shared_prefetch() {
    let server = broker();
    let relay = Relay::start(server.local_addr()).expect("there is a port");
    let mut client = connect_recovering(relay.address);
    let queues = ["q0", "q1"];
    for queue in queues {
        declare(&mut client, queue);
        publish_surely(&mut client, queue, "work");
    }
    let consumer = consume_multi(&mut client, &queues, 1);
    let before = soon_message(&mut client, consumer);
    relay.cut();
    turn_until(&mut client, |client| recoveries(client) == 1);
    before.ack().expect_err("the server has requeued it");
    let mut sources = Vec::new();
    for _ in queues {
        let message = soon_message(&mut client, consumer);
        assert_silent(&mut client, consumer);
        sources.push(message.source);
        message.ack().expect("its channel is open");
    }
    sources.sort_unstable();
    assert_eq!(sources, [0, 1]);
    let raised = client.qos(consumer, 2).expect("it runs");
    assert!(matches!(soon(&mut client, raised), Answer::Reply(_)));
    let cancelled = client.cancel(consumer).expect("it runs");
    assert!(matches!(
        soon(&mut client, cancelled),
        Answer::Cancelled { .. }
    ));
}

#[test]
fn a_consumer_that_cannot_be_restored_ends_alone() {
    let server = broker();
    let mut client = connect_recovering(server.local_addr());
    let mut other = connect(&server);
    // Not of the client's own topology, and gone after the restart.
    let foreign = other.call(declaration("foreign").durable(false));
    let foreign = foreign.expect("it is open");
    soon(&mut other, foreign);
    declare(&mut client, "own");
    let lost = client.consume(consume("foreign"), 1).expect("it is open");
    let kept = client.consume(consume("own"), 1).expect("it is open");
    for promise in [lost, kept] {
        assert!(matches!(soon(&mut client, promise), Answer::Consuming));
    }
    server.broker().restart();
    let error = soon_error(&mut client, lost);
    assert_eq!(code(&error), Some(ReplyCode::NOT_FOUND), "{error}");
    assert_over(&mut client, lost);
    publish_surely(&mut client, "own", "work");
    receive(&mut client, kept, "work");
}

#[test]
fn a_client_closed_during_the_outage_ends_at_once_with_all_its_promises() {
    let server = broker();
    let hour = Duration::from_secs(3600);
    let backoff = Backoff::default().first(hour).max(hour);
    let patient = recovering(server.local_addr()).recovery(Policy::new(1).backoff(backoff));
    let (mut client, connected) = connect_with(&patient).expect("there are descriptors");
    soon(&mut client, connected);
    declare(&mut client, "q");
    let consumer = client.consume(consume("q"), 1).expect("it is open");
    assert!(matches!(soon(&mut client, consumer), Answer::Consuming));
    server.broker().stop();
    turn_until_lost(&mut client);
    let published = publish(&mut client, "q", "never");
    let called = client.call(declaration("q")).expect("it may be back");
    let closed = client.close().expect("it may be back");
    // The output of the lost connection may not have arrived.
    let why = reason(soon_error(&mut client, closed));
    let forced = Some(ReplyCode::CONNECTION_FORCED);
    assert_eq!(why.code(), forced, "{why}");
    let unsent = soon_error(&mut client, published);
    assert!(
        matches!(unsent, Error::Unconfirmed(Unconfirmed::NotSent(_))),
        "{unsent}"
    );
    for promise in [called, consumer] {
        assert_eq!(reason(soon_error(&mut client, promise)), why);
    }
    assert_eq!(client.closed().map(reason), Some(why));
    assert!(client.poll().is_none());
}

#[test]
fn a_client_closed_before_its_broker_is_there_ends() {
    let options = recovering(nowhere());
    let policy = options.recovery.clone().expect("it recovers");
    let mut options = options.recovery(policy.first_connect(true));
    options.config.timeouts.close = Duration::from_millis(50);
    let (mut client, connected) = connect_with(&options).expect("there are descriptors");
    let called = client.call(declaration("q")).expect("it may be there");
    assert!(matches!(client.wait(called, SILENCE), Ok(None)));
    let closed = client.close().expect("it is not closed");
    for promise in [closed, called, connected] {
        let error = soon_error(&mut client, promise);
        assert!(matches!(error, Error::Closing), "{error}");
    }
}

#[test]
fn a_client_that_gives_up_says_so() {
    let server = broker();
    let policy = recovering(server.local_addr())
        .recovery
        .expect("it recovers");
    let options = recovering(server.local_addr()).recovery(policy.attempts(2));
    let (mut client, connected) = connect_with(&options).expect("there are descriptors");
    soon(&mut client, connected);
    server.broker().stop();
    let ended = client.run().expect_err("it did not end by itself");
    let why = reason(ended);
    assert!(
        matches!(why.cause(), CloseCause::NotRecovered { .. }),
        "{why}"
    );
    assert_eq!(client.closed().map(reason), Some(why));
}

#[test]
fn a_loop_with_a_limit_of_time_goes_on_over_a_loss() {
    let server = broker();
    let mut client = connect_recovering(server.local_addr());
    declare(&mut client, "q");
    let consumer = client.consume(consume("q"), 10).expect("it is open");
    let seen = Rc::new(RefCell::new(Vec::new()));
    let received = Rc::clone(&seen);
    let called_back = client.on(consumer, move |_, result| {
        if let Answer::Delivered(message) = result.expect("it goes on") {
            received.borrow_mut().push(message.body.to_vec());
            message.ack().expect("its channel is open");
        }
    });
    called_back.expect("it is to come");
    for body in ["one", "two"] {
        let count = seen.borrow().len();
        let published = publish(&mut client, "q", body);
        client.ignore(published);
        until(|| {
            client
                .run_for(Duration::from_millis(5))
                .expect("it is open");
            seen.borrow().len() > count
        });
        // A message without an acknowledgement would come again.
        until(|| {
            client
                .run_for(Duration::from_millis(5))
                .expect("it is open");
            let queue = server.broker().with(|broker| broker.queue("/", "q"));
            queue.is_some_and(|it| (it.ready, it.unacked) == (0, 0))
        });
        server.broker().stop();
        until(|| {
            client
                .run_for(Duration::from_millis(20))
                .expect("it may be back");
            state(&client) == ConnectionState::Recovering
        });
        server.broker().start();
    }
    assert_eq!(*seen.borrow(), [b"one", b"two"]);
}
