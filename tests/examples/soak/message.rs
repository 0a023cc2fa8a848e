//! The messages: sizes and bytes that both ends derive from a seed.

use amqp_tokio::{
    core::{Tuning, bytes::Bytes},
    protocol::basic::Properties,
    wire::FieldTable,
};

/// The header that carries a message's checksum.
const CHECKSUM: &str = "crc32";

/// How many of that many messages have which size: the sum of the shares.
const SHARES: u64 = 100_000;

/// A size of bodies.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Size {
    /// In bytes.
    pub(crate) len: usize,
    /// How many of [`SHARES`] messages have it.
    share: u64,
}

/// The kinds of messages.
#[derive(Debug)]
pub(crate) struct Plan {
    seed: u64,
    sizes: [Size; 8],
}

impl Plan {
    /// The messages of that seed, on connections that have agreed on those limits.
    pub(crate) fn new(seed: u64, tuning: &Tuning) -> Self {
        const FRAME_OVERHEAD: usize = 8;
        const USUAL_FRAME: usize = 128 << 10;
        let frame = if tuning.is_frame_unlimited() {
            USUAL_FRAME
        } else {
            tuning.frame_max as usize
        };
        let full = frame - FRAME_OVERHEAD;
        let sizes = [
            (0, 10_000),
            (1, 10_000),
            (100, 78_330),
            (full - 1, 500),
            (full, 500),
            (full + 1, 500),
            (1 << 20, 150),
            (5 << 20, 20),
        ]
        .map(|(len, share)| Size { len, share });
        debug_assert_eq!(sizes.iter().map(|size| size.share).sum::<u64>(), SHARES);
        Self { seed, sizes }
    }

    /// All sizes there are.
    pub(crate) const fn sizes(&self) -> &[Size] {
        &self.sizes
    }

    /// Which of the [sizes](Self::sizes) a message of a lane has. The first ones of a lane have
    /// one each, so that a short run has them all.
    pub(crate) fn size(&self, lane: u16, number: u64) -> usize {
        let nth = usize::try_from(number - 1).unwrap_or(usize::MAX);
        if nth < self.sizes.len() {
            return nth;
        }
        let mut lot = self.random(lane, number).next() % SHARES;
        self.sizes
            .iter()
            .position(|size| {
                let drawn = lot < size.share;
                lot = lot.wrapping_sub(size.share);
                drawn
            })
            .unwrap_or_default()
    }

    /// The body of a message, with no two parts alike.
    pub(crate) fn body(&self, lane: u16, number: u64) -> Bytes {
        let len = self.sizes[self.size(lane, number)].len;
        let mut random = self.random(lane, number);
        let mut body = vec![0; len];
        for chunk in body.chunks_mut(8) {
            chunk.copy_from_slice(&random.next().to_le_bytes()[..chunk.len()]);
        }
        body.into()
    }

    fn random(&self, lane: u16, number: u64) -> Random {
        let mut random = Random(self.seed);
        random.0 = random.next() ^ u64::from(lane);
        random.0 = random.next() ^ number;
        random
    }
}

/// A checksum of a body, and of the place it belongs to.
pub(crate) fn checksum<'a>(
    lane: u16,
    number: u64,
    pieces: impl IntoIterator<Item = &'a Bytes>,
) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&lane.to_be_bytes());
    hasher.update(&number.to_be_bytes());
    for piece in pieces {
        hasher.update(piece);
    }
    hasher.finalize()
}

/// The properties of a message: which it is, and its checksum.
pub(crate) fn label(number: u64, checksum: u32) -> Properties {
    // Servers confirm persistent messages later than the rest, and so out of order.
    const TRANSIENT: u8 = 1;
    const PERSISTENT: u8 = 2;
    let mode = if number.is_multiple_of(4) {
        PERSISTENT
    } else {
        TRANSIENT
    };
    let headers = FieldTable::default().with(CHECKSUM, i64::from(checksum));
    Properties::default()
        .message_id(number.to_string())
        .delivery_mode(mode)
        .headers(headers)
}

/// The number and the checksum in a message's properties.
pub(crate) fn read_label(properties: &Properties) -> Option<(u64, u32)> {
    let number = properties.message_id.as_ref()?.parse().ok()?;
    let checksum = properties.headers.as_ref()?.get(CHECKSUM)?.as_i64()?;
    Some((number, checksum.try_into().ok()?))
}

/// A stream of numbers from a seed: SplitMix64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
}
