//! The packages of the workspace: their names, their READMEs, and the costs of their features.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
    process::Command,
};

/// The packages with a README that says what their features cost.
const ADAPTERS: [&str; 4] = ["amqp-tokio", "amqp-smol", "amqp-async-std", "amqp-blocking"];

fn root() -> PathBuf {
    [env!("CARGO_MANIFEST_DIR"), ".."].iter().collect()
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The folders of the packages.
fn members() -> Vec<String> {
    let manifest = read(&root().join("Cargo.toml"));
    let members = manifest.lines().find(|line| line.starts_with("members"));
    let members = members.expect("the workspace has members");
    members
        .split('"')
        .skip(1)
        .step_by(2)
        .map(str::to_owned)
        .collect()
}

/// The names of the features in a manifest, but `default`.
fn features(manifest: &str) -> BTreeSet<String> {
    let lines = manifest.lines().skip_while(|line| *line != "[features]");
    let lines = lines.skip(1).take_while(|line| !line.starts_with('['));
    lines
        .filter(|line| !line.starts_with('#'))
        .filter_map(|line| line.split_once(" = "))
        .map(|(name, _)| name.to_owned())
        .filter(|name| name != "default")
        .collect()
}

/// The number of packages that a package is built from on Linux, itself included, with the versions of
/// `Cargo.lock`; of a package of the workspace with these features alone.
fn count(package: &str, features: Option<&str>) -> usize {
    let mut tree = Command::new(env!("CARGO"));
    tree.current_dir(root())
        .args(["tree", "--locked", "--offline", "--edges", "normal"])
        .args(["--target", "x86_64-unknown-linux-gnu", "--prefix", "none"])
        .args(["--no-dedupe", "--package", package]);
    if let Some(features) = features {
        tree.args(["--no-default-features", "--features", features]);
    }
    let output = tree.output().expect("cargo starts");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{package}: {errors}");
    let packages = String::from_utf8(output.stdout).expect("it is text");
    let names = packages
        .lines()
        .map(|line| line.split(" (").next().unwrap_or_default());
    names.collect::<BTreeSet<_>>().len()
}

#[test]
fn each_example_has_a_name_of_its_own() {
    let mut owners: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for member in members() {
        let Ok(entries) = fs::read_dir(root().join(&member).join("examples")) else {
            continue;
        };
        for entry in entries {
            let path = entry.expect("an entry can be read").path();
            let is_target = path.extension().is_some_and(|it| it == "rs") || path.is_dir();
            if is_target && let Some(name) = path.file_stem() {
                let name = name.to_string_lossy().into_owned();
                owners.entry(name).or_default().push(member.clone());
            }
        }
    }
    assert!(owners.len() > 10, "{owners:?}");
    owners.retain(|_, owners| owners.len() > 1);
    assert!(
        owners.is_empty(),
        "their programs have one path: {owners:?}"
    );
}

#[test]
fn each_package_that_is_published_has_a_readme_and_both_licences() {
    for member in members() {
        let folder = root().join(&member);
        let manifest = read(&folder.join("Cargo.toml"));
        if manifest.lines().any(|line| line == "publish = false") {
            continue;
        }
        for file in ["README.md", "LICENSE-MIT", "LICENSE-APACHE"] {
            assert!(folder.join(file).exists(), "{member}: {file}");
        }
        let has = |key: &str| manifest.lines().any(|line| line.starts_with(key));
        assert!(
            has("description") && has("keywords") && has("categories"),
            "{member}"
        );
        assert!(
            !has("repository") && !has("homepage"),
            "{member}: there is none"
        );
    }
}

#[test]
fn features_cost_what_the_readmes_say() {
    for adapter in ADAPTERS {
        let readme = read(&root().join(adapter).join("README.md"));
        let manifest = read(&root().join(adapter).join("Cargo.toml"));
        let (none, default) = (count(adapter, Some("")), count(adapter, Some("tls,ring")));
        let sums = format!(
            "Without features it is {none} packages, this one included, and {default} with the default ones."
        );
        assert!(readme.contains(&sums), "{adapter}/README.md: {sums}");
        let with_tls = count(adapter, Some("tls"));
        for feature in features(&manifest) {
            let added = match feature.as_str() {
                "ring" | "aws-lc-rs" => count(adapter, Some(&format!("tls,{feature}"))) - with_tls,
                _ => count(adapter, Some(&feature)) - none,
            };
            let (name, cost) = (format!("| `{feature}`"), format!(" | {added} |"));
            let row = readme.lines().find(|line| line.starts_with(&name));
            let row = row.unwrap_or_else(|| panic!("{adapter}/README.md has no {feature}"));
            assert!(row.ends_with(&cost), "{adapter}/README.md: {row}: {cost}");
        }
    }
    let readme = read(&root().join("README.md"));
    let ours = count("amqp-tokio", Some(""));
    // As `amqp-bench` has them: for tokio, and without TLS.
    let (lapin, amqprs) = (count("lapin", None), count("amqprs", None));
    let row = format!("| packages on tokio without TLS | {ours} (10) | {lapin} | {amqprs} | | | |");
    assert!(readme.contains(&row), "README.md: {row}");
}
