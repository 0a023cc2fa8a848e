//! The prefetch of consumers in a loop of the program's own.

use std::time::Duration;

use amqp_blocking::{
    protocol::{basic, queue},
    select::{Answer, Client, Message, Promise},
};

use super::{
    Case, cases,
    loops::{in_a_loop, message, put},
    tools::{consume, shared_queue},
};
use crate::{
    context::Ctx,
    harness::{Failure, Outcome},
};

pub(super) fn cases() -> Vec<Case> {
    cases![
        a_prefetch_moves_both_ways_under_way,
        queues_share_a_prefetch_that_moves,
    ]
}

/// For as long nothing must come.
const SILENCE: Duration = Duration::from_millis(100);

/// Takes so many messages of consumers, and waits to see that there is not one more.
fn take(client: &mut Client, consumer: Promise, count: usize) -> Result<Vec<Message>, Failure> {
    let mut taken = Vec::new();
    for _ in 0..count {
        taken.push(message(client, consumer)?);
    }
    let more = client.wait(consumer, Some(SILENCE))?;
    assert!(more.is_none(), "{more:?} exceeds the prefetch");
    Ok(taken)
}

fn set_prefetch(client: &mut Client, consumer: Promise, prefetch: u16) -> Outcome {
    let changed = client.qos(consumer, prefetch)?;
    let changed = client.wait(changed, None)?.and_then(Answer::reply);
    let _: basic::QosOk = changed.ok_or("another answer")?;
    Ok(())
}

/// Declares a queue of a type, with messages that have its name.
fn fill(client: &mut Client, kind: &str, name: &'static str, count: usize) -> Outcome {
    let mut declare = shared_queue(name);
    declare.arguments = declare.arguments.with("x-queue-type", kind);
    let declared = client.call(declare)?;
    client.wait(declared, None)?;
    for _ in 0..count {
        put(client, name, name)?;
    }
    Ok(())
}

/// Given a consumer of a classic or quorum queue with a prefetch of 1, then one message and no more;
/// when raised to 2, another one and no more; when lowered, none until both are acknowledged.
async fn a_prefetch_moves_both_ways_under_way(cx: Ctx) -> Outcome {
    in_a_loop(&cx, |client| {
        for (kind, queue) in [("classic", "c"), ("quorum", "q")] {
            fill(client, kind, queue, 6)?;
            let consumer = client.consume(consume(queue), 1)?;
            client.wait(consumer, None)?;
            let mut held = take(client, consumer, 1)?;
            set_prefetch(client, consumer, 2)?;
            held.extend(take(client, consumer, 1)?);
            set_prefetch(client, consumer, 1)?;
            held.remove(0).ack()?;
            take(client, consumer, 0)?;
            held.remove(0).ack()?;
            held = take(client, consumer, 1)?;
            set_prefetch(client, consumer, 0)?;
            held.extend(take(client, consumer, 3)?);
            for message in held {
                message.ack()?;
            }
            let cancelled = client.cancel(consumer)?;
            client.wait(cancelled, None)?;
            let deleted = client.call(queue::Delete::default().queue(queue))?;
            let deleted = client.wait(deleted, None)?.and_then(Answer::reply);
            let deleted: queue::DeleteOk = deleted.ok_or("another answer")?;
            assert_eq!(deleted.message_count, 0);
        }
        Ok(())
    })
    .await
}

/// Given consumers of two queues, also quorum queues, that share a prefetch, then no more messages
/// come than that, of each queue in turn, also when it is raised and lowered.
async fn queues_share_a_prefetch_that_moves(cx: Ctx) -> Outcome {
    in_a_loop(&cx, |client| {
        for (kind, queues) in [("classic", ["c0", "c1"]), ("quorum", ["q0", "q1"])] {
            for queue in queues {
                fill(client, kind, queue, 5)?;
            }
            let consumer = client.consume_multi(queues.map(consume).into(), 2)?;
            client.wait(consumer, None)?;
            let mut held = take(client, consumer, 2)?;
            // Two of each have arrived.
            set_prefetch(client, consumer, 4)?;
            held.extend(take(client, consumer, 2)?);
            let first = held.iter().filter(|it| it.source == 0).count();
            assert_eq!(first, 2, "each queue has its share");
            set_prefetch(client, consumer, 2)?;
            for message in held.drain(..2) {
                message.ack()?;
            }
            take(client, consumer, 0)?;
            let mut counts = [2; 2];
            for _ in 0..6 {
                held.remove(0).ack()?;
                held.push(message(client, consumer)?);
                counts[held[1].source] += 1;
            }
            assert_eq!(counts, [5; 2]);
            take(client, consumer, 0)?;
            for message in held {
                message.ack()?;
            }
            let cancelled = client.cancel(consumer)?;
            client.wait(cancelled, None)?;
        }
        Ok(())
    })
    .await
}
