//! Fields for generated samples of every method.

use alloc::{string::String, vec::Vec};

use crate::wire::{
    Decimal, FieldArray, FieldTable, FieldValue, LongStr, Secret, ShortStr, Timestamp,
};

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

/// Values from all of their range, and often from its ends. The same seed gives the same values.
pub(crate) struct Random(u64);

/// How many types a field of a table can have.
const FIELD_TYPES: usize = 18;

impl Random {
    pub(crate) const fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next number (splitmix64).
    pub(crate) const fn number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below that one.
    pub(crate) fn below(&mut self, end: usize) -> usize {
        (self.number() % end.max(1) as u64) as usize
    }

    /// A number of at most 64 bits, now and then the least or the greatest.
    fn integer(&mut self) -> u64 {
        match self.below(8) {
            0 => 0,
            1 => u64::MAX,
            2 => i64::MAX as u64,
            3 => self.number() % 300,
            _ => self.number(),
        }
    }

    /// A length, often one at which something changes: the ends of a short string, of one in
    /// place.
    fn length(&mut self) -> usize {
        match self.below(6) {
            0 => 0,
            1 => 38,
            2 => 39,
            3 => 255,
            _ => self.below(60),
        }
    }

    fn text(&mut self) -> String {
        let len = self.length();
        let mut text = String::new();
        while text.len() < len {
            let left = len - text.len();
            let letters = ['a', 'Z', '\0', '.', 'é', '€', '🐇'];
            let letter = letters[self.below(letters.len())];
            text.push(if letter.len_utf8() > left {
                'x'
            } else {
                letter
            });
        }
        text
    }

    pub(crate) fn bytes(&mut self) -> Vec<u8> {
        (0..self.length()).map(|_| self.number() as u8).collect()
    }

    /// A value of one of the `FIELD_TYPES` types, with at most so many levels of others in it.
    fn value(&mut self, kind: usize, depth: usize) -> FieldValue {
        match kind {
            0 => FieldValue::Bool(self.bit()),
            1 => FieldValue::I8(self.integer() as i8),
            2 => FieldValue::U8(self.integer() as u8),
            3 => FieldValue::I16(self.integer() as i16),
            4 => FieldValue::U16(self.integer() as u16),
            5 => FieldValue::I32(self.integer() as i32),
            6 => FieldValue::U32(self.integer() as u32),
            7 => FieldValue::I64(self.integer() as i64),
            8 => FieldValue::I64Alias(self.integer() as i64),
            // Whole numbers, of which each equals itself.
            9 => FieldValue::F32(self.integer() as f32),
            10 => FieldValue::F64(self.integer() as f64),
            11 => FieldValue::Decimal(Decimal {
                scale: self.octet(),
                value: self.long(),
            }),
            12 => FieldValue::LongStr(self.long_str()),
            13 => FieldValue::Timestamp(self.timestamp()),
            14 => FieldValue::Bytes(self.bytes().into()),
            15 => FieldValue::Array(self.array(depth)),
            16 => FieldValue::Table(self.fields(depth)),
            _ => FieldValue::Void,
        }
    }

    /// A value that holds others only down to that depth.
    fn any_value(&mut self, depth: usize) -> FieldValue {
        let kind = self.below(FIELD_TYPES);
        let nests = matches!(kind, 15 | 16);
        self.value(if nests && depth == 0 { 17 } else { kind }, depth)
    }

    fn array(&mut self, depth: usize) -> FieldArray {
        (0..self.below(4))
            .map(|_| self.any_value(depth.saturating_sub(1)))
            .collect()
    }

    fn fields(&mut self, depth: usize) -> FieldTable {
        (0..self.below(4))
            .map(|_| (self.short_str(), self.any_value(depth.saturating_sub(1))))
            .collect()
    }
}

impl Sample for Random {
    fn bit(&mut self) -> bool {
        self.number() & 1 == 1
    }

    fn octet(&mut self) -> u8 {
        self.integer() as u8
    }

    fn short(&mut self) -> u16 {
        self.integer() as u16
    }

    fn long(&mut self) -> u32 {
        self.integer() as u32
    }

    fn longlong(&mut self) -> u64 {
        self.integer()
    }

    fn short_str(&mut self) -> ShortStr {
        self.text().try_into().unwrap()
    }

    fn long_str(&mut self) -> LongStr {
        self.bytes().into()
    }

    fn secret(&mut self) -> Secret {
        self.bytes().into()
    }

    fn timestamp(&mut self) -> Timestamp {
        Timestamp(self.integer())
    }

    /// A field of every type, some of them with others inside.
    fn table(&mut self) -> FieldTable {
        (0..FIELD_TYPES)
            .map(|kind| (self.short_str(), self.value(kind, 3)))
            .collect()
    }
}

/// The same values for every method, chosen so that both sides accept them: the effect depends on
/// the method alone.
#[derive(Default)]
pub(crate) struct Harmless {
    /// The octets are the version in `connection.start`: 0 and 9 in turn.
    octets: bool,
}

impl Harmless {
    /// Every short string: the name of a queue, the tag of a consumer.
    pub(crate) const NAME: &'static str = "t";
    /// Every number of 64 bits: a delivery tag.
    pub(crate) const TAG: u64 = 1;
}

impl Sample for Harmless {
    fn bit(&mut self) -> bool {
        false
    }

    fn octet(&mut self) -> u8 {
        self.octets = !self.octets;
        if self.octets { 0 } else { 9 }
    }

    /// A reply code, a number of channels, a heartbeat interval in seconds.
    fn short(&mut self) -> u16 {
        200
    }

    /// A limit for frames.
    fn long(&mut self) -> u32 {
        8192
    }

    fn longlong(&mut self) -> u64 {
        Self::TAG
    }

    fn short_str(&mut self) -> ShortStr {
        ShortStr::from_static(Self::NAME).unwrap()
    }

    /// The mechanisms and the locales that a server offers.
    fn long_str(&mut self) -> LongStr {
        LongStr::from("PLAIN en_US")
    }

    fn secret(&mut self) -> Secret {
        Secret::from("\0guest\0guest")
    }

    fn timestamp(&mut self) -> Timestamp {
        Timestamp(0)
    }

    fn table(&mut self) -> FieldTable {
        FieldTable::new()
    }
}
