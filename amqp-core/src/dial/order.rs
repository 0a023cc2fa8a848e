//! The order in which addresses are tried.

use super::Address;

/// The order in which addresses are tried.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Order {
    /// As they are listed: the first is preferred.
    #[default]
    Listed,
    /// In an order that the seed decides, each equally likely, so that many clients spread over the
    /// nodes of a cluster. The same seed gives the same order.
    Shuffled {
        /// Any number, from a source of randomness or from a test.
        seed: u64,
    },
}

impl Order {
    pub(super) fn arrange(self, addresses: &mut [Address]) {
        match self {
            Self::Listed => {}
            Self::Shuffled { seed } => shuffle(addresses, SplitMix(seed)),
        }
    }
}

/// Fisher and Yates: each place from the back gets one of those that are left.
fn shuffle(addresses: &mut [Address], mut generator: SplitMix) {
    for last in (1..addresses.len()).rev() {
        addresses.swap(generator.below(last + 1), last);
    }
}

/// Sebastiano Vigna's SplitMix64: small, and good from any seed, be it 0, 1 or 2.
struct SplitMix(u64);

impl SplitMix {
    const fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below the limit. With 64 bits per number no list is long enough for a bias to show.
    const fn below(&mut self, limit: usize) -> usize {
        ((self.next() as u128 * limit as u128) >> 64) as usize
    }
}
