//! The emitter of the properties of a content.
//!
//! Words of property flags precede the values of the properties that are present (section 4.2.6.1
//! of the specification). A word has 15 flags, the first property in its highest bit; its lowest
//! bit means that another word follows.

use super::{
    codec::{field_doc, setter, text_too_long},
    lines,
    names::snake,
    writer::Writer,
};
use crate::model::{Class, Field};

/// The number of properties per word of flags.
const PER_WORD: usize = 15;

pub(super) fn emit(w: &mut Writer, class: &Class) {
    let properties = &class.properties;
    w.item(format!(
        "/// The properties of a content of class `{}`. Each is `Some` if it is present, even if
        /// it is zero or empty.
        #[derive(Clone, Debug, Default, PartialEq)]
        pub struct Properties {{",
        class.name
    ));
    for (_, name, property) in stored(properties) {
        field_doc(w, property);
        let kind = property.kind.rust_type();
        w.lines(format!("pub {name}: Option<{kind}>,"));
    }
    w.lines("}");

    let zeros = vec!["0"; words(properties)].join(", ");
    w.item(format!(
        "impl Properties {{
            /// Returns whether no property is present.
            #[must_use]
            pub fn is_empty(&self) -> bool {{
                self.flags() == [{zeros}]
            }}"
    ));
    for (_, _, property) in stored(properties) {
        setter(w, property, Some("Some"));
    }
    readers(w, properties);
    present(w, properties);
    flags(w, properties);
    write(w, properties);
    w.lines("}");
    codec(w, properties);
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

/// Emits the list of the properties that are present.
fn present(w: &mut Writer, properties: &[Field]) {
    let pushes = lines(stored(properties), |(_, name, property)| {
        let (reference, copy) = if property.kind.is_copy() {
            ("", "value")
        } else {
            ("&", "value.clone()")
        };
        let shown = property.name.replace('-', "_");
        format!(
            "if let Some(value) = {reference}self.{name} {{
                present.push((\"{shown}\", FieldValue::from({copy})));
            }}"
        )
    });
    w.item(format!(
        "/// Returns the properties that are present, by the names of the specification and in its order, for
        /// programs that show messages. The values are copies.
        #[must_use]
        pub fn present(&self) -> Vec<(&'static str, FieldValue)> {{
            let mut present = Vec::new();
            {pushes}
            present
        }}"
    ));
}

fn flags(w: &mut Writer, properties: &[Field]) {
    let count = words(properties);
    let zeros = lines(0..count, |number| format!("let mut {} = 0;", word(number)));
    let bits = lines(stored(properties), |(place, name, _)| {
        let (word, bit) = flag(place);
        let shift = bit.trailing_zeros();
        format!("{word} |= u16::from(self.{name}.is_some()) << {shift};")
    });
    let words = all_words(properties);
    w.item(format!(
        "/// Returns the words of flags, without the bits that announce another word.
        fn flags(&self) -> [u16; {count}] {{
            {zeros}
            {bits}
            {words}
        }}"
    ));
}

/// Emits the encoding in one pass. The words of flags precede the values, and are known after them;
/// their number depends on the flags if there are several.
fn write(w: &mut Writer, properties: &[Field]) {
    let (before, after) = if words(properties) == 1 {
        (
            "let words = out.gap();\nlet mut flags = 0_u16;".to_owned(),
            "if let Some(words) = words {\n*words = flags.to_be_bytes();\n}".to_owned(),
        )
    } else {
        ("put_flags(out, &self.flags());".to_owned(), String::new())
    };
    let puts = lines(stored(properties), |(place, name, property)| {
        let reference = if property.kind.is_copy() { "" } else { "&" };
        let put = property.kind.put("value");
        let mark = if after.is_empty() {
            String::new()
        } else {
            format!("flags |= {:#06x};\n", flag(place).1)
        };
        format!("if let Some(value) = {reference}self.{name} {{\n{mark}{put}\n}}")
    });
    w.item(format!(
        "/// Encodes the properties in one pass.
        #[inline]
        pub(crate) fn write(&self, out: &mut Cursor<'_>) {{
            {before}
            {puts}
            {after}
        }}"
    ));
}

/// Emits `Encode` and `Decode`.
fn codec(w: &mut Writer, properties: &[Field]) {
    let sizes = lines(stored(properties), |(_, name, property)| {
        let (present, size) = match property.kind.size("value") {
            (size, None) => (format!("self.{name}.is_some()"), size.to_string()),
            (size, Some(variable)) => {
                let fixed = if size == 0 {
                    String::new()
                } else {
                    format!("{size} + ")
                };
                (format!("let Some(value) = &self.{name}"), fixed + &variable)
            }
        };
        format!("if {present} {{\nlen += {size};\n}}")
    });
    let puts = lines(stored(properties), |(_, name, property)| {
        let reference = if property.kind.is_copy() { "" } else { "&" };
        let put = property.kind.put("value");
        format!("if let Some(value) = {reference}self.{name} {{\n{put}\n}}")
    });
    let too_long = text_too_long(stored(properties).filter_map(|(_, name, property)| {
        let len = property.kind.longest_text("value")?;
        let len = format!("self.{name}.as_ref().map_or(0, |value| {len})");
        Some((property.name.clone(), len))
    }));
    // A value of this size is filled in place: moving its parts would take longer than decoding
    // them.
    let start = "let mut properties = Self::default();\n";
    let decode = reader(properties, start, "properties", |property| {
        if property.reserved {
            return skip(property);
        }
        let (name, reader) = (snake(&property.name), property.kind.reader());
        let value = property.kind.wrap("value");
        format!(
            "let (rest, value) = parse::{reader}(input)?;
            properties.{name} = Some({value});
            input = rest;"
        )
    });
    w.item(format!(
        "impl Encode for Properties {{
            #[inline]
            fn encoded_len(&self) -> usize {{
                let mut len = flags_len(&self.flags());
                {sizes}
                len
            }}

            #[inline]
            fn encode(&self, out: &mut BytesMut) {{
                put_flags(out, &self.flags());
                {puts}
            }}

            {too_long}
        }}

        impl Decode for Properties {{
            fn decode(input: &[u8]) -> Result<Self, DecodeError> {{
                {decode}
            }}
        }}"
    ));
}

