//! The example `peers`, in a small form: a sender and a receiver that are killed, many peers at once, and one
//! large message.

use std::{
    env,
    error::Error,
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

type Outcome<T = ()> = Result<T, Box<dyn Error>>;

/// The program, which Cargo has built for the tests of the package. If a single test was asked for, and it
/// is missing or older than its source, it is built here.
fn program() -> Outcome<PathBuf> {
    let test = env::current_exe()?;
    // target/PROFILE/deps/peers-HASH
    let profile = test.ancestors().nth(2).ok_or("no target directory")?;
    let program = profile
        .join("examples/peers")
        .with_extension(env::consts::EXE_EXTENSION);
    if !is_fresh(&program)? {
        let status = Command::new(env!("CARGO"))
            .args(["build", "--quiet", "-p", "amqp-tests", "--example", "peers"])
            .status()?;
        assert!(status.success(), "{status}");
    }
    Ok(program)
}

/// Whether a program is newer than each of its source files.
fn is_fresh(program: &Path) -> Outcome<bool> {
    let Ok(built) = fs::metadata(program) else {
        return Ok(false);
    };
    let built = built.modified()?;
    let mut folders = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/peers")];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder)? {
            let entry = entry?;
            let metadata = entry.metadata()?;
            if metadata.is_dir() {
                folders.push(entry.path());
            } else if metadata.modified()? > built {
                return Ok(false);
            }
        }
    }
    Ok(true)
}

/// Runs it to its end, and returns its output.
fn run(arguments: &[&str]) -> Outcome<String> {
    let output = Command::new(program()?)
        .args(arguments)
        .stdin(Stdio::null())
        .output()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    if !output.status.success() {
        let progress = String::from_utf8_lossy(&output.stderr);
        return Err(format!("{arguments:?}: {}\n{text}{progress}", output.status).into());
    }
    Ok(text)
}

/// SNK-35 and SNK-39, with each role.
#[test]
fn peers_that_are_killed_lose_nothing_and_accept_nothing_twice() -> Outcome {
    let text = run(&["kill", "--rounds", "6", "--seed", "1"])?;
    assert!(
        text.contains("none lost, none accepted twice, all in order"),
        "{text}"
    );
    Ok(())
}

/// SNK-44, with each role.
#[test]
fn two_hundred_links_of_a_thousand_messages() -> Outcome {
    let text = run(&["parallel"])?;
    assert!(text.contains("none lost, all in order"), "{text}");
    Ok(())
}

#[test]
fn a_large_message_is_in_memory_once_at_each_end() -> Outcome {
    run(&["large", "--mib", "40"])?;
    Ok(())
}

#[test]
fn the_help_names_all_modes() -> Outcome {
    let text = run(&["--help"])?;
    for mode in ["kill", "parallel", "small", "large"] {
        assert!(text.contains(&format!("\n  {mode} ")), "{text}");
    }
    Ok(())
}
