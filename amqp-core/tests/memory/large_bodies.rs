//! A large body is held once, whatever the sizes of the reads and of the frames that it comes in.

use std::iter;

use amqp_core::{Body, FRAME_OVERHEAD, client, server};
use amqp_test_support::meter::peak_of;

use crate::rig::{Machine, NOW, Side, begin, body, header, open_pair};
use bytes::BytesMut;

/// The length of a body: large enough that buffers beside it do not matter.
const LEN: usize = 8 << 20;

/// The memory beside the body, in bytes: the part of read buffers that smaller messages may waste,
/// and a few buffers.
const BESIDE: usize = 2 << 20;

/// The frame limit of the sides, in bytes.
const FRAME_MAX: usize = 128 << 10;

/// The sizes of reads, in bytes.
const READS: [usize; 9] = [
    100,
    1000,
    4 << 10,
    10_007,
    64 << 10,
    99_991,
    128 << 10,
    200_003,
    1 << 20,
];

/// The payloads of body frames, in bytes.
const PAYLOADS: [usize; 9] = [
    1000,
    4088,
    8000,
    17_000,
    43_000,
    64 << 10,
    80_000,
    100_000,
    FRAME_MAX - FRAME_OVERHEAD,
];

/// Feeds a message of `len` bytes, in frames with `payload` bytes each and in reads of `read` bytes.
/// Returns its body.
fn receive(side: &mut Side, len: usize, payload: usize, read: usize) -> Body {
    let mut head = begin(side, 1, 1);
    head.unsplit(header(1, len as u64, &[0, 0]));
    let whole = body(1, &vec![7; payload]);
    let last = body(1, &vec![7; len % payload]);
    let count = len / payload;
    let mut pieces = [&head[..]]
        .into_iter()
        .chain((0..count).map(|_| &whole[..]))
        .chain((last.len() > FRAME_OVERHEAD).then_some(&last[..]));
    let (mut rest, mut input) = (&[][..], BytesMut::new());
    loop {
        input.reserve(read);
        let end = input.len() + read;
        while input.len() < end {
            if rest.is_empty() {
                match pieces.next() {
                    Some(piece) => rest = piece,
                    None => break,
                }
            }
            let (front, behind) = rest.split_at(rest.len().min(end - input.len()));
            input.extend_from_slice(front);
            rest = behind;
        }
        let message = match &mut side.machine {
            Machine::Client(client) => {
                client.handle_input(NOW, &mut input);
                iter::from_fn(|| client.poll_event()).find_map(|event| match event {
                    client::Event::Delivered(delivery) => Some(delivery.content.body),
                    _ => None,
                })
            }
            Machine::Server(server) => {
                server.handle_input(NOW, &mut input);
                iter::from_fn(|| server.poll_event()).find_map(|event| match event {
                    server::Event::Published(published) => Some(published.content.body),
                    _ => None,
                })
            }
        };
        if let Some(body) = message {
            return body;
        }
    }
}

fn check(len: usize, payload: usize, read: usize) {
    let sevens = vec![7; 2 << 20];
    for mut side in open_pair(server::Config::default()) {
        let (body, peak) = peak_of(|| receive(&mut side, len, payload, read));
        let role = side.role();
        assert_eq!(body.len(), len);
        assert!(body.pieces().all(|piece| sevens.starts_with(piece)));
        let allowed = len + len * 3 / 20 + BESIDE;
        assert!(
            peak <= allowed,
            "{role}, frames of {payload}, reads of {read}: {peak} of {allowed} bytes, {:.2} times",
            peak as f64 / len as f64
        );
    }
}

#[test]
fn a_large_body_is_held_once() {
    for payload in PAYLOADS {
        for read in READS {
            check(LEN, payload, read);
        }
    }
}

#[test]
fn a_large_body_read_octet_by_octet_is_held_once() {
    for payload in [8000, 100_000] {
        check(4 << 20, payload, 1);
    }
}
