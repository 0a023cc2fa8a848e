//! The unconfirmed publishes of a channel in confirm mode.

use alloc::collections::VecDeque;

use core::time::Duration;

use super::{
    fingerprint::{Fingerprint, hash_address, hash_body},
    returns::{Found, Key, Mandatory},
};
use crate::{body::Content, ids::PublishSeq, protocol::basic, time::Instant};

/// The unconfirmed publishes, by number.
///
/// Confirms arrive in any order, for one publish or for all up to a number
/// (<https://www.rabbitmq.com/docs/confirms>). A ring indexed by number settles each publish once,
/// at a cost independent of the number outstanding.
#[derive(Debug)]
pub(crate) struct Confirms {
    /// The number of the entry at the front.
    first: u64,
    entries: VecDeque<Entry>,
    /// The mandatory publishes among them, for matching returns.
    mandatory: Mandatory,
    /// The number of unsettled entries in doubt.
    in_doubt: usize,
    /// The deadlines, in order. Each covers the publishes after the previous mark.
    marks: VecDeque<Mark>,
    /// `true` if there are publishes after the last mark, which have no deadline yet.
    unmarked: bool,
}

/// The deadline of several publishes.
#[derive(Clone, Copy, Debug)]
struct Mark {
    /// The last publish that the deadline covers.
    last: u64,
    at: Instant,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    settled: bool,
    /// A return may have been for this publish.
    in_doubt: bool,
    /// The position of its first byte in the lane of ready frames. [`BACKLOG`] while it waits in a
    /// backlog, 0 once it has begun to leave one.
    position: u64,
}

/// The position of a publish in its channel's backlog.
pub(crate) const BACKLOG: u64 = u64::MAX - 1;

/// A position after everything queued, backlogs included.
pub(crate) const ALL: u64 = u64::MAX;

impl Confirms {
    /// Begins to count after the given number.
    pub(crate) fn after(last: u64) -> Self {
        Self {
            first: last + 1,
            entries: VecDeque::new(),
            mandatory: Mandatory::default(),
            in_doubt: 0,
            marks: VecDeque::new(),
            unmarked: false,
        }
    }

    /// Records that the last publish has no deadline. Returns `false` if there were such publishes
    /// before.
    #[inline]
    pub(crate) const fn begin_unmarked(&mut self) -> bool {
        !core::mem::replace(&mut self.unmarked, true)
    }

    /// Sets the deadline `at`, or up to `slack` later to share one, for the publishes without a
    /// deadline. Returns `Some` if a new deadline was created.
    pub(crate) fn mark(&mut self, at: Instant, slack: Duration) -> Option<Instant> {
        self.unmarked = false;
        let last = self.next() - 1;
        if last < self.first {
            return None;
        }
        if let Some(mark) = self.marks.back_mut()
            && at <= mark.at
        {
            mark.last = last;
            return None;
        }
        let at = at + slack;
        self.marks.push_back(Mark { last, at });
        Some(at)
    }

    /// Whether `at` is the first deadline and covers an unconfirmed publish. Removes the deadline
    /// if all its publishes are settled.
    pub(crate) fn has_deadline(&mut self, at: Instant) -> bool {
        let Some(mark) = self.marks.front().filter(|mark| mark.at == at) else {
            return false;
        };
        let waits = mark.last >= self.first;
        if !waits {
            self.marks.pop_front();
        }
        waits
    }

    /// Handles an expired deadline. Passes the runs of its unsettled publishes to `settled`.
    pub(crate) fn expire(&mut self, at: Instant, mut settled: impl FnMut(PublishSeq, PublishSeq)) {
        if let Some(mark) = self.marks.front().filter(|mark| mark.at == at).copied() {
            self.marks.pop_front();
            self.settle(mark.last, true, |first, last, _in_doubt| {
                settled(first, last)
            });
        }
    }

    /// The number of entries: unsettled ones, and settled ones after an unsettled one.
    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    /// The number of unsettled entries. Counts them one by one.
    pub(crate) fn unsettled(&self) -> usize {
        self.entries.iter().filter(|entry| !entry.settled).count()
    }

    /// The number of the next publish.
    pub(crate) fn next(&self) -> u64 {
        self.first + self.entries.len() as u64
    }

    /// Adds the next publish.
    pub(crate) fn add(&mut self, position: u64) -> PublishSeq {
        let seq = self.next();
        self.entries.push_back(Entry {
            settled: false,
            in_doubt: false,
            position,
        });
        PublishSeq(seq)
    }

    /// Marks the publish just added as mandatory.
    pub(crate) fn add_mandatory(
        &mut self,
        publish: &basic::Publish,
        properties: Fingerprint,
        body: u64,
    ) {
        let address = hash_address(&publish.exchange, &publish.routing_key);
        let key = Key::new(address, body, &properties);
        self.mandatory.add(self.next() - 1, key, properties);
    }

    /// Records that the publishes up to this number have begun to leave their backlog.
    pub(crate) fn begun(&mut self, last: u64) {
        let count = (last + 1).saturating_sub(self.first) as usize;
        let entries = self.entries.iter_mut().take(count).rev();
        for entry in entries.take_while(|entry| entry.position == BACKLOG) {
            entry.position = 0;
        }
    }

