//! Display of untrusted text in errors and close reasons.
//!
//! A text of the peer may contain any character, and an error usually ends up in a log, line by
//! line: a control character in it must not start a new line or control a terminal.

use core::fmt::{self, Write as _};

/// A text with its control characters escaped on display: newline, carriage return and tab as `\n`,
/// `\r` and `\t`; all others, line and paragraph separators, and marks of text direction as
/// `\u{1b}`.
///
/// ```
/// use amqp_core::text::Escaped;
///
/// assert_eq!(Escaped("no queue 'q'\n\x1b[2J").to_string(), r"no queue 'q'\n\u{1b}[2J");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Escaped<'a>(pub &'a str);

/// A name in quotation marks, [`Escaped`], so that an empty name is visible. Quotation marks and
/// backslashes in it are escaped with a backslash.
///
/// ```
/// use amqp_core::text::Quoted;
///
/// assert_eq!(Quoted("").to_string(), r#""""#);
/// assert_eq!(Quoted("a \"b\"\n").to_string(), r#""a \"b\"\n""#);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quoted<'a>(pub &'a str);

/// Returns the front of a body as text, if it is UTF-8. If it is cut, a last character that is
/// incomplete is left out.
///
/// ```
/// use amqp_core::text::front;
///
/// assert_eq!(front(b"gr\xc3", true), Some("gr"));
/// assert_eq!(front(b"gr\xc3", false), None);
/// ```
#[must_use]
pub fn front(octets: &[u8], is_cut: bool) -> Option<&str> {
    match core::str::from_utf8(octets) {
        Ok(text) => Some(text),
        Err(error) if is_cut && error.error_len().is_none() => {
            let whole = octets.get(..error.valid_up_to())?;
            core::str::from_utf8(whole).ok()
        }
        Err(_) => None,
    }
}

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.chars().try_for_each(|char| put(f, char))
    }
}

impl fmt::Display for Quoted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_char('"')?;
        for char in self.0.chars() {
            if matches!(char, '"' | '\\') {
                f.write_char('\\')?;
            }
            put(f, char)?;
        }
        f.write_char('"')
    }
}

fn put(f: &mut fmt::Formatter<'_>, char: char) -> fmt::Result {
    match char {
        '\n' => f.write_str("\\n"),
        '\r' => f.write_str("\\r"),
        '\t' => f.write_str("\\t"),
        _ if char.is_control() || is_layout(char) => write!(f, "{}", char.escape_unicode()),
        _ => f.write_char(char),
    }
}

/// Returns whether the character separates lines or paragraphs, or sets the direction of text.
const fn is_layout(char: char) -> bool {
    matches!(
        char,
        '\u{61c}'
            | '\u{200e}'
            | '\u{200f}'
            | '\u{2028}'..='\u{202e}'
            | '\u{2066}'..='\u{2069}'
    )
}
