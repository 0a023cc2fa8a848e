//! The Markdown files of the repository, and the links of doc comments: each link leads to a file, a
//! heading or a known page of others, each command runs something that there is, each block of code
//! is compiled, each test that is named exists, and the summary of the book lists its pages.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use amqp_tests::documents::{has_test, read};

/// Folders without documents of the repository.
const SKIPPED: [&str; 3] = ["target", ".git", "node_modules"];

/// The sites of others that links may lead to. Those of docs.rs are of dependencies, below.
const SITES: [&str; 19] = [
    "embarkstudios.github.io",
    "en.wikipedia.org",
    "keepachangelog.com",
    "llvm.org",
    "man7.org",
    "no-color.org",
    "opentelemetry.io",
    "pypi.org",
    "rustup.rs",
    "semver.org",
    "www.erlang.org",
    "www.rabbitmq.com",
    "www.rfc-editor.org",
    "www.sqlite.org",
    "www.w3.org",
    // Repositories of others: no organisation has this one yet.
    "github.com/alanxz/rabbitmq-c",
    "github.com/rabbitmq/rabbitmq-delayed-message-exchange",
    "github.com/rabbitmq/rabbitmq-server",
    // Addresses in examples.
    "127.0.0.1",
];

/// The clients that the README compares, and that nothing here depends on.
const COMPARED: [&str; 2] = ["amiquip", "amqp-client"];

/// READMEs with code that a test compares with other files; it is not compiled.
const COMPARED_CODE: [&str; 1] = ["codegen/README.md"];

/// The pages of the book, and the page that lists them.
const BOOK: &str = "book/src";
const SUMMARY: &str = "book/src/SUMMARY.md";

/// The beginning of a line of mdBook that stands for a file, or for a part of it.
const INCLUDE: &str = "{{#include ";

fn root() -> PathBuf {
    [env!("CARGO_MANIFEST_DIR"), ".."].iter().collect()
}

/// The Markdown files, by their paths from the root.
fn documents() -> Vec<(PathBuf, String)> {
    files("md")
}

/// The files with an extension, by their paths from the root, and their texts.
fn files(wanted: &str) -> Vec<(PathBuf, String)> {
    let mut folders = vec![PathBuf::new()];
    let mut files = Vec::new();
    while let Some(folder) = folders.pop() {
        let entries = fs::read_dir(root().join(&folder)).expect("a folder can be read");
        for entry in entries {
            let entry = entry.expect("an entry can be read");
            let path = folder.join(entry.file_name());
            if entry.file_type().expect("it has a type").is_dir() {
                let is_skipped = SKIPPED.iter().any(|name| entry.file_name() == *name);
                folders.extend((!is_skipped).then_some(path));
            } else if path.extension().is_some_and(|it| it == wanted) {
                let text = fs::read_to_string(root().join(&path)).expect("a file can be read");
                files.push((path, text));
            }
        }
    }
    assert!(files.len() > 10, "{files:?}");
    files
}

/// The commands of a text: the lines of its shell blocks, those of its transcripts that begin with
/// `$ `, and the pieces in backquotes.
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
            (None, Some("console")) => commands.extend(line.strip_prefix("$ ").map(str::to_owned)),
            (None, Some(_)) => {}
            (None, None) => commands.extend(line.split('`').skip(1).step_by(2).map(str::to_owned)),
        }
    }
    commands
}

/// The folders of the packages of the workspace, and their manifests.
fn members() -> Vec<(PathBuf, String)> {
    let manifest = fs::read_to_string(root().join("Cargo.toml")).expect("it can be read");
    let members = manifest.lines().find(|line| line.starts_with("members"));
    let members = members.expect("the workspace has members");
    members
        .split('"')
        .skip(1)
        .step_by(2)
        .map(|member| {
            let manifest = fs::read_to_string(root().join(member).join("Cargo.toml"));
            (PathBuf::from(member), manifest.expect("it can be read"))
        })
        .collect()
}

/// The folder of a package of the workspace, and its manifest.
fn member(package: &str) -> Option<(PathBuf, String)> {
    let name = format!("name = \"{package}\"");
    let is_it = |manifest: &str| manifest.lines().any(|line| line == name);
    members().into_iter().find(|(_, it)| is_it(it))
}

