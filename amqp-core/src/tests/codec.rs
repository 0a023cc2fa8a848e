//! Every method and every property list encodes and decodes to itself, and nothing else decodes.

use alloc::{vec, vec::Vec};

use bytes::BytesMut;

use super::{
    sampler::{Harmless, Random, Sample},
    samples::every_method,
};
use crate::{
    EncodedProperties, MethodId,
    protocol::{self, ClientMethod, Method, RULES, ServerMethod, basic::Properties, queue},
    wire::{Decode as _, DecodeError, Encode, FieldTable, FieldValue},
};

fn encoded(value: &impl Encode) -> Vec<u8> {
    let mut out = BytesMut::from(&b"before"[..]);
    value.encode(&mut out);
    assert_eq!(out.len() - 6, value.encoded_len());
    assert_eq!(&out[..6], b"before");
    out[6..].into()
}

/// So many of every method, with fields of every kind.
fn samples(count: u64) -> impl Iterator<Item = Method> {
    (0..count).flat_map(|seed| every_method(&mut Random::new(seed)))
}

#[test]
fn the_samples_are_one_of_every_method() {
    let sampled: Vec<_> = every_method(&mut Harmless::default())
        .iter()
        .map(Method::rule)
        .collect();
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
fn every_method_encodes_and_decodes_to_itself() {
    for method in samples(200) {
        let bytes = encoded(&method);
        let id = method.id();
        assert_eq!(Method::decode(id, &bytes).as_ref(), Ok(&method));

        let rule = method.rule();
        let client = ClientMethod::decode(id, &bytes);
        let server = ServerMethod::decode(id, &bytes);
        assert_eq!(client.is_ok(), rule.client_sends, "{}", rule.name);
        assert_eq!(server.is_ok(), rule.server_sends, "{}", rule.name);
        let unknown = DecodeError::UnknownMethod(id);
        match client {
            Ok(client) => {
                assert_eq!(encoded(&client), bytes);
                assert_eq!(ClientMethod::try_from(method.clone()), Ok(client.clone()));
                assert_eq!(Method::from(client), method);
            }
            Err(error) => {
                assert_eq!(error, unknown);
                assert_eq!(ClientMethod::try_from(method.clone()), Err(method.clone()));
            }
        }
        match server {
            Ok(server) => {
                assert_eq!(encoded(&server), bytes);
                assert_eq!(ServerMethod::try_from(method.clone()), Ok(server.clone()));
                assert_eq!(Method::from(server), method);
            }
            Err(error) => {
                assert_eq!(error, unknown);
                assert_eq!(ServerMethod::try_from(method.clone()), Err(method.clone()));
            }
        }
    }
}

#[test]
fn arguments_cut_anywhere_are_an_error() {
    for method in samples(8) {
        let bytes = encoded(&method);
        for len in 0..bytes.len() {
            let error = Method::decode(method.id(), &bytes[..len]).unwrap_err();
            assert_eq!(error, DecodeError::Truncated, "{method:?} cut at {len}");
        }
    }
}

#[test]
fn arguments_with_more_behind_them_are_an_error() {
    for method in samples(8) {
        let longer = [&encoded(&method)[..], &[0]].concat();
        assert_eq!(
            Method::decode(method.id(), &longer),
            Err(DecodeError::TrailingBytes { left: 1 }),
            "{method:?}"
        );
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

/// From so many seeds: all properties, none, each, all but each, and some of them.
fn property_lists(count: u64) -> impl Iterator<Item = Properties> {
    (0..count).flat_map(|seed| {
        let mut random = Random::new(seed);
        let all = Properties::sample(&mut random);
        let mut lists = vec![all.clone(), Properties::default()];
        for place in 0..PROPERTIES {
            lists.push(only(&all, |at| at == place));
            lists.push(only(&all, |at| at != place));
        }
        let some = random.number();
        lists.push(only(&all, |at| some & (1 << at) != 0));
        lists
    })
}

const PROPERTIES: usize = 14;

/// The properties at some places. It names every one of them, so that there are no others
/// (TRI-57).
fn only(properties: &Properties, at: impl Fn(usize) -> bool) -> Properties {
    fn keep<T>(value: Option<T>, keep: bool) -> Option<T> {
        value.filter(|_| keep)
    }
    let Properties {
        content_type,
        content_encoding,
        headers,
        delivery_mode,
        priority,
        correlation_id,
        reply_to,
        expiration,
        message_id,
        timestamp,
        kind,
        user_id,
        app_id,
        reserved,
    } = properties.clone();
    Properties {
        content_type: keep(content_type, at(0)),
        content_encoding: keep(content_encoding, at(1)),
        headers: keep(headers, at(2)),
        delivery_mode: keep(delivery_mode, at(3)),
        priority: keep(priority, at(4)),
        correlation_id: keep(correlation_id, at(5)),
        reply_to: keep(reply_to, at(6)),
        expiration: keep(expiration, at(7)),
        message_id: keep(message_id, at(8)),
        timestamp: keep(timestamp, at(9)),
        kind: keep(kind, at(10)),
        user_id: keep(user_id, at(11)),
        app_id: keep(app_id, at(12)),
        reserved: keep(reserved, at(13)),
    }
}

#[test]
fn every_property_list_encodes_and_decodes_to_itself() {
    for properties in property_lists(64) {
        let bytes = encoded(&properties);
        assert_eq!(Properties::decode(&bytes).as_ref(), Ok(&properties));
        assert_eq!(Properties::check(&bytes), Ok(()));
        let kept = EncodedProperties::from(&properties);
        assert_eq!(encoded(&kept), bytes);
        assert_eq!(kept.decode(), Ok(properties.clone()));
        assert_eq!(kept.is_empty(), properties.is_empty());
        assert_eq!(EncodedProperties::new(bytes.into()), Ok(kept));
    }
}

#[test]
fn property_lists_cut_anywhere_or_with_more_behind_are_an_error() {
    let refused = |bytes: &[u8], error: DecodeError| {
        assert_eq!(Properties::decode(bytes), Err(error));
        assert_eq!(Properties::check(bytes), Err(error));
        let kept = EncodedProperties::new(bytes.to_vec().into());
        assert_eq!(kept, Err(error));
    };
    for properties in property_lists(2) {
        let mut bytes = encoded(&properties);
        for len in 0..bytes.len() {
            refused(&bytes[..len], DecodeError::Truncated);
        }
        bytes.push(0);
        refused(&bytes, DecodeError::TrailingBytes { left: 1 });
    }
}

#[test]
fn properties_that_are_zero_are_not_left_out() {
    let properties = Properties::default()
        .delivery_mode(2)
        .priority(0)
        .correlation_id("122")
        .unwrap();
    let bytes = [0x1c, 0x00, 0x02, 0x00, 0x03, b'1', b'2', b'2'];
    assert_eq!(encoded(&properties), bytes);
    assert_eq!(Properties::decode(&bytes), Ok(properties));

    let empty = Properties::default()
        .headers(FieldTable::new())
        .content_type("")
        .unwrap();
    assert_eq!(encoded(&empty), [0xa0, 0, 0, 0, 0, 0, 0]);
    assert!(!empty.is_empty());
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
    let cluster_id = Properties::default().reserved("c").unwrap();
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
    let table: FieldTable = nans
        .into_iter()
        .map(|nan| (Harmless::default().short_str(), nan))
        .collect();
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
