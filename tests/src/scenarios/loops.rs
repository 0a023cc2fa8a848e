//! puka: in a loop of the program's own, on one thread, without futures. It does not depend on the
//! runtime, and runs beside each.

use std::{
    cell::RefCell,
    rc::Rc,
    time::{Duration, Instant},
};

use amqp_blocking::{
    Error as CallError, Unconfirmed,
    arguments::{self, ClassicOverflow},
    core::ApiMisuse,
    protocol::{ReplyCode, basic, exchange, queue, tx},
    publishing::Acknowledgements,
    select::{self, Answer, Client, Error, Message, Promise},
};

use super::{
    Case, cases,
    tools::{becomes_ready, consume, fetch, get, look, open, shared_queue, to},
};
use crate::{
    context::{Ctx, LOOK_EVERY, PATIENCE},
    harness::{Failure, Outcome},
};

pub(super) fn cases() -> Vec<Case> {
    cases![
        a_hundred_queues_at_once,
        a_round_of_callbacks,
        acknowledgements_before_a_wait_have_left,
        a_burst_with_a_missing_exchange_in_it,
        a_burst_with_a_missing_exchange_without_confirms,
        a_mandatory_message_without_a_queue_comes_back,
        a_published_message_is_fetched_once,
        a_full_queue_refuses_confirmed_messages,
        a_loop_with_a_limit_runs_callbacks_until_it_is_over,
        a_wait_has_the_response_of_its_promise,
        a_locked_queue_is_refused_to_a_loop,
        an_entity_is_declared_again_as_it_is,
        a_transaction_is_refused_to_a_loop,
    ]
}

/// The ways to learn the outcome of a publish.
const MODES: [Acknowledgements; 3] = [
    Acknowledgements::IfSupported,
    Acknowledgements::On,
    Acknowledgements::Off,
];

/// Runs something with a client that is connected, and closes it.
pub(super) async fn in_a_loop(
    cx: &Ctx,
    act: impl FnOnce(&mut Client) -> Outcome + Send + 'static,
) -> Outcome {
    let uri = cx.uri_asking("heartbeat=10");
    cx.in_thread(move || {
        let mut client = connect(&uri)?;
        act(&mut client)?;
        let closed = client.close()?;
        client.wait(closed, None)?;
        Ok(())
    })
    .await?
}

/// A client that is connected.
fn connect(uri: &str) -> Result<Client, Failure> {
    let (mut client, connected) = select::connect(uri)?;
    client.wait(connected, None)?;
    Ok(client)
}

/// Publishes a message, and waits for the outcome.
pub(super) fn put(client: &mut Client, queue: &str, body: &'static str) -> Outcome {
    let published = throw(client, "", queue, body);
    match client.wait(published, None)? {
        Some(Answer::Published) => Ok(()),
        other => Err(format!("an unexpected result: {other:?}").into()),
    }
}

/// The next message of a consumer or a fetch.
pub(super) fn message(client: &mut Client, promise: Promise) -> Result<Message, Failure> {
    let message = client.wait(promise, None)?.and_then(Answer::message);
    message.ok_or_else(|| "there is no message".into())
}

/// Begins to publish a message that a queue has to take.
fn throw(client: &mut Client, exchange: &str, key: &str, body: &'static str) -> Promise {
    let properties = basic::Properties::default();
    let published = client.publish(to(exchange, key), properties, body);
    published.expect("there is room")
}

/// Given 100 queues, when they are declared and then deleted with all requests in flight, then all
/// succeed.
async fn a_hundred_queues_at_once(cx: Ctx) -> Outcome {
    in_a_loop(&cx, |client| {
        let names: Vec<_> = (0..100).map(|number| format!("q{number}")).collect();
        let declared = names.iter().map(|name| client.call(shared_queue(name)));
        let declared: Vec<_> = declared.collect::<Result<_, _>>()?;
        for (promise, name) in declared.into_iter().zip(&names) {
            let declared = client.wait(promise, None)?.and_then(Answer::reply);
            let declared: queue::DeclareOk = declared.ok_or("another answer")?;
            assert_eq!(declared.queue, name.as_str());
        }
        let mut deleted = Vec::new();
        for name in &names {
            deleted.push(client.call(queue::Delete::default().queue(name))?);
        }
        for promise in deleted {
            let deleted = client.wait(promise, None)?.and_then(Answer::reply);
            let _: queue::DeleteOk = deleted.ok_or("another answer")?;
        }
        Ok(())
    })
    .await
}

