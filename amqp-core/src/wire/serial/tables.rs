//! The serialised form of tables and arrays.

use alloc::{collections::BTreeSet, format};
use core::fmt;

use serde::{
    Deserialize, Deserializer, Serialize, Serializer,
    de::{DeserializeSeed, Error, MapAccess, SeqAccess, Visitor},
};

use super::values::ValueSeed;
use crate::wire::{FieldArray, FieldTable, FieldValue, MAX_TABLE_DEPTH, ShortStr};

/// A map in a format for humans, if no name occurs twice; a sequence of names and values otherwise.
impl Serialize for FieldTable {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut names = BTreeSet::new();
        if serializer.is_human_readable() && self.iter().all(|(name, _)| names.insert(name)) {
            serializer.collect_map(self)
        } else {
            serializer.collect_seq(self)
        }
    }
}

impl<'de> Deserialize<'de> for FieldTable {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        TableSeed::inside(0)?.deserialize(deserializer)
    }
}

impl Serialize for FieldArray {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self)
    }
}

impl<'de> Deserialize<'de> for FieldArray {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        ArraySeed::inside(0)?.deserialize(deserializer)
    }
}

/// Returns the depth of a container in containers of that depth, unless it is too deep: a format
/// may have no limit of its own.
fn inside<E: Error>(depth: usize) -> Result<usize, E> {
    if depth >= MAX_TABLE_DEPTH {
        let problem = format!("tables are nested more than {MAX_TABLE_DEPTH} deep");
        return Err(E::custom(problem));
    }
    Ok(depth + 1)
}

/// A table.
#[derive(Clone, Copy)]
pub(super) struct TableSeed {
    depth: usize,
}

impl TableSeed {
    pub(super) fn inside<E: Error>(depth: usize) -> Result<Self, E> {
        inside(depth).map(|depth| Self { depth })
    }

    const fn value(self) -> ValueSeed {
        ValueSeed { depth: self.depth }
    }
}

impl<'de> DeserializeSeed<'de> for TableSeed {
    type Value = FieldTable;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<FieldTable, D::Error> {
        if deserializer.is_human_readable() {
            deserializer.deserialize_any(self)
        } else {
            deserializer.deserialize_seq(self)
        }
    }
}

impl<'de> Visitor<'de> for TableSeed {
    type Value = FieldTable;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a table: a map, or a sequence of names and values")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<FieldTable, A::Error> {
        let mut table = FieldTable::new();
        while let Some(name) = fields.next_key::<ShortStr>()? {
            table.push(name, fields.next_value_seed(self.value())?);
        }
        Ok(table)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut fields: A) -> Result<FieldTable, A::Error> {
        let mut table = FieldTable::new();
        while let Some((name, value)) = fields.next_element_seed(FieldSeed(self.value()))? {
            table.push(name, value);
        }
        Ok(table)
    }
}

/// A name and its value.
struct FieldSeed(ValueSeed);

impl<'de> DeserializeSeed<'de> for FieldSeed {
    type Value = (ShortStr, FieldValue);

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_tuple(2, self)
    }
}

impl<'de> Visitor<'de> for FieldSeed {
    type Value = (ShortStr, FieldValue);

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a name and a value")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut pair: A) -> Result<Self::Value, A::Error> {
        let name = pair.next_element()?;
        let name = name.ok_or_else(|| A::Error::invalid_length(0, &self))?;
        let value = pair.next_element_seed(self.0)?;
        Ok((
            name,
            value.ok_or_else(|| A::Error::invalid_length(1, &self))?,
        ))
    }
}

/// An array.
#[derive(Clone, Copy)]
pub(super) struct ArraySeed {
    depth: usize,
}

impl ArraySeed {
    pub(super) fn inside<E: Error>(depth: usize) -> Result<Self, E> {
        inside(depth).map(|depth| Self { depth })
    }
}

impl<'de> DeserializeSeed<'de> for ArraySeed {
    type Value = FieldArray;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<FieldArray, D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for ArraySeed {
    type Value = FieldArray;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array of field values")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut values: A) -> Result<FieldArray, A::Error> {
        let mut array = FieldArray::new();
        while let Some(value) = values.next_element_seed(ValueSeed { depth: self.depth })? {
            array.push(value);
        }
        Ok(array)
    }
}
