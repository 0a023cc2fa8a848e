//! The transcripts of the README.

use std::{path::Path, process::Command, thread};

use amqp_tests::harness::{Failure, Outcome};

use crate::rig::{PROGRAM, Place, end, program};

const README: &str = include_str!("../../README.md");

/// Runs the commands of all blocks `console`, in order, on one broker and in one folder. A line that
/// begins with `$ ` is a command, or goes on with `> `; the others are its output, standard error
/// included, where `[..]` stands for any text.
pub(crate) fn the_commands_of_the_readme_print_what_it_says(place: &Place) -> Outcome {
    let folder = tempfile::tempdir()?;
    let programs = Path::new(PROGRAM).parent().ok_or("no folder")?;
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

/// The commands with examples in their help.
const COMMANDS: [&[&str]; 20] = [
    &["publish"],
    &["consume"],
    &["get"],
    &["declare", "queue"],
    &["declare", "exchange"],
    &["delete", "queue"],
    &["delete", "exchange"],
    &["bind"],
    &["unbind"],
    &["purge"],
    &["ping"],
    &["rpc", "call"],
    &["rpc", "serve"],
    &["tail"],
    &["bench"],
    &["proxy"],
    &["broker"],
    &["completions"],
    &["man"],
    &[],
];

/// Runs the examples of each `--help`, each for a second: none is misuse (2), a command that does not
/// exist (127) or a crash (more than 128).
pub(crate) fn the_examples_of_the_help_run(place: &Place) -> Outcome {
    let folder = tempfile::tempdir()?;
    let programs = Path::new(PROGRAM).parent().ok_or("no folder")?;
    let path = format!("{}:{}", programs.display(), std::env::var("PATH")?);
    for file in ["order.json", "handle"] {
        std::fs::write(folder.path().join(file), "#!/bin/sh\ncat\n")?;
    }
    let handle = folder.path().join("handle").display().to_string();
    Command::new("chmod").args(["+x", &handle]).status()?;
    for queue in ["jobs", "failed", "orders", "log", "pdfs"] {
        place.good(&["declare", "queue", queue])?;
    }
    place.good(&["declare", "exchange", "events", "--type", "topic"])?;
    let home = folder.path();
    let counts = thread::scope(|scope| {
        let running = COMMANDS.map(|command| {
            let path = &path;
            scope.spawn(move || {
                let run = run_examples(place, command, path, home);
                run.map_err(|error| error.to_string())
            })
        });
        running.map(|it| {
            it.join()
                .unwrap_or_else(|_| Err("a thread panicked".into()))
        })
    });
    let mut all = 0;
    for count in counts {
        all += count?;
    }
    assert!(all > 30, "{all} examples");
    Ok(())
}

/// Runs the examples of a command. Returns their number.
fn run_examples(
    place: &Place,
    command: &[&str],
    path: &str,
    home: &Path,
) -> Result<usize, Failure> {
    let help = end(program(&[command, &["--help"]].concat()), b"")?.good()?;
    let examples = help.split("Examples:\n").nth(1).unwrap_or_default();
    let mut count = 0;
    for example in examples.lines().take_while(|line| line.starts_with("  ")) {
        // In the background it would go on.
        let example = example.trim().trim_end_matches('&');
        let mut shell = Command::new("timeout");
        shell
            .args(["-s", "INT", "1", "bash", "-c", example])
            .current_dir(home)
            .env("PATH", path)
            .env("AMQP_URL", &place.url)
            .env("HOME", home);
        let ended = end(shell, b"1\n")?;
        let has_run = matches!(ended.code, Some(0 | 1 | 3 | 4 | 5 | 124 | 130));
        assert!(has_run, "{example}: {ended:?}");
        count += 1;
    }
    Ok(count)
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
