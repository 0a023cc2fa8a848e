//! Encodings, messages and hooks.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use bytes::Bytes;
use proptest::prelude::*;
use serde::{Deserialize, Serialize};

use crate::{
    message::{Message, MessageId},
    rpc::{
        BuiltIn, Cbor, Codec, CodecError, Codecs, Hooks, Json, RemoteError,
        wire::{self, Fault, Incoming, Reply, Request},
    },
};

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
enum Shape {
    Point,
    Circle(f64),
    Box { width: u32, height: u32 },
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct All {
    text: String,
    number: i64,
    none: Option<u8>,
    some: Option<u8>,
    shapes: Vec<Shape>,
    map: BTreeMap<String, (bool, char)>,
}

fn all() -> All {
    All {
        text: "ä\0\u{1f40d}".to_owned(),
        number: i64::MIN,
        none: None,
        some: Some(255),
        shapes: vec![
            Shape::Point,
            Shape::Circle(-0.5),
            Shape::Box {
                width: 0,
                height: u32::MAX,
            },
        ],
        map: BTreeMap::from([(String::new(), (true, 'ß'))]),
    }
}

fn round_trips<C: Codec>() {
    let all = all();
    let bytes = C::encode(&all).unwrap();
    assert_eq!(C::decode::<All>(&bytes), Ok(all.clone()));
    assert_eq!(
        <BuiltIn as Codecs>::decode::<All>(C::CONTENT_TYPE, &bytes),
        Ok(all)
    );
    let unit = C::encode(&()).unwrap();
    assert_eq!(C::decode::<()>(&unit), Ok(()));
    for end in 0..bytes.len() {
        assert!(C::decode::<All>(&bytes[..end]).is_err(), "cut at {end}");
    }
    let longer = [&bytes[..], b"1"].concat();
    assert!(C::decode::<All>(&longer).is_err(), "bytes after it");
}

#[test]
fn json_round_trips() {
    round_trips::<Json>();
}

#[test]
fn cbor_round_trips() {
    round_trips::<Cbor>();
}

#[test]
fn nesting_without_end_is_an_error() {
    #[derive(Debug, Deserialize)]
    struct Nested(#[expect(dead_code, reason = "only decoded")] Vec<Self>);

    assert!(Json::decode::<Nested>("[".repeat(1 << 20).as_bytes()).is_err());
    assert!(Cbor::decode::<Nested>(&vec![0x81; 1 << 20]).is_err());
    assert!(Cbor::decode::<Nested>(&vec![0x9f; 1 << 20]).is_err());
}

#[test]
fn a_length_that_is_claimed_takes_no_memory() {
    // Arrays, texts, bytes and maps of 2^63 elements.
    for major in [0x9b, 0x7b, 0x5b, 0xbb] {
        let bytes = [major, 0x80, 0, 0, 0, 0, 0, 0, 0, 1];
        assert!(Cbor::decode::<Vec<u64>>(&bytes).is_err());
        assert!(Cbor::decode::<String>(&bytes).is_err());
        assert!(Cbor::decode::<BTreeMap<u64, u64>>(&bytes).is_err());
    }
}

#[test]
fn an_unknown_content_type_is_an_error_that_names_it() {
    let error = BuiltIn::encode("text/plain", "x").unwrap_err();
    assert_eq!(
        error.reason,
        r#"no codec for the content type "text/plain""#
    );
    let error = BuiltIn::decode::<String>("\n", b"x").unwrap_err();
    assert_eq!(error.reason, r#"no codec for the content type "\n""#);
}

/// Upper-case texts.
struct Upper;

impl Codec for Upper {
    const CONTENT_TYPE: &'static str = "text/x-upper";

    fn encode<T: Serialize + ?Sized>(value: &T) -> Result<Vec<u8>, CodecError> {
        Json::encode(value).map(|bytes| bytes.to_ascii_uppercase())
    }

    fn decode<T: serde::de::DeserializeOwned>(bytes: &[u8]) -> Result<T, CodecError> {
        Json::decode(&bytes.to_ascii_lowercase())
    }
}

#[test]
fn a_further_codec_is_chosen_by_its_content_type() {
    type Set = (Upper, BuiltIn);
    let upper = Set::encode(Upper::CONTENT_TYPE, "abc").unwrap();
    assert_eq!(upper, br#""ABC""#);
    assert_eq!(
        Set::decode::<String>(Upper::CONTENT_TYPE, &upper).unwrap(),
        "abc"
    );
    assert_eq!(Set::encode(Json::CONTENT_TYPE, "abc").unwrap(), br#""abc""#);
}

fn faults() -> Vec<Fault> {
    let error = RemoteError {
        kind: "Odd".into(),
        message: "3 is odd".into(),
        trace: Some("line\nline".into()),
        data: Some(Bytes::from_static(b"3")),
    };
    let bare = RemoteError {
        trace: None,
        data: None,
        ..error.clone()
    };
    vec![
        Fault::NoObject,
        Fault::NoMethod,
        Fault::WrongKind,
        Fault::Codec("reason".into()),
        Fault::Opaque,
        Fault::Busy,
        Fault::Forgotten,
        Fault::TooLarge,
        Fault::Failed(error),
        Fault::Failed(bare),
    ]
}

#[test]
fn messages_of_calls_are_read_as_they_were_written() {
    let id = MessageId::from_bytes(*b"0123456789abcdef");
    let request = Request {
        object: "calc".into(),
        method: "add".into(),
        content_type: Json::CONTENT_TYPE.try_into().unwrap(),
        body: Bytes::from_static(b"[3,8]"),
        ttl: Some(Duration::from_secs(5)),
        is_stored: false,
    };
    for id in [Some(id), None] {
        let message = wire::request(id, request.clone());
        assert!(wire::is_rpc(&message));
        let read = wire::parse(message);
        assert_eq!(read, Incoming::Request(id, request.clone()));
    }
    let results = faults().into_iter().map(Err);
    for result in results.chain([Ok(Bytes::new()), Ok(Bytes::from_static(b"11"))]) {
        let reply = Reply {
            content_type: Json::CONTENT_TYPE.try_into().unwrap(),
            result,
        };
        let message = wire::reply(id, reply.clone(), None);
        assert!(wire::is_rpc(&message));
        assert_eq!(wire::parse(message), Incoming::Reply(id, reply));
    }
}

#[test]
fn the_longest_error_fits_into_the_properties_of_a_message() {
    let failure = crate::rpc::Failure::new("k".repeat(1 << 20), "ä".repeat(1 << 20));
    let error = failure.into_remote(Json::CONTENT_TYPE);
    assert_eq!((error.kind.len(), error.message.len()), (255, 2048));
    let reply = Reply {
        content_type: "c".repeat(255).try_into().unwrap(),
        result: Err(Fault::Failed(error)),
    };
    let message = wire::reply(MessageId::from_bytes([0; 16]), reply, None);
    let len = message.to_wire().as_bytes().len();
    assert!(len < crate::limits::MAX_PROPERTIES - 200, "{len}");
}

proptest! {
    #[test]
    fn garbage_is_no_call(
        kind in "(rpc\\.(call|signal|reply|error|x)|other)",
        id in "[0-9a-f]{0,33}",
        headers in proptest::collection::vec(("(object|method|error|kind|trace)", any::<i32>()), 0..4),
    ) {
        let mut message = Message::new("body").kind(kind).unwrap().correlation_id(id).unwrap();
        for (name, value) in headers {
            message.properties_mut().headers.insert(name, value);
        }
        // Integers are no names, so that no request and no error is among them.
        let parsed = wire::parse(message);
        let is_reply = matches!(parsed, Incoming::Reply(_, Reply { result: Ok(_), .. }));
        prop_assert!(parsed == Incoming::Malformed || is_reply);
    }

    #[test]
    fn any_bytes_decode_or_fail(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let json = Json::decode::<All>(&bytes);
        let cbor = Cbor::decode::<All>(&bytes);
        let of_value = Json::decode::<serde_json::Value>(&bytes);
        let cbor_value = Cbor::decode::<serde_json::Value>(&bytes);
        prop_assert!(json.is_err() || of_value.is_ok());
        prop_assert!(cbor.is_err() || cbor_value.is_ok());
    }
}

#[test]
fn all_hooks_that_match_the_start_run() {
    let ran = Arc::new(Mutex::new(Vec::new()));
    let mut hooks = Hooks::new();
    for pattern in ["aa", "a", "ab"] {
        let ran = Arc::clone(&ran);
        let run = move |_: &Message| ran.lock().unwrap().push(pattern);
        hooks.on(pattern, run).unwrap();
    }
    let run = |text: &'static str| {
        let count = hooks.run(&Message::new(text));
        let ran = std::mem::take(&mut *ran.lock().unwrap());
        assert_eq!(count, ran.len());
        ran
    };
    assert_eq!(run("aa"), ["aa", "a"]);
    assert_eq!(run("aax"), ["aa", "a"]);
    assert_eq!(run("abx"), ["a", "ab"]);
    assert_eq!(run("xaa"), Vec::<&str>::new());
    assert_eq!(run(""), Vec::<&str>::new());
}

#[test]
fn hooks_see_the_valid_start_of_any_body() {
    let mut hooks = Hooks::new();
    hooks.on("a|ä$", |_| ()).unwrap();
    assert_eq!(hooks.run(&Message::new(&b"a\xff\xfe"[..])), 1);
    assert_eq!(hooks.run(&Message::new(&b"\xff"[..])), 0);
    assert_eq!(
        hooks.run(&Message::new("xä")),
        0,
        "an alternative is anchored, too"
    );
    let long = format!("{}b", "a".repeat(5000));
    assert_eq!(hooks.run(&Message::new(long)), 1);
    let error = hooks.on("a)(b", |_| ()).unwrap_err();
    assert!(error.to_string().contains("regular expression"));
    assert_eq!(format!("{hooks:?}"), r#"["\\A(?:a|ä$)"]"#);
}
