//! Streams: append-only logs, which consumers read without removing messages
//! (<https://www.rabbitmq.com/docs/streams>).

use alloc::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::Arc,
    vec::Vec,
};

use amqp_core::{
    EncodedProperties,
    protocol::basic::Properties,
    wire::{FieldTable, FieldValue},
};

use super::message::{Envelope, MemoryMeter, Message};
use crate::refusal::{Outcome, Refusal, Resource};

/// The maximum size of a segment, in bytes, unless the queue sets another.
const SEGMENT_BYTES: u64 = 500_000_000;

/// The maximum number of messages in a segment.
const SEGMENT_MESSAGES: usize = 256_000;

/// The approximate size of a stored message in addition to its body, properties and names, in
/// bytes: the header of its chunk, and its annotations.
const STORED_OVERHEAD: usize = 112;

/// The log of a stream. Offsets ascend, without gaps within a segment.
#[derive(Debug)]
pub(crate) struct Stream {
    retention: Retention,
    /// The segments, from the oldest. Only the last one may be empty.
    segments: VecDeque<Segment>,
    /// The number of messages in all segments.
    len: usize,
    /// The offset of the next message.
    next: u64,
}

/// The limits on the size of a stream. A whole segment is dropped at a time, never the last one,
/// and only when another one begins (<https://www.rabbitmq.com/docs/streams#retention>).
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Retention {
    /// The maximum size of the log, in bytes.
    pub(crate) max_bytes: Option<u64>,
    /// The maximum age of the last message of a segment, in milliseconds.
    pub(crate) max_age: Option<u64>,
    /// The size of a segment at which another one begins, in bytes.
    pub(crate) segment_bytes: Option<u64>,
}

#[derive(Debug)]
struct Segment {
    /// The offset of its first message.
    first: u64,
    records: Vec<Record>,
    bytes: u64,
}

/// A message in a log.
#[derive(Debug)]
pub(crate) struct Record {
    /// The time of its arrival, in milliseconds since the Unix epoch.
    pub(crate) timestamp: u64,
    pub(crate) message: Arc<Message>,
}

/// The bounds of a log: they change with its segments.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Bounds {
    /// The first offset of the oldest segment.
    pub(crate) oldest: u64,
    /// The first offset of the last segment.
    pub(crate) last: u64,
}

/// The contents of a log by offset, from which it is restored.
#[derive(Debug, Default)]
pub(crate) struct Contents {
    /// The first offsets of the segments after the first.
    pub(crate) segments: BTreeSet<u64>,
    pub(crate) records: BTreeMap<u64, Record>,
}

impl Segment {
    const fn new(first: u64) -> Self {
        Self {
            first,
            records: Vec::new(),
            bytes: 0,
        }
    }
}

impl Stream {
    pub(crate) fn new(retention: Retention) -> Self {
        Self {
            retention,
            segments: VecDeque::from([Segment::new(0)]),
            len: 0,
            next: 0,
        }
    }

    /// Sets the limits on the size, and drops the segments beyond them at `now`, in milliseconds
    /// since the Unix epoch.
    pub(crate) fn set_retention(&mut self, retention: Retention, now: u64) {
        self.retention = retention;
        self.roll(now);
        self.drop_segments(now);
    }

    /// Replaces the contents. Returns the first offset without its message, if there is a gap within
    /// a segment.
    pub(crate) fn restore(&mut self, mut contents: Contents) -> Result<(), u64> {
        let mut segments = VecDeque::from([Segment::new(0)]);
        for first in contents.segments {
            if first > 0 {
                segments.push_back(Segment::new(first));
            }
        }
        self.len = contents.records.len();
        for segment in segments.iter_mut().rev() {
            let mut expected = segment.first;
            for (offset, record) in contents.records.split_off(&segment.first) {
                if offset != expected {
                    return Err(expected);
                }
                segment.bytes += stored_size(&record.message);
                segment.records.push(record);
                expected = expected.saturating_add(1);
            }
        }
        // Only the last one may be empty: the others are dropped.
        let mut following = segments.len();
        segments.retain(|segment| {
            following -= 1;
            following == 0 || !segment.records.is_empty()
        });
        let last = segments.back();
        let next = |last: &Segment| last.first.saturating_add(last.records.len() as u64);
        self.next = last.map_or(0, next);
        self.segments = segments;
        Ok(())
    }

