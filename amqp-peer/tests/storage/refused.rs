//! Files that are refused: read-only, foreign, of a later version, open already.

use std::{
    fs, io,
    os::unix::{fs::PermissionsExt as _, process::CommandExt as _},
    path::Path,
    sync::Barrier,
};

use amqp_peer::storage::{SqliteStorage, Storage, StorageErrorKind};
use rusqlite::Connection;

use super::data::{
    File, Outcome, fails, messages, passed, path_of_child, process, process_in_file_system, push,
    run,
};

/// The bytes of all files of a folder, by name.
fn contents(folder: &Path) -> io::Result<Vec<(String, Vec<u8>)>> {
    let files = fs::read_dir(folder)?.map(|entry| {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        Ok((name, fs::read(entry.path())?))
    });
    let mut files = files.collect::<io::Result<Vec<_>>>()?;
    files.sort();
    Ok(files)
}

/// The user id of `nobody`. File permissions hold for it, and do not hold for root.
const NOBODY: u32 = 65_534;

#[test]
fn a_read_only_file_or_folder_is_an_error() -> Outcome {
    let folder = tempfile::tempdir()?;
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o777))?;
    let mut process = process("refused::the_process_with_permissions", folder.path(), &[]);
    let mut probe = std::process::Command::new("true");
    if probe.uid(NOBODY).status().is_ok() {
        process.uid(NOBODY);
    }
    match process.output() {
        Ok(output) => drop(passed(&output)),
        // The program is where only root can read it.
        Err(error) => eprintln!("not checked: {error}"),
    }
    Ok(())
}

#[test]
fn the_process_with_permissions() -> Outcome {
    let Some(folder) = path_of_child() else {
        return Ok(());
    };
    let permit = |path: &Path, mode| fs::set_permissions(path, fs::Permissions::from_mode(mode));
    let inner = folder.join("inner");
    fs::create_dir(&inner)?;
    let path = inner.join("peer.sqlite");
    SqliteStorage::open(&path)?.apply(&[push(1, 10)])?;

    permit(&path, 0o444)?;
    let before = contents(&inner)?;
    fails(SqliteStorage::open(&path), StorageErrorKind::ReadOnly);
    assert_eq!(contents(&inner)?, before);
    permit(&path, 0o644)?;
    assert_eq!(SqliteStorage::open(&path)?.load()?, messages([1], 10));

    permit(&inner, 0o555)?;
    fails(SqliteStorage::open(&path), StorageErrorKind::ReadOnly);
    fails(
        SqliteStorage::open(inner.join("new")),
        StorageErrorKind::ReadOnly,
    );
    permit(&inner, 0o755)?;
    assert_eq!(contents(&inner)?, before);

    // The log is as much of a file as the other.
    let mut storage = SqliteStorage::open(&path)?;
    storage.apply(&[push(2, 10)])?;
    permit(&path, 0o444)?;
    permit(&inner, 0o555)?;
    storage.apply(&[push(3, 10)])?;
    drop(storage);
    permit(&inner, 0o755)?;
    permit(&path, 0o644)?;
    assert_eq!(SqliteStorage::open(&path)?.load()?, messages(1..=3, 10));

    permit(&path, 0)?;
    let error = SqliteStorage::open(&path).err().ok_or("it is open")?;
    assert!(error.to_string().contains("peer.sqlite"), "{error}");
    permit(&path, 0o644)?;
    assert_eq!(SqliteStorage::open(&path)?.load()?, messages(1..=3, 10));
    Ok(())
}

#[test]
fn a_read_only_file_system_is_an_error() {
    let folder = tempfile::tempdir().expect("a folder");
    process_in_file_system(
        "refused::the_process_on_a_read_only_disk",
        folder.path(),
        "6m",
    );
}

#[test]
fn the_process_on_a_read_only_disk() -> Outcome {
    let Some(folder) = path_of_child() else {
        return Ok(());
    };
    let path = folder.join("peer.sqlite");
    let remount = |options: &str| {
        let options = format!("remount,{options}");
        run(["mount", "-o", &options, &folder.display().to_string()]);
    };
    SqliteStorage::open(&path)?.apply(&[push(1, 10)])?;
    let before = contents(&folder)?;
    remount("ro");
    fails(SqliteStorage::open(&path), StorageErrorKind::ReadOnly);
    fails(
        SqliteStorage::open(folder.join("new")),
        StorageErrorKind::ReadOnly,
    );
    assert_eq!(contents(&folder)?, before);
    remount("rw");
    let mut storage = SqliteStorage::open(&path)?;
    assert_eq!(storage.load()?, messages([1], 10));
    storage.apply(&[push(2, 10)])?;
    Ok(())
}

#[test]
fn a_folder_that_is_none_is_an_error() -> Outcome {
    let folder = tempfile::tempdir()?;
    let error = fails(SqliteStorage::open(folder.path()), StorageErrorKind::Io);
    assert_eq!(error.path(), Some(folder.path()));
    fails(
        SqliteStorage::open(folder.path().join("none/peer")),
        StorageErrorKind::Io,
    );
    fs::write(folder.path().join("file"), "")?;
    fails(
        SqliteStorage::open(folder.path().join("file/peer")),
        StorageErrorKind::Io,
    );
    assert!(SqliteStorage::open("").is_err());
    assert_eq!(contents(folder.path())?, [("file".into(), Vec::new())]);
    Ok(())
}

#[test]
fn names_that_sqlite_gives_a_sense_are_files() -> Outcome {
    let folder = tempfile::tempdir()?;
    for name in [":memory:", "file:a?mode=memory", "a b?c#d%20", "ü"] {
        let path = folder.path().join(name);
        SqliteStorage::open(&path)?.apply(&[push(1, 10)])?;
        assert!(path.is_file(), "{name}");
        assert_eq!(SqliteStorage::open(&path)?.load()?, messages([1], 10));
    }
    Ok(())
}

