//! One of every method, with values that both sides accept: the effect depends on the method alone.

use alloc::vec::Vec;
use std::sync::OnceLock;

use proptest::{
    arbitrary::Arbitrary, prelude::*, strategy::ValueTree as _, test_runner::TestRunner,
};

use crate::{
    protocol::{Method, ReplyCode, connection},
    strategies::{self, Values},
    wire::{FieldTable, LongStr, Secret, ShortStr, Timestamp},
};

/// Every short string: the name of a queue, the tag of a consumer.
pub(crate) const NAME: &str = "t";
/// Every number of 64 bits: a delivery tag.
pub(crate) const TAG: u64 = 1;

fn values() -> Values {
    Values::default()
        .bit(Just(false))
        .octet(Just(0))
        // A number of channels, a heartbeat interval in seconds.
        .short(Just(200))
        .reply_code(Just(ReplyCode::SUCCESS))
        // A limit for frames.
        .long(Just(8192))
        .longlong(Just(TAG))
        .short_str(Just(ShortStr::from_static(NAME).unwrap()))
        // The mechanisms and the locales that a server offers.
        .long_str(Just(LongStr::from("PLAIN en_US")))
        .secret(Just(Secret::from("\0guest\0guest")))
        .timestamp(Just(Timestamp(0)))
        .table(Just(FieldTable::new()))
}

fn value<T>(strategy: &impl Strategy<Value = T>) -> T {
    let tree = strategy.new_tree(&mut TestRunner::deterministic());
    tree.unwrap().current()
}

/// The method of a type, or the properties.
pub(crate) fn harmless<T: Arbitrary<Parameters = Values>>() -> T {
    value(&any_with::<T>(values()))
}

/// One of every method, ordered by id.
pub(crate) fn every_method() -> Vec<Method> {
    static METHODS: OnceLock<Vec<Method>> = OnceLock::new();
    let methods = METHODS.get_or_init(|| {
        let strategies = strategies::methods(&values());
        strategies.iter().map(value).map(of_this_version).collect()
    });
    methods.clone()
}

/// A server's first method, with the version of the protocol.
pub(crate) fn start() -> connection::Start {
    harmless::<connection::Start>().version_minor(9)
}

fn of_this_version(method: Method) -> Method {
    match method {
        Method::ConnectionStart(_) => start().into(),
        other => other,
    }
}
