//! The table of `SCENARIOS.md`: each ID has tests that exist, and each scenario that runs on a broker
//! has an ID.

use std::collections::BTreeSet;

use amqp_tests::{documents, scenarios};

const SCENARIOS: &str = "tests/SCENARIOS.md";

struct Row {
    id: String,
    tests: Vec<String>,
}

fn rows() -> Vec<Row> {
    let text = documents::read(SCENARIOS);
    let rows = documents::rows(&text).into_iter();
    rows.map(|cells| match cells.as_slice() {
        [id, _scenario, _from, tests] => Row {
            id: (*id).to_owned(),
            tests: documents::tests(tests),
        },
        _ => panic!("not a row of four cells: {cells:?}"),
    })
    .collect()
}

#[test]
fn each_id_stands_once() {
    let rows = rows();
    assert!(rows.len() > 200, "{} rows are read", rows.len());
    let ids: BTreeSet<&str> = rows.iter().map(|row| row.id.as_str()).collect();
    assert_eq!(ids.len(), rows.len());
    for id in ids {
        let number = id.split_once('-').map(|(_, number)| number);
        let is_number = |it: &str| {
            it.trim_end_matches(char::is_alphabetic)
                .parse::<u32>()
                .is_ok()
        };
        assert!(number.is_some_and(is_number), "{id}");
    }
}

#[test]
fn each_id_has_tests_that_exist() {
    let missing: Vec<String> = rows()
        .into_iter()
        .flat_map(|row| {
            row.tests
                .into_iter()
                .map(move |test| format!("{} {test}", row.id))
        })
        .filter(|it| {
            !it.split_once(' ')
                .is_some_and(|(_, test)| documents::has_test(test))
        })
        .collect();
    assert!(missing.is_empty(), "no such tests:\n{}", missing.join("\n"));
}

#[test]
fn each_scenario_has_an_id() {
    let named: BTreeSet<String> = rows().into_iter().flat_map(|row| row.tests).collect();
    let missing: Vec<String> = scenarios::all()
        .iter()
        .map(|case| {
            let path = case.path();
            let (subject, name) = path.split_once("::").expect("a subject and a name");
            format!("tests/src/scenarios/{subject}.rs::{name}")
        })
        .filter(|test| !named.contains(test))
        .collect();
    assert!(missing.is_empty(), "without an ID:\n{}", missing.join("\n"));
}
