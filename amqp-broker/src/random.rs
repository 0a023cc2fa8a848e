//! Pseudo-random numbers from a seed.

use alloc::string::String;

/// A splitmix64 generator. Every seed is valid. Not for secrets.
#[derive(Clone, Debug)]
pub(crate) struct Random(u64);

impl Random {
    pub(crate) const fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(crate) const fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// Generates a name in RabbitMQ's format: the prefix, then 128 bits in 22 letters, digits, `-`
    /// and `_`.
    pub(crate) fn name(&mut self, prefix: &str) -> String {
        const ALPHABET: &[u8; 64] =
            b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
        const LETTERS: u32 = 22;
        let mut bits = u128::from(self.next()) << 64 | u128::from(self.next());
        let mut name = String::from(prefix);
        for _ in 0..LETTERS {
            let letter = ALPHABET.get((bits & 63) as usize).copied();
            name.push(letter.map_or('-', char::from));
            bits >>= 6;
        }
        name
    }
}