    /// Finds the returned publish among the unconfirmed ones: the server sends a return before the
    /// confirm (<https://www.rabbitmq.com/docs/confirms>). If the match is ambiguous, all
    /// candidates are in doubt from now on.
    pub(crate) fn match_return(&mut self, method: &basic::Return, content: &Content) -> Found {
        let properties = Fingerprint::of(content.properties.as_bytes());
        let address = hash_address(&method.exchange, &method.routing_key);
        let key = Key::new(address, hash_body(&content.body), &properties);
        let (first, entries) = (self.first, &self.entries);
        let is_settled = |seq| is_settled(first, entries, seq);
        let found = self.mandatory.find(key, &properties, is_settled);
        self.doubt(&found.candidates);
        found
    }

    /// Like [`match_return`](Self::match_return), for a return of which only the method is
    /// readable. Every publish to that address that may have been returned is in doubt from now on.
    pub(crate) fn match_unread_return(&mut self, method: &basic::Return) {
        let address = hash_address(&method.exchange, &method.routing_key);
        let (first, entries) = (self.first, &self.entries);
        let is_settled = |seq| is_settled(first, entries, seq);
        let found = self.mandatory.find_by_address(address, is_settled);
        self.doubt(&found.candidates);
        self.doubt(found.seq.as_slice());
    }

    fn doubt(&mut self, candidates: &[PublishSeq]) {
        for seq in candidates {
            let at = seq.0.checked_sub(self.first);
            if let Some(entry) = at.and_then(|at| self.entries.get_mut(at as usize))
                && !entry.settled
                && !core::mem::replace(&mut entry.in_doubt, true)
            {
                self.in_doubt += 1;
            }
        }
    }

    /// Settles one publish, or with `multiple` all up to it. Passes the runs of publishes that were
    /// unsettled to `settled`, each with whether they are in doubt. A number of 0 with `multiple`
    /// means all. A number that was never assigned settles nothing: its meaning is unknown, and the
    /// publishes stay unconfirmed.
    pub(crate) fn settle(
        &mut self,
        seq: u64,
        multiple: bool,
        mut settled: impl FnMut(PublishSeq, PublishSeq, bool),
    ) {
        let next = self.next();
        let seq = if multiple && seq == 0 { next - 1 } else { seq };
        // A number below `first` is settled already. A repeated confirm is harmless.
        if seq >= next || seq < self.first {
            return;
        }
        let last = (seq - self.first) as usize;
        if multiple {
            self.settle_up_to(last, &mut settled);
            self.first = seq + 1;
        } else if let Some(entry) = self.entries.get_mut(last)
            && !entry.settled
        {
            entry.settled = true;
            self.in_doubt -= usize::from(entry.in_doubt);
            settled(PublishSeq(seq), PublishSeq(seq), entry.in_doubt);
        }
        while self.entries.front().is_some_and(|entry| entry.settled) {
            self.entries.pop_front();
            self.first += 1;
        }
        self.mandatory.forget_before(self.first);
        // Keeps the last mark for publishes that follow soon.
        while self.marks.len() > 1 && self.marks.front().is_some_and(|it| it.last < self.first) {
            self.marks.pop_front();
        }
    }

    /// Settles all entries up to that index, and removes them.
    fn settle_up_to(
        &mut self,
        last: usize,
        settled: &mut impl FnMut(PublishSeq, PublishSeq, bool),
    ) {
        let sure = |entry: &Entry| !entry.in_doubt;
        self.runs(last + 1, sure, &mut |from, to| settled(from, to, false));
        if self.in_doubt > 0 {
            let mut count = 0;
            self.runs(last + 1, |entry| entry.in_doubt, &mut |from, to| {
                count += (to.0 - from.0) as usize + 1;
                settled(from, to, true);
            });
            self.in_doubt -= count;
        }
        self.entries.drain(..=last);
    }

    /// Ends confirm tracking. Passes the runs of unsettled publishes to `sent` if any of their
    /// bytes have left or will leave, otherwise to `unsent`. `leaves` is the position in the lane
    /// of ready frames up to which bytes leave.
    pub(crate) fn end(
        &mut self,
        leaves: u64,
        mut sent: impl FnMut(PublishSeq, PublishSeq),
        mut unsent: impl FnMut(PublishSeq, PublishSeq),
    ) {
        let all = self.entries.len();
        self.runs(all, |entry| entry.position < leaves, &mut sent);
        self.runs(all, |entry| entry.position >= leaves, &mut unsent);
        *self = Self::after(self.next() - 1);
    }

    /// Passes the runs of unsettled entries that are `wanted`, among the first `count`, to `run`.
    fn runs(
        &self,
        count: usize,
        wanted: impl Fn(&Entry) -> bool,
        run: &mut impl FnMut(PublishSeq, PublishSeq),
    ) {
        let mut start = None;
        for (seq, entry) in (self.first..).zip(self.entries.iter().take(count)) {
            if !entry.settled && wanted(entry) {
                start.get_or_insert(seq);
            } else if let Some(start) = start.take() {
                run(PublishSeq(start), PublishSeq(seq - 1));
            }
        }
        if let Some(start) = start {
            run(PublishSeq(start), PublishSeq(self.first + count as u64 - 1));
        }
    }
}

/// Whether a publish is settled. `first` is the number of the front entry.
fn is_settled(first: u64, entries: &VecDeque<Entry>, seq: u64) -> bool {
    let at = seq.checked_sub(first);
    at.is_none_or(|at| entries.get(at as usize).is_some_and(|entry| entry.settled))
}
