use alloc::borrow::Cow;
use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec;
use alloc::vec::Vec;
use core::fmt::Debug;
use core::hash::{Hash, Hasher};

use bytes::{Bytes, BytesMut};

use super::*;

mod properties;
mod stack;

fn encoded(value: &impl Encode) -> Vec<u8> {
    let mut out = BytesMut::new();
    value.encode(&mut out);
    assert_eq!(out.len(), value.encoded_len());
    out.to_vec()
}

fn written<T>(put: impl FnOnce(&mut BytesMut, T), value: T) -> Vec<u8> {
    let mut out = BytesMut::new();
    put(&mut out, value);
    out.to_vec()
}

/// Decodes hexadecimal digits, separated by spaces.
fn hex(digits: &str) -> Vec<u8> {
    let digits: String = digits.split_whitespace().collect();
    digits
        .as_bytes()
        .chunks(2)
        .map(|pair| u8::from_str_radix(core::str::from_utf8(pair).unwrap(), 16).unwrap())
        .collect()
}

fn name(text: &str) -> ShortStr {
    text.parse().unwrap()
}

fn table_of<const N: usize>(fields: [(&str, FieldValue); N]) -> FieldTable {
    fields
        .map(|(key, value)| (name(key), value))
        .into_iter()
        .collect()
}

fn text(text: &str) -> FieldValue {
    FieldValue::from(text)
}

/// Encodes the tag and the value of a field, as in a table.
fn field_bytes(value: &FieldValue) -> Vec<u8> {
    let bytes = encoded(&table_of([("", value.clone())]));
    assert_eq!(bytes[4], 0, "the empty name");
    bytes[5..].to_vec()
}

/// Encodes a table with one field of the empty name, from its tag and value.
fn table_bytes(field: &[u8]) -> Vec<u8> {
    let mut bytes = u32::try_from(field.len() + 1)
        .unwrap()
        .to_be_bytes()
        .to_vec();
    bytes.push(0);
    bytes.extend(field);
    bytes
}

fn field_of(field: &[u8]) -> Result<FieldValue, DecodeError> {
    FieldTable::decode(&table_bytes(field)).map(|mut table| table.remove("").unwrap())
}

/// Checks that the value is consumed from the front and the rest kept, and that every proper prefix
/// is `Truncated`.
fn reads<T: Debug + PartialEq>(
    bytes: &[u8],
    value: &T,
    parser: for<'a> fn(&'a [u8]) -> parse::Parsed<'a, T>,
) {
    for len in 0..bytes.len() {
        let cut = parse::all(&bytes[..len], parser);
        assert_eq!(cut, Err(DecodeError::Truncated), "{len} of {bytes:x?}");
    }
    let longer = [bytes, &[1, 2]].concat();
    let (rest, read) = parser(&longer).unwrap();
    assert_eq!((rest, &read), (&[1, 2][..], value));
    assert_eq!(parse::all(bytes, parser).as_ref(), Ok(value));
    assert_eq!(
        parse::all(&longer, parser),
        Err(DecodeError::TrailingBytes { left: 2 })
    );
}

// ---- Vectors ----

