//! puka's scenarios.

use std::{
    cell::RefCell,
    collections::BTreeSet,
    io::{Read as _, Write as _},
    net::TcpListener,
    rc::Rc,
    thread,
    time::{Duration, Instant},
};

use amqp_blocking::{
    Config, ConnectError, Error as CallError, LocalBroker, Requeue, Unconfirmed, broker,
    core::{CloseCause, Limits, NotAmqp},
    protocol::{ReplyCode, basic, queue},
    publishing::Acknowledgements,
    select::{self, Answer, Client, Error, Promise, PublishError},
    serve,
    wire::FieldTable,
};

use bytes::Bytes;

use crate::tools::*;

#[test]
fn a_host_that_cannot_be_resolved_is_named() {
    let (mut client, connected) = select::connect("amqp://nobody.invalid").expect("it is a URI");
    let error = soon_error(&mut client, connected);
    assert!(matches!(error, Error::Connect(_)), "{error}");
    assert!(error.to_string().contains("nobody.invalid"), "{error}");
    let error = select::connect("amqp://host:port").expect_err("that is no port");
    assert!(matches!(error, ConnectError::Uri(_)), "{error}");
}

#[test]
fn a_port_without_a_listener_refuses() {
    let uri = format!("amqp://{}", nowhere());
    let (mut client, connected) = select::connect(&uri).expect("it is a URI");
    let declared = client.call(declaration("q")).expect("it may yet be opened");
    let published = throw(&mut client, "", "q", "");
    for promise in [connected, declared, published] {
        let error = soon_error(&mut client, promise);
        assert!(matches!(error, Error::Connect(_)), "{error}");
        assert!(error.to_string().contains("refused"), "{error}");
    }
    let error = client.run().expect_err("there is no connection");
    assert!(error.to_string().contains("refused"), "{error}");
    assert!(client.call(declaration("q")).is_err());
}

#[test]
fn a_wrong_password_is_reported() {
    let server = broker();
    let uri = format!("amqp://guest:wrong@{}", server.local_addr());
    let (mut client, connected) = select::connect(&uri).expect("it is a URI");
    let why = reason(soon_error(&mut client, connected));
    assert_eq!(why.code(), Some(ReplyCode::ACCESS_REFUSED), "{why}");
}

#[test]
fn a_hundred_queues_at_once() {
    let server = broker();
    let mut client = connect(&server);
    let names: Vec<_> = (0..100).map(|number| format!("q{number}")).collect();
    let declared: Vec<_> = names
        .iter()
        .map(|name| client.call(declaration(name)).expect("it is open"))
        .collect();
    for (promise, name) in declared.into_iter().zip(&names) {
        let declared: Option<queue::DeclareOk> = soon(&mut client, promise).reply();
        assert_eq!(declared.expect("it is that").queue, name.as_str());
    }
    let deleted: Vec<_> = names
        .iter()
        .map(|name| client.call(deletion(name)).expect("it is open"))
        .collect();
    for promise in deleted.into_iter().rev() {
        let deleted: Option<queue::DeleteOk> = soon(&mut client, promise).reply();
        assert_eq!(deleted.expect("it is that").message_count, 0);
    }
}

#[test]
fn callbacks_alone_go_all_the_way() {
    let server = broker();
    let (mut client, connected) = connecting(&server, Config::default());
    let steps = Rc::new(RefCell::new(Vec::new()));
    let log = Rc::clone(&steps);
    /// Each step begins the next, from within its callback.
    fn next(client: &mut Client, promise: Promise, step: usize, log: Rc<RefCell<Vec<usize>>>) {
        let then = client.on(promise, move |client, result| {
            let answer = result.expect("it is no error");
            log.borrow_mut().push(step);
            let promise = match step {
                0 => client.call(declaration("q")).expect("it is open"),
                1 => throw(client, "", "q", "called back"),
                2 => {
                    let get = basic::Get::default().queue("q");
                    client.get(get).expect("it is open")
                }
                3 => {
                    let message = answer.message().expect("it is there");
                    assert_eq!(message.body, "called back");
                    message.ack().expect("its channel is open");
                    client.call(deletion("q")).expect("it is open")
                }
                _ => return client.stop(),
            };
            next(client, promise, step + 1, Rc::clone(&log));
        });
        then.expect("it is to come");
    }
    next(&mut client, connected, 0, log);
    client.run().expect("it was stopped");
    assert_eq!(*steps.borrow(), [0, 1, 2, 3, 4]);
    assert!(client.closed().is_none());
}

