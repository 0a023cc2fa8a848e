//! The types of the arguments of each method, in wire order.

/// The type of an argument.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Bit,
    Octet,
    Short,
    Long,
    LongLong,
    ShortStr,
    LongStr,
    Timestamp,
    Table,
}

/// A class id, a method id, and the types of the arguments.
pub type Layout = (u16, u16, &'static [Kind]);

include!(concat!(env!("OUT_DIR"), "/layouts.rs"));

/// The dictionary of the targets, as `fuzz/amqp.dict` has it.
pub const DICTIONARY: &str = include_str!(concat!(env!("OUT_DIR"), "/amqp.dict"));
