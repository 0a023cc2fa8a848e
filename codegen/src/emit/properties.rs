//! The emitter of the properties of a content.
//!
//! Words of property flags precede the values of the properties that are present (section 4.2.6.1
//! of the specification). A word has 15 flags, the first property in its highest bit; its lowest
//! bit means that another word follows.

use super::{
    codec::{field_doc, setter},
    names::snake,
    writer::Writer,
};
use crate::model::{Class, Field};

/// The number of properties per word of flags.
const PER_WORD: usize = 15;

pub(super) fn emit(w: &mut Writer, class: &Class) {
    let properties = &class.properties;
    let stored = || properties.iter().filter(|property| !property.reserved);

    w.gap();
    w.note(&format!(
        "The properties of a content of class `{}`: each is there, be it zero or empty, or absent.",
        class.name
    ));
    w.line("#[derive(Clone, Debug, Default, PartialEq)]");
    w.block("pub struct Properties", |w| {
        for property in stored() {
            field_doc(w, property);
            let (name, kind) = (snake(&property.name), property.kind.rust_type());
            w.line(format!("pub {name}: Option<{kind}>,"));
        }
    });

    w.gap();
    w.block("impl Properties", |w| {
        w.note("Whether no property is there.");
        w.line("#[must_use]");
        w.block("pub fn is_empty(&self) -> bool", |w| {
            let zeros = vec!["0"; words(properties)].join(", ");
            w.line(format!("self.flags() == [{zeros}]"));
        });
        for property in stored() {
            setter(w, property, Some("Some"));
        }
        check(w, properties);
        visit(w, properties);
        flags(w, properties);
    });

    w.gap();
    w.block("impl Encode for Properties", |w| {
        measure(w, properties);
        encode(w, properties);
    });

    w.gap();
    w.block("impl Decode for Properties", |w| decode(w, properties));

    w.gap();
    w.note("Properties for tests, all of them filled by the test's sampler.");
    w.line("#[cfg(test)]");
    w.function(
        (
            "pub(crate) fn sample_properties",
            &["sampler: &mut impl crate::tests::sampler::Sample"],
            " -> Properties",
        ),
        |w| {
            let values: Vec<String> = stored()
                .map(|it| format!("{}: Some({})", snake(&it.name), it.kind.sample()))
                .collect();
            w.literal("Properties", &values, "");
        },
    );
}

/// Returns the number of words of flags.
fn words(properties: &[Field]) -> usize {
    properties.len().div_ceil(PER_WORD)
}

/// Returns the variable of the word, and the bit in it, of the property at this index.
fn flag(place: usize) -> (String, u16) {
    (word(place / PER_WORD), 0x8000 >> (place % PER_WORD))
}

fn word(number: usize) -> String {
    if number == 0 {
        "flags".to_owned()
    } else {
        format!("flags_{}", number + 1)
    }
}

/// Returns the variables of all words, as a pattern or an array.
fn all_words(properties: &[Field]) -> String {
    let words: Vec<String> = (0..words(properties)).map(word).collect();
    format!("[{}]", words.join(", "))
}

/// Returns the properties that are not reserved, each with its index and its Rust name.
fn stored(properties: &[Field]) -> impl Iterator<Item = (usize, String, &Field)> {
    properties
        .iter()
        .enumerate()
        .filter(|(_, property)| !property.reserved)
        .map(|(place, property)| (place, snake(&property.name), property))
}

fn flags(w: &mut Writer, properties: &[Field]) {
    w.gap();
    w.note("The words of flags, without the bits that say whether another word follows.");
    w.block(
        format!("fn flags(&self) -> [u16; {}]", words(properties)),
        |w| {
            for number in 0..words(properties) {
                w.line(format!("let mut {} = 0;", word(number)));
            }
            for (place, name, _) in stored(properties) {
                let (word, bit) = flag(place);
                let shift = bit.trailing_zeros();
                w.line(format!(
                    "{word} |= u16::from(self.{name}.is_some()) << {shift};"
                ));
            }
            w.line(all_words(properties));
        },
    );
}

fn measure(w: &mut Writer, properties: &[Field]) {
    w.line("#[inline]");
    w.block("fn encoded_len(&self) -> usize", |w| {
        w.line("let mut len = flags_len(&self.flags());");
        for (_, name, property) in stored(properties) {
            match property.kind.size("value") {
                (size, None) => {
                    w.block(format!("if self.{name}.is_some()"), |w| {
                        w.line(format!("len += {size};"));
                    });
                }
                (size, Some(variable)) => {
                    w.block(format!("if let Some(value) = &self.{name}"), |w| {
                        w.line(if size == 0 {
                            format!("len += {variable};")
                        } else {
                            format!("len += {size} + {variable};")
                        });
                    });
                }
            }
        }
        w.line("len");
    });
}

fn encode(w: &mut Writer, properties: &[Field]) {
    w.gap();
    w.line("#[inline]");
    w.block("fn encode(&self, out: &mut BytesMut)", |w| {
        w.line("put_flags(out, &self.flags());");
        for (_, name, property) in stored(properties) {
            let reference = if property.kind.is_copy() { "" } else { "&" };
            w.block(
                format!("if let Some(value) = {reference}self.{name}"),
                |w| {
                    w.line(property.kind.put("value"));
                },
            );
        }
    });
}

