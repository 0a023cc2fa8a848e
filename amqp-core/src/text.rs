//! Texts of a peer, as errors and reasons show them.
//!
//! What a peer says may hold anything, and what an error says ends in a log, line by line: a control
//! character must not begin a line of its own there or move the cursor of a terminal.

use core::fmt::{self, Write as _};

/// A text whose control characters are escaped when it is displayed: newline, carriage return and
/// tab as `\n`, `\r` and `\t`, any other, and what changes the direction of text or ends a line, as
/// `\u{1b}`.
///
/// ```
/// use amqp_core::text::Escaped;
///
/// assert_eq!(Escaped("no queue 'q'\n\x1b[2J").to_string(), r"no queue 'q'\n\u{1b}[2J");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Escaped<'a>(pub &'a str);

/// A name between quotation marks, [`Escaped`], so that an empty one shows. Quotation marks and
/// backslashes in it have a backslash before them.
///
/// ```
/// use amqp_core::text::Quoted;
///
/// assert_eq!(Quoted("").to_string(), r#""""#);
/// assert_eq!(Quoted("a \"b\"\n").to_string(), r#""a \"b\"\n""#);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quoted<'a>(pub &'a str);

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

/// The separators of lines and paragraphs, and the marks that set the direction of text.
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
