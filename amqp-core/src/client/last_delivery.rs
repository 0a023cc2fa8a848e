//! The last delivery of a channel, whose names the next ones repeat.

use alloc::{boxed::Box, vec::Vec};

use super::consumers::{ByTag, Consumer};
use crate::{protocol::basic, wire::Decode as _};

/// The length of the delivery tag and the bits behind it, in bytes.
const NUMBER: usize = 9;

/// The last delivery of a channel. The next one is compared with it: equal names are shared, which
/// needs no check of their text and no memory, and the same tag is that of the same consumer.
#[derive(Debug)]
pub(super) struct LastDelivery {
    pub(super) method: basic::Deliver,
    pub(super) consumer: Consumer,
    /// The arguments of the method, encoded. In the place of the delivery tag and the bits are those
    /// of the last comparison.
    encoded: Vec<u8>,
    /// The position of the delivery tag in them: behind the consumer tag.
    number_at: usize,
}

impl LastDelivery {
    /// Makes `last` a delivery with these arguments, and returns it. `None` if they do not decode,
    /// or the tag has no consumer.
    #[inline]
    pub(super) fn of<'a>(
        last: &'a mut Option<Box<Self>>,
        encoded: &[u8],
        consumers: &ByTag,
    ) -> Option<&'a Self> {
        let repeats = last.as_mut().is_some_and(|last| last.repeat(encoded));
        if !repeats {
            Self::replace(last, encoded, consumers)?;
        }
        last.as_deref()
    }

    /// Takes over the delivery tag and the bits of arguments with the same names. Returns `false`,
    /// with `method` unchanged, if they have others.
    #[inline]
    fn repeat(&mut self, encoded: &[u8]) -> bool {
        // The names are compared with their lengths, so they are in the same places.
        if self.encoded.len() != encoded.len() {
            return false;
        }
        let number = encoded.get(self.number_at..);
        let own = self.encoded.get_mut(self.number_at..);
        let (Some(number), Some(own)) = (
            number.and_then(<[u8]>::first_chunk::<NUMBER>),
            own.and_then(<[u8]>::first_chunk_mut),
        ) else {
            return false;
        };
        // One comparison of everything is faster than one on each side of the number.
        *own = *number;
        if self.encoded != encoded {
            return false;
        }
        let [tag @ .., bits] = number;
        self.method.delivery_tag = u64::from_be_bytes(*tag);
        self.method.redelivered = bits & 1 != 0;
        true
    }

    #[inline(never)]
    fn replace(last: &mut Option<Box<Self>>, encoded: &[u8], consumers: &ByTag) -> Option<()> {
        let method = basic::Deliver::decode(encoded).ok()?;
        let consumer = consumers.owner(&method.consumer_tag)?;
        let number_at = method.consumer_tag.encoded_len();
        if let Some(last) = last {
            last.encoded.clear();
            last.encoded.extend_from_slice(encoded);
            (last.method, last.consumer, last.number_at) = (method, consumer, number_at);
        } else {
            *last = Some(Box::new(Self {
                method,
                consumer,
                encoded: encoded.into(),
                number_at,
            }));
        }
        Some(())
    }
}
