//! The publishes of a channel in confirm mode, until the server has told their fate.

use alloc::collections::VecDeque;

use core::time::Duration;

use super::{
    fingerprint::{Fingerprint, hash_address, hash_body},
    returns::{Found, Key, Mandatory},
};
use crate::{body::Content, ids::PublishSeq, protocol::basic, time::Instant};

/// The publishes that wait for their confirm, by number.
///
/// Confirms come in any order, singly or for all up to a number. A ring that is indexed by number
/// settles each publish once, at a cost that does not depend on how many wait.
#[derive(Debug)]
pub(crate) struct Confirms {
    /// The number of the entry at the front.
    first: u64,
    entries: VecDeque<Entry>,
    /// The mandatory publishes among them, to match returns to.
    mandatory: Mandatory,
    /// How many unsettled entries are in doubt.
    in_doubt: usize,
    /// The deadlines, in order. Each is of the publishes behind the mark before it.
    marks: VecDeque<Mark>,
    /// There are publishes behind the last mark, which have no deadline yet.
    unmarked: bool,
}

/// The deadline of several publishes.
#[derive(Clone, Copy, Debug)]
struct Mark {
    /// The last of them.
    last: u64,
    at: Instant,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    settled: bool,
    /// A message came back that may have been this one.
    in_doubt: bool,
    /// Where its first byte stands in the lane of ready frames; `BACKLOG` while it waits in a
    /// backlog, 0 when it has left one.
    position: u64,
}

/// The position of a publish that waits in its channel's backlog.
pub(crate) const BACKLOG: u64 = u64::MAX - 1;

/// The end of everything that is queued, backlogs as well.
pub(crate) const ALL: u64 = u64::MAX;

impl Confirms {
    pub(crate) fn new() -> Self {
        Self {
            first: 1,
            entries: VecDeque::new(),
            mandatory: Mandatory::default(),
            in_doubt: 0,
            marks: VecDeque::new(),
            unmarked: false,
        }
    }

    /// Takes note that the last publish has no deadline. False if there were such before.
    #[inline]
    pub(crate) const fn begin_unmarked(&mut self) -> bool {
        !core::mem::replace(&mut self.unmarked, true)
    }

    /// Gives the publishes that have none a deadline at that time, or up to `slack` later: then
    /// they share one. Gives back a deadline that is new.
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

    /// Whether a publish waits whose deadline is that one, which is the first if it still is any.
    /// If not, it is not any more.
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

    /// The deadline has passed: gives the runs of those publishes that were not settled.
    pub(crate) fn expire(&mut self, at: Instant, mut settled: impl FnMut(PublishSeq, PublishSeq)) {
        if let Some(mark) = self.marks.front().filter(|mark| mark.at == at).copied() {
            self.marks.pop_front();
            self.settle(mark.last, true, |first, last, _in_doubt| {
                settled(first, last)
            });
        }
    }

    /// How many wait, counting settled ones behind an unsettled one.
    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    /// The number of the next publish.
    pub(crate) fn next(&self) -> u64 {
        self.first + self.entries.len() as u64
    }

    /// Takes up the next publish.
    pub(crate) fn add(&mut self, position: u64) -> PublishSeq {
        let seq = self.next();
        self.entries.push_back(Entry {
            settled: false,
            in_doubt: false,
            position,
        });
        PublishSeq(seq)
    }

    /// The publish just added is mandatory.
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

    /// Publishes up to this number have begun to leave their backlog.
    pub(crate) fn begun(&mut self, last: u64) {
        let count = (last + 1).saturating_sub(self.first) as usize;
        let entries = self.entries.iter_mut().take(count).rev();
        for entry in entries.take_while(|entry| entry.position == BACKLOG) {
            entry.position = 0;
        }
    }

    /// Finds the publish that came back, among those that are not confirmed yet: a return comes
    /// before its confirm. Those that it may be, where that is not certain, are in doubt from now on.
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

    /// As [`match_return`](Self::match_return), for a return of which only the method could be read:
    /// each publish that it may be is in doubt from now on.
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

    /// Settles one publish, or all up to it; gives back the runs of those that were not settled,
    /// each with whether they are in doubt. A number of 0 with `multiple` means all. A number that was
    /// never given out settles nothing: what it was meant for cannot be known, and the publishes that
    /// wait stay in doubt.
    pub(crate) fn settle(
        &mut self,
        seq: u64,
        multiple: bool,
        mut settled: impl FnMut(PublishSeq, PublishSeq, bool),
    ) {
        let next = self.next();
        let seq = if multiple && seq == 0 { next - 1 } else { seq };
        // Below the first: settled long ago, which a server may say again.
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
        // The last one is kept for publishes that come soon.
        while self.marks.len() > 1 && self.marks.front().is_some_and(|it| it.last < self.first) {
            self.marks.pop_front();
        }
    }

    /// Settles all entries up to the one at that index, and drops them.
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

    /// Ends it all: gives the runs of unsettled publishes of which something has left or will, and
    /// of those of which nothing will. `leaves` is how much of the lane of ready frames does.
    pub(crate) fn end(
        &mut self,
        leaves: u64,
        mut sent: impl FnMut(PublishSeq, PublishSeq),
        mut unsent: impl FnMut(PublishSeq, PublishSeq),
    ) {
        let all = self.entries.len();
        self.runs(all, |entry| entry.position < leaves, &mut sent);
        self.runs(all, |entry| entry.position >= leaves, &mut unsent);
        *self = Self {
            first: self.next(),
            ..Self::new()
        };
    }

    /// The runs of unsettled entries that are `wanted`, among the first `count`.
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

/// Whether a publish is settled, among entries of which the front has the number `first`.
fn is_settled(first: u64, entries: &VecDeque<Entry>, seq: u64) -> bool {
    let at = seq.checked_sub(first);
    at.is_none_or(|at| entries.get(at as usize).is_some_and(|entry| entry.settled))
}
