//! Percent-encoding, and the characters that need none (section 2 of RFC 3986).

use alloc::{string::String, vec::Vec};
use core::fmt::{self, Write as _};

use nom::{
    Err, Parser as _,
    branch::alt,
    bytes::complete::tag,
    combinator::{cut, eof, map, map_opt, verify},
    multi::many_till,
    number::complete::be_u8,
    sequence::{pair, preceded},
};

use super::TextFault;

pub(super) const fn is_name(character: char) -> bool {
    character.is_ascii_alphanumeric() || matches!(character, '-' | '_')
}

/// Returns whether the byte never needs encoding (section 2.3 of RFC 3986).
const fn is_unreserved(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~')
}

/// Returns whether the byte needs no encoding in any part.
pub(super) fn is_plain(byte: u8) -> bool {
    is_unreserved(byte) || b"!$&'()*+,;=".contains(&byte)
}

pub(super) fn decode_text(text: &str, allowed: impl Fn(u8) -> bool) -> Result<String, TextFault> {
    String::from_utf8(decode(text, allowed)?).map_err(|_| TextFault::NotUtf8)
}

pub(super) fn decode(text: &str, allowed: impl Fn(u8) -> bool) -> Result<Vec<u8>, TextFault> {
    // As long as necessary from the start: growing would leave parts of a password in memory.
    let mut decoded = Vec::with_capacity(text.len());
    let digit = || map_opt(be_u8, |byte| char::from(byte).to_digit(16));
    let escape = preceded(tag(&b"%"[..]), cut(pair(digit(), digit())));
    let escape = map(escape, |(high, low)| (high << 4 | low) as u8);
    let plain = verify(be_u8, |byte| allowed(*byte));
    let byte = map(alt((escape, plain)), |byte| decoded.push(byte));
    let result = many_till(byte, eof).parse_complete(text.as_bytes());
    result.map_err(|error| match error {
        // Only an escape is `cut`.
        Err::Failure(()) => TextFault::Escape,
        Err::Error(()) | Err::Incomplete(_) => TextFault::Character,
    })?;
    Ok(decoded)
}

/// Encodes all characters that need it in any part.
pub(super) struct Encoded<'a>(pub(super) &'a str);

impl fmt::Display for Encoded<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        encode(f, self.0, is_unreserved)
    }
}

/// Encodes the path of a file, except for its slashes.
pub(super) struct EncodedPath<'a>(pub(super) &'a str);

impl fmt::Display for EncodedPath<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        encode(f, self.0, |byte| is_unreserved(byte) || byte == b'/')
    }
}

fn encode(f: &mut fmt::Formatter<'_>, text: &str, plain: impl Fn(u8) -> bool) -> fmt::Result {
    for byte in text.bytes() {
        if plain(byte) {
            f.write_char(byte.into())?;
        } else {
            write!(f, "%{byte:02x}")?;
        }
    }
    Ok(())
}
