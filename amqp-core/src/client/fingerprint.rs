//! Fingerprints of published messages, for matching returns.

use alloc::{boxed::Box, vec::Vec};

use crate::{
    body::{Body, NO_FLAGS},
    client::reply_to::REPLY_TO,
    protocol::basic::Properties,
    wire::{ShortStr, parse},
};

/// The header that RabbitMQ removes before routing,
/// <https://www.rabbitmq.com/docs/sender-selected>.
const BCC: &[u8] = b"BCC";

/// The maximum number of headers that are compared one by one. It bounds the memory of an
/// unconfirmed publish, at 8 bytes per header.
const FIELDS_MAX: usize = 64;

/// Hashes of the properties that tolerate changes by the server.
///
/// RabbitMQ removes the header `BCC`, and replaces `reply-to` with an address for direct replies
/// (<https://www.rabbitmq.com/docs/direct-reply-to>). Its message interceptors add headers and set
/// the timestamp.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Fingerprint {
    /// A hash of the encoded properties.
    pub(crate) exact: u64,
    /// A hash of the properties without those that RabbitMQ is known to change in each message,
    /// independent of the order of the headers.
    pub(crate) normal: u64,
    /// A hash of the properties other than the timestamp and the headers.
    rest: u64,
    /// The hashes of the headers other than `BCC`, ascending. `Some` if they are readable and at
    /// most [`FIELDS_MAX`].
    fields: Option<Box<[u64]>>,
}

impl Fingerprint {
    pub(crate) fn of(encoded: &[u8]) -> Self {
        if encoded == NO_FLAGS {
            return Self {
                exact: NOTHING,
                normal: NOTHING,
                rest: NOTHING,
                fields: Some(Box::default()),
            };
        }
        let exact = hash(encoded);
        let mut rest = Hasher::new();
        let mut timestamp = Hasher::new();
        let mut fields = Vec::new();
        let mut readable = true;
        let visited = Properties::visit(encoded, |name, value| match name {
            "headers" => {
                let visited = parse::visit_table(value, |name, field| {
                    if name != BCC {
                        fields.push(hash(field));
                    }
                });
                readable = visited.is_ok();
            }
            "timestamp" => timestamp.add(value),
            _ => {
                rest.add(name.as_bytes());
                let replies = name == "reply-to" && replies_directly(value);
                rest.add(if replies { REPLY_TO.as_bytes() } else { value });
            }
        });
        if visited.is_err() || !readable {
            // Unreadable properties are compared as a whole.
            return Self {
                exact,
                normal: exact,
                rest: exact,
                fields: None,
            };
        }
        fields.sort_unstable();
        let rest = rest.finish();
        let timestamp = timestamp.finish();
        let mut normal = Hasher::new();
        if (rest, timestamp, &*fields) != (NOTHING, NOTHING, &[]) {
            for part in [rest, timestamp].iter().chain(&fields) {
                normal.add(&part.to_be_bytes());
            }
        }
        Self {
            exact,
            normal: normal.finish(),
            rest,
            fields: (fields.len() <= FIELDS_MAX).then(|| fields.into_boxed_slice()),
        }
    }

    /// Whether a server that adds headers or sets the timestamp can have changed this into
    /// `returned`.
    pub(crate) fn may_become(&self, returned: &Self) -> bool {
        if self.rest != returned.rest {
            return false;
        }
        let (Some(fields), Some(more)) = (&self.fields, &returned.fields) else {
            return true;
        };
        let mut more = more.iter();
        // Both iterators ascend.
        fields.iter().all(|field| more.any(|other| other == field))
    }
}

/// Whether an encoded `reply-to` is the pseudo-queue of direct replies, or an address of it.
fn replies_directly(value: &[u8]) -> bool {
    value
        .get(1..)
        .is_some_and(|text| text.starts_with(REPLY_TO.as_bytes()))
}

/// Hashes exchange and routing key.
pub(crate) fn hash_address(exchange: &ShortStr, routing_key: &ShortStr) -> u64 {
    let mut hasher = Hasher::new();
    hasher.add(&[exchange.len() as u8]);
    hasher.add(exchange.as_bytes());
    hasher.add(routing_key.as_bytes());
    hasher.finish()
}

/// Hashes a whole body, independent of its pieces. No part is skipped: bodies that differ only
/// there would be considered equal. Hashing takes a fraction of the time of sending the body.
pub(crate) fn hash_body(body: &Body) -> u64 {
    let mut hasher = Hasher::new();
    for piece in body.pieces() {
        hasher.add(piece);
    }
    hasher.finish()
}

fn hash(bytes: &[u8]) -> u64 {
    let mut hasher = Hasher::new();
    hasher.add(bytes);
    hasher.finish()
}

/// The hash of no bytes: that of the properties of most messages takes no time.
const NOTHING: u64 = 0;

/// The length of a block, in bytes.
const BLOCK: usize = 32;

