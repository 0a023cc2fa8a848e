//! The publisher and calls, with plain threads.

#![cfg(feature = "broker")]

use std::{
    collections::BTreeSet,
    error::Error as StdError,
    sync::{Arc, Barrier, Mutex, mpsc},
    thread,
    time::Duration,
};

use amqp_blocking::{
    Config, Connection, LocalBroker,
    broker::ConfirmFault,
    in_thread,
    protocol::{basic, queue},
    publishing::{
        Acknowledgements, NotPublishedReason, Outcome, OutgoingMessage, Publisher,
        PublisherOptions, Window,
    },
    rpc::{Client, ClientOptions, HandlerError, Reply, RpcError, Server},
    within,
};

type Failure = Box<dyn StdError + Send + Sync>;
type Tested = Result<(), Failure>;

const PATIENCE: Duration = Duration::from_secs(60);

fn open() -> Result<(LocalBroker, Connection), Failure> {
    let broker = LocalBroker::default();
    let connection = broker.connect(Config::default())?;
    Ok((broker, connection))
}

fn message(queue: &str, body: impl ToString) -> OutgoingMessage {
    let to = basic::Publish::default().routing_key(queue);
    let to = to.mandatory(true);
    OutgoingMessage::new(to, body.to_string())
}

#[test]
fn outcomes_are_waited_for_and_iterated_over() -> Tested {
    let (_broker, connection) = open()?;
    let channel = connection.open_channel()?;
    let own = queue::Declare::default().exclusive(true);
    let queue = channel.call(own)?.queue;
    let window = Window {
        messages: 10,
        bytes: 1 << 20,
    };
    let options = PublisherOptions::default().window(window);
    let publisher = Publisher::open(channel, Acknowledgements::On, options)?;
    let receipt = publisher.publish(message(&queue, "one"))?;
    receipt.wait()?.acked()?;
    let receipt = publisher.publish(message("nowhere", "two"))?;
    assert!(matches!(receipt.wait()?, Outcome::Returned(_)));
    let many = publisher.publish_many((0..500).map(|number| message(&queue, number)));
    assert!(many.map(Outcome::acked).all(|it| it.is_ok()));
    let receipts = [publisher.try_publish(message(&queue, 0))?];
    assert_eq!(publisher.wait_all(receipts)?, [Outcome::Acked]);
    publisher.settled()?;
    assert_eq!(publisher.in_flight(), 0);
    let look = queue::Declare::default().queue(&queue).passive(true);
    assert_eq!(publisher.channel().call(look)?.message_count, 502);
    Ok(connection.close()?)
}

#[test]
fn a_receipt_is_waited_for_again_after_the_limit() -> Tested {
    let (broker, connection) = open()?;
    let channel = connection.open_channel()?.confirm_select()?;
    let window = Window {
        messages: 1,
        bytes: 1 << 20,
    };
    let own = queue::Declare::default().exclusive(true);
    let queue = channel.call(own)?.queue;
    let options = PublisherOptions::default().window(window);
    let publisher = Publisher::new(channel, options);
    broker.with(|broker| broker.faults().confirms(ConfirmFault::DropNext(1)));
    let unconfirmed = message(&queue, "x").confirm_timeout(Duration::from_secs(2));
    let receipt = publisher.publish(unconfirmed)?;
    let refused = publisher.try_publish(message(&queue, "y"));
    let refused = refused.expect_err("the window is full");
    assert_eq!(refused.reason, NotPublishedReason::WindowFull);
    let limit = Duration::from_millis(30);
    let blocked = within(limit, || publisher.publish(message(&queue, "y")));
    assert!(blocked.is_err());
    let late = within(limit, || receipt.wait()).expect_err("nothing answers");
    assert!(matches!(late.0.wait()?, Outcome::Unknown(_)));
    assert_eq!(
        publisher.publish(message(&queue, "y"))?.wait()?,
        Outcome::Acked
    );
    Ok(connection.close()?)
}

#[test]
fn threads_share_a_publisher() -> Tested {
    let (_broker, connection) = open()?;
    let channel = connection.open_channel()?;
    let own = queue::Declare::default().exclusive(true);
    let queue = channel.call(own)?.queue;
    let window = Window {
        messages: 16,
        bytes: 1 << 20,
    };
    let options = PublisherOptions::default().window(window);
    let publisher = Publisher::open(channel, Acknowledgements::On, options)?;
    thread::scope(|scope| {
        for at in 0..8 {
            let (publisher, queue) = (&publisher, &queue);
            scope.spawn(move || {
                for number in 0..300 {
                    let receipt = publisher.publish(message(queue, at * 1000 + number));
                    let receipt = receipt.expect("there is no limit");
                    if number % 3 > 0 {
                        let outcome = receipt.wait().expect("there is no limit");
                        assert_eq!(outcome, Outcome::Acked);
                    }
                }
            });
        }
    });
    within(PATIENCE, || publisher.settled())?;
    let look = queue::Declare::default().queue(&queue).passive(true);
    assert_eq!(publisher.channel().call(look)?.message_count, 2400);
    Ok(connection.close()?)
}

/// Handlers run side by side, each on a thread, up to the limit.
#[test]
fn calls_are_answered_by_threads() -> Tested {
    let (broker, connection) = open()?;
    let channel = connection.open_channel()?;
    channel.call(queue::Declare::default().queue("requests"))?;
    let server = Server::open(channel, basic::Consume::default().queue("requests"), 2)?;
    let (stop, stopped) = mpsc::channel::<()>();
    let stopped = in_thread("stop", move || {
        let _stop = stopped.recv();
    })?;
    let both = Arc::new(Barrier::new(2));
    let threads = Arc::new(Mutex::new(BTreeSet::new()));
    let (meeting, noting) = (Arc::clone(&both), Arc::clone(&threads));
    let serving = thread::spawn(move || {
        server.serve_until(stopped, move |request| {
            let id = format!("{:?}", thread::current().id());
            noting.lock().expect("nothing panics").insert(id);
            match &request.body.to_vec()[..] {
                b"meet" => {
                    meeting.wait();
                }
                b"fail" => return Err(HandlerError::new(42, "out of ink")),
                b"panic" => panic!("the test asks for it"),
                _ => {}
            }
            Ok(Reply::new(request.body))
        })
    });
    let caller = broker.connect(Config::default())?;
    let client = Client::direct(caller.open_channel()?, ClientOptions::default())?;
    let call = |body: &str| client.call(message("requests", body), PATIENCE);
    thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| assert_eq!(call("meet").expect("it is answered").body, "meet"));
        }
    });
    assert!(threads.lock().expect("nothing panics").len() >= 2);
    let remote = |code, text: &str| RpcError::Remote {
        code,
        text: text.into(),
    };
    assert_eq!(
        call("fail").expect_err("it fails"),
        remote(42, "out of ink")
    );
    let panicked = remote(HandlerError::INTERNAL, "the handler panicked");
    assert_eq!(call("panic").expect_err("it panics"), panicked);
    let own = queue::Declare::default().exclusive(true);
    let over_queue = Client::over_queue(caller.open_channel()?, own, ClientOptions::default())?;
    let reply = over_queue.call(message("requests", "hello"), PATIENCE)?;
    assert_eq!(reply.body, "hello");
    let limit = Duration::from_millis(30);
    let late = within(limit, || call("meet"));
    assert_eq!(late.expect_err("it waits for another"), RpcError::TimedOut);
    assert_eq!(call("meet")?.body, "meet");
    stop.send(())?;
    serving.join().expect("it does not panic")?;
    Ok(caller.close()?)
}