#[test]
fn a_consumer_ends_once_when_the_client_closes() {
    let server = broker();
    let mut client = connect(&server);
    declare(&mut client, "q");
    let consumer = consume_multi(&mut client, &["q"], 0);
    let ends = Rc::new(RefCell::new(Vec::new()));
    let reported = Rc::clone(&ends);
    let then = client.on(consumer, move |_, result| {
        reported.borrow_mut().push(result)
    });
    then.expect("it is to come");
    let closed = client.close().expect("it is open");
    client.run().expect("it ends in good order");
    assert!(matches!(client.take(closed), Some(Ok(Answer::Closed))));
    let [Err(error)] = &ends.borrow()[..] else {
        panic!("it is reported once: {ends:?}");
    };
    assert!(error.is_clean(), "{error}");
    assert!(!client.needs_write());
    // The driver still awaits the end of the server's stream, for a second at most.
    while let Some(timeout) = client.next_timeout() {
        assert!(timeout <= Duration::from_secs(1), "{timeout:?}");
        thread::sleep(Duration::from_millis(1));
        client.on_readable();
    }
}

#[test]
fn acknowledgements_before_a_wait_have_left() {
    let server = broker();
    let mut observer = connect(&server);
    declare(&mut observer, "q");
    // The step between the last acknowledgement and the cut of the connection: nothing, a wait, the
    // end of a run.
    for (follows, left) in [("nothing", 1), ("wait", 0), ("run", 0)] {
        for body in ["1", "2", "3"] {
            put(&mut observer, "q", body);
        }
        let mut client = connect(&server);
        let consumer = consume_multi(&mut client, &["q"], 10);
        if follows == "run" {
            let then = client.on(consumer, |client, result| {
                let message = result.ok().and_then(Answer::message);
                let message = message.expect("it is a message");
                if message.body == "3" {
                    client.stop();
                }
                message.ack().expect("its channel is open");
            });
            then.expect("it is to come");
            client.run().expect("it was stopped");
        } else {
            for body in ["1", "2", "3"] {
                let message = soon_message(&mut client, consumer);
                assert_eq!(message.body, body);
                message.ack().expect("its channel is open");
            }
        }
        if follows == "wait" {
            let nothing = client.wait(consumer, Some(Duration::ZERO));
            assert!(matches!(nothing, Ok(None)));
        }
        drop(client);
        until(|| declare(&mut observer, "q").consumer_count == 0);
        assert_eq!(declare(&mut observer, "q").message_count, left, "{follows}");
        if left > 0 {
            let message = get(&mut observer, "q").expect("it is there");
            assert!(message.redelivered);
            assert_eq!(message.body, "3");
            message.ack().expect("its channel is open");
        }
    }
}

#[test]
fn one_of_each_of_three_queues() {
    let server = broker();
    let mut client = connect(&server);
    let names = ["q1", "q2", "q3"];
    for name in names {
        declare(&mut client, name);
        put(&mut client, name, name);
    }
    let consumes = names.map(|name| consume(name).no_ack(true));
    let consumer = client.consume_multi(consumes.into(), 0);
    let consumer = consumer.expect("it is open");
    let mut seen = BTreeSet::new();
    while seen.len() < 3 {
        if let Answer::Delivered(message) = soon(&mut client, consumer) {
            assert_eq!(message.routing_key, names[message.source]);
            seen.insert(message.source);
            message.ack().expect("it needs none");
        }
    }
    let cancelled = client.cancel(consumer).expect("it runs");
    for promise in [consumer, cancelled] {
        match soon(&mut client, promise) {
            Answer::Cancelled { tags } => assert_eq!(tags.len(), 3),
            other => panic!("it was not cancelled: {other:?}"),
        }
    }
    for name in names {
        assert_eq!(declare(&mut client, name).consumer_count, 0);
    }
    assert_over(&mut client, consumer);
    let over = client.cancel(consumer);
    assert!(matches!(over, Err(Error::NoSuchPromise(it)) if it == consumer));
}

#[test]
fn a_consumer_ends_when_its_queue_is_deleted() {
    let server = broker();
    let mut client = connect(&server);
    declare(&mut client, "q");
    let consumer = consume_multi(&mut client, &["q"], 0);
    delete(&mut client, "q");
    let error = soon_error(&mut client, consumer);
    let Error::Call(CallError::ConsumerCancelled { .. }) = error else {
        panic!("not for the queue: {error}");
    };
    assert_over(&mut client, consumer);
    assert_eq!(declare(&mut client, "q").consumer_count, 0);
}