/// Given only callbacks, each of which begins the next step, then all are called, in order, and the
/// last one ends the loop.
async fn a_round_of_callbacks(cx: Ctx) -> Outcome {
    let uri = cx.uri_asking("heartbeat=10");
    cx.in_thread(move || {
        let (mut client, connected) = select::connect(&uri)?;
        let steps = Rc::new(RefCell::new(Vec::new()));
        step(&mut client, connected, &steps)?;
        client.run()?;
        assert!(client.closed().is_some_and(|end| end.is_clean()));
        let steps = steps.take();
        let all = [
            "connected",
            "declared",
            "published",
            "got",
            "deleted",
            "closed",
        ];
        assert_eq!(steps, all);
        Ok(())
    })
    .await?
}

/// Notes the result of a promise, and goes on from there.
fn step(client: &mut Client, promise: Promise, steps: &Rc<RefCell<Vec<&'static str>>>) -> Outcome {
    let steps = Rc::clone(steps);
    client.on(promise, move |client, result| {
        let next = |client: &mut Client| -> Result<Option<Promise>, Failure> {
            let (name, next) = match result? {
                Answer::Connected => ("connected", client.call(shared_queue("q"))?),
                Answer::Reply(reply) if queue::DeclareOk::try_from(reply.clone()).is_ok() => {
                    ("declared", throw(client, "", "q", "called back"))
                }
                Answer::Published => ("published", client.get(get("q"))?),
                Answer::Got(Some(message)) => {
                    assert_eq!(message.body, "called back");
                    message.ack()?;
                    let delete = queue::Delete::default().queue("q");
                    ("got", client.call(delete)?)
                }
                Answer::Reply(_) => ("deleted", client.close()?),
                Answer::Closed => {
                    steps.borrow_mut().push("closed");
                    return Ok(None);
                }
                other => return Err(format!("an unexpected result: {other:?}").into()),
            };
            steps.borrow_mut().push(name);
            Ok(Some(next))
        };
        match next(client) {
            Ok(Some(promise)) => step(client, promise, &steps).expect("it is to come"),
            Ok(None) => client.stop(),
            Err(error) => panic!("after {:?}: {error}", steps.borrow()),
        }
    })?;
    Ok(())
}

/// Given 3 messages consumed and acknowledged with waits, when the connection is cut at once, then
/// the last acknowledgement is lost, and no other; after one more wait, or the end of a run, none.
async fn acknowledgements_before_a_wait_have_left(cx: Ctx) -> Outcome {
    let (connection, observing) = open(&cx).await?;
    observing.call(shared_queue("q")).await?;
    for (follows, left) in [("nothing", 1), ("wait", 0), ("run", 0)] {
        let uri = cx.uri_asking("heartbeat=10");
        let acknowledging = cx.in_thread(move || -> Outcome {
            let mut client = connect(&uri)?;
            for body in ["1", "2", "3"] {
                put(&mut client, "q", body)?;
            }
            let consumer = client.consume(consume("q"), 10)?;
            client.wait(consumer, None)?;
            if follows == "run" {
                client.on(consumer, |client, result| {
                    let message = result.ok().and_then(Answer::message);
                    let message = message.expect("it is a message");
                    if message.body == "3" {
                        client.stop();
                    }
                    message.ack().expect("its channel is open");
                })?;
                client.run()?;
                return Ok(());
            }
            for body in ["1", "2", "3"] {
                let message = message(&mut client, consumer)?;
                assert_eq!(message.body, body);
                message.ack()?;
            }
            if follows == "wait" {
                assert!(client.wait(consumer, Some(Duration::ZERO))?.is_none());
            }
            Ok(())
        });
        acknowledging.await??;
        cx.soon(async {
            while look(&observing, "q").await?.consumer_count > 0 {
                cx.sleep(LOOK_EVERY).await;
            }
            Ok::<_, Failure>(())
        })
        .await??;
        becomes_ready(&cx, &observing, "q", left).await?;
        if left > 0 {
            let message = fetch(&observing, "q").await?;
            assert_eq!(message.body, "3", "after {follows}");
            message.ack()?;
        }
    }
    Ok(connection.close().await?)
}

