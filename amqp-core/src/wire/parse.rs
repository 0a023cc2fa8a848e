//! Parsers of the data types (section 4.2.5 of the specification). Each consumes one value at the
//! front of its input.
//!
//! Numbers, strings and their lengths are read without the parsers of nom, because the arguments of
//! every message consist of them; `ARCHITECTURE.md` has the measurement. Combinators of nom make
//! the other parsers from these, as those of tables.

use bytes::Bytes;
use nom::{
    Emit, Err, IResult, Mode as _, OutputM, OutputMode, PResult, Parser,
    combinator::{consumed, eof, map, map_res, recognize, success},
    multi::many_till,
    sequence::{pair, preceded},
};

use super::{
    Decimal, DecodeError, FieldArray, FieldTable, FieldValue, LongStr, MAX_TABLE_DEPTH, Secret,
    ShortStr, Timestamp,
};

/// The rest of the input, and the value.
pub(crate) type Parsed<'a, T> = IResult<&'a [u8], T, DecodeError>;

/// Runs a parser that must consume the whole input.
#[inline]
pub(crate) fn all<'a, T>(
    input: &'a [u8],
    parser: impl FnOnce(&'a [u8]) -> Parsed<'a, T>,
) -> Result<T, DecodeError> {
    match parser(input) {
        Ok(([], value)) => Ok(value),
        Ok((rest, _)) => Err(DecodeError::TrailingBytes { left: rest.len() }),
        Err(error) => Err(cause(error)),
    }
}

fn cause(error: Err<DecodeError>) -> DecodeError {
    match error {
        Err::Incomplete(_) => DecodeError::Truncated,
        Err::Error(error) | Err::Failure(error) => error,
    }
}

/// Turns `Truncated` into `LengthMismatch`: the bytes of the table are complete, so a length inside
/// it is wrong.
fn inside(error: Err<DecodeError>) -> Err<DecodeError> {
    let error = cause(error);
    Err::Error(if error == DecodeError::Truncated {
        DecodeError::LengthMismatch
    } else {
        error
    })
}

#[inline]
fn array<const N: usize>(input: &[u8]) -> Parsed<'_, [u8; N]> {
    match input.split_first_chunk() {
        Some((bytes, rest)) => Ok((rest, *bytes)),
        None => Err(Err::Error(DecodeError::Truncated)),
    }
}

/// Consumes `len` bytes, without a copy.
#[inline]
fn bytes(input: &[u8], len: usize) -> Parsed<'_, &[u8]> {
    match input.split_at_checked(len) {
        Some((bytes, rest)) => Ok((rest, bytes)),
        None => Err(Err::Error(DecodeError::Truncated)),
    }
}

/// Consumes a 32-bit length and that many bytes, without a copy.
#[inline]
fn long_bytes(input: &[u8]) -> Parsed<'_, &[u8]> {
    let (input, len) = long(input)?;
    // A length above `usize::MAX` exceeds any input.
    bytes(input, usize::try_from(len).unwrap_or(usize::MAX))
}

/// Consumes a length octet and that many bytes, without a copy.
#[inline]
pub(crate) fn short_bytes(input: &[u8]) -> Parsed<'_, &[u8]> {
    let (input, len) = octet(input)?;
    bytes(input, usize::from(len))
}

#[inline]
pub(crate) fn octet(input: &[u8]) -> Parsed<'_, u8> {
    let (rest, [octet]) = array(input)?;
    Ok((rest, octet))
}

/// Consumes an octet of up to eight consecutive bit arguments, the first in the lowest bit (section
/// 4.2.5.2 of the specification).
#[inline]
pub(crate) fn bits(input: &[u8]) -> Parsed<'_, u8> {
    octet(input)
}

#[inline]
pub(crate) fn short(input: &[u8]) -> Parsed<'_, u16> {
    let (rest, bytes) = array(input)?;
    Ok((rest, u16::from_be_bytes(bytes)))
}

#[inline]
pub(crate) fn long(input: &[u8]) -> Parsed<'_, u32> {
    let (rest, bytes) = array(input)?;
    Ok((rest, u32::from_be_bytes(bytes)))
}

#[inline]
pub(crate) fn longlong(input: &[u8]) -> Parsed<'_, u64> {
    let (rest, bytes) = array(input)?;
    Ok((rest, u64::from_be_bytes(bytes)))
}

#[inline]
pub(crate) fn short_str(input: &[u8]) -> Parsed<'_, ShortStr> {
    ShortStr::read(input).map_err(Err::Error)
}

