//! The memory that a large body takes, beside the body itself.

use std::fs;

use amqp_peer::storage::{Change, SqliteStorage, Storage};

use super::data::{File, Outcome, bob, message, passed, path_of_child, process, remove_to};

const MIB: usize = 1 << 20;
const LEN: usize = 64 * MIB;

#[test]
fn a_large_body_is_neither_written_nor_read_as_a_copy() -> Outcome {
    let file = File::new();
    let test = "large::the_process_with_a_large_body";
    for _push_and_load in 0..2 {
        let output = process(test, &file.path, &[]).output()?;
        passed(&output).ok_or("not started")?;
    }
    // The file is as small again as before.
    file.open()?.apply(&[remove_to(1)])?;
    let size = fs::metadata(&file.path)?.len();
    assert!(size < MIB as u64, "{size}");
    Ok(())
}

/// The most memory that this process has had, in bytes.
fn peak() -> Result<usize, Box<dyn std::error::Error>> {
    let status = fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib: usize = line
        .ok_or("no VmHWM")?
        .trim()
        .trim_end_matches(" kB")
        .parse()?;
    Ok(kib << 10)
}

/// Pushes a large body, or loads it if it is there.
#[test]
fn the_process_with_a_large_body() -> Outcome {
    let Some(path) = path_of_child() else {
        return Ok(());
    };
    let mut storage = SqliteStorage::open(&path)?;
    let before = peak()?;
    let is_there = fs::metadata(&path)?.len() > LEN as u64;
    if is_there {
        let loaded = storage.load()?;
        let more = peak()? - before;
        assert!((LEN..LEN + 16 * MIB).contains(&more), "{more}");
        let (_, large) = &loaded.outbox[&bob()][0];
        assert_eq!(large.body.len(), LEN);
        assert_eq!(*large, message(1, LEN));
    } else {
        let message = message(1, LEN);
        let with_body = peak()?;
        storage.apply(&[Change::Pushed {
            to: bob(),
            sequence: 1,
            message,
        }])?;
        let more = peak()? - with_body;
        assert!(more < 24 * MIB, "{more}");
    }
    Ok(())
}
