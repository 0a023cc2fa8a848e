//! Those that take messages, and those that ask for other things.

use std::time::Duration;

use amqp_tokio::{
    BaseChannel, ConsumeOptions, Consumer, Delivery, ManualAck, NoAck, OnDrop, Prefetch, Requeue,
    protocol::{basic, queue},
    wire::{FieldTable, ShortStr},
};

use crate::session::Actor;

/// Takes from the session's queue, alone, and looks at the order.
pub(crate) async fn take(mut actor: Actor) {
    let deadlines = actor.session.deadlines;
    while !actor.is_over() {
        let Some(channel) = actor.open_channel().await else {
            continue;
        };
        for _ in 0..actor.random.within(1, 3) {
            let consume = basic::Consume {
                queue: short(actor.session.queue.clone()),
                ..Default::default()
            };
            let prefetch = [Prefetch::Count(1), Prefetch::Count(10), Prefetch::Unlimited];
            let mut options = ConsumeOptions::default()
                .on_drop(actor.random.pick(&[OnDrop::Leave, OnDrop::Requeue]));
            if actor.random.percent(70) {
                options = options.prefetch(actor.random.pick(&prefetch));
            }
            let starting = channel.consume_with(consume, options);
            let started = actor
                .tried("consume_with", deadlines.request, starting)
                .await;
            let Some(mut consumer) = started else { break };
            let count = actor.random.within(1, 150);
            take_from(&mut actor, &mut consumer, count).await;
            if actor.random.percent(40) {
                let cancelled = actor
                    .tried("cancel", deadlines.request, consumer.cancel())
                    .await;
                if cancelled.is_some() {
                    take_from(&mut actor, &mut consumer, u64::MAX).await;
                }
            }
            if !channel.is_open() || actor.is_over() {
                break;
            }
        }
        if actor.random.percent(50) {
            let _closed = actor
                .tried("Channel::close", deadlines.request, channel.close())
                .await;
        }
    }
}

/// Takes so many messages, or as many as there are before it ends or waits.
async fn take_from(actor: &mut Actor, consumer: &mut Consumer<ManualAck>, count: u64) {
    let mut idle = 0;
    let mut taken = 0;
    while taken < count && idle < 5 {
        let limit = Duration::from_millis(actor.random.within(1, 40));
        let connection = actor.connection.clone();
        let next = connection.within(limit, consumer.next());
        match actor.bounded("next", limit, next).await {
            None => {
                idle += 1;
                if actor.is_over() {
                    return;
                }
            }
            Some(None) => return,
            Some(Some(Err(error))) => {
                actor.session.check(&actor.name, "next", &error);
                return;
            }
            Some(Some(Ok(delivery))) => {
                (taken, idle) = (taken + 1, 0);
                let redelivered = delivery.method.redelivered;
                let arrived = actor.session.ledger().arrived(&delivery.body, redelivered);
                if let Err(wrong) = arrived {
                    actor
                        .session
                        .watch()
                        .fault(format!("{}: {wrong}", actor.name));
                }
                answer(actor, delivery, true);
            }
        }
        if actor.random.percent(1) {
            // Nothing is taken for a while.
            let pause = actor.random.below(500);
            actor.session.sleep(pause).await;
        }
    }
}

/// Answers a delivery somehow; one that is to be kept comes again.
fn answer(actor: &mut Actor, delivery: Delivery, keep: bool) {
    let requeue = if keep || actor.random.percent(50) {
        Requeue::Yes
    } else {
        Requeue::No
    };
    let answered = match actor.random.below(100) {
        0..=84 => delivery.ack(),
        85..=87 => delivery.acker.ack_up_to(),
        88..=91 => delivery.nack(requeue),
        92..=94 => delivery.reject(requeue),
        _ => return,
    };
    if let Err(error) = answered {
        actor.session.check(&actor.name, "answer", &error);
    }
}

/// Consumes from queues that are deleted at times, in all ways, and at times takes nothing.
pub(crate) async fn drift(mut actor: Actor) {
    let deadlines = actor.session.deadlines;
    while !actor.is_over() {
        let Some(channel) = actor.open_channel().await else {
            continue;
        };
        declare(&mut actor, &channel).await;
        for _ in 0..actor.random.within(1, 3) {
            let mut consume = basic::Consume {
                queue: junk(&mut actor),
                ..Default::default()
            };
            if actor.random.percent(40) {
                // A tag that is used again.
                consume.consumer_tag = short("tag".to_owned());
            }
            if actor.random.percent(50) {
                let starting = channel.consume_no_ack(consume);
                let started = actor
                    .tried("consume_no_ack", deadlines.request, starting)
                    .await;
                let Some(mut consumer) = started else {
                    break;
                };
                drift_unacked(&mut actor, &mut consumer).await;
                if actor.random.percent(40) {
                    let _cancelled = actor
                        .tried("cancel", deadlines.request, consumer.cancel())
                        .await;
                }
            } else {
                let on_drop = actor
                    .random
                    .pick(&[OnDrop::Leave, OnDrop::Requeue, OnDrop::Reject]);
                let options = ConsumeOptions::default().on_drop(on_drop);
                let starting = channel.consume_with(consume, options);
                let started = actor
                    .tried("consume_with", deadlines.request, starting)
                    .await;
                let Some(mut consumer) = started else {
                    break;
                };
                drift_acked(&mut actor, &mut consumer).await;
                if actor.random.percent(40) {
                    let _cancelled = actor
                        .tried("cancel", deadlines.request, consumer.cancel())
                        .await;
                }
                if actor.random.percent(20) {
                    let recover = basic::Recover::default().requeue(true);
                    let _back = actor
                        .tried("recover", deadlines.request, channel.call(recover))
                        .await;
                }
            }
        }
    }
}

