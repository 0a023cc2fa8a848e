//! The Markdown files of the repository: their links lead to files, and their commands run tests,
//! examples and scripts that there are.

use std::{
    fs,
    path::{Path, PathBuf},
};

/// Folders without documents of the repository.
const SKIPPED: [&str; 3] = ["target", ".git", "node_modules"];

fn root() -> PathBuf {
    [env!("CARGO_MANIFEST_DIR"), ".."].iter().collect()
}

/// The Markdown files, by their paths from the root.
fn documents() -> Vec<(PathBuf, String)> {
    let mut folders = vec![PathBuf::new()];
    let mut documents = Vec::new();
    while let Some(folder) = folders.pop() {
        let entries = fs::read_dir(root().join(&folder)).expect("a folder can be read");
        for entry in entries {
            let entry = entry.expect("an entry can be read");
            let path = folder.join(entry.file_name());
            if entry.file_type().expect("it has a type").is_dir() {
                let is_skipped = SKIPPED.iter().any(|name| entry.file_name() == *name);
                folders.extend((!is_skipped).then_some(path));
            } else if path.extension().is_some_and(|it| it == "md") {
                let text = fs::read_to_string(root().join(&path)).expect("a document can be read");
                documents.push((path, text));
            }
        }
    }
    assert!(documents.len() > 10, "{documents:?}");
    documents
}

/// The commands of a text: the lines of its shell blocks, and the pieces in backquotes.
fn commands(text: &str) -> Vec<String> {
    let mut commands = Vec::new();
    let mut fence = None;
    for line in text.lines() {
        match (line.trim_start().strip_prefix("```"), fence) {
            (Some(language), None) => fence = Some(language),
            (Some(_), Some(_)) => fence = None,
            (None, Some("sh")) => {
                let command = line.split(" #").next().unwrap_or_default();
                commands.push(command.trim().trim_start_matches("$ ").to_owned());
            }
            (None, Some(_)) => {}
            (None, None) => commands.extend(line.split('`').skip(1).step_by(2).map(str::to_owned)),
        }
    }
    commands
}

/// The folder of a package of the workspace.
fn folder(package: &str) -> Option<PathBuf> {
    let manifest = fs::read_to_string(root().join("Cargo.toml")).expect("it can be read");
    let members = manifest.lines().find(|line| line.starts_with("members"));
    let members = members.expect("the workspace has members");
    let name = format!("name = \"{package}\"");
    members
        .split('"')
        .skip(1)
        .step_by(2)
        .map(PathBuf::from)
        .find(|member| {
            let manifest = root().join(member).join("Cargo.toml");
            fs::read_to_string(manifest).is_ok_and(|text| text.lines().any(|line| line == name))
        })
}

/// The missing part of a command; `None` if there is everything that it names.
fn missing(command: &str) -> Option<String> {
    let words = command.split_whitespace();
    // The variables before it.
    let words: Vec<_> = words
        .skip_while(|word| word.contains('=') && !word.starts_with('-'))
        .take_while(|word| *word != "--")
        .collect();
    let has = |path: &Path| root().join(path).exists();
    let value = |names: &[&str]| {
        let at = words.iter().position(|word| names.contains(word))?;
        words.get(at + 1).copied()
    };
    match words.first()? {
        script if script.starts_with(".ci/") || script.starts_with("fuzz/run") => {
            (!has(Path::new(script))).then(|| (*script).to_owned())
        }
        &"cargo" => {
            let package = value(&["-p", "--package"])?;
            let Some(folder) = folder(package) else {
                return Some(package.to_owned());
            };
            [("--test", "tests"), ("--example", "examples")]
                .into_iter()
                .filter_map(|(option, kind)| Some((kind, value(&[option])?)))
                .map(|(kind, name)| folder.join(kind).join(name))
                .find(|path| !has(&path.with_extension("rs")) && !has(&path.join("main.rs")))
                .map(|path| path.display().to_string())
        }
        _ => None,
    }
}

fn assert_none(title: &str, wrong: &[String]) {
    assert!(wrong.is_empty(), "{title}:\n{}", wrong.join("\n"));
}

#[test]
fn each_command_runs_something_that_there_is() {
    let mut count = 0;
    let mut wrong = Vec::new();
    for (path, text) in documents() {
        for command in commands(&text) {
            count += 1;
            if let Some(missing) = missing(&command) {
                wrong.push(format!("{}: {command}: {missing}", path.display()));
            }
        }
    }
    assert!(count > 100, "{count} commands are read");
    assert_none("these run nothing", &wrong);
}

#[test]
fn each_relative_link_leads_to_a_file() {
    let mut wrong = Vec::new();
    for (path, text) in documents() {
        let folder = path.parent().unwrap_or_else(|| Path::new(""));
        for link in text.split("](").skip(1) {
            let target = link.split([')', '#', ' ']).next().unwrap_or_default();
            let is_elsewhere = target.contains("://") || target.contains("::");
            let is_name = target.starts_with("crate") || !target.contains(['.', '/']);
            if target.is_empty() || is_elsewhere || is_name {
                continue;
            }
            if !root().join(folder).join(target).exists() {
                wrong.push(format!("{}: {target}", path.display()));
            }
        }
    }
    assert_none("these lead nowhere", &wrong);
}