#[test]
fn at_13_consumers_end_together_and_once() {
    let server = broker();
    for gone in [&["q2"][..], &["q1", "q3"]] {
        let mut client = connect(&server);
        let mut other = connect(&server);
        for name in ["q1", "q2", "q3"] {
            declare(&mut client, name);
        }
        let consumer = consume_multi(&mut client, &["q1", "q2", "q3"], 5);
        let deleted: Vec<_> = gone.iter().map(|name| other.call(deletion(name))).collect();
        for promise in deleted {
            soon(&mut other, promise.expect("it is open"));
        }
        let error = soon_error(&mut client, consumer);
        let Error::Call(CallError::ConsumerCancelled { .. }) = error else {
            panic!("not for the queue: {error}");
        };
        for name in ["q1", "q2", "q3"] {
            assert_eq!(declare(&mut client, name).consumer_count, 0);
        }
        assert_over(&mut client, consumer);
        assert!(client.poll().is_none());
    }
}

#[test]
fn tags_are_unique_and_name_the_queue() {
    let server = broker();
    let mut client = connect(&server);
    let names = ["q1", "q2", "q3"];
    for name in names {
        declare(&mut client, name);
        for body in ["1", "2"] {
            put(&mut client, name, body);
        }
    }
    let tagged = |name, tag| consume(name).consumer_tag(tag);
    let consumes = vec![
        tagged("q1", "t"),
        tagged("q2", "t"),
        tagged("q3", ""),
        tagged("q1", "t"),
    ];
    let consumers = [(); 2].map(|()| client.consume_multi(consumes.clone(), 0));
    let consumers = consumers.map(|consumer| consumer.expect("it is open"));
    let mut tags = BTreeSet::new();
    for _ in 0..6 {
        let (promise, message) = loop {
            let found = client.wait_any(&consumers, SOON).expect("it is to come");
            let (promise, result) = found.expect("it comes in time");
            if let Ok(Answer::Delivered(message)) = result {
                break (promise, message);
            }
        };
        assert_eq!(message.promise, promise);
        assert_eq!(
            message.routing_key,
            ["q1", "q2", "q3", "q1"][message.source]
        );
        let tag = message.consumer_tag.to_string();
        assert!(
            tag.starts_with(&format!("{promise}.{}.", message.source)),
            "{tag}"
        );
        tags.insert((promise, message.source, tag));
        message.ack().expect("its channel is open");
    }
    let of: BTreeSet<_> = tags
        .iter()
        .map(|(promise, source, _)| (promise, source))
        .collect();
    assert_eq!(of.len(), tags.len());
}

#[test]
fn publishes_survive_the_death_of_their_channel() {
    let server = broker();
    let mut client = connect(&server);
    declare(&mut client, "q");
    for round in 1..=2 {
        let first = throw(&mut client, "", "q", "1");
        let second = throw(&mut client, "missing", "q", "2");
        let third = throw(&mut client, "", "q", "3");
        let on_the_new_one = throw(&mut client, "", "q", "4");
        // The server may have closed the channel before it has confirmed the first.
        match client.wait(first, SOON) {
            Ok(answer) => assert!(matches!(answer, Some(Answer::Published))),
            Err(error) => assert_eq!(code(&error), Some(ReplyCode::NOT_FOUND)),
        }
        for promise in [second, third, on_the_new_one] {
            let error = soon_error(&mut client, promise);
            assert_eq!(code(&error), Some(ReplyCode::NOT_FOUND));
        }
        put(&mut client, "q", "later");
        assert_eq!(declare(&mut client, "q").message_count, 2 * round);
    }
}

#[test]
fn a_mandatory_message_without_a_queue_comes_back() {
    let server = broker();
    let mut client = connect(&server);
    for _ in 0..2 {
        let published = throw(&mut client, "", "nowhere", "lost");
        let error = soon_error(&mut client, published);
        let Error::Unconfirmed(Unconfirmed::Returned(returned)) = error else {
            panic!("it went somewhere: {error}");
        };
        assert_eq!(returned.code, ReplyCode::NO_ROUTE);
        assert_eq!(returned.body, "lost");
        declare(&mut client, "elsewhere");
    }
    put(&mut client, "elsewhere", "here");
}

