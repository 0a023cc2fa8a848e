//! Field tables: named values of different types (section 4.2.5.5 of the specification).

use alloc::vec::{self, Vec};
use core::{fmt, mem, slice};

use bytes::BytesMut;

use super::value::dismantle;
use super::{
    Decode, DecodeError, Encode, FieldValue, IntoShortStr, ShortStr, TOO_LONG, parse, put,
};

/// The maximum nesting depth of tables and arrays; a flat table has depth 1.
///
/// The decoder refuses deeper tables, so that a peer cannot exhaust the stack. The limit is that of
/// RabbitMQ's Java client.
pub const MAX_TABLE_DEPTH: usize = 32;

/// Named values, in wire order.
///
/// A name may occur more than once, which the specification forbids (section 4.2.5.5) and RabbitMQ
/// allows. All received fields are kept and forwarded unchanged. A lookup finds the first one. Two
/// tables are equal if they have the same fields in the same order.
///
/// RabbitMQ's arguments have presets, see [`arguments`](crate::arguments).
///
/// ```
/// use amqp_core::wire::{FieldTable, FieldValue};
///
/// let headers = FieldTable::new()
///     .with("origin", "web")
///     .with("attempt", 5);
/// assert_eq!(headers.get("attempt"), Some(&FieldValue::I32(5)));
/// ```
#[derive(Clone, Default, PartialEq)]
pub struct FieldTable(Vec<(ShortStr, FieldValue)>);

impl FieldTable {
    /// Returns an empty table.
    #[must_use]
    pub const fn new() -> Self {
        Self(Vec::new())
    }

    /// Adds a field, or replaces the value of the first field with this name. A table with a name
    /// of more than 255 bytes is [refused](IntoShortStr) when it is to be sent.
    #[must_use]
    pub fn with(mut self, name: impl IntoShortStr, value: impl Into<FieldValue>) -> Self {
        self.insert(name, value);
        self
    }

    /// Replaces the value of the first field with this name and returns the old value, or appends a
    /// field.
    pub fn insert(
        &mut self,
        name: impl IntoShortStr,
        value: impl Into<FieldValue>,
    ) -> Option<FieldValue> {
        let (name, value) = (name.into_short_str(), value.into());
        if let Some(old) = self.get_mut(&name) {
            return Some(mem::replace(old, value));
        }
        self.push(name, value);
        None
    }

    /// Appends a field. If there is a field with this name already, lookups still find that one.
    pub fn push(&mut self, name: impl IntoShortStr, value: impl Into<FieldValue>) {
        self.0.push((name.into_short_str(), value.into()));
    }

    /// Removes every field with this name, and returns the value of the first one.
    pub fn remove(&mut self, name: &str) -> Option<FieldValue> {
        let at = self.0.iter().position(|(key, _)| key == name)?;
        let (_, value) = self.0.remove(at);
        self.0.retain(|(key, _)| key != name);
        Some(value)
    }

    /// Returns the value of the first field with this name.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&FieldValue> {
        self.iter()
            .find_map(|(key, value)| (key == name).then_some(value))
    }

    /// Returns the value of the first field with this name, for modification.
    pub fn get_mut(&mut self, name: &str) -> Option<&mut FieldValue> {
        self.0
            .iter_mut()
            .find_map(|(key, value)| (key == name).then_some(value))
    }

    /// Returns whether there is a field with this name.
    #[must_use]
    pub fn contains_key(&self, name: &str) -> bool {
        self.get(name).is_some()
    }

    /// Returns an iterator over all fields, in order.
    #[must_use]
    pub fn iter(&self) -> FieldTableIter<'_> {
        FieldTableIter(self.0.iter())
    }

    /// Returns the number of fields, without those of nested tables.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.0.len()
    }

    /// Returns whether the table has no fields.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns the nesting depth of tables and arrays: 1 if no field is a table or an array.
    ///
    /// A peer with the same limit refuses a table deeper than [`MAX_TABLE_DEPTH`]. The stack use of
    /// this method, of encoding and of dropping does not depend on the depth; that of cloning,
    /// comparing and printing does.
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

    /// Returns the encoded size, in bytes, with the 4 bytes of the length. For a table with a name
    /// that is too long, a size that fits into no frame.
    #[must_use]
    pub fn encoded_len(&self) -> usize {
        let len = Walk::new(self).fold(4_usize, |len, step| match step {
            Step::Begin(name, value) | Step::Plain(name, value) => {
                let name = name.map_or(0, ShortStr::encoded_len);
                len.saturating_add(name + 1 + value.shallow_len())
            }
            Step::End => len,
        });
        len.min(TOO_LONG)
    }

    /// Returns the length of the longest name, in bytes, those of nested tables included.
    pub(crate) fn longest_name(&self) -> usize {
        Walk::new(self).fold(0, |len, step| match step {
            Step::Begin(name, _) | Step::Plain(name, _) => len.max(name.map_or(0, ShortStr::len)),
            Step::End => len,
        })
    }

    /// Moves the values out, for [`dismantle`].
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

/// Keeps all fields, including those with the same name.
impl FromIterator<(ShortStr, FieldValue)> for FieldTable {
    fn from_iter<I: IntoIterator<Item = (ShortStr, FieldValue)>>(fields: I) -> Self {
        Self(fields.into_iter().collect())
    }
}

/// Appends all fields, including those with the same name.
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

/// An iterator over the fields of a [`FieldTable`], in order.
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

/// An iterator over all values of a table in wire order, including nested ones. It does not
/// recurse, so the nesting depth is unlimited.
pub(super) struct Walk<'a> {
    fields: Fields<'a>,
    /// The remaining fields of the containers around `fields`, the innermost last.
    around: Vec<Fields<'a>>,
}

/// A step of a [`Walk`]. Values in an array have no name.
pub(super) enum Step<'a> {
    /// A value other than a container.
    Plain(Option<&'a ShortStr>, &'a FieldValue),
    /// The start of a table or an array; its fields follow.
    Begin(Option<&'a ShortStr>, &'a FieldValue),
    /// The end of the innermost open table or array. The outermost table has no `End`.
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