#[test]
fn a_database_of_another_program_stays_as_it_is() -> Outcome {
    for mode in ["delete", "wal"] {
        let file = File::new();
        let other = Connection::open(&file.path)?;
        let sql = format!(
            "PRAGMA journal_mode = {mode}; PRAGMA wal_autocheckpoint = 0;
             CREATE TABLE messages (text); INSERT INTO messages VALUES ('kept')"
        );
        other.execute_batch(&sql)?;
        if mode == "wal" {
            // In use, with a log that was not moved yet.
            let error = fails(file.open(), StorageErrorKind::Locked);
            assert!(error.to_string().contains("open already"), "{error}");
        }
        other.set_db_config(
            rusqlite::config::DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE,
            true,
        )?;
        drop(other);
        let before = contents(file.folder.path())?;
        let error = fails(file.open(), StorageErrorKind::Foreign);
        assert!(error.to_string().contains("another program"), "{error}");
        let after = contents(file.folder.path())?;
        let without_index = |files: Vec<(String, Vec<u8>)>| {
            let files = files
                .into_iter()
                .filter(|(name, _)| !name.ends_with("-shm"));
            files.collect::<Vec<_>>()
        };
        assert_eq!(without_index(after), without_index(before));
        let other = Connection::open(&file.path)?;
        let text: String = other.query_row("SELECT text FROM messages", [], |row| row.get(0))?;
        assert_eq!(text, "kept");
    }
    Ok(())
}

#[test]
fn a_file_that_is_no_database_stays_as_it_is() -> Outcome {
    let texts = [
        "no database, but a text. ".repeat(1000),
        "short".into(),
        "\0".repeat(8192),
    ];
    for text in texts {
        let file = File::new();
        fs::write(&file.path, &text)?;
        fails(file.open(), StorageErrorKind::Foreign);
        assert_eq!(
            contents(file.folder.path())?,
            [("peer.sqlite".into(), text.into_bytes())]
        );
    }
    Ok(())
}

#[test]
fn an_empty_file_is_a_new_storage() -> Outcome {
    let file = File::new();
    fs::write(&file.path, "")?;
    file.open()?.apply(&[push(1, 10)])?;
    assert_eq!(file.load()?, messages([1], 10));
    Ok(())
}

#[test]
fn a_file_of_a_later_version_stays_as_it_is() -> Outcome {
    let file = File::new();
    file.open()?.apply(&[push(1, 10)])?;
    let later = Connection::open(&file.path)?;
    later.execute_batch("ALTER TABLE messages ADD COLUMN more TEXT; PRAGMA user_version = 2")?;
    drop(later);
    let before = contents(file.folder.path())?;
    let kind = StorageErrorKind::Version { found: 2, known: 1 };
    let error = fails(file.open(), kind);
    assert!(
        error
            .to_string()
            .contains("has the version 2, but at most 1 is known"),
        "{error}"
    );
    let mut after = contents(file.folder.path())?;
    after.retain(|(name, bytes)| name == "peer.sqlite" || !bytes.is_empty());
    assert_eq!(after, before);
    Ok(())
}

#[test]
fn a_file_with_other_tables_is_damaged() -> Outcome {
    for sql in [
        "PRAGMA user_version = 0",
        "ALTER TABLE messages ADD COLUMN more TEXT",
        "DROP TABLE clocks",
        "CREATE TRIGGER evil AFTER INSERT ON messages BEGIN DELETE FROM messages; END",
        "CREATE INDEX more ON messages (id)",
    ] {
        let file = File::new();
        file.open()?.apply(&[push(1, 10)])?;
        Connection::open(&file.path)?.execute_batch(sql)?;
        fails(file.open(), StorageErrorKind::Damaged);
    }
    Ok(())
}

#[test]
fn a_file_is_open_once() -> Outcome {
    let file = File::new();
    let mut storage = file.open()?;
    fails(file.open(), StorageErrorKind::Locked);
    storage.apply(&[push(1, 10)])?;
    fails(file.open(), StorageErrorKind::Locked);
    let test = "refused::the_process_that_is_second";
    let said = passed(&process(test, &file.path, &[]).output()?);
    assert!(said.is_some_and(|said| said.contains("is open already")));
    storage.apply(&[push(2, 10)])?;
    drop(storage);
    assert_eq!(file.load()?, messages([1, 2], 10));
    Ok(())
}

#[test]
fn the_process_that_is_second() {
    if let Some(path) = path_of_child() {
        let error = fails(SqliteStorage::open(path), StorageErrorKind::Locked);
        println!("{error}");
    }
}

#[test]
fn of_many_that_open_a_file_at_once_one_does() -> Outcome {
    const ROUNDS: usize = 40;
    const THREADS: usize = 4;
    let mut file = File::new();
    for round in 0..ROUNDS {
        // In every other round, the file is there already.
        if round % 2 == 0 {
            file = File::new();
        }
        let start = Barrier::new(THREADS);
        let opened: Vec<_> = std::thread::scope(|scope| {
            let open = || {
                start.wait();
                file.open()
            };
            let threads: Vec<_> = (0..THREADS).map(|_| scope.spawn(open)).collect();
            threads
                .into_iter()
                .map(|thread| thread.join().expect("no panic"))
                .collect()
        });
        let open = opened.iter().filter(|opened| opened.is_ok()).count();
        assert_eq!(open, 1);
        for refused in opened.into_iter().filter(Result::is_err) {
            fails(refused, StorageErrorKind::Locked);
        }
    }
    Ok(())
}