#[test]
fn vectors_of_every_type() {
    reads(&[0x07], &7, parse::octet);
    assert_eq!(written(put::octet, 7), [7]);
    reads(&[0xff], &0xff, parse::bits);
    reads(&[0x01, 0x02], &0x0102, parse::short);
    assert_eq!(written(put::short, 0x0102), [1, 2]);
    reads(&[1, 2, 3, 4], &0x0102_0304, parse::long);
    assert_eq!(written(put::long, 0x0102_0304), [1, 2, 3, 4]);
    reads(
        &[1, 2, 3, 4, 5, 6, 7, 8],
        &0x0102_0304_0506_0708,
        parse::longlong,
    );
    assert_eq!(
        written(put::longlong, 0x0102_0304_0506_0708),
        [1, 2, 3, 4, 5, 6, 7, 8]
    );

    for (text, bytes) in [
        ("", "00"),
        ("hello", "05 68656c6c6f"),
        ("привет", "0c d0bfd180d0b8d0b2d0b5d182"),
    ] {
        reads(&hex(bytes), &name(text), parse::short_str);
        assert_eq!(encoded(&name(text)), hex(bytes));
        assert_eq!(
            parse::all(&hex(bytes), |input| {
                let (rest, read) = parse::short_str_ref(input)?;
                assert_eq!(read, text);
                Ok((rest, ()))
            }),
            Ok(())
        );
    }

    for (text, bytes) in [("", "00000000"), ("hello", "00000005 68656c6c6f")] {
        reads(&hex(bytes), &LongStr::from(text), parse::long_str);
        assert_eq!(encoded(&LongStr::from(text)), hex(bytes));
        reads(&hex(bytes), &Secret::from(text), parse::secret);
        assert_eq!(encoded(&Secret::from(text)), hex(bytes));
    }
    let not_text = LongStr::from(&[0xff, 0xfe]);
    reads(&hex("00000002 fffe"), &not_text, parse::long_str);

    for (seconds, bytes) in [
        (0, "00000000 00000000"),
        (783_475_200, "00000000 2eb2e200"), // 30 October 1994
        (u64::MAX, "ffffffff ffffffff"),
    ] {
        reads(&hex(bytes), &Timestamp(seconds), parse::timestamp);
        assert_eq!(written(put::timestamp, Timestamp(seconds)), hex(bytes));
    }
    // A value of more than 64 bits has a ninth byte.
    assert_eq!(
        parse::all(&hex("01 00000000 00000000"), parse::timestamp),
        Err(DecodeError::TrailingBytes { left: 1 })
    );

    let table = table_of([("a", FieldValue::Bool(true)), ("b", FieldValue::I8(-1))]);
    let bytes = hex("00000008 01 61 7401 01 62 62ff");
    reads(&bytes, &table, parse::table);
    reads(&bytes, &(), parse::skip_table);
    assert_eq!(encoded(&table), bytes);
    reads(&hex("00000000"), &FieldTable::new(), parse::table);
}

#[test]
fn a_mix_of_types_in_a_row() {
    let mut out = BytesMut::new();
    put::octet(&mut out, 0b101);
    put::short(&mut out, 2);
    put::short_str(&mut out, &name("q"));
    put::table(&mut out, &table_of([("n", FieldValue::Void)]));
    put::timestamp(&mut out, Timestamp(5));
    assert_eq!(out, hex("05 0002 01 71 00000003 01 6e 56 0000000000000005"));

    fn mix(input: &[u8]) -> parse::Parsed<'_, (u8, u16, ShortStr, FieldTable, Timestamp)> {
        let (input, bits) = parse::bits(input)?;
        let (input, number) = parse::short(input)?;
        let (input, queue) = parse::short_str(input)?;
        let (input, table) = parse::table(input)?;
        let (input, time) = parse::timestamp(input)?;
        Ok((input, (bits, number, queue, table, time)))
    }
    let values = (
        5,
        2,
        name("q"),
        table_of([("n", FieldValue::Void)]),
        Timestamp(5),
    );
    reads(&out, &values, mix);
}

#[test]
fn table_vectors() {
    for (value, bytes) in [
        (text("foo"), "53 00000003 666f6f"),
        (true.into(), "74 01"),
        (
            vec![text("v1"), FieldValue::I32(123)].into(),
            "41 0000000c 53 00000002 7631 49 0000007b",
        ),
        (1.1_f64.into(), "64 3ff199999999999a"),
        (Decimal::from_signed(1, -11).into(), "44 01 fffffff5"),
        (Timestamp(0x6543_2100).into(), "54 0000000065432100"),
        (FieldValue::Void, "56"),
        (
            table_of([("a", text("b"))]).into(),
            "46 00000008 01 61 53 00000001 62",
        ),
    ] {
        assert_eq!(field_bytes(&value), hex(bytes), "{value:?}");
        assert_eq!(field_of(&hex(bytes)), Ok(value));
    }
}

