//! Every value encodes and decodes to itself, in as many bytes as announced, and nothing else
//! decodes.

use std::fmt::Debug;

use amqp_core::{
    EncodedProperties, MethodId,
    frame::{ContentHeader, Frame},
    protocol::{ClientMethod, Method, RULES, ServerMethod, basic::Properties},
    strategies::{self, OwnedFrame, Values},
    wire::{
        Decimal, Decode, DecodeError, Encode, FieldArray, FieldTable, LongStr, Secret, ShortStr,
    },
};
use amqp_test_support::cases;
use bytes::BytesMut;
use proptest::{collection::vec, prelude::*, sample::Index, test_runner::TestRunner};

/// Encodes a value behind other bytes.
fn encoded(value: &impl Encode) -> Vec<u8> {
    let mut out = BytesMut::from(&b"before"[..]);
    value.encode(&mut out);
    assert_eq!(out.len() - 6, value.encoded_len());
    assert_eq!(&out[..6], b"before");
    out[6..].into()
}

/// Checks the round trip, that a proper prefix is truncated, and that bytes behind are refused.
fn round_trip<T: PartialEq + Debug>(
    value: &T,
    bytes: &[u8],
    cut: Index,
    decode: impl Fn(&[u8]) -> Result<T, DecodeError>,
) {
    assert_eq!(decode(bytes).as_ref(), Ok(value));
    // All prefixes of a short one.
    let places = if bytes.len() <= 40 {
        0..bytes.len()
    } else {
        0..40
    };
    let other = bytes.len().checked_sub(1).map(|last| cut.index(last + 1));
    for len in places.chain(other) {
        assert_eq!(decode(&bytes[..len]), Err(DecodeError::Truncated));
    }
    let longer = [bytes, &[0]].concat();
    let trailing = DecodeError::TrailingBytes { left: 1 };
    assert_eq!(decode(&longer), Err(trailing));
}

fn check<T: Encode + Decode + PartialEq + Debug>(value: &T, cut: Index) {
    round_trip(value, &encoded(value), cut, T::decode);
}

/// Checks a method, and the method of its sender.
fn check_method(method: &Method, cut: Index) {
    let bytes = encoded(method);
    let (id, rule) = (method.id(), method.rule());
    round_trip(method, &bytes, cut, |bytes| Method::decode(id, bytes));
    let unknown = DecodeError::UnknownMethod(id);
    match ClientMethod::decode(id, &bytes) {
        Ok(client) => {
            assert!(rule.client_sends, "{}", rule.name);
            assert_eq!(encoded(&client), bytes);
            assert_eq!(ClientMethod::try_from(method.clone()), Ok(client.clone()));
            assert_eq!(&Method::from(client), method);
        }
        Err(error) => {
            assert!(!rule.client_sends, "{}", rule.name);
            assert_eq!(error, unknown);
            assert_eq!(ClientMethod::try_from(method.clone()), Err(method.clone()));
        }
    }
    match ServerMethod::decode(id, &bytes) {
        Ok(server) => {
            assert!(rule.server_sends, "{}", rule.name);
            assert_eq!(encoded(&server), bytes);
            assert_eq!(ServerMethod::try_from(method.clone()), Ok(server.clone()));
            assert_eq!(&Method::from(server), method);
        }
        Err(error) => {
            assert!(!rule.server_sends, "{}", rule.name);
            assert_eq!(error, unknown);
            assert_eq!(ServerMethod::try_from(method.clone()), Err(method.clone()));
        }
    }
}

/// Each by itself, so that none is left to chance.
#[test]
fn every_method_round_trips() {
    let strategies = strategies::methods(&Values::default());
    assert_eq!(strategies.len(), RULES.len());
    for (strategy, rule) in strategies.into_iter().zip(RULES) {
        let mut runner = TestRunner::new(cases(24));
        let strategy = (strategy, any::<Index>());
        let result = runner.run(&strategy, |(method, cut)| {
            prop_assert_eq!(method.rule(), rule);
            check_method(&method, cut);
            Ok(())
        });
        if let Err(error) = result {
            panic!("{}: {error}", rule.name);
        }
    }
}

