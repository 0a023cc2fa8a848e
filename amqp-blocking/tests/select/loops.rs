//! Loops, bounds, and ends.

use std::{
    cell::RefCell,
    collections::BTreeSet,
    net::{Shutdown, TcpListener, TcpStream},
    rc::Rc,
    time::{Duration, Instant},
};

use amqp_blocking::{
    Config, Error as CallError, Unconfirmed,
    core::{ApiMisuse, CloseCause, Hold, Limits},
    protocol::{ReplyCode, basic, confirm},
    select::{Answer, Client, Error, PublishError, from_stream},
};
use bytes::Bytes;

use crate::tools::*;

#[test]
fn requests_wait_for_a_channel_unless_none_will_be_free() {
    let server = broker();
    let config = Config::default().channel_max(3);
    let mut client = connect_configured(&server, config);
    let declared: Vec<_> = (0..50)
        .map(|number| client.call(declaration(&format!("q{number}"))))
        .collect();
    for promise in declared {
        soon(&mut client, promise.expect("it is open"));
    }
    put(&mut client, "q1", ""); // takes one for good
    consume_multi(&mut client, &["q2"], 1);
    let kept = get(&mut client, "q1").expect("it is there");
    let refused = client.call(declaration("q")).expect("it is open");
    let published = throw(&mut client, "", "q1", "");
    let none = ApiMisuse::NoFreeChannel { channel_max: 3 };
    let error = soon_error(&mut client, refused);
    assert!(matches!(error, Error::Call(CallError::Misuse(misuse)) if misuse == none));
    assert!(matches!(soon(&mut client, published), Answer::Published));
    kept.ack().expect("its channel is open");
    declare(&mut client, "q");
}

#[test]
fn a_callback_may_wait_and_run_and_is_not_entered_twice() {
    let server = broker();
    let mut client = connect(&server);
    declare(&mut client, "q");
    let consumer = client.consume(consume("q"), 0).expect("it is open");
    let seen = Rc::new(RefCell::new((0, 0)));
    let inside = Rc::clone(&seen);
    let then = client.on(consumer, move |client, result| {
        if let Ok(Answer::Delivered(message)) = result {
            let (entered, count) = *inside.borrow();
            assert_eq!(entered, 0, "it is inside already");
            inside.replace((1, count + 1));
            message.ack().expect("its channel is open");
            declare(client, "q");
            client.run_callbacks();
            inside.replace((0, count + 1));
            if count + 1 == 3 {
                client.stop();
            }
        }
    });
    then.expect("it is to come");
    for _ in 0..3 {
        throw(&mut client, "", "q", "");
    }
    client.run().expect("it was stopped");
    assert_eq!(*seen.borrow(), (0, 3));
}

#[test]
fn every_promise_ends_once_when_the_transport_does() {
    let server = broker();
    let stream = TcpStream::connect(server.local_addr()).expect("somebody listens");
    let scissors = stream.try_clone().expect("there is room");
    let (mut client, _) = from_stream(stream, Config::default()).expect("it is fit");
    declare(&mut client, "q");
    let consumer = consume_multi(&mut client, &["q"], 0);
    let fetching = client.get(basic::Get::default().queue("q"));
    let calling = client.call(declaration("q"));
    let mut promises = BTreeSet::from([
        consumer,
        fetching.expect("it is open"),
        calling.expect("it is open"),
        throw(&mut client, "", "q", ""),
        client.cancel(consumer).expect("it runs"),
    ]);
    while client.poll().is_some() {}
    scissors.shutdown(Shutdown::Both).expect("it is connected");
    let ended = client.run().expect_err("it did not end by itself");
    let why = reason(ended);
    while let Some((promise, result)) = client.poll() {
        assert!(promises.remove(&promise), "it was reported twice");
        let error = result.expect_err("nothing was sent");
        let reported = match error {
            Error::Unconfirmed(Unconfirmed::NotSent(reason)) => reason,
            error => reason(error),
        };
        assert_eq!(reported, why);
    }
    assert_eq!(promises, BTreeSet::new());
    assert_eq!(client.closed().map(reason), Some(why));
}

