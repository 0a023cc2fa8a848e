//! The strategies of the fields of methods, and of numbers and strings.

use alloc::string::String;

use proptest::{
    arbitrary::{Arbitrary, any},
    char,
    collection::vec,
    prop_oneof,
    sample::select,
    strategy::{BoxedStrategy, Just, Strategy},
};

use super::methods::REPLY_CODES;
use crate::{
    protocol::ReplyCode,
    wire::{Decimal, FieldTable, LongStr, Secret, ShortStr, Timestamp},
};

/// The strategies by wire type from which the fields of a method, or the properties, are taken.
///
/// The default of each is the whole range of the type. With a small one, fields of several methods
/// meet, such as the names of queues:
///
/// ```
/// use amqp_core::{protocol::{Method, queue}, strategies::Values, wire::ShortStr};
/// use proptest::{prelude::*, sample::select};
///
/// let names = ["a", "b"].map(|name| ShortStr::try_from(name).unwrap());
/// let values = Values::default().short_str(select(names.to_vec()));
///
/// proptest!(|(purge in any_with::<queue::Purge>(values))| {
///     prop_assert!(purge.queue == "a" || purge.queue == "b");
/// });
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Values {
    /// Bits.
    pub bit: BoxedStrategy<bool>,
    /// Octets.
    pub octet: BoxedStrategy<u8>,
    /// Integers of 16 bits.
    pub short: BoxedStrategy<u16>,
    /// Integers of 32 bits.
    pub long: BoxedStrategy<u32>,
    /// Integers of 64 bits: delivery tags.
    pub longlong: BoxedStrategy<u64>,
    /// Short strings: names, routing keys, consumer tags and texts.
    pub short_str: BoxedStrategy<ShortStr>,
    /// Long strings.
    pub long_str: BoxedStrategy<LongStr>,
    /// Long strings that are not logged.
    pub secret: BoxedStrategy<Secret>,
    /// Timestamps.
    pub timestamp: BoxedStrategy<Timestamp>,
    /// Reply codes.
    pub reply_code: BoxedStrategy<ReplyCode>,
    /// Field tables: arguments, headers and properties of a peer.
    pub table: BoxedStrategy<FieldTable>,
}

impl Default for Values {
    fn default() -> Self {
        Self {
            bit: any::<bool>().boxed(),
            octet: any_octet(),
            short: any_short(),
            long: any_long(),
            longlong: any_longlong(),
            short_str: any::<ShortStr>(),
            long_str: any::<LongStr>(),
            secret: any::<Secret>(),
            timestamp: any::<Timestamp>(),
            reply_code: any::<ReplyCode>(),
            table: any::<FieldTable>(),
        }
    }
}

impl Values {
    /// Sets `bit`.
    #[must_use]
    pub fn bit(mut self, bit: impl Strategy<Value = bool> + 'static) -> Self {
        self.bit = bit.boxed();
        self
    }

    /// Sets `octet`.
    #[must_use]
    pub fn octet(mut self, octet: impl Strategy<Value = u8> + 'static) -> Self {
        self.octet = octet.boxed();
        self
    }

    /// Sets `short`.
    #[must_use]
    pub fn short(mut self, short: impl Strategy<Value = u16> + 'static) -> Self {
        self.short = short.boxed();
        self
    }

    /// Sets `long`.
    #[must_use]
    pub fn long(mut self, long: impl Strategy<Value = u32> + 'static) -> Self {
        self.long = long.boxed();
        self
    }

    /// Sets `longlong`.
    #[must_use]
    pub fn longlong(mut self, longlong: impl Strategy<Value = u64> + 'static) -> Self {
        self.longlong = longlong.boxed();
        self
    }

    /// Sets `short_str`.
    #[must_use]
    pub fn short_str(mut self, short_str: impl Strategy<Value = ShortStr> + 'static) -> Self {
        self.short_str = short_str.boxed();
        self
    }

    /// Sets `long_str`.
    #[must_use]
    pub fn long_str(mut self, long_str: impl Strategy<Value = LongStr> + 'static) -> Self {
        self.long_str = long_str.boxed();
        self
    }

    /// Sets `secret`.
    #[must_use]
    pub fn secret(mut self, secret: impl Strategy<Value = Secret> + 'static) -> Self {
        self.secret = secret.boxed();
        self
    }

