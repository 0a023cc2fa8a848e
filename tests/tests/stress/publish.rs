//! Those that publish.

use std::{collections::VecDeque, time::Duration};

use amqp_tokio::{
    ChannelPool, Confirm, ConfirmChannel, Error, Unconfirmed,
    core::{ApiMisuse, CloseCause, TimeoutReason},
    protocol::basic::{Properties, Publish},
    wire::{FieldTable, ShortStr},
};

use crate::{
    ledger::{Id, write},
    random::Random,
    session::Actor,
};

/// So many messages may wait in a queue that nothing is dropped from.
const WAITING: u64 = 300;

/// Where to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum To {
    /// The queue of the session, which is there.
    Queue,
    /// A queue that may be there.
    Junk,
    /// A queue that is not there, as a mandatory message.
    Nowhere,
}

/// A message to publish.
struct Message {
    id: Id,
    to: To,
    publish: Publish,
    properties: Properties,
    body: Vec<u8>,
}

/// A publisher on a channel of its own.
struct Publisher {
    number: u32,
    last: u32,
}

impl Publisher {
    fn new(actor: &Actor) -> Self {
        Self {
            number: actor.session.ledger().publisher(),
            last: 0,
        }
    }

    fn message(&mut self, actor: &mut Actor, to: To) -> Message {
        self.last += 1;
        let id = (self.number, self.last);
        let random = &mut actor.random;
        let key = match to {
            To::Queue => actor.session.queue.clone(),
            To::Junk => format!("junk.{}", random.below(3)),
            To::Nowhere => "nowhere".to_owned(),
        };
        let size = match random.below(100) {
            0..=79 => random.below(300),
            80..=97 => random.below(20 << 10),
            _ => random.below(120 << 10),
        };
        let size = usize::try_from(size).unwrap_or_default();
        let key = ShortStr::try_from(key).unwrap_or_default();
        let mut publish = Publish::default().mandatory(to != To::Junk || random.percent(30));
        publish.routing_key = key;
        Message {
            id,
            to,
            publish,
            properties: properties(random, actor.session.frame_max),
            body: write(id, size),
        }
    }
}

/// At times with headers of up to 100 KiB, as far as a frame goes.
fn properties(random: &mut Random, frame_max: u32) -> Properties {
    let share = if frame_max > 100 << 10 { 8 } else { 1 };
    let mut properties = Properties::default().delivery_mode(2);
    if random.percent(share) {
        let size = usize::try_from(random.below(100 << 10)).unwrap_or_default();
        let mut headers = FieldTable::new();
        let name = ShortStr::try_from("padding").unwrap_or_default();
        headers.push(name, "x".repeat(size));
        properties = properties.headers(headers);
    }
    properties
}

impl Actor {
    /// Waits while the queue has enough; false if all is over.
    async fn may_publish(&self) -> bool {
        while !self.is_over() {
            if self.session.ledger().waiting() < WAITING {
                return true;
            }
            self.session.sleep(5).await;
        }
        false
    }

    /// The outcome of a publish that was not accepted; false if the channel is no good any more.
    fn refused(&self, message: &Message, error: &Error) -> bool {
        let ledger = self.session.ledger();
        let (outcome, goes_on) = match error {
            Error::Unanswered { .. } | Error::TimedOut { .. } => {
                self.session.check(&self.name, "publish", error);
                ("refused: timed out", true)
            }
            Error::Misuse(ApiMisuse::FrameTooLarge { .. }) => ("refused: too large", true),
            error => {
                self.session.check(&self.name, "publish", error);
                ("refused: closed", false)
            }
        };
        ledger.count(outcome);
        self.never(message.to, message.id, outcome);
        goes_on
    }

    fn never(&self, to: To, id: Id, why: &'static str) {
        if to == To::Queue {
            self.session.ledger().never(id, why);
        }
    }

    fn gave_up(&self, message: &Message) {
        self.session.ledger().count("given up");
        self.never(message.to, message.id, "given up before it was accepted");
    }

    fn accepted(&self, to: To) {
        if to == To::Queue {
            self.session.ledger().accepted();
        }
    }
}

fn destination(random: &mut Random) -> To {
    match random.below(20) {
        0..=1 => To::Nowhere,
        2..=6 => To::Junk,
        _ => To::Queue,
    }
}

/// The outcome of a publish without a confirm.
enum Sent {
    Accepted,
    GivenUp,
    Refused {
        /// Another may be accepted.
        goes_on: bool,
    },
}

