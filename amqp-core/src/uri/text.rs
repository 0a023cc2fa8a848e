//! Percent-encoding, and the characters that need none (section 2 of RFC 3986).

use alloc::string::String;
use alloc::vec::Vec;
use core::fmt::{self, Write as _};

use super::TextFault;

pub(super) const fn is_name(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_')
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
    let mut decoded = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    let digit = |byte: Option<u8>| char::from(byte?).to_digit(16);
    while let Some(byte) = bytes.next() {
        if byte == b'%' {
            let (Some(high), Some(low)) = (digit(bytes.next()), digit(bytes.next())) else {
                return Err(TextFault::Escape);
            };
            decoded.push((high << 4 | low) as u8);
        } else if allowed(byte) {
            decoded.push(byte);
        } else {
            return Err(TextFault::Character);
        }
    }
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
