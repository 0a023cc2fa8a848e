//! The receiver: writes a record of each message, and accepts it.

use std::{collections::HashSet, fs::File, io::Write as _, path::Path};

use amqp_peer::{Config, Event, Received, storage::SqliteStorage};

use super::{
    RECORDS,
    record::{self, Number, Record},
};
use crate::{
    Result,
    process::{Role, argument, block_on, end_of_input},
};

pub(crate) fn run(arguments: &[String]) -> Result {
    block_on(1, receive(arguments))?
}

/// Prints `given ID REPEATED KNOWN` for each message: whether it is marked as repeated, and whether it
/// has a record.
async fn receive(arguments: &[String]) -> Result {
    let folder: String = argument(arguments, 0)?;
    let role = Role::of(&arguments[1])?;
    let port = argument(arguments, 2)?;
    let mut records = Records::open(&Path::new(&folder).join(RECORDS))?;
    let storage = SqliteStorage::open(format!("{folder}/receiver.db"))?;
    let config = Config::new("receiver")?;
    let (peer, mut events) = amqp_peer::tokio::start(config.storage(storage))?;
    role.play(&peer, port).await?;
    let mut input = end_of_input();
    loop {
        tokio::select! {
            event = events.next() => match event.ok_or("the peer has stopped")? {
                Event::Received(received) => records.take(received)?,
                Event::Dropped(dropped) => return Err(format!("{dropped:?}").into()),
                _ => {}
            },
            _ = &mut input => break,
        }
    }
    peer.stop().await;
    Ok(())
}

/// The records, in a file.
struct Records {
    file: File,
    known: HashSet<[u8; 16]>,
}

impl Records {
    fn open(path: &Path) -> Result<Self> {
        let records = record::read(path)?;
        let file = File::options().append(true).create(true).open(path)?;
        // A last one that was cut off.
        file.set_len((records.len() * record::LEN) as u64)?;
        let known = records.iter().map(|record| *record.id.as_bytes());
        Ok(Self {
            file,
            known: known.collect(),
        })
    }

    /// Writes the record of a message unless it has one, and accepts the message.
    fn take(&mut self, received: Received) -> Result {
        let id = received.id;
        let number = Number::of_body(&received.message.body.to_vec())?;
        let is_known = !self.known.insert(*id.as_bytes());
        println!("given {id} {} {is_known}", received.is_repeated);
        if !is_known {
            self.file.write_all(&Record { id, number }.to_bytes())?;
        }
        received.accept();
        Ok(())
    }
}
