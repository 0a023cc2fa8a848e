//! No room: a full disk, a limit of the storage, a limit of the system.

use std::fs;

use amqp_peer::storage::{Change, SqliteStorage, Storage, StorageErrorKind};

use super::data::{
    File, Outcome, bob, fails, message, messages, passed, path_of_child, process,
    process_in_file_system, push, remove_to, run,
};

const LEN: usize = 10_000;

/// Pushes messages until one is refused. Returns the number of those before it.
fn fill(storage: &mut SqliteStorage, kind: StorageErrorKind) -> u64 {
    for sequence in 1..100_000 {
        if let Err(error) = storage.apply(&[push(sequence, LEN)]) {
            fails(Err::<(), _>(error), kind);
            return sequence - 1;
        }
    }
    panic!("it is never full");
}

#[test]
fn a_limit_of_the_file_is_an_error_and_loses_nothing() -> Outcome {
    let file = File::new();
    let mut storage = file.open()?;
    storage.limit(Some(1 << 20))?;
    let count = fill(&mut storage, StorageErrorKind::Full);
    assert!((50..105).contains(&count), "{count}");
    assert_eq!(storage.load()?, messages(1..=count, LEN));

    // A batch that begins with a change that has room, and ends with others that have none.
    let too_much: Vec<Change> = (count + 1..=count + 20).map(|it| push(it, LEN)).collect();
    let batch = [&[remove_to(10)], &too_much[..]].concat();
    fails(storage.apply(&batch), StorageErrorKind::Full);
    assert_eq!(storage.load()?, messages(1..=count, LEN));

    storage.apply(&[remove_to(10)])?;
    storage.apply(&[push(count + 1, LEN)])?;
    assert_eq!(storage.load()?, messages(11..=count + 1, LEN));
    storage.limit(None)?;
    storage.apply(&too_much)?;
    drop(storage);
    assert_eq!(file.load()?, messages(11..=count + 20, LEN));
    Ok(())
}

#[test]
fn a_limit_below_the_size_of_the_file_lets_messages_go() -> Outcome {
    let file = File::new();
    let mut storage = file.open()?;
    let pushes: Vec<Change> = (1..=100).map(|it| push(it, LEN)).collect();
    storage.apply(&pushes)?;
    storage.limit(Some(1))?;
    fails(storage.apply(&[push(101, LEN)]), StorageErrorKind::Full);
    for sequence in 1..=50 {
        storage.apply(&[remove_to(sequence)])?;
    }
    assert_eq!(storage.load()?, messages(51..=100, LEN));
    Ok(())
}

#[test]
fn a_full_disk_is_an_error_and_loses_nothing() {
    let folder = tempfile::tempdir().expect("a folder");
    process_in_file_system("full::the_process_on_a_full_disk", folder.path(), "6m");
}

#[test]
fn the_process_on_a_full_disk() -> Outcome {
    let Some(folder) = path_of_child() else {
        return Ok(());
    };
    let path = folder.join("peer.sqlite");
    let mut storage = SqliteStorage::open(&path)?;
    let count = fill(&mut storage, StorageErrorKind::Full);
    assert!(count > 100, "{count}");
    assert_eq!(storage.load()?, messages(1..=count, LEN));

    // The removal of a message takes room in the log. Without it, all stay.
    let mut first = 1;
    for sequence in 1..=5 {
        match storage.apply(&[remove_to(sequence)]) {
            Ok(()) => first = sequence + 1,
            Err(error) => drop(fails(Err::<(), _>(error), StorageErrorKind::Full)),
        }
        assert_eq!(storage.load()?, messages(first..=count, LEN));
    }
    drop(storage);
    let mut storage = SqliteStorage::open(&path)?;
    assert_eq!(storage.load()?, messages(first..=count, LEN));

    // A large body has no room either, and leaves nothing behind.
    let large = Change::Pushed {
        to: bob(),
        sequence: count + 1,
        message: message(count + 1, 10 << 20),
    };
    fails(storage.apply(&[large]), StorageErrorKind::Full);
    assert_eq!(storage.load()?, messages(first..=count, LEN));

    // With room, it goes on: in the storage that was refused before.
    let place = folder.display().to_string();
    run(["mount", "-o", "remount,size=30m", &place]);
    for sequence in count + 1..=count + 50 {
        storage.apply(&[push(sequence, LEN)])?;
    }
    drop(storage);
    let mut storage = SqliteStorage::open(&path)?;
    assert_eq!(storage.load()?, messages(first..=count + 50, LEN));
    println!("{count} messages in a file system of 6 MiB");
    Ok(())
}

#[test]
fn no_room_for_a_new_file_is_an_error() {
    let folder = tempfile::tempdir().expect("a folder");
    process_in_file_system("full::the_process_without_room", folder.path(), "40k");
}

#[test]
fn the_process_without_room() -> Outcome {
    let Some(folder) = path_of_child() else {
        return Ok(());
    };
    let path = folder.join("peer.sqlite");
    for filler in [40_960, 30_000, 20_000, 10_000, 5_000] {
        let _full = fs::write(folder.join("filler"), vec![1; filler]);
        fails(SqliteStorage::open(&path), StorageErrorKind::Full);
    }
    fs::remove_file(folder.join("filler"))?;
    let place = folder.display().to_string();
    run(["mount", "-o", "remount,size=30m", &place]);
    let mut storage = SqliteStorage::open(&path)?;
    storage.apply(&[push(1, 10)])?;
    Ok(())
}

#[test]
fn a_file_that_may_not_grow_is_an_error_and_loses_nothing() -> Outcome {
    let file = File::new();
    // The limit of a file in units of 512 bytes. Its excess is an error and no signal.
    let script = "trap '' XFSZ; ulimit -f 4096; exec \"$0\" \"$@\"";
    let test = "full::the_process_with_a_limit";
    let output = process(test, &file.path, &["sh", "-c", script]).output()?;
    let said = passed(&output).ok_or("not started")?;
    let mut count = said.lines().filter_map(|line| line.strip_prefix("stored "));
    let count: u64 = count.next_back().ok_or("nothing was stored")?.parse()?;
    assert_eq!(file.load()?, messages(1..=count, LEN));
    Ok(())
}

#[test]
fn the_process_with_a_limit() -> Outcome {
    let Some(path) = path_of_child() else {
        return Ok(());
    };
    let mut storage = SqliteStorage::open(&path)?;
    let count = fill(&mut storage, StorageErrorKind::Io);
    assert!(count > 50, "{count}");
    assert_eq!(storage.load()?, messages(1..=count, LEN));
    println!("stored {count}");
    Ok(())
}
