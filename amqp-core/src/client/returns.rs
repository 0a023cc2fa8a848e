//! Which publish a returned message is.

use alloc::{
    collections::{BTreeMap, VecDeque},
    vec::Vec,
};

use super::fingerprint::Fingerprint;
use crate::ids::PublishSeq;

/// The mandatory publishes of a channel in confirm mode that may still come back.
///
/// A return has no number. It is recognised by address, body and properties, and by the order: a
/// server returns messages in the order in which they were published, each before its confirm.
/// Publishes that are equal in all of that form one [`Variant`] and come back from its front. A
/// return that fits several variants is the front of one of them, and which one is not known: the
/// fronts of all are candidates, and none of them fits a second time. So each message that came
/// back is among those that were named.
#[derive(Debug, Default)]
pub(crate) struct Mandatory {
    variants: BTreeMap<Key, Variant>,
    /// The publishes in their order, each with its variant. Older ones than the first unsettled
    /// publish are dropped.
    order: VecDeque<(u64, Key)>,
    /// What comes back now was published behind this number.
    returned: u64,
    /// A return fitted only as one that headers were added to: the server adds some, so that an
    /// exact match is none that decides.
    headers_added: bool,
}

/// What a publish is found by: address, body, properties without what RabbitMQ changes, all
/// properties. Hashes, but for collisions equal only for equal messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Key {
    pub(crate) address: u64,
    pub(crate) body: u64,
    normal: u64,
    exact: u64,
}

/// Publishes that are equal.
#[derive(Debug)]
struct Variant {
    properties: Fingerprint,
    /// How many of them are in the order.
    ordered: usize,
    /// The one that comes back next. `None` if none can any more.
    front: Option<u64>,
    /// Those behind it, ascending.
    more: VecDeque<u64>,
    /// The last one that was in front; 0 for none.
    last: u64,
    /// One of them was a candidate, and it may have been another message that came back. What comes
    /// back now may then be one that is behind the front already.
    in_doubt: bool,
}

/// What was found for a return.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Found {
    /// The publish, where it is certain.
    pub(crate) seq: Option<PublishSeq>,
    /// Those that it may be, where it is not certain.
    pub(crate) candidates: Vec<PublishSeq>,
}

impl Key {
    pub(crate) const fn new(address: u64, body: u64, properties: &Fingerprint) -> Self {
        Self {
            address,
            body,
            normal: properties.normal,
            exact: properties.exact,
        }
    }

    /// The first and the last key with the same address.
    const fn with_address(self) -> [Self; 2] {
        [
            Self {
                body: 0,
                ..self.with_body()[0]
            },
            Self {
                body: u64::MAX,
                ..self.with_body()[1]
            },
        ]
    }

    /// The first and the last key with the same address and body.
    const fn with_body(self) -> [Self; 2] {
        [
            Self {
                normal: 0,
                ..self.with_normal()[0]
            },
            Self {
                normal: u64::MAX,
                ..self.with_normal()[1]
            },
        ]
    }

    /// The first and the last key that differ only in what RabbitMQ changes.
    const fn with_normal(self) -> [Self; 2] {
        [
            Self { exact: 0, ..self },
            Self {
                exact: u64::MAX,
                ..self
            },
        ]
    }
}

impl Variant {
    /// Drops the front while it cannot come back.
    fn drop_stale(&mut self, returned: u64, is_settled: impl Fn(u64) -> bool) {
        while let Some(front) = self.front
            && (front <= returned || is_settled(front))
        {
            self.front = self.more.pop_front();
        }
    }
}

/// The fronts of some variants.
#[derive(Debug, Default)]
struct Fronts {
    seqs: Vec<(u64, Key)>,
    /// There were variants at all.
    any: bool,
    /// What came back was published at this number or later.
    earliest: u64,
    /// One without a front may have been meant.
    doubtful: bool,
}

