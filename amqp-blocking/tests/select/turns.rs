//! The order of callbacks.

use std::{
    cell::{Cell, RefCell},
    future::Future as _,
    rc::Rc,
    sync::mpsc,
    task::{Context, Waker},
    thread,
    time::{Duration, Instant},
};

use amqp_blocking::{
    Config, Error as CallError,
    core::ApiMisuse,
    protocol::{basic, confirm, queue},
    select::{Answer, Client, Error},
};
use bytes::Bytes;

use crate::tools::*;

/// Puts messages of so many bytes into a queue.
fn fill(client: &mut Client, queue: &str, count: usize, size: usize) {
    declare(client, queue);
    let body = Bytes::from(vec![0; size]);
    for _ in 0..count {
        let publish = basic::Publish::default().routing_key(queue);
        let published = client.publish(publish, basic::Properties::default(), body.clone());
        soon(client, published.expect("there is room"));
    }
}

/// Lets all come that is on its way: the answer to a request comes behind it, and nothing that is
/// begun takes more answers than these.
fn catch_up(client: &mut Client) {
    for _ in 0..5 {
        declare(client, "q");
    }
}

/// Sleeps as a loop of the program's own does. False if nothing has woken it.
#[cfg(unix)]
fn sleep(client: &Client) -> bool {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};

    const LONG: Duration = Duration::from_secs(20);
    let limit = client.next_timeout().filter(|limit| *limit < LONG);
    let time = Timespec::try_from(limit.unwrap_or(LONG)).expect("it is no eternity");
    let mut watched = [PollFd::new(client, PollFlags::IN)];
    poll(&mut watched, Some(&time)).expect("it is a descriptor") > 0 || limit.is_some()
}

/// One turn of it, all but the results.
#[cfg(unix)]
fn turn(client: &mut Client) {
    if client.needs_write() {
        client.on_writable();
    }
    assert!(sleep(client), "it sleeps on what is there");
    client.on_readable();
}

#[cfg(unix)]
#[test]
fn a_loop_does_not_sleep_on_results_that_had_no_room_before() {
    let server = broker();
    let mut client = connect(&server);
    fill(&mut client, "q", 64, 64 << 10);
    let consumer = client.consume(consume("q"), 0).expect("it is open");
    catch_up(&mut client);
    let count = Rc::new(Cell::new(0));
    let counted = Rc::clone(&count);
    let then = client.on(consumer, move |_, result| {
        if let Ok(Answer::Delivered(message)) = result {
            message.ack().expect("its channel is open");
            counted.set(counted.get() + 1);
        }
    });
    then.expect("it is to come");
    while count.get() < 64 {
        turn(&mut client);
        client.run_callbacks();
    }
}

#[cfg(unix)]
#[test]
fn a_loop_does_not_sleep_on_the_end() {
    let server = broker();
    let mut client = connect(&server);
    fill(&mut client, "q", 40, 64 << 10);
    let consumer = client.consume(consume("q"), 0).expect("it is open");
    catch_up(&mut client);
    server.broker().close_connections("it is over");
    while client.closed().is_none() {
        let served = client.wait_any(&[], Some(Duration::from_millis(1)));
        assert!(matches!(served, Ok(None)));
    }
    loop {
        match client.take(consumer) {
            None => turn(&mut client),
            Some(Ok(_)) => {}
            Some(Err(error)) => return assert!(!reason(error).is_clean()),
        }
    }
}

#[cfg(unix)]
#[test]
fn a_loop_does_not_sleep_on_events_without_the_server() {
    let server = broker();
    let mut client = connect(&server);
    catch_up(&mut client);
    let refused = client.call(confirm::Select::default());
    let refused = refused.expect("it is open");
    while client.take(refused).is_none() {
        turn(&mut client);
    }
}

#[cfg(unix)]
#[test]
fn a_loop_does_not_sleep_on_events_that_came_while_a_callback_waited() {
    let server = broker();
    let mut client = connect(&server);
    fill(&mut client, "q", 1, 1);
    let consumer = client.consume(consume("q"), 0).expect("it is open");
    let count = Rc::new(Cell::new(0));
    let counted = Rc::clone(&count);
    let then = client.on(consumer, move |client, result| {
        if let Ok(Answer::Delivered(message)) = result {
            message.ack().expect("its channel is open");
            counted.set(counted.get() + 1);
            if counted.get() == 1 {
                put(client, "q", "again");
                catch_up(client);
            }
        }
    });
    then.expect("it is to come");
    while count.get() < 2 {
        turn(&mut client);
        client.run_callbacks();
    }
}

