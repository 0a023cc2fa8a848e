//! The order in which addresses are tried.

use super::Address;

/// The order in which addresses are tried.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Order {
    /// In the given order: the first is preferred.
    #[default]
    Listed,
    /// In a random order that the seed determines, each order equally likely, to distribute clients
    /// over the nodes of a cluster. The same seed results in the same order.
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

/// Fisher-Yates: each position from the back receives one of the remaining addresses.
fn shuffle(addresses: &mut [Address], mut generator: SplitMix) {
    for last in (1..addresses.len()).rev() {
        addresses.swap(generator.below(last + 1), last);
    }
}

/// Sebastiano Vigna's SplitMix64: small, and good from any seed, including 0, 1 and 2.
struct SplitMix(u64);

impl SplitMix {
    const fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// Returns a number below the limit. With 64 bits per number, the bias is negligible for any
    /// list that fits into memory.
    const fn below(&mut self, limit: usize) -> usize {
        ((self.next() as u128 * limit as u128) >> 64) as usize
    }
}
