//! The table of `PROMISES.md`: each promise stands where it is made, and its tests exist.

use amqp_tests::documents::{self, read};

const README: &str = "README.md";
const ARCHITECTURE: &str = "ARCHITECTURE.md";
const CLIENT: &str = "amqp-driver/src/lib.rs";

/// The most tests that one row names.
const TESTS_MAX: usize = 3;

/// A row of the table.
struct Row {
    /// Normalised.
    promise: String,
    /// As `path::function`.
    tests: Vec<String>,
}

/// A text without the marks of comments, links, code and emphasis, and with single spaces.
fn normal(text: &str) -> String {
    let lines = text.lines().map(str::trim_start);
    let plain: Vec<&str> = lines
        .map(|line| line.strip_prefix("//!").unwrap_or(line))
        .collect();
    let plain = plain.join(" ");
    let mut pieces = plain.split("](");
    let mut words = pieces.next().unwrap_or_default().to_owned();
    for piece in pieces {
        words.push_str(piece.split_once(')').map_or(piece, |(_, rest)| rest));
    }
    words.retain(|it| !"`*[]".contains(it));
    words.split_whitespace().collect::<Vec<_>>().join(" ")
}

fn rows() -> Vec<Row> {
    let table = read("tests/PROMISES.md");
    let rows = documents::rows(&table).into_iter();
    rows.filter_map(|cells| match cells.as_slice() {
        // The table has a part for each document, with a head of its own.
        ["promise", _] => None,
        [promise, tests] => Some(Row {
            promise: normal(promise),
            tests: documents::tests(tests),
        }),
        _ => panic!("not a row of two cells: {cells:?}"),
    })
    .collect()
}

/// The bullets of the section with that heading, each with its continuation.
fn bullets(name: &str, heading: &str, bullet: &str) -> Vec<String> {
    let text = read(name);
    let is_prose = |line: &&str| !name.ends_with(".rs") || line.starts_with("//!");
    let lines = text.lines().filter(is_prose);
    let lines = lines.map(|line| line.strip_prefix("//!").unwrap_or(line).trim());
    let section = lines.skip_while(|line| *line != heading).skip(1);
    let section: Vec<_> = section.take_while(|line| !line.starts_with('#')).collect();
    let section = format!("\n{}", section.join("\n"));
    section
        .split(&format!("\n{bullet}"))
        .skip(1)
        .map(normal)
        .collect()
}

fn assert_none(what: &str, missing: &[String]) {
    assert!(missing.is_empty(), "{what}:\n{}", missing.join("\n"));
}

#[test]
fn each_test_of_the_table_exists() {
    let tests = rows().into_iter().flat_map(|row| row.tests);
    let missing: Vec<_> = tests.filter(|test| !documents::has_test(test)).collect();
    assert_none("there are no such tests", &missing);
}

#[test]
fn each_row_names_one_to_three_tests() {
    let rows = rows();
    assert!(rows.len() > 50, "{} rows are read", rows.len());
    let mut wrong = rows.iter().filter(|row| row.tests.len() > TESTS_MAX);
    assert!(wrong.next().is_none());
}

#[test]
fn each_promise_of_the_table_is_made() {
    let texts = [README, ARCHITECTURE, CLIENT].map(|name| normal(&read(name)));
    let promises = rows().into_iter().map(|row| row.promise);
    let made = |promise: &String| texts.iter().any(|text| text.contains(promise));
    let missing: Vec<_> = promises.filter(|promise| !made(promise)).collect();
    assert_none("these promises are made nowhere", &missing);
}

#[test]
fn each_invariant_has_a_row() {
    let invariants = bullets(ARCHITECTURE, "## Invariants", "- ");
    let everywhere = bullets(CLIENT, "# What holds everywhere", "- **");
    assert!(invariants.len() > 5 && everywhere.len() > 5);
    let rows = rows();
    let has_row = |bullet: &String| rows.iter().any(|row| bullet.contains(&row.promise));
    let bullets = invariants.into_iter().chain(everywhere);
    let missing: Vec<_> = bullets.filter(|bullet| !has_row(bullet)).collect();
    assert_none("these have no test in the table", &missing);
}

/// The compiler sees to it that a crate without `std` has no clock, no threads and no I/O.
#[test]
fn the_core_is_no_std_and_has_no_unsafe_code() {
    let core = read("amqp-core/src/lib.rs");
    assert!(core.contains("\n#![no_std]\n#![forbid(unsafe_code)]\n"));
    let std = core.replace("#[cfg(test)]\nextern crate std;", "");
    assert!(!std.contains("extern crate std"));
}