#[test]
fn a_wait_without_time_takes_present_events() {
    let server = broker();
    let mut client = connect(&server);
    let declared = client.call(declaration("q")).expect("it is open");
    let begun = Instant::now();
    let no_time = Some(Duration::ZERO);
    while matches!(client.wait(declared, no_time), Ok(None)) {
        assert!(begun.elapsed() < PATIENCE, "nothing is read");
    }
}

#[test]
fn a_cancel_is_confirmed_though_nothing_is_taken() {
    let server = broker();
    let mut client = connect(&server);
    fill(&mut client, "q", 40, 64 << 10);
    let consumer = client.consume(consume("q"), 0).expect("it is open");
    catch_up(&mut client);
    let cancelled = client.cancel(consumer).expect("it runs");
    assert!(matches!(
        soon(&mut client, cancelled),
        Answer::Cancelled { .. }
    ));
    // Its own end is behind its deliveries.
    let mut delivered = 0;
    loop {
        match soon(&mut client, consumer) {
            Answer::Consuming => {}
            Answer::Delivered(message) => {
                delivered += 1;
                message.ack().expect("its channel is open");
            }
            end => break assert!(matches!(end, Answer::Cancelled { .. })),
        }
    }
    assert!(delivered > 0);
}

#[test]
fn a_callback_has_the_results_of_its_promise_in_order() {
    let server = broker();
    let mut client = connect(&server);
    declare(&mut client, "q");
    let consumer = client.consume(consume("q"), 0).expect("it is open");
    catch_up(&mut client);
    let declared = client.call(declaration("q")).expect("it is open");
    catch_up(&mut client);
    throw(&mut client, "", "q", "x");
    catch_up(&mut client);
    let cancelled = client.cancel(consumer).expect("it runs");
    client.ignore(cancelled);
    catch_up(&mut client);
    // Results before the callback is registered, and after.
    let log = Rc::new(RefCell::new(Vec::new()));
    let reported = Rc::clone(&log);
    let then = client.on(declared, move |client, _| {
        let reported = Rc::clone(&reported);
        let then = client.on(consumer, move |_, result| {
            reported
                .borrow_mut()
                .push(match result.expect("it is no error") {
                    Answer::Consuming => "begun",
                    Answer::Delivered(_) => "delivered",
                    _ => "ended",
                });
        });
        then.expect("it is to come");
    });
    then.expect("it is to come");
    while client.run_callbacks() {}
    assert_eq!(*log.borrow(), ["begun", "delivered", "ended"]);
    assert_over(&mut client, consumer);
}

#[test]
fn callbacks_are_called_for_events_so_far() {
    let server = broker();
    let mut client = connect(&server);
    fill(&mut client, "q", 1, 1);
    let consumer = consume_multi(&mut client, &["q"], 0);
    let count = Rc::new(Cell::new(0));
    let counted = Rc::clone(&count);
    let then = client.on(consumer, move |client, result| {
        if let Ok(Answer::Delivered(message)) = result {
            message.ack().expect("its channel is open");
            counted.set(counted.get() + 1);
            let published = throw(client, "", "q", "again");
            client.ignore(published);
            catch_up(client);
        }
    });
    then.expect("it is to come");
    catch_up(&mut client);
    client.run_callbacks();
    assert_eq!(count.get(), 1);
}

#[test]
fn a_callback_is_dropped_with_the_last_result_however_that_is_taken() {
    let server = broker();
    let mut client = connect(&server);
    let held = Rc::new(());
    for taken_by in ["wait", "poll"] {
        let declared = client.call(declaration("q")).expect("it is open");
        let holds = Rc::clone(&held);
        let then = client.on(declared, move |_, _| drop(Rc::clone(&holds)));
        then.expect("it is to come");
        if taken_by == "wait" {
            soon(&mut client, declared);
        } else {
            until(|| {
                client.on_writable();
                client.on_readable();
                client.poll().is_some()
            });
        }
        assert_eq!(Rc::strong_count(&held), 1, "{taken_by}");
    }
}

#[test]
fn a_run_within_another_has_a_stop_of_its_own() {
    let server = broker();
    let mut client = connect(&server);
    let outer = client.call(declaration("q")).expect("it is open");
    let inner = client.call(declaration("q")).expect("it is open");
    let then = client.on(outer, |client, _| client.stop());
    then.expect("it is to come");
    let then = client.on(inner, |client, _| {
        let innermost = client.call(declaration("q")).expect("it is open");
        let then = client.on(innermost, |client, _| client.stop());
        then.expect("it is to come");
        client.run().expect("it was stopped");
    });
    then.expect("it is to come");
    catch_up(&mut client);
    client.run().expect("it was stopped");
}

