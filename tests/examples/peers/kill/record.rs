//! Messages, and the records that a receiver keeps of them.

use std::{fs, io, path::Path};

use amqp_peer::MessageId;

use crate::Result;

/// A message of a sender: its process, counted from 1, and its number there, from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Number {
    pub(crate) process: u32,
    pub(crate) number: u64,
}

const HEAD: usize = 12;
const CHECKSUM: usize = 4;

impl Number {
    /// The body of the message: most are short, some take several frames.
    pub(crate) fn to_body(self) -> Vec<u8> {
        let padding = match self.number {
            it if it % 500 == 499 => 300 << 10,
            it if it % 20 == 19 => 5000,
            it => (it % 100) as usize,
        };
        let mut body = Vec::with_capacity(HEAD + padding + CHECKSUM);
        body.extend(self.process.to_be_bytes());
        body.extend(self.number.to_be_bytes());
        body.resize(HEAD + padding, self.number as u8);
        body.extend(crc32fast::hash(&body).to_be_bytes());
        body
    }

    /// Reads the body of a message.
    pub(crate) fn of_body(body: &[u8]) -> Result<Self> {
        let (content, checksum) = body.split_last_chunk().ok_or("a short body")?;
        if crc32fast::hash(content) != u32::from_be_bytes(*checksum) {
            return Err("a damaged body".into());
        }
        Self::of_head(content).ok_or_else(|| "a short body".into())
    }

    fn of_head(head: &[u8]) -> Option<Self> {
        let (process, rest) = head.split_first_chunk()?;
        let (number, _) = rest.split_first_chunk()?;
        Some(Self {
            process: u32::from_be_bytes(*process),
            number: u64::from_be_bytes(*number),
        })
    }
}

/// The record of a message.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Record {
    pub(crate) id: MessageId,
    pub(crate) number: Number,
}

/// The bytes of a record.
pub(crate) const LEN: usize = 16 + HEAD;

impl Record {
    pub(crate) fn to_bytes(self) -> Vec<u8> {
        let mut bytes = self.id.as_bytes().to_vec();
        bytes.extend(self.number.process.to_be_bytes());
        bytes.extend(self.number.number.to_be_bytes());
        bytes
    }
}

/// The whole records of a file. A last one that was cut off does not count.
pub(crate) fn read(file: &Path) -> Result<Vec<Record>> {
    let bytes = match fs::read(file) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
        bytes => bytes?,
    };
    let record = |bytes: &[u8]| {
        let (id, head) = bytes.split_first_chunk()?;
        Some(Record {
            id: MessageId::from_bytes(*id),
            number: Number::of_head(head)?,
        })
    };
    Ok(bytes.chunks_exact(LEN).filter_map(record).collect())
}
