//! Damage of the files, wherever it is.

use std::{fs, time::Duration};

use amqp_peer::{
    PeerName,
    storage::{Change, Storage, StorageErrorKind, Stored, WallTime},
};

use super::data::{File, Outcome, accept, fails, id, messages, push, remove_to};

const PAGE: usize = 4096;

/// A file with rows of all kinds, of which no page is free. Returns its contents.
fn written(file: &File) -> Result<Stored, Box<dyn std::error::Error>> {
    let mut storage = file.open()?;
    for sequence in 1..=60 {
        let len = match sequence % 4 {
            0 => 20_000,
            1 => 3000,
            _ => 50,
        };
        storage.apply(&[push(sequence, len)])?;
    }
    // In parts.
    storage.apply(&[push(61, (1 << 20) + 5000)])?;
    let accepted: Vec<Change> = (0..500).map(accept).collect();
    storage.apply(&accepted)?;
    for number in 0..200 {
        let name: PeerName = format!("peer with a clock {number}").parse()?;
        storage.apply(&[Change::Clock {
            name,
            disconnected: Duration::from_secs(number),
            since: Some(WallTime(Duration::from_secs(number))),
        }])?;
    }
    Ok(storage.load()?)
}

#[test]
fn a_page_that_is_overwritten_is_an_error_or_of_no_matter() -> Outcome {
    let file = File::new();
    let stored = written(&file)?;
    let sound = fs::read(&file.path)?;
    assert!(!file.log().exists());
    let noise: Vec<u8> = (0..PAGE as u32)
        .map(|it| (it.wrapping_mul(2_654_435_761) >> 24) as u8)
        .collect();
    let fills = [&noise[..], &[0; PAGE], &[255; PAGE]];
    let mut unnoticed = 0;
    let pages = sound.len() / PAGE;
    for (page, fill) in (0..pages).zip(fills.iter().cycle()) {
        let mut damaged = sound.clone();
        damaged[page * PAGE..][..PAGE].copy_from_slice(fill);
        fs::write(&file.path, &damaged)?;
        match file.load() {
            // A page of which not a byte is in use.
            Ok(loaded) => {
                assert_eq!(loaded, stored, "page {page}");
                unnoticed += 1;
            }
            Err(error) => {
                let is_first = page == 0 && error.kind() == StorageErrorKind::Foreign;
                if !is_first {
                    fails(Err::<(), _>(error), StorageErrorKind::Damaged);
                }
                assert_eq!(fs::read(&file.path)?, damaged, "page {page}");
                let log = fs::read(file.log()).unwrap_or_default();
                assert!(log.is_empty(), "page {page}");
            }
        }
    }
    println!("{pages} pages, {unnoticed} unnoticed");
    assert_eq!(unnoticed, 0);
    fs::write(&file.path, &sound)?;
    assert_eq!(file.load()?, stored);
    Ok(())
}

#[test]
fn a_byte_that_is_altered_in_a_message_is_an_error() -> Outcome {
    let file = File::new();
    written(&file)?;
    let sound = fs::read(&file.path)?;
    // In a row, in the pages after one, in a part, and in the properties.
    let text = |text: &str| {
        let found = sound
            .windows(text.len())
            .rposition(|bytes| bytes == text.as_bytes());
        found.ok_or("no such text")
    };
    let id = (0..1 << 20).rfind(|place| sound[*place..].starts_with(&id(7).as_bytes()[..]));
    for place in [
        text("message 2 ")?,
        text("message 60 ")?,
        text("message 61 ")?,
        id.ok_or("no such id")?,
    ] {
        for bit in 0..8 {
            let mut damaged = sound.clone();
            damaged[place] ^= 1 << bit;
            fs::write(&file.path, &damaged)?;
            let mut storage = file.open()?;
            let error = fails(storage.load(), StorageErrorKind::Damaged);
            assert!(error.to_string().contains("is altered"), "{error}");
            // Nothing is written then.
            fails(storage.apply(&[remove_to(100)]), StorageErrorKind::Damaged);
            drop(storage);
            assert_eq!(fs::read(&file.path)?, damaged);
        }
    }
    Ok(())
}

#[test]
fn a_file_that_is_cut_is_an_error() -> Outcome {
    let file = File::new();
    let stored = written(&file)?;
    let sound = fs::read(&file.path)?;
    let pages = sound.len() / PAGE;
    let mut lengths: Vec<usize> = (1..pages).step_by(pages / 20).map(|it| it * PAGE).collect();
    // SQLite takes a file of one byte for an empty one.
    lengths.extend([2, 15, 16, 99, 100, 511, 512, 1024, PAGE - 1, PAGE, PAGE + 1]);
    lengths.extend([sound.len() - 1, sound.len() - 512, sound.len() - PAGE]);
    for len in lengths {
        fs::write(&file.path, &sound[..len])?;
        match file.load() {
            // Without a byte that is in use.
            Ok(loaded) => assert_eq!((len > sound.len() - PAGE, &loaded), (true, &stored)),
            Err(error) => assert!(
                matches!(
                    error.kind(),
                    StorageErrorKind::Damaged | StorageErrorKind::Foreign
                ),
                "{len}: {error}"
            ),
        }
        assert_eq!(fs::read(&file.path)?.len(), len);
    }
    // Bytes behind the end do not belong to it.
    fs::write(&file.path, [&sound[..], &[7; 1000]].concat())?;
    assert_eq!(file.load()?, stored);
    Ok(())
}

/// The file and the log of a storage that was killed after batches of one message.
fn killed(file: &File, batches: u64) -> Result<(Vec<u8>, Vec<u8>), Box<dyn std::error::Error>> {
    let mut storage = file.open()?;
    for sequence in 1..=batches {
        storage.apply(&[push(sequence, 100)])?;
    }
    let files = (fs::read(&file.path)?, fs::read(file.log())?);
    drop(storage);
    Ok(files)
}

#[test]
fn a_log_that_is_damaged_or_cut_ends_there() -> Outcome {
    const BATCHES: u64 = 20;
    let file = File::new();
    let (main, log) = killed(&file, BATCHES)?;
    let restore =
        |log: &[u8]| fs::write(&file.path, &main).and_then(|()| fs::write(file.log(), log));
    restore(&log)?;
    assert_eq!(file.load()?, messages(1..=BATCHES, 100));
    let mut counts = Vec::new();
    for place in (0..log.len()).step_by(log.len() / 40) {
        let mut damaged = log.clone();
        damaged[place] ^= 255;
        for log in [&damaged[..], &log[..place]] {
            restore(log)?;
            match file.load() {
                // Whole batches from the first on.
                Ok(stored) => {
                    let count = stored.outbox.values().map(Vec::len).sum::<usize>() as u64;
                    assert_eq!(stored, messages(1..=count, 100));
                    counts.push(count);
                }
                Err(error) => assert_eq!(error.kind(), StorageErrorKind::Damaged, "{error}"),
            }
        }
    }
    assert!(counts.contains(&0) && counts.contains(&10), "{counts:?}");
    Ok(())
}

#[test]
fn a_log_without_its_file_is_an_error_and_stays() -> Outcome {
    let file = File::new();
    let (main, log) = killed(&file, 20)?;
    for empty in [false, true] {
        fs::write(file.log(), &log)?;
        fs::remove_file(&file.path)?;
        if empty {
            fs::write(&file.path, "")?;
        }
        fails(file.open(), StorageErrorKind::Damaged);
        assert_eq!(fs::read(file.log())?, log);
        fs::write(&file.path, &main)?;
        assert_eq!(file.load()?, messages(1..=20, 100));
    }
    Ok(())
}
