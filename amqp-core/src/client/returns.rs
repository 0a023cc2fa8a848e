//! Matching of returned messages to publishes.

use alloc::{
    collections::{BTreeMap, VecDeque},
    vec::Vec,
};

use super::fingerprint::Fingerprint;
use crate::ids::PublishSeq;

/// The mandatory publishes of a channel in confirm mode that may still be returned.
///
/// A return carries no publish number. It is matched by address, body and properties, and by order:
/// a server returns messages in publish order, each before its confirm
/// (<https://www.rabbitmq.com/docs/confirms>). Publishes that are equal in all of these form one
/// [`Variant`] and are returned from its front. A return that matches several variants is the front
/// of one of them, but it is unknown which: the fronts of all become candidates, and none of them
/// matches again. So each returned message is among the reported publishes, as
/// `src/tests/returns_model.rs` shows.
#[derive(Debug, Default)]
pub(crate) struct Mandatory {
    variants: BTreeMap<Key, Variant>,
    /// The publishes in order, each with its variant. Those before the first unsettled publish are
    /// dropped.
    order: VecDeque<(u64, Key)>,
    /// All further returns are of publishes after this number.
    returned: u64,
    /// `true` once a return matched only by assuming added headers. The server adds headers, so an
    /// exact match is not conclusive then.
    headers_added: bool,
}

/// The search key of a publish: address, body, properties without those that RabbitMQ changes, all
/// properties. These are hashes: except for collisions, equal only for equal messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Key {
    pub(crate) address: u64,
    pub(crate) body: u64,
    normal: u64,
    exact: u64,
}

/// Publishes with the same key.
#[derive(Debug)]
struct Variant {
    properties: Fingerprint,
    /// The number of publishes of the variant in `order`.
    ordered: usize,
    /// The publish that is returned next. `Some` if one of the variant can still be returned.
    front: Option<u64>,
    /// The publishes behind the front, ascending.
    more: VecDeque<u64>,
    /// The last publish that was in front; 0 if there was none.
    last: u64,
    /// A publish of the variant was a candidate, and another message may have been the returned
    /// one. The next return may then be of a publish that has left the front already.
    in_doubt: bool,
}

/// The match of a return.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Found {
    /// The publish. `Some` if the match is certain.
    pub(crate) seq: Option<PublishSeq>,
    /// The candidates, if the match is ambiguous.
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

    /// The first and the last key that differ only in properties that RabbitMQ changes.
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
    /// Removes fronts that can no longer be returned.
    fn drop_stale(&mut self, returned: u64, is_settled: impl Fn(u64) -> bool) {
        while let Some(front) = self.front
            && (front <= returned || is_settled(front))
        {
            self.front = self.more.pop_front();
        }
    }
}

/// The fronts of the variants in a key range.
#[derive(Debug, Default)]
struct Fronts {
    seqs: Vec<(u64, Key)>,
    /// Whether there are any variants in the range.
    any: bool,
    /// A lower bound for the number of the returned publish.
    earliest: u64,
    /// The returned publish may be of a variant without a front.
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

    pub(crate) fn is_empty(&self) -> bool {
        self.order.is_empty()
    }

    /// Removes the publishes before that number.
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

    /// Finds the returned publish.
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
        // If there are equal variants but no fronts, all equal publishes were returned already or
        // appeared to be.
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

    /// Finds the returned publish if only its address is known.
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

    /// Returns the fronts of the `wanted` variants in a key range.
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

    /// Removes the fronts, one of which was returned. A single front is the match, if that is
    /// `certain`.
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
