//! Reading messages from the standard input, on a thread of its own.

use std::{
    fs::File,
    io::{self, BufRead, BufReader, IsTerminal as _, Read},
    thread,
};

use tokio::sync::mpsc;

use super::Format;
use crate::{
    failure::{Failure, Outcome},
    note,
};

/// The size of the buffer of the standard input, in bytes.
const BUFFER: usize = 256 << 10;

/// The most of a batch. A single message may be larger.
const BATCH_MESSAGES: usize = 256;
const BATCH_BYTES: usize = 256 << 10;

/// The largest message, in bytes: RabbitMQ accepts no more
/// (<https://www.rabbitmq.com/docs/configure>, `max_message_size`).
pub(crate) const MESSAGE_MAX: usize = 512 << 20;

/// A message of the input, undecoded.
#[derive(Debug)]
pub(crate) struct Record {
    /// Its number, from 1. For lines, that of the line.
    pub(crate) number: u64,
    pub(crate) bytes: Vec<u8>,
    /// The bytes that it has taken of the input.
    pub(crate) consumed: usize,
}

pub(crate) type Batch = Vec<Record>;

/// The messages of the standard input. The batches end with the input, or with an error.
///
/// At most two batches wait, so memory is bounded by the size of the messages, not by their number.
pub(crate) fn read(format: Format) -> Outcome<mpsc::Receiver<Outcome<Batch>>> {
    if io::stdin().is_terminal() {
        note!("reading from the terminal, until Ctrl-D");
    }
    let (sender, receiver) = mpsc::channel(1);
    // Not a task: it may be blocked in a read when the program ends.
    let thread = thread::Builder::new().name("input".into());
    thread
        .spawn(move || {
            let input = BufReader::with_capacity(BUFFER, io::stdin());
            let mut records = Records {
                input,
                format,
                number: 0,
            };
            loop {
                let batch = records.next_batch();
                let is_last = !matches!(&batch, Ok(batch) if !batch.is_empty());
                if matches!(&batch, Ok(batch) if batch.is_empty()) {
                    return;
                }
                if sender.blocking_send(batch).is_err() || is_last {
                    return;
                }
            }
        })
        .map_err(|error| Failure::failed(format_args!("cannot start a thread: {error}")))?;
    Ok(receiver)
}

struct Records<R> {
    input: BufReader<R>,
    format: Format,
    number: u64,
}

impl<R: Read> Records<R> {
    /// The messages that can be had without waiting for more of the input, but at least one, if
    /// there is one. An empty batch is the end.
    fn next_batch(&mut self) -> Outcome<Batch> {
        let (mut batch, mut size) = (Vec::new(), 0);
        while batch.len() < BATCH_MESSAGES && size < BATCH_BYTES {
            let Some(record) = self.next_record()? else {
                break;
            };
            size += record.consumed;
            batch.push(record);
            if !self.has_whole_record() {
                break;
            }
        }
        Ok(batch)
    }

    /// Whether the buffer has a whole message.
    fn has_whole_record(&self) -> bool {
        self.delimiter()
            .is_some_and(|end| self.input.buffer().contains(&end))
    }

    fn next_record(&mut self) -> Outcome<Option<Record>> {
        loop {
            let Some(record) = self.read_record()? else {
                return Ok(None);
            };
            let is_blank = record.bytes.iter().all(u8::is_ascii_whitespace);
            if self.format != Format::Json || !is_blank {
                return Ok(Some(record));
            }
        }
    }

    fn read_record(&mut self) -> Outcome<Option<Record>> {
        if self.format == Format::Raw && self.number > 0 {
            return Ok(None);
        }
        let failed = |error| Failure::failed(format_args!("cannot read the input: {error}"));
        let mut bytes = Vec::new();
        let limit = MESSAGE_MAX as u64 + 2;
        let mut limited = (&mut self.input).take(limit);
        let consumed = match delimiter(self.format) {
            Some(end) => limited.read_until(end, &mut bytes),
            None => limited.read_to_end(&mut bytes),
        };
        let consumed = consumed.map_err(failed)?;
        // An empty raw input is a message with an empty body.
        if consumed == 0 && self.format != Format::Raw {
            return Ok(None);
        }
        self.number += 1;
        if bytes.len() > MESSAGE_MAX + 1 {
            return Err(Failure::usage(format_args!(
                "message {} of the input has more than {MESSAGE_MAX} bytes",
                self.number
            )));
        }
        if bytes.last().copied() == delimiter(self.format) {
            bytes.pop();
        }
        Ok(Some(Record {
            number: self.number,
            bytes,
            consumed,
        }))
    }

    const fn delimiter(&self) -> Option<u8> {
        delimiter(self.format)
    }
}

/// The end of a message.
const fn delimiter(format: Format) -> Option<u8> {
    match format {
        Format::Raw => None,
        Format::Lines | Format::Json => Some(b'\n'),
        Format::Nul => Some(0),
    }
}

/// The length of the standard input, in bytes. `Some` if it is a file.
pub(crate) fn length() -> Option<u64> {
    #[cfg(unix)]
    {
        let metadata = metadata()?;
        (metadata.is_file() && metadata.len() > 0).then_some(metadata.len())
    }
    #[cfg(not(unix))]
    None
}

/// Whether a file is the one that the standard input reads. False where that is not known.
pub(crate) fn is_file(file: &File) -> bool {
    #[cfg(unix)]
    {
        use std::os::unix::fs::MetadataExt as _;
        let (Some(input), Ok(file)) = (metadata(), file.metadata()) else {
            return false;
        };
        file.is_file() && (input.dev(), input.ino()) == (file.dev(), file.ino())
    }
    #[cfg(not(unix))]
    {
        let _unknown = file;
        false
    }
}

/// The metadata of the standard input.
#[cfg(unix)]
fn metadata() -> Option<std::fs::Metadata> {
    use std::os::fd::AsFd as _;
    let input = io::stdin().as_fd().try_clone_to_owned().ok()?;
    File::from(input).metadata().ok()
}

#[cfg(test)]
mod tests {
    use std::io::BufReader;

    use super::{Format, Records};

    fn bodies(format: Format, input: &[u8]) -> Vec<Vec<u8>> {
        let mut records = Records {
            // Smaller than a message.
            input: BufReader::with_capacity(3, input),
            format,
            number: 0,
        };
        let mut bodies = Vec::new();
        loop {
            let batch = records.next_batch().expect("no fault");
            if batch.is_empty() {
                return bodies;
            }
            bodies.extend(batch.into_iter().map(|record| record.bytes));
        }
    }

    #[test]
    fn lines_end_with_newlines_and_the_last_may_have_none() {
        assert_eq!(
            bodies(Format::Lines, b"one\n\ntwo"),
            [&b"one"[..], b"", b"two"]
        );
        assert_eq!(bodies(Format::Lines, b"one\n"), [b"one"]);
        assert!(bodies(Format::Lines, b"").is_empty());
    }

    #[test]
    fn bodies_with_nul_ends_may_have_newlines() {
        assert_eq!(
            bodies(Format::Nul, b"a\nb\0\xff\0"),
            [&b"a\nb"[..], b"\xff"]
        );
    }

    #[test]
    fn the_raw_input_is_one_message_even_if_it_is_empty() {
        assert_eq!(bodies(Format::Raw, b"a\nb\0"), [b"a\nb\0"]);
        assert_eq!(bodies(Format::Raw, b""), [b""]);
    }

    #[test]
    fn blank_lines_between_json_are_no_messages() {
        assert_eq!(bodies(Format::Json, b"{}\n\n  \n{}"), [b"{}", b"{}"]);
    }
}
