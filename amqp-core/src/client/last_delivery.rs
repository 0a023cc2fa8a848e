//! The last delivery of a channel, whose names the next ones repeat.

use alloc::{boxed::Box, vec::Vec};

use super::consumers::{Consumer, Consumers};
use crate::{
    protocol::basic,
    wire::{Decode as _, parse},
};

/// The last delivery of a channel. The next one is compared with it: equal names are shared, which
/// needs no check of their text and no memory, and the same tag is that of the same consumer.
#[derive(Debug)]
pub(super) struct LastDelivery {
    pub(super) method: basic::Deliver,
    pub(super) consumer: Consumer,
    /// The exchange and the routing key, encoded.
    address: Vec<u8>,
    /// The [version](Consumers::version) of the consumers.
    version: u32,
}

/// The arguments of `basic.deliver`, with its names encoded.
pub(super) struct Arguments<'a> {
    tag: &'a [u8],
    pub(super) delivery_tag: u64,
    pub(super) redelivered: bool,
    /// The exchange and the routing key.
    address: &'a [u8],
}

impl<'a> Arguments<'a> {
    /// Splits the arguments (section 1.8.3.14 of the protocol reference). `None` if they are cut
    /// short.
    #[inline]
    pub(super) fn split(input: &'a [u8]) -> Option<Self> {
        let (input, tag) = parse::short_bytes(input).ok()?;
        let (input, delivery_tag) = parse::longlong(input).ok()?;
        let (address, bits) = parse::bits(input).ok()?;
        Some(Self {
            tag,
            delivery_tag,
            redelivered: bits & 1 != 0,
            address,
        })
    }
}

impl LastDelivery {
    /// Returns `last`, if it has the names of these arguments, and otherwise makes it a delivery
    /// that has. `None` if they do not decode, or the tag has no consumer.
    #[inline]
    pub(super) fn of<'a>(
        last: &'a mut Option<Box<Self>>,
        arguments: &Arguments<'_>,
        encoded: &[u8],
        consumers: &Consumers,
    ) -> Option<&'a Self> {
        let repeats = last.as_ref().is_some_and(|last| {
            last.version == consumers.version()
                && last.address == arguments.address
                && last.method.consumer_tag.as_bytes() == arguments.tag
        });
        if !repeats {
            Self::replace(last, arguments, encoded, consumers)?;
        }
        last.as_deref()
    }

    #[inline(never)]
    fn replace(
        last: &mut Option<Box<Self>>,
        arguments: &Arguments<'_>,
        encoded: &[u8],
        consumers: &Consumers,
    ) -> Option<()> {
        let method = basic::Deliver::decode(encoded).ok()?;
        let consumer = consumers.owner(&method.consumer_tag)?;
        let version = consumers.version();
        if let Some(last) = last {
            last.address.clear();
            last.address.extend_from_slice(arguments.address);
            (last.method, last.consumer, last.version) = (method, consumer, version);
        } else {
            *last = Some(Box::new(Self {
                method,
                consumer,
                address: arguments.address.into(),
                version,
            }));
        }
        Some(())
    }
}