/// Consumes a short string that need not be UTF-8, because RabbitMQ forwards it as the publisher
/// wrote it. Invalid UTF-8 is replaced: an error would close the consumer's connection, and close
/// it again with each redelivery.
#[inline]
pub(crate) fn text(input: &[u8]) -> Parsed<'_, ShortStr> {
    short_str(input).or_else(|_| lossy_text(input))
}

#[cold]
fn lossy_text(input: &[u8]) -> Parsed<'_, ShortStr> {
    let (rest, bytes) = short_bytes(input)?;
    Ok((rest, ShortStr::from_lossy(bytes)))
}

/// Like [`text`], but without keeping the text.
#[inline]
pub(crate) fn skip_text(input: &[u8]) -> Parsed<'_, ()> {
    map(short_bytes, drop).parse_complete(input)
}

/// Consumes a short string, without a copy.
#[inline]
pub(crate) fn short_str_ref(input: &[u8]) -> Parsed<'_, &str> {
    map_res(short_bytes, core::str::from_utf8).parse_complete(input)
}

pub(crate) fn long_str(input: &[u8]) -> Parsed<'_, LongStr> {
    map(long_bytes, LongStr::from).parse_complete(input)
}

pub(crate) fn secret(input: &[u8]) -> Parsed<'_, Secret> {
    map(long_bytes, Secret::from).parse_complete(input)
}

#[inline]
pub(crate) fn timestamp(input: &[u8]) -> Parsed<'_, Timestamp> {
    map(longlong, Timestamp).parse_complete(input)
}

pub(crate) fn table(input: &[u8]) -> Parsed<'_, FieldTable> {
    whole_table(input, fields(1))
}

/// Consumes a table without an allocation. Fails exactly if [`table`] fails.
pub(crate) fn skip_table(input: &[u8]) -> Parsed<'_, ()> {
    whole_table(input, map(recognize(fields(1)), drop))
}

/// Consumes a table that is in no other one. `fields` parses the bytes after its length.
fn whole_table<'a, T>(
    input: &'a [u8],
    mut fields: impl Parser<&'a [u8], Output = T, Error = DecodeError>,
) -> Parsed<'a, T> {
    let (rest, body) = long_bytes(input)?;
    let (_, table) = fields.parse_complete(body).map_err(inside)?;
    Ok((rest, table))
}

/// Returns the long string in the first field called `name` of a table. `Some` if there is such a
/// field and it is a long string. `table` is the whole table without its length. Copies nothing.
///
/// # Errors
/// If `table` is not a table.
pub(crate) fn bare_long_str<'a>(
    table: &'a [u8],
    name: &str,
) -> Result<Option<&'a [u8]>, DecodeError> {
    let mut first = None;
    let note = |(key, value): (&[u8], &'a [u8])| {
        if key == name.as_bytes() {
            first.get_or_insert(value);
        }
    };
    let field = map(pair(short_bytes, recognize(Value { depth: 1 })), note);
    all(table, |table| many_till(field, eof).parse_complete(table))?;
    match first {
        Some([b'S', text @ ..]) => all(text, long_bytes).map(Some),
        Some(_) | None => Ok(None),
    }
}

/// Calls `each` with the name and the encoded bytes of each field of a table, which is the whole
/// input.
pub(crate) fn visit_table<'a>(
    table: &'a [u8],
    mut each: impl FnMut(&'a [u8], &'a [u8]),
) -> Result<(), DecodeError> {
    let field = consumed(pair(short_bytes, recognize(Value { depth: 1 })));
    let field = map(field, |(field, (name, _))| each(name, field));
    all(all(table, long_bytes)?, |fields| {
        map(many_till(field, eof), drop).parse_complete(fields)
    })
}

/// Returns the part of `input` before its suffix `end`.
#[inline]
pub(crate) fn before<'a>(input: &'a [u8], end: &[u8]) -> &'a [u8] {
    let len = input.len().saturating_sub(end.len());
    input.get(..len).unwrap_or_default()
}

/// Returns the parser of the fields of a table at nesting depth `depth`.
fn fields<'a>(depth: usize) -> impl Parser<&'a [u8], Output = FieldTable, Error = DecodeError> {
    let fields = many_till(pair(Name, Value { depth }), eof);
    map(preceded(at_depth(depth), fields), |(fields, _)| {
        fields.into_iter().collect()
    })
}

/// Returns the parser of the elements of an array at nesting depth `depth`.
fn elements<'a>(depth: usize) -> impl Parser<&'a [u8], Output = FieldArray, Error = DecodeError> {
    let elements = many_till(Value { depth }, eof);
    map(preceded(at_depth(depth), elements), |(elements, _)| {
        elements.into_iter().collect()
    })
}

