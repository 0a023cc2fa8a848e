use bytes::BytesMut;
use proptest::collection::vec as list;
use proptest::prelude::*;

use super::{encoded, name, reads, written};
use crate::wire::*;

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
    fn lookups_in_tables_agree(table: FieldTable) {
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
        table: FieldTable,
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
