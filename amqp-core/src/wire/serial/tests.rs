//! Every value there and back, in a format for humans and in one for machines.

use alloc::{string::ToString as _, vec, vec::Vec};
use core::fmt::Debug;

use bytes::{Bytes, BytesMut};
use proptest::prelude::*;
use serde::{Serialize, de::DeserializeOwned};

use crate::wire::{
    Decimal, Encode, FieldArray, FieldTable, FieldValue, LongStr, MAX_TABLE_DEPTH, ShortStr,
    Timestamp,
};

/// The bytes on the wire, which differ wherever two values do, also those that are no number.
fn wire(table: &FieldTable) -> BytesMut {
    let mut out = BytesMut::new();
    table.encode(&mut out);
    out
}

fn json<T: Serialize>(value: &T) -> alloc::string::String {
    serde_json::to_string(value).unwrap()
}

fn from_json<T: DeserializeOwned>(text: &str) -> Result<T, alloc::string::String> {
    serde_json::from_str(text).map_err(|error| error.to_string())
}

fn both_ways<T: Serialize + DeserializeOwned + PartialEq + Debug>(value: &T) {
    assert_eq!(from_json(&json(value)).as_ref(), Ok(value));
    let machine = postcard::to_allocvec(value).unwrap();
    assert_eq!(postcard::from_bytes::<T>(&machine).as_ref(), Ok(value));
}

fn table(fields: &[(&str, FieldValue)]) -> FieldTable {
    let fields = fields.iter().cloned();
    fields
        .map(|(name, value)| (name.parse().unwrap(), value))
        .collect()
}

/// An array in arrays, that many altogether.
fn nested(depth: usize) -> FieldArray {
    (1..depth).fold(FieldArray::new(), |inner, _| vec![inner.into()].into())
}