/// Returns a parser that consumes nothing and fails beyond the maximum nesting depth, which bounds
/// the recursion.
fn at_depth<'a>(depth: usize) -> impl FnMut(&'a [u8]) -> Parsed<'a, ()> {
    move |input| {
        if depth > MAX_TABLE_DEPTH {
            return Err(Err::Error(DecodeError::TableTooDeep));
        }
        Ok((input, ()))
    }
}

/// Returns the parser of a number of `N` bytes.
fn number<'a, const N: usize, T>(
    from_bytes: impl Fn([u8; N]) -> T,
    value: impl Fn(T) -> FieldValue,
) -> impl Parser<&'a [u8], Output = FieldValue, Error = DecodeError> {
    map(array, move |bytes| value(from_bytes(bytes)))
}

/// The parser of the name of a field: [`text`], or [`skip_text`] if only [`recognize`]d.
struct Name;

impl<'a> Parser<&'a [u8]> for Name {
    type Output = ShortStr;
    type Error = DecodeError;

    #[inline]
    fn process<OM: OutputMode>(
        &mut self,
        input: &'a [u8],
    ) -> PResult<OM, &'a [u8], ShortStr, DecodeError> {
        let (rest, bytes) =
            short_bytes.process::<OutputM<Emit, OM::Error, OM::Incomplete>>(input)?;
        let name = OM::Output::bind(|| match ShortStr::read(input) {
            Ok((_, name)) => name,
            Err(_) => ShortStr::from_lossy(bytes),
        });
        Ok((rest, name))
    }
}

/// The parser of a tag and a value, in a table or array at nesting depth `depth`.
///
/// Within [`recognize`] it accepts the same input, and makes no value.
struct Value {
    depth: usize,
}

impl<'a> Parser<&'a [u8]> for Value {
    type Output = FieldValue;
    type Error = DecodeError;

    fn process<OM: OutputMode>(
        &mut self,
        input: &'a [u8],
    ) -> PResult<OM, &'a [u8], FieldValue, DecodeError> {
        let (input, tag) = octet.process::<OutputM<Emit, OM::Error, OM::Incomplete>>(input)?;
        let depth = self.depth + 1;
        match tag {
            b'A' => {
                map(long_bytes.and_then(elements(depth)), FieldValue::Array).process::<OM>(input)
            }
            b'F' => map(long_bytes.and_then(fields(depth)), FieldValue::Table).process::<OM>(input),
            plain => (Plain { tag: plain }).process::<OM>(input),
        }
    }
}

/// The parser of a value with that tag that is no container. Apart from [`Value`], which needs less
/// stack without it.
struct Plain {
    tag: u8,
}

impl<'a> Parser<&'a [u8]> for Plain {
    type Output = FieldValue;
    type Error = DecodeError;

    #[inline]
    fn process<OM: OutputMode>(
        &mut self,
        input: &'a [u8],
    ) -> PResult<OM, &'a [u8], FieldValue, DecodeError> {
        match self.tag {
            b't' => map(octet, |octet| FieldValue::Bool(octet != 0)).process::<OM>(input),
            b'b' => number(i8::from_be_bytes, FieldValue::I8).process::<OM>(input),
            b'B' => map(octet, FieldValue::U8).process::<OM>(input),
            b's' => number(i16::from_be_bytes, FieldValue::I16).process::<OM>(input),
            b'u' => map(short, FieldValue::U16).process::<OM>(input),
            b'I' => number(i32::from_be_bytes, FieldValue::I32).process::<OM>(input),
            b'i' => map(long, FieldValue::U32).process::<OM>(input),
            b'l' => number(i64::from_be_bytes, FieldValue::I64).process::<OM>(input),
            b'L' => number(i64::from_be_bytes, FieldValue::I64Alias).process::<OM>(input),
            b'f' => number(f32::from_be_bytes, FieldValue::F32).process::<OM>(input),
            b'd' => number(f64::from_be_bytes, FieldValue::F64).process::<OM>(input),
            b'D' => map(pair(octet, long), |(scale, value)| {
                FieldValue::Decimal(Decimal { scale, value })
            })
            .process::<OM>(input),
            b'S' => map(long_bytes, |text| FieldValue::LongStr(text.into())).process::<OM>(input),
            b'T' => map(timestamp, FieldValue::Timestamp).process::<OM>(input),
            b'x' => map(long_bytes, |bytes| {
                FieldValue::Bytes(Bytes::copy_from_slice(bytes))
            })
            .process::<OM>(input),
            b'V' => success(FieldValue::Void).process::<OM>(input),
            unknown => Err(Err::Error(OM::Error::bind(|| {
                DecodeError::UnknownFieldType(unknown)
            }))),
        }
    }
}
