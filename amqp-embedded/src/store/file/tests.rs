//! The file of a store: its bindings, and files of other formats.

use std::{
    error::Error,
    time::{Duration, Instant},
};

use amqp_broker::DurableQueue;
use amqp_core::wire::ShortStr;
use amqp_tokio::{
    LocalBroker,
    protocol::{exchange, queue},
};
use redb::{MultimapTableDefinition, TableHandle as _};

use super::*;

type Outcome = Result<(), Box<dyn Error>>;

/// The changes of a declared and bound queue.
#[tokio::main(flavor = "current_thread")]
async fn bound() -> Result<(DurableQueue, DurableBinding), Box<dyn Error>> {
    let broker = LocalBroker::default();
    let connection = broker.connect(amqp_tokio::Config::default()).await?;
    let channel = connection.open_channel().await?;
    let declare = queue::Declare::default().queue("q").durable(true);
    channel.call(declare).await?;
    let declare = exchange::Declare::default().exchange("e").kind("fanout");
    channel.call(declare.durable(true)).await?;
    let bind = queue::Bind::default().queue("q").exchange("e");
    channel.call(bind).await?;
    let (mut queue, mut binding) = (None, None);
    for change in broker.with(|broker| broker.snapshot()) {
        match change {
            Change::QueueDeclared(declared) => queue = Some(declared),
            Change::Bound(bound) => binding = Some(bound),
            _ => {}
        }
    }
    queue.zip(binding).ok_or_else(|| "not durable".into())
}

/// Queues with those numbers, each with a binding from `source`.
fn queues(count: u64, source: &str) -> Result<Vec<Change>, Box<dyn Error>> {
    let (mut queue, mut binding) = bound()?;
    let mut changes = Vec::new();
    for number in 0..count {
        queue.number = number;
        queue.name = ShortStr::try_from(number.to_string())?;
        binding.source = ShortStr::try_from(source)?;
        binding.destination = BindingTarget::Queue(queue.name.clone());
        changes.push(Change::QueueDeclared(queue.clone()));
        changes.push(Change::Bound(binding.clone()));
    }
    Ok(changes)
}

/// The time to delete 400 queues of `count`.
fn time_to_delete(count: u64) -> Result<Duration, Box<dyn Error>> {
    let folder = tempfile::tempdir()?;
    let (file, _) = StoreFile::open(&folder.path().join("broker"))?;
    file.write(&queues(count, "e")?)?;
    let deleted = (0..400).map(|queue| Change::QueueDeleted { queue });
    let deleted: Vec<Change> = deleted.collect();
    let start = Instant::now();
    file.write(&deleted)?;
    let time = start.elapsed();
    let records = file.records().map_err(|problem| problem.to_string())?;
    assert_eq!(records.len() as u64, 2 * (count - 400));
    Ok(time)
}

#[test]
fn a_deletion_takes_no_longer_among_many_bindings() -> Outcome {
    let mut ratios = Vec::new();
    // A busy disk may delay either.
    for _ in 0..10 {
        let (few, many) = (time_to_delete(500)?, time_to_delete(5000)?);
        let ratio = many.as_secs_f64() / few.as_secs_f64();
        // Ten, if it depends on the number of bindings.
        if ratio < 4.0 {
            return Ok(());
        }
        ratios.push(ratio);
    }
    Err(format!("{ratios:?} times as long").into())
}

#[test]
fn bindings_are_removed_with_either_end() -> Outcome {
    let folder = tempfile::tempdir()?;
    let (file, _) = StoreFile::open(&folder.path().join("broker"))?;
    let mut changes = Vec::new();
    for source in ["", "a", "a\0", "b"] {
        changes.extend(queues(2, source)?);
    }
    let (_, mut binding) = bound()?;
    for (source, destination) in [("a", "b"), ("b", "a"), ("b", "0")] {
        binding.source = source.try_into()?;
        binding.destination = BindingTarget::Exchange(destination.try_into()?);
        changes.push(Change::Bound(binding.clone()));
    }
    file.write(&changes)?;
    let left = || {
        let records = file.records().map_err(|problem| problem.to_string())?;
        let mut left = Vec::new();
        for record in records {
            if let Change::Bound(binding) = Change::decode(&record)? {
                let (kind, name) = kind_and_name(&binding.destination);
                left.push(format!("{}>{kind}{name}", binding.source.escape_debug()));
            }
        }
        Ok::<_, Box<dyn Error>>(left.join(" "))
    };
    let all = ">00 >01 a>00 a>01 a>1b a\\0>00 a\\0>01 b>00 b>01 b>10 b>1a";
    assert_eq!(left()?, all);
    file.write(&[Change::QueueDeleted { queue: 0 }])?;
    assert_eq!(left()?, ">01 a>01 a>1b a\\0>01 b>01 b>10 b>1a");
    let (vhost, name) = (binding.vhost.clone(), ShortStr::try_from("a")?);
    file.write(&[Change::ExchangeDeleted { vhost, name }])?;
    assert_eq!(left()?, ">01 a\\0>01 b>01 b>10");
    file.write(&[Change::Unbound(binding.clone())])?;
    assert_eq!(left()?, ">01 a\\0>01 b>01");
    Ok(())
}

/// The names of the tables of a file of redb.
fn table_names(path: &Path) -> Result<Vec<String>, Box<dyn Error>> {
    let read = Database::open(path)?.begin_read()?;
    let names = read.list_tables()?.map(|table| table.name().to_owned());
    Ok(names.collect())
}

#[test]
fn a_database_of_another_program_is_refused_as_it_is() -> Outcome {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("other");
    let texts = TableDefinition::<&str, &str>::new("texts");
    let other_about = TableDefinition::<&str, &str>::new("about");
    for table in [texts, other_about] {
        let other = Database::create(&path)?;
        let write = other.begin_write()?;
        write.open_table(table)?.insert("a", "b")?;
        write.commit()?;
        drop(other);
        let names = table_names(&path)?;
        let error = StoreFile::open(&path).err().ok_or("it is a store")?;
        assert!(matches!(error, StoreError::File { .. }), "{error}");
        assert_eq!(table_names(&path)?, names);
    }
    // A table of any kind.
    let path = folder.path().join("multimap");
    let other = Database::create(&path)?;
    let write = other.begin_write()?;
    write.open_multimap_table(MultimapTableDefinition::<u64, u64>::new("numbers"))?;
    write.commit()?;
    drop(other);
    let error = StoreFile::open(&path).err().ok_or("it is a store")?;
    assert!(error.to_string().contains("no store"), "{error}");
    assert!(table_names(&path)?.is_empty());
    Ok(())
}

#[test]
fn a_file_of_a_later_format_is_refused_as_it_is() -> Outcome {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("broker");
    let later = Database::create(&path)?;
    let write = later.begin_write()?;
    write.open_table(ABOUT)?.insert(FORMAT_KEY, FORMAT + 1)?;
    write.commit()?;
    drop(later);
    let error = StoreFile::open(&path).err().ok_or("it is opened")?;
    let StoreError::Format { found, known, .. } = error else {
        return Err(error.into());
    };
    assert_eq!((found, known), (FORMAT + 1, FORMAT));
    assert_eq!(table_names(&path)?, ["about"]);
    Ok(())
}
