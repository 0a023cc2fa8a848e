//! The subject of a certificate: parsing and formatting.

use std::fmt::{self, Write as _};

use nom::{
    IResult, Parser as _,
    bytes::complete::tag,
    combinator::{all_consuming, fail, map_opt, verify},
    multi::{length_data, many0, many1},
    number::complete::{be_u8, be_u16},
    sequence::{pair, preceded},
};

/// The DER tags that occur in a subject.
mod tags {
    pub(super) const OBJECT_IDENTIFIER: u8 = 0x06;
    pub(super) const UTF8_STRING: u8 = 0x0c;
    pub(super) const PRINTABLE_STRING: u8 = 0x13;
    pub(super) const TELETEX_STRING: u8 = 0x14;
    pub(super) const IA5_STRING: u8 = 0x16;
    pub(super) const UNIVERSAL_STRING: u8 = 0x1c;
    pub(super) const BMP_STRING: u8 = 0x1e;
    pub(super) const SEQUENCE: u8 = 0x30;
    pub(super) const SET: u8 = 0x31;
}

const COMMON_NAME: &str = "2.5.4.3";

/// The attribute types that RabbitMQ abbreviates. Others are written as their object identifier.
const NAMES: [(&str, &str); 16] = [
    (COMMON_NAME, "CN"),
    ("2.5.4.4", "SN"),
    ("2.5.4.5", "SERIALNUMBER"),
    ("2.5.4.6", "C"),
    ("2.5.4.7", "L"),
    ("2.5.4.8", "ST"),
    ("2.5.4.10", "O"),
    ("2.5.4.11", "OU"),
    ("2.5.4.12", "TITLE"),
    ("2.5.4.42", "GIVENNAME"),
    ("2.5.4.43", "INITIALS"),
    ("2.5.4.44", "GENERATIONQUALIFIER"),
    ("2.5.4.65", "PSEUDONYM"),
    ("0.9.2342.19200300.100.1.1", "UID"),
    ("0.9.2342.19200300.100.1.25", "DC"),
    ("1.2.840.113549.1.9.1", "EMAILADDRESS"),
];

/// The subject of a certificate: its relative names in order, each of one or more attributes.
#[derive(Debug)]
pub(super) struct Subject(Vec<Vec<Attribute>>);

#[derive(Debug)]
struct Attribute {
    /// The object identifier in dotted form.
    kind: String,
    value: String,
}

impl Subject {
    /// Parses the content of the outermost sequence of a subject in DER. `None` if it is empty,
    /// malformed or contains a value that is not text.
    pub(super) fn read(der: &[u8]) -> Option<Self> {
        let (_, parts) = all_consuming(many1(part)).parse(der).ok()?;
        Some(Self(parts))
    }

    /// Its common names, joined by commas. `Some` if there is at least one.
    pub(super) fn common_name(&self) -> Option<String> {
        let names: Vec<&str> = self.common_names().collect();
        (!names.is_empty()).then(|| names.join(","))
    }

    pub(super) fn common_names(&self) -> impl Iterator<Item = &str> {
        let attributes = self.0.iter().flatten();
        let names = attributes.filter(|attribute| attribute.kind == COMMON_NAME);
        names.map(|attribute| attribute.value.as_str())
    }
}

/// Writes the subject as RabbitMQ does: by RFC 4514, the last part first, with all bytes escaped
/// that are not printable ASCII. The tilde is escaped as well.
impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, part) in self.0.iter().rev().enumerate() {
            if index > 0 {
                f.write_char(',')?;
            }
            for (index, attribute) in part.iter().enumerate() {
                if index > 0 {
                    f.write_char('+')?;
                }
                let known = NAMES.iter().find(|(kind, _)| *kind == attribute.kind);
                f.write_str(known.map_or(&attribute.kind, |(_, name)| name))?;
                f.write_char('=')?;
                escape(f, attribute.value.as_bytes())?;
            }
        }
        Ok(())
    }
}

fn escape(f: &mut fmt::Formatter<'_>, value: &[u8]) -> fmt::Result {
    for (index, &byte) in value.iter().enumerate() {
        let (first, last) = (index == 0, index + 1 == value.len());
        match byte {
            b' ' if first || last => f.write_str("\\ ")?,
            b'#' if first => f.write_str("\\#")?,
            b'"' | b'+' | b',' | b';' | b'<' | b'>' | b'\\' => {
                f.write_char('\\')?;
                f.write_char(byte.into())?;
            }
            b' '..b'~' => f.write_char(byte.into())?,
            _ => write!(f, "\\{byte:02X}")?,
        }
    }
    Ok(())
}

type Parsed<'a, T> = IResult<&'a [u8], T, ()>;

