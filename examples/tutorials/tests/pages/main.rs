//! The programs of the tutorials, run with those of each runtime, on the embedded broker by the
//! rules of RabbitMQ 3.10 and by those of 4.3, and on RabbitMQ: the transcripts of the book as they
//! stand, and the claims that a page makes of its workers.

mod page;
mod program;
mod transcript;
mod workers;

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    process::ExitCode,
};

use amqp_tests::{
    Embedded,
    harness::{self, Outcome, Scenario},
};
use amqp_tokio::broker::Rules;

use self::{program::Place, transcript::transcript};

/// The prefixes of the programs. The pages have those of the first.
const RUNTIMES: [&str; 3] = ["tokio", "blocking", "smol"];

/// A scenario with the programs of a runtime, on a broker.
type Run = fn(&Place) -> Outcome;

const OF_WORKERS: [(&str, Run); 2] = [
    (
        "a_worker_that_is_killed_loses_no_task",
        workers::a_worker_that_is_killed_loses_no_task,
    ),
    (
        "a_worker_that_is_interrupted_does_its_task_first",
        workers::a_worker_that_is_interrupted_does_its_task_first,
    ),
];

fn main() -> ExitCode {
    let mut scenarios = vec![Scenario::local(
        "each_program_is_on_a_page",
        each_program_is_on_a_page,
    )];
    for (page, text) in pages() {
        everywhere(&mut scenarios, &page, move |place| page::run(&text, place));
    }
    for (name, run) in OF_WORKERS {
        everywhere(&mut scenarios, name, run);
    }
    harness::run(scenarios)
}

/// Adds a scenario for each runtime and broker.
fn everywhere(
    scenarios: &mut Vec<Scenario>,
    name: &str,
    run: impl Fn(&Place) -> Outcome + Clone + Send + 'static,
) {
    for runtime in RUNTIMES {
        let rules = [("3_10", Rules::default()), ("4_3", Rules::rabbitmq_4())];
        for (version, rules) in rules {
            let run = run.clone();
            let name = format!("{name}::{runtime}::by_the_rules_of_{version}");
            scenarios.push(Scenario::local(name, move || {
                let broker = Embedded::start_with(|config| config.rules = rules)?;
                let url = broker.uri();
                run(&Place { runtime, url })
            }));
        }
        let run = run.clone();
        let name = format!("{name}::{runtime}::on_rabbitmq");
        scenarios.push(Scenario::shared(name, move |broker| {
            let url = broker.uri;
            run(&Place { runtime, url })
        }));
    }
}

fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}

/// The names of the files of a folder with such an extension, without it.
fn files(folder: &Path, extension: &str) -> BTreeSet<String> {
    let entries = fs::read_dir(folder).expect("a folder can be read");
    let paths = entries.map(|entry| entry.expect("an entry can be read").path());
    paths
        .filter(|path| path.extension().is_some_and(|it| it == extension))
        .filter_map(|path| Some(path.file_stem()?.to_str()?.to_owned()))
        .collect()
}

/// The pages of the tutorials, by the names of their files, and their texts.
fn pages() -> Vec<(String, String)> {
    let tutorials = folder("../../book/src/tutorials");
    let names = files(&tutorials, "md").into_iter();
    names
        .map(|name| {
            let path = tutorials.join(&name).with_extension("md");
            let text = fs::read_to_string(path).expect("a page can be read");
            (name, text)
        })
        .collect()
}

/// Each program that a page runs exists for each runtime, and there are no others.
fn each_program_is_on_a_page() -> Outcome {
    let mut named = BTreeSet::new();
    for (page, text) in pages() {
        let steps = transcript(&text)?;
        assert!(!steps.is_empty(), "{page} runs nothing");
        named.extend(steps.into_iter().map(|step| step.program));
    }
    for runtime in RUNTIMES {
        assert_eq!(
            named,
            files(&folder("src").join(runtime), "rs"),
            "{runtime}"
        );
    }
    Ok(())
}