#[test]
fn values_become_bytes() {
    let vectors: [(FieldValue, &str); 32] = [
        (true.into(), "74 01"),
        (false.into(), "74 00"),
        (0_i32.into(), "49 00000000"),
        (1_i32.into(), "49 00000001"),
        ((-1_i32).into(), "49 ffffffff"),
        (i32::MAX.into(), "49 7fffffff"),
        (i32::MIN.into(), "49 80000000"),
        ((i64::from(i32::MAX) + 1).into(), "6c 0000000080000000"),
        ((i64::from(i32::MIN) - 1).into(), "6c ffffffff7fffffff"),
        (i64::MAX.into(), "6c 7fffffffffffffff"),
        (i64::MIN.into(), "6c 8000000000000000"),
        (FieldValue::I64Alias(-2), "4c fffffffffffffffe"),
        (i8::MIN.into(), "62 80"),
        (u8::MAX.into(), "42 ff"),
        (i16::MIN.into(), "73 8000"),
        (u16::MAX.into(), "75 ffff"),
        (u32::MAX.into(), "69 ffffffff"),
        (1.0_f32.into(), "66 3f800000"),
        (1.0_f64.into(), "64 3ff0000000000000"),
        ((-0.0_f64).into(), "64 8000000000000000"),
        (f64::INFINITY.into(), "64 7ff0000000000000"),
        (f64::NEG_INFINITY.into(), "64 fff0000000000000"),
        (Decimal { scale: 3, value: 5 }.into(), "44 03 00000005"),
        (Decimal::from_signed(0, -1).into(), "44 00 ffffffff"),
        (text(""), "53 00000000"),
        (text("ł"), "53 00000002 c582"),
        (LongStr::from(&[0xff]).into(), "53 00000001 ff"),
        (
            FieldValue::Bytes(Bytes::from_static(b"\0\xff")),
            "78 00000002 00ff",
        ),
        (Timestamp(u64::MAX).into(), "54 ffffffffffffffff"),
        (FieldArray::new().into(), "41 00000000"),
        (FieldTable::new().into(), "46 00000000"),
        (FieldValue::Void, "56"),
    ];
    for (value, bytes) in vectors {
        assert_eq!(field_bytes(&value), hex(bytes), "{value:?}");
        assert_eq!(field_of(&hex(bytes)), Ok(value));
    }

    let nan = field_bytes(&f64::NAN.into());
    assert_eq!(nan, hex("64 7ff8000000000000"));
    assert!(field_of(&nan).unwrap().as_f64().unwrap().is_nan());

    // Integers wider than 64 bits, and unsigned ones above `i64::MAX`, are refused with an error of
    // their own.
    assert_eq!(
        FieldValue::try_from(1_u64 << 63),
        Err(IntegerTooLarge(1 << 63))
    );
    assert_eq!(
        FieldValue::try_from((1_u64 << 63) - 1),
        Ok(FieldValue::I64(i64::MAX))
    );
}

#[test]
fn bytes_become_values() {
    let vectors: [(&str, FieldValue); 18] = [
        ("74 02", FieldValue::Bool(true)), // any value except zero
        ("62 ff", FieldValue::I8(-1)),
        ("42 ff", FieldValue::U8(255)),
        ("73 ffff", FieldValue::I16(-1)), // not a short string
        ("75 ffff", FieldValue::U16(65_535)),
        ("49 ffffffff", FieldValue::I32(-1)),
        ("69 ffffffff", FieldValue::U32(u32::MAX)),
        ("6c ffffffffffffffff", FieldValue::I64(-1)),
        ("4c ffffffffffffffff", FieldValue::I64Alias(-1)),
        ("66 ff800000", FieldValue::F32(f32::NEG_INFINITY)),
        ("64 c000000000000000", FieldValue::F64(-2.0)),
        (
            "44 02 0000007b",
            FieldValue::Decimal(Decimal {
                scale: 2,
                value: 123,
            }),
        ),
        ("53 00000001 61", text("a")),
        ("53 00000001 80", LongStr::from(&[0x80]).into()),
        ("78 00000000", FieldValue::Bytes(Bytes::new())),
        (
            "41 00000003 56 74 00",
            vec![FieldValue::Void, false.into()].into(),
        ),
        ("54 0000000000000001", Timestamp(1).into()),
        (
            "46 00000003 01 6b 56",
            table_of([("k", FieldValue::Void)]).into(),
        ),
    ];
    for (bytes, value) in vectors {
        assert_eq!(field_of(&hex(bytes)), Ok(value), "{bytes}");
    }

    let unicode = hex("00000005 03 e282ac 56");
    assert_eq!(
        FieldTable::decode(&unicode),
        Ok(table_of([("€", FieldValue::Void)]))
    );
    let not_text = hex("00000003 01 ff 56");
    assert_eq!(
        FieldTable::decode(&not_text),
        Ok(table_of([("\u{fffd}", FieldValue::Void)]))
    );
    assert_eq!(parse::all(&not_text, parse::skip_table), Ok(()));
}