    /// Returns the first offset of each segment, with its messages.
    pub(crate) fn segments(&self) -> impl Iterator<Item = (u64, &[Record])> {
        let segments = self.segments.iter();
        segments.map(|segment| (segment.first, &segment.records[..]))
    }

    /// Returns the bounds.
    pub(crate) fn bounds(&self) -> Bounds {
        let first = |segment: Option<&Segment>| segment.map_or(self.next, |segment| segment.first);
        Bounds {
            oldest: first(self.segments.front()),
            last: first(self.segments.back()),
        }
    }

    /// Returns the number of messages.
    pub(crate) const fn len(&self) -> usize {
        self.len
    }

    /// Appends a message that arrives at `now`, in milliseconds since the Unix epoch. Returns its
    /// offset.
    ///
    /// A segment that follows another begins with a record of the broker, which takes an offset, as
    /// in RabbitMQ.
    pub(crate) fn append(&mut self, message: Arc<Message>, now: u64) -> u64 {
        self.roll(now);
        let offset = self.next;
        if let Some(last) = self.segments.back_mut() {
            last.bytes += stored_size(&message);
            let timestamp = now;
            last.records.push(Record { timestamp, message });
            self.next += 1;
            self.len += 1;
        }
        offset
    }

    /// Begins another segment if the last one is full.
    fn roll(&mut self, now: u64) {
        let limit = self.retention.segment_bytes.unwrap_or(SEGMENT_BYTES);
        let is_full = self.segments.back().is_none_or(|last| {
            !last.records.is_empty()
                && (last.bytes >= limit || last.records.len() >= SEGMENT_MESSAGES)
        });
        if is_full {
            self.next += 1;
            self.segments.push_back(Segment::new(self.next));
            self.drop_segments(now);
        }
    }

    /// Drops the oldest segments beyond the retention limits.
    fn drop_segments(&mut self, now: u64) {
        let mut kept = self.segments.len();
        if let Some(mut room) = self.retention.max_bytes {
            let sizes = self.segments.iter().rev().map(|segment| segment.bytes);
            kept = sizes
                .take_while(|bytes| {
                    let fits = *bytes <= room;
                    room = room.saturating_sub(*bytes);
                    fits
                })
                .count();
        }
        while self.segments.len() > kept.max(1) || self.is_oldest_expired(now) {
            let Some(gone) = self.segments.pop_front() else {
                return;
            };
            self.len -= gone.records.len();
        }
    }

    /// Returns whether the last message of the oldest segment is over age, and another segment
    /// follows.
    fn is_oldest_expired(&self, now: u64) -> bool {
        let (Some(age), Some(oldest)) = (self.retention.max_age, self.segments.front()) else {
            return false;
        };
        let last = oldest.records.last();
        self.segments.len() > 1 && last.is_some_and(|last| last.timestamp < now.saturating_sub(age))
    }

    /// Returns all messages, the oldest first.
    pub(crate) fn messages(&self) -> impl Iterator<Item = &Arc<Message>> {
        let records = self.segments.iter().flat_map(|segment| &segment.records);
        records.map(|record| &record.message)
    }

    /// Returns the first message at or after an offset, with its own offset.
    pub(crate) fn read(&self, from: u64) -> Option<(u64, &Arc<Message>)> {
        let after = self
            .segments
            .partition_point(|segment| segment.first <= from);
        let in_segment = after.checked_sub(1).and_then(|at| {
            let segment = self.segments.get(at)?;
            let index = usize::try_from(from - segment.first).ok()?;
            Some((from, segment.records.get(index)?))
        });
        let found = in_segment.or_else(|| {
            let segment = self.segments.get(after)?;
            Some((segment.first, segment.records.first()?))
        });
        found.map(|(offset, record)| (offset, &record.message))
    }

