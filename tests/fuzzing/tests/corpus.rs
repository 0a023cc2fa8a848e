//! The body of each fuzz target, on each file of its corpus; and the corpus, the seeds and the
//! dictionary in `fuzz/` themselves.

use std::{
    collections::BTreeSet,
    env, fs,
    path::{Path, PathBuf},
};

use amqp_fuzzing::{TARGETS, layouts::DICTIONARY, seeds::seeds};

const FUZZ: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../fuzz");
const REFRESH: &str = "To refresh it: UPDATE_GOLDEN=1 cargo test -p amqp-fuzzing";

/// The most that the corpus takes of the repository, in bytes.
const CORPUS_MAX: u64 = 300 << 10;

fn corpus(target: &str) -> PathBuf {
    Path::new(FUZZ).join("corpus").join(target)
}

/// The files of a folder, in order.
fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).unwrap_or_else(|error| panic!("{folder:?}: {error}"));
    let mut files: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
}

fn updates() -> bool {
    env::var_os("UPDATE_GOLDEN").is_some_and(|value| value == "1")
}

fn run(target: &str) {
    let (_, body) = TARGETS.iter().find(|(name, _)| *name == target).unwrap();
    let files = files(&corpus(target));
    assert!(files.len() > 3, "{target} has a corpus");
    for file in files {
        // Shown if the body panics.
        println!("{}", file.display());
        body(&fs::read(&file).unwrap());
    }
}

macro_rules! targets {
    ($($name:ident),*) => {
        $(#[test]
        fn $name() {
            run(stringify!($name));
        })*

        const NAMES: &[&str] = &[$(stringify!($name)),*];
    };
}

targets!(
    client, server, broker, frames, tables, methods, uri, handshake, pair, handles, foreign
);

/// Each target has a test here, a binary, and a folder in the corpus, and a line in the README.
#[test]
fn every_target_is_everywhere() {
    let names: BTreeSet<_> = TARGETS.iter().map(|(name, _)| *name).collect();
    assert_eq!(names, NAMES.iter().copied().collect());
    let read = |name: &str| fs::read_to_string(Path::new(FUZZ).join(name)).unwrap();
    let (manifest, readme) = (read("Cargo.toml"), read("README.md"));
    for name in names {
        assert!(manifest.contains(&format!("name = \"{name}\"")), "{name}");
        assert!(readme.contains(&format!("| `{name}` |")), "{name}");
        let shim = read(&format!("fuzz_targets/{name}.rs"));
        assert!(shim.contains(&format!("::{name}(data)")), "{name}");
    }
}

#[test]
fn the_seeds_are_fresh() {
    for (target, name, bytes) in seeds() {
        let path = corpus(target).join(&name);
        if updates() {
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, &bytes).unwrap();
        }
        assert_eq!(
            fs::read(&path).ok().as_ref(),
            Some(&bytes),
            "{path:?}. {REFRESH}"
        );
    }
}

#[test]
fn the_dictionary_is_fresh() {
    let path = Path::new(FUZZ).join("amqp.dict");
    if updates() {
        fs::write(&path, DICTIONARY).unwrap();
    }
    let kept = fs::read_to_string(&path).unwrap_or_default();
    assert!(
        kept == DICTIONARY,
        "{path:?} is not what is generated. {REFRESH}"
    );
}

#[test]
fn the_corpus_is_small() {
    let targets = TARGETS.iter().flat_map(|(name, _)| files(&corpus(name)));
    let total: u64 = targets.map(|file| fs::metadata(file).unwrap().len()).sum();
    assert!(total <= CORPUS_MAX, "{total} bytes");
}