/// Whether a package has a program of that name.
fn has_program((folder, manifest): &(PathBuf, String), name: &str) -> bool {
    let program = root().join(folder).join("src/bin").join(name);
    program.with_extension("rs").exists()
        || manifest.contains(&format!("{{ name = \"{name}\", path"))
        || manifest.contains(&format!("[[bin]]\nname = \"{name}\""))
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
        // Its arguments are sections.
        &".ci/deep" => {
            let deep = read(".ci/deep");
            let mut sections = words.iter().skip(1).filter(|it| !it.starts_with('-'));
            let missing = sections.find(|it| !deep.contains(&format!("\ncheck_{it}() {{")))?;
            Some((*missing).to_owned())
        }
        script if script.starts_with(".ci/") || script.starts_with("fuzz/run") => {
            (!has(Path::new(script))).then(|| (*script).to_owned())
        }
        // From a program beside the checkout.
        &"cargo" if words.get(1) == Some(&"add") => {
            let path = value(&["--path"])?
                .strip_prefix("../amqp/")
                .map(Path::new)?;
            (!has(&path.join("Cargo.toml"))).then(|| path.display().to_string())
        }
        &"cargo" if words.get(1) == Some(&"install") => {
            let path = Path::new(value(&["--path"])?);
            (!has(&path.join("Cargo.toml"))).then(|| path.display().to_string())
        }
        &"cargo" => {
            let bin = value(&["--bin"]);
            let Some(package) = value(&["-p", "--package"]) else {
                // In the folder of a package.
                let is_somewhere = |bin| members().iter().any(|it| has_program(it, bin));
                return bin.filter(|bin| !is_somewhere(bin)).map(str::to_owned);
            };
            let Some(member) = member(package) else {
                return Some(package.to_owned());
            };
            let bin = bin.filter(|bin| !has_program(&member, bin));
            let (folder, manifest) = member;
            let features = value(&["--features", "-F"]).unwrap_or_default();
            let mut features = features.split(',').filter(|it| !it.is_empty());
            let feature = features.find(|it| !manifest.contains(&format!("\n{it} = [")));
            let target = [("--test", "tests"), ("--example", "examples")]
                .into_iter()
                .filter_map(|(option, kind)| Some((kind, value(&[option])?)))
                .map(|(kind, name)| folder.join(kind).join(name))
                .find(|path| !has(&path.with_extension("rs")) && !has(&path.join("main.rs")))
                .map(|path| path.display().to_string());
            let missing = feature.or(bin).map(str::to_owned);
            missing.or(target)
        }
        _ => None,
    }
}

fn assert_none(title: &str, wrong: &[String]) {
    assert!(wrong.is_empty(), "{title}:\n{}", wrong.join("\n"));
}

/// The lines of a text outside of its blocks of code.
fn prose(text: &str) -> impl Iterator<Item = &str> {
    let mut is_code = false;
    text.lines().filter(move |line| {
        let is_fence = line.trim_start().starts_with("```");
        is_code ^= is_fence;
        !is_code && !is_fence
    })
}

/// Whether a text has Rust code that it does not include from a file.
fn has_own_rust(text: &str) -> bool {
    let mut is_rust = false;
    text.lines().any(|line| {
        let line = line.trim();
        if let Some(language) = line.strip_prefix("```") {
            is_rust = language.starts_with("rust");
            return false;
        }
        is_rust && !line.is_empty() && !line.starts_with(INCLUDE)
    })
}

/// The fault of an include of a document: `path`, or `path:anchor` for the part of the file between
/// two comments. `None` if there is that file or part, and no such comment in it.
fn include_fault(path: &Path, include: &str) -> Option<String> {
    let (file, anchor) = include.split_once(':').unwrap_or((include, ""));
    let folder = path.parent().unwrap_or_else(|| Path::new(""));
    let Ok(text) = fs::read_to_string(root().join(folder).join(file)) else {
        return Some(format!("{include}: no file"));
    };
    let lines = |mark: &str| text.lines().filter(|line| line.trim() == mark).count();
    if anchor.is_empty() {
        let is_marked = text.contains("ANCHOR");
        return is_marked.then(|| format!("{include}: the whole, with its anchors"));
    }
    let begins = lines(&format!("// ANCHOR: {anchor}"));
    let ends = lines(&format!("// ANCHOR_END: {anchor}"));
    ((begins, ends) != (1, 1)).then(|| format!("{include}: no anchor"))
}

