//! Field tables: named values of any type.

use alloc::vec::{self, Vec};
use core::{fmt, mem, slice};

use bytes::BytesMut;

use super::value::dismantle;
use super::{Decode, DecodeError, Encode, FieldValue, ShortStr, ShortStrError, parse, put};

/// How deep tables and arrays may be nested in each other: a flat table is 1 deep.
///
/// Decoding refuses more, so that no peer can make it use up the stack. It is the limit of
/// RabbitMQ's Java client.
pub const MAX_TABLE_DEPTH: usize = 32;

/// Named values in the order in which they stand on the wire.
///
/// A name may occur more than once, as RabbitMQ allows; whatever was received is kept and sent on
/// unchanged. A look-up finds the first. Two tables are equal if they have the same fields in the
/// same order.
///
/// ```
/// use amqp_core::wire::{FieldTable, FieldValue};
///
/// let arguments = FieldTable::new()
///     .with("x-queue-type", "quorum")?
///     .with("x-delivery-limit", 5)?;
/// assert_eq!(arguments.get("x-delivery-limit"), Some(&FieldValue::I32(5)));
/// # Ok::<(), amqp_core::wire::ShortStrError>(())
/// ```
#[derive(Clone, Default, PartialEq)]
pub struct FieldTable(Vec<(ShortStr, FieldValue)>);

impl FieldTable {
    /// A table without fields.
    #[must_use]
    pub const fn new() -> Self {
        Self(Vec::new())
    }

    /// The table with this field in addition, or in place of the first one of its name.
    ///
    /// # Errors
    /// If the name has more than 255 bytes.
    pub fn with<S>(mut self, name: S, value: impl Into<FieldValue>) -> Result<Self, ShortStrError>
    where
        S: TryInto<ShortStr>,
        ShortStrError: From<S::Error>,
    {
        self.insert(name.try_into()?, value);
        Ok(self)
    }

    /// Replaces the value of the first field of this name and returns it, or appends a field.
    pub fn insert(&mut self, name: ShortStr, value: impl Into<FieldValue>) -> Option<FieldValue> {
        let value = value.into();
        if let Some(old) = self.get_mut(&name) {
            return Some(mem::replace(old, value));
        }
        self.push(name, value);
        None
    }

    /// Appends a field, even if there is one of this name, which then remains the one that look-ups
    /// find.
    pub fn push(&mut self, name: ShortStr, value: impl Into<FieldValue>) {
        self.0.push((name, value.into()));
    }

    /// Removes every field of this name and returns the value of the first.
    pub fn remove(&mut self, name: &str) -> Option<FieldValue> {
        let at = self.0.iter().position(|(key, _)| key == name)?;
        let (_, value) = self.0.remove(at);
        self.0.retain(|(key, _)| key != name);
        Some(value)
    }

    /// The value of the first field of this name.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&FieldValue> {
        self.iter()
            .find_map(|(key, value)| (key == name).then_some(value))
    }

    /// The value of the first field of this name, to be changed in place.
    pub fn get_mut(&mut self, name: &str) -> Option<&mut FieldValue> {
        self.0
            .iter_mut()
            .find_map(|(key, value)| (key == name).then_some(value))
    }

    /// Whether there is a field of this name.
    #[must_use]
    pub fn contains_key(&self, name: &str) -> bool {
        self.get(name).is_some()
    }

    /// All fields in their order.
    #[must_use]
    pub fn iter(&self) -> FieldTableIter<'_> {
        FieldTableIter(self.0.iter())
    }

    /// How many fields it has, those inside of other fields not counted.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether it has no fields.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// How deep tables and arrays are nested: 1 if no field is a table or an array.
    ///
    /// A peer that is as strict as we are refuses a table deeper than [`MAX_TABLE_DEPTH`]. Neither
    /// this nor encoding or dropping needs more stack for a deep table; cloning, comparing and
    /// printing one do.
    #[must_use]
    pub fn depth(&self) -> usize {
        let (mut depth, mut deepest) = (1, 1);
        for step in Walk::new(self) {
            match step {
                Step::Begin(..) => depth += 1,
                Step::End => depth -= 1,
                Step::Plain(..) => {}
            }
            deepest = deepest.max(depth);
        }
        deepest
    }

    /// How many bytes it takes on the wire, with the four of its length.
    #[must_use]
    pub fn encoded_len(&self) -> usize {
        Walk::new(self).fold(4, |len, step| match step {
            Step::Begin(name, value) | Step::Plain(name, value) => {
                len + name.map_or(0, ShortStr::encoded_len) + 1 + value.shallow_len()
            }
            Step::End => len,
        })
    }

    /// Takes the values out, for [`dismantle`].
    pub(super) fn take_values(&mut self) -> impl Iterator<Item = FieldValue> + use<> {
        mem::take(&mut self.0).into_iter().map(|(_, value)| value)
    }
}

