//! The unconfirmed publishes of a channel in confirm mode.

use alloc::collections::{BTreeMap, VecDeque};

use core::time::Duration;

use super::{
    fingerprint::{Fingerprint, hash_address, hash_body},
    returns::{Found, Key, Mandatory},
    seq_ring::SeqRing,
};
use crate::{body::Content, ids::PublishSeq, protocol::basic, time::Instant};

/// The unconfirmed publishes, by number.
///
/// Confirms arrive in any order, for one publish or for all up to a number
/// (<https://www.rabbitmq.com/docs/confirms>). A ring indexed by number settles each publish once,
/// at a cost independent of the number outstanding. The few publishes that stay unsettled while
/// many after them are settled move to a search tree, so that they do not hold the ring.
#[derive(Debug)]
pub(crate) struct Confirms {
    /// Unsettled entries before the ring.
    older: BTreeMap<u64, Entry>,
    /// The ring. Its front is unsettled.
    entries: SeqRing<Entry>,
    /// The number of settled entries in the ring.
    settled: usize,
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

#[derive(Clone, Copy, Debug, Default)]
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

/// The number of settled entries that the ring keeps in any case.
const SLACK: usize = 32;

/// The number of publishes that an empty ring keeps memory for, a power of two, so that small batches
/// allocate nothing.
const KEPT: usize = 128;

impl Confirms {
    /// Begins to count after the given number.
    pub(crate) fn after(last: u64) -> Self {
        Self {
            older: BTreeMap::new(),
            entries: SeqRing::new(last + 1),
            settled: 0,
            mandatory: Mandatory::default(),
            in_doubt: 0,
            marks: VecDeque::new(),
            unmarked: false,
        }
    }

    /// The number of the first unsettled publish, or of the next one.
    fn oldest(&self) -> u64 {
        let older = self.older.keys().next();
        older.copied().unwrap_or_else(|| self.entries.first())
    }

