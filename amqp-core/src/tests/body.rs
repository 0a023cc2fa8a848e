//! Bodies as one slice and as text, in one piece or several.

use alloc::{borrow::Cow, string::ToString as _};

use bytes::Bytes;

use crate::Body;

fn pieces(pieces: &[&'static [u8]]) -> Body {
    let mut body = Body::new();
    for piece in pieces {
        body.push(Bytes::from_static(piece));
    }
    body
}

#[test]
fn a_body_of_one_piece_is_read_without_a_copy() {
    let body = pieces(&["Grüße".as_bytes()]);
    assert!(matches!(body.as_slice(), Cow::Borrowed(_)));
    assert!(matches!(body.text(), Ok(Cow::Borrowed("Grüße"))));
    assert_eq!(Body::new().text(), Ok("".into()));
}

#[test]
fn a_character_that_is_split_between_frames_is_read() {
    let (front, back) = "Grüße".as_bytes().split_at(3);
    let body = pieces(&[front, back]);
    assert_eq!(*body.as_slice(), *"Grüße".as_bytes());
    assert_eq!(body.text(), Ok("Grüße".into()));
    assert_eq!(body.to_string(), "Grüße");
}

#[test]
fn a_body_that_is_no_text_says_where() {
    for body in [pieces(&[b"ab\xff"]), pieces(&[b"a", b"b\xff"])] {
        assert_eq!(body.text().map_err(|error| error.valid_up_to()), Err(2));
        assert_eq!(body.to_string(), "ab\u{fffd}");
    }
}