// ---- Hostile input ----

/// Checks that decoding and skipping a table return the same error.
fn refused(bytes: &[u8], error: DecodeError) {
    assert_eq!(FieldTable::decode(bytes), Err(error), "{bytes:x?}");
    assert_eq!(
        parse::all(bytes, parse::skip_table),
        Err(error),
        "{bytes:x?}"
    );
}

/// Nests `depth` containers with this tag, the outermost table included.
fn nested(tag: u8, depth: usize) -> Vec<u8> {
    let mut body = Vec::new();
    for level in (1..depth).rev() {
        // The values of an array have no names; the outermost container is a table.
        let mut around = if tag == b'F' || level == 1 {
            vec![0, tag]
        } else {
            vec![tag]
        };
        around.extend(u32::try_from(body.len()).unwrap().to_be_bytes());
        around.extend(&body);
        body = around;
    }
    [&u32::try_from(body.len()).unwrap().to_be_bytes()[..], &body].concat()
}

#[test]
fn table_bombs_of_depth() {
    for tag in *b"FA" {
        let deepest = nested(tag, MAX_TABLE_DEPTH);
        let table = FieldTable::decode(&deepest).unwrap();
        assert_eq!(table.depth(), MAX_TABLE_DEPTH);
        assert_eq!(encoded(&table), deepest);
        assert_eq!(parse::all(&deepest, parse::skip_table), Ok(()));

        refused(&nested(tag, MAX_TABLE_DEPTH + 1), DecodeError::TableTooDeep);
        refused(&nested(tag, 10_000), DecodeError::TableTooDeep);
    }
}

#[test]
fn table_bombs_of_length() {
    // A prefix is truncated; a wrong inner length is a mismatch.
    refused(&hex("ffffffff"), DecodeError::Truncated);
    refused(&hex("00000001"), DecodeError::Truncated);
    for field in [
        "53 ffffffff 61",
        "78 00000002 61",
        "41 ffffffff",
        "41 00000002 56",
        "46 00000002 00",
        "46 00000006 00 53 00000001 61",
        "41 00000003 49 0000",
        "46 00000003 05 61 56",
        "49 000000",
        "44 00 0000",
        "54 00000000000000",
        "74",
    ] {
        refused(&table_bytes(&hex(field)), DecodeError::LengthMismatch);
    }
    // A name longer than the table, and a name without a value.
    refused(&hex("00000003 ff 61 56"), DecodeError::LengthMismatch);
    refused(&hex("00000002 01 61"), DecodeError::LengthMismatch);
    // An inner value longer than its container, while the outer table continues.
    refused(
        &hex("0000000d 00 41 00000003 53 0000 00 00 56 00 56"),
        DecodeError::LengthMismatch,
    );
}

#[test]
fn table_bombs_of_unknown_types() {
    let known = *b"tbBsuIilLfdDSATFxV";
    for tag in (0..=u8::MAX).filter(|tag| !known.contains(tag)) {
        let field = [&[tag][..], &[0; 16]].concat();
        refused(&table_bytes(&field), DecodeError::UnknownFieldType(tag));
    }
}

#[test]
fn tables_of_any_depth_of_ones_own_need_no_stack() {
    let mut table = FieldTable::new();
    let mut array = FieldValue::Void;
    for _ in 0..200_000 {
        table = FieldTable::from_iter([(ShortStr::new(), table.into())]);
        array = vec![array].into();
    }
    table.push(name("array"), array);
    assert_eq!(table.depth(), 200_001);
    assert_eq!(encoded(&table).len(), table.encoded_len());
    drop(table);
}

// ---- Short strings ----

#[test]
fn short_strings_are_forty_bytes_big() {
    assert_eq!(size_of::<ShortStr>(), 40);
}

