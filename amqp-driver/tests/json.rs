//! Bodies as JSON: what is sent, what is read, and the errors.
#![cfg(feature = "json")]

use std::collections::BTreeMap;

use amqp_driver::{
    Body,
    json::{JsonError, content, decode},
    protocol::basic::Properties,
};
use serde::{Deserialize, Deserializer, de::Error as _};

#[test]
fn a_value_is_a_body_with_its_content_type() {
    let properties = Properties::default()
        .persistent()
        .content_type("text/plain");
    let (properties, body) = content(properties, &("é", [1, 2])).expect("JSON");
    assert_eq!(properties.content_type.as_deref(), Some("application/json"));
    assert_eq!(properties.delivery_mode, Some(2));
    assert_eq!(body, r#"["é",[1,2]]"#);
    assert_eq!(decode(&body), Ok((String::from("é"), [1, 2])));
}

#[test]
fn a_value_that_cannot_be_json_is_an_error() {
    let keys_are_no_texts = BTreeMap::from([((1, 2), 3)]);
    let error = content(Properties::default(), &keys_are_no_texts).expect_err("no JSON");
    assert!(matches!(error, JsonError::Encode { .. }), "{error}");
    let text = error.to_string();
    assert!(text.starts_with("the value cannot be JSON: "), "{text}");
}

#[test]
fn a_body_that_is_not_json_is_malformed() {
    for (body, column) in [
        ("", 0),
        ("[1, 2", 5),
        ("[1, x]", 5),
        ("[1] 2", 5),
        ("\u{feff}[]", 1),
    ] {
        let error = decode::<Vec<u32>>(&Body::from(body)).expect_err("no JSON");
        let JsonError::Malformed { column: at, .. } = error else {
            panic!("{body:?}: {error}");
        };
        assert_eq!(at, column, "{body:?}");
    }
    let not_utf8: Body = vec![b'"', 0xff, b'"'].into();
    let error = decode::<String>(&not_utf8).expect_err("no text");
    assert!(matches!(error, JsonError::Malformed { .. }), "{error}");
    let bomb = Body::from("[".repeat(1_000_000));
    assert!(decode::<serde_json::Value>(&bomb).is_err());
}

#[test]
fn json_of_another_type_is_a_mismatch() {
    let error = decode::<Vec<u32>>(&Body::from("[1,\n-2]")).expect_err("a negative number");
    let JsonError::Mismatch { line, column, .. } = &error else {
        panic!("{error}");
    };
    assert_eq!((*line, *column), (2, 2));
    let text = error.to_string();
    assert_eq!(
        text,
        "the body is JSON of another type, line 2 column 2: invalid value: integer `-2`, expected \
         u32"
    );
}

/// A type with fields, so that an unknown one is a mismatch.
#[derive(Debug)]
struct Order;

impl<'de> Deserialize<'de> for Order {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let fields = BTreeMap::<String, u32>::deserialize(deserializer)?;
        let unknown = fields.into_keys().next().unwrap_or_default();
        Err(D::Error::unknown_field(&unknown, &["number"]))
    }
}

#[test]
fn a_mismatch_is_one_short_line() {
    let body = format!(r#"{{"\n{}": 1}}"#, "é".repeat(1000));
    let error = decode::<Order>(&Body::from(body)).expect_err("an unknown field");
    let JsonError::Mismatch { reason, .. } = &error else {
        panic!("{error}");
    };
    assert!(
        reason.starts_with("unknown field `\né") && reason.len() <= 256,
        "{reason}"
    );
    assert!(error.to_string().contains(r"unknown field `\né"), "{error}");
}