impl Actor {
    /// Publishes without a confirm, which is given up at times, and notes the outcome.
    async fn send(
        &mut self,
        message: &Message,
        publishing: impl Future<Output = Result<(), Error>>,
    ) -> Sent {
        let bound = self.session.deadlines.publish;
        match self.attempt("publish", bound, publishing).await {
            None => {
                self.gave_up(message);
                Sent::GivenUp
            }
            Some(Ok(())) => {
                self.accepted(message.to);
                self.session.ledger().count("sent");
                Sent::Accepted
            }
            Some(Err(error)) => Sent::Refused {
                goes_on: self.refused(message, &error),
            },
        }
    }
}

/// Publishes without confirms, and takes some of the returned messages.
pub(crate) async fn plain(mut actor: Actor) {
    let deadlines = actor.session.deadlines;
    while !actor.is_over() {
        let Some(channel) = actor.open_channel().await else {
            continue;
        };
        let mut publisher = Publisher::new(&actor);
        let mut returns = actor.random.percent(50).then(|| channel.returns());
        for _ in 0..actor.random.within(1, 60) {
            if !actor.may_publish().await {
                break;
            }
            let to = destination(&mut actor.random);
            let message = publisher.message(&mut actor, to);
            let body = message.body.clone();
            let publishing = channel.publish(&message.publish, &message.properties, body);
            if let Sent::Refused { goes_on: false } = actor.send(&message, publishing).await {
                break;
            }
            if let Some(returns) = &mut returns
                && actor.random.percent(30)
            {
                let limit = Duration::from_millis(actor.random.below(5));
                let next = actor.connection.within(limit, returns.next());
                let _next = actor.bounded("returned", limit, next).await;
            }
        }
        if actor.random.percent(30) {
            let connection = actor.connection.clone();
            let _flushed = actor
                .tried("flush", deadlines.flush, connection.flush())
                .await;
        }
        if actor.random.percent(50) {
            let _closed = actor
                .tried("Channel::close", deadlines.request, channel.close())
                .await;
        }
    }
}

/// Publishes as much as there is room for to queues that drop the excess.
pub(crate) async fn flood(mut actor: Actor) {
    let deadlines = actor.session.deadlines;
    while !actor.is_over() {
        let connection = actor.connection.clone();
        let opening = connection.open_channel();
        let opened = actor
            .tried("open_channel", deadlines.request, opening)
            .await;
        let Some(channel) = opened else { continue };
        let mut publisher = Publisher::new(&actor);
        for _ in 0..actor.random.within(1, 300) {
            if actor.is_over() {
                break;
            }
            let message = publisher.message(&mut actor, To::Junk);
            let size = usize::try_from(actor.random.below(40 << 10)).unwrap_or_default();
            let body = write(message.id, size);
            if actor.random.percent(20) {
                let tried = channel.try_publish(&message.publish, &message.properties, body);
                actor.session.ledger().count(match tried {
                    Ok(()) => "sent",
                    Err(_) => "held back",
                });
                continue;
            }
            let publishing = channel.publish(&message.publish, &message.properties, body);
            match actor
                .attempt("publish", deadlines.publish, publishing)
                .await
            {
                None => actor.gave_up(&message),
                Some(Ok(())) => actor.session.ledger().count("sent"),
                Some(Err(error)) => {
                    if !actor.refused(&message, &error) {
                        break;
                    }
                }
            }
        }
    }
}

/// Publishes with confirms, many under way at once.
pub(crate) async fn confirmed(mut actor: Actor) {
    let deadlines = actor.session.deadlines;
    while !actor.is_over() {
        let connection = actor.connection.clone();
        let opening = async { connection.open_channel().await?.confirm_select().await };
        let opened = actor
            .tried("confirm_select", 2 * deadlines.request, opening)
            .await;
        let Some(channel) = opened else { continue };
        let count = actor.random.within(1, 60);
        publish_confirmed(&mut actor, &channel, count).await;
        if actor.random.percent(50) {
            let _closed = actor
                .tried("Channel::close", deadlines.request, channel.close())
                .await;
        }
    }
}

/// Publishes through a channel of a pool.
pub(crate) async fn pooled(mut actor: Actor, pool: ChannelPool) {
    let deadlines = actor.session.deadlines;
    while !actor.is_over() {
        let taken = actor
            .tried(
                "checkout",
                deadlines.checkout + deadlines.request,
                pool.checkout(),
            )
            .await;
        if let Some(channel) = taken {
            let count = actor.random.within(1, 4);
            publish_confirmed(&mut actor, &channel, count).await;
        } else {
            actor.session.sleep(1).await;
        }
    }
}

