//! Field tables, the arguments of methods, and properties: decoded, encoded, and decoded again.

use amqp_core::{
    MethodId,
    protocol::{ClientMethod, Method, RULES, ServerMethod, basic},
    wire::{Decode, Encode, FieldTable, MAX_TABLE_DEPTH},
};
use amqp_test_support::meter::peak_of;
use bytes::BytesMut;

/// The memory for a value beyond that for each byte of input.
const ROOM: usize = 4096;

/// The memory for each byte of input: a value of no bytes is a tag in an array, and takes its place in
/// a vector that grows by doubling, and is moved once.
const PER_BYTE: usize = 200;

/// The input is a table, with its length in front.
pub fn tables(input: &[u8]) {
    let Some(table) = round_trip::<FieldTable>(input) else {
        return;
    };
    assert!(table.depth() <= MAX_TABLE_DEPTH);
    for (name, value) in &table {
        assert!(table.contains_key(name));
        let _as_any = (value.as_bytes(), value.as_str(), value.as_i64());
    }
    let again: FieldTable = table.clone().into_iter().collect();
    assert_eq!(encoded(&again), encoded(&table));
}

/// The first byte chooses a method, or the properties of a message; the rest is the arguments.
pub fn methods(input: &[u8]) {
    let Some((&which, arguments)) = input.split_first() else {
        return;
    };
    let Some(rule) = RULES.get(usize::from(which)) else {
        round_trip::<basic::Properties>(arguments);
        return;
    };
    let allowed = ROOM + PER_BYTE * arguments.len();
    let (method, peak) = peak_of(|| Method::decode(rule.id, arguments));
    assert!(peak <= allowed, "{}: {peak} of {allowed}", rule.name);
    let by_side = (
        ClientMethod::decode(rule.id, arguments),
        ServerMethod::decode(rule.id, arguments),
    );
    let Ok(method) = method else {
        assert!(by_side.0.is_err() && by_side.1.is_err(), "{}", rule.name);
        return;
    };
    assert_eq!(by_side.0.is_ok(), rule.client_sends, "{}", rule.name);
    assert_eq!(by_side.1.is_ok(), rule.server_sends, "{}", rule.name);
    assert_eq!(method.id(), rule.id);
    let _words = (format!("{method}"), format!("{method:?}"));
    let bytes = encoded(&method);
    let again = decode_known(rule.id, &bytes);
    assert_eq!(encoded(&again), bytes, "{method:?}");
    assert_eq!(format!("{again:?}"), format!("{method:?}"));
}

fn decode_known(id: MethodId, arguments: &[u8]) -> Method {
    Method::decode(id, arguments).expect("its own encoding")
}

/// Decodes a value; if there is one, encodes it and decodes that. Values are compared as they are
/// printed, since a number in them may be none.
fn round_trip<T: Decode + Encode + std::fmt::Debug>(input: &[u8]) -> Option<T> {
    let allowed = ROOM + PER_BYTE * input.len();
    let (value, peak) = peak_of(|| T::decode(input));
    assert!(peak <= allowed, "{peak} of {allowed} bytes");
    let value = value.ok()?;
    let bytes = encoded(&value);
    let again = T::decode(&bytes).expect("its own encoding");
    assert_eq!(encoded(&again), bytes);
    assert_eq!(format!("{again:?}"), format!("{value:?}"));
    Some(value)
}

fn encoded(value: &impl Encode) -> BytesMut {
    let mut out = BytesMut::new();
    value.encode(&mut out);
    assert_eq!(out.len(), value.encoded_len());
    out
}