    /// Returns the offset at which a consumer starts
    /// (<https://www.rabbitmq.com/docs/streams#consuming>).
    pub(crate) fn start(&self, at: StartAt) -> u64 {
        match at {
            StartAt::First => self.segments.front().map_or(self.next, |first| first.first),
            StartAt::Last if self.len > 0 => {
                // An empty last segment occurs only in an empty log.
                self.next.saturating_sub(1)
            }
            StartAt::Last | StartAt::Next => self.next,
            StartAt::Offset(offset) => offset,
            StartAt::Time(time) => self.first_since(time),
        }
    }

    /// Returns the offset of the first message that arrived at a time or later.
    fn first_since(&self, time: u64) -> u64 {
        let is_older = |record: &Record| record.timestamp < time;
        let at = self
            .segments
            .partition_point(|segment| segment.records.last().is_some_and(is_older));
        self.segments.get(at).map_or(self.next, |segment| {
            segment.first + segment.records.partition_point(is_older) as u64
        })
    }
}

/// Returns the approximate size of a message in the log of RabbitMQ, in bytes.
fn stored_size(message: &Message) -> u64 {
    let names = message.exchange.len() + message.routing_key.len();
    let content = message.properties.as_bytes().len() + message.body.len();
    (STORED_OVERHEAD + names + content) as u64
}

/// The position at which a consumer starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum StartAt {
    First,
    Last,
    Next,
    /// An offset; one that was dropped means the first one.
    Offset(u64),
    /// A time, in milliseconds since the Unix epoch.
    Time(u64),
}

impl StartAt {
    pub(crate) const ARGUMENT: &str = "x-stream-offset";

    /// Parses the argument of a consumer, at a time in milliseconds since the Unix epoch. A value
    /// that crashes the channel in RabbitMQ is refused with 541 (internal-error) without further
    /// text, as there.
    pub(crate) fn read(arguments: &FieldTable, queue: &Resource<'_>, now: u64) -> Outcome<Self> {
        let Some(value) = arguments.get(Self::ARGUMENT) else {
            return Ok(Self::Next);
        };
        match value.as_bytes() {
            Some(b"first") => return Ok(Self::First),
            Some(b"last") => return Ok(Self::Last),
            Some(b"next") => return Ok(Self::Next),
            _ => {}
        }
        match value {
            FieldValue::Timestamp(seconds) => Ok(Self::Time(seconds.0.saturating_mul(1000))),
            FieldValue::LongStr(text) => match parse_interval(text.as_bytes())? {
                Some(interval) => Ok(Self::Time(now.saturating_sub(interval))),
                None => Err(Refusal::argument(
                    Self::ARGUMENT,
                    queue,
                    format_args!(
                        "{{invalid_stream_offset_arg,{{longstr,<<\"{}\">>}}}}",
                        text.to_str_lossy()
                    ),
                )),
            },
            other => match other.as_i64() {
                // A negative offset is before the first one.
                Some(offset) => Ok(Self::Offset(u64::try_from(offset).unwrap_or(0))),
                None => Err(Refusal::internal()),
            },
        }
    }
}

/// Parses an interval such as `1h`, in milliseconds: `None` if its number is zero or its unit is
/// unknown. Without a number RabbitMQ's channel crashes, see [`StartAt::read`].
pub(crate) fn parse_interval(text: &[u8]) -> Outcome<Option<u64>> {
    let len = text.iter().take_while(|byte| byte.is_ascii_digit()).count();
    let (digits, unit) = text.split_at_checked(len).unwrap_or((text, &[]));
    if digits.is_empty() {
        return Err(Refusal::internal());
    }
    let number = digits.iter().fold(0_u64, |number, digit| {
        let digit = u64::from(digit.saturating_sub(b'0'));
        number.saturating_mul(10).saturating_add(digit)
    });
    let seconds: u64 = match unit {
        b"Y" => 365 * 24 * 60 * 60,
        b"M" => 30 * 24 * 60 * 60,
        b"D" => 24 * 60 * 60,
        b"h" => 60 * 60,
        b"m" => 60,
        b"s" => 1,
        _ => return Ok(None),
    };
    Ok((number > 0).then(|| number.saturating_mul(seconds * 1000)))
}

