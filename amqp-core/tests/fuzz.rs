//! The bodies that fuzzers run, from seeds: bytes of chance, and recorded streams with damage.
//!
//! A failure names its seed; `AMQP_FUZZ_SEED` begins there, and `AMQP_FUZZ_RUNS` makes it more.

use std::{env, fs, path::Path};

use amqp_core::{
    frame::{Frame, PROTOCOL_HEADER},
    protocol::RULES,
};
use amqp_test_support::{meter, pair, replay};

use meter::peak_of;
use replay::Outcome;

#[global_allocator]
static COUNTING: meter::Counting = meter::Counting;

/// The memory of a side beyond a few bytes for each byte of input.
const ROOM: usize = 512 << 10;

/// Numbers of chance (splitmix64).
struct Chance(u64);

impl Chance {
    fn number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, end: usize) -> usize {
        (self.number() % end.max(1) as u64) as usize
    }

    fn bytes(&mut self, len: usize) -> Vec<u8> {
        (0..len).map(|_| self.number() as u8).collect()
    }
}

/// The seeds of a test that has so many runs, unless the environment sets them.
fn seeds(runs: u64) -> impl Iterator<Item = u64> {
    let number =
        |name, default| env::var(name).map_or(default, |text| text.parse().expect("a number"));
    let first = number("AMQP_FUZZ_SEED", 0);
    first..first + number("AMQP_FUZZ_RUNS", runs)
}

/// Feeds a stream to one side, whole frames at a time and in pieces, and compares the results.
fn play(name: &str, pieces: usize, stream: &[u8], side: fn(usize, &[u8]) -> Outcome) -> Outcome {
    let (whole, peak) = peak_of(|| side(0, stream));
    // A field of a table takes some 40 bytes, and may come as one.
    let allowed = ROOM + 200 * stream.len();
    assert!(peak <= allowed, "{name}: {peak} of {allowed} bytes");
    let (cut, peak) = peak_of(|| side(pieces, stream));
    assert!(peak <= allowed, "{name}: {peak} of {allowed} bytes");
    assert_eq!(cut, whole, "{name}: in pieces of {pieces} bytes");
    whole
}

fn play_both(name: &str, pieces: usize, stream: &[u8]) {
    play(&format!("{name}, client"), pieces, stream, replay::client);
    play(&format!("{name}, server"), pieces, stream, replay::server);
    let behind_header = [&PROTOCOL_HEADER, stream].concat();
    let name = format!("{name}, server behind the header");
    play(&name, pieces, &behind_header, replay::server);
}

#[test]
fn bytes_of_chance() {
    for seed in seeds(3000) {
        let mut chance = Chance(seed);
        let len = chance.below(2000);
        let mut stream = chance.bytes(len);
        // Mostly they begin as if they were frames.
        if !seed.is_multiple_of(4) && len > 7 {
            stream[0] = 1 + chance.below(3) as u8;
            stream[1..7].copy_from_slice(&[
                0,
                chance.below(3) as u8,
                0,
                0,
                chance.below(8) as u8,
                0,
            ]);
        }
        let pieces = 1 + chance.below(50);
        play_both(&format!("seed {seed}"), pieces, &stream);
    }
}

/// Well-formed frames with random payloads.
#[test]
fn frames_of_chance() {
    for seed in seeds(3000) {
        let mut chance = Chance(seed);
        let mut stream = Vec::new();
        for _ in 0..1 + chance.below(12) {
            let kind = [1, 1, 1, 2, 3, 8][chance.below(6)];
            let len = chance.below(60);
            let mut payload = chance.bytes(len);
            if kind == 1 {
                let id = RULES[chance.below(RULES.len())].id;
                let numbers = [id.class.to_be_bytes(), id.method.to_be_bytes()].concat();
                payload.splice(..0, numbers);
            } else if kind == 2 {
                let body_size = chance.below(100) as u8;
                payload.splice(..0, [0, 60, 0, 0, 0, 0, 0, 0, 0, 0, 0, body_size]);
            }
            stream.push(kind);
            stream.extend((chance.below(3) as u16).to_be_bytes());
            stream.extend((payload.len() as u32).to_be_bytes());
            stream.extend(payload);
            stream.push(0xCE);
        }
        play_both(&format!("seed {seed}"), 1 + chance.below(20), &stream);
    }
}