/// A definite length in DER, in the minimum number of bytes (section 10.1 of X.690), up to 65,535.
/// No certificate that was verified has a longer one.
fn length(input: &[u8]) -> Parsed<'_, usize> {
    match be_u8(input)? {
        (input, short @ ..=0x7f) => Ok((input, short.into())),
        (input, 0x81) => verify(be_u8, |it| *it > 0x7f).map(usize::from).parse(input),
        (input, 0x82) => verify(be_u16, |it| *it > 0xff)
            .map(usize::from)
            .parse(input),
        _ => fail().parse(input),
    }
}

/// The content of a value with the tag `number`.
fn inside(number: u8, input: &[u8]) -> Parsed<'_, &[u8]> {
    preceded(tag(&[number][..]), length_data(length)).parse(input)
}

fn part(input: &[u8]) -> Parsed<'_, Vec<Attribute>> {
    let (input, set) = inside(tags::SET, input)?;
    let (_, attributes) = all_consuming(many1(attribute)).parse(set)?;
    Ok((input, attributes))
}

fn attribute(input: &[u8]) -> Parsed<'_, Attribute> {
    let (input, fields) = inside(tags::SEQUENCE, input)?;
    let kind = map_opt(|input| inside(tags::OBJECT_IDENTIFIER, input), dotted);
    let value = map_opt(pair(be_u8, length_data(length)), |(tag, value)| {
        text(tag, value)
    });
    let (_, (kind, value)) = all_consuming(pair(kind, value)).parse(fields)?;
    Ok((input, Attribute { kind, value }))
}

/// The dotted form of an object identifier. The first two numbers share one encoded number (section
/// 8.19.4 of X.690).
fn dotted(identifier: &[u8]) -> Option<String> {
    let (_, numbers) = all_consuming(many0(base_128)).parse(identifier).ok()?;
    let (first, others) = numbers.split_first()?;
    let top = (first / 40).min(2);
    let mut dotted = format!("{top}.{}", first - top * 40);
    for number in others {
        write!(dotted, ".{number}").ok()?;
    }
    Some(dotted)
}

/// A number in base 128, with the high bit set in all bytes but the last. Leading zeros are refused
/// (section 8.19.2 of X.690), so that no identifier has two encodings.
fn base_128(mut input: &[u8]) -> Parsed<'_, u32> {
    let mut number = 0_u32;
    if input.first() == Some(&0x80) {
        return fail().parse(input);
    }
    loop {
        let (rest, byte) = be_u8(input)?;
        let Some(shifted) = number.checked_mul(128) else {
            return fail().parse(input);
        };
        number = shifted | u32::from(byte & 0x7f);
        if byte & 0x80 == 0 {
            return Ok((rest, number));
        }
        input = rest;
    }
}

fn text(tag: u8, value: &[u8]) -> Option<String> {
    match tag {
        tags::UTF8_STRING | tags::PRINTABLE_STRING | tags::IA5_STRING => {
            Some(std::str::from_utf8(value).ok()?.into())
        }
        // Strictly T.61, but used for Latin-1 in practice.
        tags::TELETEX_STRING => Some(value.iter().map(|byte| char::from(*byte)).collect()),
        tags::BMP_STRING => wide::<2>(value),
        tags::UNIVERSAL_STRING => wide::<4>(value),
        _ => None,
    }
}

