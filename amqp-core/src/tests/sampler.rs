//! Fields for generated samples of every method.

use crate::wire::{FieldTable, LongStr, Secret, ShortStr, Timestamp};

/// Gives a value of each wire type.
pub(crate) trait Sample {
    fn bit(&mut self) -> bool;
    fn octet(&mut self) -> u8;
    fn short(&mut self) -> u16;
    fn long(&mut self) -> u32;
    fn longlong(&mut self) -> u64;
    fn short_str(&mut self) -> ShortStr;
    fn long_str(&mut self) -> LongStr;
    fn secret(&mut self) -> Secret;
    fn timestamp(&mut self) -> Timestamp;
    fn table(&mut self) -> FieldTable;
}
