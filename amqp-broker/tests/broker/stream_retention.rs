//! The limits on the size of streams, and the memory that they occupy.

use amqp_broker::{Config, Limits};
use amqp_core::{ChannelId, wire::FieldValue};

use crate::{
    rig::{Rig, delete, tag},
    streams::{offsets, read_from, reader, stream},
};

/// A stream with segments of five messages of 100 bytes.
fn segmented(retention: (&str, FieldValue)) -> (Rig, usize, ChannelId) {
    let (mut rig, client, channel) = Rig::open();
    let segment = ("x-stream-max-segment-size-bytes", 1000.into());
    rig.declare(client, channel, &stream("s", [segment, retention]));
    (rig, client, channel)
}

fn fill(rig: &mut Rig, client: usize, channel: ChannelId, count: usize) {
    let body = "x".repeat(100);
    for _ in 0..count {
        rig.publish(client, channel, "s", &body);
    }
}

#[test]
fn retention_by_bytes_drops_whole_segments() {
    let (mut rig, client, channel) = segmented(("x-max-length-bytes", 2500.into()));
    fill(&mut rig, client, channel, 10);
    // A segment that follows another begins with a record of the broker.
    assert_eq!(
        read_from(&mut rig, client, "first"),
        [0, 1, 2, 3, 4, 6, 7, 8, 9, 10]
    );
    fill(&mut rig, client, channel, 5);
    assert_eq!(rig.inspect("s").ready, 15, "the last one does not count");
    fill(&mut rig, client, channel, 1);
    assert_eq!(
        read_from(&mut rig, client, "first"),
        [6, 7, 8, 9, 10, 12, 13, 14, 15, 16, 18]
    );
    assert_eq!(read_from(&mut rig, client, 2)[0], 6, "a dropped offset");
    assert_eq!(read_from(&mut rig, client, 11)[0], 12);
    assert_eq!(read_from(&mut rig, client, "last"), [18]);
}

#[test]
fn retention_by_age_waits_for_another_segment() {
    let (mut rig, client, channel) = segmented(("x-max-age", "1s".into()));
    fill(&mut rig, client, channel, 8);
    rig.advance(3000);
    assert_eq!(rig.inspect("s").ready, 8);
    fill(&mut rig, client, channel, 2);
    assert_eq!(rig.inspect("s").ready, 10);
    // The second segment has a new message; the first has none.
    fill(&mut rig, client, channel, 1);
    assert_eq!(read_from(&mut rig, client, "first"), [6, 7, 8, 9, 10, 12]);
}

/// A message is over age once it is older than the limit.
#[test]
fn a_message_of_the_maximum_age_is_kept() {
    for (age, kept) in [(1000, 11), (1001, 6)] {
        let (mut rig, client, channel) = segmented(("x-max-age", "1s".into()));
        fill(&mut rig, client, channel, 5);
        rig.advance(age);
        fill(&mut rig, client, channel, 6);
        assert_eq!(rig.inspect("s").ready, kept, "{age}");
    }
}

#[test]
fn a_reader_that_retention_overtakes_continues_with_the_first_message() {
    let (mut rig, client, channel) = segmented(("x-max-length-bytes", 1.into()));
    rig.qos(client, channel, 1, false);
    rig.consume(client, channel, reader("s", "c", "first"))
        .unwrap();
    fill(&mut rig, client, channel, 14);
    assert_eq!(offsets(&mut rig, client), [0]);
    rig.ack(client, channel, tag(1));
    assert_eq!(offsets(&mut rig, client), [12]);
}

#[test]
fn the_messages_of_a_stream_count_as_memory() {
    let mut rig = Rig::with(Config::default().limits(Limits::default().memory(10_000)));
    let client = rig.connect();
    let channel = rig.channel(client);
    rig.declare(client, channel, &stream("s", []));
    let body = "x".repeat(4000);
    for _ in 0..3 {
        rig.publish(client, channel, "s", &body);
    }
    assert!(rig.broker.inspect().memory_alarm);
    let other = rig.connect();
    rig.try_call(other, &delete("s")).unwrap();
    assert!(!rig.broker.inspect().memory_alarm);
}