/// Converts a message to the form in which a stream keeps it: without the reserved property (`cluster-id`), and without
/// headers that are tables or arrays (<https://www.rabbitmq.com/docs/streams#limitations>).
pub(crate) fn to_stored(message: &Arc<Message>, memory: &MemoryMeter) -> Arc<Message> {
    if message.properties.is_empty() {
        return message.clone();
    }
    let mut properties = message.decode_properties();
    if !remove_unsupported(&mut properties) {
        return message.clone();
    }
    let envelope = Envelope {
        exchange: message.exchange.clone(),
        routing_key: message.routing_key.clone(),
        more_keys: Vec::new(),
        priority: message.priority,
        expiration: message.expiration,
        persistent: message.persistent,
    };
    let properties = EncodedProperties::from(&properties);
    Message::new(envelope, properties, message.body.clone(), memory)
}

/// Removes the properties and headers that a stream does not keep. Returns `false` if there are
/// none.
fn remove_unsupported(properties: &mut Properties) -> bool {
    let is_kept =
        |value: &FieldValue| !matches!(value, FieldValue::Table(_) | FieldValue::Array(_));
    let mut removed = properties.reserved.take().is_some();
    if let Some(headers) = &properties.headers
        && !headers.iter().all(|(_, value)| is_kept(value))
    {
        let kept = headers.iter().filter(|(_, value)| is_kept(value));
        let kept: FieldTable = kept
            .map(|(name, value)| (name.clone(), value.clone()))
            .collect();
        properties.headers = (!kept.is_empty()).then_some(kept);
        removed = true;
    }
    removed
}

#[cfg(test)]
mod tests {
    use amqp_core::{Body, wire::ShortStr};

    use super::*;

    fn message() -> Arc<Message> {
        let envelope = Envelope {
            exchange: ShortStr::from_static("ex").unwrap(),
            routing_key: ShortStr::from_static("key").unwrap(),
            more_keys: Vec::new(),
            priority: 0,
            expiration: None,
            persistent: true,
        };
        let properties = EncodedProperties::from(&Properties::default().persistent());
        let body = Body::from("seven..");
        Message::new(envelope, properties, body, &MemoryMeter::default())
    }

    /// The first offsets of the segments of a log with two of these messages.
    fn segments(segment_bytes: u64) -> Vec<u64> {
        let mut stream = Stream::new(Retention {
            segment_bytes: Some(segment_bytes),
            ..Retention::default()
        });
        stream.append(message(), 0);
        stream.append(message(), 0);
        stream.segments().map(|(first, _)| first).collect()
    }

    #[test]
    fn names_properties_and_body_fill_a_segment() {
        let properties = message().properties.as_bytes().len();
        let size = (STORED_OVERHEAD + 2 + 3 + properties + 7) as u64;
        assert_eq!(segments(size), [0, 2]);
        assert_eq!(segments(size + 1), [0]);
    }

    #[test]
    fn an_interval_is_a_number_of_a_unit() {
        let parse = |text: &str| parse_interval(text.as_bytes()).ok();
        for (text, seconds) in [
            ("1Y", 31_536_000),
            ("2M", 5_184_000),
            ("3D", 259_200),
            ("4h", 14_400),
            ("50m", 3000),
            ("67s", 67),
        ] {
            assert_eq!(parse(text), Some(Some(seconds * 1000)), "{text}");
        }
        for text in ["0s", "1", "1w", "1 s"] {
            assert_eq!(parse(text), Some(None), "{text}");
        }
        assert_eq!(parse("s"), None);
        assert_eq!(parse(""), None);
    }
}
