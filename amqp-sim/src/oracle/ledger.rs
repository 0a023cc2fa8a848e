//! The account of messages.

use std::{
    collections::BTreeMap,
    fmt,
    str::{self, FromStr},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use amqp_driver::{Body, Unconfirmed, publishing::Outcome};

use crate::node::Node;

/// The number of a message in a [`Ledger`]. As text, it is the body of the message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MessageId(u64);

impl fmt::Display for MessageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "message-{}", self.0)
    }
}

impl FromStr for MessageId {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let number = text.strip_prefix("message-").and_then(|it| it.parse().ok());
        number
            .map(Self)
            .ok_or_else(|| format!("{text:?} is no message of a ledger"))
    }
}

impl MessageId {
    /// Reads the number in a body.
    ///
    /// # Errors
    /// If it has none.
    pub fn of(body: &Body) -> Result<Self, String> {
        let bytes = body.to_vec();
        let text = str::from_utf8(&bytes).map_err(|error| error.to_string())?;
        // Bodies may be padded.
        text.trim_end_matches('.').parse()
    }
}

/// What a publisher knows of a message in the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Settlement {
    /// The server has it.
    Acked,
    /// The server has refused it.
    Nacked,
    /// No queue has accepted it.
    Returned,
    /// It has not left the publisher.
    NotSent,
    /// It is not known.
    Unknown,
}

impl From<&Outcome> for Settlement {
    fn from(outcome: &Outcome) -> Self {
        match outcome {
            Outcome::Acked | Outcome::PossiblyReturned(_) => Self::Acked,
            Outcome::Nacked => Self::Nacked,
            Outcome::Returned(_) => Self::Returned,
            Outcome::NotSent { .. } => Self::NotSent,
            _ => Self::Unknown,
        }
    }
}

impl From<&Result<(), Unconfirmed>> for Settlement {
    /// The output of a [`Confirm`](amqp_driver::Confirm).
    fn from(confirmed: &Result<(), Unconfirmed>) -> Self {
        match confirmed {
            Ok(()) | Err(Unconfirmed::PossiblyReturned(_)) => Self::Acked,
            Err(Unconfirmed::Nacked { .. }) => Self::Nacked,
            Err(Unconfirmed::Returned(_)) => Self::Returned,
            Err(Unconfirmed::NotSent(_)) => Self::NotSent,
            Err(_) => Self::Unknown,
        }
    }
}

/// The account of all messages of a world: publishers and consumers enter what they do and see.
///
/// ```
/// use amqp_sim::oracle::{Ledger, Settlement};
///
/// let ledger = Ledger::new();
/// let message = ledger.publish("publisher", "orders");
/// // ... published with the body `message.to_string()`, and confirmed
/// ledger.settle(message, Settlement::Acked);
/// // ... delivered, with its `redelivered` flag, and acknowledged
/// ledger.deliver("worker", "orders", message, false);
/// ledger.done(message);
/// assert_eq!(ledger.check(), Ok(()));
/// assert_eq!(ledger.finish(&[]), Ok(()));
/// ```
#[derive(Clone, Debug, Default)]
pub struct Ledger(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    messages: Vec<Entry>,
    /// The last message that was delivered for the first time, by publisher, queue and consumer.
    last: BTreeMap<(String, String, String), usize>,
    /// The same by the life of the publisher's connection as well.
    last_of_life: BTreeMap<((String, String, String), u64), usize>,
    violation: Option<String>,
}

#[derive(Debug)]
struct Entry {
    publisher: String,
    queue: String,
    /// Whether it may be published more than once.
    repeats: bool,
    /// The life of the connection that it left in, where that is entered.
    life: Option<u64>,
    settled: Option<Settlement>,
    deliveries: u64,
    done: bool,
}

impl Ledger {
    /// Creates an account without messages.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Enters a message that is about to be published to a queue, once. Publishers are told apart
    /// by their names: the messages of one arrive in their order, but for one with an outcome
    /// that was unknown before it arrives: its connection was lost while it was on its way. With
    /// [`accepted`](Self::accepted), those of one life of a connection arrive in order even so.
    pub fn publish(&self, publisher: &str, queue: &str) -> MessageId {
        self.enter(publisher, queue, false)
    }

    /// As [`publish`](Self::publish), for a message that may be published again after a loss: it
    /// may arrive more than once, and out of order.
    pub fn publish_at_least_once(&self, publisher: &str, queue: &str) -> MessageId {
        self.enter(publisher, queue, true)
    }

    fn enter(&self, publisher: &str, queue: &str, repeats: bool) -> MessageId {
        let mut state = self.lock();
        state.messages.push(Entry {
            publisher: publisher.into(),
            queue: queue.into(),
            repeats,
            life: None,
            settled: None,
            deliveries: 0,
            done: false,
        });
        MessageId(state.messages.len() as u64 - 1)
    }

