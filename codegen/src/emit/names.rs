//! Names of the specification in Rust spelling.

/// Converts `message-count` to the name of a field, argument or module: `message_count`.
///
/// `type`, a name of the specification and a keyword of Rust, becomes `kind`.
pub(super) fn snake(name: &str) -> String {
    match name {
        "type" => "kind".to_owned(),
        "as" | "async" | "await" | "box" | "break" | "const" | "continue" | "do" | "dyn"
        | "else" | "enum" | "extern" | "false" | "final" | "fn" | "for" | "gen" | "if" | "impl"
        | "in" | "let" | "loop" | "macro" | "match" | "mod" | "move" | "mut" | "pub" | "ref"
        | "return" | "static" | "struct" | "trait" | "true" | "try" | "typeof" | "unsafe"
        | "use" | "virtual" | "where" | "while" | "yield" => format!("r#{name}"),
        _ => name.replace('-', "_"),
    }
}

/// Converts `declare-ok` to the name of a type or variant: `DeclareOk`.
pub(super) fn camel(name: &str) -> String {
    let mut camel = String::with_capacity(name.len());
    for word in name.split('-') {
        let mut letters = word.chars();
        camel.extend(letters.next().map(|first| first.to_ascii_uppercase()));
        camel.push_str(letters.as_str());
    }
    camel
}

/// Converts `not-found` to the name of a constant: `NOT_FOUND`.
pub(super) fn upper(name: &str) -> String {
    name.to_ascii_uppercase().replace('-', "_")
}
