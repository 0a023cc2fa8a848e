//! The serialised form of field values.

use alloc::{format, string::String};
use core::fmt;

use serde::{
    Deserialize, Deserializer, Serialize, Serializer,
    de::{DeserializeSeed, Error, IgnoredAny, MapAccess, SeqAccess, Unexpected, Visitor},
    ser::{SerializeMap as _, SerializeTuple as _},
};

use super::{
    strings::Octets,
    tables::{ArraySeed, TableSeed},
};
use crate::wire::FieldValue;

/// The types by their tags, and their names in a format for humans.
const NAMES: [(u8, &str); 18] = [
    (b't', "bool"),
    (b'b', "i8"),
    (b'B', "u8"),
    (b's', "i16"),
    (b'u', "u16"),
    (b'I', "i32"),
    (b'i', "u32"),
    (b'l', "i64"),
    (b'L', "i64_alias"),
    (b'f', "f32"),
    (b'd', "f64"),
    (b'D', "decimal"),
    (b'S', "long_str"),
    (b'A', "array"),
    (b'T', "timestamp"),
    (b'F', "table"),
    (b'x', "bytes"),
    (b'V', "void"),
];

impl Serialize for FieldValue {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if !serializer.is_human_readable() {
            let mut pair = serializer.serialize_tuple(2)?;
            pair.serialize_element(&self.tag())?;
            pair.serialize_element(&Payload(self))?;
            return pair.end();
        }
        match self {
            Self::Bool(_) | Self::I32(_) | Self::Array(_) | Self::Void => {
                return Payload(self).serialize(serializer);
            }
            Self::LongStr(text) if text.as_str().is_some() => return text.serialize(serializer),
            Self::I8(_)
            | Self::U8(_)
            | Self::I16(_)
            | Self::U16(_)
            | Self::U32(_)
            | Self::I64(_)
            | Self::I64Alias(_)
            | Self::F32(_)
            | Self::F64(_)
            | Self::Decimal(_)
            | Self::LongStr(_)
            | Self::Timestamp(_)
            | Self::Table(_)
            | Self::Bytes(_) => {}
        }
        let name = NAMES.iter().find(|(tag, _)| *tag == self.tag());
        let mut map = serializer.serialize_map(Some(1))?;
        map.serialize_entry(name.map_or("", |(_, name)| *name), &Payload(self))?;
        map.end()
    }
}

/// The content of a value of a known type.
struct Payload<'a>(&'a FieldValue);

impl Serialize for Payload<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0 {
            FieldValue::Bool(value) => value.serialize(serializer),
            FieldValue::I8(value) => value.serialize(serializer),
            FieldValue::U8(value) => value.serialize(serializer),
            FieldValue::I16(value) => value.serialize(serializer),
            FieldValue::U16(value) => value.serialize(serializer),
            FieldValue::I32(value) => value.serialize(serializer),
            FieldValue::U32(value) => value.serialize(serializer),
            FieldValue::I64(value) | FieldValue::I64Alias(value) => value.serialize(serializer),
            FieldValue::F32(value) => Float(*value).serialize(serializer),
            FieldValue::F64(value) => Float(*value).serialize(serializer),
            FieldValue::Decimal(value) => value.serialize(serializer),
            FieldValue::LongStr(value) => value.serialize(serializer),
            FieldValue::Array(value) => value.serialize(serializer),
            FieldValue::Timestamp(value) => value.serialize(serializer),
            FieldValue::Table(value) => value.serialize(serializer),
            FieldValue::Bytes(value) => Octets(value).serialize(serializer),
            FieldValue::Void => serializer.serialize_unit(),
        }
    }
}

/// A floating point number: its bits, or in a format for humans a text. Not a number of the format,
/// which may be rounded, and may have no infinity.
struct Float<F>(F);

macro_rules! floats {
    ($($float:ident $bits:ident),*) => {$(
        impl Serialize for Float<$float> {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                let bits = self.0.to_bits();
                if !serializer.is_human_readable() {
                    bits.serialize(serializer)
                } else if self.0.is_nan() {
                    serializer.collect_str(&format_args!("{bits:#x}"))
                } else {
                    serializer.collect_str(&format_args!("{:?}", self.0))
                }
            }
        }

        impl<'de> Deserialize<'de> for Float<$float> {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                if !deserializer.is_human_readable() {
                    return $bits::deserialize(deserializer).map($float::from_bits).map(Self);
                }
                let text = String::deserialize(deserializer)?;
                let number = match text.strip_prefix("0x") {
                    Some(bits) => $bits::from_str_radix(bits, 16).ok().map($float::from_bits),
                    None => text.parse().ok(),
                };
                number.map(Self).ok_or_else(|| {
                    D::Error::invalid_value(Unexpected::Str(&text), &"a number, or its bits as 0x..")
                })
            }
        }
    )*};
}

floats! { f32 u32, f64 u64 }

