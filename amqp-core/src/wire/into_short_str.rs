//! The texts that setters take, and the refusal of those that are too long.

use alloc::{borrow::Cow, string::String};

use super::ShortStr;

/// A text for a setter or a constructor: a `&str`, a `String`, a `Cow` or a [`ShortStr`].
///
/// The conversion does not fail, so that literals need no `?`. A text of more than
/// [`ShortStr::MAX_LEN`] bytes is kept as it is, and the command that would send it is refused with
/// the names of the method and the field
/// ([`ApiMisuse::TextTooLong`](crate::ApiMisuse::TextTooLong)).
///
/// ```
/// use amqp_core::{protocol::queue, wire::ShortStr};
///
/// let number = 7;
/// let queue = queue::Declare::default().queue(format!("orders-{number}"));
/// let same = queue::Declare::default().queue(&queue.queue);
/// assert_eq!(same, queue);
/// ```
///
/// Sealed: a type of an application has a method that returns one of these.
pub trait IntoShortStr: sealed::Sealed {
    /// Converts the text. It is not truncated.
    fn into_short_str(self) -> ShortStr;
}

pub(crate) mod sealed {
    pub trait Sealed {}
}

macro_rules! into_short_str {
    ($($type:ty: $text:ident => $short:expr;)*) => {$(
        impl sealed::Sealed for $type {}

        impl IntoShortStr for $type {
            #[inline]
            fn into_short_str(self) -> ShortStr {
                let $text = self;
                $short
            }
        }
    )*};
}

into_short_str! {
    &str: text => ShortStr::of(text);
    String: text => ShortStr::of(&text);
    &String: text => ShortStr::of(text);
    Cow<'_, str>: text => ShortStr::of(&text);
    ShortStr: text => text;
    &ShortStr: text => text.clone();
}

/// A field with a text that does not fit into a short string.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TextTooLong {
    /// The name of the field. For a field of a table, the name of that table.
    pub field: &'static str,
    /// The length of the text, in bytes.
    pub len: usize,
}

impl TextTooLong {
    /// Finds the first of the fields that is too long, by the lengths of their longest texts.
    pub(crate) fn find<const N: usize>(fields: [(&'static str, usize); N]) -> Option<Self> {
        fields
            .into_iter()
            .find(|(_, len)| *len > ShortStr::MAX_LEN)
            .map(|(field, len)| Self { field, len })
    }
}