    /// Enters the life of the connection in which the client has accepted a message: the number of
    /// losses before.
    pub fn accepted(&self, message: MessageId, life: u64) {
        self.change(message, |entry| {
            entry.life = Some(life);
            Ok(())
        });
    }

    /// Enters the outcome of a publish.
    pub fn settle(&self, message: MessageId, settlement: Settlement) {
        self.change(message, |entry| {
            if let Some(before) = entry.settled.replace(settlement) {
                return Err(format!("has two outcomes: {before:?} and {settlement:?}"));
            }
            entry.check_true()
        });
    }

    /// Enters a delivery.
    pub fn deliver(&self, consumer: &str, queue: &str, message: MessageId, redelivered: bool) {
        self.change(message, |entry| {
            entry.deliveries += 1;
            if entry.queue != queue {
                return Err(format!("is for {} and comes from {queue}", entry.queue));
            }
            if entry.deliveries > 1 && !redelivered && !entry.repeats {
                return Err("comes again, and is not marked as redelivered".into());
            }
            entry.check_true()
        });
        let mut state = self.lock();
        let number = usize::try_from(message.0).unwrap_or(usize::MAX);
        let Some(entry) = state.messages.get(number) else {
            return;
        };
        if redelivered || entry.repeats {
            return;
        }
        // What a lost connection has sent may be read behind what the next one sends.
        let is_late = entry.settled == Some(Settlement::Unknown);
        let life = entry.life;
        let key = (
            entry.publisher.clone(),
            queue.to_owned(),
            consumer.to_owned(),
        );
        let of_life = life.and_then(|life| {
            let last = &mut state.last_of_life;
            last.insert((key.clone(), life), number)
        });
        let of_all = if is_late {
            None
        } else {
            state.last.insert(key, number)
        };
        if let Some(last) = of_life.max(of_all).filter(|last| *last > number) {
            let text = || format!("message-{number} comes to {consumer} after message-{last}");
            state.violation.get_or_insert_with(text);
        }
    }

    /// Enters that a consumer has finished with a message, and has acknowledged it or rejected it
    /// for good.
    pub fn done(&self, message: MessageId) {
        self.change(message, |entry| {
            entry.done = true;
            Ok(())
        });
    }

    fn change(&self, message: MessageId, change: impl FnOnce(&mut Entry) -> Result<(), String>) {
        let mut state = self.lock();
        let entry = usize::try_from(message.0)
            .ok()
            .and_then(|number| state.messages.get_mut(number));
        let changed = match entry {
            Some(entry) => change(entry),
            None => Err("was never published".into()),
        };
        if let Err(problem) = changed {
            state
                .violation
                .get_or_insert_with(|| format!("{message} {problem}"));
        }
    }

    /// Succeeds if all so far can be.
    ///
    /// # Errors
    /// The first violation in words.
    pub fn check(&self) -> Result<(), String> {
        self.lock().violation.clone().map_or(Ok(()), Err)
    }

    /// Succeeds if all can be at the end of the world, when every publisher has ended: each
    /// message has an outcome, and each confirmed one was finished by a consumer or is still in its
    /// queue on one of the nodes.
    ///
    /// # Errors
    /// The violation in words.
    pub fn finish(&self, nodes: &[&Node]) -> Result<(), String> {
        self.check()?;
        let state = self.lock();
        let mut missing = BTreeMap::<&str, Vec<usize>>::new();
        for (number, entry) in state.messages.iter().enumerate() {
            match entry.settled {
                None => return Err(format!("message-{number} has no outcome")),
                Some(Settlement::Acked) if !entry.done => {
                    missing.entry(&entry.queue).or_default().push(number);
                }
                Some(_) => {}
            }
        }
        for (queue, missing) in missing {
            let kept: u64 = nodes.iter().map(|node| node.messages(queue)).sum();
            if kept < missing.len() as u64 {
                let first = missing.first().copied().unwrap_or_default();
                let count = missing.len();
                return Err(format!(
                    "{count} confirmed messages of {queue} were not finished, message-{first} \
                     first, and the queue has {kept}"
                ));
            }
        }
        Ok(())
    }

    /// The number of messages.
    #[must_use]
    pub fn len(&self) -> usize {
        self.lock().messages.len()
    }

    /// Whether there are no messages.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The number of confirmed messages that no consumer has finished.
    #[must_use]
    pub fn unfinished(&self) -> usize {
        let state = self.lock();
        let acked = |entry: &&Entry| entry.settled == Some(Settlement::Acked) && !entry.done;
        state.messages.iter().filter(acked).count()
    }
}

impl Entry {
    /// Fails if the message was delivered, and its outcome says that it was not published.
    fn check_true(&self) -> Result<(), String> {
        match self.settled {
            Some(settled @ (Settlement::NotSent | Settlement::Returned | Settlement::Nacked))
                if self.deliveries > 0 && !self.repeats =>
            {
                Err(format!("is delivered, and its outcome is {settled:?}"))
            }
            _ => Ok(()),
        }
    }
}
