//! The order in which addresses are tried.

use super::Address;
use crate::random::SplitMix;

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
        addresses.swap(generator.below(last as u64 + 1) as usize, last);
    }
}