#[test]
fn each_type_has_its_form_and_comes_back() {
    let forms: [(FieldValue, &str); 30] = [
        (true.into(), "true"),
        (5_i8.into(), r#"{"i8":5}"#),
        (5_u8.into(), r#"{"u8":5}"#),
        (5_i16.into(), r#"{"i16":5}"#),
        (5_u16.into(), r#"{"u16":5}"#),
        (i32::MIN.into(), "-2147483648"),
        (5_u32.into(), r#"{"u32":5}"#),
        (i64::MIN.into(), r#"{"i64":-9223372036854775808}"#),
        (FieldValue::I64Alias(5), r#"{"i64_alias":5}"#),
        (0.1_f32.into(), r#"{"f32":"0.1"}"#),
        (f32::NEG_INFINITY.into(), r#"{"f32":"-inf"}"#),
        (0.1_f64.into(), r#"{"f64":"0.1"}"#),
        (1_f64.into(), r#"{"f64":"1.0"}"#),
        ((-0.0_f64).into(), r#"{"f64":"-0.0"}"#),
        (f64::MAX.into(), r#"{"f64":"1.7976931348623157e308"}"#),
        (
            f64::MIN_POSITIVE.into(),
            r#"{"f64":"2.2250738585072014e-308"}"#,
        ),
        (
            Decimal::from_signed(1, -11).into(),
            r#"{"decimal":[1,4294967285]}"#,
        ),
        ("quorum".into(), r#""quorum""#),
        ("".into(), r#""""#),
        (LongStr::from(&[0xff, 0]).into(), r#"{"long_str":[255,0]}"#),
        (vec![5.into(), FieldValue::Void].into(), "[5,null]"),
        (FieldArray::new().into(), "[]"),
        (
            Timestamp(u64::MAX).into(),
            r#"{"timestamp":18446744073709551615}"#,
        ),
        (FieldTable::new().into(), r#"{"table":{}}"#),
        (
            table(&[("table", 5.into()), ("i64", true.into())]).into(),
            r#"{"table":{"table":5,"i64":true}}"#,
        ),
        (
            table(&[("a", 5.into()), ("a", 6.into())]).into(),
            r#"{"table":[["a",5],["a",6]]}"#,
        ),
        (
            FieldValue::Bytes(Bytes::from_static(b"\x01\x02")),
            r#"{"bytes":[1,2]}"#,
        ),
        (FieldValue::Bytes(Bytes::new()), r#"{"bytes":[]}"#),
        (vec![FieldArray::new().into()].into(), "[[]]"),
        (FieldValue::Void, "null"),
    ];
    for (value, form) in forms {
        assert_eq!(json(&value), form);
        both_ways(&value);
        both_ways(&table(&[("name", value)]));
    }
}

#[test]
fn a_number_that_is_none_keeps_its_bits() {
    for bits in [0x7ff8_0000_0000_0000, 0xfff0_0000_0000_0001_u64] {
        let before = table(&[
            ("f64", f64::from_bits(bits).into()),
            ("f32", f32::from_bits(0x7f80_0001).into()),
        ]);
        let text = json(&before);
        assert!(text.starts_with(r#"{"f64":{"f64":"0x"#), "{text}");
        assert_eq!(wire(&from_json(&text).unwrap()), wire(&before));
        let machine = postcard::to_allocvec(&before).unwrap();
        assert_eq!(
            wire(&postcard::from_bytes(&machine).unwrap()),
            wire(&before)
        );
    }
}

proptest! {
    #[test]
    fn any_table_comes_back(before: FieldTable) {
        let text = json(&before);
        prop_assert_eq!(wire(&from_json(&text).unwrap()), wire(&before), "{}", text);
        let machine = postcard::to_allocvec(&before).unwrap();
        prop_assert_eq!(wire(&postcard::from_bytes(&machine).unwrap()), wire(&before));
    }
}

#[test]
fn strings_and_numbers_stand_alone() {
    both_ways(&ShortStr::try_from("é".repeat(127)).unwrap());
    both_ways(&LongStr::from("text"));
    both_ways(&LongStr::from(&[0xff]));
    both_ways(&Timestamp(1_700_000_000));
    both_ways(&Decimal { scale: 2, value: 7 });
    both_ways(&FieldArray::from(vec![5.into(), "five".into()]));
    assert_eq!(json(&LongStr::from(&[0xff])), "[255]");
    let long = json(&"x".repeat(256));
    let error = from_json::<ShortStr>(&long).unwrap_err();
    assert!(
        error.starts_with("a short string has at most 255 bytes"),
        "{error}"
    );
    let named = alloc::format!("{{{long}:5}}");
    assert!(from_json::<FieldTable>(&named).is_err());
}

#[test]
fn handwritten_forms_are_read() {
    let read = from_json::<FieldTable>(
        r#"{"big": 2147483648, "fraction": 0.5, "array": {"array": [1]}, "void": {"void": null},
            "text": {"long_str": "text"}, "bool": {"bool": false}}"#,
    );
    let expected = table(&[
        ("big", 2_147_483_648_i64.into()),
        ("fraction", 0.5_f64.into()),
        ("array", vec![1.into()].into()),
        ("void", FieldValue::Void),
        ("text", "text".into()),
        ("bool", false.into()),
    ]);
    assert_eq!(read, Ok(expected));
}

#[test]
fn other_forms_are_refused() {
    for text in [
        "{}",
        r#"{"i64":5,"i8":5}"#,
        r#"{"i65":5}"#,
        r#"{"i8":128}"#,
        r#"{"f64":"one"}"#,
        r#"{"f64":"0xg"}"#,
        r#"{"decimal":[1]}"#,
        r#"{"bytes":[256]}"#,
        r#"{"table":[["a"]]}"#,
        r#"{"table":[["a",1,2]]}"#,
        "9223372036854775808",
    ] {
        assert!(from_json::<FieldValue>(text).is_err(), "{text}");
    }
    for tag in [0_u8, b'Z', 0xff] {
        assert!(postcard::from_bytes::<FieldValue>(&[tag, 0, 0, 0]).is_err());
    }
}

#[test]
fn nesting_is_as_deep_as_on_the_wire() {
    both_ways(&nested(MAX_TABLE_DEPTH));
    both_ways(&table(&[("array", nested(MAX_TABLE_DEPTH - 1).into())]));
    let deeper = nested(MAX_TABLE_DEPTH + 1);
    let error = from_json::<FieldArray>(&json(&deeper)).unwrap_err();
    assert!(
        error.starts_with("tables are nested more than 32 deep"),
        "{error}"
    );
    let machine = postcard::to_allocvec(&deeper).unwrap();
    assert!(postcard::from_bytes::<FieldArray>(&machine).is_err());
    // A format without a limit of its own: an array of one array, and so on.
    let bomb: Vec<u8> = [1, b'A'].repeat(1_000_000);
    assert!(postcard::from_bytes::<FieldArray>(&bomb).is_err());
}