impl Drop for FieldTable {
    fn drop(&mut self) {
        let nest = |(_, value): &(ShortStr, FieldValue)| {
            value.as_table().is_some() || value.as_array().is_some()
        };
        if self.0.iter().any(nest) {
            dismantle(self.take_values());
        }
    }
}

impl fmt::Debug for FieldTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self).finish()
    }
}

impl Encode for FieldTable {
    fn encoded_len(&self) -> usize {
        self.encoded_len()
    }

    fn encode(&self, out: &mut BytesMut) {
        put::table(out, self);
    }
}

impl Decode for FieldTable {
    fn decode(input: &[u8]) -> Result<Self, DecodeError> {
        parse::all(input, parse::table)
    }
}

/// Keeps every field, also several of one name.
impl FromIterator<(ShortStr, FieldValue)> for FieldTable {
    fn from_iter<I: IntoIterator<Item = (ShortStr, FieldValue)>>(fields: I) -> Self {
        Self(fields.into_iter().collect())
    }
}

/// Appends every field, also several of one name.
impl Extend<(ShortStr, FieldValue)> for FieldTable {
    fn extend<I: IntoIterator<Item = (ShortStr, FieldValue)>>(&mut self, fields: I) {
        self.0.extend(fields);
    }
}

impl IntoIterator for FieldTable {
    type Item = (ShortStr, FieldValue);
    type IntoIter = vec::IntoIter<(ShortStr, FieldValue)>;

    fn into_iter(mut self) -> Self::IntoIter {
        mem::take(&mut self.0).into_iter()
    }
}

impl<'a> IntoIterator for &'a FieldTable {
    type Item = (&'a ShortStr, &'a FieldValue);
    type IntoIter = FieldTableIter<'a>;

    fn into_iter(self) -> FieldTableIter<'a> {
        self.iter()
    }
}

/// The fields of a [`FieldTable`] in their order.
#[derive(Clone, Debug)]
pub struct FieldTableIter<'a>(slice::Iter<'a, (ShortStr, FieldValue)>);

impl<'a> Iterator for FieldTableIter<'a> {
    type Item = (&'a ShortStr, &'a FieldValue);

    fn next(&mut self) -> Option<Self::Item> {
        self.0.next().map(|(name, value)| (name, value))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        self.0.size_hint()
    }
}

impl DoubleEndedIterator for FieldTableIter<'_> {
    fn next_back(&mut self) -> Option<Self::Item> {
        self.0.next_back().map(|(name, value)| (name, value))
    }
}

impl ExactSizeIterator for FieldTableIter<'_> {}

/// Everything in a table in the order of the wire, nested values included, however deep, without
/// recursion.
pub(super) struct Walk<'a> {
    fields: Fields<'a>,
    /// What is left of the containers around `fields`, the innermost last.
    around: Vec<Fields<'a>>,
}

/// What a [`Walk`] comes by. Values in an array have no name.
pub(super) enum Step<'a> {
    /// A value that holds no others.
    Plain(Option<&'a ShortStr>, &'a FieldValue),
    /// A table or an array, whose fields come next.
    Begin(Option<&'a ShortStr>, &'a FieldValue),
    /// The end of the innermost table or array that has begun; the table that is walked has none.
    End,
}

enum Fields<'a> {
    Table(FieldTableIter<'a>),
    Array(slice::Iter<'a, FieldValue>),
}

impl<'a> Walk<'a> {
    pub(super) fn new(table: &'a FieldTable) -> Self {
        Self {
            fields: Fields::Table(table.iter()),
            around: Vec::new(),
        }
    }
}

impl<'a> Iterator for Walk<'a> {
    type Item = Step<'a>;

    fn next(&mut self) -> Option<Step<'a>> {
        let field = match &mut self.fields {
            Fields::Table(fields) => fields.next().map(|(name, value)| (Some(name), value)),
            Fields::Array(values) => values.next().map(|value| (None, value)),
        };
        let Some((name, value)) = field else {
            self.fields = self.around.pop()?;
            return Some(Step::End);
        };
        let inner = if let FieldValue::Table(table) = value {
            Fields::Table(table.iter())
        } else if let FieldValue::Array(array) = value {
            Fields::Array(array.iter())
        } else {
            return Some(Step::Plain(name, value));
        };
        self.around.push(mem::replace(&mut self.fields, inner));
        Some(Step::Begin(name, value))
    }
}