#[test]
fn a_short_string_has_at_most_255_bytes() {
    for len in [0, 1, 37, 38, 39, 40, 254, 255] {
        let text = "x".repeat(len);
        let short = ShortStr::try_from(&text).unwrap();
        assert_eq!(short, text);
        assert_eq!(short.len(), len);
        assert_eq!(short.is_empty(), len == 0);
        assert_eq!(short.encoded_len(), len + 1);
        assert_eq!(ShortStr::decode(&encoded(&short)), Ok(short));
    }
    for len in [256, 257, 70_000] {
        let error = ShortStr::try_from("x".repeat(len)).unwrap_err();
        assert_eq!(error, ShortStrError { len });
        assert!(error.to_string().contains(&len.to_string()));
    }
    // Bytes, not characters.
    assert!(ShortStr::try_from("é".repeat(127)).is_ok());
    assert_eq!(
        "é".repeat(128).parse::<ShortStr>(),
        Err(ShortStrError { len: 256 })
    );
}

#[test]
fn a_short_string_is_utf_8() {
    for bytes in ["01 ff", "02 c328", "01 c3", "03 eda080"] {
        assert_eq!(ShortStr::decode(&hex(bytes)), Err(DecodeError::InvalidUtf8));
        assert_eq!(
            parse::all(&hex(bytes), |input| parse::short_str_ref(input)
                .map(|(rest, _)| (rest, ()))),
            Err(DecodeError::InvalidUtf8)
        );
    }
}

/// The bytes that a hasher receives.
fn hashed(value: &(impl Hash + ?Sized)) -> Vec<u8> {
    struct Given(Vec<u8>);

    impl Hasher for Given {
        fn write(&mut self, bytes: &[u8]) {
            self.0.extend(bytes);
        }

        fn finish(&self) -> u64 {
            0
        }
    }

    let mut given = Given(Vec::new());
    value.hash(&mut given);
    given.0
}

#[test]
fn short_strings_of_every_form_are_the_same() {
    const LITERAL: &str = "a literal of more than thirty-eight bytes";
    const SHORT: ShortStr = ShortStr::from_static("amq.topic").unwrap();
    const LONG: ShortStr = ShortStr::from_static(LITERAL).unwrap();
    const TOO_LONG: &str = match core::str::from_utf8(&[b'x'; 256]) {
        Ok(text) => text,
        Err(_) => "",
    };
    assert_eq!(ShortStr::from_static(TOO_LONG), None);
    for (constant, text) in [(SHORT, "amq.topic"), (LONG, LITERAL)] {
        let other = name(text);
        assert_eq!(constant, other);
        assert_eq!(
            format!("{constant} {constant:?} {constant:>50}"),
            format!("{text} {text:?} {text:>50}")
        );
        assert_eq!(hashed(&constant), hashed(text));
        assert_eq!(hashed(&other), hashed(text));
        // A text decoded from a longer input, which is the usual case.
        let longer = [&encoded(&other)[..], &[0xff; 60]].concat();
        let (rest, read) = parse::short_str(&longer).unwrap();
        assert_eq!((rest, &read), (&[0xff; 60][..], &constant));
        assert_eq!(encoded(&read), encoded(&other));
        let map = BTreeMap::from([(constant, 1)]);
        assert_eq!(map.get(text), Some(&1));
        assert_eq!(map.get(&other), Some(&1));
    }
    assert_eq!(ShortStr::default(), ShortStr::new());
    assert_eq!(String::from(name("q")), "q");
}

#[test]
fn a_setter_takes_whatever_can_be_a_short_string() {
    let (short, owned) = (name("q"), String::from("q"));
    for taken in [
        String::from("q").into_short_str(),
        (&owned).into_short_str(),
        Cow::Borrowed("q").into_short_str(),
        (&short).into_short_str(),
        short.clone().into_short_str(),
    ] {
        assert_eq!(taken, short);
    }
}

#[test]
fn a_text_that_is_too_long_is_kept_and_fits_into_no_frame() {
    let text = "é".repeat(128);
    let long = text.as_str().into_short_str();
    assert_eq!(long, text);
    let table = FieldTable::new().with(&long, 1);
    assert!(long.encoded_len().min(table.encoded_len()) > u32::MAX as usize);
    // Nothing that follows it is shifted, even if its size was not checked.
    let wire = written(put::short_str, &long);
    assert_eq!(wire.split_first(), Some((&254, &text.as_bytes()[..254])));
}

// ---- Long strings and secrets ----

