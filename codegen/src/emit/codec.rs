//! The storage, size, encoding and decoding of each kind of value.

use super::{
    lines,
    names::{snake, upper},
    writer::Writer,
};
use crate::model::{Field, Kind};

impl Kind {
    /// Returns the Rust type.
    pub(super) fn rust_type(self) -> &'static str {
        match self {
            Self::Bit => "bool",
            Self::Octet => "u8",
            Self::Short => "u16",
            Self::Long => "u32",
            Self::LongLong => "u64",
            Self::ShortStr | Self::Text => "ShortStr",
            Self::LongStr => "LongStr",
            Self::Timestamp => "Timestamp",
            Self::Table => "FieldTable",
            Self::Secret => "Secret",
            Self::ReplyCode => "ReplyCode",
        }
    }

    /// Returns whether the Rust type is `Copy`.
    pub(super) fn is_copy(self) -> bool {
        !matches!(
            self,
            Self::ShortStr | Self::Text | Self::LongStr | Self::Table | Self::Secret
        )
    }

    /// Returns the function of `wire::parse` that decodes the value.
    pub(super) fn reader(self) -> &'static str {
        match self {
            Self::Text => "text",
            _ => self.wire_name(),
        }
    }

    /// Returns the function of `wire::put` that encodes the value. The function of `wire::parse`
    /// has the same name, except for [`Kind::Text`].
    pub(super) fn wire_name(self) -> &'static str {
        match self {
            Self::Bit | Self::Octet => "octet",
            Self::Short | Self::ReplyCode => "short",
            Self::Long => "long",
            Self::LongLong => "longlong",
            Self::ShortStr | Self::Text => "short_str",
            Self::LongStr => "long_str",
            Self::Timestamp => "timestamp",
            Self::Table => "table",
            Self::Secret => "secret",
        }
    }

    /// Returns the function of `wire::parse` that checks the value and keeps as little of it as
    /// possible.
    pub(super) fn skipper(self) -> &'static str {
        match self {
            Self::ShortStr => "short_str_ref",
            Self::Text => "skip_text",
            Self::Table => "skip_table",
            _ => self.wire_name(),
        }
    }

    /// Returns the encoded size in bytes: the fixed part, and an expression for the variable part.
    pub(super) fn size(self, value: &str) -> (usize, Option<String>) {
        match self {
            Self::Bit | Self::Octet => (1, None),
            Self::Short | Self::ReplyCode => (2, None),
            Self::Long => (4, None),
            Self::LongLong | Self::Timestamp => (8, None),
            Self::ShortStr | Self::Text | Self::Table => {
                (0, Some(format!("{value}.encoded_len()")))
            }
            Self::LongStr => (4, Some(format!("{value}.len()"))),
            Self::Secret => (4, Some(format!("{value}.expose().len()"))),
        }
    }

    /// Returns an expression for the length of the longest short string in the value, in bytes.
    /// `Some` if the value may have any.
    pub(super) fn longest_text(self, value: &str) -> Option<String> {
        match self {
            Self::ShortStr | Self::Text => Some(format!("{value}.len()")),
            Self::Table => Some(format!("{value}.longest_name()")),
            _ => None,
        }
    }

    /// Returns the statement that encodes a value, which is an expression of the Rust type, or a
    /// reference to it if the type is not `Copy`.
    pub(super) fn put(self, value: &str) -> String {
        let inner = if self == Self::ReplyCode { ".0" } else { "" };
        format!("put::{}(out, {value}{inner});", self.wire_name())
    }

    /// Returns the statement that encodes a reserved field, as zero or empty.
    fn put_zero(self) -> &'static str {
        match self {
            Self::Bit | Self::Octet | Self::ShortStr | Self::Text => "put::octet(out, 0);",
            Self::Short | Self::ReplyCode => "put::short(out, 0);",
            Self::Long | Self::LongStr | Self::Secret | Self::Table => "put::long(out, 0);",
            Self::LongLong | Self::Timestamp => "put::longlong(out, 0);",
        }
    }

    /// Returns the encoded size of a reserved field, in bytes.
    fn zero_size(self) -> usize {
        match self {
            Self::Table => 4,
            Self::ShortStr | Self::Text => 1,
            _ => self.size("").0,
        }
    }

    /// Returns the expression that converts a decoded value into the Rust type.
    pub(super) fn wrap(self, value: &str) -> String {
        match self {
            Self::ReplyCode => format!("ReplyCode({value})"),
            _ => value.to_owned(),
        }
    }
}

/// A part of the encoded arguments.
enum Piece<'a> {
    /// A field other than a bit. It starts at an octet boundary.
    Field(&'a Field),
    /// Up to eight bits in one octet, the first in the lowest bit (section 4.2.5.2 of the
    /// specification).
    Bits(&'a [Field]),
}

/// Returns the parts of the arguments, in wire order.
fn pieces(fields: &[Field]) -> Vec<Piece<'_>> {
    let mut pieces = Vec::new();
    for run in fields.chunk_by(|a, b| a.kind == Kind::Bit && b.kind == Kind::Bit) {
        match run {
            [field] if field.kind != Kind::Bit => pieces.push(Piece::Field(field)),
            bits => pieces.extend(bits.chunks(8).map(Piece::Bits)),
        }
    }
    pieces
}