/// The targets of the links of a text, those in `<>` included. Code in backquotes has none.
fn links(text: &str) -> Vec<String> {
    let mut links = Vec::new();
    let prose: Vec<_> = prose(text).collect();
    let prose = prose.join("\n");
    let plain: String = prose.split('`').step_by(2).collect();
    for link in plain.split("](").skip(1) {
        let target = link.split([')', ' ']).next().unwrap_or_default();
        links.push(target.to_owned());
    }
    for link in plain.split('<').skip(1).filter(|it| it.starts_with("http")) {
        links.extend(link.split('>').next().map(str::to_owned));
    }
    links
}

/// The anchors of the headings of a document.
fn anchors(text: &str) -> BTreeSet<String> {
    let headings = prose(text).filter_map(|line| line.strip_prefix('#'));
    headings
        .map(|heading| {
            let heading = heading.trim_start_matches('#').trim().to_lowercase();
            let kept = |it: &char| it.is_alphanumeric() || matches!(it, ' ' | '-' | '_');
            heading
                .chars()
                .filter(kept)
                .collect::<String>()
                .replace(' ', "-")
        })
        .collect()
}

/// The names of the packages in `Cargo.lock` that come from a registry.
fn dependencies() -> BTreeSet<String> {
    let lock = fs::read_to_string(root().join("Cargo.lock")).expect("it can be read");
    let packages = lock
        .split("[[package]]")
        .filter(|it| it.contains("\nsource = "));
    packages
        .filter_map(|it| it.split('"').nth(1).map(str::to_owned))
        .collect()
}

/// Whether a link to another site leads to a page that there is, as far as a list can tell.
fn is_known(link: &str, dependencies: &BTreeSet<String>) -> bool {
    let Some((_, page)) = link.split_once("://") else {
        return false;
    };
    for registry in ["docs.rs/", "crates.io/crates/"] {
        if let Some(page) = page.strip_prefix(registry) {
            let package = page.split(['/', '#']).next().unwrap_or_default();
            return dependencies.contains(package) || COMPARED.contains(&package);
        }
    }
    SITES.iter().any(|site| {
        page.strip_prefix(site)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with(['/', ':', '#']))
    })
}

/// The fault of a link of a document; `None` if it leads to something.
fn fault(path: &Path, text: &str, link: &str, dependencies: &BTreeSet<String>) -> Option<String> {
    if link.contains("://") {
        return (!is_known(link, dependencies)).then(|| format!("{link}: no site that is known"));
    }
    let (target, anchor) = link.split_once('#').unwrap_or((link, ""));
    let folder = path.parent().unwrap_or_else(|| Path::new(""));
    let file = root().join(folder).join(target);
    if !target.is_empty() && !file.exists() {
        return Some(format!("{link}: no file"));
    }
    // A package has its own folder and no other.
    let is_packaged = |folder: &Path| {
        fs::read_to_string(root().join(folder).join("Cargo.toml")).is_ok_and(|manifest| {
            manifest.contains("[package]") && !manifest.contains("\npublish = false")
        })
    };
    if target.starts_with("../") && is_packaged(folder) {
        return Some(format!("{link}: not in the package"));
    }
    let headings = match target {
        "" => anchors(text),
        _ if anchor.is_empty() => return None,
        _ => anchors(&fs::read_to_string(file).expect("a document can be read")),
    };
    (!headings.contains(anchor)).then(|| format!("{link}: no heading"))
}