/// The recorded streams of one kind, each as its frames.
fn recorded(extension: &str) -> Vec<Vec<Vec<u8>>> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/captures");
    let mut paths: Vec<_> = fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|it| it == extension))
        .collect();
    paths.sort();
    let streams = paths.into_iter().map(|path| {
        let bytes = fs::read(path).unwrap();
        let mut rest = bytes.strip_prefix(&PROTOCOL_HEADER).unwrap_or(&bytes);
        let mut frames = Vec::new();
        while let Some(frame) = Frame::parse(rest, u32::MAX).unwrap() {
            let (frame, behind) = rest.split_at(frame.len());
            frames.push(frame.to_vec());
            rest = behind;
        }
        frames
    });
    streams.collect()
}

/// Does one thing to a stream that its sender did not.
fn damage(chance: &mut Chance, frames: &mut Vec<Vec<u8>>) {
    let at = chance.below(frames.len());
    let other = chance.below(frames.len());
    if frames.get(at).is_none_or(|frame| frame.len() < 8) {
        return;
    }
    match chance.below(9) {
        0 => {
            let frame = &mut frames[at];
            let octet = chance.below(frame.len());
            frame[octet] ^= 1 << chance.below(8);
        }
        1 => {
            let frame = &mut frames[at];
            let octet = chance.below(frame.len());
            frame[octet] = [0, 1, 0x7f, 0x80, 0xCE, 0xff][chance.below(6)];
        }
        2 => {
            let len = chance.below(frames[at].len());
            frames[at].truncate(len);
        }
        3 => drop(frames.remove(at)),
        4 => {
            let frame = frames[at].clone();
            frames.insert(other, frame);
        }
        5 => frames.swap(at, other),
        6 => frames[at][2] = chance.below(4) as u8,
        7 => {
            let len = 1 + chance.below(20);
            let noise = chance.bytes(len);
            frames.insert(at, noise);
        }
        // A payload that is shorter than it was, in a frame that is right.
        _ => {
            let frame = &mut frames[at];
            let payload = frame.len() - 8;
            let len = chance.below(payload + 1);
            frame.truncate(7 + len);
            frame.push(0xCE);
            frame[3..7].copy_from_slice(&(len as u32).to_be_bytes());
        }
    }
}

fn damaged(extension: &str, header: &[u8], runs: u64, side: fn(usize, &[u8]) -> Outcome) {
    let streams = recorded(extension);
    assert!(!streams.is_empty());
    let (mut events, mut failed) = (0, 0);
    for seed in seeds(runs) {
        let mut chance = Chance(seed);
        let mut frames = streams[chance.below(streams.len())].clone();
        for _ in 0..1 + chance.below(3) {
            damage(&mut chance, &mut frames);
        }
        let stream = [header, &frames.concat()].concat();
        let pieces = 1 + chance.below(300);
        let outcome = play(&format!("seed {seed}"), pieces, &stream, side);
        events += outcome.events;
        failed += usize::from(outcome.reason.is_some_and(|it| it.by_peer().is_none()));
    }
    println!("{runs} streams: {events} events, {failed} ended otherwise than by the peer's close");
}

#[test]
fn damaged_streams_of_a_server() {
    damaged("s2c", &[], 1500, replay::client);
}

#[test]
fn damaged_streams_of_a_client() {
    damaged("c2s", &PROTOCOL_HEADER, 1500, replay::server);
}

/// Lists of things to do, on a good line and on a bad one.
fn work(parity: u8, runs: u64) {
    for seed in seeds(runs) {
        let mut chance = Chance(seed);
        let len = 50 + chance.below(400);
        let mut script = chance.bytes(len);
        script[0] = script[0] & !1 | parity;
        println!("seed {seed}");
        pair::pair(&script);
    }
}

#[test]
fn a_pair_at_work_on_a_good_line() {
    work(0, 1500);
}

#[test]
fn a_pair_at_work_on_a_bad_line() {
    work(1, 1500);
}