/// Returns the body of `encoded_len` for a method.
pub(super) fn measure(fields: &[Field]) -> String {
    let mut constant = 0;
    let mut terms = Vec::new();
    for piece in pieces(fields) {
        match piece {
            Piece::Bits(_) => constant += 1,
            Piece::Field(field) if field.reserved => constant += field.kind.zero_size(),
            Piece::Field(field) => {
                let (size, variable) = field.kind.size(&format!("self.{}", snake(&field.name)));
                constant += size;
                terms.extend(variable);
            }
        }
    }
    if constant > 0 || terms.is_empty() {
        terms.insert(0, constant.to_string());
    }
    terms.join(" + ")
}

/// Returns the body of `encode` for a method.
pub(super) fn encode(fields: &[Field]) -> String {
    lines(pieces(fields), |piece| match piece {
        Piece::Bits(bits) => encode_bits(bits),
        Piece::Field(field) if field.reserved => field.kind.put_zero().to_owned(),
        Piece::Field(field) => {
            let reference = if field.kind.is_copy() { "" } else { "&" };
            field
                .kind
                .put(&format!("{reference}self.{}", snake(&field.name)))
        }
    })
}

fn encode_bits(bits: &[Field]) -> String {
    let mut terms = bits
        .iter()
        .enumerate()
        .filter(|(_, bit)| !bit.reserved)
        .map(|(place, bit)| {
            let value = format!("u8::from(self.{})", snake(&bit.name));
            if place == 0 {
                value
            } else {
                format!("{value} << {place}")
            }
        });
    match (terms.next(), terms.next()) {
        (None, _) => Kind::Bit.put_zero().to_owned(),
        (Some(only), None) => Kind::Bit.put(&only),
        (Some(first), Some(second)) => {
            let further = lines(std::iter::once(second).chain(terms), |term| {
                format!("bits |= {term};")
            });
            let put = Kind::Bit.put("bits");
            format!("let mut bits = {first};\n{further}\n{put}")
        }
    }
}

/// Returns the body of `decode` for a method.
pub(super) fn decode(fields: &[Field]) -> String {
    if fields.is_empty() {
        return "parse::all(input, |input| Ok((input, Self)))".to_owned();
    }
    let mut values = Vec::new();
    let mut octets = 0;
    let statements = lines(pieces(fields), |piece| {
        let (name, reader) = match piece {
            Piece::Bits(bits) if bits.iter().all(|bit| bit.reserved) => ("_".to_owned(), "bits"),
            Piece::Bits(bits) => {
                octets += 1;
                let octet = match octets {
                    1 => "bits".to_owned(),
                    number => format!("bits_{number}"),
                };
                for (place, bit) in bits.iter().enumerate().filter(|(_, bit)| !bit.reserved) {
                    let (name, mask) = (snake(&bit.name), 1 << place);
                    values.push(format!("{name}: {octet} & {mask} != 0"));
                }
                (octet, "bits")
            }
            Piece::Field(field) if field.reserved => ("_".to_owned(), field.kind.skipper()),
            Piece::Field(field) => {
                let name = snake(&field.name);
                let value = field.kind.wrap(&name);
                values.push(if value == name {
                    value
                } else {
                    format!("{name}: {value}")
                });
                (name, field.kind.reader())
            }
        };
        format!("let (input, {name}) = parse::{reader}(input)?;")
    });
    let result = if values.is_empty() {
        "Ok((input, Self))".to_owned()
    } else {
        let values = lines(values, |value| format!("{value},"));
        format!("let method = Self {{\n{values}\n}};\nOk((input, method))")
    };
    format!("parse::all(input, |input| {{\n{statements}\n{result}\n}})")
}

/// Emits the builder method that sets a field. `wrap` is the constructor around the value, if the
/// field has one.
pub(super) fn setter(w: &mut Writer, field: &Field, wrap: Option<&str>) {
    let (name, kind) = (snake(&field.name), field.kind.rust_type());
    let wrapped = |value: String| match wrap {
        Some(wrap) => format!("{wrap}({value})"),
        None => value,
    };
    let (given, value) = if matches!(field.kind, Kind::ShortStr | Kind::Text) {
        let value = wrapped(format!("{name}.into_short_str()"));
        ("impl IntoShortStr".to_owned(), value)
    } else if field.kind.is_copy() {
        (kind.to_owned(), wrapped(name.clone()))
    } else {
        let value = wrapped(format!("{name}.into()"));
        (format!("impl Into<{kind}>"), value)
    };
    w.item(format!(
        "/// Sets `{name}`.
        #[must_use]
        pub fn {name}(mut self, {name}: {given}) -> Self {{
            self.{name} = {value};
            self
        }}"
    ));
}

/// Returns `text_too_long` of `Encode`, given the name and the length of each field with a text.
/// Empty if there is no such field.
pub(super) fn text_too_long(fields: impl Iterator<Item = (String, String)>) -> String {
    let fields = lines(fields, |(name, len)| format!("(\"{name}\", {len}),"));
    if fields.is_empty() {
        return fields;
    }
    format!(
        "#[cold]
        fn text_too_long(&self) -> Option<TextTooLong> {{
            TextTooLong::find([
                {fields}
            ])
        }}"
    )
}

/// Emits the documentation of a field.
pub(super) fn field_doc(w: &mut Writer, field: &Field) {
    let name = &field.name;
    let note = if snake(name) != name.replace('-', "_") {
        format!("The specification calls it `{name}`.")
    } else if field.doc.is_empty() {
        format!("The field `{name}`.")
    } else {
        String::new()
    };
    w.doc(&field.doc, &note);
}

/// Returns the name of the constant of a reply code, without the prefix `reply-`.
pub(super) fn reply_code(name: &str) -> String {
    upper(name.strip_prefix("reply-").unwrap_or(name))
}
