//! Names of the specification as Rust spells them.

/// `message-count` as a field, argument or module: `message_count`.
///
/// `type`, which the specification uses and Rust reserves, becomes `kind`.
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

/// `declare-ok` as a type or variant: `DeclareOk`.
pub(super) fn camel(name: &str) -> String {
    let mut camel = String::with_capacity(name.len());
    for word in name.split('-') {
        let mut letters = word.chars();
        camel.extend(letters.next().map(|first| first.to_ascii_uppercase()));
        camel.push_str(letters.as_str());
    }
    camel
}

/// `not-found` as a constant: `NOT_FOUND`.
pub(super) fn upper(name: &str) -> String {
    name.to_ascii_uppercase().replace('-', "_")
}