    /// Sets `timestamp`.
    #[must_use]
    pub fn timestamp(mut self, timestamp: impl Strategy<Value = Timestamp> + 'static) -> Self {
        self.timestamp = timestamp.boxed();
        self
    }

    /// Sets `reply_code`.
    #[must_use]
    pub fn reply_code(mut self, reply_code: impl Strategy<Value = ReplyCode> + 'static) -> Self {
        self.reply_code = reply_code.boxed();
        self
    }

    /// Sets `table`.
    #[must_use]
    pub fn table(mut self, table: impl Strategy<Value = FieldTable> + 'static) -> Self {
        self.table = table.boxed();
        self
    }
}

fn any_octet() -> BoxedStrategy<u8> {
    prop_oneof![6 => any::<u8>(), 1 => Just(0), 1 => Just(u8::MAX)].boxed()
}

fn any_short() -> BoxedStrategy<u16> {
    prop_oneof![6 => any::<u16>(), 1 => Just(0), 1 => Just(u16::MAX), 2 => 0_u16..300].boxed()
}

fn any_long() -> BoxedStrategy<u32> {
    prop_oneof![6 => any::<u32>(), 1 => Just(0), 1 => Just(u32::MAX), 2 => 0_u32..300].boxed()
}

fn any_longlong() -> BoxedStrategy<u64> {
    prop_oneof![6 => any::<u64>(), 1 => Just(0), 1 => Just(u64::MAX), 2 => 0_u64..300].boxed()
}

/// Text of characters of every encoded length, mostly of one byte.
fn text(len: core::ops::Range<usize>) -> impl Strategy<Value = String> {
    let character = prop_oneof![8 => char::range(' ', '~'), 1 => char::any()];
    vec(character, len).prop_map(String::from_iter)
}

/// Returns the text as a short string, without the characters that do not fit.
fn short(mut text: String) -> ShortStr {
    while text.len() > ShortStr::MAX_LEN {
        text.pop();
    }
    ShortStr::try_from(text).unwrap_or_default()
}

/// Text of about 38 bytes, the capacity of the inline form, of at most 255, and of a few.
impl Arbitrary for ShortStr {
    type Parameters = ();
    type Strategy = BoxedStrategy<Self>;

    fn arbitrary_with((): ()) -> Self::Strategy {
        prop_oneof![
            6 => text(0..12).prop_map(short),
            2 => text(34..44).prop_map(short),
            1 => text(0..300).prop_map(short),
        ]
        .boxed()
    }
}

/// Any bytes, up to 300.
impl Arbitrary for LongStr {
    type Parameters = ();
    type Strategy = BoxedStrategy<Self>;

    fn arbitrary_with((): ()) -> Self::Strategy {
        prop_oneof![
            3 => text(0..20).prop_map(Self::from),
            2 => vec(any::<u8>(), 0..40).prop_map(Self::from),
            1 => vec(any::<u8>(), 0..300).prop_map(Self::from),
        ]
        .boxed()
    }
}

/// Any bytes, up to 60.
impl Arbitrary for Secret {
    type Parameters = ();
    type Strategy = BoxedStrategy<Self>;

    fn arbitrary_with((): ()) -> Self::Strategy {
        vec(any::<u8>(), 0..60).prop_map(Self::from).boxed()
    }
}

impl Arbitrary for Timestamp {
    type Parameters = ();
    type Strategy = BoxedStrategy<Self>;

    fn arbitrary_with((): ()) -> Self::Strategy {
        any_longlong().prop_map(Self).boxed()
    }
}

impl Arbitrary for Decimal {
    type Parameters = ();
    type Strategy = BoxedStrategy<Self>;

    fn arbitrary_with((): ()) -> Self::Strategy {
        (any_octet(), any_long())
            .prop_map(|(scale, value)| Self { scale, value })
            .boxed()
    }
}

/// Mostly a code of the specification.
impl Arbitrary for ReplyCode {
    type Parameters = ();
    type Strategy = BoxedStrategy<Self>;

    fn arbitrary_with((): ()) -> Self::Strategy {
        let known = select(&REPLY_CODES[..]);
        prop_oneof![3 => known, 1 => any_short().prop_map(Self)].boxed()
    }
}
