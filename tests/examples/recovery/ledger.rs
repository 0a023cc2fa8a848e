//! The account of all messages: each attempt to publish one has one outcome, and none that was
//! confirmed is lost.

use std::{collections::VecDeque, fmt};

/// The number of violations that are kept in words.
const KEPT: usize = 10;

/// The number of bytes of an identifier.
const ID_LEN: usize = 32;

/// One message in so many has so many bytes of padding. The longest take several frames.
const PADDINGS: [(usize, usize); 2] = [(256, 300 << 10), (16, 5000)];

/// One attempt to publish a message. Its bytes are the body, with padding behind them.
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
    pub(crate) fn to_body(self) -> Vec<u8> {
        let numbers = [
            self.publisher,
            self.number,
            self.attempt,
            self.epoch as usize,
        ];
        let numbers = numbers.map(|number| (number as u64).to_be_bytes());
        let mut body = numbers.concat();
        body.resize(ID_LEN + self.padding(), self.filler());
        body
    }

    /// `Some` if the body is whole.
    pub(crate) fn from_body(body: &[u8]) -> Option<Self> {
        let (numbers, padding) = body.split_at_checked(ID_LEN)?;
        let number = |at: usize| {
            let bytes = numbers.get(8 * at..8 * at + 8)?.try_into().ok()?;
            usize::try_from(u64::from_be_bytes(bytes)).ok()
        };
        let id = Self {
            publisher: number(0)?,
            number: number(1)?,
            attempt: number(2)?,
            epoch: u32::try_from(number(3)?).ok()?,
        };
        let filler = id.filler();
        let is_whole = padding.len() == id.padding() && padding.iter().all(|it| *it == filler);
        is_whole.then_some(id)
    }

    fn padding(self) -> usize {
        let fits = |every: usize| self.number % every == every - 1;
        let padding = PADDINGS.into_iter().find(|(every, _)| fits(*every));
        padding.map_or(0, |(_, len)| len)
    }

    const fn filler(self) -> u8 {
        self.number.to_be_bytes()[size_of::<usize>() - 1]
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
    /// The epoch of the last attempt.
    epoch: u32,
}

impl Message {
    /// The confirmed attempts, as the balance counts them.
    fn fate(&self) -> Fate {
        let is_confirmed = |it: &&Attempt| it.outcome == Some(Outcome::Confirmed);
        let mut confirmed = self.attempts.iter().filter(is_confirmed).peekable();
        if self.attempts.iter().any(|it| it.outcome.is_none()) {
            Fate::Open
        } else if self.processed {
            Fate::Processed
        } else if confirmed.peek().is_none() {
            Fate::Open
        } else if confirmed.all(|it| it.deleted) {
            Fate::Deleted
        } else {
            Fate::Waiting
        }
    }
}

/// The state of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    /// It is still to be confirmed.
    Open,
    /// It was confirmed, and not processed yet.
    Waiting,
    Processed,
    /// It was confirmed, and deleted with its queue.
    Deleted,
}

/// The messages of a publisher.
#[derive(Clone, Debug, Default)]
struct Account {
    /// The number of the oldest messages that are forgotten.
    forgotten: usize,
    messages: VecDeque<Message>,
}

impl Account {
    fn get_mut(&mut self, number: usize) -> Option<&mut Message> {
        self.messages.get_mut(number.checked_sub(self.forgotten)?)
    }
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
    accounts: Vec<Account>,
    /// The number of forgotten messages that were deleted with their queue.
    deleted: u64,
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
            accounts: vec![Account::default(); publishers],
            ..Self::default()
        }
    }

    /// Begins an attempt to publish a message, a new one if there is no number.
    pub(crate) fn begin(&mut self, publisher: usize, number: Option<usize>, epoch: u32) -> Id {
        let account = &mut self.accounts[publisher];
        let next = account.forgotten + account.messages.len();
        let number = number.unwrap_or(next);
        if number == next {
            account.messages.push_back(Message::default());
            self.counts.messages += 1;
        }
        let message = &mut account.messages[number - account.forgotten];
        message.epoch = epoch;
        let attempts = &mut message.attempts;
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
        if self.is_forgotten(id) {
            return;
        }
        let Some(attempt) = self.attempt(id) else {
            return self.false_outcome(format_args!("{id} was received and not published"));
        };
        attempt.received = true;
        if let Some(outcome) = attempt.outcome.filter(|it| is_elsewhere(*it)) {
            self.false_outcome(format_args!("{id} was received and is {outcome:?}"));
        }
    }

    /// Records a delivery with a body that is not that of a message.
    pub(crate) fn receive_damaged(&mut self, len: usize) {
        self.false_outcome(format_args!("a damaged body of {len} bytes was received"));
    }

    /// Records an accepted acknowledgement.
    pub(crate) fn process(&mut self, id: Id) {
        self.counts.processed += 1;
        let account = self.accounts.get_mut(id.publisher);
        if let Some(message) = account.and_then(|all| all.get_mut(id.number)) {
            message.processed = true;
        }
    }

    /// Records that a queue was deleted, with the messages of these numbers.
    pub(crate) fn delete(&mut self, is_of_queue: impl Fn(usize) -> bool) {
        for account in &mut self.accounts {
            for (number, message) in (account.forgotten..).zip(&mut account.messages) {
                if is_of_queue(number) && !message.processed {
                    for attempt in &mut message.attempts {
                        attempt.deleted = true;
                    }
                }
            }
        }
    }

    /// Forgets the messages that are done and that were published before that epoch, up to the
    /// first one that is not, so that a long run takes no more memory than a short one.
    pub(crate) fn forget_before(&mut self, epoch: u32) {
        for account in &mut self.accounts {
            while let Some(message) = account.messages.front() {
                let fate = message.fate();
                if message.epoch >= epoch || matches!(fate, Fate::Open | Fate::Waiting) {
                    break;
                }
                self.deleted += u64::from(fate == Fate::Deleted);
                account.messages.pop_front();
                account.forgotten += 1;
            }
        }
    }

    /// The balance of what has happened so far.
    pub(crate) fn balance(&self) -> Balance {
        let mut balance = Balance {
            deleted: self.deleted,
            ..Balance::default()
        };
        for message in self.accounts.iter().flat_map(|account| &account.messages) {
            match message.fate() {
                Fate::Deleted => balance.deleted += 1,
                Fate::Waiting => balance.lost += 1,
                Fate::Open | Fate::Processed => {}
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
        let message = self.accounts.get_mut(id.publisher)?.get_mut(id.number)?;
        message.attempts.get_mut(id.attempt)
    }

    fn is_forgotten(&self, id: Id) -> bool {
        let account = self.accounts.get(id.publisher);
        account.is_some_and(|account| id.number < account.forgotten)
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
