//! The generated source, compared with a copy that is kept in the repository, so that each change
//! of it can be read.
//!
//! The copy is laid out by rustfmt, which is needed only to write it: the comparison leaves the
//! layout out.

use std::{error::Error, fmt::Write as _, fs, process::Command};

const FOLDER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden");
const REFRESH: &str = "UPDATE_GOLDEN=1 cargo test -p amqp-codegen --test golden";

#[test]
fn golden_copy_is_fresh() -> Result<(), Box<dyn Error>> {
    is_fresh("protocol.rs", &amqp_codegen::generate()?)
}

#[test]
fn golden_copy_of_the_strategies_is_fresh() -> Result<(), Box<dyn Error>> {
    is_fresh("strategies.rs", &amqp_codegen::generate_strategies()?)
}

/// Compares a file with its generated source; writes it first if that is asked for.
fn is_fresh(file: &str, generated: &str) -> Result<(), Box<dyn Error>> {
    let path = format!("{FOLDER}/{file}");
    if std::env::var_os("UPDATE_GOLDEN").is_some_and(|value| value == "1") {
        fs::write(&path, generated)?;
        format_golden(&path)?;
    }
    let golden = fs::read_to_string(&path)?;
    if let Some(difference) = difference(&golden, generated) {
        panic!("{path} is not what is generated, {difference}\nTo refresh it: {REFRESH}");
    }
    Ok(())
}

/// Formats the copy, with the `rustfmt.toml` of the workspace.
fn format_golden(path: &str) -> Result<(), String> {
    let status = Command::new("rustfmt")
        .args(["--edition", "2024", path])
        .status()
        .map_err(|error| {
            format!(
                "{path} is written, but not formatted: rustfmt cannot be started ({error}); \
                 `rustup component add rustfmt` installs it"
            )
        })?;
    if !status.success() {
        return Err(format!("{path} is written, but not formatted: {status}"));
    }
    Ok(())
}

#[test]
fn generating_again_gives_the_same() -> Result<(), Box<dyn Error>> {
    assert_eq!(amqp_codegen::generate()?, amqp_codegen::generate()?);
    let (first, second) = [(); 2].map(|()| amqp_codegen::generate_strategies()).into();
    assert_eq!(first?, second?);
    Ok(())
}

#[test]
fn everything_but_the_layout_is_compared() {
    let plain = "/// A, b.\nfn f(a: u8) -> u8 { match a { 1 => 2, _ => g(\"{} b\", 3) } }";
    let formatted = "/// A, b.\nfn f(\n    a: u8,\n) -> u8 {\n    match a {\n        1 => 2,\n\
                     _ => {\n            g(\"{} b\", 3)\n        }\n    }\n}\n";
    assert_eq!(difference(plain, formatted), None);
    for (from, to) in [("A, b", "A b"), ("{} b", "{}b"), ("1 =>", "2 =>")] {
        let other = formatted.replace(from, to);
        assert!(difference(plain, &other).is_some(), "{from} for {to}");
    }
    assert!(difference(plain, &(formatted.to_owned() + "x")).is_some());
}

/// The lines where two sources begin to differ in more than the layout; `Some` if they do.
fn difference(golden: &str, generated: &str) -> Option<String> {
    let (left, right) = (significant(golden), significant(generated));
    let pairs = left.iter().zip(&right);
    let same = pairs.take_while(|(left, right)| left.1 == right.1).count();
    if same == left.len().max(right.len()) {
        return None;
    }
    let mut report = "in these lines:".to_owned();
    for (sign, text, characters) in [('-', golden, left), ('+', generated, right)] {
        let first = characters.get(same).map_or(usize::MAX, |(line, _)| *line);
        for (number, line) in text.lines().enumerate().skip(first).take(5) {
            let _ = write!(report, "\n{sign} {:5} {line}", number + 1);
        }
    }
    Some(report)
}

/// The characters of a source, each with the index of its line, except for those that rustfmt adds
/// and removes: white space, commas and braces. Comments and strings are complete.
fn significant(source: &str) -> Vec<(usize, char)> {
    let mut all = Vec::new();
    for (number, line) in source.lines().map(str::trim).enumerate() {
        let comment = line.starts_with("//");
        let mut string = false;
        for c in line.chars().chain(comment.then_some('\n')) {
            string ^= c == '"';
            if comment || string || !(c.is_whitespace() || ",{}".contains(c)) {
                all.push((number, c));
            }
        }
    }
    all
}