/// Given publishes of which one is to a missing exchange, in one burst, then it and those behind it
/// fail with 404, or are not known of, and later ones go over a new channel; repeated.
async fn a_burst_with_a_missing_exchange_in_it(cx: Ctx) -> Outcome {
    in_a_loop(&cx, |client| {
        let declared = client.call(shared_queue("q"))?;
        client.wait(declared, None)?;
        let consumer = client.consume(consume("q"), 10)?;
        let modes = [Acknowledgements::IfSupported, Acknowledgements::On];
        for mode in [modes, modes].concat() {
            client.set_publisher_acknowledgements(mode);
            let first = throw(client, "", "q", "first");
            let missing = throw(client, "missing", "q", "to nowhere");
            let behind = throw(client, "", "q", "behind it");
            match client.wait(first, None) {
                Ok(Some(Answer::Published)) => {}
                // The channel was closed before the confirm was sent.
                Err(error) => assert_eq!(code(&error), Some(ReplyCode::NOT_FOUND)),
                Ok(other) => panic!("an unexpected result: {other:?}"),
            }
            for promise in [missing, behind] {
                let error = client
                    .wait(promise, None)
                    .expect_err("the channel is closed");
                assert_eq!(code(&error), Some(ReplyCode::NOT_FOUND), "{error}");
            }
            let later = throw(client, "", "q", "later");
            client.wait(later, None)?;
            let mut bodies = Vec::new();
            while bodies.last().is_none_or(|body| *body != "later") {
                if let Some(Answer::Delivered(message)) = client.wait(consumer, None)? {
                    bodies.push(message.body.clone());
                    message.ack()?;
                }
            }
            assert!(bodies.iter().all(|body| *body != "to nowhere"));
        }
        let cancelled = client.cancel(consumer)?;
        client.wait(cancelled, None)?;
        Ok(())
    })
    .await
}

/// The same without confirms: that before it succeeds, because the server handles one after the
/// other, and one behind a mandatory one is published when that has failed.
async fn a_burst_with_a_missing_exchange_without_confirms(cx: Ctx) -> Outcome {
    in_a_loop(&cx, |client| {
        client.set_publisher_acknowledgements(Acknowledgements::Off);
        let declared = client.call(shared_queue("q"))?;
        client.wait(declared, None)?;
        for mandatory in [false, false, true] {
            let mut throw = |exchange, body: &'static str| {
                let publish = to(exchange, "q").mandatory(mandatory);
                client.publish(publish, basic::Properties::default(), body)
            };
            let promises = [
                throw("", "first")?,
                throw("missing", "to nowhere")?,
                throw("", "behind it")?,
            ];
            let mut outcomes = Vec::new();
            for promise in promises {
                outcomes.push(match client.wait(promise, None) {
                    Ok(Some(Answer::Published)) => None,
                    Ok(other) => panic!("an unexpected result: {other:?}"),
                    Err(error) => Some(code(&error).expect("the channel is closed")),
                });
            }
            let not_found = Some(ReplyCode::NOT_FOUND);
            let behind = not_found.filter(|_| !mandatory);
            assert_eq!(outcomes, [None, not_found, behind]);
            put(client, "q", "later")?;
            let mut bodies = vec!["first", "later"];
            if mandatory {
                bodies.insert(1, "behind it");
            }
            for body in bodies {
                let fetched = client.get(get("q"))?;
                let message = message(client, fetched)?;
                assert_eq!(message.body, body);
                message.ack()?;
            }
        }
        Ok(())
    })
    .await
}

/// Given a mandatory message for a key without a queue, then 312 in each mode, and for that message
/// alone; and again when a queue of another name is there.
async fn a_mandatory_message_without_a_queue_comes_back(cx: Ctx) -> Outcome {
    in_a_loop(&cx, |client| {
        for mode in MODES {
            client.set_publisher_acknowledgements(mode);
            for _ in 0..2 {
                let lost = throw(client, "", "nowhere", "lost");
                let error = client.wait(lost, None).expect_err("no queue takes it");
                assert_returned(&error, "lost");
                let declared = client.call(shared_queue("elsewhere"))?;
                client.wait(declared, None)?;
            }
            let keys = ["elsewhere", "nowhere", "nowhere", "elsewhere", "nowhere"];
            let burst = keys.map(|key| (key, throw(client, "", key, "burst")));
            for (key, promise) in burst {
                match client.wait(promise, None) {
                    Ok(Some(Answer::Published)) => assert_eq!(key, "elsewhere"),
                    Ok(other) => panic!("an unexpected result: {other:?}"),
                    Err(error) => {
                        assert_eq!(key, "nowhere");
                        assert_returned(&error, "burst");
                    }
                }
            }
        }
        Ok(())
    })
    .await
}

