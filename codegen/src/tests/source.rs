//! The generated source: bits, flags of properties, documentation, names.

use super::file;
use crate::generate_from;

/// Returns whether a source contains these consecutive lines, with any indentation.
fn has(source: &str, lines: &[&str]) -> bool {
    let source: Vec<&str> = source.lines().map(str::trim).collect();
    source.windows(lines.len()).any(|window| window == lines)
}

#[test]
fn bits_share_octets_until_something_else_comes() {
    let mut fields: String = (0..9)
        .map(|n| format!("<field name='b{n}' type='bit'/>"))
        .collect();
    fields.push_str("<field name='o' type='octet'/><field name='r' type='bit' reserved='1'/>");
    fields.push_str("<field name='last' type='bit'/>");
    let method = format!("<method name='m' index='1' sent-by='client'>{fields}</method>");
    let source = generate_from(&[&file(&format!(
        "<class name='c' index='1'>{method}</class>"
    ))])
    .unwrap();
    assert!(has(
        &source,
        &["bits |= u8::from(self.b7) << 7;", "put::octet(out, bits);"]
    ));
    assert!(has(
        &source,
        &[
            "put::octet(out, u8::from(self.b8));",
            "put::octet(out, self.o);",
            "put::octet(out, u8::from(self.last) << 1);",
            "}"
        ]
    ));
    assert!(has(
        &source,
        &[
            "let (input, bits) = parse::bits(input)?;",
            "let (input, bits_2) = parse::bits(input)?;",
            "let (input, o) = parse::octet(input)?;",
            "let (input, bits_3) = parse::bits(input)?;",
        ]
    ));
    assert!(has(
        &source,
        &["b8: bits_2 & 1 != 0,", "o,", "last: bits_3 & 2 != 0,"]
    ));
    assert!(has(
        &source,
        &["fn encoded_len(&self) -> usize {", "4", "}"]
    ));
}

#[test]
fn more_than_fifteen_properties_take_a_second_word_of_flags() {
    let fields: String = (0..16)
        .map(|n| format!("<field name='p{n}' type='octet'/>"))
        .collect();
    let source = generate_from(&[&file(&format!(
        "<class name='c' index='1'>{fields}</class>"
    ))])
    .unwrap();
    assert!(has(
        &source,
        &["flags |= u16::from(self.p14.is_some()) << 1;"]
    ));
    assert!(has(
        &source,
        &["flags_2 |= u16::from(self.p15.is_some()) << 15;"]
    ));
    assert!(has(&source, &["[flags, flags_2]", "}"]));
    assert!(source.contains("[flags, flags_2]) = parse_flags(input, [0xfffe, 0x8000])?;"));
    assert!(has(&source, &["if flags_2 & 0x8000 != 0 {"]));
}

/// Returns the documentation lines of a constant with this text.
fn documentation(text: &str) -> Vec<String> {
    let constant = format!("<constant name='c' value='1'><doc>{text}</doc></constant>");
    let source = generate_from(&[&file(&constant)]).unwrap();
    let lines = source.lines().skip_while(|line| !line.starts_with("///"));
    let lines = lines.take_while(|line| line.starts_with("///"));
    lines.map(str::to_owned).collect()
}

#[test]
fn documentation_is_plain_text_with_code() {
    assert_eq!(
        documentation("[a link], *stars*, &lt;tags&gt;, but `[code] &lt;x&gt;`; https://a.b/c_d."),
        [r"/// \[a link\], \*stars\*, \<tags\>, but `[code] <x>`; <https://a.b/c_d>."]
    );
    assert_eq!(documentation("a ` b"), [r"/// a \` b"]);
    assert_eq!(
        documentation("- a - b\n\n# c\n\n1. d 1."),
        [r"/// \- a - b", "///", r"/// \# c", "///", r"/// 1\. d 1."]
    );
}

#[test]
fn documentation_keeps_its_lines() {
    let documentation = documentation("  a `b` 1.\n 2. c \nd\n\n  - e");
    assert_eq!(
        documentation,
        ["/// a `b` 1.", r"/// 2\. c", "/// d", "///", r"/// \- e"]
    );
}

#[test]
fn rust_keywords_do_not_matter() {
    let source = generate_from(&[&file(
        "<class name='c' index='1'><method name='m' index='1' sent-by='client'>\
         <field name='type' type='octet'/><field name='match' type='octet'/></method></class>",
    )])
    .unwrap();
    assert!(has(&source, &["pub kind: u8,"]));
    assert!(has(&source, &["/// The specification calls it `type`."]));
    assert!(has(
        &source,
        &["pub fn r#match(mut self, r#match: u8) -> Self {"]
    ));
}
