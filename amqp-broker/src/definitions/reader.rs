//! JSON values with their places, and their conversion to fields.

use alloc::{borrow::ToOwned as _, string::String, vec::Vec};

use amqp_core::wire::{FieldArray, FieldTable, FieldValue, ShortStr};
use serde_json::{Map, Value};

use super::path::{DefinitionsError, Path};

type Outcome<T> = Result<T, DefinitionsError>;

/// An object with its place.
pub(super) struct Object<'a> {
    fields: &'a Map<String, Value>,
    path: &'a Path<'a>,
}

const fn type_name(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "an array",
        Value::Object(_) => "an object",
    }
}

fn wrong(path: &Path<'_>, expected: &str, found: &Value) -> DefinitionsError {
    path.error(format_args!(
        "expected {expected}, found {}",
        type_name(found)
    ))
}

impl<'a> Object<'a> {
    pub(super) fn new(value: &'a Value, path: &'a Path<'a>) -> Outcome<Self> {
        match value {
            Value::Object(fields) => Ok(Self { fields, path }),
            other => Err(wrong(path, "an object", other)),
        }
    }

    /// Returns a field: `Some` if it is there and not null.
    pub(super) fn get(&self, name: &str) -> Option<&'a Value> {
        self.fields.get(name).filter(|value| !value.is_null())
    }

    pub(super) fn error(&self, name: &str, reason: impl core::fmt::Display) -> DefinitionsError {
        self.path.field(name).error(reason)
    }

    /// Returns a text: `Some` if the field is there.
    pub(super) fn optional_text(&self, name: &str) -> Outcome<Option<&'a str>> {
        match self.get(name) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(other) => Err(wrong(&self.path.field(name), "a string", other)),
        }
    }

    pub(super) fn text(&self, name: &str) -> Outcome<String> {
        match self.optional_text(name)? {
            Some(text) => Ok(text.to_owned()),
            None => Err(self.error(name, "is missing")),
        }
    }

    pub(super) fn short(&self, name: &str) -> Outcome<ShortStr> {
        let text = self.text(name)?;
        ShortStr::try_from(text.as_str()).map_err(|error| self.error(name, error))
    }

    /// Returns a flag, which is `false` if it is missing.
    pub(super) fn flag(&self, name: &str) -> Outcome<bool> {
        match self.get(name) {
            None => Ok(false),
            Some(Value::Bool(flag)) => Ok(*flag),
            Some(other) => Err(wrong(&self.path.field(name), "a boolean", other)),
        }
    }

    /// Returns an integer, which is 0 if it is missing.
    pub(super) fn integer(&self, name: &str) -> Outcome<i64> {
        match self.get(name) {
            None => Ok(0),
            Some(value) => value
                .as_i64()
                .ok_or_else(|| wrong(&self.path.field(name), "an integer", value)),
        }
    }

    /// Returns a table, which is empty if it is missing.
    pub(super) fn table(&self, name: &str) -> Outcome<FieldTable> {
        match self.get(name) {
            None => Ok(FieldTable::new()),
            Some(value) => to_table(value, &self.path.field(name)),
        }
    }

    /// Returns a value, which is null if it is missing. An array of pairs is an object.
    pub(super) fn value(&self, name: &str) -> Outcome<FieldValue> {
        match self.get(name) {
            None => Ok(FieldValue::Void),
            Some(value) if pairs(value).is_some_and(|pairs| !pairs.is_empty()) => {
                Ok(self.table(name)?.into())
            }
            Some(value) => to_field(value, &self.path.field(name)),
        }
    }

    /// Reads an object.
    pub(super) fn object<T>(
        &self,
        name: &str,
        read: impl FnOnce(&Object<'_>) -> Outcome<T>,
    ) -> Outcome<T> {
        let path = self.path.field(name);
        read(&Object::new(self.get(name).unwrap_or(&Value::Null), &path)?)
    }

    /// Reads each object of an array, which is empty if it is missing.
    pub(super) fn list<T>(
        &self,
        name: &str,
        read: impl Fn(&Object<'_>) -> Outcome<T>,
    ) -> Outcome<Vec<T>> {
        let path = self.path.field(name);
        let elements = match self.get(name) {
            None => return Ok(Vec::new()),
            Some(Value::Array(elements)) => elements,
            Some(other) => return Err(wrong(&path, "an array", other)),
        };
        let elements = elements.iter().enumerate();
        elements
            .map(|(index, element)| {
                let path = path.element(index);
                read(&Object::new(element, &path)?)
            })
            .collect()
    }

    /// Returns a list of words, which may also be one text with commas, and is empty if it is
    /// missing.
    pub(super) fn words(&self, name: &str) -> Outcome<Vec<String>> {
        let path = self.path.field(name);
        match self.get(name) {
            None => Ok(Vec::new()),
            Some(Value::String(text)) => {
                let words = text.split(',').map(str::trim);
                Ok(words
                    .filter(|word| !word.is_empty())
                    .map(Into::into)
                    .collect())
            }
            Some(Value::Array(elements)) => {
                let elements = elements.iter().enumerate();
                let texts = elements.map(|(index, element)| match element {
                    Value::String(text) => Ok(text.clone()),
                    other => Err(wrong(&path.element(index), "a string", other)),
                });
                texts.collect()
            }
            Some(other) => Err(wrong(&path, "an array of strings", other)),
        }
    }
}

/// Converts an object to a table. `rabbitmqctl export_definitions` writes some objects as arrays of
/// pairs, and empty ones as empty arrays.
fn to_table(value: &Value, path: &Path<'_>) -> Outcome<FieldTable> {
    let mut table = FieldTable::new();
    let mut add = |name: &str, value: &Value| {
        let path = path.field(name);
        let key = ShortStr::try_from(name).map_err(|error| path.error(error))?;
        table.push(key, to_field(value, &path)?);
        Ok(())
    };
    match value {
        Value::Object(fields) => {
            for (name, value) in fields {
                add(name, value)?;
            }
        }
        Value::Array(_) => match pairs(value) {
            Some(pairs) => {
                for (name, value) in pairs {
                    add(name, value)?;
                }
            }
            None => return Err(wrong(path, "an object", value)),
        },
        other => return Err(wrong(path, "an object", other)),
    }
    Ok(table)
}

/// Returns the pairs of names and values: `Some` if the value is an array of nothing else.
fn pairs(value: &Value) -> Option<Vec<(&str, &Value)>> {
    let pairs = value.as_array()?.iter().map(|pair| {
        let [Value::String(name), value] = &pair.as_array()?[..] else {
            return None;
        };
        Some((name.as_str(), value))
    });
    pairs.collect()
}

/// Converts a value, with the types of RabbitMQ: an integer becomes a long one, a text a long
/// string.
fn to_field(value: &Value, path: &Path<'_>) -> Outcome<FieldValue> {
    Ok(match value {
        Value::Null => FieldValue::Void,
        Value::Bool(flag) => (*flag).into(),
        Value::Number(number) => match (number.as_i64(), number.as_u64(), number.as_f64()) {
            (Some(number), ..) => number.into(),
            (None, None, Some(number)) => number.into(),
            _ => return Err(path.error(format_args!("the integer {number} is too large"))),
        },
        Value::String(text) => text.as_str().into(),
        Value::Array(elements) => {
            let elements = elements.iter().enumerate();
            let fields = elements.map(|(index, value)| to_field(value, &path.element(index)));
            FieldValue::Array(fields.collect::<Outcome<FieldArray>>()?)
        }
        Value::Object(_) => to_table(value, path)?.into(),
    })
}