#[track_caller]
fn assert_returned(error: &Error, body: &str) {
    let Error::Unconfirmed(Unconfirmed::Returned(returned)) = error else {
        panic!("it should come back, but: {error}");
    };
    assert_eq!(returned.code, ReplyCode::NO_ROUTE);
    assert_eq!(returned.body, body);
}

/// Given a message in each mode, then get gives it once.
async fn a_published_message_is_fetched_once(cx: Ctx) -> Outcome {
    in_a_loop(&cx, |client| {
        let declared = client.call(shared_queue("q"))?;
        client.wait(declared, None)?;
        for mode in MODES {
            client.set_publisher_acknowledgements(mode);
            put(client, "q", "once")?;
            let fetched = client.get(get("q"))?;
            let fetched = message(client, fetched)?;
            assert_eq!(fetched.body, "once");
            fetched.ack()?;
            let again = client.get(get("q"))?;
            assert!(matches!(client.wait(again, None)?, Some(Answer::Got(None))));
        }
        Ok(())
    })
    .await
}

/// Given a full queue that rejects publishes, then a message for it is refused with confirms, also
/// where the server's capabilities decide; without, the server has handled it, and dropped it.
async fn a_full_queue_refuses_confirmed_messages(cx: Ctx) -> Outcome {
    in_a_loop(&cx, |client| {
        let full = arguments::Queue::exclusive("full")
            .max_length(1)
            .overflow(ClassicOverflow::RejectPublish);
        let declared = client.call(full.declare()?)?;
        client.wait(declared, None)?;
        put(client, "full", "the only one")?;
        for mode in MODES {
            client.set_publisher_acknowledgements(mode);
            let published = throw(client, "", "full", "one too many");
            match (mode, client.wait(published, None)) {
                (Acknowledgements::Off, Ok(Some(Answer::Published)))
                | (
                    Acknowledgements::IfSupported | Acknowledgements::On,
                    Err(Error::Unconfirmed(Unconfirmed::Nacked { .. })),
                ) => {}
                (mode, other) => panic!("with {mode:?}: {other:?}"),
            }
        }
        let purged = client.call(queue::Purge::default().queue("full"))?;
        let purged = client.wait(purged, None)?.and_then(Answer::reply);
        let purged: queue::PurgeOk = purged.ok_or("another answer")?;
        assert_eq!(purged.message_count, 1);
        Ok(())
    })
    .await
}

/// Given callbacks that begin the next step, then a loop with a limit of time calls them, and returns
/// when it is over; a stop ends it sooner.
async fn a_loop_with_a_limit_runs_callbacks_until_it_is_over(cx: Ctx) -> Outcome {
    in_a_loop(&cx, |client| {
        let declared = client.call(shared_queue("q"))?;
        client.wait(declared, None)?;
        let called = Rc::new(RefCell::new(0));
        let counted = Rc::clone(&called);
        let first = throw(client, "", "q", "");
        client.on(first, move |client, result| {
            assert!(matches!(result, Ok(Answer::Published)));
            *counted.borrow_mut() += 1;
            let counted = Rc::clone(&counted);
            let second = throw(client, "", "q", "");
            let then = client.on(second, move |_, _| *counted.borrow_mut() += 1);
            then.expect("it is to come");
        })?;
        let begun = Instant::now();
        let mut runs = 0;
        while *called.borrow() < 2 {
            let limit = Duration::from_millis(300);
            client.run_for(limit)?;
            runs += 1;
            assert!(begun.elapsed() >= runs * limit);
            assert!(begun.elapsed() < PATIENCE, "the callbacks are not called");
        }
        // Without time it takes what is there.
        client.run_for(Duration::ZERO)?;
        let last = throw(client, "", "q", "");
        client.on(last, |client, _| client.stop())?;
        Ok(client.run_for(Duration::MAX)?)
    })
    .await
}

