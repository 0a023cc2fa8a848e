//! puka: in a loop of the program's own, on one thread, without futures. It does not depend on the
//! runtime, and runs beside each.

use std::{cell::RefCell, rc::Rc};

use amqp_blocking::{
    Unconfirmed,
    protocol::{ReplyCode, basic, queue},
    select::{self, Answer, Client, Error, Promise},
};

use super::{
    Case, cases,
    tools::{consume, get, shared_queue, to},
};
use crate::{
    context::Ctx,
    harness::{Failure, Outcome},
};

pub(super) fn cases() -> Vec<Case> {
    cases![
        a_hundred_queues_at_once,
        a_round_of_callbacks,
        a_burst_with_a_missing_exchange_in_it,
    ]
}

/// Runs something with a client that is connected, and closes it.
async fn in_a_loop(cx: &Ctx, act: impl FnOnce(&mut Client) -> Outcome + Send + 'static) -> Outcome {
    let uri = cx.uri_asking("heartbeat=10");
    cx.in_thread(move || {
        let (mut client, connected) = select::connect(&uri)?;
        client.wait(connected, None)?;
        act(&mut client)?;
        let closed = client.close()?;
        client.wait(closed, None)?;
        Ok(())
    })
    .await?
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
            deleted.push(client.call(queue::Delete::default().queue(name)?)?);
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
                    let delete = queue::Delete::default().queue("q")?;
                    ("got", client.call(delete)?)
                }
                Answer::Reply(_) => ("deleted", client.close()?),
                Answer::Closed => {
                    steps.borrow_mut().push("closed");
                    return Ok(None);
                }
                other => return Err(format!("nobody asked for {other:?}").into()),
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

/// Given publishes of which one is to a missing exchange, in one burst, then it and those behind it
/// fail with 404, or are not known of, and later ones go over a new channel; repeated.
async fn a_burst_with_a_missing_exchange_in_it(cx: Ctx) -> Outcome {
    in_a_loop(&cx, |client| {
        let declared = client.call(shared_queue("q"))?;
        client.wait(declared, None)?;
        let consumer = client.consume(consume("q"), 10)?;
        for _ in 0..3 {
            let first = throw(client, "", "q", "first");
            let missing = throw(client, "missing", "q", "to nowhere");
            let behind = throw(client, "", "q", "behind it");
            match client.wait(first, None) {
                Ok(Some(Answer::Published)) => {}
                // The channel was closed before the confirm was sent.
                Err(error) => assert_eq!(code(&error), Some(ReplyCode::NOT_FOUND)),
                Ok(other) => panic!("nobody asked for {other:?}"),
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

fn code(error: &Error) -> Option<ReplyCode> {
    match error {
        Error::Unconfirmed(Unconfirmed::NotSent(reason) | Unconfirmed::Unknown(reason)) => {
            reason.code()
        }
        _ => None,
    }
}
