//! The suite of conformance on the storages of this crate.

use amqp_peer::storage::{
    MemoryStorage, SqliteStorage,
    conformance::{self, Failures},
};

#[test]
fn memory_passes_the_suite() -> Result<(), Failures> {
    conformance::check(|| {
        let kept = MemoryStorage::new();
        move || Ok(kept.clone())
    })
}

#[test]
fn sqlite_passes_the_suite() -> Result<(), Box<dyn std::error::Error>> {
    let folder = tempfile::tempdir()?;
    let mut count = 0;
    conformance::check(|| {
        count += 1;
        let path = folder.path().join(format!("{count}.sqlite"));
        move || SqliteStorage::open(&path)
    })?;
    Ok(())
}

#[test]
fn cases_have_names_of_their_own_and_a_sentence() {
    let cases = conformance::cases();
    let names: std::collections::BTreeSet<_> = cases.iter().map(|case| case.name()).collect();
    assert_eq!(names.len(), cases.len());
    assert!(cases.len() >= 40, "{} cases", cases.len());
    for case in cases {
        assert!(case.about().len() > 20, "{}", case.name());
    }
}