#[test]
fn a_server_without_confirms_is_asked_whether_it_has_handled_a_message() {
    let mut config = broker::Config::default();
    config.server.properties = FieldTable::new();
    let broker = LocalBroker::new(config).expect("it is valid");
    let listener = TcpListener::bind("127.0.0.1:0").expect("there is a port");
    let server = serve(listener, broker).expect("it has an address");
    let mut client = connect(&server);
    client.set_publisher_acknowledgements(Acknowledgements::IfSupported);
    declare(&mut client, "q");
    put(&mut client, "q", "handled");
    let lost = throw(&mut client, "", "nowhere", "lost");
    let error = soon_error(&mut client, lost);
    assert!(matches!(
        error,
        Error::Unconfirmed(Unconfirmed::Returned(_))
    ));
    assert_eq!(declare(&mut client, "q").message_count, 1);
    let stats = client.connection().expect("it is open").stats();
    assert_eq!((stats.confirmed, stats.returned), (0, 1));
}

#[test]
fn fetched_messages_keep_their_channels_until_they_are_settled() {
    let server = broker();
    let mut client = connect(&server);
    declare(&mut client, "q");
    let bodies = ["1", "2", "3", "4"];
    for body in bodies {
        put(&mut client, "q", body);
    }
    let channels = || server.broker().inspect().connections[0].channels.len();
    let fetched: Vec<_> = bodies.iter().map(|_| get(&mut client, "q")).collect();
    assert!(get(&mut client, "q").is_none());
    let before = channels();
    for (message, body) in fetched.into_iter().zip(bodies) {
        let message = message.expect("it is there");
        assert_eq!(message.body, body);
        assert!(!message.redelivered);
        message.ack().expect("its channel is open");
    }
    let declared: Vec<_> = (0..5).map(|_| client.call(declaration("q"))).collect();
    for promise in declared {
        soon(&mut client, promise.expect("it is open"));
    }
    assert_eq!(channels(), before, "those of the messages were used again");
    assert_eq!(declare(&mut client, "q").message_count, 0);
}

#[test]
fn failed_publishes_leave_no_channel_behind() {
    let server = broker();
    let mut client = connect(&server);
    declare(&mut client, "q");
    put(&mut client, "q", "");
    let channels = || server.broker().inspect().connections[0].channels.len();
    let before = channels();
    for _ in 0..2 {
        let published = throw(&mut client, "missing", "", "");
        let error = soon_error(&mut client, published);
        assert_eq!(code(&error), Some(ReplyCode::NOT_FOUND));
    }
    put(&mut client, "q", "");
    assert_eq!(channels(), before);
}

#[test]
fn a_message_is_settled_once_and_on_its_own_channel() {
    let server = broker();
    let mut client = connect(&server);
    declare(&mut client, "q");
    let consumer = consume_multi(&mut client, &["q"], 0);
    put(&mut client, "q", "1");
    // An acknowledgement takes the message: there is no second one.
    let message = soon_message(&mut client, consumer);
    message.reject(Requeue::Yes).expect("its channel is open");
    let message = soon_message(&mut client, consumer);
    assert!(message.redelivered);
    message.ack().expect("its channel is open");
    // That of a message which has gone back is refused here.
    put(&mut client, "q", "2");
    let message = soon_message(&mut client, consumer);
    delete(&mut client, "q");
    soon_error(&mut client, consumer);
    let closed = client.close().expect("it is open");
    soon(&mut client, closed);
    let refused = message.ack().expect_err("it went back");
    assert!(refused.is_clean(), "{refused}");
}

#[test]
fn consuming_from_a_missing_queue_fails_alone() {
    let server = broker();
    let mut client = connect(&server);
    declare(&mut client, "q");
    let consumer = consume_multi(&mut client, &["q"], 0);
    let multi = vec![consume("q"), consume("missing"), consume("q")];
    let failing = client.consume_multi(multi, 1).expect("it is open");
    let error = soon_error(&mut client, failing);
    assert_eq!(code(&error), Some(ReplyCode::NOT_FOUND));
    assert_over(&mut client, failing);
    put(&mut client, "q", "unharmed");
    let message = soon_message(&mut client, consumer);
    message.ack().expect("its channel is open");
    assert_eq!(declare(&mut client, "q").consumer_count, 1);
}

#[test]
fn a_server_of_another_version_is_named() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("there is a port");
    let address = listener.local_addr().expect("it has one");
    let server = thread::spawn(move || {
        let (mut stream, _) = listener.accept().expect("somebody comes");
        stream
            .write_all(b"AMQP\x03\x01\x00\x00")
            .expect("they listen");
        let _until_they_go = stream.read_to_end(&mut Vec::new());
    });
    let uri = format!("amqp://{address}");
    let (mut client, connected) = select::connect(&uri).expect("it is a URI");
    let why = reason(soon_error(&mut client, connected));
    let other = NotAmqp::OtherVersion([3, 1, 0, 0]);
    assert_eq!(why.cause(), &CloseCause::NotAmqp(other));
    drop(client);
    server.join().expect("it did not panic");
}

