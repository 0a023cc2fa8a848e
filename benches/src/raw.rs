//! A raw socket with frames encoded in advance: the upper bound of any client on this socket.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpStream};

use crate::clock::{Sample, Stopwatch};
use crate::load::{ACK_EVERY, BODY};
use crate::{Result, sink, wire};

/// How much is written at a time, in bytes.
const WRITE: usize = 64 << 10;

/// How much is read at a time, in bytes.
const READ: usize = 128 << 10;

/// Publishes at least `count` messages.
pub(crate) fn publish(port: u16, count: u64) -> Result<Sample> {
    let mut socket = open(port)?;
    let mut block = Vec::new();
    let mut in_block = 0;
    while block.len() < WRITE {
        wire::put_publish(&mut block, 1, &BODY);
        in_block += 1;
    }
    let blocks = count.div_ceil(in_block);
    let watch = Stopwatch::start();
    for _ in 0..blocks {
        socket.write_all(&block)?;
    }
    let (published, _) = counts(&mut socket)?;
    let sample = watch.stop(blocks * in_block);
    if u64::from(published) != sample.messages {
        return Err(format!("{published} messages arrived of {}", sample.messages).into());
    }
    Ok(sample)
}

/// Receives `count` messages.
pub(crate) fn consume(port: u16, count: u64) -> Result<Sample> {
    let mut socket = open(port)?;
    let len = wire::delivery_len(&BODY) as u64;
    let mut expected = Vec::new();
    wire::put_consume_ok(&mut expected, 1, wire::CONSUMER_TAG);
    let mut out = Vec::new();
    wire::put_consume(&mut out, 1, &sink::blast_queue(count, BODY.len(), 1));
    let mut buffer = vec![0; READ];

    let watch = Stopwatch::start();
    socket.write_all(&out)?;
    socket.read_exact(&mut expected)?;
    let (mut received, mut acks) = (0, 0);
    while received < count * len {
        let read = socket.read(&mut buffer)?;
        if read == 0 {
            return Err("the server hung up".into());
        }
        received += read as u64;
        let due = received / len / ACK_EVERY;
        if due > acks {
            out.clear();
            for ack in acks + 1..=due {
                wire::put_ack(&mut out, 1, ack * ACK_EVERY);
            }
            acks = due;
            socket.write_all(&out)?;
        }
    }
    let (_, acked) = counts(&mut socket)?;
    let sample = watch.stop(count);
    if u64::from(acked) != count / ACK_EVERY {
        return Err(format!("{acked} acknowledgements arrived of {acks}").into());
    }
    Ok(sample)
}

/// A connection with one channel.
fn open(port: u16) -> Result<TcpStream> {
    let mut socket = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
    socket.set_nodelay(true)?;
    let mut answers = Vec::new();
    wire::put_start(&mut answers);
    wire::put_tune(&mut answers);
    wire::put_open_ok(&mut answers);
    wire::put_channel_open_ok(&mut answers, 1);
    let mut out = wire::PROTOCOL_HEADER.to_vec();
    wire::put_client_handshake(&mut out);
    wire::put_channel_open(&mut out, 1);
    socket.write_all(&out)?;
    socket.read_exact(&mut answers)?;
    Ok(socket)
}

/// How many publishes and acknowledgements the server has counted.
fn counts(socket: &mut TcpStream) -> Result<(u32, u32)> {
    let mut out = Vec::new();
    wire::put_count(&mut out, 1);
    socket.write_all(&out)?;
    // The name of the queue, then two counts, then the end of the frame.
    let mut answer = vec![0; wire::FRAME_OVERHEAD + 4 + 1 + wire::ROUTING_KEY.len() + 8];
    socket.read_exact(&mut answer)?;
    let number = |from_end: usize| {
        let at = answer.len() - from_end;
        let bytes = answer.get(at..at + 4).and_then(|bytes| bytes.first_chunk());
        bytes.map_or(0, |&bytes| u32::from_be_bytes(bytes))
    };
    Ok((number(9), number(5)))
}