/// Returns the bits of each word that belong to a property.
fn known(properties: &[Field]) -> String {
    let mut known = vec![0; words(properties)];
    for place in 0..properties.len() {
        known[place / PER_WORD] |= flag(place).1;
    }
    let known: Vec<String> = known.iter().map(|bits| format!("{bits:#06x}")).collect();
    format!("[{}]", known.join(", "))
}

/// Emits the body of a function that decodes properties: the lines of `start`, the lines of `read`
/// for each property, then the result.
fn reader(
    w: &mut Writer,
    properties: &[Field],
    start: &[&str],
    read: impl Fn(&mut Writer, &Field),
    result: &str,
) {
    w.enclosed("parse::all(input, |input| {", "})", |w| {
        let (words, known) = (all_words(properties), known(properties));
        w.assign(
            &format!("let (mut input, {words})"),
            &format!("parse_flags(input, {known})?"),
        );
        for line in start {
            w.line(line);
        }
        for (place, property) in properties.iter().enumerate() {
            let (word, bit) = flag(place);
            w.block(format!("if {word} & {bit:#06x} != 0"), |w| {
                read(w, property)
            });
        }
        w.line(format!("Ok((input, {result}))"));
    });
}

fn decode(w: &mut Writer, properties: &[Field]) {
    w.block(
        "fn decode(input: &[u8]) -> Result<Self, DecodeError>",
        |w| {
            // A value of this size is filled in place: moving its parts would take longer than
            // decoding them.
            let start = ["let mut properties = Self::default();"];
            let read = |w: &mut Writer, property: &Field| {
                if property.reserved {
                    return skip(w, property);
                }
                w.line(format!(
                    "let (rest, value) = parse::{}(input)?;",
                    property.kind.reader()
                ));
                let value = format!("Some({})", property.kind.wrap("value"));
                w.assign(&format!("properties.{}", snake(&property.name)), &value);
                w.line("input = rest;");
            };
            reader(w, properties, &start, read, "properties");
        },
    );
}

fn check(w: &mut Writer, properties: &[Field]) {
    w.gap();
    w.note("Whether `decode` would succeed, found out without keeping anything.");
    w.block(
        "pub fn check(input: &[u8]) -> Result<(), DecodeError>",
        |w| {
            reader(w, properties, &[], skip, "()");
        },
    );
}

fn visit(w: &mut Writer, properties: &[Field]) {
    w.gap();
    w.note("Calls `each` with the name and the wire form of every property that is set.");
    w.function(
        (
            "pub(crate) fn visit<'a>",
            &[
                "input: &'a [u8]",
                "mut each: impl FnMut(&'static str, &'a [u8])",
            ],
            " -> Result<(), DecodeError>",
        ),
        |w| {
            let read = |w: &mut Writer, property: &Field| {
                w.line(format!(
                    "let (rest, _) = parse::{}(input)?;",
                    property.kind.skipper()
                ));
                let name = &property.name;
                w.line(format!("each(\"{name}\", parse::before(input, rest));"));
                w.line("input = rest;");
            };
            reader(w, properties, &[], read, "()");
        },
    );
}

fn skip(w: &mut Writer, property: &Field) {
    w.line(format!(
        "(input, _) = parse::{}(input)?;",
        property.kind.skipper()
    ));
}

/// Emits the functions that all properties share.
pub(super) fn emit_helpers(w: &mut Writer) {
    w.gap();
    for line in HELPERS.trim_ascii().lines() {
        w.line(line);
    }
}

const HELPERS: &str = r"
/// How many words of flags are written: all up to the last that has one, but at least one.
fn flags_words<const N: usize>(flags: &[u16; N]) -> usize {
    let last = flags.iter().rposition(|word| *word != 0);
    last.map_or(1, |last| last + 1)
}

/// How many bytes those are.
fn flags_len<const N: usize>(flags: &[u16; N]) -> usize {
    2 * flags_words(flags)
}

/// Writes words of flags; the lowest bit of each says whether another follows.
fn put_flags<const N: usize>(out: &mut BytesMut, flags: &[u16; N]) {
    let words = flags_words(flags);
    for (word, number) in flags.iter().zip(1..=words) {
        put::short(out, word | u16::from(number < words));
    }
}

/// Reads words of flags. Only the known flags may be set, but more words than needed may be there.
fn parse_flags<const N: usize>(mut input: &[u8], known: [u16; N]) -> parse::Parsed<'_, [u16; N]> {
    let mut flags = [0; N];
    let mut slots = flags.iter_mut().zip(known);
    loop {
        let (rest, word) = parse::short(input)?;
        input = rest;
        let (more, word) = (word & 1 != 0, word & !1);
        let known = match slots.next() {
            Some((slot, known)) => {
                *slot = word;
                known
            }
            None => 0,
        };
        if word & !known != 0 {
            return Err(nom::Err::Error(DecodeError::UnknownProperty));
        }
        if !more {
            return Ok((input, flags));
        }
    }
}
";