#[test]
fn nothing_can_be_done_on_a_closed_client() {
    let server = broker();
    let mut client = connect(&server);
    declare(&mut client, "q");
    put(&mut client, "q", "");
    let message = get(&mut client, "q").expect("it is there");
    let closed = client.close().expect("it is open");
    for _ in 0..2 {
        let errors = [
            client.call(declaration("q")).expect_err("it is closed"),
            client.consume(consume("q"), 0).expect_err("it is closed"),
            client.cancel(closed).expect_err("it is closed"),
            client.qos(closed, 1).expect_err("it is closed"),
            client.get(basic::Get::default()).expect_err("it is closed"),
            client.close().expect_err("it is closed"),
        ];
        assert!(errors.iter().all(Error::is_clean), "{errors:?}");
        let publish = basic::Publish::default();
        let refused = client.publish(publish, basic::Properties::default(), "");
        assert!(matches!(refused, Err(PublishError::Closed(_))));
        client.ignore(message.promise);
        // The first time it is closing, the second time it has closed.
        match client.wait(closed, SOON) {
            Ok(answer) => assert!(matches!(answer, Some(Answer::Closed))),
            Err(error) => assert!(matches!(error, Error::NoSuchPromise(it) if it == closed)),
        }
    }
    assert!(matches!(client.wait_any(&[], SOON), Ok(None)));
    message.ack().expect_err("it is closed");
    client.run().expect("it has ended in good order");
}

#[test]
fn a_loop_with_a_limit_runs_callbacks_until_it_is_over() {
    let server = broker();
    let mut client = connect(&server);
    declare(&mut client, "q");
    let called = Rc::new(RefCell::new(0));
    let counted = Rc::clone(&called);
    let first = throw(&mut client, "", "q", "");
    let then = client.on(first, move |client, result| {
        assert!(matches!(result, Ok(Answer::Published)));
        *counted.borrow_mut() += 1;
        let counted = Rc::clone(&counted);
        let second = throw(client, "", "q", "");
        let then = client.on(second, move |_, _| *counted.borrow_mut() += 1);
        then.expect("it is to come");
    });
    then.expect("it is to come");
    let (begun, limit) = (Instant::now(), Duration::from_millis(300));
    let mut runs = 0;
    while *called.borrow() < 2 {
        client.run_for(limit).expect("it is open");
        runs += 1;
        assert!(begun.elapsed() >= runs * limit);
        assert!(begun.elapsed() < PATIENCE, "the callbacks are not called");
    }
    // Without time it takes what is there, and a stop ends it sooner.
    client.run_for(Duration::ZERO).expect("it is open");
    let last = throw(&mut client, "", "q", "");
    client
        .on(last, |client, _| client.stop())
        .expect("it is to come");
    client.run_for(Duration::MAX).expect("it was stopped");
}

#[test]
fn a_loop_with_a_limit_that_is_stopped_waits_no_longer_for_its_output() {
    let server = broker();
    let limits = Limits::default().output_high(64 << 20);
    let mut client = connect_configured(&server, Config::default().limits(limits));
    declare(&mut client, "q");
    let first = throw(&mut client, "", "q", "");
    let broker = server.broker().clone();
    let then = client.on(first, move |client, _| {
        // Nothing is read, and the socket has room for less.
        broker.pause();
        for _ in 0..32 {
            let publish = basic::Publish::default().routing_key("q");
            let body = Bytes::from(vec![0; 1 << 20]);
            let published = client.publish(publish, basic::Properties::default(), body);
            published.expect("there is room");
        }
        client.stop();
    });
    then.expect("it is to come");
    let (begun, limit) = (Instant::now(), Duration::from_millis(300));
    client.run_for(limit).expect("it was stopped");
    assert!(begun.elapsed() >= limit && begun.elapsed() < 30 * limit);
    server.broker().resume();
}

#[test]
fn a_wait_has_the_response_of_its_promise() {
    let server = broker();
    let mut client = connect(&server);
    let declared = client.call(declaration("q")).expect("it is open");
    let then = client.on(declared, |_, _| panic!("the wait has the result"));
    then.expect("it is to come");
    let declared: Option<queue::DeclareOk> = soon(&mut client, declared).reply();
    assert_eq!(declared.map(|it| it.message_count), Some(0));
    assert!(!client.run_callbacks());
}
