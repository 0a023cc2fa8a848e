//! The transcripts of the README.

use std::process::Command;

use amqp_tests::harness::Outcome;

use crate::rig::{PROGRAM, Place, end};

const README: &str = include_str!("../../README.md");

/// Runs the commands of all blocks `console`, in order, on one broker and in one folder. A line that
/// begins with `$ ` is a command, or goes on with `> `; the others are its output, standard error
/// included, where `[..]` stands for any text.
pub(crate) fn the_commands_of_the_readme_print_what_it_says(place: &Place) -> Outcome {
    let folder = tempfile::tempdir()?;
    let programs = std::path::Path::new(PROGRAM).parent().ok_or("no folder")?;
    let path = std::env::var("PATH")?;
    let mut count = 0;
    for (command, expected) in transcripts(README) {
        let mut shell = Command::new("bash");
        shell
            .args(["-c", &format!("exec 2>&1; {command}")])
            .current_dir(folder.path())
            .env("PATH", format!("{}:{path}", programs.display()))
            .env("AMQP_URL", &place.url)
            .env("HOME", folder.path());
        let printed = end(shell, b"")?.text();
        assert!(
            matches(&printed, &expected),
            "$ {command}\n{printed}--- not:\n{expected}"
        );
        count += 1;
    }
    assert!(count > 10, "{count} commands");
    Ok(())
}

fn transcripts(text: &str) -> Vec<(String, String)> {
    let mut found: Vec<(String, String)> = Vec::new();
    let mut inside = false;
    for line in text.lines() {
        if line.starts_with("```") {
            inside = line == "```console";
        } else if inside && let Some(command) = line.strip_prefix("$ ") {
            found.push((command.to_owned(), String::new()));
        } else if inside && let Some((command, output)) = found.last_mut() {
            match line.strip_prefix("> ") {
                Some(more) if output.is_empty() => {
                    command.push('\n');
                    command.push_str(more);
                }
                _ => {
                    output.push_str(line);
                    output.push('\n');
                }
            }
        }
    }
    found
}

/// Compares texts, where `[..]` in the expected one stands for anything.
fn matches(printed: &str, expected: &str) -> bool {
    let mut pieces = expected.split("[..]");
    let Some(mut rest) = pieces.next().and_then(|first| printed.strip_prefix(first)) else {
        return false;
    };
    let pieces: Vec<&str> = pieces.collect();
    let Some((last, middle)) = pieces.split_last() else {
        return rest.is_empty();
    };
    for piece in middle {
        match rest.split_once(piece) {
            Some((_, after)) => rest = after,
            None => return false,
        }
    }
    rest.ends_with(last)
}