#[test]
fn a_close_comes_behind_all_that_was_begun() {
    let server = broker();
    let mut observer = connect(&server);
    declare(&mut observer, "q");
    // Before the connection is open, and with one that is.
    for open in [false, true] {
        let (mut client, connected) = connecting(&server, Config::default());
        if open {
            soon(&mut client, connected);
        }
        for _ in 0..900 {
            throw(&mut client, "", "q", "x");
        }
        let declared = client.call(declaration("other")).expect("it is open");
        let closed = client.close().expect("it is open");
        let refused = client.call(declaration("late"));
        assert!(matches!(refused, Err(Error::Closing)));
        assert!(matches!(client.close(), Err(Error::Closing)));
        assert!(matches!(soon(&mut client, closed), Answer::Closed));
        drop(client.take(declared).expect("it has ended"));
        let count = declare(&mut observer, "q").message_count;
        assert_eq!(count, if open { 1800 } else { 900 });
        declare(&mut observer, "other");
    }
}

#[test]
fn a_checkout_waits_for_a_channel_that_is_being_closed() {
    let server = broker();
    let few = |channel_max| Config::default().channel_max(channel_max);
    let mut client = connect_configured(&server, few(1));
    declare(&mut client, "q");
    let consumer = consume_multi(&mut client, &["q"], 1);
    let cancelled = client.cancel(consumer).expect("it runs");
    soon(&mut client, cancelled);
    declare(&mut client, "q");

    let mut client = connect_configured(&server, few(2));
    put(&mut client, "q", "x");
    drop(get(&mut client, "q").expect("it is there"));
    declare(&mut client, "q");

    let mut client = connect_configured(&server, few(1));
    let consumer = client.consume(consume("q"), 1).expect("it is open");
    client.on_writable();
    client.ignore(consumer);
    declare(&mut client, "q");

    let mut client = connect_configured(&server, few(1));
    let consumer = consume_multi(&mut client, &["q"], 1);
    client.ignore(consumer);
    declare(&mut client, "q");
}

#[test]
fn consumers_that_have_ended_cannot_be_cancelled() {
    let server = broker();
    let mut client = connect(&server);
    declare(&mut client, "q");
    let consumer = consume_multi(&mut client, &["q"], 0);
    delete(&mut client, "q");
    catch_up(&mut client); // with another one of that name
    let cancelled = client.cancel(consumer);
    assert!(matches!(cancelled, Err(Error::NoSuchPromise(it)) if it == consumer));
    let ended = soon_error(&mut client, consumer);
    assert!(matches!(
        ended,
        Error::Call(CallError::ConsumerCancelled { .. })
    ));
}

/// Which is the one that was declared last, on a channel that is another promise's.
#[test]
fn a_queue_without_a_name_is_refused() {
    let server = broker();
    let mut client = connect(&server);
    declare(&mut client, "precious");
    put(&mut client, "precious", "x");
    let consuming = client.consume(basic::Consume::default(), 0);
    let consuming = consuming.expect("it is open");
    let refused = [
        client.cancel(consuming),
        Ok(consuming),
        client.call(queue::Purge::default()),
        client.call(queue::Delete::default()),
        client.call(queue::Bind::default().exchange("amq.direct")),
        client.call(queue::Unbind::default().exchange("amq.direct")),
        client.call(queue::Declare::default().passive(true)),
        client.get(basic::Get::default()),
        client.consume_multi(vec![consume("precious"), basic::Consume::default()], 0),
    ];
    for promise in refused {
        let error = soon_error(&mut client, promise.expect("it is open"));
        assert!(
            matches!(
                error,
                Error::Call(CallError::Misuse(ApiMisuse::QueueRequired { .. }))
            ),
            "{error}"
        );
    }
    assert_eq!(declare(&mut client, "precious").message_count, 1);
}

#[test]
fn a_command_ends_while_another_handle_closes_the_connection() {
    let (done, ended) = mpsc::channel();
    thread::spawn(move || {
        let server = broker();
        let mut client = connect(&server);
        let called = client.call(declaration("q")).expect("it is open");
        let connection = client.connection().expect("it is open");
        let mut closing = Box::pin(connection.close());
        let mut cx = Context::from_waker(Waker::noop());
        assert!(closing.as_mut().poll(&mut cx).is_pending());
        let refused = client.wait(called, SOON);
        done.send(refused.is_err()).expect("the test waits");
    });
    assert!(ended.recv_timeout(PATIENCE).expect("it does not spin"));
}