/// Emits the functions that read encoded properties without keeping them.
fn readers(w: &mut Writer, properties: &[Field]) {
    let check = reader(properties, "", "()", skip);
    let visit = reader(properties, "", "()", |property| {
        let (name, skipper) = (&property.name, property.kind.skipper());
        format!(
            "let (rest, _) = parse::{skipper}(input)?;
            each(\"{name}\", parse::before(input, rest));
            input = rest;"
        )
    });
    w.item(format!(
        "/// Checks that `decode` would succeed, without keeping a value.
        pub fn check(input: &[u8]) -> Result<(), DecodeError> {{
            {check}
        }}

        /// Calls `each` with the name and the encoded value of each property that is present.
        pub(crate) fn visit<'a>(
            input: &'a [u8],
            mut each: impl FnMut(&'static str, &'a [u8]),
        ) -> Result<(), DecodeError> {{
            {visit}
        }}"
    ));
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

/// Returns the body of a function that decodes properties: `start`, the lines of `read` for each
/// property, then the result.
fn reader(
    properties: &[Field],
    start: &str,
    result: &str,
    read: impl Fn(&Field) -> String,
) -> String {
    let (words, known) = (all_words(properties), known(properties));
    let reads = lines(properties.iter().enumerate(), |(place, property)| {
        let ((word, bit), read) = (flag(place), read(property));
        format!("if {word} & {bit:#06x} != 0 {{\n{read}\n}}")
    });
    format!(
        "parse::all(input, |input| {{
            let (mut input, {words}) = parse_flags(input, {known})?;
            {start}{reads}
            Ok((input, {result}))
        }})"
    )
}

fn skip(property: &Field) -> String {
    format!("(input, _) = parse::{}(input)?;", property.kind.skipper())
}

/// The functions that all properties share.
pub(super) const HELPERS: &str = r"
/// Returns the number of words of flags on the wire: all up to the last with a flag, at least one.
fn flags_words<const N: usize>(flags: &[u16; N]) -> usize {
    let last = flags.iter().rposition(|word| *word != 0);
    last.map_or(1, |last| last + 1)
}

/// Returns the size of the words of flags on the wire, in bytes.
fn flags_len<const N: usize>(flags: &[u16; N]) -> usize {
    2 * flags_words(flags)
}

/// Encodes words of flags. The lowest bit of each announces another word.
fn put_flags<const N: usize>(out: &mut impl Sink, flags: &[u16; N]) {
    let words = flags_words(flags);
    for (word, number) in flags.iter().zip(1..=words) {
        put::short(out, word | u16::from(number < words));
    }
}

/// Decodes words of flags. Only known flags may be set; words without a flag may follow.
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