#[test]
fn a_server_that_falls_silent_is_noticed() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("there is a port");
    let address = listener.local_addr().expect("it has one");
    let mut config = Config::default();
    config.timeouts.handshake = Duration::from_millis(50);
    let stream = TcpStream::connect(address).expect("there is room");
    let (mut client, connected) = from_stream(stream, config).expect("it is fit");
    let _silent = listener.accept().expect("somebody is there");
    let why = reason(soon_error(&mut client, connected));
    assert!(matches!(why.cause(), CloseCause::TimedOut(_)), "{why}");
}

#[test]
fn consumers_that_have_not_begun_can_be_cancelled() {
    let server = broker();
    let (mut client, connected) = connecting(&server, Config::default());
    let declared = client.call(declaration("q")).expect("it may yet be opened");
    let consumes = || vec![consume("q")];
    let early = client.consume_multi(consumes(), 0).expect("it is open");
    let empty = client.consume_multi(Vec::new(), 0).expect("it is open");
    let cancelled = client.cancel(early).expect("it is to begin");
    for promise in [early, cancelled, connected, empty] {
        match soon(&mut client, promise) {
            Answer::Cancelled { tags } => assert!(tags.is_empty()),
            other => assert!(matches!(other, Answer::Connected)),
        }
    }
    soon(&mut client, declared);
    // With its requests under way.
    let late = client.consume_multi(consumes(), 0).expect("it is open");
    client.on_writable();
    let cancelled = client.cancel(late).expect("it is to begin");
    for promise in [late, cancelled] {
        let mut answer = soon(&mut client, promise);
        if promise == late && !answer.is_final() {
            answer = soon(&mut client, promise); // the server was quick: it had begun
        }
        assert!(matches!(answer, Answer::Cancelled { .. }), "{answer:?}");
    }
    assert_eq!(declare(&mut client, "q").consumer_count, 0);
}

#[test]
fn publishes_are_bounded_and_bodies_handed_back() {
    let server = broker();
    let config = Config::default().limits(Limits::default().unconfirmed(3));
    let mut client = connect_configured(&server, config);
    declare(&mut client, "q");
    for _ in 0..2 {
        // The first time they wait for their channel.
        let promises = [(); 3].map(|()| throw(&mut client, "", "q", ""));
        let publish = basic::Publish::default().routing_key("q");
        let refused = client.publish(publish, basic::Properties::default(), "back");
        let Err(PublishError::Full { hold, body }) = refused else {
            panic!("it was accepted: {refused:?}");
        };
        assert_eq!((hold, &*body), (Hold::TooManyUnconfirmed, &b"back"[..]));
        for promise in promises {
            assert!(matches!(soon(&mut client, promise), Answer::Published));
        }
        assert_eq!(client.hold(), None);
    }
}

#[test]
fn deliveries_that_are_not_taken_hold_nothing_up() {
    const COUNT: usize = 80;
    let server = broker();
    let mut client = connect(&server);
    declare(&mut client, "q");
    let body = Bytes::from(vec![0; 1 << 20]);
    for _ in 0..COUNT {
        let publish = basic::Publish::default().routing_key("q");
        let published = client.publish(publish, basic::Properties::default(), body.clone());
        soon(&mut client, published.expect("there is room"));
    }
    let consumer = client.consume(consume("q"), 0).expect("it is open");
    assert!(matches!(soon(&mut client, consumer), Answer::Consuming));
    // Served for a while, and nothing is taken.
    let nothing = client.wait_any(&[], SILENCE);
    assert!(matches!(nothing, Ok(None)));
    let queue = &server.broker().inspect().vhosts[0].queues[0];
    assert_eq!(queue.ready as u64 + queue.unacked, COUNT as u64);
    // An answer finds its way past them.
    declare(&mut client, "q");
    for _ in 0..COUNT {
        let message = soon_message(&mut client, consumer);
        message.ack().expect("its channel is open");
    }
    assert_silent(&mut client, consumer);
}

