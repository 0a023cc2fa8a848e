//! The account of all messages.

use std::{
    collections::{BTreeMap, HashSet},
    fmt,
    str::SplitWhitespace,
};

use super::record::{Number, Record};
use crate::Result;

/// The account, by the lines of both sides.
#[derive(Default)]
pub(crate) struct Account {
    /// The messages that were stored by the sender, by their ids.
    sent: BTreeMap<String, Number>,
    /// Those of which the sender knows that they were accepted, with the order in which it said so.
    delivered: BTreeMap<String, usize>,
    /// The number of those when the present process of the receiver was started.
    delivered_before: usize,
    /// The messages given to the present process of the receiver.
    given: HashSet<String>,
    /// The number of messages that were given to all its processes.
    total: usize,
    /// Those that were marked as repeated.
    repeated: usize,
    /// Those that had a record already.
    again: usize,
}

impl Account {
    /// Another process of the receiver is about to start. The lines of the last one are counted.
    pub(crate) fn receiver_starts(&mut self) {
        self.given.clear();
        self.delivered_before = self.delivered.len();
    }

    pub(crate) fn sender_lines(&mut self, lines: &[String]) -> Result {
        for line in lines {
            let mut words = line.split_whitespace();
            match words.next() {
                Some("sent") => {
                    let number = Number {
                        process: word(&mut words)?.parse()?,
                        number: word(&mut words)?.parse()?,
                    };
                    if let Some(id) = words.next() {
                        self.sent.insert(id.to_owned(), number);
                    }
                }
                Some("delivered") => {
                    let order = self.delivered.len();
                    // Said again by a process that was started before the removal was stored.
                    self.delivered
                        .entry(word(&mut words)?.to_owned())
                        .or_insert(order);
                }
                _ => {}
            }
        }
        Ok(())
    }

    pub(crate) fn receiver_lines(&mut self, lines: &[String]) -> Result {
        for line in lines {
            let mut words = line.split_whitespace();
            if words.next() != Some("given") {
                continue;
            }
            let id = word(&mut words)?;
            let is_repeated = word(&mut words)? == "true";
            let is_known = word(&mut words)? == "true";
            let violation = |text: &str| Err(format!("{text}: {line}").into());
            if !self.given.insert(id.to_owned()) {
                return violation("given twice to one process");
            }
            if is_known && !is_repeated {
                return violation("given again without the mark of a repeated one");
            }
            let was_delivered = self.delivered.get(id);
            if was_delivered.is_some_and(|order| *order < self.delivered_before) {
                return violation("given again after it was accepted");
            }
            self.total += 1;
            self.repeated += usize::from(is_repeated);
            self.again += usize::from(is_known);
        }
        Ok(())
    }

    /// Compares all with the records of the receiver.
    pub(crate) fn check(&self, records: &[Record]) -> Result {
        let mut last = None;
        let mut accepted = HashSet::new();
        for record in records {
            if last.is_some_and(|last| last >= record.number) {
                return Err(format!("after {last:?} comes {record:?}").into());
            }
            last = Some(record.number);
            accepted.insert(record.id.to_string());
        }
        let lost = |id: &&String| !accepted.contains(*id);
        let count = self.sent.keys().filter(lost).count();
        if count > 0 {
            let example = self.sent.iter().find(|(id, _)| lost(id));
            return Err(format!("{count} messages are lost, such as {example:?}").into());
        }
        if let Some(id) = self.delivered.keys().find(lost) {
            return Err(format!("{id} is said to be delivered, and was not accepted").into());
        }
        Ok(())
    }
}

fn word<'a>(words: &mut SplitWhitespace<'a>) -> Result<&'a str> {
    Ok(words.next().ok_or("a line that was cut off")?)
}

impl fmt::Display for Account {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            sent,
            total,
            repeated,
            again,
            ..
        } = self;
        let sent = sent.len();
        write!(
            f,
            "{sent} sent, {total} given, {repeated} of them marked as repeated, "
        )?;
        write!(f, "{again} again after a kill")
    }
}