/// A fast 64-bit hash. It has no key and is not safe against crafted collisions: it compares only
/// messages of the same publisher.
///
/// Each of four lanes takes one word per round, with one multiplication. Each step is reversible,
/// so two inputs that differ in one word never collide within a lane.
#[derive(Debug)]
struct Hasher {
    lanes: [u64; 4],
    /// The bytes that do not fill a block yet.
    block: [u8; BLOCK],
    /// The number of bytes added.
    len: u64,
}

const MULTIPLIER: u64 = 0x9e37_79b9_7f4a_7c15;

impl Hasher {
    const fn new() -> Self {
        Self {
            lanes: [
                0x243f_6a88_85a3_08d3,
                0x1319_8a2e_0370_7344,
                0xa409_3822_299f_31d0,
                0x082e_fa98_ec4e_6c89,
            ],
            block: [0; BLOCK],
            len: 0,
        }
    }

    fn add(&mut self, mut bytes: &[u8]) {
        let filled = (self.len % BLOCK as u64) as usize;
        self.len += bytes.len() as u64;
        if filled > 0 {
            let (head, tail) = bytes.split_at(bytes.len().min(BLOCK - filled));
            self.fill(filled, head);
            if filled + head.len() < BLOCK {
                return;
            }
            let block = self.block;
            self.round(&block);
            bytes = tail;
        }
        let (blocks, rest) = bytes.as_chunks::<BLOCK>();
        for block in blocks {
            self.round(block);
        }
        self.fill(0, rest);
    }

    /// Copies bytes into the block.
    fn fill(&mut self, at: usize, bytes: &[u8]) {
        if let Some(slots) = self.block.get_mut(at..at + bytes.len()) {
            slots.copy_from_slice(bytes);
        }
    }

    #[inline]
    fn round(&mut self, block: &[u8; BLOCK]) {
        let (words, _) = block.as_chunks::<8>();
        for (lane, word) in self.lanes.iter_mut().zip(words) {
            *lane = step(*lane, u64::from_le_bytes(*word));
        }
    }

    fn finish(mut self) -> u64 {
        if self.len == 0 {
            return NOTHING;
        }
        let filled = (self.len % BLOCK as u64) as usize;
        if filled > 0 {
            if let Some(slots) = self.block.get_mut(filled..) {
                slots.fill(0);
            }
            let block = self.block;
            self.round(&block);
        }
        let mut hash = step(MULTIPLIER, self.len);
        for lane in self.lanes {
            hash = step(hash, mix(lane));
        }
        mix(hash)
    }
}

#[inline]
const fn step(lane: u64, word: u64) -> u64 {
    (lane ^ word).wrapping_mul(MULTIPLIER).rotate_left(29)
}

/// Spreads each bit over all others.
const fn mix(mut hash: u64) -> u64 {
    hash ^= hash >> 33;
    hash = hash.wrapping_mul(0xff51_afd7_ed55_8ccd);
    hash ^= hash >> 33;
    hash = hash.wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    hash ^ (hash >> 33)
}

#[cfg(test)]
mod tests {
    use alloc::vec;

    use bytes::Bytes;

    use super::*;
    use crate::{body::EncodedProperties, wire::FieldTable};

    #[test]
    fn the_pieces_of_a_body_do_not_matter() {
        let bytes: Vec<u8> = (0..200).collect();
        let whole = hash_body(&Body::from(bytes.clone()));
        for size in 1..bytes.len() {
            let mut body = Body::default();
            for piece in bytes.chunks(size) {
                body.push(Bytes::copy_from_slice(piece));
            }
            assert_eq!(hash_body(&body), whole, "pieces of {size}");
        }
    }

    #[test]
    fn each_byte_of_a_body_matters_whatever_its_length() {
        for len in 1..100 {
            let hash = |bytes: Vec<u8>| hash_body(&Body::from(bytes));
            let plain = hash(vec![7; len]);
            assert_ne!(plain, hash(vec![7; len + 1]));
            for at in 0..len {
                let mut bytes = vec![7; len];
                bytes[at] ^= 1;
                assert_ne!(plain, hash(bytes), "byte {at} of {len}");
            }
        }
    }

    /// A flipped bit flips about half of the others: 64 bits within 5 standard deviations.
    #[test]
    fn each_bit_of_a_hash_depends_on_each_bit_of_a_lane() {
        let plain = mix(MULTIPLIER);
        for bit in 0..64 {
            let flipped = (plain ^ mix(MULTIPLIER ^ (1 << bit))).count_ones();
            assert!((12..=52).contains(&flipped), "bit {bit}: {flipped}");
        }
    }

    #[test]
    fn a_message_gains_headers_and_loses_none() {
        let fingerprint = |names: &[&str]| {
            let mut headers = FieldTable::new();
            for name in names {
                headers = headers.with(*name, *name);
            }
            let properties = Properties::default().headers(headers);
            Fingerprint::of(EncodedProperties::from(&properties).as_bytes())
        };
        let one = fingerprint(&["a"]);
        assert!(one.may_become(&fingerprint(&["a", "b"])));
        assert!(!one.may_become(&fingerprint(&["b"])));
        assert!(!fingerprint(&["a", "b"]).may_become(&one));
    }
}
