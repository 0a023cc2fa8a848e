//! The defects of the past in `defects/`: each can still be put back.

use std::{collections::BTreeSet, fs, path::PathBuf, process::Command};

use amqp_tests::documents::read;

const FOLDER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/defects");

fn patches() -> Vec<PathBuf> {
    let entries = fs::read_dir(FOLDER).expect("the folder is there");
    let paths = entries.map(|entry| entry.expect("it can be read").path());
    let mut patches: Vec<_> = paths
        .filter(|path| path.extension().is_some_and(|it| it == "patch"))
        .collect();
    patches.sort();
    patches
}

#[test]
fn each_patch_applies() {
    for patch in patches() {
        let mut git = Command::new("git");
        git.args(["apply", "--check"]).arg(&patch);
        // The paths of a patch are those from the root.
        git.current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/.."));
        let output = git.output().expect("git is installed");
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{}: {error}", patch.display());
    }
}

/// Each has a number of its own, and a row in the table of what finds it.
#[test]
fn each_patch_is_in_the_table() {
    let table = read("tests/defects/README.md");
    let mut numbers = BTreeSet::new();
    for patch in patches() {
        let name = patch.file_stem().unwrap_or_default().to_string_lossy();
        let (number, _) = name.split_once('-').expect("a number and a name");
        assert!(numbers.insert(number.to_owned()), "{name}");
        assert!(table.contains(&format!("| `{name}` |")), "{name}");
    }
    assert!(numbers.len() >= 10, "{numbers:?}");
}