    fn get_mut(&mut self, seq: u64) -> Option<&mut Entry> {
        if seq < self.entries.first() {
            self.older.get_mut(&seq)
        } else {
            self.entries.get_mut(seq)
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
        if last < self.oldest() {
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
        let waits = mark.last >= self.oldest();
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
        self.older.len() + self.entries.len()
    }

    /// The number of entries that count towards the limit: the unsettled ones and, while a mandatory
    /// one is among them, settled ones after it, which keep their places.
    pub(crate) fn window(&self) -> usize {
        if self.mandatory.is_empty() {
            self.unsettled()
        } else {
            self.len()
        }
    }

    /// The number of unsettled entries.
    pub(crate) fn unsettled(&self) -> usize {
        self.len() - self.settled
    }

    /// The number of the next publish.
    #[inline]
    pub(crate) const fn next(&self) -> u64 {
        self.entries.next()
    }

    /// Adds the next publish.
    #[inline]
    pub(crate) fn add(&mut self, position: u64) -> PublishSeq {
        PublishSeq(self.entries.push(Entry {
            settled: false,
            in_doubt: false,
            position,
        }))
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
        for seq in (self.entries.first()..self.next().min(last + 1)).rev() {
            match self.entries.get_mut(seq) {
                Some(entry) if entry.position == BACKLOG => entry.position = 0,
                Some(_) => return,
                None => {}
            }
        }
        let older = self.older.range_mut(..=last).map(|(_, entry)| entry).rev();
        for entry in older.take_while(|entry| entry.position == BACKLOG) {
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
        let (older, entries) = (&self.older, &self.entries);
        let is_settled = |seq| is_settled(older, entries, seq);
        let found = self.mandatory.find(key, &properties, is_settled);
        self.doubt(&found.candidates);
        found
    }

    /// Like [`match_return`](Self::match_return), for a return of which only the method is
    /// readable. Every publish to that address that may have been returned is in doubt from now on.
    pub(crate) fn match_unread_return(&mut self, method: &basic::Return) {
        let address = hash_address(&method.exchange, &method.routing_key);
        let (older, entries) = (&self.older, &self.entries);
        let is_settled = |seq| is_settled(older, entries, seq);
        let found = self.mandatory.find_by_address(address, is_settled);
        self.doubt(&found.candidates);
        self.doubt(found.seq.as_slice());
    }

    fn doubt(&mut self, candidates: &[PublishSeq]) {
        for seq in candidates {
            if let Some(entry) = self.get_mut(seq.0)
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
        // A number below the oldest is settled already. A repeated confirm is harmless.
        if seq >= next || seq < self.oldest() {
            return;
        }
        if multiple {
            self.settle_up_to(seq, &mut settled);
        } else if let Some(entry) = self.get_mut(seq)
            && !entry.settled
        {
            entry.settled = true;
            let in_doubt = entry.in_doubt;
            self.in_doubt -= usize::from(in_doubt);
            self.settled += usize::from(seq >= self.entries.first());
            self.older.remove(&seq);
            settled(PublishSeq(seq), PublishSeq(seq), in_doubt);
        }
        self.trim();
        self.move_older();
        self.entries.release(KEPT);
        let oldest = self.oldest();
        self.mandatory.forget_before(oldest);
        // Keeps the last mark for publishes that follow soon.
        while self.marks.len() > 1 && self.marks.front().is_some_and(|it| it.last < oldest) {
            self.marks.pop_front();
        }
    }

    /// Removes the settled entries at the front of the ring.
    fn trim(&mut self) {
        let front = |entries: &SeqRing<Entry>| entries.get(entries.first()).copied();
        while front(&self.entries).is_some_and(|entry| entry.settled) {
            self.entries.pop_front();
            self.settled -= 1;
        }
    }

    /// Moves entries out of the front of the ring while most of it is settled. Each of them is paid
    /// for by a settled one that loses its place. Mandatory publishes keep their places, and with
    /// them the limit of their number.
    fn move_older(&mut self) {
        while 2 * self.settled > self.entries.len() + SLACK
            && self.mandatory.is_empty()
            && let first = self.entries.first()
            && let Some(entry) = self.entries.pop_front()
        {
            self.older.insert(first, entry);
            self.trim();
        }
    }

    /// Settles all entries up to that number, and removes them.
    fn settle_up_to(&mut self, last: u64, settled: &mut impl FnMut(PublishSeq, PublishSeq, bool)) {
        let sure = |entry: &Entry| !entry.in_doubt;
        self.runs(last, sure, &mut |from, to| settled(from, to, false));
        if self.in_doubt > 0 {
            let mut count = 0;
            self.runs(last, |entry| entry.in_doubt, &mut |from, to| {
                count += (to.0 - from.0) as usize + 1;
                settled(from, to, true);
            });
            self.in_doubt -= count;
        }
        while let Some(entry) = self.older.first_entry()
            && *entry.key() <= last
        {
            entry.remove();
        }
        while self.entries.first() <= last
            && let Some(entry) = self.entries.pop_front()
        {
            self.settled -= usize::from(entry.settled);
        }
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
        self.runs(ALL, |entry| entry.position < leaves, &mut sent);
        self.runs(ALL, |entry| entry.position >= leaves, &mut unsent);
        *self = Self::after(self.next() - 1);
    }

    /// Passes the runs of unsettled entries that are `wanted`, up to the number `last`, to `run`.
    fn runs(
        &self,
        last: u64,
        wanted: impl Fn(&Entry) -> bool,
        run: &mut impl FnMut(PublishSeq, PublishSeq),
    ) {
        let older = self.older.iter().map(|(seq, entry)| (*seq, entry));
        let all = older
            .take_while(|(seq, _)| *seq <= last)
            .chain(self.entries.up_to(last));
        let mut last_run: Option<(u64, u64)> = None;
        for (seq, entry) in all {
            if entry.settled || !wanted(entry) {
                continue;
            }
            match &mut last_run {
                Some((_, to)) if *to + 1 == seq => *to = seq,
                last_run => {
                    if let Some((from, to)) = last_run.replace((seq, seq)) {
                        run(PublishSeq(from), PublishSeq(to));
                    }
                }
            }
        }
        if let Some((from, to)) = last_run {
            run(PublishSeq(from), PublishSeq(to));
        }
    }
}

/// Whether a publish is settled.
fn is_settled(older: &BTreeMap<u64, Entry>, entries: &SeqRing<Entry>, seq: u64) -> bool {
    if seq < entries.first() {
        !older.contains_key(&seq)
    } else {
        entries.get(seq).is_some_and(|entry| entry.settled)
    }
}