impl Mandatory {
    /// Adds a publish.
    pub(crate) fn add(&mut self, seq: u64, key: Key, properties: Fingerprint) {
        self.order.push_back((seq, key));
        let variant = self.variants.entry(key).or_insert_with(|| Variant {
            properties,
            ordered: 0,
            front: None,
            more: VecDeque::new(),
            last: 0,
            in_doubt: false,
        });
        variant.ordered += 1;
        if variant.front.is_none() {
            variant.front = Some(seq);
        } else {
            variant.more.push_back(seq);
        }
    }

    /// Forgets the publishes before that number.
    pub(crate) fn forget_before(&mut self, first: u64) {
        while let Some(&(seq, key)) = self.order.front()
            && seq < first
        {
            self.order.pop_front();
            if let Some(variant) = self.variants.get_mut(&key) {
                variant.drop_stale(seq, |_| false);
                variant.ordered = variant.ordered.saturating_sub(1);
                if variant.ordered == 0 {
                    self.variants.remove(&key);
                }
            }
        }
    }

    /// Finds the publish that came back.
    pub(crate) fn find(
        &mut self,
        key: Key,
        properties: &Fingerprint,
        is_settled: impl Fn(u64) -> bool,
    ) -> Found {
        let [from, to] = key.with_normal();
        let equal = self.fronts(from, to, |_| true, &is_settled);
        if !equal.seqs.is_empty() && !self.headers_added {
            return self.take(equal, true);
        }
        // All that it could be equal to came back already, or so it seemed.
        let certain = !equal.any || !equal.seqs.is_empty();
        let [from, to] = key.with_body();
        let grown = |variant: &Variant| variant.properties.may_become(properties);
        let grown = self.fronts(from, to, grown, &is_settled);
        if !grown.seqs.is_empty() {
            self.headers_added |= !equal.any;
            return self.take(grown, certain);
        }
        let certain = certain && !grown.any;
        let alike = self.fronts(from, to, |_| true, &is_settled);
        self.take(alike, certain)
    }

    /// Finds the publish that came back, of which only the address is known.
    pub(crate) fn find_by_address(
        &mut self,
        address: u64,
        is_settled: impl Fn(u64) -> bool,
    ) -> Found {
        let key = Key {
            address,
            body: 0,
            normal: 0,
            exact: 0,
        };
        let [from, to] = key.with_address();
        let fronts = self.fronts(from, to, |_| true, &is_settled);
        self.take(fronts, true)
    }

    /// The fronts of the wanted variants in a range.
    fn fronts(
        &mut self,
        from: Key,
        to: Key,
        wanted: impl Fn(&Variant) -> bool,
        is_settled: impl Fn(u64) -> bool,
    ) -> Fronts {
        let mut fronts = Fronts {
            earliest: u64::MAX,
            ..Fronts::default()
        };
        for (key, variant) in self.variants.range_mut(from..=to) {
            if !wanted(variant) {
                continue;
            }
            fronts.any = true;
            variant.drop_stale(self.returned, &is_settled);
            if let Some(seq) = variant.front {
                fronts.seqs.push((seq, *key));
            } else {
                let last = variant.last;
                fronts.doubtful |= variant.in_doubt && last > self.returned && !is_settled(last);
            }
            let earliest = if variant.in_doubt {
                self.returned
            } else {
                variant.front.unwrap_or(u64::MAX)
            };
            fronts.earliest = fronts.earliest.min(earliest);
        }
        fronts
    }

    /// Takes the fronts out: one of them came back. A single one is it, if that is `certain`.
    fn take(&mut self, fronts: Fronts, certain: bool) -> Found {
        if fronts.seqs.is_empty() {
            return Found::default();
        }
        if certain {
            self.returned = self.returned.max(fronts.earliest);
        }
        let single = certain && !fronts.doubtful && fronts.seqs.len() == 1;
        let mut found = Found::default();
        for (seq, key) in fronts.seqs {
            if let Some(variant) = self.variants.get_mut(&key) {
                variant.front = variant.more.pop_front();
                variant.last = seq;
                variant.in_doubt |= !single;
            }
            if single {
                found.seq = Some(PublishSeq(seq));
            } else {
                found.candidates.push(PublishSeq(seq));
            }
        }
        found.candidates.sort_unstable();
        found
    }
}
