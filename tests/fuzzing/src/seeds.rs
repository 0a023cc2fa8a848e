//! The inputs that a corpus begins with: recordings, generated frames, and URIs.

use std::{fs, path::Path};

use amqp_core::{
    frame::Frame,
    protocol::{Method, RULES},
    wire::{Decimal, Encode as _, FieldTable, FieldValue, Timestamp},
};
use amqp_test_support::frames;
use bytes::{Bytes, BytesMut};

use crate::{frames::open, layouts::LAYOUTS};

/// The name of a target, the name of a file, and its bytes.
pub type Seed = (&'static str, String, Vec<u8>);

/// The folder of the recordings.
const CAPTURES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../captures");

/// The longest part of a recording that is an input, in bytes.
const RECORDING_MAX: usize = 4096;

/// All seeds of all targets.
pub fn seeds() -> Vec<Seed> {
    let mut seeds = Vec::new();
    streams(&mut seeds);
    values(&mut seeds);
    scripts(&mut seeds);
    let uris = [
        "amqp://",
        "amqp://user:pass@host:10000/vhost",
        "amqps://u%61:p%40@a,b:1,[::1]:5673/%2f?heartbeat=5&channel_max=7",
        "amqps://h?cacertfile=/a/b&certfile=c&keyfile=k&verify=verify_none&server_name_indication=disable",
        "amqp://h?connection_timeout=70&frame_max=0&auth_mechanism=plain&auth_mechanism=X-y",
        "?\0@h/v#",
    ];
    for (number, uri) in uris.iter().enumerate() {
        seeds.push(("uri", format!("seed-{number}"), uri.as_bytes().to_vec()));
    }
    seeds
}

/// Streams of bytes: the front of each recording, in whole frames, and a handshake.
fn streams(seeds: &mut Vec<Seed>) {
    for (target, extension) in [("client", "s2c"), ("server", "c2s"), ("broker", "c2s")] {
        for (name, bytes) in recordings(extension) {
            let options: &[u8] = if target == "broker" { &[8, 0] } else { &[0] };
            let input = [options, front(&bytes)].concat();
            seeds.push((target, format!("seed-{name}"), input));
        }
        let mut stream = BytesMut::from(if target == "broker" {
            &[4, 7][..]
        } else {
            &[7]
        });
        open(target == "client", 60, &mut stream);
        seeds.push((target, "seed-handshake".to_owned(), stream.to_vec()));
    }
    for extension in ["s2c", "c2s"] {
        for (name, bytes) in recordings(extension) {
            let mut seen = Vec::new();
            let mut rest = behind_header(front(&bytes));
            while let Ok(Some(frame)) = Frame::parse(rest, u32::MAX) {
                let (whole, behind) = rest.split_at(frame.len());
                // One of each method in each recording.
                let kind = (whole[0], frame.payload.get(..4).map(<[u8]>::to_vec));
                if whole[0] < 3 && !seen.contains(&kind) {
                    let name = format!("seed-{name}-{extension}-{}", seen.len());
                    seeds.push(("foreign", name, whole.to_vec()));
                    seen.push(kind);
                }
                rest = behind;
            }
        }
    }
}

fn behind_header(bytes: &[u8]) -> &[u8] {
    bytes.strip_prefix(b"AMQP\x00\x00\x09\x01").unwrap_or(bytes)
}

/// The first frames of a recording.
fn front(bytes: &[u8]) -> &[u8] {
    let mut len = bytes.len() - behind_header(bytes).len();
    while let Ok(Some(frame)) = Frame::parse(&bytes[len..], u32::MAX) {
        if len + frame.len() > RECORDING_MAX {
            break;
        }
        len += frame.len();
    }
    &bytes[..len]
}

/// The recordings of one side, with their names, in order.
fn recordings(extension: &str) -> Vec<(String, Vec<u8>)> {
    let entries = fs::read_dir(CAPTURES).unwrap();
    let mut paths: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.retain(|path| path.extension().is_some_and(|it| it == extension));
    paths.sort();
    let read = |path: &Path| {
        let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
        (name, fs::read(path).unwrap())
    };
    paths.iter().map(|path| read(path)).collect()
}

/// A table with a value of each type.
fn every_type() -> FieldTable {
    let inner = FieldTable::new().with("n", 5);
    let values: [FieldValue; 18] = [
        true.into(),
        FieldValue::I8(-1),
        FieldValue::U8(200),
        FieldValue::I16(-300),
        FieldValue::U16(60_000),
        FieldValue::I32(-70_000),
        FieldValue::U32(4_000_000_000),
        FieldValue::I64(i64::MIN),
        FieldValue::I64Alias(7),
        FieldValue::F32(0.5),
        FieldValue::F64(f64::NAN),
        Decimal::from_signed(1, -11).into(),
        "text".into(),
        vec![FieldValue::Void, 1.into(), inner.clone().into()].into(),
        Timestamp(1_700_000_000).into(),
        inner.into(),
        FieldValue::Bytes(Bytes::from_static(&[0, 0xff])),
        FieldValue::Void,
    ];
    let fields = values.into_iter().enumerate();
    fields
        .map(|(number, value)| (format!("f{number}").parse().unwrap(), value))
        .collect()
}

/// The bytes of a table, in which tables and arrays are nested that deep.
fn nested(depth: usize) -> Vec<u8> {
    let mut table = FieldTable::new();
    for level in 1..depth {
        let value: FieldValue = if level % 2 == 0 {
            table.into()
        } else {
            vec![FieldValue::from(table)].into()
        };
        table = FieldTable::new().with("t", value);
    }
    encoded(&table)
}

fn encoded(table: &FieldTable) -> Vec<u8> {
    let mut out = BytesMut::new();
    table.encode(&mut out);
    out.to_vec()
}

/// Tables, and the arguments of every method.
fn values(seeds: &mut Vec<Seed>) {
    seeds.push(("tables", "seed-types".to_owned(), encoded(&every_type())));
    seeds.push(("tables", "seed-nested".to_owned(), nested(16)));
    seeds.push(("tables", "seed-deep".to_owned(), nested(40)));
    seeds.push((
        "tables",
        "seed-name".to_owned(),
        b"\0\0\0\x03\x01\xffV".to_vec(),
    ));
    for (number, rule) in RULES.iter().enumerate() {
        // Zeros are numbers, empty strings and empty tables.
        let decodes = |len: &usize| Method::decode(rule.id, &vec![0; *len]).is_ok();
        let len = (0..64).find(decodes).expect("its arguments are short");
        let method = Method::decode(rule.id, &vec![0; len]).unwrap();
        let name = format!("seed-{}", rule.name);
        let input = [&[number as u8][..], &vec![0; len]].concat();
        seeds.push(("methods", name.clone(), input));
        let mut frame = BytesMut::new();
        frames::method(1, method, &mut frame);
        seeds.push(("foreign", name, frame.to_vec()));
    }
    let mut properties = vec![0xff, 0xff, 0xfc];
    properties.extend([0; 2]);
    properties.extend(encoded(&every_type()));
    properties.extend([2, 5, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    seeds.push(("methods", "seed-properties".to_owned(), properties));
}

/// Lists of choices: numbers of a generator, the same at each run.
fn scripts(seeds: &mut Vec<Seed>) {
    let mut state = 1_u64;
    let mut random = || {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as u8
    };
    for (target, count, len) in [
        ("frames", 24, 200),
        ("handshake", 24, 40),
        ("pair", 12, 200),
        ("handles", 12, 60),
    ] {
        for number in 0..count {
            let mut input: Vec<u8> = (0..len).map(|_| random()).collect();
            input[0] = number;
            seeds.push((target, format!("seed-{number}"), input));
        }
    }
    // Each method once, for either side, with small arguments.
    for side in [0, 1, 2] {
        let mut input = vec![side, 0];
        for method in 0..LAYOUTS.len() as u8 {
            input.extend([0, 0, 1, method, 0]);
            input.extend([1; 12]);
        }
        seeds.push(("frames", format!("seed-methods-{side}"), input));
    }
    // Large headers without bodies, 64 at a time, for one consumer.
    let headers = [2, 63, 4, 0].repeat(6);
    seeds.push(("handles", "seed-headers".to_owned(), headers));
    seeds.push((
        "handshake",
        "seed-plain".to_owned(),
        b"\x02\0guest\0guest".to_vec(),
    ));
    let login = FieldTable::new()
        .with("LOGIN", "guest")
        .with("PASSWORD", "guest");
    let amqplain = [&[2][..], &encoded(&login)[4..]].concat();
    seeds.push(("handshake", "seed-amqplain".to_owned(), amqplain));
}
