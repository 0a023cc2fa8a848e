use alloc::vec;
use core::fmt::Debug;

use bytes::BytesMut;
use proptest::collection::vec as list;
use proptest::prelude::*;

use super::{encoded, name, reads, written};
use crate::wire::*;

fn any_short_str() -> impl Strategy<Value = ShortStr> {
    prop_oneof![".{0,12}", ".{0,63}"].prop_map(|text| name(&text))
}

fn any_value() -> impl Strategy<Value = FieldValue> {
    let leaf = prop_oneof![
        any::<bool>().prop_map(FieldValue::from),
        any::<i8>().prop_map(FieldValue::from),
        any::<u8>().prop_map(FieldValue::from),
        any::<i16>().prop_map(FieldValue::from),
        any::<u16>().prop_map(FieldValue::from),
        any::<i32>().prop_map(FieldValue::from),
        any::<u32>().prop_map(FieldValue::from),
        any::<i64>().prop_map(FieldValue::from),
        any::<i64>().prop_map(FieldValue::I64Alias),
        any::<f32>().prop_map(FieldValue::from),
        any::<f64>().prop_map(FieldValue::from),
        any::<(u8, u32)>().prop_map(|(scale, value)| Decimal { scale, value }.into()),
        list(any::<u8>(), 0..60).prop_map(|bytes| LongStr::from(bytes).into()),
        list(any::<u8>(), 0..60).prop_map(|bytes| FieldValue::Bytes(bytes.into())),
        any::<u64>().prop_map(|seconds| Timestamp(seconds).into()),
        Just(FieldValue::Void),
    ];
    leaf.prop_recursive(5, 40, 6, |inner| {
        prop_oneof![
            list(inner.clone(), 0..6).prop_map(FieldValue::from),
            list((any_short_str(), inner), 0..6)
                .prop_map(|fields| fields.into_iter().collect::<FieldTable>().into()),
        ]
    })
}

fn any_table() -> impl Strategy<Value = FieldTable> {
    list((any_short_str(), any_value()), 0..8).prop_map(FieldTable::from_iter)
}

/// Checks the round trip, the exact size, and that every proper prefix is
/// [`DecodeError::Truncated`].
fn round_trip<T: Encode + Decode + PartialEq + Debug>(value: &T) {
    let bytes = encoded(value);
    assert_eq!(T::decode(&bytes).as_ref(), Ok(value));
    for len in 0..bytes.len() {
        assert_eq!(T::decode(&bytes[..len]), Err(DecodeError::Truncated));
    }
    let longer = [&bytes[..], &[0]].concat();
    assert_eq!(
        T::decode(&longer),
        Err(DecodeError::TrailingBytes { left: 1 })
    );
}

proptest! {
    #[test]
    fn numbers_round_trip(octet: u8, short: u16, long: u32, longlong: u64) {
        reads(&written(put::octet, octet), &octet, parse::octet);
        reads(&written(put::short, short), &short, parse::short);
        reads(&written(put::long, long), &long, parse::long);
        reads(&written(put::longlong, longlong), &longlong, parse::longlong);
        let time = Timestamp(longlong);
        reads(&written(put::timestamp, time), &time, parse::timestamp);
    }

    #[test]
    fn strings_round_trip(short in any_short_str(), bytes in list(any::<u8>(), 0..300)) {
        round_trip(&short);
        round_trip(&LongStr::from(&bytes[..]));
        round_trip(&Secret::from(bytes));
    }

    #[test]
    fn short_strings_compare_as_their_text(a in ".{0,60}", b in ".{0,60}") {
        let (short_a, short_b) = (name(&a), name(&b));
        prop_assert_eq!(short_a.cmp(&short_b), a.cmp(&b));
        prop_assert_eq!(short_a == short_b, a == b);
        prop_assert_eq!(&short_a, &short_a.clone());
        prop_assert_eq!(short_a.as_str(), a);
    }

    /// Bits are packed eight to an octet, the first in the lowest bit (section 4.2.5.2 of the
    /// specification).
    #[test]
    fn bits_round_trip(bits in list(any::<bool>(), 0..40)) {
        let mut out = BytesMut::new();
        for octet in bits.chunks(8) {
            let octet = octet.iter().rev().fold(0, |octet, bit| octet << 1 | u8::from(*bit));
            put::octet(&mut out, octet);
        }
        prop_assert_eq!(out.len(), bits.len().div_ceil(8));
        let mut rest = &out[..];
        for bits in bits.chunks(8) {
            let (left, octet) = parse::bits(rest).unwrap();
            for (at, bit) in bits.iter().enumerate() {
                prop_assert_eq!(octet & 1 << at != 0, *bit);
            }
            rest = left;
        }
        prop_assert!(rest.is_empty());
    }

    #[test]
    fn tables_round_trip(table in any_table()) {
        round_trip(&table);
        let bytes = encoded(&table);
        prop_assert_eq!(parse::all(&bytes, parse::skip_table), Ok(()));
        for (name, _) in &table {
            let text = table.get(name).and_then(FieldValue::as_long_str);
            let found = parse::bare_long_str(&bytes[4..], name);
            prop_assert_eq!(found, Ok(text.map(LongStr::as_bytes)));
        }
    }

    /// For any input, decoding and skipping a table agree, and an accepted input is a table.
    #[test]
    fn damaged_tables(
        table in any_table(),
        damage in list((any::<prop::sample::Index>(), any::<u8>()), 1..4),
    ) {
        let mut bytes = encoded(&table);
        for (at, octet) in damage {
            let at = at.index(bytes.len());
            bytes[at] = octet;
        }
        let decoded = FieldTable::decode(&bytes);
        let skipped = parse::all(&bytes, parse::skip_table);
        prop_assert_eq!(skipped.err(), decoded.as_ref().err().copied());
        if let Ok(decoded) = decoded {
            // A name damaged to invalid UTF-8 was decoded with a replacement character.
            let again = encoded(&decoded);
            prop_assert_eq!(decoded.encoded_len(), again.len());
            let decoded = FieldTable::decode(&again).map(|table| encoded(&table));
            prop_assert_eq!(decoded, Ok(again));
        }
    }

    #[test]
    fn arbitrary_tables(body in list(any::<u8>(), 0..200)) {
        let bytes = [&u32::try_from(body.len()).unwrap().to_be_bytes()[..], &body].concat();
        let decoded = FieldTable::decode(&bytes).map(|_| ());
        prop_assert_eq!(parse::all(&bytes, parse::skip_table), decoded);
        let found = parse::bare_long_str(&body, "a");
        prop_assert_eq!(found.is_ok(), decoded.is_ok());
    }
}
