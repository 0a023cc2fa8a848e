//! The storage, size, encoding and decoding of each kind of value.

use super::{
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
            Self::ShortStr | Self::Text => (1, Some(format!("{value}.len()"))),
            Self::LongStr => (4, Some(format!("{value}.len()"))),
            Self::Secret => (4, Some(format!("{value}.expose().len()"))),
            Self::Table => (0, Some(format!("{value}.encoded_len()"))),
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

    /// Returns the expression of an arbitrary value, for tests.
    pub(super) fn sample(self) -> String {
        let name = if self == Self::Bit {
            "bit"
        } else {
            self.wire_name()
        };
        self.wrap(&format!("sampler.{name}()"))
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

/// Emits the body of `encoded_len` for a method.
pub(super) fn measure(w: &mut Writer, fields: &[Field]) {
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
    w.sum(&terms);
}

/// Emits the body of `encode` for a method.
pub(super) fn encode(w: &mut Writer, fields: &[Field]) {
    for piece in pieces(fields) {
        match piece {
            Piece::Bits(bits) => encode_bits(w, bits),
            Piece::Field(field) if field.reserved => w.line(field.kind.put_zero()),
            Piece::Field(field) => {
                let reference = if field.kind.is_copy() { "" } else { "&" };
                w.line(
                    field
                        .kind
                        .put(&format!("{reference}self.{}", snake(&field.name))),
                );
            }
        }
    }
}

fn encode_bits(w: &mut Writer, bits: &[Field]) {
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
        (None, _) => w.line(Kind::Bit.put_zero()),
        (Some(only), None) => w.line(Kind::Bit.put(&only)),
        (Some(first), Some(second)) => {
            w.line(format!("let mut bits = {first};"));
            for term in std::iter::once(second).chain(terms) {
                w.line(format!("bits |= {term};"));
            }
            w.line(Kind::Bit.put("bits"));
        }
    }
}

/// Emits the body of `decode` for a method.
pub(super) fn decode(w: &mut Writer, fields: &[Field]) {
    if fields.is_empty() {
        w.line("parse::all(input, |input| Ok((input, Self)))");
        return;
    }
    w.enclosed("parse::all(input, |input| {", "})", |w| {
        let mut values = Vec::new();
        let mut octets = 0;
        for piece in pieces(fields) {
            match piece {
                Piece::Bits(bits) if bits.iter().all(|bit| bit.reserved) => {
                    w.line("let (input, _) = parse::bits(input)?;");
                }
                Piece::Bits(bits) => {
                    octets += 1;
                    let octet = if octets == 1 {
                        "bits".to_owned()
                    } else {
                        format!("bits_{octets}")
                    };
                    w.line(format!("let (input, {octet}) = parse::bits(input)?;"));
                    for (place, bit) in bits.iter().enumerate().filter(|(_, bit)| !bit.reserved) {
                        values.push(format!(
                            "{}: {octet} & {} != 0",
                            snake(&bit.name),
                            1 << place
                        ));
                    }
                }
                Piece::Field(field) if field.reserved => {
                    w.line(format!(
                        "let (input, _) = parse::{}(input)?;",
                        field.kind.skipper()
                    ));
                }
                Piece::Field(field) => {
                    let (name, reader) = (snake(&field.name), field.kind.reader());
                    w.assign(
                        &format!("let (input, {name})"),
                        &format!("parse::{reader}(input)?"),
                    );
                    let value = field.kind.wrap(&name);
                    values.push(if value == name {
                        name
                    } else {
                        format!("{name}: {value}")
                    });
                }
            }
        }
        if values.is_empty() {
            w.line("Ok((input, Self))");
        } else {
            w.literal("let method = Self", &values, ";");
            w.line("Ok((input, method))");
        }
    });
}

/// Emits the builder method that sets a field. `wrap` is the constructor around the value, if the
/// field has one.
pub(super) fn setter(w: &mut Writer, field: &Field, wrap: Option<&str>) {
    let name = snake(&field.name);
    let store = |w: &mut Writer, value: String| {
        let value = wrap.map_or_else(|| value.clone(), |wrap| format!("{wrap}({value})"));
        w.assign(&format!("self.{name}"), &value);
    };
    w.gap();
    if matches!(field.kind, Kind::ShortStr | Kind::Text) {
        w.note(&format!(
            "Sets `{name}`, unless it is longer than {} bytes.",
            u8::MAX
        ));
        w.bounded_function(
            (
                &format!("pub fn {name}<S>"),
                &["mut self", &format!("{name}: S")],
                " -> Result<Self, ShortStrError>",
            ),
            &["S: TryInto<ShortStr>", "ShortStrError: From<S::Error>"],
            |w| {
                store(w, format!("{name}.try_into()?"));
                w.line("Ok(self)");
            },
        );
        return;
    }
    let (given, value) = if field.kind.is_copy() {
        (field.kind.rust_type().to_owned(), name.clone())
    } else {
        (
            format!("impl Into<{}>", field.kind.rust_type()),
            format!("{name}.into()"),
        )
    };
    w.note(&format!("Sets `{name}`."));
    w.line("#[must_use]");
    w.function(
        (
            &format!("pub fn {name}"),
            &["mut self", &format!("{name}: {given}")],
            " -> Self",
        ),
        |w| {
            store(w, value);
            w.line("self");
        },
    );
}

/// Emits the documentation of a field.
pub(super) fn field_doc(w: &mut Writer, field: &Field) {
    w.doc(&field.doc);
    if snake(&field.name) != field.name.replace('-', "_") {
        if !field.doc.is_empty() {
            w.line("///");
        }
        w.note(&format!("The specification calls it `{}`.", field.name));
    } else if field.doc.is_empty() {
        w.note(&format!("The field `{}`.", field.name));
    }
}

/// Returns the name of the constant of a reply code, without the prefix `reply-`.
pub(super) fn reply_code(name: &str) -> String {
    upper(name.strip_prefix("reply-").unwrap_or(name))
}