/// Given a promise with a callback, then a wait returns its response, and the callback has none.
async fn a_wait_has_the_response_of_its_promise(cx: Ctx) -> Outcome {
    in_a_loop(&cx, |client| {
        let declared = client.call(shared_queue("q"))?;
        client.on(declared, |_, _| panic!("the wait has the response"))?;
        let reply = client.wait(declared, None)?.and_then(Answer::reply);
        let reply: queue::DeclareOk = reply.ok_or("another answer")?;
        assert_eq!((&*reply.queue, reply.message_count), ("q", 0));
        assert!(!client.run_callbacks());
        let again = client.wait(declared, None);
        assert!(matches!(again, Err(Error::NoSuchPromise(it)) if it == declared));
        Ok(())
    })
    .await
}

/// The code that a request of the loop is refused with.
fn refusal(client: &mut Client, promise: Promise) -> Result<ReplyCode, Failure> {
    let error = client.wait(promise, None).err().ok_or("it is accepted")?;
    code(&error).ok_or_else(|| error.to_string().into())
}

/// Given a queue that is exclusive to another connection, then 405 for a declaration, a passive one,
/// a consumer and a get; given an exclusive consumer, 403 for another one. The loop goes on.
async fn a_locked_queue_is_refused_to_a_loop(cx: Ctx) -> Outcome {
    let (connection, channel) = open(&cx).await?;
    channel.call(shared_queue("locked").exclusive(true)).await?;
    channel.call(shared_queue("q")).await?;
    let _alone = channel.consume(consume("q").exclusive(true)).await?;
    in_a_loop(&cx, |client| {
        let refused = [
            client.call(shared_queue("locked"))?,
            client.call(queue::Declare::default().queue("locked").passive(true))?,
            client.consume(consume("locked"), 1)?,
            client.get(get("locked"))?,
        ];
        for promise in refused {
            assert_eq!(refusal(client, promise)?, ReplyCode::RESOURCE_LOCKED);
        }
        let second = client.consume(consume("q"), 1)?;
        assert_eq!(refusal(client, second)?, ReplyCode::ACCESS_REFUSED);
        put(client, "q", "goes on")
    })
    .await?;
    Ok(connection.close().await?)
}

/// Given a queue and an exchange, when declared as they are, then that is fine; otherwise 406, for
/// flags, arguments and types. The loop goes on.
async fn an_entity_is_declared_again_as_it_is(cx: Ctx) -> Outcome {
    in_a_loop(&cx, |client| {
        let mut expiring = shared_queue("q");
        expiring.arguments = expiring.arguments.with("x-expires", 60_000);
        let direct = exchange::Declare::default().exchange("x").kind("direct");
        for _ in 0..2 {
            for promise in [
                client.call(shared_queue("q"))?,
                client.call(direct.clone())?,
            ] {
                client.wait(promise, None)?;
            }
        }
        let refused = [
            client.call(shared_queue("q").auto_delete(true))?,
            client.call(expiring)?,
            client.call(direct.clone().kind("fanout"))?,
            client.call(direct.durable(true))?,
        ];
        for promise in refused {
            assert_eq!(refusal(client, promise)?, ReplyCode::PRECONDITION_FAILED);
        }
        put(client, "q", "goes on")
    })
    .await
}

/// Given a transaction, which would need a channel of its own, then it is refused on this side, and
/// the loop goes on.
async fn a_transaction_is_refused_to_a_loop(cx: Ctx) -> Outcome {
    in_a_loop(&cx, |client| {
        let selected = client.call(tx::Select)?;
        let error = client.wait(selected, None).err().ok_or("it is accepted")?;
        let misuse = matches!(
            error,
            Error::Call(CallError::Misuse(ApiMisuse::NotSentThisWay { .. }))
        );
        assert!(misuse, "{error}");
        let declared = client.call(shared_queue("q"))?;
        client.wait(declared, None)?;
        put(client, "q", "goes on")
    })
    .await
}

fn code(error: &Error) -> Option<ReplyCode> {
    match error {
        Error::Call(error) => error.code(),
        Error::Unconfirmed(Unconfirmed::NotSent(reason) | Unconfirmed::Unknown(reason)) => {
            reason.code()
        }
        _ => None,
    }
}
