//! The account of all messages: each attempt to publish one has one outcome, and none that was
//! confirmed is lost.

use std::fmt;

/// The number of violations that are kept in words.
const KEPT: usize = 10;

/// One attempt to publish a message. Its bytes are the body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Id {
    pub(crate) publisher: usize,
    /// The number of the message at its publisher, from 0.
    pub(crate) number: usize,
    /// The number of the attempt, from 0.
    pub(crate) attempt: usize,
    /// The [epoch](crate::load::Shared) in which the attempt began.
    pub(crate) epoch: u32,
}

impl Id {
    pub(crate) fn to_bytes(self) -> Vec<u8> {
        [
            self.publisher,
            self.number,
            self.attempt,
            self.epoch as usize,
        ]
        .iter()
        .flat_map(|number| (*number as u64).to_be_bytes())
        .collect()
    }

    pub(crate) fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let numbers: [u8; 32] = bytes.try_into().ok()?;
        let number = |at: usize| {
            let bytes = numbers.get(8 * at..8 * at + 8)?.try_into().ok()?;
            usize::try_from(u64::from_be_bytes(bytes)).ok()
        };
        Some(Self {
            publisher: number(0)?,
            number: number(1)?,
            attempt: number(2)?,
            epoch: u32::try_from(number(3)?).ok()?,
        })
    }
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            publisher,
            number,
            attempt,
            epoch,
        } = self;
        write!(
            f,
            "message {number} of publisher {publisher}, attempt {attempt}, after fault {epoch}"
        )
    }
}

/// The outcome of an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    Confirmed,
    Returned,
    Nacked,
    NotSent,
    Unknown,
    /// The call has failed: nothing was sent.
    Refused,
}

#[derive(Clone, Copy, Debug, Default)]
struct Attempt {
    outcome: Option<Outcome>,
    received: bool,
    /// Whether the queue was deleted afterwards.
    deleted: bool,
}

#[derive(Clone, Debug, Default)]
struct Message {
    attempts: Vec<Attempt>,
    /// Whether an acknowledgement was accepted.
    processed: bool,
}

/// Counts of everything, since the beginning.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Counts {
    pub(crate) messages: u64,
    pub(crate) attempts: u64,
    pub(crate) confirmed: u64,
    pub(crate) returned: u64,
    pub(crate) nacked: u64,
    pub(crate) not_sent: u64,
    pub(crate) unknown: u64,
    pub(crate) refused: u64,
    pub(crate) received: u64,
    pub(crate) redelivered: u64,
    pub(crate) processed: u64,
    /// Acknowledgements of an earlier life.
    pub(crate) stale: u64,
    pub(crate) interruptions: u64,
    /// Consumers that were cancelled with their queue.
    pub(crate) cancelled: u64,
    /// Channels that were replaced because the broker refused all publishes.
    pub(crate) reopened: u64,
    /// Handles that have ended otherwise.
    pub(crate) ended: u64,
    /// Outcomes that came twice, or were not true.
    pub(crate) false_outcomes: u64,
    /// Acknowledgements of an earlier life that were accepted.
    pub(crate) false_acks: u64,
    pub(crate) lost_connections: u64,
    pub(crate) recovered_connections: u64,
    /// Steps of recoveries that have failed.
    pub(crate) failed_steps: u64,
}

/// The account of all messages.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    /// The messages of each publisher.
    messages: Vec<Vec<Message>>,
    pub(crate) counts: Counts,
    /// Violations and failures, in words.
    remarks: Vec<String>,
}

/// The balance at the end.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Balance {
    /// Confirmed messages that were not processed, those of deleted queues apart.
    pub(crate) lost: u64,
    /// Confirmed messages that were deleted with their queue.
    pub(crate) deleted: u64,
    /// Attempts without an outcome.
    pub(crate) missing: u64,
}

impl Ledger {
    pub(crate) fn new(publishers: usize) -> Self {
        Self {
            messages: vec![Vec::new(); publishers],
            ..Self::default()
        }
    }