async fn drift_unacked(actor: &mut Actor, consumer: &mut Consumer<NoAck>) {
    for _ in 0..actor.random.below(60) {
        let limit = Duration::from_millis(actor.random.within(1, 20));
        let connection = actor.connection.clone();
        let next = connection.within(limit, consumer.next());
        match actor.bounded("next", limit, next).await {
            None | Some(Some(Ok(_))) => {}
            Some(None) => return,
            Some(Some(Err(error))) => {
                actor.session.check(&actor.name, "next", &error);
                return;
            }
        }
        pause(actor).await;
    }
}

async fn drift_acked(actor: &mut Actor, consumer: &mut Consumer<ManualAck>) {
    for _ in 0..actor.random.below(60) {
        let limit = Duration::from_millis(actor.random.within(1, 20));
        let connection = actor.connection.clone();
        let next = connection.within(limit, consumer.next());
        match actor.bounded("next", limit, next).await {
            None => {}
            Some(None) => return,
            Some(Some(Err(error))) => {
                actor.session.check(&actor.name, "next", &error);
                return;
            }
            Some(Some(Ok(delivery))) => answer(actor, delivery, false),
        }
        pause(actor).await;
    }
}

async fn pause(actor: &mut Actor) {
    if actor.random.percent(3) {
        let pause = actor.random.below(600);
        actor.session.sleep(pause).await;
    }
}

/// Asks for this and that.
pub(crate) async fn ask(mut actor: Actor) {
    let deadlines = actor.session.deadlines;
    while !actor.is_over() {
        let Some(channel) = actor.open_channel().await else {
            continue;
        };
        for _ in 0..actor.random.within(1, 30) {
            if !channel.is_open() || actor.is_over() {
                break;
            }
            match actor.random.below(8) {
                0 => {
                    let delete = queue::Delete {
                        queue: junk(&mut actor),
                        ..Default::default()
                    };
                    let _gone = actor
                        .tried("delete", deadlines.request, channel.call(delete))
                        .await;
                }
                1 => {
                    let purge = queue::Purge {
                        queue: junk(&mut actor),
                        ..Default::default()
                    };
                    let _gone = actor
                        .tried("purge", deadlines.request, channel.call(purge))
                        .await;
                }
                2 => {
                    let get = basic::Get {
                        queue: junk(&mut actor),
                        ..Default::default()
                    };
                    let got = actor
                        .tried("get", deadlines.request, channel.get(get))
                        .await;
                    if let Some(Some(fetched)) = got
                        && actor.random.percent(80)
                        && let Err(error) = fetched.ack()
                    {
                        actor.session.check(&actor.name, "ack", &error);
                    }
                }
                3 => {
                    let connection = actor.connection.clone();
                    let _flushed = actor
                        .tried("flush", deadlines.flush, connection.flush())
                        .await;
                }
                4 => {
                    let count = u16::try_from(actor.random.below(20)).unwrap_or_default();
                    let qos = basic::Qos::default().prefetch_count(count);
                    let _set = actor
                        .tried("qos", deadlines.request, channel.call(qos))
                        .await;
                }
                5 => {
                    let mut states = channel.states();
                    let limit = Duration::from_millis(5);
                    let next = actor.connection.within(limit, states.next());
                    let _state = actor.bounded("state", limit, next).await;
                }
                6 => {
                    let pause = actor.random.below(20);
                    actor.session.sleep(pause).await;
                }
                _ => declare(&mut actor, &channel).await,
            }
        }
    }
}

async fn declare(actor: &mut Actor, channel: &BaseChannel) {
    let deadlines = actor.session.deadlines;
    let queue = junk(actor);
    let mut arguments = FieldTable::new();
    arguments.push(short("x-max-length".to_owned()), 60);
    let declare = queue::Declare {
        queue,
        arguments,
        ..Default::default()
    };
    let _declared = actor
        .tried("declare", deadlines.request, channel.call(declare))
        .await;
}

fn junk(actor: &mut Actor) -> ShortStr {
    short(format!("junk.{}", actor.random.below(3)))
}

fn short(text: String) -> ShortStr {
    ShortStr::try_from(text).unwrap_or_default()
}
