//! The publishes of a channel in confirm mode, until the server has told their fate.

use alloc::collections::VecDeque;

use core::time::Duration;

use crate::{ids::PublishSeq, protocol::basic, time::Instant, wire::ShortStr};

/// The publishes that wait for their confirm, by number.
///
/// Confirms come in any order, singly or for all up to a number. A ring that is indexed by number
/// settles each publish once, at a cost that does not depend on how many wait.
#[derive(Debug)]
pub(crate) struct Confirms {
    /// The number of the entry at the front.
    first: u64,
    entries: VecDeque<Entry>,
    /// The mandatory publishes among them, in order, to match returns to.
    mandatory: VecDeque<Mandatory>,
    /// The highest number that a return was matched to: returns come in publish order.
    returned: u64,
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
    /// Where its first byte stands in the lane of ready frames; `BACKLOG` while it waits in a
    /// backlog, 0 when it has left one.
    position: u64,
}

/// The position of a publish that waits in its channel's backlog.
pub(crate) const BACKLOG: u64 = u64::MAX - 1;

/// The end of everything that is queued, backlogs as well.
pub(crate) const ALL: u64 = u64::MAX;

/// What a return tells of the publish it belongs to.
#[derive(Debug)]
struct Mandatory {
    seq: u64,
    exchange: ShortStr,
    routing_key: ShortStr,
    properties: u64,
    body_len: usize,
}

/// What stands in a mandatory publish that a return can be recognised by.
pub(crate) struct Fingerprint {
    /// A hash of the encoded properties.
    pub(crate) properties: u64,
    /// In bytes.
    pub(crate) body_len: usize,
}

/// A hash of a few bytes that are not under attack: what collides is at worst told apart by order.
pub(crate) fn hash(bytes: &[u8]) -> u64 {
    // FNV-1a.
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

impl Confirms {
    pub(crate) const fn new() -> Self {
        Self {
            first: 1,
            entries: VecDeque::new(),
            mandatory: VecDeque::new(),
            returned: 0,
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
    pub(crate) fn expire(&mut self, at: Instant, settled: impl FnMut(PublishSeq, PublishSeq)) {
        if let Some(mark) = self.marks.front().filter(|mark| mark.at == at).copied() {
            self.marks.pop_front();
            // They were given out.
            let _known = self.settle(mark.last, true, settled);
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
            position,
        });
        PublishSeq(seq)
    }

    /// The publish just added is mandatory.
    pub(crate) fn add_mandatory(&mut self, publish: &basic::Publish, fingerprint: &Fingerprint) {
        self.mandatory.push_back(Mandatory {
            seq: self.next() - 1,
            exchange: publish.exchange.clone(),
            routing_key: publish.routing_key.clone(),
            properties: fingerprint.properties,
            body_len: fingerprint.body_len,
        });
    }

    /// Publishes up to this number have begun to leave their backlog.
    pub(crate) fn begun(&mut self, last: u64) {
        let count = (last + 1).saturating_sub(self.first) as usize;
        let entries = self.entries.iter_mut().take(count).rev();
        for entry in entries.take_while(|entry| entry.position == BACKLOG) {
            entry.position = 0;
        }
    }

    /// The publish that a return belongs to: the first mandatory one behind the last that was
    /// matched, of the same address, properties and length, and not confirmed yet, since a return
    /// comes before its confirm. A server may have changed the properties (RabbitMQ removes the
    /// `BCC` header), so the rest decides when nothing matches wholly.
    pub(crate) fn match_return(
        &mut self,
        method: &basic::Return,
        fingerprint: &Fingerprint,
    ) -> Option<PublishSeq> {
        let candidates = || {
            self.mandatory.iter().filter(|publish| {
                publish.seq > self.returned
                    && publish.exchange == method.exchange
                    && publish.routing_key == method.routing_key
                    && publish.body_len == fingerprint.body_len
                    && !self.is_settled(publish.seq)
            })
        };
        let seq = candidates()
            .find(|publish| publish.properties == fingerprint.properties)
            .or_else(|| candidates().next())?
            .seq;
        self.returned = seq;
        Some(PublishSeq(seq))
    }

    fn is_settled(&self, seq: u64) -> bool {
        let entry = seq.checked_sub(self.first);
        entry.is_none_or(|at| self.entries.get(at as usize).is_some_and(|it| it.settled))
    }

    /// Settles one publish, or all up to it; gives back the runs of those that were not settled.
    /// A number of 0 with `multiple` means all. A number that was never given out settles nothing:
    /// what it was meant for cannot be known, and the publishes that wait stay in doubt.
    pub(crate) fn settle(
        &mut self,
        seq: u64,
        multiple: bool,
        mut settled: impl FnMut(PublishSeq, PublishSeq),
    ) {
        let next = self.next();
        let seq = if multiple && seq == 0 { next - 1 } else { seq };
        // Below the first: settled long ago, which a server may say again.
        if seq >= next || seq < self.first {
            return;
        }
        let last = (seq - self.first) as usize;
        if multiple {
            self.runs(last + 1, |_| true, &mut settled);
            self.entries.drain(..=last);
            self.first = seq + 1;
        } else if let Some(entry) = self.entries.get_mut(last)
            && !entry.settled
        {
            entry.settled = true;
            settled(PublishSeq(seq), PublishSeq(seq));
        }
        while self.entries.front().is_some_and(|entry| entry.settled) {
            self.entries.pop_front();
            self.first += 1;
        }
        while self
            .mandatory
            .front()
            .is_some_and(|publish| publish.seq < self.first)
        {
            self.mandatory.pop_front();
        }
        // The last one is kept for publishes that come soon.
        while self.marks.len() > 1 && self.marks.front().is_some_and(|it| it.last < self.first) {
            self.marks.pop_front();
        }
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