    /// Begins an attempt to publish a message, a new one if there is no number.
    pub(crate) fn begin(&mut self, publisher: usize, number: Option<usize>, epoch: u32) -> Id {
        let messages = &mut self.messages[publisher];
        let number = number.unwrap_or(messages.len());
        if number == messages.len() {
            messages.push(Message::default());
            self.counts.messages += 1;
        }
        let attempts = &mut messages[number].attempts;
        attempts.push(Attempt::default());
        self.counts.attempts += 1;
        Id {
            publisher,
            number,
            attempt: attempts.len() - 1,
            epoch,
        }
    }

    /// Records the outcome of an attempt.
    pub(crate) fn settle(&mut self, id: Id, outcome: Outcome) {
        let counts = &mut self.counts;
        let count = match outcome {
            Outcome::Confirmed => &mut counts.confirmed,
            Outcome::Returned => &mut counts.returned,
            Outcome::Nacked => &mut counts.nacked,
            Outcome::NotSent => &mut counts.not_sent,
            Outcome::Unknown => &mut counts.unknown,
            Outcome::Refused => &mut counts.refused,
        };
        *count += 1;
        let Some(attempt) = self.attempt(id) else {
            return self.false_outcome(format_args!("{id} is {outcome:?} and was not published"));
        };
        let before = attempt.outcome.replace(outcome);
        let received = attempt.received;
        if let Some(before) = before {
            self.false_outcome(format_args!("{id} is {outcome:?} after {before:?}"));
        }
        if received && is_elsewhere(outcome) {
            self.false_outcome(format_args!("{id} is {outcome:?} and was received"));
        }
    }

    /// Records a delivery.
    pub(crate) fn receive(&mut self, id: Id, redelivered: bool) {
        self.counts.received += 1;
        self.counts.redelivered += u64::from(redelivered);
        let Some(attempt) = self.attempt(id) else {
            return self.false_outcome(format_args!("{id} was received and not published"));
        };
        attempt.received = true;
        if let Some(outcome) = attempt.outcome.filter(|it| is_elsewhere(*it)) {
            self.false_outcome(format_args!("{id} was received and is {outcome:?}"));
        }
    }

    /// Records an accepted acknowledgement.
    pub(crate) fn process(&mut self, id: Id) {
        self.counts.processed += 1;
        let message = self.messages.get_mut(id.publisher);
        if let Some(message) = message.and_then(|all| all.get_mut(id.number)) {
            message.processed = true;
        }
    }

    /// Records that a queue was deleted, with the messages of these numbers.
    pub(crate) fn delete(&mut self, is_of_queue: impl Fn(usize) -> bool) {
        for messages in &mut self.messages {
            for (_, message) in messages
                .iter_mut()
                .enumerate()
                .filter(|it| is_of_queue(it.0))
            {
                for attempt in message.attempts.iter_mut().filter(|_| !message.processed) {
                    attempt.deleted = true;
                }
            }
        }
    }

    /// The balance of what has happened so far.
    pub(crate) fn balance(&self) -> Balance {
        let mut balance = Balance::default();
        for message in self.messages.iter().flatten() {
            let is_confirmed = |it: &&Attempt| it.outcome == Some(Outcome::Confirmed);
            let mut confirmed = message.attempts.iter().filter(is_confirmed).peekable();
            if !message.processed && confirmed.peek().is_some() {
                let deleted = confirmed.all(|it| it.deleted);
                balance.deleted += u64::from(deleted);
                balance.lost += u64::from(!deleted);
            }
            let missing = message.attempts.iter().filter(|it| it.outcome.is_none());
            balance.missing += missing.count() as u64;
        }
        balance
    }

    pub(crate) fn remark(&mut self, remark: String) {
        if self.remarks.len() < KEPT {
            self.remarks.push(remark);
        }
    }

    pub(crate) fn take_remarks(&mut self) -> Vec<String> {
        std::mem::take(&mut self.remarks)
    }

    fn attempt(&mut self, id: Id) -> Option<&mut Attempt> {
        let message = self.messages.get_mut(id.publisher)?.get_mut(id.number)?;
        message.attempts.get_mut(id.attempt)
    }

    fn false_outcome(&mut self, remark: fmt::Arguments<'_>) {
        self.counts.false_outcomes += 1;
        self.remark(remark.to_string());
    }
}

/// Whether an outcome says that no queue has the message.
const fn is_elsewhere(outcome: Outcome) -> bool {
    matches!(
        outcome,
        Outcome::Returned | Outcome::NotSent | Outcome::Refused
    )
}
