//! How fast the storage in a file is on this disk: messages per second by the size of batches, and
//! the time and the memory of one large message.
//!
//! ```sh
//! cargo run --release -p amqp-peer --example storage_speed -- [FOLDER]
//! ```
#![allow(missing_docs)]

use std::{
    env,
    error::Error,
    fs,
    path::{Path, PathBuf},
    time::Instant,
};

use amqp_peer::{
    Message, MessageId, PeerName,
    storage::{Change, SqliteStorage, Storage, StoredMessage},
};

type Outcome<T = ()> = Result<T, Box<dyn Error>>;

fn push(to: &PeerName, sequence: u64, body: &bytes::Bytes) -> Change {
    Change::Pushed {
        to: to.clone(),
        sequence,
        message: StoredMessage {
            id: MessageId::from_bytes(u128::from(sequence).to_be_bytes()),
            body: body.clone().into(),
            properties: Message::default().persistent().to_wire(),
            expires_at: None,
        },
    }
}

/// Messages per second of batches, as a sender has them, which pushes and removes, and as a
/// receiver has them, which notes and forgets.
fn batches(path: &Path, size: u64, count: u64, len: usize) -> Outcome {
    let bob: PeerName = "bob".parse()?;
    let body = bytes::Bytes::from(vec![7; len]);
    let mut storage = SqliteStorage::open(path)?;
    storage.load()?;
    let per_second = |start: Instant| count as f64 / start.elapsed().as_secs_f64();

    let start = Instant::now();
    for first in (0..count).step_by(size as usize) {
        let batch: Vec<Change> = (first..first + size)
            .map(|it| push(&bob, it, &body))
            .collect();
        storage.apply(&batch)?;
    }
    let pushed = per_second(start);

    drop(storage);
    let start = Instant::now();
    let mut storage = SqliteStorage::open(path)?;
    let loaded = storage.load()?.outbox.get(&bob).map_or(0, Vec::len);
    let opened = per_second(start);
    assert_eq!(loaded as u64, count);

    let start = Instant::now();
    for first in (0..count).step_by(size as usize) {
        let up_to = first + size - 1;
        storage.apply(&[Change::RemovedTo {
            to: bob.clone(),
            up_to,
        }])?;
    }
    let removed = per_second(start);

    let start = Instant::now();
    for first in (0..count).step_by(size as usize) {
        let mut batch: Vec<Change> = (first..first + size)
            .map(|position| Change::Accepted {
                from: bob.clone(),
                id: MessageId::from_bytes(u128::from(position).to_be_bytes()),
                position,
            })
            .collect();
        let below = (first + size).saturating_sub(1000);
        batch.push(Change::Forgotten {
            from: bob.clone(),
            below,
        });
        storage.apply(&batch)?;
    }
    let accepted = per_second(start);
    println!(
        "{len:6} bytes, batches of {size:5}: {pushed:9.0} pushed, {removed:9.0} removed, \
         {accepted:9.0} accepted, {opened:9.0} opened and loaded per second"
    );
    drop(storage);
    fs::remove_file(path)?;
    Ok(())
}

/// The most memory that this process has had, in MiB.
fn peak() -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kib: u64 = line.trim().trim_end_matches(" kB").parse().ok()?;
    Some(kib >> 10)
}

fn large(path: &Path, mib: usize) -> Outcome {
    let bob: PeerName = "bob".parse()?;
    let mut storage = SqliteStorage::open(path)?;
    let body = bytes::Bytes::from(vec![7; mib << 20]);
    let change = push(&bob, 1, &body);
    let before = peak();
    let start = Instant::now();
    storage.apply(&[change])?;
    let pushed = start.elapsed();
    let during = peak();
    drop((storage, body));
    let start = Instant::now();
    let mut storage = SqliteStorage::open(path)?;
    let opened = start.elapsed();
    let loaded = storage.load()?;
    let loaded = loaded.outbox.get(&bob).and_then(|queue| queue.first());
    let loaded = loaded.map_or(0, |(_, message)| message.body.len());
    assert_eq!(loaded, mib << 20);
    let both = start.elapsed();
    let start = Instant::now();
    storage.apply(&[Change::RemovedTo { to: bob, up_to: 1 }])?;
    let removed = start.elapsed();
    let size = fs::metadata(path)?.len() >> 10;
    println!(
        "one message of {mib} MiB: pushed in {pushed:.2?} (peak of memory {before:?} MiB before, \
         {during:?} after), opened in {opened:.2?}, loaded in {:.2?}, removed in {removed:.2?}, \
         which leaves a file of {size} KiB",
        both - opened
    );
    drop(storage);
    fs::remove_file(path)?;
    Ok(())
}

fn main() -> Outcome {
    let folder = env::args_os()
        .nth(1)
        .map_or_else(env::temp_dir, PathBuf::from);
    let path = folder.join(format!("storage_speed-{}.sqlite", std::process::id()));
    for (size, count) in [(1, 1000), (100, 50_000), (1000, 200_000), (10_000, 200_000)] {
        batches(&path, size, count, 5)?;
        batches(&path, size, count, 1000)?;
    }
    large(&path, 300)
}
