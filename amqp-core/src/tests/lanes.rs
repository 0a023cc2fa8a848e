//! How the lanes of the output share what leaves: no channel starves another one.

use alloc::{vec, vec::Vec};

use super::script::*;
use crate::{
    ChannelId, PublishError,
    client::{Config, Connection},
    protocol::basic,
};

type Client = Script<Connection>;

/// Publishes a body of that many bytes.
fn publish_len(client: &mut Client, id: ChannelId, len: usize) -> Result<(), PublishError> {
    let properties = basic::Properties::default();
    let mut on = client.on(id);
    on.publish(&publish("q"), &properties, vec![7; len])?;
    Ok(())
}

/// The bytes of body frames per channel number, below 100.
fn body_bytes(sent: &[Sent]) -> Vec<usize> {
    let mut bytes = vec![0; 100];
    for sent in sent {
        if let What::Body(body) = &sent.what {
            bytes[usize::from(sent.channel)] += body.len();
        }
    }
    bytes
}

/// An open client with that `output_high`.
fn with_high(output_high: usize) -> Client {
    let mut config = Config::default();
    config.limits.output_high = output_high;
    Client::open_with(config)
}

#[test]
fn a_large_message_leaves_beside_a_busy_channel_with_any_output_high() {
    const LARGE: usize = 1 << 20;
    for output_high in [64 << 10, 256 << 10, 4 << 20, 64 << 20] {
        let mut client = with_high(output_high);
        let (busy, large) = (client.channel(), client.channel());
        publish_len(&mut client, large, LARGE).unwrap();
        let (mut taken, mut calls) = (vec![0; 3], 0);
        while taken[2] < LARGE {
            for _ in 0..300 {
                let _full = publish_len(&mut client, busy, 1000);
            }
            let sent = body_bytes(&frames(&client.bytes_once()));
            // As many bytes of the large message leave as of the other channel.
            assert!(sent[2] >= sent[1].min(LARGE - taken[2]), "{sent:?}");
            assert!(sent[1] > 0);
            taken[2] += sent[2];
            calls += 1;
            assert!(calls < 100, "{} bytes after {calls} calls", taken[2]);
        }
    }
}

#[test]
fn a_small_publish_is_accepted_and_leaves_beside_a_large_message_of_another_channel() {
    let mut client = Client::open();
    let (large, small) = (client.channel(), client.channel());
    publish_len(&mut client, large, 8 << 20).unwrap();
    let mut calls = 0;
    while client.conn.has_transmit() {
        let sent = frames(&client.bytes_once());
        if calls > 0 {
            assert_eq!(sent[..3], content(small.number(), publish("queue"), b"x"));
        }
        client.publish(small, b"x");
        calls += 1;
        if calls > 20 {
            return;
        }
    }
    panic!("it left in {calls} calls");
}
