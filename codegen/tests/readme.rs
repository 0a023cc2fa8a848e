//! The page of XML beside its Rust: each piece is in the specification, or in the generated source.

use std::fs;

const README: &str = include_str!("../README.md");
const HEADING: &str = "\n## A method as XML and as Rust\n";
const GOLDEN: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/protocol.rs");
const SPEC: &str = include_str!(concat!(env!("AMQP_SPEC"), "/amqp0-9-1.xml"));

#[test]
fn pieces_of_xml_are_in_the_specification() {
    let pieces = pieces("xml");
    assert!(!pieces.is_empty());
    for piece in pieces {
        assert!(contains(SPEC, piece), "not in the specification:\n{piece}");
    }
}

#[test]
fn pieces_of_rust_are_in_the_generated_source() {
    // Read here: the test target `golden` may have written it after this one was built.
    let golden = fs::read_to_string(GOLDEN).unwrap();
    let pieces = pieces("rust");
    assert!(!pieces.is_empty());
    for piece in pieces {
        assert!(contains(&golden, piece), "not in {GOLDEN}:\n{piece}");
    }
}

/// Returns the code blocks of the section in a language.
fn pieces(language: &str) -> Vec<&'static str> {
    let (_, section) = README.split_once(HEADING).expect("the section");
    let section = section.split("\n## ").next().unwrap_or_default();
    let blocks = section.split("```").skip(1).step_by(2);
    blocks
        .filter_map(|block| block.strip_prefix(language)?.strip_prefix('\n'))
        .collect()
}

/// Returns whether a text contains the lines of a piece, with any indentation.
fn contains(text: &str, piece: &str) -> bool {
    let [text, piece] = [text, piece].map(|it| it.lines().map(str::trim).collect::<Vec<_>>());
    text.windows(piece.len()).any(|window| window == piece)
}
