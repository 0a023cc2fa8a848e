//! Methods and properties on the wire, byte by byte. That each comes back is a property:
//! `tests/properties/codec.rs`.

use alloc::vec::Vec;

use bytes::BytesMut;

use super::harmless::every_method;
use crate::{
    MethodId,
    protocol::{self, Method, RULES, basic::Properties, queue},
    wire::{Decode as _, DecodeError, Encode, FieldTable, FieldValue, ShortStr, Timestamp},
};

fn encoded(value: &impl Encode) -> Vec<u8> {
    let mut out = BytesMut::from(&b"before"[..]);
    value.encode(&mut out);
    assert_eq!(out.len() - 6, value.encoded_len());
    assert_eq!(&out[..6], b"before");
    out[6..].into()
}

#[test]
fn the_strategies_are_one_of_every_method() {
    let sampled: Vec<_> = every_method().iter().map(Method::rule).collect();
    assert_eq!(sampled, RULES.iter().collect::<Vec<_>>());
    assert!(RULES.is_sorted_by_key(|rule| rule.id));
    for rule in RULES {
        assert_eq!(protocol::rule(rule.id), Some(rule));
        assert_eq!(rule.id.name(), Some(rule.name));
    }
}

#[test]
fn the_rules_of_questions_and_answers_agree() {
    for rule in RULES {
        let by = |id| protocol::rule(id).unwrap();
        for &response in rule.responses {
            assert!(by(response).answers.contains(&rule.id), "{}", rule.name);
        }
        for &request in rule.answers {
            assert!(by(request).responses.contains(&rule.id), "{}", rule.name);
        }
        assert!(rule.client_sends || rule.server_sends);
    }
}

#[test]
fn unknown_methods_do_not_decode() {
    let known = |class, method| protocol::rule(MethodId::new(class, method)).is_some();
    for class in (0..=130).chain([u16::MAX]) {
        for method in (0..=130).chain([u16::MAX]) {
            let id = MethodId::new(class, method);
            let decoded = Method::decode(id, &[]);
            if known(class, method) {
                assert!(!matches!(decoded, Err(DecodeError::UnknownMethod(_))));
            } else if RULES.iter().any(|rule| rule.id.class == class) {
                assert_eq!(decoded, Err(DecodeError::UnknownMethod(id)));
            } else {
                assert_eq!(decoded, Err(DecodeError::UnknownClass(class)));
            }
        }
    }
}

/// The first of the bits is the lowest of its octet.
#[test]
fn bits_of_a_method_share_an_octet() {
    for octet in 0..32_u8 {
        let bit = |place: u8| octet & (1 << place) != 0;
        let declare = queue::Declare::default()
            .passive(bit(0))
            .durable(bit(1))
            .exclusive(bit(2))
            .auto_delete(bit(3))
            .no_wait(bit(4));
        let bytes = encoded(&declare);
        // The reserved short and the empty name before it, the empty table behind it.
        assert_eq!(bytes, [0, 0, 0, octet, 0, 0, 0, 0]);
        assert_eq!(queue::Declare::decode(&bytes), Ok(declare));
    }
}

/// Bits that no argument has mean nothing.
#[test]
fn unused_bits_are_passed_over() {
    let declare = queue::Declare::default().durable(true);
    let bytes = [0, 0, 0, 0b1110_0010, 0, 0, 0, 0];
    assert_eq!(queue::Declare::decode(&bytes), Ok(declare));
}

#[test]
fn properties_that_are_zero_are_not_left_out() {
    let properties = Properties::default()
        .delivery_mode(2)
        .priority(0)
        .correlation_id("122");
    let bytes = [0x1c, 0x00, 0x02, 0x00, 0x03, b'1', b'2', b'2'];
    assert_eq!(encoded(&properties), bytes);
    assert_eq!(Properties::decode(&bytes), Ok(properties));

    let empty = Properties::default()
        .headers(FieldTable::new())
        .content_type("");
    assert_eq!(encoded(&empty), [0xa0, 0, 0, 0, 0, 0, 0]);
    assert!(!empty.is_empty());
}

#[test]
fn properties_that_are_present_are_listed_in_the_order_of_the_specification() {
    assert!(Properties::default().present().is_empty());
    let properties = Properties {
        kind: Some("order".try_into().unwrap()),
        timestamp: Some(Timestamp(5)),
        headers: Some(FieldTable::new()),
        priority: Some(0),
        ..Properties::default()
    };
    let expected = [
        ("headers", FieldValue::Table(FieldTable::new())),
        ("priority", FieldValue::U8(0)),
        ("timestamp", FieldValue::Timestamp(Timestamp(5))),
        ("type", FieldValue::from("order")),
    ];
    assert_eq!(properties.present(), expected);
}

/// A bit without a name in the specification has no place in the type, and on the wire it is
/// refused.
#[test]
fn unknown_properties_are_refused() {
    let refused = Err(DecodeError::UnknownProperty);
    assert_eq!(Properties::check(&[0x00, 0x02]), refused);
    assert_eq!(Properties::check(&[0x00, 0x01, 0x80, 0x00]), refused);
    assert_eq!(
        Properties::check(&[0x00, 0x01, 0x00, 0x01, 0x00, 0x02]),
        refused
    );
    let no_more = [0x00, 0x01, 0x00, 0x00];
    assert_eq!(Properties::decode(&no_more), Ok(Properties::default()));
    // Once the cluster id, and still passed on.
    let cluster_id = Properties::default().reserved("c");
    let bytes = [0x00, 0x04, 0x01, b'c'];
    assert_eq!(Properties::decode(&bytes), Ok(cluster_id));
}

/// A number that is none does not equal itself, but it is the same on the wire.
#[test]
fn numbers_that_are_none_keep_their_bits() {
    let nans = [
        FieldValue::F64(f64::from_bits(0x7ff8_dead_beef_0001)),
        FieldValue::F32(f32::from_bits(0x7fc0_1234)),
        FieldValue::F64(f64::from_bits(0xfff0_0000_0000_0001)),
    ];
    let table: FieldTable = nans.into_iter().map(|nan| (ShortStr::new(), nan)).collect();
    let bytes = encoded(&table);
    assert_eq!(encoded(&FieldTable::decode(&bytes).unwrap()), bytes);
}

#[test]
fn a_queue_is_durable_unless_its_builder_says_otherwise() {
    let decoded = |declare: &queue::Declare| {
        let mut out = BytesMut::new();
        declare.encode(&mut out);
        queue::Declare::decode(&out).unwrap()
    };
    let default = decoded(&queue::Declare::default());
    assert!(default.durable && !default.exclusive);
    let transient = decoded(&queue::Declare::default().durable(false));
    assert!(!transient.durable);
}