#[test]
fn ignored_deliveries_are_requeued() {
    let server = broker();
    let mut client = connect(&server);
    declare(&mut client, "q");
    for body in ["1", "2"] {
        let published = throw(&mut client, "", "q", body);
        client.ignore(published);
    }
    until(|| declare(&mut client, "q").message_count == 2);
    let got = client.get(basic::Get::default().queue("q"));
    client.ignore(got.expect("it is open"));
    let consumer = consume_multi(&mut client, &["q"], 1);
    client.ignore(consumer);
    until(|| {
        let declared = declare(&mut client, "q");
        declared.message_count == 2 && declared.consumer_count == 0
    });
    assert!(client.poll().is_none());
}

#[test]
fn the_error_of_a_request_is_the_result_of_its_promise() {
    let server = broker();
    let mut client = connect(&server);
    let leaving_traces = client.call(confirm::Select::default());
    let no_wait = client.call(declaration("q").no_wait(true));
    let reserved = client.call(declaration("amq.mine"));
    for refused in [leaving_traces, no_wait, reserved] {
        let error = soon_error(&mut client, refused.expect("it is open"));
        let Error::Call(CallError::Misuse(_)) = error else {
            panic!("the server was asked: {error}");
        };
    }
    let otherwise = declaration("q").auto_delete(true);
    declare(&mut client, "q");
    for _ in 0..2 {
        let refused = client.call(otherwise.clone()).expect("it is open");
        let error = soon_error(&mut client, refused);
        assert_eq!(code(&error), Some(ReplyCode::PRECONDITION_FAILED));
    }
    declare(&mut client, "q");
}

/// `poll(2)` over two clients; each publishes the messages that the other consumes.
#[cfg(unix)]
#[test]
fn two_clients_in_one_loop_of_the_program() {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};

    const MESSAGES: usize = 100;
    let server = broker();
    let names = ["q0", "q1"];
    let (mut clients, mut received) = (Vec::new(), [0; 2]);
    for (name, other) in [("q0", "q1"), ("q1", "q0")] {
        let (mut client, _) = connecting(&server, Config::default());
        // Commands may be given before the connection is open.
        for name in [name, other] {
            client
                .call(declaration(name))
                .expect("it may yet be opened");
        }
        clients.push(client);
    }
    let (start, mut consuming, mut replies) = (Instant::now(), [false; 2], [0; 2]);
    loop {
        assert!(start.elapsed() < PATIENCE, "{received:?}");
        for (at, client) in clients.iter_mut().enumerate() {
            while let Some((_, result)) = client.poll() {
                match result.expect("it is no error") {
                    Answer::Reply(_) => replies[at] += 1,
                    Answer::Delivered(message) => {
                        message.ack().expect("its channel is open");
                        received[at] += 1;
                    }
                    _ => {}
                }
            }
            if replies[at] == 2 && !consuming[at] {
                consuming[at] = true;
                client.consume(consume(names[at]), 10).expect("it is open");
                for _ in 0..MESSAGES {
                    throw(client, "", names[1 - at], "ping");
                }
            }
        }
        if received == [MESSAGES; 2] {
            break;
        }
        for client in &mut clients {
            if client.needs_write() {
                client.on_writable();
            }
        }
        let limit = clients.iter().filter_map(Client::next_timeout).min();
        let limit = limit.map(|it| Timespec::try_from(it).expect("it is no eternity"));
        let mut polled: Vec<_> = clients
            .iter()
            .map(|client| PollFd::new(client, PollFlags::IN))
            .collect();
        poll(&mut polled, limit.as_ref()).expect("they are descriptors");
        let ready: Vec<_> = polled.iter().map(PollFd::revents).collect();
        for (client, ready) in clients.iter_mut().zip(ready) {
            let due = client.next_timeout().is_some_and(|limit| limit.is_zero());
            if !ready.is_empty() || due {
                client.on_readable();
            }
        }
    }
}