#[test]
fn long_strings_are_bytes() {
    let from: [LongStr; 7] = [
        "en_US".into(),
        String::from("en_US").into(),
        (&String::from("en_US")).into(),
        b"en_US".into(),
        b"en_US"[..].into(),
        Vec::from(b"en_US").into(),
        Bytes::from_static(b"en_US").into(),
    ];
    for text in from {
        assert_eq!(text, LongStr::from_static("en_US"));
        assert_eq!(text, "en_US");
        assert_eq!(format!("{text:?}"), "\"en_US\"");
        assert_eq!(text.to_str_lossy(), "en_US");
    }
    let not_text = LongStr::from(b"a\xffb");
    assert_eq!(not_text.as_str(), None);
    assert_eq!(format!("{not_text:?}"), r#"b"a\xffb""#);
    assert_eq!(not_text.to_str_lossy(), "a\u{fffd}b");
}

#[test]
fn a_secret_never_shows() {
    let secret = Secret::from("swordfish");
    assert_eq!(format!("{secret:?} {secret:#?}"), "Secret(..) Secret(..)");
    assert_eq!(secret.expose(), b"swordfish");
    assert_eq!(Secret::from(LongStr::from("swordfish")), secret);
}

// ---- Tables ----

#[test]
fn duplicate_names_are_kept_and_the_first_is_found() {
    let bytes = hex("0000000f 01 61 42 01 01 62 42 02 01 61 42 03 00 42 04");
    let mut table = FieldTable::decode(&bytes).unwrap();
    assert_eq!(encoded(&table), bytes);
    assert_eq!(table.len(), 4);
    assert_eq!(table.get("a"), Some(&FieldValue::U8(1)));
    assert_eq!(
        format!("{table:?}"),
        r#"{"a": U8(1), "b": U8(2), "a": U8(3), "": U8(4)}"#
    );

    assert_eq!(table.insert(name("a"), 9_u8), Some(FieldValue::U8(1)));
    assert_eq!(table.insert(name("c"), 5_u8), None);
    table.push(name("b"), false);
    assert_eq!(table.get("b"), Some(&FieldValue::U8(2)));
    *table.get_mut("b").unwrap() = FieldValue::Void;
    let fields: Vec<_> = table
        .iter()
        .map(|(key, value)| (key.as_str(), value.clone()))
        .collect();
    assert_eq!(
        fields,
        [
            ("a", FieldValue::U8(9)),
            ("b", FieldValue::Void),
            ("a", FieldValue::U8(3)),
            ("", FieldValue::U8(4)),
            ("c", FieldValue::U8(5)),
            ("b", FieldValue::Bool(false)),
        ]
    );
    assert_eq!(table.remove("a"), Some(FieldValue::U8(9)));
    assert!(!table.contains_key("a"));
    assert_eq!(table.remove("a"), None);
    assert_eq!(table.into_iter().len(), 4);
}

#[test]
fn values_are_looked_at_by_type() {
    let table = table_of([
        ("bool", true.into()),
        ("small", 7_u8.into()),
        ("large", FieldValue::I64Alias(-7)),
        ("float", 0.5_f32.into()),
        ("text", text("t")),
        ("array", vec![FieldValue::Void].into()),
        ("table", table_of([("x", 1_i32.into())]).into()),
        ("time", Timestamp(3).into()),
        ("short", name("s").into()),
    ]);
    let get = |key| table.get(key).unwrap();
    assert_eq!(get("bool").as_bool(), Some(true));
    assert_eq!(get("small").as_i64(), Some(7));
    assert_eq!(get("large").as_i64(), Some(-7));
    assert_eq!(get("float").as_f64(), Some(0.5));
    assert_eq!(get("text").as_str(), Some("t"));
    assert_eq!(get("text").as_bytes(), Some(&b"t"[..]));
    assert_eq!(get("array").as_array().unwrap()[..], [FieldValue::Void]);
    assert_eq!(
        get("table").as_table().unwrap().get("x"),
        Some(&FieldValue::I32(1))
    );
    assert_eq!(get("time").as_timestamp(), Some(Timestamp(3)));
    assert_eq!(get("short").as_str(), Some("s"));
    assert_eq!(get("bool").as_i64(), None);
    assert_eq!(get("small").as_bool(), None);
    assert_eq!(table.depth(), 2);
}