/// A text with `SIZE` bytes for each character.
fn wide<const SIZE: usize>(value: &[u8]) -> Option<String> {
    let (characters, rest) = value.as_chunks::<SIZE>();
    let number = |bytes: &[u8; SIZE]| {
        bytes
            .iter()
            .fold(0, |all, byte| all << 8 | u32::from(*byte))
    };
    let characters = characters.iter().map(|bytes| char::from_u32(number(bytes)));
    rest.is_empty().then(|| characters.collect())?
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A value in DER.
    fn der(tag: u8, parts: &[Vec<u8>]) -> Vec<u8> {
        let inside = parts.concat();
        let length = match inside.len() {
            short @ ..0x80 => vec![short as u8],
            middle @ ..0x100 => vec![0x81, middle as u8],
            long => vec![0x82, (long >> 8) as u8, long as u8],
        };
        [&[tag], &length[..], &inside].concat()
    }

    /// An attribute of that kind, with a text of that tag.
    fn attribute(kind: &[u8], tag: u8, text: &[u8]) -> Vec<u8> {
        let kind = der(tags::OBJECT_IDENTIFIER, &[kind.to_vec()]);
        der(tags::SEQUENCE, &[kind, der(tag, &[text.to_vec()])])
    }

    /// A part with one attribute, of the type `2.5.4.kind`.
    fn one(kind: u8, text: &str) -> Vec<u8> {
        let attribute = attribute(&[0x55, 4, kind], tags::UTF8_STRING, text.as_bytes());
        der(tags::SET, &[attribute])
    }

    fn written(parts: &[Vec<u8>]) -> Option<String> {
        Some(Subject::read(&parts.concat())?.to_string())
    }

    #[test]
    fn the_last_part_is_written_first() {
        let both = [
            attribute(&[0x55, 4, 3], tags::UTF8_STRING, b"guest"),
            attribute(&[0x55, 4, 5], tags::PRINTABLE_STRING, b"17"),
        ];
        let parts = [
            one(6, "DE"),
            one(10, "Example"),
            one(11, "Tests"),
            der(tags::SET, &both),
        ];
        let expected = "CN=guest+SERIALNUMBER=17,OU=Tests,O=Example,C=DE";
        assert_eq!(written(&parts).as_deref(), Some(expected));
    }

    #[test]
    fn kinds_without_a_name_are_numbers() {
        for (kind, name) in [
            (&[0x55, 4, 3][..], "CN"),
            (&[0x55, 4, 9], "2.5.4.9"), // RabbitMQ intends STREET, and does not write it
            (&[0x55, 4, 46], "2.5.4.46"),
            (&[9, 0x92, 0x26, 0x89, 0x93, 0xf2, 0x2c, 100, 1, 1], "UID"),
            (&[9, 0x92, 0x26, 0x89, 0x93, 0xf2, 0x2c, 100, 1, 25], "DC"),
            (&[0x2a, 0x86, 0x48, 0x86, 0xf7, 13, 1, 9, 1], "EMAILADDRESS"),
            (&[0x88, 0x37, 3], "2.999.3"),
        ] {
            let part = der(tags::SET, &[attribute(kind, tags::UTF8_STRING, b"x")]);
            assert_eq!(written(&[part]), Some(format!("{name}=x")));
        }
    }

    #[test]
    fn what_means_something_in_a_subject_is_escaped_and_so_is_what_cannot_be_printed() {
        for (text, escaped) in [
            ("", ""),
            (" ", "\\ "),
            ("  a  ", "\\  a \\ "),
            ("#a#", "\\#a#"),
            ("a,b+c=\"d\"", "a\\,b\\+c=\\\"d\\\""),
            ("<a;b>\\", "\\<a\\;b\\>\\\\"),
            ("a~\n\x7f", "a\\7E\\0A\\7F"),
            ("J\u{fc}rgen", "J\\C3\\BCrgen"),
        ] {
            assert_eq!(written(&[one(3, text)]), Some(format!("CN={escaped}")));
        }
    }

    #[test]
    fn texts_of_every_kind_are_read() {
        for (tag, bytes) in [
            (tags::UTF8_STRING, "J\u{fc}rgen".as_bytes()),
            (tags::TELETEX_STRING, b"J\xfcrgen"),
            (tags::BMP_STRING, b"\0J\0\xfc\0r\0g\0e\0n"),
            (
                tags::UNIVERSAL_STRING,
                b"\0\0\0J\0\0\0\xfc\0\0\0r\0\0\0g\0\0\0e\0\0\0n",
            ),
        ] {
            let part = der(tags::SET, &[attribute(&[0x55, 4, 3], tag, bytes)]);
            let name = Subject::read(&part).and_then(|subject| subject.common_name());
            assert_eq!(name.as_deref(), Some("J\u{fc}rgen"), "{tag:#x}");
        }
        let plain = attribute(&[0x55, 4, 3], tags::IA5_STRING, b"guest");
        let part = der(tags::SET, &[plain]);
        assert_eq!(written(&[part]).as_deref(), Some("CN=guest"));
    }

    #[test]
    fn common_names_are_as_they_are() {
        let name = |parts: &[Vec<u8>]| Subject::read(&parts.concat())?.common_name();
        let parts = [one(3, "a,b"), one(10, "Example"), one(3, "c")];
        assert_eq!(name(&parts).as_deref(), Some("a,b,c"));
        assert_eq!(name(&[one(10, "Example")]), None);
    }

    #[test]
    fn long_names_are_read() {
        for length in [0x70, 0x7f, 0x80, 0xf0, 0x100, 0x1000] {
            let name = "x".repeat(length);
            assert_eq!(written(&[one(3, &name)]), Some(format!("CN={name}")));
        }
    }

    #[test]
    fn what_is_malformed_is_no_subject() {
        let good = one(3, "guest");
        for cut in 0..good.len() {
            assert!(Subject::read(&good[..cut]).is_none(), "{cut}");
        }
        let text = |tag, text: &[u8]| attribute(&[0x55, 4, 3], tag, text);
        let numbers = |kind: &[u8]| attribute(kind, tags::UTF8_STRING, b"x");
        for attribute in [
            text(tags::UTF8_STRING, b"\xff"),
            text(tags::BMP_STRING, b"\0a\0"),
            text(tags::BMP_STRING, b"\xd8\0"),
            text(tags::UNIVERSAL_STRING, b"\0\x11\0\0"),
            text(0x02, b"\x01"),
            numbers(b""),
            numbers(b"\x55\x84"),
            numbers(b"\x55\x04\x80\x03"),
            numbers(b"\x55\xff\xff\xff\xff\x7f"),
            Vec::new(),
        ] {
            assert!(Subject::read(&der(tags::SET, &[attribute])).is_none());
        }
        assert!(Subject::read(&[good, vec![0]].concat()).is_none());
    }
}
