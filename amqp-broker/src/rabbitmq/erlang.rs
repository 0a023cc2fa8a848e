//! Octets and small terms in the format of Erlang's `io_lib`, for RabbitMQ's reply texts about
//! malformed frames. Non-ASCII characters are encoded as UTF-8, not as Latin-1: a reply text is
//! UTF-8.

use alloc::{format, string::String};

/// The maximum number of octets of a frame that are shown.
const SHOWN: usize = 16;

/// The column before which broken lines end, counted from 0.
const LINE: usize = 80;

/// Appends octets as numbers on one line: `<<1,2,3>>`.
pub(super) fn push_numbers(text: &mut String, octets: &[u8]) {
    push_octets(text, octets, usize::MAX);
}

/// Appends the first octets of a frame: as a string if all of them are printable, such as
/// `all octets = <<"ab">>`, otherwise as numbers.
pub(super) fn push_snippet(text: &mut String, payload: &[u8]) {
    let (which, octets) = match payload.get(..SHOWN) {
        Some(octets) if payload.len() > SHOWN => ("first 16", octets),
        _ => ("all", payload),
    };
    text.push_str(which);
    text.push_str(" octets = ");
    if octets.is_empty() || !octets.iter().all(|octet| is_letter(*octet)) {
        push_octets(text, octets, LINE);
        return;
    }
    text.push_str("<<\"");
    for &octet in octets {
        let escaped = match octet {
            b'\n' => 'n',
            b'\r' => 'r',
            b'\t' => 't',
            0x08 => 'b',
            0x0B => 'v',
            0x0C => 'f',
            0x1B => 'e',
            b'"' | b'\\' => char::from(octet),
            letter => {
                text.push(char::from(letter));
                continue;
            }
        };
        text.push('\\');
        text.push(escaped);
    }
    text.push_str("\">>");
}

/// Appends a tuple of a name and a number. The number moves to a new line if the tuple does not fit
/// into the current one.
pub(super) fn push_pair(text: &mut String, name: &str, number: u8) {
    let start = column(text);
    let flat = format!("{{{name},{number}}}");
    if start + flat.len() < LINE {
        text.push_str(&flat);
        return;
    }
    text.push('{');
    text.push_str(name);
    text.push(',');
    break_line(text, start + 1);
    text.push_str(&format!("{number}}}"));
}

fn push_octets(text: &mut String, octets: &[u8], line: usize) {
    text.push_str("<<");
    let start = column(text);
    let mut at = start;
    for (index, octet) in octets.iter().enumerate() {
        let number = format!("{octet}");
        if index > 0 {
            text.push(',');
            let comma = usize::from(index + 1 < octets.len());
            if at + number.len() + comma >= line {
                break_line(text, start);
                at = start;
            }
        }
        text.push_str(&number);
        at += number.len() + 1;
    }
    text.push_str(">>");
}

/// Returns the column at the end of the text.
fn column(text: &str) -> usize {
    let line = text.rsplit('\n').next().unwrap_or_default();
    line.chars().count()
}

fn break_line(text: &mut String, indent: usize) {
    text.push('\n');
    text.extend(core::iter::repeat_n(' ', indent));
}

/// Returns whether Erlang's `io_lib` treats the octet as printable: the printable characters of
/// Latin-1, and the control characters that have an escape sequence.
const fn is_letter(octet: u8) -> bool {
    matches!(octet, 0x20..=0x7E | 0xA0..=0xFF | 0x08..=0x0D | 0x1B)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn snippet(kind: u8, payload: &[u8]) -> String {
        let mut text = format!("type {kind}, ");
        push_snippet(&mut text, payload);
        text
    }

    // The expected texts are those of RabbitMQ 3.10.8.

    #[test]
    fn letters_are_shown_as_a_string() {
        for (payload, shown) in [
            (&b"x"[..], r#"all octets = <<"x">>"#),
            (b"", "all octets = <<>>"),
            (b"a\"\\\n\r\t", r#"all octets = <<"a\"\\\n\r\t">>"#),
            (b"\x1b\x08\x0b\x0c", r#"all octets = <<"\e\b\v\f">>"#),
            (b"a\0", "all octets = <<97,0>>"),
            (b"\x7f", "all octets = <<127>>"),
            (b"\x80\x9f", "all octets = <<128,159>>"),
            (
                b"hello hello hell\0",
                r#"first 16 octets = <<"hello hello hell">>"#,
            ),
        ] {
            assert_eq!(snippet(9, payload), format!("type 9, {shown}"));
        }
    }

    #[test]
    fn numbers_are_broken_into_lines() {
        let first = |count: usize| {
            let numbers = alloc::vec!["128"; count];
            numbers.join(",")
        };
        let lines = |kind, payload: &[u8]| {
            let text = snippet(kind, payload);
            let (head, tail) = text.split_once(",\n").unwrap_or((&text, ""));
            let head = head.split_once("<<").map_or("", |(_, numbers)| numbers);
            let indent = tail.len() - tail.trim_start().len();
            (String::from(head), indent, String::from(tail.trim_start()))
        };
        let whole = format!("{}>>", first(14));
        assert_eq!(lines(9, &[128; 14]), (whole, 0, String::new()));
        for (kind, count, on_first, indent, on_second) in [
            (9, 15, 14, 23, 1),
            (9, 16, 14, 23, 2),
            (200, 14, 13, 25, 1),
            (9, 17, 12, 28, 4),
        ] {
            let expected = (first(on_first), indent, format!("{}>>", first(on_second)));
            assert_eq!(lines(kind, &alloc::vec![128; count]), expected);
        }
    }

    #[test]
    fn a_pair_goes_on_in_a_new_line_when_there_is_no_room() {
        let pair = |payload: &[u8], number| {
            let mut text = snippet(1, payload);
            text.push_str(": ");
            push_pair(&mut text, "invalid_frame_end_marker", number);
            text
        };
        assert!(pair(b"", 7).ends_with(": {invalid_frame_end_marker,7}"));
        assert!(pair(&[0; 11], 7).ends_with(": {invalid_frame_end_marker,7}"));
        let declare = [0, 50, 0, 10, 0, 0, 0, 0, 0, 0, 0, 0];
        let broken = format!(": {{invalid_frame_end_marker,\n{}0}}", " ".repeat(53));
        assert!(pair(&declare, 0).ends_with(&broken));
    }
}