/// The Rust sources, by their paths from the root, and their texts.
fn sources() -> Vec<(PathBuf, String)> {
    files("rs")
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
fn each_command_of_the_workflow_runs_something_that_there_is() {
    let workflow = read(".github/workflows/ci.yml");
    let commands = workflow.lines();
    let commands = commands.filter_map(|line| line.trim().strip_prefix("- run: "));
    let missing: Vec<_> = commands.clone().filter_map(missing).collect();
    assert_none("these are missing", &missing);
    for command in [".ci/run", ".ci/deep msrv", ".ci/deep targets"] {
        assert!(commands.clone().any(|it| it == command), "{command}");
    }
}

#[test]
fn each_link_leads_to_a_file_a_heading_or_a_known_page() {
    let dependencies = dependencies();
    let (mut count, mut wrong) = (0, Vec::new());
    for (path, text) in documents() {
        for link in links(&text) {
            count += 1;
            let fault = fault(&path, &text, &link, &dependencies);
            wrong.extend(fault.map(|fault| format!("{}: {fault}", path.display())));
        }
    }
    assert!(count > 100, "{count} links are read");
    assert_none("these lead nowhere", &wrong);
}

#[test]
fn each_page_that_a_doc_comment_names_is_known() {
    let dependencies = dependencies();
    let (mut count, mut wrong) = (0, Vec::new());
    for (path, text) in sources() {
        let comments = text.lines().map(str::trim_start);
        let comments = comments.filter(|line| line.starts_with("//"));
        for comment in comments {
            for (at, _) in comment.match_indices("https://") {
                let link = comment[at..].split(['>', ')', '`', ' ', '"', '<']).next();
                let link = link.unwrap_or_default().trim_end_matches(['.', ',']);
                // Comments have addresses of examples, too.
                let is_example = ["https://a.b", "https://example"]
                    .iter()
                    .any(|it| link.starts_with(it));
                count += 1;
                if !is_example && !is_known(link, &dependencies) {
                    wrong.push(format!("{}: {link}", path.display()));
                }
            }
        }
    }
    assert!(count > 100, "{count} links are read");
    assert_none("these are no sites that are known", &wrong);
}

#[test]
fn each_include_of_the_book_is_a_file_or_a_part_of_one() {
    let (mut count, mut wrong) = (0, Vec::new());
    for (path, text) in documents() {
        let includes = text.split(INCLUDE).skip(1);
        for include in includes.filter_map(|it| it.split("}}").next()) {
            count += 1;
            let fault = include_fault(&path, include.trim());
            wrong.extend(fault.map(|fault| format!("{}: {fault}", path.display())));
        }
    }
    assert!(count > 30, "{count} includes are read");
    assert_none("these include nothing", &wrong);
}

/// Each page that is listed exists, as each link leads to a file.
#[test]
fn the_summary_lists_each_page_of_the_book_once() {
    let folder = Path::new(BOOK);
    let listed: Vec<_> = links(&read(SUMMARY))
        .iter()
        .map(|link| folder.join(link))
        .collect();
    let pages: BTreeSet<_> = documents()
        .into_iter()
        .map(|(path, _)| path)
        .filter(|path| path.starts_with(folder) && path != Path::new(SUMMARY))
        .collect();
    assert_eq!(listed.iter().cloned().collect::<BTreeSet<_>>(), pages);
    assert_eq!(listed.len(), pages.len(), "{listed:?}");
}

/// A source includes each README with code, as doctests.
#[test]
fn each_block_of_rust_is_compiled() {
    let sources = sources();
    let mut wrong = Vec::new();
    for (path, text) in documents() {
        let name = path.display().to_string();
        if !has_own_rust(&text) || COMPARED_CODE.contains(&name.as_str()) {
            continue;
        }
        let includes = |(source, text): &(PathBuf, String)| {
            text.split("doc = include_str!(\"").skip(1).any(|it| {
                let included = it.split('"').next().unwrap_or_default();
                let folder = source.parent().unwrap_or_else(|| Path::new(""));
                let included = root().join(folder).join(included).canonicalize();
                included.ok() == root().join(&path).canonicalize().ok()
            })
        };
        if !sources.iter().any(includes) {
            wrong.push(name);
        }
    }
    assert_none("no doctest has the code of these", &wrong);
}

#[test]
fn each_test_that_is_named_exists() {
    let (mut count, mut wrong) = (0, Vec::new());
    for (path, text) in documents() {
        for name in text.split('`').filter(|it| it.contains(".rs::")) {
            count += 1;
            if !name.contains(char::is_whitespace) && !has_test(name) {
                wrong.push(format!("{}: {name}", path.display()));
            }
        }
    }
    assert!(count > 100, "{count} names are read");
    assert_none("there are no such tests", &wrong);
}