#[test]
fn the_strategies_of_requests_are_those_of_the_table() {
    let requests = strategies::requests(&Values::default()).len();
    let of_table = RULES.iter().filter(|rule| {
        let opens = rule.id == MethodId::new(20, 10);
        rule.client_sends && !rule.connection && !rule.responses.is_empty() && !opens
    });
    assert_eq!(requests, of_table.count());
    let values = Values::default();
    let sent = |by: fn(&amqp_core::Rule) -> bool| RULES.iter().filter(|rule| by(rule)).count();
    let client = strategies::client_methods(&values).len();
    let server = strategies::server_methods(&values).len();
    assert_eq!(
        (client, server),
        (sent(|it| it.client_sends), sent(|it| it.server_sends))
    );
}

proptest! {
    #![proptest_config(cases(64))]

    #[test]
    fn every_property_set_round_trips(properties: Properties, cut: Index) {
        check(&properties, cut);
        let bytes = encoded(&properties);
        let kept = EncodedProperties::from(&properties);
        prop_assert_eq!(encoded(&kept), &bytes[..]);
        prop_assert_eq!(kept.decode(), Ok(properties.clone()));
        prop_assert_eq!(kept.is_empty(), properties.is_empty());
        prop_assert_eq!(EncodedProperties::new(bytes.clone().into()), Ok(kept));
        let cut = &bytes[..cut.index(bytes.len())];
        let refused = EncodedProperties::new(cut.to_vec().into());
        prop_assert_eq!(refused, Err(DecodeError::Truncated));
    }

    #[test]
    fn every_table_round_trips(table: FieldTable, cut: Index) {
        check(&table, cut);
        prop_assert!(table.depth() <= 5);
        for (name, _) in &table {
            prop_assert!(table.contains_key(name));
        }
    }

    #[test]
    fn every_string_and_number_round_trips(
        short: ShortStr,
        long: LongStr,
        secret: Secret,
        cut: Index,
    ) {
        check(&short, cut);
        prop_assert!(short.encoded_len() <= 256);
        check(&long, cut);
        prop_assert_eq!(long.encoded_len(), long.len() + 4);
        check(&secret, cut);
    }

    /// An array and a decimal travel in a table.
    #[test]
    fn every_array_round_trips(array: FieldArray, decimal: Decimal, cut: Index) {
        let table = FieldTable::new().with("array", array);
        check(&table.with("decimal", decimal), cut);
    }

    #[test]
    fn every_frame_round_trips(frames in vec(any::<OwnedFrame>(), 0..8)) {
        let stream: Vec<u8> = frames.iter().flat_map(OwnedFrame::to_bytes).collect();
        prop_assert_eq!(super::frames(&stream), frames);
    }

    /// A frame is incomplete up to its last byte, and refused if it is larger than the limit.
    #[test]
    fn a_frame_is_as_long_as_it_says(frame: OwnedFrame) {
        let bytes = frame.to_bytes();
        let len = u32::try_from(bytes.len()).unwrap();
        prop_assert_eq!(bytes.len(), frame.as_frame().len());
        prop_assert!(Frame::parse(&bytes, len - 1).is_err());
        prop_assert_eq!(Frame::parse(&bytes, len), Ok(Some(frame.as_frame())));
        for cut in 0..bytes.len() {
            prop_assert_eq!(Frame::parse(&bytes[..cut], len), Ok(None));
        }
    }

    #[test]
    fn a_content_header_has_its_size_and_properties(properties: Properties, size: u64) {
        let frame = OwnedFrame::header(1, &properties, size);
        let header = ContentHeader::parse(&frame.payload).unwrap();
        prop_assert_eq!((header.class, header.weight, header.body_size), (60, 0, size));
        prop_assert_eq!(Properties::decode(header.properties), Ok(properties));
    }
}