async fn publish_confirmed(actor: &mut Actor, channel: &ConfirmChannel, count: u64) {
    let deadlines = actor.session.deadlines;
    let mut publisher = Publisher::new(actor);
    let mut waiting: VecDeque<(To, Id, Confirm)> = VecDeque::new();
    for _ in 0..count {
        if !actor.may_publish().await {
            break;
        }
        let to = destination(&mut actor.random);
        let message = publisher.message(actor, to);
        let body = message.body.clone();
        let publishing = channel.publish(&message.publish, &message.properties, body);
        match actor
            .attempt("publish", deadlines.publish, publishing)
            .await
        {
            None => actor.gave_up(&message),
            Some(Ok(confirm)) => {
                actor.accepted(message.to);
                actor.session.ledger().count("accepted");
                waiting.push_back((message.to, message.id, confirm));
            }
            Some(Err(error)) => {
                if !actor.refused(&message, &error) {
                    break;
                }
            }
        }
        while waiting.len() as u64 > actor.random.below(6) {
            let last = actor.random.percent(30);
            let next = if last {
                waiting.pop_back()
            } else {
                waiting.pop_front()
            };
            if let Some((to, id, confirm)) = next {
                settle(actor, to, id, confirm).await;
            }
        }
    }
    for (to, id, confirm) in waiting {
        settle(actor, to, id, confirm).await;
    }
}

/// Waits for the outcome of a publish, and notes it.
async fn settle(actor: &mut Actor, to: To, id: Id, mut confirm: Confirm) {
    let deadlines = actor.session.deadlines;
    if actor.random.percent(10) {
        actor.session.ledger().count("left");
        return;
    }
    let outcome = actor
        .attempt("confirm", deadlines.confirm, &mut confirm)
        .await;
    let outcome = match outcome {
        Some(outcome) => outcome,
        // A wait that was given up leaves the outcome where it is.
        None if actor.random.percent(50) => {
            actor.bounded("confirm", deadlines.confirm, confirm).await
        }
        None => {
            actor.session.ledger().count("left");
            return;
        }
    };
    let outcome = match outcome {
        Ok(()) => {
            match to {
                To::Queue => actor.session.ledger().held(id),
                To::Junk => {}
                To::Nowhere => actor.session.watch().fault(format!(
                    "{}: message {id:?} counts as confirmed, and no queue took it",
                    actor.name
                )),
            }
            "confirmed"
        }
        Err(Unconfirmed::Nacked { .. }) => {
            actor.never(to, id, "nacked");
            "nacked"
        }
        Err(Unconfirmed::NotSent(_)) => {
            actor.never(to, id, "not sent");
            "not sent"
        }
        Err(Unconfirmed::Returned(_)) => {
            if to == To::Queue {
                actor.session.watch().fault(format!(
                    "{}: message {id:?} counts as returned, and its queue is there",
                    actor.name
                ));
            }
            "returned"
        }
        Err(Unconfirmed::PossiblyReturned(_)) => "possibly returned",
        Err(Unconfirmed::Unknown(reason)) => {
            let lost = matches!(reason.cause(), CloseCause::TimedOut(TimeoutReason::Confirm));
            if lost && actor.session.calm {
                actor
                    .session
                    .watch()
                    .fault(format!("{}: no confirm came of message {id:?}", actor.name));
            }
            "unknown"
        }
        Err(_) => "another",
    };
    actor.session.ledger().count(outcome);
}

/// Publishes in transactions.
pub(crate) async fn transacted(mut actor: Actor) {
    let deadlines = actor.session.deadlines;
    while !actor.is_over() {
        let connection = actor.connection.clone();
        let opening = async { connection.open_channel().await?.tx_select().await };
        let opened = actor
            .tried("tx_select", 2 * deadlines.request, opening)
            .await;
        let Some(channel) = opened else { continue };
        let mut publisher = Publisher::new(&actor);
        for _ in 0..actor.random.within(1, 5) {
            let mut within = Vec::new();
            let mut good = true;
            for _ in 0..actor.random.within(1, 5) {
                if !actor.may_publish().await {
                    break;
                }
                let message = publisher.message(&mut actor, To::Queue);
                let body = message.body.clone();
                let publishing = channel.publish(&message.publish, &message.properties, body);
                match actor.send(&message, publishing).await {
                    Sent::GivenUp => {}
                    Sent::Accepted => within.push(message.id),
                    Sent::Refused { goes_on } => {
                        good = goes_on;
                        break;
                    }
                }
            }
            if !good {
                break;
            }
            if actor.random.percent(70) {
                let committed = actor
                    .tried("commit", deadlines.request, channel.commit())
                    .await;
                let Some(()) = committed else { break };
                for id in within {
                    actor.session.ledger().held(id);
                }
            } else {
                let back = actor
                    .tried("rollback", deadlines.request, channel.rollback())
                    .await;
                let Some(()) = back else { break };
                for id in within {
                    actor.session.ledger().never(id, "rolled back");
                }
            }
        }
    }
}
