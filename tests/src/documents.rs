//! The documents of the repository, and the tests that their tables name.

use std::{fs, path::PathBuf};

fn path(name: &str) -> PathBuf {
    [env!("CARGO_MANIFEST_DIR"), "..", name].iter().collect()
}

/// Reads a file of the repository, by its path from the root.
///
/// # Panics
/// When the file cannot be read.
#[must_use]
pub fn read(name: &str) -> String {
    fs::read_to_string(path(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// The cells of each row of a table in Markdown, without its head.
#[must_use]
pub fn rows(text: &str) -> Vec<Vec<&str>> {
    let rows = text
        .lines()
        .filter_map(|line| line.strip_prefix("| ")?.strip_suffix(" |"));
    rows.skip(1).map(|row| row.split(" | ").collect()).collect()
}

/// The tests that a cell names, each as `path::function`.
#[must_use]
pub fn tests(cell: &str) -> Vec<String> {
    cell.split(", ")
        .map(|test| test.trim_matches('`').to_owned())
        .collect()
}

/// Whether a test that is named as `path::function` exists.
#[must_use]
pub fn has_test(test: &str) -> bool {
    let Some((file, function)) = test.split_once("::") else {
        return false;
    };
    let Ok(source) = fs::read_to_string(path(file)) else {
        return false;
    };
    // A scenario may be generic over the runtimes that it runs on.
    ["(", "<"]
        .iter()
        .any(|next| source.contains(&format!("fn {function}{next}")))
}