impl<'de> Deserialize<'de> for FieldValue {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        ValueSeed { depth: 0 }.deserialize(deserializer)
    }
}

/// A value in containers of that depth.
#[derive(Clone, Copy)]
pub(super) struct ValueSeed {
    pub(super) depth: usize,
}

impl<'de> DeserializeSeed<'de> for ValueSeed {
    type Value = FieldValue;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<FieldValue, D::Error> {
        if deserializer.is_human_readable() {
            deserializer.deserialize_any(Plain(self))
        } else {
            deserializer.deserialize_tuple(2, Tagged(self))
        }
    }
}

/// A value as its tag and its content.
struct Tagged(ValueSeed);

impl<'de> Visitor<'de> for Tagged {
    type Value = FieldValue;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the tag and the content of a field value")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut pair: A) -> Result<FieldValue, A::Error> {
        let tag = pair.next_element()?;
        let tag = tag.ok_or_else(|| A::Error::invalid_length(0, &self))?;
        let ValueSeed { depth } = self.0;
        let value = pair.next_element_seed(PayloadSeed { tag, depth })?;
        value.ok_or_else(|| A::Error::invalid_length(1, &self))
    }
}

/// A value in a format for humans.
struct Plain(ValueSeed);

impl<'de> Visitor<'de> for Plain {
    type Value = FieldValue;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a field value: plain, or as {\"type\": value}")
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<FieldValue, E> {
        Ok(FieldValue::Bool(value))
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<FieldValue, E> {
        Ok(i32::try_from(value).map_or(FieldValue::I64(value), FieldValue::I32))
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<FieldValue, E> {
        self.visit_i64(i64::try_from(value).map_err(|_| {
            E::custom(format_args!(
                "{value} is above the widest integer of a table"
            ))
        })?)
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<FieldValue, E> {
        Ok(FieldValue::F64(value))
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<FieldValue, E> {
        Ok(text.into())
    }

    fn visit_unit<E: Error>(self) -> Result<FieldValue, E> {
        Ok(FieldValue::Void)
    }

    fn visit_none<E: Error>(self) -> Result<FieldValue, E> {
        Ok(FieldValue::Void)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, values: A) -> Result<FieldValue, A::Error> {
        let array = ArraySeed::inside(self.0.depth)?.visit_seq(values)?;
        Ok(FieldValue::Array(array))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<FieldValue, A::Error> {
        let name: Option<String> = map.next_key()?;
        let name = name.ok_or_else(|| A::Error::invalid_length(0, &self))?;
        let Some((tag, _)) = NAMES.iter().find(|(_, known)| *known == name) else {
            return Err(A::Error::custom(format!(
                "no type of field is called {name:?}"
            )));
        };
        let value = map.next_value_seed(PayloadSeed {
            tag: *tag,
            depth: self.0.depth,
        })?;
        match map.next_key::<IgnoredAny>()? {
            None => Ok(value),
            Some(_) => Err(A::Error::invalid_length(2, &self)),
        }
    }
}

/// The content of a value of the type with that tag.
struct PayloadSeed {
    tag: u8,
    depth: usize,
}

impl<'de> DeserializeSeed<'de> for PayloadSeed {
    type Value = FieldValue;

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<FieldValue, D::Error> {
        Ok(match self.tag {
            b't' => FieldValue::Bool(Deserialize::deserialize(from)?),
            b'b' => FieldValue::I8(Deserialize::deserialize(from)?),
            b'B' => FieldValue::U8(Deserialize::deserialize(from)?),
            b's' => FieldValue::I16(Deserialize::deserialize(from)?),
            b'u' => FieldValue::U16(Deserialize::deserialize(from)?),
            b'I' => FieldValue::I32(Deserialize::deserialize(from)?),
            b'i' => FieldValue::U32(Deserialize::deserialize(from)?),
            b'l' => FieldValue::I64(Deserialize::deserialize(from)?),
            b'L' => FieldValue::I64Alias(Deserialize::deserialize(from)?),
            b'f' => FieldValue::F32(Float::deserialize(from)?.0),
            b'd' => FieldValue::F64(Float::deserialize(from)?.0),
            b'D' => FieldValue::Decimal(Deserialize::deserialize(from)?),
            b'S' => FieldValue::LongStr(Deserialize::deserialize(from)?),
            b'A' => FieldValue::Array(ArraySeed::inside(self.depth)?.deserialize(from)?),
            b'T' => FieldValue::Timestamp(Deserialize::deserialize(from)?),
            b'F' => FieldValue::Table(TableSeed::inside(self.depth)?.deserialize(from)?),
            b'x' => FieldValue::Bytes(Octets::deserialize(from)?.0),
            b'V' => {
                <()>::deserialize(from)?;
                FieldValue::Void
            }
            tag => {
                return Err(D::Error::custom(format!(
                    "no type of field has the tag {tag}"
                )));
            }
        })
    }
}
